"""The times of cron expressions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odibi_async.cron import ALIASES, CronTimes
from odibi_async.errors import CronError, OptionError, TriggerError, ZoneUnknown
from odibi_async.schedule import Cron

UTC = timezone.utc
ZONES = {name: ZoneInfo(name) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo")}


def times(expression: str, tz: str, start: str, count: int) -> list[str]:
    """The next times after a moment of UTC, as clocks of the zone show them."""
    trigger, at, found = Cron(expression, tz=tz), datetime.fromisoformat(start).replace(tzinfo=UTC), []
    for _ in range(count):
        following = trigger.next(at)
        assert following is not None
        assert following > at
        at = following
        found.append(f"{at.astimezone(ZoneInfo(tz)):%a %Y-%m-%d %H:%M %z}")
    return found


def test_a_time_that_clocks_show_twice_in_autumn_fires_once():
    assert times("30 2 * * *", "Europe/Berlin", "2024-10-26T12:00", 2) == [
        "Sun 2024-10-27 02:30 +0200",
        "Mon 2024-10-28 02:30 +0100",
    ]


def test_it_does_not_fire_again_when_asked_between_its_two_moments():
    between = "2024-10-27T01:10"  # 02:10 for the second time
    assert times("30 2 * * *", "Europe/Berlin", between, 1) == ["Mon 2024-10-28 02:30 +0100"]


def test_a_time_that_clocks_leave_out_in_spring_fires_when_they_are_set_forward():
    assert times("30 2 * * *", "Europe/Berlin", "2024-03-30T12:00", 2) == [
        "Sun 2024-03-31 03:00 +0200",
        "Mon 2024-04-01 02:30 +0200",
    ]


def test_several_times_that_are_left_out_fire_once_together():
    assert times("0,15,30 2,3 * * *", "Europe/Berlin", "2024-03-31T00:59", 3) == [
        "Sun 2024-03-31 03:00 +0200",
        "Sun 2024-03-31 03:15 +0200",
        "Sun 2024-03-31 03:30 +0200",
    ]


def test_an_interval_follows_the_time_that_passes_through_autumn_and_spring():
    assert times("*/30 * * * *", "Europe/Berlin", "2024-10-26T23:45", 5) == [
        "Sun 2024-10-27 02:00 +0200",
        "Sun 2024-10-27 02:30 +0200",
        "Sun 2024-10-27 02:00 +0100",
        "Sun 2024-10-27 02:30 +0100",
        "Sun 2024-10-27 03:00 +0100",
    ]
    assert times("*/30 * * * *", "Europe/Berlin", "2024-03-31T00:15", 2) == [
        "Sun 2024-03-31 01:30 +0100",
        "Sun 2024-03-31 03:00 +0200",
    ]


def test_hours_are_found_where_clocks_are_set_by_half_an_hour():
    assert times("0 */3 * * *", "Australia/Lord_Howe", "2024-10-05T13:00", 2) == [
        "Sun 2024-10-06 00:00 +1030",
        "Sun 2024-10-06 03:00 +1100",
    ]


def test_the_29th_of_february_comes_in_leap_years():
    assert [time[4:14] for time in times("0 0 29 2 *", "UTC", "2023-01-01", 3)] == [
        "2024-02-29",
        "2028-02-29",
        "2032-02-29",
    ]
    assert times("0 0 29 2 *", "UTC", "2096-03-01", 1) == ["Fri 2104-02-29 00:00 +0000"]  # 2100 is none


def test_the_31st_comes_in_the_months_that_have_one():
    assert [time[9:14] for time in times("0 0 31 * *", "UTC", "2024-01-01", 7)] == [
        "01-31",
        "03-31",
        "05-31",
        "07-31",
        "08-31",
        "10-31",
        "12-31",
    ]


def test_of_weekday_and_day_together_one_has_to_fit():
    assert [time[:14] for time in times("0 0 13 * FRI", "UTC", "2024-09-05", 4)] == [
        "Fri 2024-09-06",
        "Fri 2024-09-13",
        "Fri 2024-09-20",
        "Fri 2024-09-27",
    ]
    assert [time[:14] for time in times("0 0 13 * FRI", "UTC", "2024-11-09", 2)] == [
        "Wed 2024-11-13",
        "Fri 2024-11-15",
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0-2 5 * * *", ["05:00", "05:01", "05:02"]),
        ("10-20/5 5 * * *", ["05:10", "05:15", "05:20"]),
        ("*/20 5 * * *", ["05:00", "05:20", "05:40"]),
        ("5/25 5 * * *", ["05:05", "05:30", "05:55"]),
        ("10-10/5,59 5-5/2 * jan-1/1 *", ["05:10", "05:59", "05:10"]),
        ("1,3 5-6 * * *", ["05:01", "05:03", "06:01"]),
        ("@hourly", ["01:00", "02:00", "03:00"]),
    ],
)
def test_ranges_steps_and_lists_are_understood(expression: str, expected: list[str]):
    assert [time[15:20] for time in times(expression, "UTC", "2024-01-01T00:30", 3)] == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * MON-WED", ["Mon 2024-01-01", "Tue 2024-01-02", "Wed 2024-01-03", "Mon 2024-01-08"]),
        ("0 0 * * sun", ["Sun 2024-01-07", "Sun 2024-01-14"]),
        ("0 0 * * 7", ["Sun 2024-01-07", "Sun 2024-01-14"]),
        ("0 0 1 feb,DEC *", ["Thu 2024-02-01", "Sun 2024-12-01"]),
        ("0 0 L * *", ["Wed 2024-01-31", "Thu 2024-02-29"]),
        ("0 0 * * FRI#2", ["Fri 2024-01-12", "Fri 2024-02-09"]),
        ("@weekly", ["Sun 2024-01-07", "Sun 2024-01-14"]),
        ("@monthly", ["Mon 2024-01-01", "Thu 2024-02-01"]),
        ("@yearly", ["Mon 2024-01-01", "Wed 2025-01-01"]),
        ("@Daily", ["Mon 2024-01-01", "Tue 2024-01-02"]),
    ],
)
def test_names_and_aliases_are_understood(expression: str, expected: list[str]):
    assert [time[:14] for time in times(expression, "UTC", "2023-12-31T23:59:59", len(expected))] == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "'61' cannot be the minute: 0 to 59"),
        ("* 24 * * *", "'24' cannot be the hour"),
        ("* * 0 * *", "'0' cannot be the day-of-month"),
        ("* * * 13 *", "'13' cannot be the month: 1 to 12, or JAN to DEC"),
        ("* * * FEBR *", "'FEBR' cannot be the month"),
        ("* * * * 8", "'8' cannot be the day-of-week"),
        ("* * * * FRI-MON", "'FRI-MON' cannot be the day-of-week"),
        ("5-1 * * * *", "'5-1' cannot be the minute"),
        ("*/0 * * * *", "'*/0' cannot be the minute"),
        ("1,,2 * * * *", "'1,,2' cannot be the minute"),
        ("-1 * * * *", "'-1' cannot be the minute"),
        ("\u0661 * * * *", "cannot be the minute"),
        (f"{'9' * 900} * * * *", "cannot be the minute"),
        ("* * * *", "5 fields are needed, minute, hour, day-of-month, month, day-of-week, not 4"),
        ("0 * * * * *", "not 6. For intervals of seconds there is Every(seconds)"),
        ("", "not 0"),
        ("0 0 30 2 *", "it never fires: no month has such a day"),
        ("0 0 31 4,6 *", "it never fires"),
        ("@dayly", "'@dayly' is unknown. Did you mean '@daily'?"),
        ("@reboot", "'@reboot' is unknown. Known: @yearly"),
        ("* " * 600, "longer than 1000 characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_would_be_right(expression: str, said: str):
    with pytest.raises(CronError) as raised:
        Cron(expression)
    assert said in str(raised.value)
    assert raised.value.code == "OA351"
    assert isinstance(raised.value, TriggerError | ValueError)


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(ZoneUnknown, match=r"There is no time zone 'Europe/Berln'\. Did you mean 'Europe/Berlin'"):
        Cron("@daily", tz="Europe/Berln")
    for name in ("", "/etc/passwd", "../x", "Europe", "x\0", "x" * 5000):
        with pytest.raises(ZoneUnknown):
            Cron("@daily", tz=name)


class Legacy(tzinfo):
    """A zone as pytz has them: set into a time it gives the mean time of the place, until `fromutc` says otherwise."""

    zone = "Europe/Berlin"

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(minutes=53)

    def fromutc(self, when: datetime) -> datetime:
        return when.replace(tzinfo=UTC).astimezone(ZoneInfo(self.zone))


def test_a_zone_of_pytz_is_the_zone_of_its_name():
    after = datetime(2024, 7, 1, tzinfo=UTC)
    assert Cron("30 2 * * *", tz=Legacy()).next(after) == datetime(2024, 7, 1, 0, 30, tzinfo=UTC)


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(OptionError, match="has no time zone"):
        Cron("@daily").next(datetime(2024, 1, 1))


def test_the_end_of_the_calendar_is_no_error():
    assert Cron("@yearly").next(datetime(9999, 6, 1, tzinfo=UTC)) is None
    assert Cron("@yearly", tz="Europe/Berlin").next(datetime.max.replace(tzinfo=UTC)) is None


def test_every_alias_is_an_expression():
    assert all(CronTimes(alias).next(datetime(2024, 1, 1, tzinfo=UTC)) for alias in ALIASES)


MINUTES = {"*": range(60), "*/7": range(0, 60, 7), "30": [30], "0,15": [0, 15], "59": [59]}
HOURS = {"*": range(24), "*/2": range(0, 24, 2), "0": [0], "1-3": [1, 2, 3], "2": [2], "23": [23]}


def by_looking_at_clocks(minute: str, hour: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The times of a day's expression, found by looking at a clock of the zone each minute."""
    found, passed, at = list[datetime](), set[datetime](), start
    fits = {(h, m) for h in HOURS[hour] for m in MINUTES[minute]}
    follows_clocks = not (minute.startswith("*") or hour.startswith("*"))
    while at < end:
        wall = at.astimezone(zone).replace(tzinfo=None)
        before = (at - timedelta(minutes=1)).astimezone(zone).replace(tzinfo=None)
        shown = [wall]
        if follows_clocks:  # minutes that the clock jumps over count as shown; those it shows again do not
            shown += [before + timedelta(minutes=n) for n in range(1, int((wall - before).total_seconds() // 60))]
            shown = [time for time in shown if time not in passed]
            passed.update(shown)
        if any((time.hour, time.minute) in fits for time in shown):
            found.append(at)
        at += timedelta(minutes=1)
    return found


@settings(max_examples=60, deadline=None)
@given(
    minute=st.sampled_from(sorted(MINUTES)),
    hour=st.sampled_from(sorted(HOURS)),
    zone=st.sampled_from(sorted(ZONES)),
    turn=st.sampled_from(
        ["2024-03-10", "2024-03-31", "2024-04-06", "2024-04-25", "2024-10-05", "2024-10-26", "2024-11-02"]
    ),
)
def test_around_clock_changes_it_fires_as_somebody_who_watches_the_clock(minute: str, hour: str, zone: str, turn: str):
    start = datetime.fromisoformat(turn).replace(tzinfo=UTC) - timedelta(hours=12)
    end = start + timedelta(hours=48)
    expected = by_looking_at_clocks(minute, hour, ZONES[zone], start, end)
    trigger, found, at = Cron(f"{minute} {hour} * * *", tz=ZONES[zone]), [], start - timedelta(minutes=1)
    while (at := trigger.next(at)) < end:  # type: ignore[assignment, operator]
        found.append(at)
    assert found == expected
