"""The Spark jobs of a step: named for it, in a FAIR pool of their own, and stopped with it."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from odibi_async.cancellation import on_cancel
from odibi_async.engines.spark.failures import first_lines, is_cancellation, is_gone
from odibi_async.engines.spark.session import is_connect
from odibi_async.errors import EngineError, keep_text

PROPERTIES: Final = (
    "spark.jobGroup.id",
    "spark.job.description",
    "spark.job.interruptOnCancel",
    "spark.scheduler.pool",
)
"""The local properties of a thread that a step has values of its own for."""


class Jobs:
    """
    Labels the jobs that a thread starts as those of a step, and cancels them when the step is cancelled.

    Args:
        session: The Spark session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._pools = _Pools()

    @contextlib.contextmanager
    def around(self, step: str) -> Iterator[None]:
        """
        A block whose Spark jobs are the step's. In the worker thread of the step.

        Raises:
            asyncio.CancelledError: The step was cancelled, and its jobs with it.
            EngineError: The session is gone.
        """
        group = f"odibi-{uuid.uuid4().hex}"
        try:
            with contextlib.ExitStack() as stack:
                if is_connect(self._session):
                    self._session.addTag(group)
                    stack.callback(self._quietly, self._session.removeTag, group)
                    stop = _Stop(lambda: self._session.interruptTag(group))
                else:
                    context = self._session.sparkContext
                    before = {name: context.getLocalProperty(name) for name in PROPERTIES}
                    stack.callback(self._restore, context, before)
                    context.setJobGroup(group, step, interruptOnCancel=True)
                    context.setLocalProperty("spark.scheduler.pool", stack.enter_context(self._pools.one()))
                    stop = _Stop(lambda: context.cancelJobGroup(group))
                with stop.turning_into_cancellation(), on_cancel(stop):
                    yield
        except asyncio.CancelledError:
            raise
        except Exception as error:
            keep_text(error)
            if is_gone(error):
                raise EngineError(f"The Spark session is gone: {first_lines(error)}") from error
            raise

    def _restore(self, context: Any, before: dict[str, str | None]) -> None:
        """The thread goes on to other work: what it starts then is nobody's."""
        for name, value in before.items():
            self._quietly(context.setLocalProperty, name, value)

    @staticmethod
    def _quietly(call: Callable[..., object], *args: Any) -> None:
        """Calls what need not be done where the session is gone: the step's own error says so."""
        try:
            call(*args)
        except Exception as error:
            if not is_gone(error):
                raise


class _Pools:
    """Names of scheduler pools. Spark never forgets one, so they are used again: as many as steps at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._more = itertools.count()

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        with self._lock:
            number = heapq.heappop(self._free) if self._free else next(self._more)
        try:
            yield f"odibi-{number}"
        finally:
            with self._lock:
                heapq.heappush(self._free, number)


class _Stop:
    """
    Cancels the jobs of a step, as often as it is called: a stage that was submitted later runs on otherwise.

    Args:
        cancel: Cancels what runs now. It talks to the JVM or to a server, so it is called in a thread of its own.
    """

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        self._thread: threading.Thread | None = None
        self.asked = False

    def __call__(self) -> None:
        self.asked = True
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="spark cancel", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with contextlib.suppress(Exception):  # the session may be gone: then there is nothing to cancel
            self._cancel()

    @contextlib.contextmanager
    def turning_into_cancellation(self) -> Iterator[None]:
        """A block whose jobs, when they are cancelled from here, end in a cancellation."""
        try:
            yield
        except Exception as error:
            if self.asked and is_cancellation(error):
                raise asyncio.CancelledError("the step was cancelled") from None
            raise
        finally:
            if self._thread is not None:
                self._thread.join()
