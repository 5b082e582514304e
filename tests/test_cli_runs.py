"""Runs from a shell: recorded, listed, resumed, told and removed."""

from __future__ import annotations

import asyncio
import html
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import Pipeline, RunError, Runner, step
from odibi_async.cli import main
from odibi_async.cli.runs import journal_flag
from tests.shell import Said

pytestmark = pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does
Run = Callable[..., Said]


@pytest.fixture
def run(shell_s_folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = main(list(arguments))
        return Said(code, *capfd.readouterr())

    return run


CONFIG = """
version: 1
name: sales
steps:
  - {name: orders, layer: ingest, value: orders.csv}
  - {name: totals, type: sql, inputs: {data: orders}, value: SELECT sum(amount) AS total FROM data}
  - {name: save, layer: store, value: PLACE, inputs: {data: totals}}
"""


def written(place: str) -> None:
    Path("odibi.yaml").write_text(CONFIG.replace("PLACE", place))
    Path("orders.csv").write_text("id,amount\n1,10\n2,20\n")


def test_a_failed_run_is_listed_told_and_goes_on_where_it_was(run: Run):
    written("/dev/null/x.csv")
    failed = run("run", "--journal", "j")
    assert failed.code == 1
    [line] = [line for line in failed.out.splitlines() if line.startswith("resume: ")]
    run_id = line.split()[4]
    assert f"{run_id}  odibi.yaml  failed" in run("runs", "ls", "--journal", "j").out
    shown = run("runs", "show", "last", "--journal", "j").out
    assert "orders  succeeded" in shown
    assert "save    failed" in shown
    told = run("story", "last", "deep/page.html", "--journal", "j")
    assert told.code == 0
    page = Path("deep/page.html").read_text()
    assert f"odibi-async runs resume {run_id} --journal j" in page
    assert "After: totals (pandas.DataFrame, 1 rows)" in page
    assert "save failed" in page.replace('<a href="#step-2">save</a>', "save")
    written("out.csv")
    again = run("runs", "resume", "last", "--journal", "j")
    assert (again.code, "2 resumed, 1 succeeded" in again.out) == (0, True)
    assert pd.read_csv("out.csv")["total"].tolist() == [30]
    assert "3 resumed" in run("run", "--resume", "last", "--journal", "j").out


@pytest.mark.parametrize("pipeline", ["other.yaml", "steps.py:STEPS"])
def test_the_command_in_a_story_resumes_the_run_as_it_is_pasted(run: Run, pipeline: str):
    written("/dev/null/x.csv")
    Path("odibi.yaml").rename("other.yaml")
    Path("steps.py").write_text("def a(): return 1\ndef b(a): raise ValueError\nSTEPS = [a, b]\n")
    assert run("run", pipeline, "--journal", "my runs", "--story", "first.html").code == 1
    assert run("story", "last", "second.html", "--journal", "my runs").code == 0
    for page in ("first.html", "second.html"):
        command = re.search(r"Go on where it was: <code>(.*?)</code>", Path(page).read_text())
        assert command is not None
        program, *arguments = shlex.split(html.unescape(command[1]))
        again = run(*arguments)
        assert (program, again.code, " resumed, 1 failed" in again.out) == ("odibi-async", 1, True)


def test_the_journal_may_be_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch):
    written("out.csv")
    assert run("runs", "ls").code == 4
    monkeypatch.setenv("ODIBI_ASYNC_JOURNAL", "j")
    assert run("runs", "ls").code == 4
    for _ in range(3):
        assert run("run").code == 0
    assert len(run("runs", "ls", "--json").json["runs"]) == 3
    assert len(run("runs", "ls", "--pipeline", "other", "--json").json["runs"]) == 0
    assert "2 runs removed" in run("runs", "prune", "--keep-last", "1").out
    assert len(run("runs", "ls", "--json").json["runs"]) == 1


def test_what_cannot_be_resumed_is_told_of(run: Run):
    written("out.csv")
    assert run("run", "--journal", "j").code == 0
    for arguments in (["run", "--resume", "nobody"], ["runs", "show", "nobody"], ["story", "nobody"]):
        told = run(*arguments, "--journal", "j")
        assert told.code != 0
        assert "OA316" in told.err
    assert "OA412" in run("run", "--resume", "last").err
    Path("flows.py").write_text("def one(): return 1\nSTEPS = [one]\n")
    assert run("run", "flows.py:STEPS", "--journal", "python").code == 0
    assert "Runner.resume" in run("runs", "resume", "last", "--journal", "python").err
    assert "1 resumed" in run("run", "flows.py:STEPS", "--resume", "last", "--journal", "python").out


async def test_a_runner_tells_the_story_of_any_run_in_its_journal(tmp_path: Path):
    def orders() -> pd.DataFrame:
        return pd.DataFrame({"amount": [1, 2]})

    def bad(orders: pd.DataFrame) -> Any:
        raise ValueError("no <b>")

    pipeline = Pipeline([step(orders, layer="ingest"), bad], name="p")
    async with Runner(journal=tmp_path / "j") as runner:
        with pytest.raises(RunError):
            await runner.run(pipeline, run_id="r")
        path = await runner.story("r", tmp_path / "story.html")
    page = await asyncio.to_thread(Path(path).read_text)
    assert "await runner.resume(&#x27;r&#x27;)" in page
    assert "failed: ValueError: no &lt;b&gt;" in page
    assert "data-from=" in page
    async with Runner(journal=tmp_path / "j") as other:  # which knows no graph
        await other.story("r", tmp_path / "story.html")


def test_what_a_run_was_given_is_given_again_when_it_is_resumed(run: Run):
    Path("doubling.py").write_text("def twice(number):\n    return 2 * number\n")
    Path("odibi.yaml").write_text(
        "version: 1\nsteps:\n  - {name: twice, type: function, value: twice, inputs: {number: number}}\n"
        "  - {name: bad, type: function, value: twice, inputs: {number: twice}, when: twice, cache: false}\n"
    )
    options = ("--functions", "doubling", "--journal", "j")
    assert run("run", "-p", "number=4", *options).code in (0, 1)
    again = run("run", "--resume", "last", *options)
    assert "reads 'number'" not in again.err


CHOSEN = """
version: 1
name: chosen
steps:
  - {name: twice, type: function, value: twice, inputs: {number: number}}
  - {name: bad, type: function, value: bad, inputs: {twice: twice}}
  - {name: other, type: function, value: twice, inputs: {number: number}}
"""


def test_the_command_that_is_told_resumes_the_same_part_of_a_pipeline(run: Run, monkeypatch: pytest.MonkeyPatch):
    Path("odibi.yaml").write_text(CHOSEN)
    Path("parts_of.py").write_text(
        "from pathlib import Path\n"
        "def twice(number):\n    return 2 * number\n"
        "def bad(twice):\n    return Path('fixed').read_text() and twice\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    failed = run("run", "--functions", "parts_of", "-s", "+bad", "-p", "number=4", "--journal", "j")
    assert failed.code == 1
    [line] = [line for line in failed.out.splitlines() if line.startswith("resume: odibi-async ")]
    Path("fixed").write_text("yes")
    again = run(*shlex.split(line)[2:])
    assert (again.code, "2 steps, 1 resumed, 1 succeeded" in again.out) == (0, True), again


def test_no_command_that_is_told_holds_a_password(monkeypatch: pytest.MonkeyPatch):
    place = "postgresql://me:hush@db/journal"
    assert "hush" not in journal_flag(place)
    assert journal_flag("my journal") == " --journal 'my journal'"
    monkeypatch.setenv("ODIBI_ASYNC_JOURNAL", place)
    assert journal_flag(place) == ""


MAPPED = """
version: 1
name: sales
steps:
  - {name: orders, layer: ingest, value: orders.csv}
  - {name: totals, type: sql, inputs: {data: orders}, value: SELECT sum(amount) AS total FROM data}
  - {name: doubled, type: function, value: doubled, inputs: {n: ns}, map_over: n}
"""


def test_an_estimate_says_how_long_a_run_takes_with_how_many_workers(run: Run, monkeypatch: pytest.MonkeyPatch):
    written("unused")
    Path("odibi.yaml").write_text(MAPPED)
    Path("made_up.py").write_text("def doubled(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    chosen = ("--functions", "made_up", "-p", "ns=[1,2,3]")
    ran = run("run", *chosen, "--journal", "j")
    assert ran.code == 0, ran.err
    said = run("run", "--dry-run", "--estimate", *chosen, "--journal", "j")
    assert said.code == 0, said.err
    head, first, *_ = said.out.splitlines()
    assert head.split() == ["WORKERS", "TAKES", "BUSY", "PEAK", "MOVED", "LIMITED", "BY"]
    assert first.split()[0] == "1"
    assert "100%" in first
    assert "The longest chain takes" in said.out
    estimates = run("run", "--dry-run", "--estimate", *chosen, "--journal", "j", "--json").json["estimates"]
    seconds = [each["seconds"] for each in estimates]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] == estimates[-1]["chain_seconds"]
    assert estimates[0]["peak_bytes"] > 0
    assert len(run("runs", "ls", "--journal", "j").out.splitlines()) == 2  # nothing ran


def test_an_estimate_needs_a_history(run: Run):
    written("out.csv")
    assert "goes with --dry-run" in run("run", "--estimate", "--journal", "j").err
    assert "no journal is named" in run("run", "--dry-run", "--estimate").err
    assert "no journal in 'j'" in run("run", "--dry-run", "--estimate", "--journal", "j").err
    assert run("run", "--journal", "j").code == 0
    Path("odibi.yaml").write_text(CONFIG.replace("PLACE", "out.csv").replace("totals", "sums"))
    said = run("run", "--dry-run", "--estimate", "--journal", "j")
    assert said.code != 0
    assert "no duration of sums" in said.err
