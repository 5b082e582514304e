"""How a failed step is called again: the policy. The machinery is made from it in `run/calls.py`."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from odibi_async.durations import seconds_of
from odibi_async.errors import OdibiError, OptionError, WorkerLost, in_a_line, leaves

Errors = tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    How often, and how patiently, a failed step is called again.

    Attributes:
        attempts: Calls in all, the first one included. 1 means no retry.
        wait: Seconds before the second call; doubled before each later one.
        max_wait: Seconds that no single wait exceeds.
        jitter: Whether each wait is drawn evenly between 0 and its length, so that many clients that
            failed together do not come back together ("full jitter", M. Brooker, AWS Architecture
            Blog, 2015).
        on: The errors worth another call, or a predicate that takes the error.
        never: The errors that another call would only repeat. Where an error is an instance of classes
            in both, the nearer of its base classes decides, and `on` when it is the same one.

    An error that carries a delay (a `retry_after` in seconds, or a response with a `Retry-After`
    header) sets the wait itself, up to `max_wait`. Cancellation is never retried.
    """

    attempts: int = 3
    wait: float = 1.0
    max_wait: float = 60.0
    jitter: bool = True
    on: Errors | type[Exception] | Callable[[Exception], bool] = (Exception,)
    never: Errors | type[Exception] = (
        TypeError,
        AttributeError,
        NameError,
        LookupError,
        AssertionError,
        ImportError,
        FileNotFoundError,
        PermissionError,
        OdibiError,
    )

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise OptionError(f"Retry(attempts={self.attempts!r}): a whole number from 1 on is needed.")
        for name in ("wait", "max_wait"):
            object.__setattr__(self, name, seconds_of(f"Retry(...): {name}", getattr(self, name)))
        _classes("never", self.never)
        if isinstance(self.on, type) or not callable(self.on):
            _classes("on", self.on)
        elif _is_async(self.on):
            raise OptionError(f"Retry(on={self.on!r}): a plain predicate is needed; an async one would always be true.")

    def covers(self, error: BaseException) -> bool:
        """Whether this error is worth another call; a group is when each of the errors in it is."""
        return self.judge(error)[0]

    def judge(self, error: BaseException) -> tuple[bool, str]:
        """Whether this error is worth another call, and why that could not be found out, where the predicate raised."""
        if not isinstance(error, Exception):
            return False, ""
        if not isinstance(self.on, type) and callable(self.on):
            try:
                return bool(self.on(error)), ""
            except BaseException as broken:  # anybody's code; the step's own error is the one to report
                return False, f"Retry(on=...) raised {in_a_line(broken)}, so the step was not called again."
        on, never = _classes("on", self.on), _classes("never", self.never)
        return all(_is_covered(each, on, never) for each in (error, *leaves(error)) if _is_judged(each, on)), ""


def _is_async(predicate: Any) -> bool:
    while isinstance(predicate, functools.partial):
        predicate = predicate.func
    called = getattr(type(predicate), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(predicate) or inspect.iscoroutinefunction(called)


def _is_judged(error: BaseException, on: Errors) -> bool:
    """Whether an error is looked at itself: a group is only where `on` names groups."""
    return not isinstance(error, BaseExceptionGroup) or isinstance(error, tuple(set(on) - {Exception}))


def _is_covered(error: BaseException, on: Errors, never: Errors) -> bool:
    if isinstance(error, WorkerLost):  # of our errors the one that may pass
        never = tuple(cls for cls in never if cls is not OdibiError)
    return isinstance(error, on) and _distance(error, on) <= _distance(error, never)


def _classes(option: str, given: Any) -> Errors:
    """One or several classes of errors as a tuple."""
    classes = (given,) if isinstance(given, type) else given
    if not isinstance(classes, tuple | list) or not all(
        isinstance(c, type) and issubclass(c, Exception) for c in classes
    ):
        raise OptionError(f"Retry({option}={given!r}): classes of errors are needed, such as (OSError, ValueError).")
    return tuple(classes)


def _distance(error: BaseException, classes: Errors) -> int:
    """How many steps up the error's own line of classes the first of `classes` stands."""
    line = type(error).__mro__
    return next((steps for steps, cls in enumerate(line) if cls in classes), len(line))


def asked_delay(error: BaseException) -> float | None:
    """The seconds that an error asks its caller to wait, if it does so in a form that makes sense."""
    try:
        asked: Any = getattr(error, "retry_after", None)
        if asked is None:
            headers: Any = getattr(getattr(error, "response", error), "headers", None)
            asked = None if headers is None else headers.get("Retry-After")
        seconds = None if asked is None else _seconds(asked)
    except BaseException:  # the error is anybody's: whatever its attributes do, it is the one to report
        return None
    return None if seconds is None or math.isnan(seconds) else max(0.0, seconds)


def _seconds(asked: Any) -> float | None:
    if isinstance(asked, timedelta):
        return asked.total_seconds()
    try:
        return float(asked)
    except ValueError:
        return _until(asked)


def _until(date: object) -> float | None:
    """Seconds until an HTTP date; `None` if it is none (RFC 9110, 10.2.3: delay or date)."""
    from email.utils import parsedate_to_datetime  # 40 ms to import

    try:
        when = parsedate_to_datetime(str(date))
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return (when - datetime.now(timezone.utc)).total_seconds()
