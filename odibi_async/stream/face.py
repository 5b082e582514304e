"""The door to streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from odibi_async.abc import Observer
from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError
from odibi_async.limits import Limits
from odibi_async.runner import Runner, RunOptions, Steps
from odibi_async.runner.options import Journaling, check_journal, checked, refuse
from odibi_async.stream.asked import Asked
from odibi_async.stream.batches import OnPoison, Patience, WhenHeld
from odibi_async.stream.source import Source
from odibi_async.stream.stream import Stream

OF_RUNS: Final = tuple(set(RunOptions.__annotations__) - {"run_id", "resume", "journal", "observers"})


def run_stream(
    pipeline: Steps,
    source: Source,
    *,
    into: str,
    journal: Journaling = None,
    name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    attempts: int = 3,
    wait: float = 1.0,
    on_poison: OnPoison = "skip",
    when_held: WhenHeld = "error",
    keep_last: int = 100,
    runner: Runner | None = None,
    limits: Limits | None = None,
    observers: Sequence[Observer] = (),
    now: Callable[[], float] = time.time,
    **options: Any,
) -> Stream:
    """
    Runs a pipeline once for each batch of a source, one after another, and remembers in the journal where it is.

    A batch's position is committed when its run has succeeded. After a crash the open batch goes on where it was:
    steps that are committed are not called again. Nothing happens before the stream is awaited, entered or iterated.

    Args:
        pipeline: A `Pipeline`, steps and functions, or the path of a configuration file.
        source: Where batches come from: `Files`, `Rows`, `Queue`, `Polling`, or a `Source` of your own.
        into: The input of the pipeline that is given a batch.
        journal: A directory, a URL of PostgreSQL, or a `Journal`; `None` for the runner's.
        name: What the journal calls the stream: its position belongs to this name. `None` for the pipeline's.
        inputs: Dataset -> value, for the other inputs of the pipeline, the same for all batches.
        attempts: How often a batch is tried, and how often in a row its source.
        wait: Seconds before the second attempt; doubled before each later one, up to a minute.
        on_poison: What becomes of a batch that has failed so often. `"skip"`: it is set aside in the journal with its
            error and its data, and the stream goes on. `"stop"`: the stream ends with `BatchFailed`, and begins with
            this batch when it is started again.
        when_held: What happens when a stream of this name is running already, in any process. `"error"`: `StreamAlive`.
            `"wait"`: this one waits for its end, and takes over.
        keep_last: How many runs of finished batches stay in the journal. Those set aside stay as well.
        runner: What runs the batches; `None` for one that all bare runs of the loop share.
        limits: How much may run at a time; for a stream without a runner.
        observers: They hear the events of the stream and of its runs.
        now: The clock that lag is measured by: seconds since the epoch.
        **options: As for `run_pipeline`, for each run: `targets`, `cache`, `retry`, `timeout`, ...

    Raises:
        TypeError: There is an option that is none.
        OptionError: An option has a value that it cannot have.
    """
    refuse("run_stream", [option for option in options if option not in OF_RUNS], OF_RUNS)
    _check_choice("on_poison", on_poison, ("skip", "stop"))
    _check_choice("when_held", when_held, ("error", "wait"))
    for what, number in (("attempts", attempts), ("keep_last", keep_last)):
        if type(number) is not int or number < 1:
            raise OptionError(f"{what}={number!r}: a number from 1 on is needed.")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise OptionError(f"name={name!r}: a text that is not empty is needed.")
    if not all(hasattr(source, part) for part in ("open", "batches", "changed", "close")):
        raise OptionError(f"source={source!r}: a Source is needed: Files(...), Rows(...), Queue(...), Polling(...).")
    if runner is not None and limits is not None:
        raise OptionError("limits= belongs to the runner that is given: Runner(limits=...).")
    patience = Patience(attempts=attempts, wait=seconds_of("wait", wait), on_poison=on_poison, when_held=when_held)
    return Stream(
        Asked(
            steps=pipeline,
            source=source,
            into=into,
            inputs=dict(inputs or {}),
            name=name,
            journal=check_journal(journal),
            runner=Runner(limits=limits) if limits else runner,
            is_borrowed=runner is None,
            patience=patience,
            keep_last=keep_last,
            observers=checked(observers),
            options=options,
            now=now,
        )
    )


def _check_choice(what: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise OptionError(f"{what}={value!r} is none of {', '.join(known)}.")
