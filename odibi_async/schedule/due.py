"""Which times of a trigger are due, and which were missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from odibi_async.errors import OptionError
from odibi_async.schedule.triggers import Trigger

Missed: TypeAlias = Literal["skip", "latest", "all"]
MISSED: Final = ("skip", "latest", "all")
MOST: Final = 500
"""How many times are looked through at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """
    The times of a trigger that have come.

    Attributes:
        fire: Those that fire, in order.
        missed: Those that do not; where there are more than a few hundred, the first ones.
        upto: The last of all of them; times to come are later. `None` where none has come.
    """

    fire: Sequence[datetime] = ()
    missed: Sequence[datetime] = ()
    upto: datetime | None = None


def due(
    trigger: Trigger, after: datetime, now: datetime, *, missed: Missed, within: timedelta, grace: timedelta
) -> Due:
    """
    The times of a trigger that have come.

    Args:
        trigger: The trigger.
        after: Its last time that was claimed.
        now: What time it is.
        missed: What is done about times that are long past: none of them fires, the latest, or all.
        within: Those that are longer past never fire.
        grace: One that is no longer past than this is only late, and fires.

    Raises:
        OptionError: The trigger gave what is no time to come.
    """
    too_old = _until(trigger, after, now - within) if after < now - within else []
    is_cut = len(too_old) == MOST
    start = now - within if is_cut else max([after, *too_old[-1:]])
    past = _until(trigger, start, now)
    upto = past[-1] if past else start if is_cut else next(reversed(too_old), None)
    if missed == "all":  # what is more than a few hundred is next
        return Due(fire=past, missed=too_old, upto=upto)
    if len(past) == MOST:
        past = [*past[:-1], _latest(trigger, past[-1], now)]
        upto = past[-1]
    fires = past[-1:] if past and (missed == "latest" or past[-1] >= now - grace) else []
    return Due(fire=fires, missed=[*too_old, *past[: len(past) - len(fires)]], upto=upto)


def following(trigger: Trigger, after: datetime) -> datetime | None:
    """
    The next time of a trigger.

    Raises:
        OptionError: It gave what is no time to come.
    """
    found = trigger.next(after)
    if found is None:
        return None
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise OptionError(f"next({after}) gave {found!r}: a datetime with a time zone is needed, or None.")
    if found <= after:
        raise OptionError(f"next({after}) gave {found}, which is not later.")
    return found


def _until(trigger: Trigger, after: datetime, now: datetime) -> list[datetime]:
    """The first times after one and not after another, a few hundred at most."""
    found: list[datetime] = []
    while len(found) < MOST:
        at = following(trigger, found[-1] if found else after)
        if at is None or at > now:
            break
        found.append(at)
    return found


def _latest(trigger: Trigger, known: datetime, now: datetime) -> datetime:
    """The last time that is not after now, of many: looked for from the end, twice as far back each time."""
    back = timedelta(milliseconds=1)
    while now - back > known:
        found = _until(trigger, now - back, now)
        if found:
            return found[-1] if len(found) < MOST else _latest(trigger, found[-1], now)
        back *= 2
    return known
