"""The policies around one call of a step, each entered only where a step asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.to_thread

from odibi_async.dataset import KINDS
from odibi_async.errors import OutputError
from odibi_async.graph.graph import Node
from odibi_async.result import CacheUse
from odibi_async.retry import Retry, asked_delay
from odibi_async.steps import is_async

IN_A_STEP: Final[ContextVar[bool]] = ContextVar("odibi_async in a step", default=False)
"""Whether the step of a run has called what asks."""


@dataclass(slots=True)
class Course:
    """
    How far a step has come.

    Attributes:
        ready: When its inputs were there, in seconds of `perf_counter`.
        started: When its first attempt began; 0 before that.
        attempts: How many began.
        use: What the cache did for it, if it was asked.
    """

    ready: float
    started: float = 0.0
    attempts: int = 0
    use: CacheUse | None = None


def refuse_awaitable(who: str, value: Any) -> None:
    """
    Makes sure that a call gave a value.

    Raises:
        OutputError: It gave a coroutine or a future, which nobody awaits.
    """
    kind = KINDS[type(value)]
    if kind is not None and kind.awaitable:
        if inspect.iscoroutine(value):
            value.close()
        raise OutputError(
            f"{who} returned {type(value).__name__} {value!r} that nobody awaits: "
            "make it an async function, or await inside it."
        )


def outputs_of(node: Node, value: Any) -> Sequence[Any]:
    """
    What a step made, one value a dataset, from what its function returned.

    Raises:
        OutputError: The function returned something that nobody awaits, or not what the step declares.
    """
    refuse_awaitable(f"Step {node.name!r}", value)
    if len(node.outputs) == 1:
        return (value,)
    if not node.outputs:
        return ()
    names = list(node.step.outputs)
    if isinstance(value, Mapping):
        if value.keys() != set(names):
            raise OutputError(f"Step {node.name!r} declares the outputs {names}, but returned {list(value)}.")
        return [value[name] for name in names]
    if not isinstance(value, tuple):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs, so it returns a tuple or a mapping, "
            f"not {type(value).__name__}."
        )
    if len(value) != len(names):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs ({', '.join(names)}), but returned {len(value)}."
        )
    return value


class Managed:
    """
    A context manager that is entered at one time and exited at another, in one task.

    Args:
        fn: A generator function that yields once, or what returns a context manager; async or plain.
        in_thread: Calls a blocking function in a worker thread.
    """

    def __init__(self, fn: Callable[..., Any], in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._fn = fn
        self._in_thread = in_thread
        self._manager: Any = None
        self._is_open = False
        self.is_async = is_async(fn) or inspect.isasyncgenfunction(_innermost(fn))

    async def open(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the context manager yields."""
        try:
            if is_async(self._fn):
                self._manager = await self._fn(*args, **kwargs)
            elif _is_generator(self._fn):
                self._manager = _manager_of(self._fn)(*args, **kwargs)
            else:
                self._manager = await self._in_thread(self._fn, *args, **kwargs)
            if hasattr(self._manager, "__aenter__"):
                value = await self._manager.__aenter__()
                self._is_open = True
                return value
            return await self._in_thread(self._enter)
        except BaseException as error:
            if self._is_open:  # it was cancelled while a thread entered it all the same
                await self.close(error)
            raise

    def _enter(self) -> Any:
        value = self._manager.__enter__()
        self._is_open = True
        return value

    async def close(self, error: BaseException | None) -> BaseException | None:
        """Exits it, as a `with` block that raised `error` would; the error that it raises itself."""
        about = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        try:
            if hasattr(self._manager, "__aexit__"):
                await self._manager.__aexit__(*about)
            else:
                await self._in_thread(self._manager.__exit__, *about)
        except BaseException as raised:
            return None if raised is error else raised
        return None


def _is_generator(fn: Any) -> bool:
    fn = _innermost(fn)
    return inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)


def _manager_of(fn: Any) -> Callable[..., Any]:
    is_async = inspect.isasyncgenfunction(_innermost(fn))
    return (contextlib.asynccontextmanager if is_async else contextlib.contextmanager)(fn)


def _innermost(fn: Any) -> Any:
    """The function inside partials."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


class TimeLimit:
    """
    Limits what an attempt may take: `async with TimeLimit(...)`.

    When the time is over the task gets one `cancel()`, so that its clean-up may await, and after each
    further grace another one. `asyncio.timeout` would stop at the first, an `anyio` cancel scope would cut
    every `await` of the clean-up. An attempt whose time is over has failed, whatever it returns.

    Args:
        seconds: The limit; `None` for no limit.
        grace: Seconds that the clean-up has before the task is cancelled again.
        at_once: Whether the time runs from the beginning; else from the call of `start`.

    Raises:
        TimeoutError: The time was over.
    """

    def __init__(self, seconds: float | None, grace: float, *, at_once: bool = True) -> None:
        self._seconds = seconds
        self._grace = grace
        self._at_once = at_once
        self._cancels = 0
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        if self._seconds is not None:
            task = asyncio.current_task()
            assert task is not None
            self._task = task
            self._cancelling_before = task.cancelling()
            if self._at_once:
                self.start()
        return self

    def start(self) -> None:
        """The time runs from now on."""
        if self._seconds is not None and self._timer is None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._cancels += 1
        self._task.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._grace, self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._cancels:
            return
        for _ in range(self._cancels):
            self._task.uncancel()
        cancelled_by_others = self._task.cancelling() > self._cancelling_before
        if (error is None or isinstance(error, asyncio.CancelledError)) and not cancelled_by_others:
            raise TimeoutError(f"no result within {self._seconds:g} s") from None


async def try_again(
    policy: Retry,
    error: BaseException,
    attempt: Callable[[], Awaitable[Any]],
    on_retry: Callable[[int, BaseException, float], None],
) -> Any:
    """
    Makes the further attempts after a first one that failed.

    Args:
        policy: It covers `error`.
        error: What the first attempt raised; it counts as attempt 1.
        attempt: Makes one attempt.
        on_retry: Hears the number of the attempt that failed, its error and the seconds until the next.

    Raises:
        BaseException: What the last attempt raised.
    """
    tenacity = await _tenacity()
    first: BaseException | None = error

    async def next_attempt() -> Any:
        nonlocal first
        if first is not None:
            pending, first = first, None
            raise pending
        return await attempt()

    backoff = (tenacity.wait_random_exponential if policy.jitter else tenacity.wait_exponential)(
        multiplier=policy.wait, max=policy.max_wait
    )

    def wait(state: Any) -> float:
        asked = asked_delay(state.outcome.exception())
        return backoff(state) if asked is None else min(asked, policy.max_wait)

    def before_sleep(state: Any) -> None:
        on_retry(state.attempt_number, state.outcome.exception(), state.upcoming_sleep)

    return await tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(policy.covers),
        before_sleep=before_sleep,
        sleep=asyncio.sleep,
        reraise=True,
    )(next_attempt)


async def _tenacity() -> Any:
    """The library; the first time it is imported off the loop."""
    global _loaded
    if _loaded is None:
        _loaded = await anyio.to_thread.run_sync(importlib.import_module, "tenacity", limiter=anyio.CapacityLimiter(1))
    return _loaded


_loaded: Any = None
