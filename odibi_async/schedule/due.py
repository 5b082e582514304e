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
"""How many times are looked through one by one."""
MADE_UP: Final = 100
"""How many times are made up for at most: the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """
    The times of a trigger that have come.

    Attributes:
        fire: Those that fire, in order.
        missed: Those that do not; where there are more than a few hundred, the first ones and the last.
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
        within: Those that are longer past, and not only late, never fire.
        grace: One that is no longer past than this is only late, and fires.

    Raises:
        OptionError: The trigger gave what is no time to come.
    """
    times = _until(trigger, after, now)
    last = _last(trigger, after, now) if len(times) == MOST else times
    young = [at for at in last if at > now - max(within, grace)]
    fire = young[-MADE_UP:] if missed == "all" else young[-1:]
    if missed == "skip":
        fire = [at for at in fire if at >= now - grace]
    gone = [*(at for at in times if at < last[0]), *last[: len(last) - len(fire)]] if last else []
    return Due(fire=fire, missed=gone, upto=last[-1] if last else None)


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


def _last(trigger: Trigger, after: datetime, now: datetime) -> list[datetime]:
    """The last times of many, at most as many as are made up for: looked for from the end, twice as far each time."""
    back, found = timedelta(milliseconds=1), list[datetime]()
    while True:
        start = max(after, now - back)
        more = _until(trigger, start, now)
        if len(more) > MADE_UP:
            return (found or more)[-MADE_UP:]
        if start == after:
            return more
        back, found = 2 * back, more
