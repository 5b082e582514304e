"""Whole configuration files: the same pipeline in every format gives the same result, and the loop stays free."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from odibi_async import Pipeline, RunError, Runner, create_engine_context, load_steps, run_pipeline, run_pipeline_sync
from odibi_async.errors import ConfigError, GraphError

STEPS: list[dict[str, Any]] = [
    {"name": "orders", "layer": "ingest", "type": "config_op", "value": "orders.csv"},
    {"name": "customers", "layer": "ingest", "type": "config_op", "value": "customers.csv"},
    {
        "name": "large",
        "layer": "transform",
        "type": "sql",
        "value": "SELECT * FROM data WHERE amount >= $low",
        "inputs": {"data": "orders"},
        "params": {"params": {"low": 15}},
    },
    {"name": "clean", "layer": "transform", "type": "function", "value": "clean", "inputs": {"data": "customers"}},
    {
        "name": "join",
        "layer": "transform",
        "type": "sql",
        "value": "SELECT name, sum(amount) AS amount FROM o JOIN c USING (customer) GROUP BY name ORDER BY name",
        "inputs": {"o": "large", "c": "clean"},
        "outputs": {"data": "totals"},
    },
    {
        "name": "save",
        "layer": "store",
        "type": "config_op",
        "value": "totals.csv",
        "inputs": {"data": "totals"},
        "params": {"mode": "overwrite"},
    },
]
COLUMNS = {"name": "StepName", "layer": "Layer", "type": "StepType", "value": "Value"}
CELLS = {"params": "Params", "inputs": "Inputs", "outputs": "Outputs"}


def clean(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(name=data["name"].str.strip())


def as_rows() -> list[dict[str, str]]:
    texts = [{column: entry[key] for key, column in COLUMNS.items()} for entry in STEPS]
    cells = [{column: json.dumps(e[key]) if key in e else "" for key, column in CELLS.items()} for e in STEPS]
    return [text | cell for text, cell in zip(texts, cells, strict=True)]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(STEPS))


def write_yaml(path: Path) -> None:
    path.write_text(yaml.safe_dump({"version": 1, "name": "sales", "steps": STEPS}))


def write_toml(path: Path) -> None:
    def value(thing: Any) -> str:
        if isinstance(thing, dict):
            return "{" + ", ".join(f"{key} = {value(each)}" for key, each in thing.items()) + "}"
        return json.dumps(thing)

    tables = ["\n".join(["[[steps]]", *(f"{key} = {value(each)}" for key, each in e.items())]) for e in STEPS]
    path.write_text("\n\n".join(tables))


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS.values(), *CELLS.values()])
        writer.writeheader()
        writer.writerows(as_rows())


def write_sqlite(path: Path) -> None:
    columns = [*COLUMNS.values(), *CELLS.values()]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE transformation_config ({', '.join(columns)}, Engine, project, enabled)")
        marks = ", ".join(f":{column}" for column in columns)
        db.executemany(
            f"INSERT INTO transformation_config ({', '.join(columns)}, Engine, project, enabled) "
            f"VALUES ({marks}, 'pandas', 'p', 1)",
            as_rows(),
        )


FORMATS: dict[str, Callable[[Path], None]] = {
    "p.json": write_json,
    "p.yaml": write_yaml,
    "p.toml": write_toml,
    "p.csv": write_csv,
    "p.db": write_sqlite,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pd.DataFrame({"customer": [1, 2, 1], "amount": [30, 20, 12]}).to_csv(tmp_path / "orders.csv", index=False)
    pd.DataFrame({"customer": [1, 2], "name": [" Ada", "Grace "]}).to_csv(tmp_path / "customers.csv", index=False)
    for name, write in FORMATS.items():
        write(tmp_path / name)
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Iterator[Any]:
    with create_engine_context("pandas", root=folder) as engine:
        yield engine


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    async with Runner() as runner:
        yield runner


@pytest.mark.parametrize("file", FORMATS)
async def test_every_format_gives_the_same_result(runner: Runner, engine: Any, folder: Path, file: str):
    result = await runner.run(folder / file, engine=engine, functions={"clean": clean})
    totals = pd.DataFrame({"name": ["Ada", "Grace"], "amount": [30, 20]})
    pd.testing.assert_frame_equal(result["totals"], totals, check_dtype=False)
    assert set(result.outputs) == {"orders", "customers", "large", "clean", "totals"}
    saved = await asyncio.to_thread(pd.read_csv, folder / "totals.csv")
    pd.testing.assert_frame_equal(saved, totals, check_dtype=False)


@pytest.mark.parametrize("file", FORMATS)
def test_every_format_gives_the_same_graph(folder: Path, file: str):
    pipeline = Pipeline(load_steps(folder / file), functions={"clean": clean})
    levels = [sorted(level) for level in pipeline.levels()]
    assert levels == [["customers", "orders"], ["clean", "large"], ["join"], ["save"]]


@pytest.fixture
def _in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("_in_the_folder")
async def test_run_pipeline_and_start_take_a_path(runner: Runner):
    result = await run_pipeline("p.yaml", functions={"clean": clean}, targets=["totals"])
    assert set(result) == {"totals"}
    run = await runner.start(
        "p.toml", {"orders": pd.DataFrame({"customer": [2], "amount": [50]})}, functions={"clean": clean}
    )
    assert (await run.result())["totals"]["amount"].tolist() == [50]


@pytest.mark.usefixtures("_in_the_folder")
def test_run_pipeline_sync_takes_a_path():
    assert len(run_pipeline_sync("p.json", functions={"clean": clean})["totals"]) == 2


async def test_what_is_wrong_with_a_file_is_told_before_anything_runs(runner: Runner, tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no such file"):
        await runner.run("pipeline.ymll")
    path = tmp_path / "p.json"
    await asyncio.to_thread(path.write_text, '[{"name": "a", "type": "sqll"}, {"nme": "b"}]')
    with pytest.raises(ConfigError, match="Did you mean 'sql'") as caught:
        await runner.run(path)
    assert len(caught.value.faults) > 1
    await asyncio.to_thread(path.write_text, '[{"name": "a", "type": "function", "value": "os.system"}]')
    with pytest.raises(GraphError, match=r"names the function 'os.system', which is not given"):
        await runner.run(path)


async def test_secrets_of_the_environment_show_in_no_error(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PLACE", "hidden-place.csv")
    path = tmp_path / "p.json"
    await asyncio.to_thread(path.write_text, '[{"name": "a", "layer": "ingest", "value": "${env:PLACE}"}]')
    with pytest.raises(RunError) as caught:
        await runner.run(path)
    assert "hidden-place" not in f"{caught.value}{caught.value.__cause__!r}"


async def test_order_in_the_file_does_not_matter_but_dependencies_do(runner: Runner, engine: Any):
    steps = list(reversed(load_steps(STEPS)))
    result = await runner.run(steps, engine=engine, functions={"clean": clean})
    assert len(result["totals"]) == 2


async def test_a_chain_of_2000_configured_steps_runs(runner: Runner):
    steps: list[dict[str, Any]] = [{"name": "s0", "type": "function", "value": "zero"}]
    steps += [
        {"name": f"s{k}", "type": "function", "value": "next", "inputs": {"value": f"s{k - 1}"}} for k in range(1, 2000)
    ]
    functions = {"zero": lambda: 0, "next": lambda value: value + 1}
    result = await runner.run(load_steps(steps), functions=functions, targets=["s1999"])
    assert result["s1999"] == 1999


def test_duplicate_outputs_and_unknown_inputs_are_faults():
    steps = [
        {"name": "a", "type": "sql", "value": "SELECT 1", "outputs": {"data": "x"}},
        {"name": "b", "type": "sql", "value": "SELECT 1", "outputs": {"data": "x"}},
        {"name": "c", "type": "sql", "value": "SELECT 1", "inputs": {"data": "y"}},
    ]
    with pytest.raises(GraphError) as caught:
        Pipeline(load_steps(steps))
    assert "Dataset 'x' is made by two steps" in str(caught.value)
    assert "Step 'c' reads 'y'" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.int64(3), 3),
        ([np.int64(3), np.float32(0.5)], [3, 0.5]),
        (np.datetime64("2024-01-02T00:00:00", "ns"), pd.Timestamp("2024-01-02")),
        (np.datetime64("2024-01-02", "D"), pd.Timestamp("2024-01-02")),
        (np.timedelta64(1, "ns") * 10**9, pd.Timedelta("1s")),
    ],
)
async def test_what_numpy_gives_fills_a_query_like_what_it_is(given: Any, wanted: Any) -> None:
    steps = [{"name": "found", "type": "sql", "inputs": {"x": "given"}, "value": "SELECT $x AS x"}]
    found = (await run_pipeline(load_steps(steps), {"given": given}))["found"]["x"][0]
    assert (list(found) if isinstance(found, np.ndarray) else found) == wanted
