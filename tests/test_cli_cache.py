"""The cache from a shell: runs with and without it, and the commands that tell of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from odibi_async.cli import main
from tests.shell import Said, process

pytestmark = pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does

Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODIBI_ASYNC_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    main(["init"])


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = main([*arguments, "--json"])
        return Said(code, *capfd.readouterr())

    return run


def statuses(said: Said) -> list[str]:
    return [step["status"] for step in said.json["steps"]]


COMPUTED, CACHED = ["succeeded"] * 3, ["cached", "cached", "succeeded"]


def test_a_second_run_takes_from_the_cache_what_did_not_change(run: Run):
    assert statuses(run("run", "--cache", "cache")) == COMPUTED
    assert statuses(run("run", "--cache", "cache")) == CACHED
    assert statuses(run("run")) == COMPUTED
    with Path("data/orders.csv").open("a") as file:
        file.write("5,Ada,1\n")
    assert statuses(run("run", "--cache", "cache")) == COMPUTED


def test_processes_share_a_cache():
    first, second = (process("run", "--cache", "cache", "--json") for _ in range(2))
    assert (statuses(first), statuses(second)) == (COMPUTED, CACHED)


@pytest.mark.parametrize("place", ["cache", "true"])
def test_a_configuration_may_name_its_cache(run: Run, place: str):
    with Path("odibi.yaml").open("a") as file:
        file.write(f"cache: {place}\n")
    assert statuses(run("run")) == COMPUTED
    assert statuses(run("run")) == CACHED
    assert statuses(run("run", "--no-cache")) == COMPUTED
    assert statuses(run("run", "--cache", "other")) == COMPUTED
    assert Path("cache" if place == "cache" else "user/odibi_async").is_dir()


def test_a_cache_of_a_configuration_is_true_false_or_a_directory(run: Run):
    with Path("odibi.yaml").open("a") as file:
        file.write("cache: 5\n")
    said = run("validate")
    assert said.code == 3
    assert "cache: true, false or a directory is needed, not 5." in said.json["errors"][0]["message"]


def test_both_flags_at_once_are_a_mistake(run: Run):
    said = run("run", "--cache", "cache", "--no-cache")
    assert (said.code, said.codes) == (2, ["OA505"])


def test_what_is_in_a_cache_is_told(run: Run, capfd: pytest.CaptureFixture[str]):
    for _ in range(2):
        run("run", "--cache", "cache")
    stats = run("cache", "stats", "--cache", "cache").json
    assert (stats["entries"], stats["hits"], stats["misses"], stats["hit_rate"]) == (2, 2, 2, 0.5)
    assert set(stats["steps"]) == {"orders", "totals"}
    listed = run("cache", "ls", "--cache", "cache").json["entries"]
    assert {entry["step"] for entry in listed} == {"orders", "totals"}
    main(["cache", "stats", "--cache", "cache"])
    main(["cache", "ls", "--cache", "cache"])
    told = capfd.readouterr().out
    assert "HIT RATE" in told
    assert "50%" in told
    assert listed[0]["key"][:12] in told


def test_a_step_is_explained(run: Run, capfd: pytest.CaptureFixture[str]):
    run("run", "--cache", "cache")
    text = Path("odibi.yaml").read_text()
    Path("odibi.yaml").write_text(text.replace("sum(amount)", "max(amount)"))
    run("run", "--cache", "cache")
    explained = run("cache", "explain", "totals", "--cache", "cache").json
    assert explained["reason"] == "the query changed"
    assert {"the query", "the input 'data'", "the library duckdb"} <= set(explained["depends_on"])
    assert len(explained["entries"]) == 2
    main(["cache", "explain", "totals", "--cache", "cache"])
    assert "because        the query changed" in capfd.readouterr().out
    said = run("cache", "explain", "totls", "--cache", "cache")
    assert (said.code, said.codes) == (4, ["OA410"])
    assert "Did you mean 'totals'?" in said.json["errors"][0]["message"]


def test_a_cache_is_cleared_by_step_by_tag_and_as_a_whole(run: Run):
    run("run", "--cache", "cache")
    assert run("cache", "clear", "--tag", "none", "--cache", "cache").json["entries"] == 0
    assert run("cache", "clear", "--step", "totals", "--cache", "cache").json["entries"] == 1
    assert statuses(run("run", "--cache", "cache")) == ["cached", "succeeded", "succeeded"]
    assert run("cache", "clear", "--cache", "cache").json["entries"] == 2
    assert statuses(run("run", "--cache", "cache")) == COMPUTED


def test_pruning_leaves_what_is_new_and_fits(run: Run):
    run("run", "--cache", "cache")
    assert run("cache", "prune", "--cache", "cache").json["entries"] == 0
    assert statuses(run("run", "--cache", "cache")) == CACHED


def test_verifying_removes_what_is_damaged(run: Run):
    rows = "".join(
        f"{number},customer {number},1\n" for number in range(2000)
    )  # more than stands in a row of the index
    Path("data/orders.csv").write_text("order,customer,amount\n" + rows)
    run("run", "--cache", "cache")
    blobs = [path for path in Path("cache/blobs").rglob("*") if path.is_file()]
    blobs[0].write_bytes(b"x" * blobs[0].stat().st_size)
    found = run("cache", "verify", "--cache", "cache").json
    assert (found["entries"], found["blobs"]) == (1, 1)
    assert found["damaged"]
    assert run("cache", "verify", "--cache", "cache").json["damaged"] == []


@pytest.mark.parametrize("command", ["stats", "ls", "prune", "verify", "clear"])
def test_a_cache_that_is_not_there_is_told(run: Run, command: str):
    said = run("cache", command, "--cache", "nowhere")
    assert (said.code, said.codes) == (4, ["OA409"])
    assert not Path("nowhere").exists()


def test_a_run_whose_cache_cannot_be_used_says_so_and_runs():
    Path("file").write_text("not a directory")
    said = process("run", "--cache", "file")
    assert said.code == 0
    assert "step 'orders' is not cached: not kept: " in said.err
    assert process("run", "--cache", "file", "-q").err == ""


def test_a_function_whose_code_cannot_be_told_is_named():
    Path("functions.py").write_text("def all_of(data): return eval('data')\n")
    Path("pipeline.json").write_text(
        json.dumps(
            [
                {"name": "orders", "layer": "ingest", "value": "data/orders.csv"},
                {"name": "all", "type": "function", "value": "all_of", "inputs": {"data": "orders"}},
            ]
        )
    )
    said = process("run", "pipeline.json", "--functions", "functions", "--cache", "cache")
    assert said.code == 0
    assert "step 'all' is not cached: " in said.err
    assert "eval" in said.err
