"""OA351 to OA359: what is wrong with schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

_STEPS: Final = "steps:\n  - {name: one, type: sql, value: SELECT 1 AS n}"

SCHEDULES: Final[Mapping[str, Code]] = {
    "OA351": Code(
        title="a cron expression is wrong",
        text="It has five fields: minute, hour, day of the month, month and weekday. In each of them stand a number, * "
        "for all, a range a-b, a list a,b or a step */n; months and weekdays have names (JAN, MON). @yearly, @monthly, "
        "@weekly, @daily and @hourly stand for whole expressions.",
        wrong=f"schedule: 30 26 * * *\n{_STEPS}",
        right=f"schedule: 30 2 * * *\n{_STEPS}",
    ),
    "OA352": Code(
        title="there is no such time zone",
        text="Time zones have the names of the IANA database, such as Europe/Berlin. A system without that database "
        "needs the package tzdata.",
        wrong=f"schedule: {{cron: 30 2 * * *, tz: Berlin}}\n{_STEPS}",
        right=f"schedule: {{cron: 30 2 * * *, tz: Europe/Berlin}}\n{_STEPS}",
    ),
    "OA353": Code(
        title="there is no such schedule or event",
        text="What is asked of a server has to be among its schedules, or an event that one of them waits for.",
        wrong="""
import asyncio
from odibi_async.schedule import Cron, Schedules

def one(): return 1

async def main():
    async with Schedules({"nightly": ([one], Cron("@daily"))}) as schedules:
        await schedules.pause("daily")

asyncio.run(main())""",
        right="""
import asyncio
from odibi_async.schedule import Cron, Schedules

def one(): return 1

async def main():
    async with Schedules({"nightly": ([one], Cron("@daily"))}) as schedules:
        await schedules.pause("nightly")

asyncio.run(main())""",
        form="python",
    ),
    "OA354": Code(
        title="a configuration does not say when it is to run",
        text="What is served has an entry `schedule`: a cron expression, or a mapping with cron, every, files or "
        "event.",
        wrong="$ odibi-async schedule next",
        right="""
$ echo '{schedule: "@daily", steps: [{name: one, type: sql, value: SELECT 1 AS n}]}' > daily.yaml
$ odibi-async schedule next daily.yaml""",
        form="console",
    ),
    "OA355": Code(
        title="two schedules have the same name",
        text="A schedule has the name of its configuration, or else that of its file, and its firings are recorded "
        "under it.",
        wrong="""
$ echo '{schedule: "@daily", steps: [{name: one, type: sql, value: SELECT 1 AS n}]}' > daily.yaml
$ odibi-async serve daily.yaml daily.yaml""",
        right="""
$ echo '{schedule: "@daily", name: a, steps: [{name: one, type: sql, value: SELECT 1 AS n}]}' > daily.yaml
$ odibi-async schedule next daily.yaml""",
        form="console",
    ),
    "OA356": Code(
        title="a trigger failed, and its schedule is stopped",
        text="The trigger raised, or gave what is no later time. Other schedules go on; this one does when it is "
        "resumed, or when the server is started again.",
        wrong="""
from odibi_async.errors import TriggerFailed

raise TriggerFailed("nightly", "next(2024-01-01) gave 2023-12-31, which is not later.")""",
        right="""
from datetime import datetime, timezone
from odibi_async.schedule import Cron

Cron("@daily").next(datetime.now(timezone.utc))""",
        form="python",
    ),
    "OA357": Code(
        title="what the journal has of a schedule is damaged",
        text="Its mark was changed by something else, or written by another version. Remove the mark, and the schedule "
        "begins anew.",
        wrong="""
from odibi_async.errors import RecordDamaged

raise RecordDamaged("nightly")""",
        right="""
import odibi_async.schedule""",
        form="python",
    ),
    "OA358": Code(
        title="a firing is given up",
        text="Each process that began its run died before the run ended, so the run is what kills them. attempts says "
        "in how many processes it is tried.",
        wrong="""
from odibi_async.errors import FiringAbandoned

raise FiringAbandoned("nightly@20240101T023000Z", 3)""",
        right="""
from odibi_async.schedule import Cron, Schedule

Schedule(pipeline=[], trigger=Cron("@daily"), attempts=1)""",
        form="python",
    ),
}
