"""What is wrong with a run, or with a step of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from odibi_async.errors.base import ExtraMissing, OdibiError
from odibi_async.errors.data import PathError, SqlError
from odibi_async.errors.elsewhere import ClusterError, NotPortable, WorkerLost
from odibi_async.errors.foreign import in_a_line, portable, raised_at
from odibi_async.errors.wording import one_line, shortened


class StepOutcome(Protocol):
    """What an error says about a step; a `StepResult` is one."""

    @property
    def name(self) -> str: ...
    @property
    def is_done(self) -> bool: ...
    @property
    def skipped_because(self) -> str | None: ...


class Outcome(Protocol):
    """What an error says about a run; a `RunResult` is one."""

    @property
    def run_id(self) -> str: ...
    @property
    def steps(self) -> Mapping[str, StepOutcome]: ...
    @property
    def outputs(self) -> Mapping[str, Any]: ...
    def __getitem__(self, key: str, /) -> Any: ...
    def masked(self, text: str, /) -> str: ...


class MapOverError(OdibiError, TypeError):
    """
    A step is to map over something that is no list.

    Attributes:
        step: The name of the step.
        parameter: The parameter that was to get the elements.
        found: The class of what it was given.
    """

    code = "OA305"

    def __init__(self, step: str, parameter: str, found: str) -> None:
        super().__init__(step, parameter, found)
        self.step = step
        self.parameter = parameter
        self.found = found

    def __str__(self) -> str:
        return f"Step {self.step!r} maps over {self.parameter!r}: a list or a tuple is needed, not {self.found}."


class OutputError(OdibiError):
    """A step returned something other than the outputs that it declares."""

    code = "OA306"


class BatchesDiffer(OutputError):
    """
    The frames that a streaming step yielded are not alike, so they do not make one frame.

    Attributes:
        step: The step.
        batch: The first batch that is unlike the first one, counted from 0.
        difference: In which way.
    """

    code = "OA346"

    def __init__(self, step: str, batch: int, difference: str) -> None:
        super().__init__(step, batch, difference)
        self.step = step
        self.batch = batch
        self.difference = difference

    def __str__(self) -> str:
        return (
            f"Step {self.step!r} yielded frames that are not alike: {self.difference} in batch {self.batch}. Give all "
            "of them the same columns and types, or have each reader take them as an AsyncIterator."
        )


class BatchesGone(OdibiError):
    """
    Batches are read that are not there any more.

    Attributes:
        step: The step that makes them.
        reader: The step that reads them.
        failed: Whether the step that makes them failed; else the step that reads them has ended.
    """

    code = "OA347"

    def __init__(self, step: str, reader: str, failed: bool) -> None:
        super().__init__(step, reader, failed)
        self.step = step
        self.reader = reader
        self.failed = failed

    def __str__(self) -> str:
        if self.failed:
            return f"Step {self.step!r} ended before it had made all its batches, so step {self.reader!r} has no more."
        return f"The batches of step {self.step!r} can be read only while step {self.reader!r} runs, and it has ended."


_OF_STEPS = (
    MapOverError,
    OutputError,
    BatchesGone,
    PathError,
    SqlError,
    ExtraMissing,
    WorkerLost,
    NotPortable,
    ClusterError,
)
"""Those of our errors that a step fails with, each with a code of its own."""


class StepError(OdibiError):
    """
    A step failed.

    Attributes:
        step: The name of the step.
        error: What the step raised; also the `__cause__`.
        element: Which element of a mapped step raised it, counted from 0; `None` for other steps.
        note: What is to be said beside that: why the step was not called again, say.
    """

    def __init__(self, step: str, error: BaseException, element: int | None = None, note: str = "") -> None:
        super().__init__(step, error, element, note)
        self.step = step
        self.error = error
        self.element = element
        self.note = note
        if isinstance(error, _OF_STEPS):
            self.code = error.code
        elif isinstance(error, TimeoutError):
            self.code = "OA304"
        self.__cause__ = error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, portable(self.error), self.element, self.note)

    def __str__(self) -> str:
        return f"Step {self.step!r} failed: {self.summary}" + (f"\n{self.note}" if self.note else "")

    @property
    def summary(self) -> str:
        """What went wrong, in a line and without the step's name."""
        where = "" if self.element is None else f"element {self.element}: "
        says_little = isinstance(self.error, LookupError | AssertionError)
        return where + in_a_line(self.error) + (raised_at(self.error) if says_little else "")


class RunError(OdibiError):
    """
    A run failed.

    Attributes:
        failures: The name of each failed step, in the order they failed, with its error.
        result: What the run did nevertheless (a `RunResult`).
    """

    def __init__(self, failures: Mapping[str, StepError], result: Outcome) -> None:
        super().__init__()  # a subclass is an OSError too, which would read numbers into what it is given
        self.args = (failures, result)
        self.failures = dict(failures)
        self.result = result
        self.__cause__ = next((failure.__cause__ for failure in self.failures.values()), None)

    def __str__(self) -> str:
        return "\n".join((self._headline(), *self._failed_steps()))

    def _headline(self) -> str:
        return f"{len(self.failures)} of {len(self.result.steps)} steps failed:"

    def _failed_steps(self) -> Iterable[str]:
        for name, failure in self.failures.items():
            yield f"  {one_line(name)}: {one_line(self.result.masked(failure.summary))}"
            skipped = [step.name for step in self.result.steps.values() if step.skipped_because == name]
            if skipped:
                yield f"    skipped because of it: {one_line(shortened(skipped))}"


class DeadlineError(RunError, TimeoutError):
    """
    The run was not over when its time was.

    Attributes:
        seconds: The time that the run was given.
    """

    code = "OA302"

    def __init__(self, seconds: float, failures: Mapping[str, StepError], result: Outcome) -> None:
        super().__init__(failures, result)
        self.args = (seconds, failures, result)
        self.seconds = seconds

    def _headline(self) -> str:
        ended = sum(step.is_done for step in self.result.steps.values())
        return f"The run did not end within {self.seconds:g} s: {ended} of {len(self.result.steps)} steps were done."


class RunCancelled(RunError):
    """The run was cancelled with `Run.cancel()`; its awaiting callers were not."""

    code = "OA303"

    def _headline(self) -> str:
        ended = sum(step.is_done for step in self.result.steps.values())
        return f"The run was cancelled: {ended} of {len(self.result.steps)} steps were done."


class RunnerClosed(OdibiError):
    """A runner takes no more runs, since it was closed."""

    code = "OA502"

    def __str__(self) -> str:
        return "This runner is closed and takes no more runs: use it inside its `async with` block."


class DatasetMissing(OdibiError, KeyError):
    """
    A dataset was asked for that the run did not make.

    Attributes:
        name: The name of the dataset.
        reason: Why it is not there.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"There is no dataset {self.name!r}: {self.reason}"
