"""Serving schedules from a shell."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from odibi_async import Journal
from odibi_async.cli import main
from odibi_async.result import Status
from tests.shell import Said, process, running, wait_for

pytestmark = pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does

Run = Callable[..., Said]

FUNCTIONS = """
import sys, time, asyncio

def quick(scheduled_at): return str(scheduled_at)
async def slow():
    print("slow begins", file=sys.stderr, flush=True)
    await asyncio.sleep(2)
    print("slow ends", file=sys.stderr, flush=True)
async def endless():
    print("endless begins", file=sys.stderr, flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("endless cleans up", file=sys.stderr, flush=True)
def broken(): raise ValueError("no such table")

from odibi_async.schedule import Cron, Every, Schedule
from odibi_async import Pipeline
SCHEDULES = {"python": ([quick], Every(0.2)), "other": Schedule(pipeline=[slow], trigger=Cron("@yearly"))}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(shell_s_folder: Path) -> None:
    Path("functions.py").write_text(FUNCTIONS)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = main(arguments)
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run


def configuration(schedule: str, function: str = "quick", name: str = "sales") -> str:
    """A file with a schedule."""
    path = f"{name}.yaml"
    Path(path).write_text(f"schedule: {schedule}\nsteps:\n- {{name: one, type: function, value: {function}}}\n")
    return path


GIVEN = ("--functions", "functions")


def test_next_lists_the_coming_times_as_clocks_of_the_zone_show_them(run: Run):
    path = configuration("{cron: 30 2 * * *, tz: Europe/Berlin}")
    said = run("schedule", "next", path, *GIVEN, "-n", "3", "--after", "2024-03-30T00:00")
    assert said.code == 0
    assert said.out.splitlines() == [
        "Sat 2024-03-30 02:30:00 +0100",
        "Sun 2024-03-31 03:00:00 +0200",
        "Mon 2024-04-01 02:30:00 +0200",
    ]
    said = run("schedule", "next", path, *GIVEN, "-n", "1", "--after", "2024-03-30T00:00+02:00", "--json")
    assert said.json["trigger"] == "cron 30 2 * * * (Europe/Berlin)"
    assert said.json["times"] == ["2024-03-30T01:30:00+00:00"]
    assert len(run("schedule", "next", path, *GIVEN).out.splitlines()) == 10


def test_next_says_so_when_nobody_can_know(run: Run):
    assert run("schedule", "next", configuration("{event: x}"), *GIVEN).out == "event x: nobody can know when.\n"
    both = configuration("{event: x, every: 60, cron: ['@hourly', '@daily']}")
    said = run("schedule", "next", both, *GIVEN, "-n", "2", "--after", "2024-01-01T00:59:30", "--json")
    assert said.json["times"] == ["2024-01-01T01:00:00+00:00", "2024-01-01T01:01:00+00:00"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["schedule", "next", "none.yaml"], "OA401"),
        (["schedule", "next", "plain.yaml"], "OA354"),
        (["serve", "plain.yaml"], "OA354"),
        (["serve", "wrong.yaml"], "OA351"),
        (["validate", "wrong.yaml"], "OA351"),
        (["serve", "zone.yaml"], "OA352"),
        (["serve", "daily.yaml", "daily.yaml"], "OA355"),
        (["serve", "daily.yaml", "--journal", "/dev/null/journal"], "OA312"),
        (["serve", "functions.py:NOTHING"], "OA411"),
        (["serve", "functions.py:quick"], "OA411"),
        (["serve", "daily.yaml", "--drain", "-1"], "OA502"),
        (["schedule", "next", "daily.yaml", "--after", "noon"], "OA502"),
        (["schedule", "next", "daily.yaml", "-n", "0"], "OA502"),
        (["serve"], "OA402"),
        (["schedule", "ls"], "OA412"),
        (["schedule", "pause", "x", "--journal", "none"], "OA412"),
    ],
)
def test_what_cannot_be_served_is_refused(run: Run, arguments: list[str], code: str):
    Path("plain.yaml").write_text("steps: [{name: one, type: sql, value: SELECT 1 AS n}]")
    for name, schedule in (("wrong", "61 * * * *"), ("zone", "{cron: '@daily', tz: Mars}"), ("daily", "'@daily'")):
        Path(f"{name}.yaml").write_text(
            f"schedule: {schedule}\nsteps: [{{name: one, type: sql, value: SELECT 1 AS n}}]"
        )
    said = run(*arguments, "--json")
    assert said.codes == [code]
    assert said.code != 0


def test_a_configured_step_may_read_the_time_for_which_it_runs(run: Run):
    path = configuration("'@daily'")
    assert run("validate", path, *GIVEN).code == 0
    by_hand = run("run", path, *GIVEN, "--json")
    assert by_hand.codes == ["OA503"]
    assert "by hand, give it with -p scheduled_at=VALUE" in by_hand.out
    assert run("run", path, *GIVEN, "-p", "scheduled_at=2024-01-01").code == 0


def test_sigterm_lets_runs_end_and_the_end_is_told(tmp_path: Path):
    path = configuration("{every: 0.5}", "slow")
    with running("serve", path, *GIVEN, "--journal", "journal") as popen:
        wait_for(popen, "slow begins")
        popen.send_signal(signal.SIGTERM)
        out, err = popen.communicate(timeout=30)
    assert popen.returncode == 0
    assert "nothing fires any more; what runs may end within 30 s" in err
    assert "slow ends" in err
    assert re.search(r"^sales +1 +1 +0 +\d+ +\d+$", out, re.MULTILINE), out
    assert err.count("slow begins") == 0  # nothing more began
    journal = Journal("journal")
    (record,) = journal.runs()
    assert (record.status, record.run_id[:6]) == (Status.SUCCEEDED, "sales@")
    journal.close()


@pytest.mark.parametrize("how", ["drain", "twice"])
def test_a_run_that_does_not_end_is_cancelled_after_the_drain_or_by_the_second_signal(how: str):
    path = configuration("{every: 0.2}", "endless")
    with running("serve", path, *GIVEN, "--journal", "journal", "--drain", "0.2" if how == "drain" else "50") as popen:
        wait_for(popen, "endless begins")
        popen.send_signal(signal.SIGINT)
        if how == "twice":
            wait_for(popen, "Once more cancels it")
            popen.send_signal(signal.SIGTERM)
        out, err = popen.communicate(timeout=30)
    assert popen.returncode == 0
    assert "endless cleans up" in err
    assert re.search(r"^sales +1 +0 +0 ", out, re.MULTILINE), out


def test_a_killed_server_s_run_goes_on_when_the_next_one_starts():
    path = configuration("{every: 1000000, event: x}", "endless", "first")
    Path(path).write_text(Path(path).read_text().replace("every: 1000000", "every: 0.2, missed: skip"))
    with running("serve", path, *GIVEN, "--journal", "journal") as popen:
        wait_for(popen, "endless begins")
        popen.kill()
        popen.wait()
    journal = Journal("journal")
    (before,) = journal.runs()
    assert before.status is Status.INTERRUPTED
    with running("serve", path, *GIVEN, "--journal", "journal", "--drain", "0") as popen:
        wait_for(popen, "endless begins")
        popen.send_signal(signal.SIGTERM)
        popen.communicate(timeout=30)
    (after,) = journal.runs()
    assert (after.run_id, after.resumed) == (before.run_id, 1)
    journal.close()


def test_a_schedule_is_listed_paused_and_resumed_from_another_shell(run: Run):
    path = configuration("{every: 0.2}")
    with running("serve", path, *GIVEN, "--journal", "journal") as popen:
        wait_for(popen, "succeeded")
        assert run("schedule", "pause", "sales", "--journal", "journal").out == "sales: paused\n"
        while True:  # one that was claimed before may still run
            before = run("schedule", "ls", "--journal", "journal", "--json").json["schedules"][0]
            time.sleep(0.5)
            after = run("schedule", "ls", "--journal", "journal", "--json").json["schedules"][0]
            if before == after:
                break
        assert (after["name"], after["state"], after["running"]) == ("sales", "paused", [])
        assert after["last"]["status"] == "succeeded"
        assert run("schedule", "resume", "sales", "--journal", "journal").code == 0
        while run("schedule", "ls", "--journal", "journal", "--json").json["schedules"][0]["last"] == after["last"]:
            time.sleep(0.05)
        popen.send_signal(signal.SIGTERM)
        popen.communicate(timeout=30)
    assert popen.returncode == 0
    assert re.search(r"^sales +waiting +0 +sales@\S+ ", run("schedule", "ls", "--journal", "journal").out, re.MULTILINE)
    wrong = run("schedule", "pause", "sals", "--journal", "journal", "--json")
    assert wrong.codes == ["OA353"]
    assert "Did you mean 'sales'?" in wrong.out


def test_failures_are_told_and_the_next_firing_comes():
    path = configuration("{every: 0.2}", "broken")
    with running("serve", path, *GIVEN, "--quiet") as popen:
        for _ in range(2):
            wait_for(popen, "failed: Step 'one' failed: ValueError: no such table")
        popen.send_signal(signal.SIGTERM)
        out, err = popen.communicate(timeout=30)
    assert popen.returncode == 0
    assert "fired" not in err
    assert re.search(r"^sales +\d+ +0 +[2-9] ", out, re.MULTILINE), out


def test_schedules_in_python_are_served_beside_files():
    path = configuration("{every: 0.2}")
    with running("serve", path, "functions.py:SCHEDULES", *GIVEN, "--json") as popen:
        wait_for(popen, "python: run python@")
        wait_for(popen, "sales: run sales@")
        popen.send_signal(signal.SIGTERM)
        out, _ = popen.communicate(timeout=30)
    said = Said(popen.returncode, out, "").json
    assert said["schedules"]["python"]["succeeded"] >= 1
    assert said["schedules"]["sales"]["failed"] == 0
    assert said["schedules"]["other"]["fired"] == 0


def test_files_that_come_are_processed_once(tmp_path: Path):
    Path("in").mkdir()
    Path("functions.py").write_text(
        "import pathlib\ndef load(payload):\n    open('log', 'a').write(' '.join(payload) + '\\n')\n"
    )
    path = configuration("{files: in/*.csv}", "load")
    with running("serve", path, *GIVEN, "--journal", "journal") as popen:
        wait_for(popen, "this server fires")
        Path("in/a.csv").write_text("x")
        wait_for(popen, "succeeded")
        popen.send_signal(signal.SIGTERM)
        popen.communicate(timeout=30)
    with running("serve", path, *GIVEN, "--journal", "journal") as popen:
        wait_for(popen, "this server fires")
        Path("in/b.csv").write_text("y")
        wait_for(popen, "succeeded")
        popen.send_signal(signal.SIGTERM)
        popen.communicate(timeout=30)
    assert Path("log").read_text().split() == [os.path.join("in", "a.csv"), os.path.join("in", "b.csv")]


def test_help_tells_of_the_commands():
    assert "serve" in process("--help").out
    assert "--takeover" in process("serve", "--help").out
