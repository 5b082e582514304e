"""Watermarks: as JSON, and with a lateness taken off."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from odibi_async.errors import OptionError

_FROM: Final[Mapping[str, Callable[[str], Any]]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(?:(.)\d\d(:\d\d)?(:\d\d)?.*)?", re.DOTALL)
"""A text that says a date or a time, so that it sorts as such."""


def to_json(value: Any) -> Any:
    """
    A watermark as JSON holds it; `from_json` gives it back.

    Raises:
        OptionError: It is nothing that has an order and can be written down.
    """
    if not isinstance(value, str) and value != value:
        raise OptionError(f"{value!r} cannot be a watermark: it has no place in any order.")
    if hasattr(value, "to_pydatetime"):  # of pandas; what is below a microsecond is cut off
        value = value.floor("us").to_pydatetime()
    elif hasattr(value, "item"):  # of numpy
        value = value.item()
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise OptionError(f"{value!r} cannot be a watermark: a number, a text, a date or a time is needed.")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{value!r} cannot be a watermark: it has no place in any order.")
    return value


def from_json(value: Any) -> Any:
    """The watermark that `to_json` wrote."""
    if isinstance(value, dict):
        [(kind, text)] = value.items()
        return _FROM[kind](text)
    return value


def moment_of(value: Any) -> float | None:
    """The seconds since the epoch of a watermark that is a time, or a text that says one; `None` for others."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    return aware.timestamp()


def before(value: Any, lateness: Any) -> Any:
    """
    A watermark, less a lateness; of a text that says a time, the text of the whole second before.

    Raises:
        OptionError: One cannot be taken off the other.
    """
    if not lateness:
        return value
    try:
        if isinstance(value, str):
            return _text_before(value, _span(lateness))
        if isinstance(value, date) and not isinstance(value, datetime):
            return value - timedelta(days=math.ceil(_span(lateness) / timedelta(days=1)))
        if isinstance(value, datetime):
            return value - _span(lateness)
        if isinstance(value, Decimal):
            return value - Decimal(str(lateness))
        return value - lateness
    except OverflowError:
        return type(value).min if isinstance(value, date) else value
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        raise OptionError(f"lateness={lateness!r} does not fit a column of {kind} such as {value!r}.") from error


def _span(lateness: Any) -> timedelta:
    return lateness if isinstance(lateness, timedelta) else timedelta(seconds=lateness)


def _text_before(text: str, span: timedelta) -> str:
    """
    The text of a time before another one, in the same form. It has no parts of seconds and no time zone, so that it
    sorts before all texts of later times.
    """
    form = _TIME.fullmatch(text)
    if form is None:
        raise ValueError(text)
    moment = datetime.fromisoformat(text) - span
    separator, minutes, seconds = form.groups()
    if separator is None:
        return moment.date().isoformat()
    precision = "seconds" if seconds else "minutes" if minutes else "hours"
    return moment.replace(tzinfo=None).isoformat(sep=separator, timespec=precision)


def from_start(low: Any, start: Any) -> Any:
    """
    A watermark less a lateness, but not below the value that is the first to count.

    Raises:
        OptionError: One cannot be compared with the other.
    """
    if start is None:
        return low
    try:
        return max(low, start)
    except TypeError as error:
        raise OptionError(f"start={start!r} does not fit a column of {type(low).__name__} such as {low!r}.") from error
