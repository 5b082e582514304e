"""Durations, as users say them: seconds, or a `timedelta`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from odibi_async.errors import OptionError


def seconds_of(what: str, value: Any, *, above_zero: bool = False) -> Any:
    """
    The seconds of a duration; `None` stays `None`.

    Args:
        what: What the duration is called, for the message.
        value: A number of seconds, or a `timedelta`.
        above_zero: Whether 0 is too short.

    Raises:
        OptionError: It is neither, or too short.
    """
    if isinstance(value, timedelta):
        return seconds_of(what, value.total_seconds(), above_zero=above_zero)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and (value > 0 if above_zero else value >= 0)):
        return value
    raise OptionError(f"{what}={value!r}: seconds {'above 0' if above_zero else 'from 0 on'} are needed.")
