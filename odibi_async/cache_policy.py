"""What a step says of being cached."""

from __future__ import annotations

from dataclasses import dataclass

from odibi_async.durations import seconds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """
    How a step is cached: `step(cache=CachePolicy(ttl=3600))`. `cache=True` means one with all defaults.

    Attributes:
        ttl: Seconds after which what was kept is not used any more; `None` for as long as the cache says.
        version: Stands for the code of the function in the key: change it when the function means something else.
            `None`: the code itself is looked at, with all that it reaches.
        ignore: Parameters that make no difference to the result, such as a connection; the key leaves them out.
        files: What the function reads: parameters that hold paths, or paths. What these files hold belongs to the key.
        env: Environment variables that the function reads; what they say belongs to the key.
    """

    ttl: float | None = None
    version: str | int | None = None
    ignore: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ttl", seconds_of("CachePolicy: ttl", self.ttl, above_zero=True))
        for name in ("ignore", "files", "env"):
            names = getattr(self, name)
            object.__setattr__(self, name, (names,) if isinstance(names, str) else tuple(map(str, names)))
