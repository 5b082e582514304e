"""How often entries are found and missed, until it is written to the index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Uses:
    """
    What was found, missed and written since the index was told last.

    Attributes:
        entries: Key -> hits, and the time of the last one.
        hits: Name of a step -> hits.
        misses: Name of a step -> misses.
        written: Bytes of the datasets that were recorded.
    """

    entries: dict[str, tuple[int, float]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    written: int = 0

    def add(self, others: Uses) -> None:
        for key, (hits, used_at) in others.entries.items():
            own, own_used_at = self.entries.get(key, (0, 0.0))
            self.entries[key] = own + hits, max(own_used_at, used_at)
        self.hits += others.hits
        self.misses += others.misses
        self.written += others.written
