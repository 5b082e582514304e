"""The command line: each command and flag, what stands where, and what the process ends with."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from odibi_async.cli import main
from odibi_async.cli.listeners import Scribe
from odibi_async.cli.signals import Signals
from tests.shell import COMMAND, ENVIRONMENT, Said, process, running, wait_for

pytestmark = pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does

Run = Callable[..., Said]

FUNCTIONS = """
import asyncio, os, sys, time
from odibi_async import step

def one():
    print("one was here")
    return 1

@step
def two(one): return one + 1

def broken(one=0): raise ValueError("no such thing\\nbut a second line")
def echo(value): return value
def leak(password): raise ValueError(f"cannot log in as {password.reveal()}")

async def hang():
    print("hanging", file=sys.stderr, flush=True)
    await asyncio.sleep(60)

def block():
    print("blocking", file=sys.stderr, flush=True)
    time.sleep(60)

_hidden = one
from os.path import join
"""


def told(out: str) -> dict[str, str]:
    """What the table of a run says of each step, beside how it ended and what it took."""
    rows = [
        re.match(r"  (\S+) +(?:(?:succeeded|failed|skipped|cached) +)?(?:[\d.]+ m?s)? *(.*)", each)
        for each in out.splitlines()[1:]
    ]
    return {row[1]: row[2] for row in rows if row}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(shell_s_folder: Path) -> None:
    Path("functions.py").write_text(FUNCTIONS)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: what a process does beside that has tests of its own."""

    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = main(arguments)
        return Said(code, *capfd.readouterr())

    return run


def pipeline(*steps: str, name: str = "odibi.yaml") -> str:
    Path(name).write_text("".join(f"- {{{step}}}\n" for step in steps))
    return name


def functions(*names: str) -> str:
    """A pipeline of functions, which have the names of their steps."""
    return pipeline(*(f"name: {name}, type: function, value: {name}" for name in names))


GIVEN = ("--functions", "functions")


# -- commands ------------------------------------------------------------------------------------------


def test_init_writes_a_pipeline_that_run_runs(run: Run):
    said = run("init")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == ["odibi.yaml", "data/orders.csv", "Now: odibi-async run"]
    said = run("run")
    assert (said.code, said.err) == (0, "")
    assert "succeeded" in said.out
    assert told(said.out) == {"orders": "4 rows", "totals": "3 rows", "save": "wrote out/totals.csv"}
    assert Path("out/totals.csv").read_text().splitlines()[1:] == ["Ada,2,42", "Edsger,1,25", "Grace,1,20"]


def test_init_writes_into_a_folder_and_overwrites_nothing(run: Run):
    Path("new/data").mkdir(parents=True)
    Path("new/data/orders.csv").write_text("mine")
    said = run("init", "new", "--json")
    assert (said.code, said.codes) == (2, ["OA507"])
    assert not Path("new/odibi.yaml").exists()
    assert Path("new/data/orders.csv").read_text() == "mine"
    assert "cd other && odibi-async run" in run("init", "other").out
    assert Path("other/odibi.yaml").exists()


def test_validate_says_that_all_is_well_or_all_that_is_wrong(run: Run):
    run("init")
    assert run("validate").out == "odibi.yaml: 3 steps, no fault\n"
    pipeline("name: a, layer: ingst, value: x.csv", "name: b, type: sql, value: SELECT 1, inputs: {data: nowhere}")
    said = run("validate")
    assert (said.code, said.out) == (3, "")
    assert "OA102 odibi.yaml:1:20  Step 'a': layer 'ingst' is unknown. Did you mean 'ingest'?" in said.err
    assert "OA201 odibi.yaml:2:56  Step 'b' reads 'nowhere'" in said.err
    assert said.err.endswith("odibi-async explain OA102 OA201\n")


def test_graph_shows_who_waits_for_whom_in_three_forms(run: Run):
    run("init")
    assert run("graph").out == "orders\n└─ totals\n   └─ save\n"
    assert run("graph", "--format", "mermaid").out.startswith("graph TD\n")
    found = json.loads(run("graph", "--format", "json").out)
    assert found["edges"] == [["orders", "totals"], ["totals", "save"]]
    assert run("graph", "--json").json["edges"] == found["edges"]


def test_ls_lists_the_steps(run: Run):
    pipeline("name: a, layer: ingest, value: x.csv, tags: [raw, big]")
    assert run("ls").out == "NAME  LAYER   TYPE       TAGS\na     ingest  config_op  raw, big\n"
    [step] = run("ls", "--json").json["steps"]
    assert (step["name"], step["tags"], step["datasets"]) == ("a", ["raw", "big"], ["a"])


def test_schema_is_the_json_schema_of_configurations(run: Run):
    from odibi_async.config import json_schema

    assert json.loads(run("schema").out) == json_schema()
    assert run("schema", "--json").json["schema"] == json_schema()


def test_doctor_tells_what_is_there(run: Run, monkeypatch: pytest.MonkeyPatch):
    run("init")
    text = run("doctor").out
    assert "pandas" in text
    assert "usable_cpus" in text
    found = run("doctor", "--json").json
    assert found["configuration"] == "odibi.yaml"
    assert found["usable_cpus"] >= 1
    assert found["extras"]["sql"] in (True, False)
    monkeypatch.setenv("ODIBI_ASYNC_CONFIG", "other.yaml")
    assert run("doctor", "--json").json["configuration"].startswith("other.yaml: there is no such file, which ODIBI_")
    pipeline("name: a, type: sql, value: SELECT 1", name="other.yaml")
    assert run("doctor", "--json").json["configuration"] == "other.yaml"


def test_explain_tells_of_codes_and_lists_them(run: Run):
    from odibi_async.cli.codes import CODES

    text = run("explain", "oa102", "OA201").out
    assert text.startswith("OA102  a word is unknown")
    assert "Wrong:\n\n    - {name: orders, layer: ingst" in text
    assert "OA201  a step reads" in text
    assert len(run("explain").out.splitlines()) == len(CODES)
    assert "Did you mean 'OA102'" in run("explain", "OA1O2").err


def test_a_file_without_a_command_is_told_of_run(run: Run):
    run("init")
    said = run("odibi.yaml")
    assert said.code == 2
    assert "Did you mean 'odibi-async run odibi.yaml'?" in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "one.yaml", "two.yaml"], "OA501  'two.yaml': that is more than this command takes."),
        (["-v", "run"], "OA501  '-v' stands before the command: flags come behind it, as in odibi-async run -v."),
        (["run", "--threads", "0"], 'OA502  Invalid value "0" for --threads. Must be >= 1.'),
        (["run", "--timeout", "-1"], 'OA502  Invalid value "-1.0" for --timeout. Must be > 0.'),
    ],
)
def test_a_wrong_command_line_is_told_in_its_own_words(run: Run, arguments: list[str], told: str):
    said = run(*arguments)
    assert (said.code, said.err.splitlines()[0]) == (2, told)


def test_help_tells_of_every_command_and_flag(run: Run):
    page = run("--help").out
    assert all(name in page for name in ("run", "validate", "graph", "ls", "schema", "init", "doctor", "explain"))
    page = run("run", "--help").out
    flags = "--select -s --exclude -p --project --max-concurrency --threads --timeout --keep-going --dry-run --json"
    assert all(
        flag in page for flag in [*flags.split(), "--events", "-q", "-v", "--traceback", "--functions", "--pool"]
    )
    assert run("--version").out == f"{import_module('importlib.metadata').version('odibi_async')}\n"
    assert "--select" in run("run", "--help", "--json").json["page"]


def test_the_entry_point_is_there():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    module, name = project["project"]["scripts"]["odibi-async"].split(":")
    assert getattr(import_module(module), name) is main


# -- which configuration -------------------------------------------------------------------------------


def test_the_configuration_is_looked_for_in_order(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def found() -> Any:
        return run("validate", "--json").json.get("configuration")

    step = "name: a, layer: ingest, value: x.csv"
    Path("repository/.git").mkdir(parents=True)
    Path("repository/inner/most").mkdir(parents=True)
    pipeline(step)  # above the repository: nobody's business
    monkeypatch.chdir("repository/inner/most")
    assert run("validate", "--json").codes == ["OA402"]
    pipeline(step, name="../../pipe.yaml")
    Path("../../pyproject.toml").write_text('[tool.odibi_async]\nconfig = "pipe.yaml"\n')
    assert found() == str(tmp_path / "repository/pipe.yaml")
    pipeline(step, name="../odibi.yml")
    assert found() == str(tmp_path / "repository/inner/odibi.yml")
    Path("pyproject.toml").write_text("[tool.other]\n")
    Path("odibi.json").write_text('[{"name": "a", "layer": "ingest", "value": "x.csv"}]')
    assert found() == "odibi.json"
    Path("odibi.toml").write_text('[[steps]]\nname = "a"\nlayer = "ingest"\nvalue = "x.csv"\n')
    assert found() == "odibi.toml"
    pipeline(step)
    assert found() == "odibi.yaml"
    monkeypatch.setenv("ODIBI_ASYNC_CONFIG", pipeline(step, name="named.yaml"))
    assert found() == "named.yaml"
    assert run("validate", pipeline(step, name="given.yaml"), "--json").json["configuration"] == "given.yaml"


def test_who_names_a_configuration_that_is_not_there_is_told(run: Run, monkeypatch: pytest.MonkeyPatch):
    Path("pyproject.toml").write_text("[tool.odibi_async]\nconfig = 'gone.yaml'\n")
    said = run("validate")
    assert said.code == 4
    assert "pyproject.toml names as the configuration" in said.err
    monkeypatch.setenv("ODIBI_ASYNC_CONFIG", "gone.yaml")
    said = run("validate", "--json")
    assert (said.code, said.codes) == (4, ["OA401"])
    assert "ODIBI_ASYNC_CONFIG names" in said.json["errors"][0]["message"]


def test_a_current_directory_that_was_removed_is_told_of(run: Run, tmp_path: Path):
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    try:
        assert [run(command, "--json").codes for command in ("run", "doctor", "init")] == 3 * [["OA401"]]
    finally:
        os.chdir(tmp_path)


def test_outside_of_a_repository_only_the_current_directory_counts(run: Run, monkeypatch: pytest.MonkeyPatch):
    run("init")
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    said = run("run")
    assert said.code == 4
    assert "odibi-async init" in said.err


@pytest.mark.parametrize(
    ("text", "code"),
    [("[tool.odibi_async]\nconfg = 'x'", "OA119"), ("[tool", "OA101"), ("tool.odibi_async = 1", "OA119")],
)
def test_a_pyproject_that_does_not_say_which_is_at_fault(run: Run, text: str, code: str):
    Path("pyproject.toml").write_text(text)
    said = run("validate", "--json")
    assert (said.code, said.codes) == (3, [code])


# -- which steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("-s", "+two"), ["one", "two"]),
        (("-s", "one+"), ["one", "two", "three"]),
        (("-s", "tag:kpi"), ["three"]),
        (("--select", "layer:ingest", "-s", "three"), ["three", "raw"]),
        (("--exclude", "t*"), ["one", "raw"]),
        (("-s", "one+", "--exclude", "three"), ["one", "two"]),
    ],
)
def test_select_and_exclude_choose_steps(run: Run, flags: tuple[str, ...], names: list[str]):
    pipeline(
        "name: one, type: sql, value: SELECT 1 AS n",
        "name: two, type: sql, value: SELECT * FROM d, inputs: {d: one}",
        "name: three, type: sql, value: SELECT * FROM d, inputs: {d: two}, tags: kpi",
        "name: raw, layer: ingest, value: x.csv",
    )
    assert [step["name"] for step in run("ls", *flags, "--json").json["steps"]] == names
    assert [step["name"] for step in run("graph", *flags, "--json").json["steps"]] == names


def test_a_selected_step_whose_input_is_not_selected_is_refused_with_the_way_out(run: Run):
    run("init")
    said = run("run", "-s", "totals")
    assert said.code == 2
    assert "OA504  step 'totals' reads 'orders', which step 'orders' makes, and that is not selected." in said.err
    assert "-s '+totals'" in said.err
    assert run("run", "-s", "+totals").code == 0
    assert not Path("out").exists()


def test_a_connection_comes_along_with_the_steps_that_use_it(run: Run):
    run("init")
    pipeline(
        "name: lake, layer: connect, value: data",
        "name: a, layer: ingest, value: orders.csv, params: {connection: lake}",
    )
    assert told(run("run", "-s", "a").out) == {"lake": "", "a": "4 rows, 3 columns"}


def test_dry_run_says_what_would_run_and_runs_nothing(run: Run):
    run("init")
    assert run("run", "--dry-run").out == "orders\ntotals\nsave\n"
    assert run("run", "--dry-run", "--json").json["steps"] == ["orders", "totals", "save"]
    assert not Path("out").exists()


def test_project_takes_the_steps_of_a_project(run: Run):
    pipeline("name: a, layer: ingest, value: x, project: sales", "name: b, layer: ingest, value: x, project: ops")
    assert [step["name"] for step in run("ls", "--project", "ops", "--json").json["steps"]] == ["b"]
    said = run("ls", "--project", "slaes")
    assert said.code == 4
    assert "Did you mean 'sales'?" in said.err


# -- what is given -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", "5"),
        ("true", "True"),
        ("[1, 2]", "[1, 2]"),
        ('"5"', "'5'"),
        ("2013-01-01", "'2013-01-01'"),
        ("*.csv", "'*.csv'"),
        ("a=b", "'a=b'"),
        ("NaN", "'NaN'"),
        ("", "''"),
    ],
)
def test_a_given_value_is_json_where_it_is_json_else_text(run: Run, text: str, value: str):
    functions("echo")
    said = run("run", *GIVEN, "-p", f"value={text}", "--json")
    assert said.json["outputs"]["echo"]["value"] == value


def test_what_is_given_fills_a_query_and_stands_in_for_a_step(run: Run):
    pipeline("name: above, type: sql, value: SELECT $low + 1 AS n, inputs: {low: low}")
    assert run("run", "-p", "low=15").code == 0
    functions("one", "two")
    said = run("run", *GIVEN, "-p", "one=41", "-s", "two")
    assert told(said.out) == {"two": "42"}
    assert "one was here" not in said.err
    assert run("run", *GIVEN, "-p", "one=41", "-s", "one").code == 0  # another part is given it


def test_a_name_that_nobody_takes_is_refused_with_the_nearest(run: Run):
    functions("echo")
    said = run("validate", *GIVEN, "-p", "vaule=1")
    assert said.code == 3
    assert "Did you mean 'value'?" in said.err
    assert run("validate", *GIVEN, "-p", "value=1").code == 0


def test_functions_are_the_public_ones_of_the_named_modules(run: Run):
    functions("one", "two")
    assert told(run("run", *GIVEN).out) == {"one": "", "two": "2"}
    for name in ("join", "_hidden", "time", "os.getcwd"):
        pipeline(f"name: a, type: function, value: {name}")
        said = run("validate", *GIVEN)
        assert said.code == 3
        assert "OA116" in said.err
    assert "--functions MODULE" in run("validate").err


def test_all_names_the_functions_of_a_module(run: Run, monkeypatch: pytest.MonkeyPatch):
    Path("chosen.py").write_text("__all__ = ['join']\nfrom os.path import join\ndef other(): ...\n")
    pipeline("name: a, type: function, value: join, params: {a: x}")
    assert run("run", "--functions", "chosen").code == 0
    pipeline("name: a, type: function, value: other")
    assert run("run", "--functions", "chosen").code == 3
    monkeypatch.delitem(sys.modules, "chosen")


@pytest.mark.parametrize(
    ("text", "module", "exit_code", "code"),
    [
        ("", "broken_module.py", 4, "OA408"),
        ("", "./broken_module.py", 4, "OA408"),
        ("", "", 4, "OA408"),
        ("", "brokn_module", 4, "OA408"),
        ("import nothing_of_that_name", "broken_module", 3, "OA118"),
        ("raise SystemExit(0)", "broken_module", 3, "OA118"),
        ("raise KeyboardInterrupt", "broken_module", 3, "OA118"),
        ("1 +", "broken_module", 3, "OA118"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_of(run: Run, text: str, module: str, exit_code: int, code: str):
    Path("broken_module.py").write_text(text)
    functions("one")
    said = run("run", "--functions", module, "--json")
    assert (said.code, said.codes) == (exit_code, [code])
    if module.endswith(".py"):
        assert said.json["errors"][0]["message"].endswith("not its path: broken_module")
    sys.modules.pop("broken_module", None)


# -- how it runs ---------------------------------------------------------------------------------------


def test_limits_reach_the_run(run: Run):
    pipeline("name: a, type: sql, value: SELECT 1 AS n, pool: db")
    assert run("run", "--json").codes == ["OA214"]
    assert run("run", "--pool", "db=2", "--threads", "1", "--max-concurrency", "1").code == 0
    assert run("run", "--pool", "db=x", "--json").codes == ["OA505"]
    assert run("run", "--max-concurrency", "0", "--json").codes == ["OA502"]


def test_a_deadline_ends_a_run_with_5(run: Run):
    functions("one", "hang")
    said = run("run", *GIVEN, "--timeout", "0.2")
    assert said.code == 5
    assert "OA302  The run did not end within 0.2 s: 1 of 2 steps were done." in said.err
    assert run("run", *GIVEN, "--timeout", "0.01", "--json").codes == ["OA302"]


def test_keep_going_does_what_does_not_need_what_failed(run: Run):
    functions("broken", "echo")
    said = run("run", *GIVEN, "-p", "value=7", "--keep-going")
    assert said.code == 1
    assert told(said.out) == {"broken": "ValueError: no such thing", "echo": "7"}
    assert "step 'broken' failed" in said.err


def test_events_are_lines_of_json(run: Run):
    functions("one", "broken")
    assert run("run", *GIVEN, "--events", "events.jsonl").code == 1
    events = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[0]["event"] == "RunStarted"
    assert events[-1] | {"event": "RunFinished", "status": "failed"} == events[-1]
    [broken] = [event for event in events if event["event"] == "StepFinished" and event["step"] == "broken"]
    assert broken["result"]["error"] == "ValueError: no such thing"


def test_events_that_cannot_be_written_fail_the_command_but_not_the_run(run: Run):
    functions("one")
    said = run("run", *GIVEN, "--events", "/dev/full")
    assert said.code == 1
    assert "OA310" in said.err
    assert told(said.out) == {"one": "1"}
    assert run("run", *GIVEN, "--events", "no/such/folder", "--json").codes == ["OA310"]


def test_quiet_and_verbose(run: Run):
    functions("one", "two")
    said = run("run", *GIVEN, "-v")
    assert "two: succeeded after" in said.err
    assert "one: started" in said.err
    pipeline("name: broken, type: function, value: broken, retry: {attempts: 2, wait: 0, on: ValueError}")
    assert "attempt 1 failed, again in 0.0 s: ValueError: no such thing\n" in run("run", *GIVEN, "-v").err
    functions("one", "two")
    assert run("run", *GIVEN, "-q").err == "one was here\n"


@pytest.mark.parametrize("flags", [(), ("--json",), ("--traceback",), ("-v",), ("--keep-going",)])
def test_no_secret_is_ever_shown(run: Run, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]):
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    pipeline("name: leak, type: function, value: leak, params: {password: 'me:${env:DB_PASSWORD}@db'}")
    said = run("run", *GIVEN, "--events", "events.jsonl", *flags)
    assert "hunter2" not in said.out + said.err + Path("events.jsonl").read_text()
    assert "cannot log in as me:**********@db" in said.out + said.err


# -- what is said --------------------------------------------------------------------------------------


def test_passwords_in_urls_are_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch):
    pipeline("name: a, layer: ingest, value: 'nope://me:hunter2@db/x.csv', params: {format: csv}")
    said = run("run", "-v", "--traceback")
    assert said.code == 1
    assert "value: 'nope://**********@db/x.csv'" in said.err
    assert "hunter2" not in said.err
    pipeline(
        "name: a, type: sql, value: SELECT 1 AS n",
        "name: b, layer: store, value: 'db://me:hunter2@db/x', inputs: {n: a}",
    )
    monkeypatch.setattr("odibi_async.engines.pandas.PandasEngine.write", lambda *_, **__: None)
    assert run("run").out.endswith("wrote db://**********@db/x\n")


def test_a_failing_run_says_which_step_why_and_where_in_few_lines(run: Run):
    functions("one", "broken")
    said = run("run", *GIVEN)
    assert said.code == 1
    assert told(said.out) == {"one": "", "broken": "ValueError: no such thing"}
    assert said.err.splitlines()[1:] == [
        "OA301 odibi.yaml:2:41  step 'broken' failed: ValueError: no such thing",
        "  2 | - {name: broken, type: function, value: broken}",
        "    |                                         ^^^^^^",
        "  but a second line",
        "odibi-async explain OA301",
    ]


def test_a_missing_file_is_told_with_the_nearest_and_where_paths_begin(run: Run):
    run("init")
    pipeline("name: a, layer: ingest, value: data/ordrs.csv", name="wrong.yaml")
    said = run("run", "wrong.yaml")
    assert said.err.startswith("OA301 wrong.yaml:1:35  step 'a' failed: FileNotFoundError")
    assert f"begin in the current directory, {os.getcwd()}. Did you mean 'orders.csv'?" in said.err


def test_errors_of_steps_move_no_cursor_and_fill_no_screen(run: Run):
    Path("functions.py").write_text("def broken(): raise ValueError('\\x1b[2J\\x07' + 100_000 * 'x')\n")
    functions("broken")
    said = run("run", *GIVEN)
    assert "ValueError: \\x1b[2J\\x07xxx" in said.err
    assert len(said.err) < 2_000
    loud = run("run", *GIVEN, "-v").err
    assert 100_000 * "x" in loud
    assert "\x1b" not in loud


def test_an_error_that_cannot_be_shown_is_told_all_the_same(run: Run):
    Path("functions.py").write_text(
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError\ndef broken(): raise Mute\n"
    )
    functions("broken")
    assert run("run", *GIVEN, "--json").codes == ["OA301"]
    assert "step 'broken' failed: Mute: (what it says of itself cannot be shown)" in run("run", *GIVEN, "-v").err


def test_many_failures_and_many_faults_are_counted_unless_all_are_asked_for(run: Run):
    pipeline(*(f"name: s{i}, type: function, value: broken" for i in range(40)))
    said = run("run", *GIVEN, "--keep-going")
    assert len(said.err.splitlines()) <= 15
    assert "37 more, which -v shows" in said.err
    assert run("run", *GIVEN, "--keep-going", "-v").err.count("OA301") > 40
    said = run("validate")
    assert said.err.count("OA116 ") == 20
    assert "20 more, which -v shows" in said.err
    assert len(said.err.splitlines()) <= 63
    assert len(run("validate", "--json").codes) == 40


def test_all_faults_of_a_file_come_in_one_pass_whatever_their_kind(run: Run):
    pipeline(
        "name: orders, layer: ingst, value: orders.csv",
        "name: bad, type: sql, inputs: {data: orders}, value: SELEC * FROM data",
        "name: late, type: sql, value: SELECT 1, timeout: soon",
        "name: other, type: sql, inputs: {data: missing}, value: SELECT * FROM data",
        "name: one, layer: store, value: a.csv, inputs: {data: bad}",
        "name: two, layer: store, value: ./a.csv, inputs: {data: late}",
        "name: called, type: function, value: nothing, inputs: {x: bad}, after: [late]",
    )
    assert sorted(run("validate", "--json").codes) == ["OA102", "OA105", "OA116", "OA120", "OA121", "OA201"]
    err = run("validate").err
    assert "syntax error at or near" in err
    assert "(line 1, column 1)" in err


def test_two_steps_that_write_one_file_or_table_are_a_fault_also_through_a_connection(run: Run):
    Path("lake").mkdir()
    stores = [
        ("one.csv", "{connection: lake}"),
        ("./one.csv", "{connection: lake}"),  # the same
        ("one.csv", "{}"),
        ("x.db", "{table: t}"),
        ("x.db", "{table: t}"),  # the same
        ("x.db", "{table: u}"),
        ("x.db", "{table: t, mode: append}"),
    ]
    lines = ["- {name: lake, layer: connect, value: lake}", "- {name: one, type: sql, value: SELECT 1 AS n}"]
    for place, (value, params) in enumerate(stores):
        lines.append(f"- {{name: s{place}, layer: store, value: {value}, params: {params}, inputs: {{data: one}}}}")
    Path("odibi.yaml").write_text("\n".join(lines))
    ran = run("validate", "--json")
    assert ran.codes == ["OA121", "OA121"]
    assert "Step 's1' writes what step 's0' writes too: './one.csv'." in ran.out
    assert "Step 's4' writes what step 's3' writes too: 'x.db', table 't'." in ran.out


def test_the_other_faults_of_a_faulty_step_come_in_the_same_pass(run: Run):
    pipeline(
        "name: orders, layer: ingst, value: orders.csv",
        "name: totals, type: sqll, inputs: {data: ordrs}, value: SELECT 1",
        "name: more, type: sql, inputs: {data: ordrs, other: totals}, value: SELEC 1, cache: 3",
        "name: save, layer: store, value: t.parquet, inputs: {data: checkd}, retry: x",
        "name: save, layer: store, value: t.parquet, inputs: {data: totals}",
        "name: made, type: sql, outputs: {out: 3}, value: SELECT 1, timeout: soon",
        "name: reads, type: sql, inputs: {data: made}, value: SELECT 1, after: [lost]",
    )
    codes = run("validate", "--json").codes
    assert sorted(codes) == [*["OA102"] * 2, *["OA105"] * 4, "OA120", *["OA201"] * 3, "OA203", "OA206"]
    err = run("validate").err
    assert err.count("Did you mean 'orders'?") == 2
    assert "'checkd'" in err


def test_a_link_that_leads_nowhere_is_not_suggested_to_itself(run: Run):
    pipeline("name: orders, layer: ingest, value: orders.csv")
    Path("orders.csv").symlink_to("nowhere.csv")
    err = run("run").err
    assert "Did you mean 'orders.csv'" not in err
    Path("odibi.yaml").unlink()
    Path("odibi.yaml").symlink_to("nowhere.yaml")
    assert "it is a link to 'nowhere.yaml', where nothing is." in run("validate", "odibi.yaml").err


def test_a_table_with_other_separators_is_told_so(run: Run):
    Path("p.csv").write_text("StepName;StepType;Value\na;sql;SELECT 1\n")
    assert "The header is parted by ';': commas are needed." in run("validate", "p.csv").err


def test_traceback_shows_the_frames_of_the_step_and_none_of_ours(run: Run):
    functions("broken")
    err = run("run", *GIVEN, "--traceback").err
    assert 'functions.py", line' in err
    assert "odibi_async" not in err.replace("odibi_async.", "").replace("odibi-async", "")
    assert "Traceback" not in run("run", *GIVEN).err


PLACES = {
    "a.yaml": ("- name: a\n  type: sql\n  value: x\n  inputs:\n    data: nowhere\n", "  5 |     data", "nowhere"),
    "b.yaml": ("- {name: ä本, type: sql, value: x, inputs: {data: 'no where'}}\n", "  1 | - {name: ä本", "'no where'"),
    "c.yaml": ("- {name: a, type: sql, value: x, inputs:\t{data: no where } }\n", "  1 | - {name: a", "no where"),
    "d.json": ('[{"name": "a", "type": "sql", "value": "x",\n "inputs": {"d": "nowhere"}}]', '  2 |  "in', '"nowhere"'),
    "e.toml": ('[[steps]]\nname = "a"\ntype = "sql"\nvalue = "x"\ninputs.d = "no"\n', "  5 | in", 'inputs.d = "no"'),
}


@pytest.mark.parametrize("name", PLACES)
def test_faults_of_the_graph_are_underlined_in_the_file(run: Run, name: str):
    text, line, meant = PLACES[name]
    Path(name).write_text(text)
    first, shown, marked, *_ = run("validate", name).err.splitlines()
    assert first.startswith(f"OA201 {name}:")
    assert shown.startswith(line)
    wide = shown.count("本")  # each takes two columns
    assert shown[marked.index("^") - wide : marked.rindex("^") + 1 - wide] == meant


def test_a_fault_in_a_table_is_told_with_its_row(run: Run):
    Path("a.csv").write_text('StepName,StepType,Value,Inputs\na,sql,x,"{""data"": ""nowhere""}"\n')
    said = run("validate", "a.csv")
    assert said.err.splitlines()[0].startswith("OA201 a.csv, row 2, column Inputs  Step 'a' reads 'nowhere'")


@pytest.mark.parametrize("columns", [20, 30, 45, 80])
def test_long_lines_are_cut_around_what_is_meant(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    pipeline(f"name: a, type: sql, value: '{'x' * 200}', inputs: {{data: nowhere}}, tags: {'y' * 100}")
    _, shown, marked, *_ = run("validate").err.splitlines()
    assert len(shown) <= max(columns, 27)
    assert shown[marked.index("^") : marked.rindex("^") + 1] == "nowhere"


def test_what_a_step_prints_is_no_result(run: Run):
    functions("one")
    said = run("run", *GIVEN, "--json")
    assert said.json["outputs"] == {"one": {"type": "int", "value": "1"}}
    assert said.err == "one was here\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["rnu"], 2),
        (["run", "--bogus"], 2),
        (["run", "--timeout", "soon"], 2),
        (["run", "--threads"], 2),
        (["run", "a", "b"], 2),
        (["run", "-p", "x"], 2),
        (["graph", "--format", "bmp"], 2),
        (["run", "nowhere.yaml"], 4),
        (["run", "-s", "nobody", *GIVEN], 4),
        (["explain", "OA999"], 4),
        (["validate"], 3),
        (["run", *GIVEN], 1),
        (["run", *GIVEN, "-q"], 1),
        (["run", *GIVEN, "--dry-run"], 0),
        (["--help"], 0),
        (["explain", "--help"], 0),
        ([], 2),
    ],
)
def test_json_is_one_object_whatever_happens(run: Run, arguments: list[str], exit_code: int):
    functions("broken")
    said = run(*arguments, "--json")
    told = said.json
    assert said.code == exit_code
    assert told["exit_code"] == exit_code
    assert told["ok"] is (exit_code == 0)
    assert bool(told["errors"]) is (exit_code != 0)
    assert all(error["code"].startswith("OA") and error["message"] for error in told["errors"])


def test_a_fault_of_our_own_is_one_object_and_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    monkeypatch.setattr("odibi_async.config.loading.json_schema", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("schema", "--json")
    said = Said(1, *capfd.readouterr())
    assert said.json["ok"] is False
    assert "ZeroDivisionError" in said.json["errors"][0]["message"]


# -- as a process --------------------------------------------------------------------------------------


def test_checking_loads_no_pandas():
    pipeline("name: a, layer: ingest, value: x.csv", "name: b, type: sql, value: SELECT 1, inputs: {d: a}")
    code = (
        "import sys; from odibi_async.cli import main; codes = [main(['validate']), main(['graph']), main(['ls'])]; "
        "print(codes, [name for name in ('pandas', 'pyarrow', 'duckdb', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] ['duckdb']"  # whose parser looks at the query


@pytest.mark.parametrize("flags", [(), ("--json",)])
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_cancels_and_says_so(flags: tuple[str, ...], number: signal.Signals, exit_code: int):
    functions("hang")
    with running("run", *GIVEN, *flags) as popen:
        wait_for(popen, "hanging")
        popen.send_signal(number)
        out, err = popen.communicate(timeout=30)
    assert popen.returncode == exit_code
    assert "Interrupted: the run is cancelled" in err
    if flags:
        assert Said(popen.returncode, out, err).codes == ["OA303"]
    else:
        assert "OA303  The run was cancelled: 0 of 1 steps were done." in err
        assert "hang  cancelled" in out


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_the_second_signal_aborts_at_once(flags: tuple[str, ...]):
    functions("block")
    with running("run", *GIVEN, *flags) as popen:
        wait_for(popen, "blocking")
        popen.send_signal(signal.SIGINT)
        wait_for(popen, "Once more ends it at once.")
        popen.send_signal(signal.SIGINT)
        out, _ = popen.communicate(timeout=4)  # less than the grace of a step that does not end
    assert popen.returncode == 130
    assert out == "" or Said(130, out, "").codes == ["OA303"]
    assert bool(out) is bool(flags)


@pytest.mark.slow
def test_a_thread_that_does_not_end_does_not_hold_up_the_process():
    functions("block")
    said = process("run", *GIVEN, "--timeout", "0.5", "--json")
    assert (said.code, said.codes) == (5, ["OA302"])
    assert "step 'block' does not end" in said.err


def test_a_signal_before_the_run_ends_the_command():
    Path("slow_module.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    functions("one")
    with running("run", "--functions", "slow_module", "--json") as popen:
        wait_for(popen, "importing")
        popen.send_signal(signal.SIGTERM)
        out, err = popen.communicate(timeout=30)
    assert popen.returncode == 143
    assert Said(143, out, err).codes == ["OA303"]


def test_a_signal_that_came_before_the_run_could_be_cancelled_cancels_it():
    heard: list[str] = []
    signals = Signals(lambda _: heard.append("abort"))
    with signals.handled(), signals.cancelling(lambda: heard.append("noted")):
        signal.raise_signal(signal.SIGTERM)
        with signals.cancelling(lambda: heard.append("cancelled")):
            pass
    assert heard == ["noted", "cancelled"]
    assert signals.exit_code == 143


def test_a_signal_while_a_run_is_set_up_cancels_it_and_leaves_no_thread(run: Run, monkeypatch: pytest.MonkeyPatch):
    enter = Scribe.__enter__

    def interrupted(scribe: Scribe) -> Scribe:
        enter(scribe)
        signal.raise_signal(signal.SIGINT)
        return scribe

    monkeypatch.setattr(Scribe, "__enter__", interrupted)
    functions("hang")
    said = run("run", *GIVEN, "--json")
    assert (said.code, said.codes) == (130, ["OA303"])
    assert "odibi-async events" not in [thread.name for thread in threading.enumerate()]


def test_signals_change_nothing_once_the_outcome_is_certain():
    heard: list[int] = []
    signals = Signals(heard.append)
    with signals.handled():
        signals.over()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert (heard, signals.exit_code) == ([], 0)


def test_a_signal_after_the_results_ends_what_a_step_left_running():
    Path("functions.py").write_text(
        "import threading, time\ndef leave(): threading.Thread(target=time.sleep, args=(60,)).start()\n"
    )
    functions("leave")
    with running("run", *GIVEN, "--json") as popen:
        assert popen.stdout is not None
        assert json.loads(popen.stdout.readline())["ok"] is True
        deadline = time.monotonic() + 30
        while popen.poll() is None and time.monotonic() < deadline:  # the first may come in the midst of telling
            popen.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert popen.returncode == 0


@pytest.mark.parametrize("error", ["SystemExit(4)", "KeyboardInterrupt"])
def test_an_async_step_that_ends_the_process_has_failed(error: str):
    Path("functions.py").write_text(f"async def leave(): raise {error}\n")
    functions("leave")
    said = process("run", *GIVEN, "--json")
    assert (said.code, said.codes, said.err) == (1, ["OA301"], "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code_and_take_no_place_of_files(closed: str):
    Path("functions.py").write_text("import os\ndef file():\n    with open('x', 'w') as x: return x.fileno()\n")
    pipeline("name: file, type: function, value: file", "name: more, type: function, value: fil")
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    refused = subprocess.run([*shell, "run", *GIVEN], capture_output=True, env=ENVIRONMENT, timeout=30)
    assert refused.returncode == 3
    functions("file")
    done = subprocess.run([*shell, "run", *GIVEN, "--json"], capture_output=True, env=ENVIRONMENT, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    if ">&-" not in closed.replace("2>&-", ""):
        assert int(json.loads(done.stdout)["outputs"]["file"]["value"]) > 2


@pytest.mark.parametrize("arguments", [["ls"], ["--help"], ["ls", "--json"]])
def test_a_closed_pipe_ends_quietly(arguments: list[str]):
    functions("one")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, *arguments, *(() if arguments == ["--help"] else GIVEN)]
    with open(writing, "w") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_pipe_on_both_ends_changes_no_exit_code():
    functions("broken")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        done = subprocess.run([*COMMAND, "run", *GIVEN], stdout=closed, stderr=closed, env=ENVIRONMENT, timeout=30)
    assert done.returncode == 1


def test_results_that_cannot_be_written_fail_the_command():
    functions("one")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "ls", *GIVEN], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=30
        )
    assert (done.returncode, done.stderr) == (1, b"the results cannot be written: No space left on device\n")


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C"}],
)
def test_any_locale_shows_what_it_can(environment: dict[str, str]):
    pipeline("name: ünï, type: sql, value: x, inputs: {d: nörd}")
    said = process("validate", environment=environment)
    assert said.code == 3
    assert "n\\xf6rd" in said.err or "nörd" in said.err
    pipeline("name: ünï, type: sql, value: SELECT 1 AS n")
    said = process("ls", environment=environment)
    assert said.code == 0
    assert "\\xfcn\\xef" in said.out or "ünï" in said.out
    assert "Commands" in process("--help", environment=environment).out


def on_a_terminal(*arguments: str, environment: dict[str, str]) -> str:
    """What a command writes to a terminal of 40 columns."""
    ours, theirs = pty.openpty()
    env = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "40", **environment}
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as popen:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 4096)
            except OSError as error:  # the other end is closed
                if error.errno != errno.EIO:
                    raise
                break
        popen.wait(timeout=30)
    os.close(ours)
    return written.decode()


def test_a_terminal_gets_colours_and_a_line_that_tells_how_far_the_run_is():
    Path("functions.py").write_text("import time\ndef slow(): time.sleep(0.3)\ndef broken(slow): raise ValueError\n")
    functions("slow", "broken")
    written = on_a_terminal("run", *GIVEN, environment={})
    assert " of 2 steps" in written
    assert "slow: succeeded in" in written
    assert "\x1b[1;31mOA301\x1b[0m" in written
    written = on_a_terminal("run", *GIVEN, environment={"NO_COLOR": "1"})
    assert "\x1b" not in written
    assert "OA301" in written
    assert "\x1b" not in process("run", *GIVEN).err


def test_a_pipeline_in_python_runs_validates_and_draws_like_a_file(run: Run):
    Path("flows.py").write_text(
        "from odibi_async import Pipeline, step\n"
        "def orders(): return [1, 2]\n"
        "def total(orders, rate=2): return sum(orders) * rate\n"
        "def more(total, extra): return total + extra\n"
        "STEPS = [orders, total]\n"
        "PIPELINE = Pipeline(STEPS)\n"
        "NESTED = [PIPELINE, more]\n"
        "NUMBER = 1\n"
    )
    for named in ("flows.py:STEPS", "flows:STEPS", "flows.py:PIPELINE"):
        assert "no fault" in run("validate", named).out
        assert "total" in run("graph", named).out
        assert run("run", named, "-p", "rate=3").code == 0
    assert "12" in run("run", "flows.py:NESTED", "-p", "extra=6").out
    assert run("validate", "flows.py:NESTED", "--json").codes == ["OA201"]
    for named, code in (("flows.py:STEP", "OA411"), ("flows.py:NUMBER", "OA411"), ("none.py:STEPS", "OA408")):
        assert run("validate", named, "--json").codes == [code]
    Path("broken.py").write_text("raise SystemExit(3)")
    assert run("validate", "broken.py:STEPS", "--json").codes == ["OA118"]
    Path("json.py").write_text("STEPS = []")
    assert run("validate", "json.py:STEPS", "--json").codes == ["OA205"]
    assert hasattr(sys.modules["json"], "dumps")


def test_a_story_is_written_where_it_is_asked_for_and_never_over_a_configuration(run: Run):
    functions("slow")
    Path("functions.py").write_text("def slow(): return 1\n")
    before = Path("odibi.yaml").read_text()
    assert run("run", "--story", "odibi.yaml", *GIVEN).code == 0
    assert Path("odibi.yaml").read_text() == before
    assert Path("story.html").read_text().startswith("<!doctype html>")
    assert "story: " in run("run", *GIVEN, "--story", "deep/other.html").out
    assert Path("deep/other.html").exists()
    assert run("run", "--story=odibi.yaml", *GIVEN).code == 2
    told = run("run", *GIVEN, "--story", "/dev/null/story.html")
    assert "OA315" in told.err
    assert Path("odibi.yaml").read_text() == before
