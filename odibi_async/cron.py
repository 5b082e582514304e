"""The times of a cron expression in a time zone."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

from odibi_async.errors import CronError, OptionError, ZoneUnknown, did_you_mean

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS: Final = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, L for the last day, or LW for the last weekday",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), SUN to SAT, FRI#2 for the second Friday, or 5L for the last one",
}
"""The fields of an expression, in order, and what may stand in them."""
LONGEST: Final = 1000
"""Characters that an expression may have."""
DAY: Final = timedelta(days=1)
MINUTE: Final = timedelta(minutes=1)
SECOND: Final = timedelta(seconds=1)


class CronTimes:
    """
    The times that an expression names, as Debian's cron understands it.

    Where both the day of the month and the weekday are restricted, one of them has to fit. An expression that says
    at which minutes of which hours fires once when these are there twice, and when they are left out at the moment
    that the clock is set forward. One whose minutes or hours begin with `*` follows the time that passes.

    Args:
        expression: `minute hour day-of-month month day-of-week`, or `@daily` and its like.
        tz: The name of a time zone, or the zone itself.

    Raises:
        CronError: The expression is wrong, or never fires.
        ZoneUnknown: There is no such time zone.
    """

    def __init__(self, expression: str, tz: str | tzinfo = "UTC") -> None:
        self.zone = _zone(tz)
        self.text = " ".join(str(expression).split())
        fields = _fields(expression, self.text)
        self._times = _parsed(expression, fields)
        self._passes = fields[0].startswith("*") or fields[1].startswith("*")
        if self._match(datetime(2000, 1, 1)) is None:
            raise CronError(expression, "it never fires: no month has such a day.")

    def next(self, after: datetime) -> datetime | None:
        """The first time after another one, in UTC; `None` where there is none before the year 9999."""
        if after.tzinfo is None:
            raise OptionError(f"{after!r} has no time zone: next() needs one that has.")
        after = after.astimezone(timezone.utc)
        try:
            return self._passing(after) if self._passes else self._on_the_wall(after)
        except OverflowError:
            return None

    def _on_the_wall(self, after: datetime) -> datetime | None:
        """The next time of one that names what clocks on the wall show."""
        found: datetime | None = _minute(self._wall(after))
        while found is not None:
            found = self._match(found + MINUTE)
            if found is not None and (moment := self._moment(found)) > after:
                return moment
        return None

    def _moment(self, wall: datetime) -> datetime:
        """When clocks on the wall show a time first, or would if it were not left out."""
        moment = wall.replace(tzinfo=self.zone).astimezone(timezone.utc)
        if self._wall(moment) == wall:
            return moment
        return self._turn(moment - DAY, moment) or moment

    def _passing(self, after: datetime) -> datetime | None:
        """The next time of one that goes with the time that passes, whatever is done to clocks."""
        wall = self._wall(after)
        at = after + (_minute(wall) + MINUTE - wall)
        while True:
            wall = self._wall(at)
            found = self._match(wall)
            if found is None:
                return None
            moment = at + (found - wall)
            turn = self._turn(at, moment)
            if turn is None:
                return moment
            at = turn  # the clock is set before that; from then on it shows other times

    def _match(self, wall: datetime) -> datetime | None:
        """The first time from one on that fits, on a clock that is never set."""
        times = copy.copy(self._times)
        times.dt = wall - SECOND
        return next(times, None)

    def _wall(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None)

    def _turn(self, start: datetime, end: datetime) -> datetime | None:
        """When the clock is set first, after a time and until another one; `None` where it is not."""
        if self.zone is timezone.utc:
            return None
        offset = self._offset(start)
        while start < end:
            day = min(start + DAY, end)
            if self._offset(day) != offset:
                while day - start > SECOND:
                    middle = start + (day - start) // 2
                    start, day = (middle, day) if self._offset(middle) == offset else (start, middle)
                return day.replace(microsecond=0)
            start = day
        return None

    def _offset(self, moment: datetime) -> timedelta | None:
        return moment.astimezone(self.zone).utcoffset()


def _minute(time: datetime) -> datetime:
    return time.replace(second=0, microsecond=0)


def _fields(expression: str, text: str) -> list[str]:
    """The five fields of an expression."""
    if len(text) > LONGEST:
        raise CronError(text[:60] + "...", f"it is longer than {LONGEST} characters.")
    if text.startswith("@"):
        if text.lower() not in ALIASES:
            hint = did_you_mean(text, ALIASES) or f" Known: {', '.join(ALIASES)}."
            raise CronError(expression, f"{text!r} is unknown.{hint}")
        text = ALIASES[text.lower()]
    fields = text.split()
    if len(fields) != len(FIELDS):
        hint = " For intervals of seconds there is Every(seconds)." if len(fields) == len(FIELDS) + 1 else ""
        raise CronError(expression, f"{len(FIELDS)} fields are needed, {', '.join(FIELDS)}, not {len(fields)}.{hint}")
    return fields


def _parsed(expression: str, fields: list[str]) -> CronSim:
    for index, (name, allowed) in enumerate(FIELDS.items()):
        alone = ["*"] * len(FIELDS)
        alone[index] = fields[index]
        if not _is_sound(alone):
            raise CronError(expression, f"{fields[index]!r} cannot be the {name}: {allowed}; *, a-b, a,b and */n too.")
    if not _is_sound(fields):
        raise CronError(expression, "it never fires: no month has such a day.")
    return CronSim(" ".join(map(_closed, Field, ["0", *fields])), datetime(2000, 1, 1))


def _closed(field: Field, text: str) -> str:
    """A field without steps through a range of one value: CronSim would go on to the end of the field."""
    parts = [part.split("/") for part in text.upper().split(",")]
    return ",".join(part[0] if "-" in part[0] and len(field.parse(part[0])) == 1 else "/".join(part) for part in parts)


def _is_sound(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))
    except (CronSimError, ValueError):  # a number of thousands of digits is a ValueError
        return False
    return True


def _zone(tz: str | tzinfo) -> tzinfo:
    if isinstance(tz, tzinfo):
        name = getattr(tz, "zone", None)  # of pytz, whose zones do not know the offset of a time on the wall
        if not isinstance(name, str):
            return tz
        tz = name
    if isinstance(tz, str) and tz.upper() == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ZoneUnknown(str(tz), tuple(available_timezones())) from error
