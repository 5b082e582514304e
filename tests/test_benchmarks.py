"""Every benchmark runs, here at a tiny size, and prints what it promises. None of these tests is timed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NUMBER = r"-?\d+\.\d+"


def output_of(script: str, *arguments: object, logs: bool = False) -> str:
    """What a benchmark prints, run as people run it; `logs` says whether a library of its may write logs and warn."""
    command = [sys.executable, "-W", "default" if logs else "error", BENCHMARKS / script, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    assert logs or process.stderr == ""
    return process.stdout


def lines(printed: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(f"^ *{pattern}", printed, re.MULTILINE), f"{pattern} in\n{printed}"


def test_overhead_compares_every_contestant_with_its_rival() -> None:
    printed = output_of("overhead.py", "--nodes", 200, "--rounds", 1)
    titles = re.findall(r"^(\w+), (\w+), 200 nodes, (\w+) functions", printed, re.MULTILINE)
    assert titles == [
        (kind, shape, functions)
        for kind in ("async", "sync")
        for shape in ("chain", "fan", "layers")
        for functions in ("shared", "own", "collecting")
    ]
    against = rf"us each +{NUMBER} x"
    for contestant in (
        "bare",
        "observer",
        "targets",
        "limited",
        "limited to 64",
        "tasks",
        "levels",
        "build",
        "declare",
    ):
        lines(printed, rf"{contestant} +{NUMBER} {against} counter \({NUMBER} to {NUMBER}\)$")
    for contestant in (r"build\+run", "all"):
        lines(printed, rf"{contestant} +{NUMBER} {against} counter\+edges ")
    for contestant in (r"Pipeline\.run", "run_pipeline"):
        lines(printed, rf"{contestant} +{NUMBER} {against} gather ")


def test_imports_tells_what_importing_costs_and_loads() -> None:
    printed = output_of("imports.py", "--rounds", 2, "--beside", "asyncio", "no_such_library")
    lines(
        printed, rf"import odibi_async +{NUMBER} ms", rf"import asyncio +{NUMBER} ms", "no_such_library: not installed"
    )
    lines(printed, "heavy libraries that it loads: none$")


def test_fingerprint_compares_with_the_hash_alone() -> None:
    printed = output_of("fingerprint.py", "--megabytes", 1, "--rounds", 1, "--steps", 5)
    for contestant in ("digest_of", "hash_pandas_object"):
        found = re.findall(rf"^  {contestant} +{NUMBER} x BLAKE3", printed, re.MULTILINE)
        assert len(found) == 5, printed
    lines(printed, rf"gap of the loop +{NUMBER} ms, p99 {NUMBER} ms", rf"code_of +{NUMBER} ms a step")


def test_memory_compares_what_is_kept() -> None:
    printed = output_of("memory.py", "--frames", 3, "--megabytes", 1)
    lines(printed, *[rf"{contestant} +{NUMBER} frames" for contestant in ("targets", "everything", "by hand")])


def test_store_compares_keeping_and_loading() -> None:
    printed = output_of("store.py", "--megabytes", 1, "--rounds", 1)
    titles = re.findall(r"^([a-z ]+), \d+ MB$", printed, re.MULTILINE)
    assert titles == ["numbers", "arrow texts", "object texts"]
    lines(printed, rf"keep +store +{NUMBER} x arrow \+ blake3$", rf"load +store +{NUMBER} x a copy in memory$")
    lines(printed, *[rf"gaps +{what} +{NUMBER} ms, 99 %: {NUMBER} ms$" for what in ("keep", "load")])


def test_cache_tells_what_hits_cost_and_save() -> None:
    sizes = ("--megabytes", 1, "--steps", 20, "--rounds", 1, "--runs", 5, "--processes", 2)
    printed = output_of("cache.py", *sizes)
    lines(printed, rf"cached +{NUMBER} ms a step", rf"uncached +{NUMBER} ms a step")
    for make in ("numbers", "objects"):
        lines(printed, *[rf"{make} +{what}: +{NUMBER} ms, p99 +{NUMBER} ms" for what in ("stored", "loaded")])
    lines(printed, rf"flights: .* for its report is {NUMBER} times faster")
    lines(printed, "once: 5 equal runs call the step 1 times; 2 processes call it 1 times")


def test_speedup_covers_async_and_blocking_steps() -> None:
    printed = output_of("speedup.py", "--length", 1, "--seconds", 0.01, "--rounds", 1)
    lines(printed, *[rf"{kind} .*: {NUMBER} times faster" for kind in ("async", "blocking")])


DIAMOND: dict[str, tuple[list[str], float]] = {
    "sink": (["left", "right"], 1.0),
    "source": ([], 1.0),
    "left": (["source"], 3.0),
    "right": (["source"], 2.0),
    "stranger": ([], 2.0),
}
"""Its critical path takes 5 seconds, all of its work 9, level by level 2 + 3 + 1 = 6."""


def reduced_form() -> dict[str, Any]:
    return {"source": "diamond.json", "tasks": len(DIAMOND), "nodes": DIAMOND}


def wfformat() -> dict[str, Any]:
    children = {name: [other for other, (parents, _) in DIAMOND.items() if name in parents] for name in DIAMOND}
    specification = [
        {"name": name.title(), "id": name, "parents": parents, "children": children[name], "inputFiles": []}
        for name, (parents, _) in DIAMOND.items()
    ]
    execution = [{"id": name, "runtimeInSeconds": seconds} for name, (_, seconds) in reversed(DIAMOND.items())]
    return {
        "name": "diamond",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": specification, "files": []},
            "execution": {"makespanInSeconds": 6.0, "tasks": execution, "machines": []},
        },
    }


@pytest.mark.parametrize("form", [reduced_form, wfformat])
def test_makespan_replays_a_trace(form: Any, tmp_path: Path) -> None:
    trace = tmp_path / "diamond.json"
    trace.write_text(json.dumps(form()))
    printed = output_of("makespan.py", trace, "--slots", 0, 1, "--seconds", 0.05, "--rounds", 1)
    lines(printed, r"diamond: 5 tasks, 0\.09 s of work, critical path 0\.05 s$")
    unlimited, one_slot = printed.split("\n\n")[1:]
    lines(unlimited, r"diamond, no limit: bound 0\.050 s$", r"levels, computed +1\.2000 x the bound$")
    lines(one_slot, r"diamond, 1 slots: bound 0\.090 s$", r"levels, computed +1\.0000 x the bound$")
    lines(one_slot, *[rf"{rule}, computed +1\.0000 x the bound$" for rule in ("fifo", "priority", "informed")])
    for part in unlimited, one_slot:
        lines(part, *[rf"{name} +[1-9]\d*\.\d+ \({NUMBER} to {NUMBER}\) x the bound$" for name in ("run", "counter")])
    lines(unlimited, rf"run beside counter +{NUMBER} .* \(target: at most 1\.01\)$")
    lines(one_slot, rf"run beside fifo +{NUMBER} .* \(target: at most 1\.01\)$")


def test_soak_finds_nothing_left_behind_one_by_one() -> None:
    printed = output_of("soak.py", "--only", "one by one", "--runs", 60)
    grown = ["tasks", "file descriptors", "objects a run", "resident memory"]
    lines(printed, "threads at the end .* met$", *[rf"growth of {each} +{NUMBER} .* met$" for each in grown])


def test_soak_tells_of_many_runs_at_once() -> None:
    printed = output_of("soak.py", "--only", "at once", "--at-once", 50)
    lines(printed, rf"50 runs at once take +{NUMBER} s", rf"more resident memory +{NUMBER} MB .* met$")


def test_soak_finds_blocking_runs_within_the_default_number_of_threads() -> None:
    printed = output_of("soak.py", "--only", "blocking", "--blocking", 50)
    lines(printed, rf"50 blocking runs at once, threads +{NUMBER} .* met$")


def test_cli_measures_each_command_beside_a_bare_interpreter() -> None:
    printed = output_of("cli.py", "--rounds", 1, "--steps", 3)
    lines(
        printed, *[rf"{name} +{NUMBER} s +{NUMBER} x" for name in ("bare", "--help", "validate", "graph", "libraries")]
    )
    lines(printed, rf"failing +{NUMBER} s .* \d+ lines$")


def test_spark_pipeline_compares_with_pyspark_by_hand() -> None:
    printed = output_of("spark_pipeline.py", "--rows", "1000", "--repeat", "1", logs=True)
    lines(
        printed, *[rf"{name}: {NUMBER} times by hand" for name in ("chain", "branches")], "loop: lag", "cancel: cores"
    )


def test_story_tells_what_tracker_and_story_cost() -> None:
    printed = output_of("story.py", "--steps", "50", "--rounds", "1", "--large", "20")
    lines(printed, rf"steps: tracker {NUMBER} us", rf"flights: {NUMBER} times", rf"large: 20 steps told in {NUMBER} s")


def test_journal_prints_what_it_costs_and_what_it_is_good_for(tmp_path: Path) -> None:
    trace = tmp_path / "small.json"
    trace.write_text(json.dumps({"nodes": {"a": [[], 1.0], "b": [["a"], 2.0], "c": [["a"], 1.0]}}))
    printed = output_of("journal.py", trace, "--steps", 40, "--width", 10, "--rounds", 1, "--seconds", 0.05)
    lines(
        printed,
        rf"steps, sqlite, wall: {NUMBER} us without, {NUMBER} us with: {NUMBER} more",
        rf"steps, sqlite, processor: longest gap {NUMBER} ms",
        rf"resume: 40 committed steps, then the open one begins after {NUMBER} s",
        rf"makespan, small, 8 slots: {NUMBER} of fifo with durations, {NUMBER} without",
    )


def test_executors_compares_processes_and_dask_with_the_bare_libraries() -> None:
    printed = output_of("executors.py", "--rounds", 1, "--steps", 20, "--burn", 1000, "--mb", 1)
    met = rf" +{NUMBER} .*\(target: at (?:most|least) [\d.]+, (?:met|missed)(?:; of processors {NUMBER} \w+)?\)$"
    lines(
        printed,
        rf"four busy steps: processes / ProcessPoolExecutor\(2\){met}",
        rf"four busy steps: threads / processes{met}",
        rf"a process step that does nothing{met}",
        rf"a Dask step / submit and await \({NUMBER} ms\){met}",
        rf"20 small steps / futures \({NUMBER} s\){met}",
        rf"20 steps on 1 MB \({NUMBER} s\): times it travels +2\.000 .*met\)$",
        rf"the loop's gap meanwhile, p99{met}",
    )


def test_schedule_tells_how_late_firings_are_and_what_many_schedules_cost() -> None:
    printed = output_of("schedule.py", "--seconds", 1.5, "--schedules", 200, "--firing", 2, "--rounds", 1)
    met = r"\(target: at most [\d.]+, (?:met|missed)\)$"
    for journal in ("no journal", "sqlite"):
        spread = rf"median {NUMBER} ms, p99 {NUMBER} ms, longest {NUMBER} ms, earliest {NUMBER} ms, of \d+$"
        lines(printed, *[rf"late, {journal}, {what}: {spread}" for what in ("a bare timer", "claimed", "begun")])
        lines(printed, rf"late, {journal}, claimed: -?{NUMBER} ms more than what machine and disk allow {met}")
    spread = rf"{NUMBER} % \({NUMBER} to {NUMBER}\), \d+ firings {met}"
    lines(printed, rf"core, 200 schedules, hourly: {spread}", rf"core, 200 schedules, idle: {spread}")


def test_estimates_are_compared_with_runs_and_a_plan_is_made() -> None:
    printed = output_of("estimates.py", "--steps", 10, "--rounds", 1, "--plan", 500)
    lines(printed, rf"1 workers: +{NUMBER} s, estimated +{NUMBER} s", "worst deviation", "a plan for 5", "10,000 ")


def test_stream_compares_with_queues_by_hand_and_watches_the_memory() -> None:
    printed = output_of("stream.py", "--rows", 20_000, "--batch", 100, "--rounds", 1, "--hours", 0.01)
    for contestant in ("async", "plain", "mapped"):
        lines(printed, rf"{contestant} +{NUMBER} ms +{NUMBER} x by hand \({NUMBER} to {NUMBER}\)$")
    lines(printed, rf"memory +3,600 batches: at most \d alive, [+-]{NUMBER} MB")


def test_incremental_compares_streams_with_plain_runs() -> None:
    printed = output_of(
        "incremental.py", "--batches", 3, "--rounds", 1, "--simulated", 10, "--files", 3, "--rows", 2000
    )
    lines(
        printed,
        rf"overhead, 3 batches: {NUMBER} x plain runs \({NUMBER} to {NUMBER}\); {NUMBER} ms a batch",
        rf"files, 3: \d+ files/s, {NUMBER} x plain runs$",
        rf"files, 3: a start with nothing new takes {NUMBER} of that$",
        rf"rows, 2000 in batches of 1000: \d+ rows/s, {NUMBER} x plain runs$",
        rf"memory, 10 batches, \d+ simulated hours: [+-]\d+ objects, [+-]\d+\.\d MB resident, journal {NUMBER} x$",
    )


def test_service_compares_with_a_handler_that_calls_by_hand() -> None:
    sizes = ("--seconds", 0.5, "--rate", 20, "--rounds", 1, "--requests", 5, "--waiting", 20, "--listeners", 10)
    printed = output_of("serving.py", *sizes)
    lines(
        printed,
        rf"overhead, small steps: latency {NUMBER} .* times by hand \(target: at most 1\.5, (met|missed)\)$",
        rf"overhead, bare steps: processor {NUMBER} times by hand$",
        r"load: 20\.0 runs a second, 10 in all, 0 errors$",
        rf"load: p99 of /ping {NUMBER} ms, {NUMBER} .* times by hand",
        r"waiting: 20 of 20 runs waited for at a time succeeded",
        r"listeners: 10 of 10 heard one run to its end",
    )
