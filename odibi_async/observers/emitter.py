"""The events of ODIBI CORE: callbacks by name, fed from the events of a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from odibi_async.errors import OptionError
from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepStarted
from odibi_async.result import Status
from odibi_async.steps import Step, is_async

_log = logging.getLogger("odibi_async")


class EventEmitter:
    """
    Calls those who asked for an event.

    An `Orchestrator` emits, with what the callback gets by name: `pipeline_start(steps)`,
    `pipeline_complete(data_map)`, `pipeline_error(error)`, `step_start(step)`, `step_complete(step, duration_ms)`
    and `step_error(step, error)`. A callback must not block.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[..., object]]] = {}

    def on(self, name: str, callback: Callable[..., object]) -> None:
        """
        Has a function called at each event of this name.

        Raises:
            OptionError: It cannot be called, or is async.
        """
        if not callable(callback) or is_async(callback):
            raise OptionError(f"A plain callable is needed for the event {name!r}; {callback!r} is not.")
        self._callbacks.setdefault(name, []).append(callback)

    def emit(self, name: str, **data: Any) -> None:
        """Calls who asked for this event, in that order. What one raises is logged; the others hear all the same."""
        for callback in tuple(self._callbacks.get(name, ())):
            try:
                callback(**data)
            except (Exception, asyncio.CancelledError):  # a listener must not break a run
                _log.exception("Listener %r of the event %r raised.", callback, name)

    def clear(self, name: str | None = None) -> None:
        """Forgets who asked for the event of this name; `None` for all events."""
        if name is None:
            self._callbacks.clear()
        else:
            self._callbacks.pop(name, None)


@dataclass(frozen=True, slots=True)
class Translator:
    """
    An observer that emits what it hears in the words of ODIBI CORE.

    A failed run is not among that: its error is made after its last event, and emitted by whoever raises it.

    Attributes:
        emitter: What it emits to.
        steps: Name -> the step as its author declared it.
    """

    emitter: EventEmitter
    steps: Mapping[str, Step[..., Any, Any]]

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.emitter.emit("pipeline_start", steps=list(self.steps.values()))
            case StepStarted():
                self.emitter.emit("step_start", step=self.steps[event.step])
            case StepFinished(status=Status.FAILED):
                self.emitter.emit("step_error", step=self.steps[event.step], error=event.result.error)
            case StepFinished() if event.result.is_done:
                duration = event.result.run_seconds * 1e3
                self.emitter.emit("step_complete", step=self.steps[event.step], duration_ms=duration)
            case RunFinished(status=Status.SUCCEEDED):
                self.emitter.emit("pipeline_complete", data_map=event.result.outputs)
