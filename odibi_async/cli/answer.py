"""What a command has to say: its results, or what kept it from having any."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from odibi_async.errors import (
    ConfigError,
    DeadlineError,
    GraphError,
    OdibiError,
    PathError,
    RunCancelled,
    RunError,
    StepError,
    did_you_mean,
    text_of,
)

if TYPE_CHECKING:
    from odibi_async.config import Document  # loads pydantic

EXITS = {"OA1": 3, "OA2": 3, "OA3": 1, "OA302": 5, "OA303": 130, "OA4": 4, "OA5": 2} | dict.fromkeys(
    ("OA341", "OA342", "OA343", "OA344", "OA345", "OA351", "OA352", "OA354", "OA355"), 3
)
"""The beginnings of codes -> what the process ends with; the longer one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """
    One thing that went wrong, for reading and for `--json`.

    Attributes:
        code: What kind it is.
        message: What is wrong, and what would be right.
        file: The configuration that contains it.
        place: Where in it; see `Fault.place`.
        step: The step that it is about.
        error: What the step raised.
    """

    code: str
    message: str
    file: str | None = None
    place: str = ""
    step: str | None = None
    error: BaseException | None = None

    @property
    def hint(self) -> str:
        """What would help, in the words of the command line."""
        if isinstance(self.error, FileNotFoundError | PathError):
            return f"Relative paths begin in the current directory, {os.getcwd()}.{_near(self.error)}"
        return _hints.get(self.code, "")

    @property
    def exit_code(self) -> int:
        return EXITS.get(self.code) or EXITS[self.code[:3]]


_hints = {
    "OA116": "--functions MODULE gives a pipeline the public functions of a module.",
    "OA201": "What comes from outside is given with -p NAME=VALUE.",
    "OA214": "--pool NAME=SLOTS says how many of its steps may run at a time.",
    "OA402": "odibi-async init writes a small pipeline to begin with.",
}


def _near(error: FileNotFoundError | PathError) -> str:
    """A question that offers the file beside the missing one whose name is nearest."""
    folder, name = os.path.split(str(getattr(error, "filename", None) or ""))
    try:
        there = [entry for entry in os.listdir(folder or ".") if os.path.exists(os.path.join(folder, entry))]
        return did_you_mean(name, there) if name else ""
    except OSError:  # there is no such folder either
        return ""


class Refused(Exception):
    """The command did not do its work, and here is why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What a command gives.

    Attributes:
        text: For people, on stdout.
        data: The same for `--json`.
        problems: What went wrong nevertheless.
        secrets: Texts that nobody may see.
        must_end: Whether a thread runs on that nobody can stop, so that the process has to be ended.
    """

    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    secrets: Collection[str] = ()
    must_end: bool = False


def problems_of(error: OdibiError, document: Document | None = None) -> list[Problem]:
    """Everything an error reports, with places where the document of the steps is known."""
    match error:
        case ConfigError():
            return [Problem(code=f.code, message=f.message, file=f.source, place=f.place) for f in error.faults]
        case GraphError():
            return [
                Problem(code=f.code, message=f.message, step=f.step, **_placed(document, f.step, f.keys, f.of_key))
                for f in error.faults
            ]
        case RunError():
            whole = [Problem(code=error.code, message=str(error).splitlines()[0])] if _is_over(error) else []
            return [*whole, *(_failure(failure, document) for failure in error.failures.values())]
        case _:
            return [Problem(code=error.code, message=str(error))]


def _is_over(error: RunError) -> bool:
    """Whether the run ended before its time, whatever its steps did."""
    return isinstance(error, DeadlineError | RunCancelled)


def _failure(failure: StepError, document: Document | None) -> Problem:
    text = text_of(failure.error)
    name = type(failure.error).__name__
    where = "" if failure.element is None else f"element {failure.element}: "
    message = f"step {failure.step!r} failed: {where}{name}{text and ': '}{text}"
    place = _placed(document, failure.step, ("value",))
    return Problem(code=failure.code, message=message, step=failure.step, error=failure.error, **place)


def _placed(document: Document | None, step: str | None, keys: Sequence[Any], of_key: bool = False) -> dict[str, Any]:
    """The file and the place of a fault, as far as they are known."""
    if document is None:
        return {}
    return {"file": document.source.name, "place": "" if step is None else document.place(step, keys, of_key)}
