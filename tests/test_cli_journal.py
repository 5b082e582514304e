"""The journal from a shell: runs that are recorded, resumed, listed and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from odibi_async.cli import main
from tests.shell import Said

pytestmark = pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does

Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODIBI_ASYNC_CONFIG", raising=False)
    main(["init"])


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    capfd.readouterr()

    def run(*arguments: str) -> Said:
        code = main(arguments)
        captured = capfd.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def statuses(said: Said) -> dict[str, str]:
    return {step["name"]: step["status"] for step in json.loads(said.out)["steps"]}


def test_a_run_that_failed_is_resumed_and_does_only_what_is_left(run: Run):
    moved = Path("data").rename("elsewhere")
    assert run("run", "--journal", "runs", "--run-id", "monday").code == 1
    moved.rename("data")
    again = run("run", "--journal", "runs", "--resume", "last", "--json")
    assert again.code == 0
    assert json.loads(again.out)["run_id"] == "monday"
    third = run("runs", "resume", "monday", "--journal", "runs", "--json")
    assert set(statuses(third).values()) == {"resumed"}


def test_runs_are_listed_shown_and_removed(run: Run):
    for name in ("monday", "tuesday"):
        assert run("run", "--journal", "runs", "--run-id", name, "-q").code == 0
    listed = run("runs", "ls", "--journal", "runs")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["RUN", "tuesday", "monday"]
    assert "odibi.yaml" in listed.out
    shown = run("runs", "show", "monday", "--journal", "runs", "--json")
    assert json.loads(shown.out)["run"]["status"] == "succeeded"
    assert {step["status"] for step in json.loads(shown.out)["steps"]} == {"succeeded"}
    assert "USUALLY" in run("runs", "show", "monday", "--journal", "runs").out
    assert run("runs", "prune", "--keep-last", "1", "--journal", "runs").out == "removed: 1 run\nmonday\n"
    assert run("runs", "show", "monday", "--journal", "runs").code == 4


def test_a_resumed_run_gets_what_it_was_given(run: Run):
    Path("given.yaml").write_text(
        "- {name: one, type: sql, value: 'SELECT $limit AS n', inputs: {limit: limit}}\n", encoding="utf-8"
    )
    assert run("run", "given.yaml", "-p", "limit=3", "--journal", "runs").code == 0
    again = run("run", "given.yaml", "--journal", "runs", "--resume", "last", "--json")
    assert (again.code, statuses(again)) == (0, {"one": "resumed"})
    other = run("run", "given.yaml", "-p", "limit=4", "--journal", "runs", "--resume", "last", "--json")
    assert (other.code, statuses(other)) == (0, {"one": "succeeded"})


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "--resume", "last"], 2, "--resume needs --journal DIR"),
        (["run", "--resume", "last", "--journal", "runs"], 4, "there is no journal in 'runs'"),
        (["run", "--resume", "x", "--run-id", "y", "--journal", "runs"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_resumed_is_told_of(run: Run, arguments: list[str], code: int, says: str):
    said = run(*arguments)
    assert said.code == code
    assert says in said.err


def test_a_configuration_that_never_ran_has_no_last_run(run: Run):
    assert run("run", "--journal", "runs", "-q").code == 0
    Path("odibi.yaml").rename("other.yaml")
    said = run("run", "other.yaml", "--journal", "runs", "--resume", "last")
    assert said.code == 4
    assert "no run of 'other.yaml'. Runs of: odibi.yaml" in said.err
