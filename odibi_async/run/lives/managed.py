"""A context manager that is entered at one time and exited at another."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from odibi_async.cancellation import check_cancelled
from odibi_async.run.tracebacks import calls_users_code
from odibi_async.steps import is_async


class Managed:
    """
    A context manager that is entered at one time and exited at another, in one task.

    It is exited as often as it was entered, whatever happens between: who gives it up while a worker thread is
    entering it leaves the exit to that thread.

    Args:
        fn: A generator function that yields once, or what returns a context manager; async or plain.
        in_thread: Calls a blocking function in a worker thread, and if it has to be sure, also when it is cancelled
            before a thread has taken it.
    """

    def __init__(self, fn: Callable[..., Any], in_thread: Callable[[Callable[[], Any], bool], Awaitable[Any]]) -> None:
        self._fn = fn
        self._in_thread = in_thread
        self._manager: Any = None
        self._lock = threading.Lock()
        self._is_open = False
        self._is_given_up = False
        self.is_async = is_async(fn) or inspect.isasyncgenfunction(_innermost(fn))

    @calls_users_code
    async def open(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the context manager yields. Whoever has called this calls `give_up` if it does not return."""
        if is_async(self._fn):
            self._manager = await self._fn(*args, **kwargs)
        elif _is_generator(self._fn):
            self._manager = _manager_of(self._fn)(*args, **kwargs)
        else:
            value = await self._in_thread(functools.partial(self._make, args, kwargs), False)
            if not self._is_async_manager:
                return value
        if not self._is_async_manager:
            return await self._in_thread(self._enter, False)
        value = await self._manager.__aenter__()
        self._is_open = True
        return value

    @property
    def _is_async_manager(self) -> bool:
        return hasattr(type(self._manager), "__aenter__")

    def _make(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Makes it in a worker thread, and enters it there if it is a blocking one."""
        self._manager = self._fn(*args, **kwargs)
        check_cancelled()
        return None if self._is_async_manager else self._enter()

    def _enter(self) -> Any:
        """Enters it in a worker thread; when nobody waits for that any more, exits it again."""
        value = self._manager.__enter__()
        with self._lock:
            given_up = self._is_given_up
            self._is_open = not given_up
        if given_up:
            self._manager.__exit__(None, None, None)
            raise asyncio.CancelledError("the resource was given up while it was opened")
        return value

    async def give_up(self) -> None:
        """Exits it, if it was entered: nobody has read it. From now on it is never left open."""
        with self._lock:
            self._is_given_up = True
        await self.close(None)

    @calls_users_code
    async def close(self, error: BaseException | None) -> BaseException | None:
        """Exits it, as a `with` block that raised `error` would; the error that it raises itself."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
        if not was_open:
            return None
        about = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        try:
            if self._is_async_manager:
                await self._manager.__aexit__(*about)
            else:
                await self._in_thread(functools.partial(self._manager.__exit__, *about), True)
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
