"""
Everything that odibi_async raises on its own account.

    OdibiError
    |- OptionError (also a ValueError)     an argument has a value it cannot have
    |- ConfigError                         a configuration cannot be read, or says what cannot be
    |- GraphError                          the steps do not make a pipeline
    |  `- CycleError                       ... because they wait for each other
    |- StepError                           one step failed; its __cause__ says why
    |- MapOverError (also a TypeError)     a step is to map over something that is no list
    |- OutputError                         a step returned something that is not what it declares
    |  `- BatchesDiffer                     ... frames that are not alike, as the batches of one dataset
    |- BatchesGone                         batches are read that are not there any more
    |- RunError                            a run failed; names every failed step
    |  |- DeadlineError (also a TimeoutError)
    |  `- RunCancelled                     ... by `Run.cancel()`
    |- RunnerClosed                        a runner takes no more runs
    |- DatasetMissing (also a KeyError)    a dataset was asked for that the run did not make
    |- PathError                           a dataset cannot be read from, or written to, the place that was named
    |- SqlError                            a query that is refused, or that does not fit the frames it reads
    |- CrossingError                       a frame cannot go from one engine to another as it is
    |- EngineError                         an engine cannot be started, or is gone
    |- Unstorable                          a value would not come back from the disk as it is
    |- Damaged                             what was kept on the disk is missing, or no longer what was written
    |- CacheUnavailable                    the cache's index cannot be written now
    |- JournalError                        a run cannot be journaled or resumed
    |  |- JournalUnavailable               ... because the journal cannot be read or written
    |  |- RunUnknown                       ... because the journal has no run with this id
    |  |- RunExists                        ... because the journal has a run with this id
    |  `- RunAlive                         ... because the run is still running elsewhere
    |- TriggerError (also a ValueError)    a trigger says what cannot be
    |  |- CronError                         ... its cron expression
    |  `- ZoneUnknown                       ... its time zone
    |- ScheduleError                       a schedule cannot go on
    |  |- ScheduleUnknown                   ... because there is none of this name
    |  |- NotScheduled                      ... because its configuration does not say when
    |  |- TriggerFailed                     ... because its trigger raised, or gave what is no time to come
    |  |- ClockSetBack                      ... before the clock shows again what it showed
    |  |- RecordDamaged                     ... because what the journal has of it is not what was written
    |  `- FiringAbandoned                   ... because the processes that ran it died
    |- StreamError                         a stream cannot go on
    |  |- StreamAlive                      ... because a stream of its name is running elsewhere
    |  |- StreamOvertaken                  ... because another process has moved its position meanwhile
    |  |- SourceFailed                     ... because its source cannot be read
    |  |- BatchFailed                      ... because a batch failed, and it is to stop then
    |  |- PositionDamaged                  ... because what the journal says of it cannot be read
    |  `- BatchUnknown                     a batch that was set aside cannot be replayed
    |- OutsideStep                         `current_step()` was called outside a step
    |- WorkerLost                          the process or the cluster's worker that called a step is gone
    |  `- DataLost                         ... and with it a dataset that it had
    |- ClusterError                        a cluster cannot be used
    |- NotPortable (also a TypeError)      a function, an argument or a result cannot go to another process
    `- ExtraMissing (also an ImportError)  a library is not installed that only some pipelines need

Each class words its message from its arguments, keeps them as attributes, and pickles. Each kind of fault has a code
that stays as it is; `odibi-async explain OA102` tells what is behind it (`odibi_async.cli.codes`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


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


class OdibiError(Exception):
    """
    The base of all errors of this package.

    Attributes:
        code: What kind of fault it is.
    """

    code: str = "OA301"


class OptionError(OdibiError, ValueError):
    """An argument has a value that it cannot have."""

    code = "OA502"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that is wrong in a configuration.

    Attributes:
        source: The file, as it was named; `<rows>` for what is no file.
        place: Where in it: `12:9` (line and column), `12: steps[0].engine` (line and key path), or `row 3,
            column Params`. Empty where the file as a whole is meant.
        message: What is wrong, and what would be right.
        code: What kind of fault it is.
    """

    source: str
    place: str
    message: str
    code: str

    def __str__(self) -> str:
        return f"{located(self.source, self.place)}: {self.message}"


class ConfigError(OdibiError):
    """
    A configuration cannot be read, or says what cannot be.

    Attributes:
        faults: Every fault that was found, each with its place.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return listed("configuration", list(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class GraphFault:
    """
    One thing that is wrong in a pipeline.

    Attributes:
        code: What kind of fault it is.
        message: What is wrong, and what would be right, in a sentence or two.
        step: The step that it is about, where it is about one.
        keys: What leads to the entry of this step that is at fault: `("inputs", "data")`.
        of_key: Whether it is the last of these keys that is wrong, not what stands behind it.
    """

    code: str
    message: str
    step: str | None = None
    keys: tuple[str | int, ...] = ()
    of_key: bool = False

    def __str__(self) -> str:
        return self.message


class GraphError(OdibiError):
    """
    The steps do not make a pipeline.

    Attributes:
        faults: Every fault that was found.
    """

    def __init__(self, faults: Sequence[GraphFault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return listed("pipeline", list(map(str, self.faults)))


class CycleError(GraphError):
    """
    Steps wait for each other in a circle.

    Attributes:
        cycle: The names of the steps along the circle; the first stands again at the end.
    """

    def __init__(self, faults: Sequence[GraphFault], cycle: Sequence[str]) -> None:
        super().__init__(faults)
        self.args = (faults, cycle)
        self.cycle = tuple(cycle)


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
            yield f"  {name}: {failure.summary}"
            skipped = [step.name for step in self.result.steps.values() if step.skipped_because == name]
            if skipped:
                yield f"    skipped because of it: {shortened(skipped)}"


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


class PathError(OdibiError):
    """
    A dataset cannot be read from, or written to, the place that was named.

    Attributes:
        path: The place, as it was given.
        reason: Why not.
    """

    code = "OA307"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path!r} cannot be used: {self.reason}"


class SqlError(OdibiError):
    """A query that is refused, or that does not fit the frames it reads."""

    code = "OA308"


class CrossingError(OdibiError):
    """
    A frame cannot go from one engine to another as it is.

    Attributes:
        what: The frame: `the input 'orders' of step 'clean'`.
        where: Where it was to go.
        reason: Why it cannot, in a sentence.
    """

    code = "OA313"

    def __init__(self, what: str, where: str, reason: str) -> None:
        super().__init__(what, where, reason)
        self.what = what
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what[:1].upper()}{self.what[1:]} cannot go to {self.where} as it is: {self.reason}"


class EngineError(OdibiError):
    """An engine cannot be started, or what it works with is gone; the text says why."""

    code = "OA314"


class Unstorable(OdibiError):
    """A value is not kept, because it would not come back from the disk as it is; the text says why, in a sentence."""

    code = "OA311"


class Damaged(OdibiError):
    """What was kept on the disk is missing, or no longer what was written; the text says which, in a sentence."""

    code = "OA311"


class CacheUnavailable(OdibiError):
    """The cache's index cannot be read or written now; the text says why."""

    code = "OA311"


class JournalError(OdibiError):
    """A run cannot be journaled, or cannot be resumed."""

    code = "OA312"


class JournalUnavailable(JournalError):
    """
    The journal cannot be read or written.

    Attributes:
        journal: The journal.
        reason: Why not.
    """

    def __init__(self, journal: str, reason: str) -> None:
        super().__init__(journal, reason)
        self.journal = journal
        self.reason = reason

    def __str__(self) -> str:
        return f"The journal {self.journal!r} cannot be used: {self.reason}"


class RunUnknown(JournalError):
    """
    The journal has no run with this id.

    Attributes:
        run_id: The id.
        known: The ids of the runs that it has, the newest first.
    """

    code = "OA316"

    def __init__(self, run_id: str, known: Sequence[str]) -> None:
        super().__init__(run_id, known)
        self.run_id = run_id
        self.known = known

    def __str__(self) -> str:
        there = f" Runs: {shortened(self.known)}." if self.known else " It is empty."
        return f"The journal has no run {self.run_id!r}.{did_you_mean(self.run_id, self.known)}{there}"


class RunExists(JournalError):
    """
    A run was to begin whose id the journal has already.

    Attributes:
        run_id: The id.
    """

    code = "OA317"

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"The journal has a run {self.run_id!r} already. Resume it with resume=True, or use another run_id."


class RunAlive(JournalError):
    """
    A run was to be resumed that is still running.

    Attributes:
        run_id: The id.
        host: Where it is running.
        pid: The number of the process there.
    """

    code = "OA318"

    def __init__(self, run_id: str, host: str, pid: int) -> None:
        super().__init__(run_id, host, pid)
        self.run_id = run_id
        self.host = host
        self.pid = pid

    def __str__(self) -> str:
        where = f" in process {self.pid} on {self.host}" if self.pid else ""
        return f"Run {self.run_id!r} is still running{where}. It can be resumed when that has ended."


class StreamError(OdibiError):
    """A stream cannot go on. Its position, and the batch that it was at, are in the journal."""

    code = "OA362"


class StreamAlive(StreamError):
    """
    A stream was to begin while one of the same name is running, in this process or in another one.

    Attributes:
        stream: The name of the stream.
        journal: The journal that both use.
    """

    code = "OA361"

    def __init__(self, stream: str, journal: str) -> None:
        super().__init__(stream, journal)
        self.stream = stream
        self.journal = journal

    def __str__(self) -> str:
        return (
            f"Stream {self.stream!r} is running already, with journal {self.journal!r}. Stop it first, give this one"
            " another name=, or wait for its end with when_held='wait'."
        )


class SourceFailed(StreamError):
    """
    A source could not be read, as often as it was tried; the cause says why.

    Attributes:
        stream: The name of the stream.
        reason: What the last attempt raised, in a line.
        attempts: How often it was tried in a row.
    """

    def __init__(self, stream: str, reason: str, attempts: int) -> None:
        super().__init__(stream, reason, attempts)
        self.stream = stream
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times in a row"
        return f"The source of stream {self.stream!r} failed {times}: {self.reason}"


class BatchFailed(StreamError):
    """
    A batch failed as often as it was tried, and `on_poison` is `"stop"`; the cause says why.

    Attributes:
        stream: The name of the stream.
        batch: The batch: a file, rows up to a watermark, ...
        run_id: The run of the batch.
        reason: What the last attempt raised, in a line.
        attempts: How often it was tried.
    """

    code = "OA363"

    def __init__(self, stream: str, batch: str, run_id: str, reason: str, attempts: int) -> None:
        super().__init__(stream, batch, run_id, reason, attempts)
        self.stream = stream
        self.batch = batch
        self.run_id = run_id
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return (
            f"Stream {self.stream!r} has stopped: batch {self.batch!r} (run {self.run_id}) failed {times}:"
            f" {self.reason}\nStarted again, the stream goes on with this batch."
        )


class StreamOvertaken(StreamError):
    """
    Another process has moved the position of a stream while this one thought that the stream was its own.

    Attributes:
        stream: The name of the stream.
    """

    code = "OA364"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return (
            f"The position of stream {self.stream!r} is not what this process committed last: another process has"
            " taken the stream over. This one stops; nothing of it was committed since."
        )


class PositionDamaged(StreamError):
    """
    What the journal says of a stream cannot be read, or does not fit its source.

    Attributes:
        stream: The name of the stream.
        reason: What is wrong with it.
    """

    code = "OA365"

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(stream, reason)
        self.stream = stream
        self.reason = reason

    def __str__(self) -> str:
        return f"The position of stream {self.stream!r} cannot be used: {self.reason}"


class BatchUnknown(StreamError):
    """
    A batch was to be replayed that is not set aside, or whose data is gone.

    Attributes:
        stream: The name of the stream.
        run_id: The run of the batch.
        reason: Why it cannot be replayed.
    """

    code = "OA366"

    def __init__(self, stream: str, run_id: str, reason: str) -> None:
        super().__init__(stream, run_id, reason)
        self.stream = stream
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Batch {self.run_id!r} of stream {self.stream!r} cannot be replayed: {self.reason}"


class OutsideStep(OdibiError):
    """`current_step()` was called by code that is not part of a step."""

    code = "OA502"

    def __str__(self) -> str:
        return "current_step() was called outside a step: only the code of a running step belongs to one."


class WorkerLost(OdibiError):
    """
    The worker that called a step is gone, and with it this attempt. `Retry` calls the step again by default.

    Attributes:
        step: The name of the step.
        reason: What happened to the worker, in a sentence.
    """

    code = "OA321"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"The worker that called step {self.step!r} is lost: {self.reason}"


class DataLost(WorkerLost):
    """What a step made, or reads, was on a worker that is gone. The run makes it again where it can."""


class ClusterError(OdibiError):
    """A cluster cannot be used: it does not answer, or has other versions; the text says what to do."""

    code = "OA323"


class NotPortable(OdibiError, TypeError):
    """
    Something cannot travel between this process and the one that calls the step.

    Attributes:
        step: The name of the step.
        reason: What cannot travel, and why.
    """

    code = "OA322"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"Step {self.step!r} cannot be called in another process: {self.reason}"


class RemoteTraceback(Exception):
    """
    Stands as the cause of an error that was raised in another process.

    Attributes:
        text: The traceback, as it was there.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class TriggerError(OdibiError, ValueError):
    """A trigger says what cannot be."""


class CronError(TriggerError):
    """
    A cron expression is wrong.

    Attributes:
        expression: The expression.
        reason: What is wrong, and what would be right.
    """

    code = "OA351"

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(expression, reason)
        self.expression = expression
        self.reason = reason

    def __str__(self) -> str:
        return f"The cron expression {self.expression!r} is wrong: {self.reason}"


class ZoneUnknown(TriggerError):
    """
    There is no such time zone.

    Attributes:
        zone: The name that was given.
        known: The names that there are.
    """

    code = "OA352"

    def __init__(self, zone: str, known: Sequence[str]) -> None:
        super().__init__(zone, known)
        self.zone = zone
        self.known = known

    def __str__(self) -> str:
        none = "" if self.known else " This system has no time zones: pip install tzdata."
        hint = did_you_mean(self.zone, self.known) or none or " They are called like 'Europe/Berlin'."
        return f"There is no time zone {self.zone!r}.{hint}"


class ScheduleError(OdibiError):
    """A schedule cannot go on, or there is none."""

    code = "OA353"


class ScheduleUnknown(ScheduleError):
    """
    There is no schedule of this name.

    Attributes:
        name: The name.
        known: The names of those that there are.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        there = f" Schedules: {shortened(self.known)}." if self.known else ""
        return f"There is no schedule {self.name!r}.{did_you_mean(self.name, self.known)}{there}"


class NotScheduled(ScheduleError):
    """
    A configuration is to be served that does not say when it is to run.

    Attributes:
        path: The configuration.
    """

    code = "OA354"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path!r} does not say when it is to run: add schedule: '30 2 * * *', for example."


class TriggerFailed(ScheduleError):
    """
    A trigger raised, or gave what is no time to come; its schedule is stopped.

    Attributes:
        name: The schedule.
        reason: What happened.
    """

    code = "OA356"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"Schedule {self.name!r} is stopped, because its trigger failed: {self.reason}"


class ClockSetBack(ScheduleError):
    """
    A schedule waits, since the time for which it has fired last lies in the future: no time fires twice.

    Attributes:
        name: The schedule.
        at: That time.
    """

    def __init__(self, name: str, at: datetime) -> None:
        super().__init__(name, at)
        self.name = name
        self.at = at

    def __str__(self) -> str:
        return (
            f"Schedule {self.name!r} has fired for {self.at:%Y-%m-%d %H:%M:%S} UTC already, which lies in the future: "
            "the clock was set back. It waits until then, or fires again from now on when it is resumed."
        )


class RecordDamaged(ScheduleError):
    """
    What the journal has of a schedule is not what was written; the schedule is stopped.

    Attributes:
        name: The schedule.
    """

    code = "OA357"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"Schedule {self.name!r} is stopped: what the journal has of it is not what was written."


class FiringAbandoned(ScheduleError):
    """
    A firing is given up: each process that began its run died before the run ended.

    Attributes:
        run_id: The run.
        attempts: How many did.
    """

    code = "OA358"

    def __init__(self, run_id: str, attempts: int) -> None:
        super().__init__(run_id, attempts)
        self.run_id = run_id
        self.attempts = attempts

    def __str__(self) -> str:
        return f"Run {self.run_id!r} is given up: {self.attempts} processes died while they ran it."


class ExtraMissing(OdibiError, ImportError):
    """
    A library is not installed that only some pipelines need.

    Attributes:
        purpose: What it is needed for.
        extra: The extra of this package that brings it.
    """

    code = "OA309"

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(purpose, extra)
        self.purpose = purpose
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.purpose} needs a library that is not installed: pip install 'odibi_async[{self.extra}]'"


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


def located(source: str, place: str) -> str:
    """A file and a place in it, as one writes them: `a.yaml:12:9`, `a.csv, row 3`."""
    if not place:
        return source
    return f"{source}{':' if place[0].isdigit() else ', '}{place}"


class ErrorStandIn(Exception):
    """
    Stands for an error that does not survive pickling.

    Attributes:
        name: The name of its class.
        text: What it said.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return self.text


def portable(error: BaseException) -> BaseException:
    """The error itself, or a substitute where it does not survive pickling."""
    import pickle  # 5 ms to import, for those who pickle

    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an error is anybody's object: pickling it may raise anything
        pass
    return ErrorStandIn(type(error).__name__, text_of(error))


def in_a_line(error: BaseException) -> str:
    """The class of an error and the first line of its message; of a group, also those of the errors in it."""
    text = text_of(error)
    name = error.name if isinstance(error, ErrorStandIn) else type(error).__name__
    lines = text.splitlines()
    if len(lines) > 1 and lines[1].startswith(": "):  # of an error in Java, the first line only names the call
        lines = [lines[1].removeprefix(": ")]
    line = f"{name}: {lines[0]}" if text else name
    if isinstance(error, BaseExceptionGroup):
        line += f" [{'; '.join(map(in_a_line, leaves(error)[:MOST_LEAVES]))}]"
    return line


MOST_LEAVES = 5
"""How many errors of a group a line names."""


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it, that are no groups; else the error itself."""
    found, ahead = [], [error]
    while ahead:
        each = ahead.pop()
        if isinstance(each, BaseExceptionGroup):
            ahead.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found


def text_of(error: BaseException) -> str:
    """The text of an error. It may be anybody's class: whatever is wrong with it, there is a text."""
    try:
        return str(error).strip()
    except BaseException:
        return "(what it says of itself cannot be shown)"


def with_article(noun: str) -> str:
    """A noun with `a` or `an` before it."""
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def listed(where: str, faults: Sequence[str]) -> str:
    """The fault, or all of them under a headline."""
    if len(faults) == 1:
        return faults[0]
    indented = (fault.replace("\n", "\n    ") for fault in faults)
    return "\n  - ".join((f"{len(faults)} faults in the {where}:", *indented))


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names with commas between them; those beyond `most` are only counted."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def raised_at(error: BaseException) -> str:
    """The line of the step's own file that raised an error, in parentheses with a space before; empty if unknown."""
    at, line = error.__traceback__, 0
    file = "" if at is None else at.tb_frame.f_code.co_filename
    while at is not None:
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == file else line
        at = at.tb_next
    return f" ({os.path.basename(file)}, line {line})" if file else ""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that offers the known name nearest to `name`, with a leading space, or nothing."""
    import difflib  # 12 ms to import, for a message that few runs need

    spelled = {each.casefold(): each for each in known}
    nearest = difflib.get_close_matches(name.casefold(), list(spelled), n=1, cutoff=cutoff)
    return f" Did you mean {spelled[nearest[0]]!r}?" if nearest else ""
