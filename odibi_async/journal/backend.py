"""What keeps a journal's rows: texts that say nothing to who keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from odibi_async.journal.records import FORMAT

LEARNS: Final = 0.5
"""How much the last run counts among the durations of all runs."""

GLANCES: Final = 4
GLANCE: Final = 0.02
"""How often, and after how many seconds, a run that seems alive is looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """
    A row about a step of a run, or about one element of it.

    Attributes:
        run: The number of the run.
        step: The name of the step.
        element: Which element; -1 for the step as a whole.
        text: What is known of it.
    """

    run: int
    step: str
    element: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    A row about a run.

    Attributes:
        number: Its number: later runs have higher ones.
        run_id: Its name.
        pipeline: The name of its pipeline.
        text: What is known of it.
    """

    number: int
    run_id: str
    pipeline: str
    text: str


class MarkChange(NamedTuple):
    """
    A text that is to stand in place of another one.

    Attributes:
        name: What is marked.
        old: The text that is to be there; `None` for none.
        new: The text that is to be there then; `None` for none.
    """

    name: str
    old: str | None
    new: str | None


class Hold(Protocol):
    """Shows that a run is alive, for as long as its process lives and has not released it."""

    def release(self) -> None:
        """Lets others resume the run. Any number of times."""


class Backend(Protocol):
    """
    Keeps rows. Blocking; safe to use from several threads, and with others that keep the same rows.

    Every method but `close` raises `JournalUnavailable` when the rows cannot be read or written.
    """

    @property
    def name(self) -> str:
        """What messages call the journal. Without passwords."""

    @property
    def home(self) -> str:
        """The directory that it is; empty where it is none."""

    def identity(self) -> str:
        """A text that no other journal has."""

    def begin(self, run_id: str, pipeline: str, text: str) -> int | None:
        """Adds the row of a run; its number, or `None` where there is a run of this name."""

    def rewrite(self, number: int, text: str) -> None:
        """Replaces what the row of a run says."""

    def write(self, rows: Sequence[StepRow]) -> None:
        """Adds rows, or replaces those of the same place, all or none of them, to outlast a loss of power."""

    def run(self, run_id: str) -> RunRow | None:
        """The row of a run."""

    def runs(self, pipeline: str | None = None, *, before: int | None = None, most: int | None = None) -> list[RunRow]:
        """The rows of runs, the newest first: of one pipeline, with lower numbers, the first ones of these."""

    def steps(self, number: int) -> Iterator[StepRow]:
        """The rows of a run's steps."""

    def forget(self, numbers: Sequence[int]) -> None:
        """Removes runs with their steps."""

    def seconds(self, pipeline: str) -> dict[str, float]:
        """How long the steps of a pipeline take, by name."""

    def learn(self, pipeline: str, seconds: Mapping[str, float]) -> None:
        """Replaces how long some steps of a pipeline take."""

    def mark(self, name: str) -> str | None:
        """A text that was marked under a name."""

    def marks(self, prefix: str) -> dict[str, str]:
        """Name -> text, of all marks whose name begins so."""

    def replace_mark(self, name: str, old: str | None, new: str | None) -> bool:
        """
        Puts a text in place of what is marked under a name, if that is `old` still; `None` for no mark.

        Whether that is done: of those who replace the same text with texts of their own, one succeeds.
        """

    def replace_marks(self, changes: Sequence[MarkChange]) -> list[bool]:
        """Does for each of several marks what `replace_mark` does for one, all in one commit."""

    def check(self) -> None:
        """Looks through everything for damage."""

    def hold(self, name: str) -> Hold | None:
        """Shows that a run, or what else has a name, is alive from now on; `None` where another shows it already."""

    def close(self) -> None:
        """Closes what is open; the next call opens it again."""


def foreign(form: object) -> str:
    """Why what is there is not used: it says of itself that it is of another form, or nothing at all."""
    if form is None:
        return "its file is no journal of odibi_async."
    return f"its format is {form!r}, and this version of odibi_async reads {FORMAT!r}."
