"""A configuration as it was read: its steps, and where each entry stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from odibi_async.config.formats.source import Keys, Source
from odibi_async.steps import Step


class _Anything:
    """Stands for what a faulty step would call, so that the other faults of its graph are found too."""

    def __call__(self, /, **_: Any) -> Any: ...


ANYTHING: Final = _Anything()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """
    What a configuration says.

    Attributes:
        name: What it calls itself; `None` when it does not, as in tables and bare lists.
        version: The version of its form; there is only 1.
        schedule: When it is to run: a cron expression, or a mapping; `None` where it does not say it.
        cache: `True` for the user's cache, or a directory; `None` where it leaves that to the run.
        steps: Its steps, in order; of a configuration with faults, without the entries that are faulty.
        source: What it was read from.
        keys: The name of each step -> what leads to it in the source.
        secrets: The values of `${env:...}` and `${file:...}`.
        faulty: The names of what steps would make that are left out, since too much of them is faulty.
    """

    name: str | None = None
    version: int = 1
    schedule: Any = None
    cache: bool | str | None = None
    steps: tuple[Step[..., Any, Any], ...] = ()
    source: Source = field(default_factory=lambda: Source("<rows>", []), repr=False, compare=False)
    keys: Mapping[str, Keys] = field(default_factory=dict, repr=False, compare=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    faulty: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def place(self, step: str, keys: Keys = (), of_key: bool = False) -> str:
        """
        Where an entry of a step stands, or (`of_key`) its key; see `Fault.place`.

        Entries left to the defaults are in the defaults. Empty for a step from elsewhere.
        """
        if step not in self.keys:
            return ""
        above = self.keys[step]
        if keys and len(above) == 2:  # in a mapping, which may have defaults
            given, (_, index) = self.source.value, above
            if keys[0] not in given["steps"][index] and keys[0] in (given.get("defaults") or ()):
                above = ("defaults",)
        return self.source.place((*above, *keys), of_key)
