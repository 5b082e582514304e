"""What a step says of being cached."""

from __future__ import annotations

from dataclasses import dataclass

from odibi_async.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """
    How a step is cached: `step(cache=CachePolicy(ttl=3600))`. `cache=True` means one with all defaults.

    Attributes:
        ttl: Seconds after which what was kept is not used any more; `None` for as long as the cache says.
        version: Stands for the code of the function in the key: change it when the function means something else.
            `None`: the code itself is looked at, with all that it reaches.
        ignore: Parameters that make no difference to the result, such as a connection; the key leaves them out.
    """

    ttl: float | None = None
    version: str | int | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ttl is not None and not self.ttl > 0:
            raise OptionError(f"CachePolicy: ttl={self.ttl!r}: seconds above 0 are needed.")
        ignored = (self.ignore,) if isinstance(self.ignore, str) else tuple(self.ignore)
        object.__setattr__(self, "ignore", ignored)
