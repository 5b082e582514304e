"""A run as its story sees it: the record, and how much of it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from odibi_async.observers.lineage import compared, is_of_frame
from odibi_async.observers.record import RunRecord, StepRecord
from odibi_async.observers.snapshot import Snapshot
from odibi_async.observers.story.html import LONG, SHORT, cut
from odibi_async.secret import redacted

DROP: Final = 0.5
"""Share of its rows that a step has to keep if it is not to be warned of."""


@dataclass(frozen=True, kw_only=True)
class View:
    """
    What a story shows of a run.

    Attributes:
        record: The run.
        explanations: Step -> what to say about it.
        samples: Whether first rows are shown.
        sources: Whether functions, queries and tracebacks are shown.
        data: Whether the run as JSON is shown.
        most: How many steps have a card of their own; failed ones come first.
        rows: How many steps are in the table, likewise.
        overview: Whether anything is shown but how the run ended.
        seen: Dataset -> its snapshot in the words of ODIBI CORE, as far as somebody has asked.
    """

    record: RunRecord
    explanations: Mapping[str, Any]
    samples: bool = True
    sources: bool = True
    data: bool = True
    most: int = 1_000
    rows: int = 100_000
    overview: bool = True
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """Step -> its place."""
        return {name: number for number, name in enumerate(self.record.steps)}

    @cached_property
    def counts(self) -> Counter[str]:
        """Status -> how many steps have it."""
        return Counter(step.status for step in self.record.steps.values())

    @cached_property
    def changes(self) -> Mapping[str, tuple[dict[str, Any] | None, int | None]]:
        """Step -> how columns and rows changed from the first frame that it read to the first that it made."""
        return {name: self._change(step) for name, step in self.record.steps.items()}

    @cached_property
    def warnings(self) -> Sequence[tuple[str, str]]:
        """What deserves a look although nothing failed: a step, and a sentence."""
        return list(self._warned())

    def first(self, count: int) -> Sequence[str]:
        """So many steps in their order, the failed ones among them in any case."""
        steps = self.record.steps
        chosen = sorted(steps, key=lambda name: (steps[name].status != "failed", self.order[name]))[:count]
        return sorted(chosen, key=self.order.__getitem__)

    def anchor(self, step: str) -> str:
        """The id of a step's card."""
        return f"step-{self.order[step]}"

    def masked(self, text: str) -> str:
        """A text without the secrets of the run and the passwords of URLs."""
        return redacted(text, self.record.secrets)

    def shown(self, text: str, most: int = LONG) -> str:
        """The same, not longer than that."""
        return cut(self.masked(text), most)

    def told(self, snapshot: Snapshot) -> dict[str, Any]:
        """A snapshot in the words of ODIBI CORE."""
        if snapshot.dataset not in self.seen:
            self.seen[snapshot.dataset] = snapshot.told(None, (), self.record.secrets)
        return self.seen[snapshot.dataset]

    def snapshots(self, datasets: Sequence[str]) -> list[Snapshot]:
        """What these datasets looked like, those that were looked at."""
        return [found for found in map(self.record.snapshots.get, datasets) if found is not None]

    def _first_frame(self, datasets: Sequence[str]) -> Snapshot | None:
        return next((each for each in self.snapshots(datasets) if is_of_frame(each)), None)

    def _change(self, step: StepRecord) -> tuple[dict[str, Any] | None, int | None]:
        before, after = self._first_frame(step.outline.reads), self._first_frame(step.outline.makes)
        if before is None or after is None or step.result is None or not step.result.is_done:
            return None, None
        return compared(self.told(before), self.told(after))

    def _warned(self) -> Iterator[tuple[str, str]]:
        for each in self.record.warned:
            yield each.step, self.shown(each.text, SHORT)
        for name, step in self.record.steps.items():
            before, after = self._first_frame(step.outline.reads), self._first_frame(step.outline.makes)
            rows = None if after is None else after.row_count
            if rows == 0:
                yield name, "it made no rows."
            had = None if before is None else before.row_count
            if had and rows and rows < had * DROP and len(step.outline.reads) == 1:
                yield name, f"it kept {rows:,} of {had:,} rows."
            diff = self.changes[name][0]
            for change in diff["changed_types"] if diff else ():
                yield name, f"column {change['column']!r} was {change['before']} and is {change['after']}."
