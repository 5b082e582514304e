"""Configurations: the same steps from every format, and every fault with its place."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odibi_async import Pipeline, Retry, Step
from odibi_async.config import ConfigLoader, Document, json_schema, load_document, load_steps
from odibi_async.config import loading as config
from odibi_async.config.model import DefaultsModel
from odibi_async.errors import ConfigError, Fault, GraphError
from odibi_async.schedule.configured import trigger_of
from odibi_async.secret import Secret

GOLDEN = Path(__file__).parent / "golden"
COLUMNS = ["Layer", "StepName", "StepType", "Engine", "Value", "Params", "Inputs", "Outputs", "Metadata"]
EXTRA = ["project", "enabled", "execution_order"]
INGESTION = ["source_id", "engine", "source_path_or_query", "target_id", "project", "source_type", "enabled"]


def faults_of(load: Callable[[], Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load()
    return [str(fault) for fault in caught.value.faults]


def faults_in(source: Any, **options: Any) -> list[str]:
    """The faults of a source; its folder is left out."""
    folder = f"{source.parent}/" if isinstance(source, Path) else "\0"
    return [fault.replace(folder, "") for fault in faults_of(lambda: load_steps(source, **options))]


def fields_of(steps: Iterable[Step[..., Any, Any]]) -> list[dict[str, Any]]:
    return [{field.name: getattr(step, field.name) for field in dataclasses.fields(step)} for step in steps]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes one table, as CSV or into a database."""

    def write(name: str, header: list[str], *rows: Iterable[Any], into: str = "transformation_config") -> Path:
        path = tmp_path / name
        if path.suffix == ".csv":
            with path.open("w", newline="") as out:
                csv.writer(out).writerows([header, *rows])
            return path
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"CREATE TABLE {into} ({', '.join(header)})")
            db.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(header))})", rows)
        return path

    return write


def test_every_format_gives_the_same_steps(tmp_path: Path):
    database = tmp_path / "pipeline.db"
    with closing(sqlite3.connect(database)) as db:
        db.executescript((GOLDEN / "pipeline.sql").read_text())
    sources = [*(GOLDEN / f"pipeline.{suffix}" for suffix in ("json", "yaml", "toml", "csv")), database]
    loaded = [fields_of(load_steps(source)) for source in sources]
    rows = json.loads((GOLDEN / "pipeline.json").read_text())
    loaded += [fields_of(load_steps(rows)), fields_of(ConfigLoader().load(str(database)))]
    assert all(steps == loaded[0] for steps in loaded)
    flights, delays, worst, report = loaded[0]
    assert (flights["layer"], flights["type"], flights["engine"]) == ("ingest", "config_op", "pandas")
    assert flights["params"] == {"sep": ",", "nrows": 1000}
    assert delays["value"] == "SELECT origin, avg(dep_delay) AS delay\nFROM data GROUP BY origin"
    assert delays["retry"] == Retry(attempts=4, wait=0.5, on=(OSError, TimeoutError))
    assert (delays["timeout"], delays["tags"]) == (30, ("daily", "12:30"))
    assert (worst["when"], worst["after"], worst["run_on"]) == ("is_weekday", ("delays",), "thread")
    assert (report["engine"], report["outputs"]) == ("spark", {})


# -- documents -----------------------------------------------------------------------------------------


def test_a_document_says_more_than_steps(file: Callable[..., Path]):
    path = file(
        "d.yaml",
        "version: 1\nname: daily\nschedule: {cron: 0 6 * * *}\n"
        "defaults: {engine: spark, params: {a: 1, b: 1}, retry: 2, tags: null}\n"
        "steps:\n- {name: one, params: {b: 2}}\n- {name: two, engine: pandas, retry: null}\n",
    )
    document = load_document(path)
    one, two = document.steps
    assert document == Document(name="daily", version=1, schedule={"cron": "0 6 * * *"}, steps=(one, two))
    assert (one.engine, one.params, one.retry) == ("spark", {"a": 1, "b": 2}, Retry(attempts=2))
    assert (two.engine, two.params, two.retry) == ("pandas", {"a": 1, "b": 1}, None)
    assert fields_of(load_steps(path)) == fields_of(document.steps)


def test_a_fault_in_the_defaults_is_told_once_and_there(file: Callable[..., Path]):
    path = file(
        "d.yaml", "defaults:\n  engin: spark\n  retry: {wait: -1}\n  name: x\nsteps:\n- name: a\n- name: b\n  type: x\n"
    )
    assert faults_in(path) == [
        "d.yaml:3:17: defaults.retry.wait: a number from 0 on is needed, not -1.",
        "d.yaml:2:3: 'defaults.engin' is unknown. Did you mean 'engine'?",
        f"d.yaml:4:3: 'defaults.name' is unknown. Known: {', '.join(DefaultsModel.model_fields)}.",
        "d.yaml:8:9: step 'b': type 'x' is unknown. Known: config_op, sql, function.",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "d.yaml:1:1: a list of steps is needed, or a mapping whose 'steps' are one."),
        ("3", "d.yaml:1:1: a list of steps is needed, or a mapping whose 'steps' are one."),
        ("name: x", "d.yaml:1:1: a list of steps is needed, or a mapping whose 'steps' are one."),
        ("steps: 4", "d.yaml:1:8: a list of steps is needed, or a mapping whose 'steps' are one."),
        ("steps: []\nversion: 2", "d.yaml:2:10: version 2 is unknown. Known: 1."),
        ("steps: []\nschedul: x", "d.yaml:2:1: 'schedul' is unknown. Did you mean 'schedule'?"),
        ("steps: []\nschedule: 3", "d.yaml:2:11: schedule: a text is needed, not 3."),
        ("[a]", "d.yaml:1:2: a step is a mapping, not 'a'."),
    ],
)
def test_a_document_has_a_form(file: Callable[..., Path], text: str, fault: str):
    assert faults_in(file("d.yaml", text)) == [fault]


@pytest.mark.parametrize(
    ("schedule", "code", "fault"),
    [
        ("61 * * * *", "OA351", "3:11: schedule: The cron expression '61 * * * *' is wrong: '61' cannot be the minute"),
        ("{cron: ['@daily', '@dayly']}", "OA351", "3:29: schedule.cron[1]: The cron expression '@dayly' is wrong"),
        ("{cron: '@daily', tz: Mars}", "OA352", "3:32: schedule.tz: There is no time zone 'Mars'."),
        ("{every: 0}", "OA105", "3:19: schedule.every: a number from 0.001 on is needed, not 0."),
        ("{}", "OA105", "3:11: schedule: one of cron, every, files and event is needed."),
        ("{tz: UTC, every: 3}", "OA105", "3:11: schedule: tz belongs to cron, which is not there."),
        ("{every: 3, jitter: 5}", "OA105", "3:11: schedule: jitter belongs to every, and is at most as much."),
        ("{crn: x, every: 3}", "OA103", "3:12: 'schedule.crn' is unknown. Did you mean 'cron'?"),
        ("{every: 3, overlap: skp}", "OA102", "3:31: schedule.overlap 'skp' is unknown. Did you mean 'skip'?"),
        ("{every: 3, grace: 0}", "OA105", "3:29: schedule.grace: a number from 1 on is needed, not 0."),
        ("[1]", "OA105", "3:11: schedule: a cron expression or a mapping is needed, not a list."),
    ],
)
def test_a_schedule_has_a_form(file: Callable[..., Path], schedule: str, code: str, fault: str):
    path = file("d.yaml", f"steps:\n- name: a\nschedule: {schedule}\n")
    with pytest.raises(ConfigError) as raised:
        load_document(path)
    (found,) = raised.value.faults
    assert found.code == code
    assert f"{found.place}: {found.message}".startswith(fault)


@pytest.mark.parametrize(
    "schedule",
    [
        "30 2 * * *",
        {"cron": ["@daily", "0 12 * * MON"], "tz": "Europe/Berlin", "missed": "all", "within": 60.0},
        {"every": 300.0, "jitter": 30.0, "overlap": "queue", "grace": 5.0, "attempts": 2},
        {"files": ["in/*.csv"], "event": "reload"},
    ],
)
def test_a_sound_schedule_is_read_as_it_is_written_and_fits_the_schema(schedule: Any):
    document = {"schedule": schedule, "steps": [{"name": "a"}]}
    assert load_document(document).schedule == schedule
    jsonschema.validate(document, json_schema())
    assert trigger_of(schedule).text


def test_rows_may_be_any_mappings_and_stay_as_they_are():
    rows = [{"name": "a", "params": {"x": [1]}}]
    (step,) = load_steps(iter(rows))
    step.params["x"].append(2)  # type: ignore[index]
    assert rows == [{"name": "a", "params": {"x": [1]}}]
    assert faults_in([{"name": "a"}, {"name": "b", "engine": "x"}]) == [
        "<rows>, [1].engine: step 'b': engine 'x' is unknown. Known: pandas, spark."
    ]


def test_rows_that_hold_themselves_are_refused():
    params: dict[str, Any] = {}
    params["self"] = params
    assert faults_in([{"name": "a", "params": params}]) == [
        "<rows>, [0].params: step 'a': lists and mappings are nested more than 100 deep."
    ]


# -- places --------------------------------------------------------------------------------------------


def test_json_and_yaml_tell_line_and_column(file: Callable[..., Path]):
    path = file(
        "orders.yaml", "- name: raw\n- name: clean\n  engine: padnas\n  enigne: pandas\n  params: [1]\n- layer: x\n"
    )
    assert faults_in(path) == [
        "orders.yaml:3:11: step 'clean': engine 'padnas' is unknown. Did you mean 'pandas'?",
        "orders.yaml:5:11: step 'clean': params: a mapping is needed, not a list.",
        "orders.yaml:4:3: step 'clean': 'enigne' is unknown. Did you mean 'engine'?",
        "orders.yaml:6:3: there is no 'name', which every step needs.",
    ]
    path = file("orders.json", '[\n  {"name": "é",\n   "type": "SQL", "retry": {"on": ["OSErorr"]}}]')
    assert faults_in(path) == [
        "orders.json:3:12: step 'é': type 'SQL' is unknown. Did you mean 'sql'?",
        "orders.json:3:36: step 'é': retry.on[0] 'OSErorr' is unknown. Did you mean 'OSError'?",
    ]


def test_toml_tells_line_and_key_path(file: Callable[..., Path]):
    path = file(
        "orders.toml",
        "steps = [{name = 'a'},\n {name = 'b', engine = 'x'}]\n",
    )
    assert faults_in(path) == ["orders.toml:1: steps[1].engine: step 'b': engine 'x' is unknown. Known: pandas, spark."]
    path = file(
        "orders.toml",
        '# [[steps]]\n[[steps]]\nname = "a"\nvalue = """\n[[steps]]\n"a" = \'\n"""\nparams = { x = [\n 1, "]" ] }\n\n'
        '[[steps]] # "\n"na\\u006de" = "b"\nretry.wait = -1\n[steps . \'params\']\nx = "${env:NOT_SET_AT_ALL}"\n'
        "[[steps]]\nvalue = '''\n'''\n",
    )
    assert faults_in(path) == [
        "orders.toml:15: steps[1].params.x: step 'b': params.x: the environment variable 'NOT_SET_AT_ALL' is not set.",
        "orders.toml:13: steps[1].retry.wait: step 'b': retry.wait: a number from 0 on is needed, not -1.",
        "orders.toml:16: steps[2].name: there is no 'name', which every step needs.",
    ]


def test_tables_tell_row_and_column(table: Callable[..., Path]):
    rows = [("transform", "a", "sql", "pandas", ""), ("transform", "b", "api", "padnas", "")]
    faults = [
        "row {}, column StepType: step 'b': type 'api' is not supported: use type 'function', "
        "and a function that calls the API.",
        "row {}, column Engine: step 'b': engine 'padnas' is unknown. Did you mean 'pandas'?",
    ]
    assert faults_in(table("c.csv", COLUMNS[:5], *rows)) == [f"c.csv, {fault.format(3)}" for fault in faults]
    assert faults_in(table("c.db", COLUMNS[:5], *rows)) == [
        f"c.db, transformation_config, {fault.format(2)}" for fault in faults
    ]


def test_rows_of_sqlite_are_known_by_their_rowid(table: Callable[..., Path]):
    path = table("c.db", ["id INTEGER PRIMARY KEY", "StepName", "Engine"], (7, "a", "pandas"), (9, "b", "x"))
    assert "transformation_config, row 9, column Engine" in faults_in(path)[0]


def test_all_faults_are_told_together_and_the_error_pickles(file: Callable[..., Path]):
    path = file("d.json", '[{"name": "a", "name": "b", "layer": ""}, {"name": "b", "params": {"x": "${env:NOPE_}"}}]')
    with pytest.raises(ConfigError) as caught:
        load_steps(path)
    error = caught.value
    assert [fault.place for fault in error.faults] == ["1:16", "1:38", "1:73", "1:52"]
    assert str(error).startswith(f"4 faults in the configuration:\n  - {path}:1:16: 'name' stands twice")
    twin = pickle.loads(pickle.dumps(error))
    assert twin.faults == error.faults
    assert str(twin) == str(error)
    assert str(Fault("a.csv", "", "it is empty.", "OA101")) == "a.csv: it is empty."


def test_a_name_that_stands_twice_is_told_with_both_places(file: Callable[..., Path], table: Callable[..., Path]):
    path = file("d.yaml", "- name: a\n- name: a\n")
    assert faults_in(path) == ["d.yaml:2:9: step 'a': another step has the same name (1:9)."]
    path = table("c.csv", ["StepName"], ["a"], ["a"])
    assert faults_in(path) == [
        "c.csv, row 3, column StepName: step 'a': another step has the same name (row 2, column StepName)."
    ]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("layer: 3", "layer: a text is needed, not 3."),
        ("value: [1]", "value: a text is needed, not a list."),
        ("params: {1: 2}", "params[1]: a text is needed as a key, not 1."),
        ("inputs: {a: 1}", "inputs.a: a text is needed, not 1."),
        ("outputs: [a, a]", "outputs: a list without repetitions is needed, not a list."),
        ("outputs: {a: ''}", "outputs.a: a text that is not empty is needed, not ''."),
        ("retry: 0", "retry: a number from 1 on is needed, not 0."),
        ("retry: true", "retry: a number is needed, not True."),
        ("retry: 1.5", "retry: a whole number is needed, not 1.5."),
        ("retry: [1]", "retry: a number of attempts or a mapping is needed, not a list."),
        ("retry: {on: [odibi_async.errors.OdibiError]}", "Only errors of Python's own can be named."),
        ("retry: {never: SystemExit}", "retry.never 'SystemExit' is unknown."),
        ("timeout: 0", "timeout: a number above 0 is needed, not 0."),
        ("timeout: 30s", "timeout: a number is needed, not '30s'."),
        ("run_on: threads", "run_on 'threads' is unknown. Did you mean 'thread'?"),
        ("tags: {a: b}", "tags: a text or a list of texts is needed, not a mapping."),
        ("after: [1]", "after[0]: a text is needed, not 1."),
        ("cache: perhaps", "cache: true or false is needed, not 'perhaps'."),
        ("cache: {ttl: 0}", "cache.ttl: a number above 0 is needed, not 0."),
        ("cache: {tll: 60}", "'cache.tll' is unknown. Did you mean 'ttl'?"),
        ("enabled: perhaps", "enabled: true or false is needed, not 'perhaps'."),
        ("'<list>': 1", "'<list>' is unknown. Known: layer, "),
        ("retry: {'<list>': 1}", "'retry.<list>' is unknown. Known: attempts, "),
        ("type: api", "type 'api' is not supported: use type 'function'"),
    ],
)
def test_each_entry_says_what_it_needs(file: Callable[..., Path], entry: str, fault: str):
    (told,) = faults_in(file("d.yaml", f"- name: s\n  {entry}\n"))
    assert told.startswith("d.yaml:2:")
    assert "step 's': " in told
    assert fault in told


# -- what ODIBI CORE dropped silently ----------------------------------------------------------------------


def test_ingestion_rows_become_ingest_steps_named_by_their_source(table: Callable[..., Path]):
    path = table(
        "c.db",
        INGESTION,
        ("orders", "Pandas", "data/orders.csv", "raw_orders", "sales", "csv", 1),
        into="ingestion_source_config",
    )
    table("c.db", ["StepName", "Inputs", "project"], ("clean", '{"data": "raw_orders"}', "sales"))
    orders, clean = load_steps(path)
    assert (orders.layer, orders.name, orders.type, orders.engine) == ("ingest", "orders", "config_op", "pandas")
    assert (orders.value, orders.outputs) == ("data/orders.csv", {"data": "raw_orders"})
    assert orders.metadata == {"project": "sales", "source_type": "csv"}
    assert (clean.layer, clean.type, clean.engine) == ("transform", "sql", "pandas")
    assert [step.name for step in load_steps(path, layer="ingest")] == ["orders"]


def test_the_other_spelling_of_the_ingestion_columns_works(table: Callable[..., Path]):
    path = table("c.sqlite", ["SourceID", "SourcePath", "TargetID"], ("s", "p", "t"), into="ingestion_source_config")
    (step,) = load_steps(path)
    assert (step.name, step.value, step.outputs) == ("s", "p", {"data": "t"})
    assert step.metadata == {"project": None, "source_type": None}


def test_an_ingestion_row_needs_a_source_a_path_and_a_target(table: Callable[..., Path]):
    path = table("c.db", INGESTION, (None, "", " ", None, None, None, None), into="ingestion_source_config")
    place = "c.db, ingestion_source_config, row 1, column"
    assert faults_in(path) == [
        f"{place} {column}: the cell is empty, and every row needs it."
        for column in ("source_id", "source_path_or_query", "target_id")
    ]


@pytest.mark.parametrize("name", ["c.csv", "c.db"])
@pytest.mark.parametrize("missing", [*COLUMNS[:1], *COLUMNS[2:]])
def test_a_column_that_is_missing_takes_the_default(table: Callable[..., Path], name: str, missing: str):
    header = [column for column in COLUMNS if column != missing]
    path = table(name, header, ["a" if column == "StepName" else "" for column in header])
    (step,) = load_steps(path)
    assert (step.layer, step.name, step.engine, step.value) == ("transform", "a", "pandas", "")
    assert step.type == ("config_op" if name == "c.csv" else "sql")
    assert (step.params, step.inputs, step.outputs, step.metadata) == ({}, {}, {}, {})


@pytest.mark.parametrize("name", ["c.csv", "c.db"])
@pytest.mark.parametrize("column", ["Params", "Inputs", "Outputs", "Metadata"])
def test_bad_json_in_a_cell_names_the_row_and_the_column(table: Callable[..., Path], name: str, column: str):
    path = table(name, ["StepName", column], ("a", "{}"), ("b", "{'x': 1}"))
    (fault,) = faults_in(path)
    assert (
        f"row {3 if name == 'c.csv' else 2}, column {column}: step 'b': the cell is not valid JSON, at its 1:2: "
        in fault
    )
    (fault,) = faults_in(table(f"2{name}", ["StepName", column], ("a", "3")))
    assert "is needed, not 3." in fault


def test_json_in_a_cell_is_as_strict_as_a_file(table: Callable[..., Path]):
    path = table("c.csv", ["StepName", "Params"], ("a", '{"x": 1,\n "x": NaN}'))
    assert faults_in(path) == [
        "c.csv, row 2, column Params: step 'a': "
        "the cell is not valid JSON, at its 2:2: 'x' stands twice in the same object.; "
        "the cell is not valid JSON, at its 2:7: NaN is not a finite number."
    ]


def test_an_empty_engine_cell_takes_the_default(table: Callable[..., Path]):
    steps = load_steps(table("c.csv", COLUMNS[:5], ("Store", "a", "", "", ""), ("", "b", "SQL", " SPARK ", "SELECT 1")))
    assert [(step.layer, step.type, step.engine) for step in steps] == [
        ("store", "config_op", "pandas"),
        ("transform", "sql", "spark"),
    ]


@pytest.mark.parametrize("name", ["c.csv", "c.db"])
def test_a_row_without_a_name_is_a_fault(table: Callable[..., Path], name: str):
    (fault,) = faults_in(table(name, COLUMNS[:2], ("transform", "a"), ("transform", "")))
    assert fault.endswith(", column StepName: the cell is empty, and every row needs it.")


@pytest.mark.parametrize("name", ["c.csv", "c.db"])
def test_a_column_is_ignored_only_when_it_means_none_that_is_known(table: Callable[..., Path], name: str):
    path = table(name, ["StepName", "project_id", "description", "created_at"], ("a", 1, "x", "y"))
    assert [step.name for step in load_steps(path)] == ["a"]
    (fault,) = faults_in(table(f"2{name}", ["stepname", "Parms"], ("a", "{}")))
    assert fault.endswith("header: column 'Parms' is unknown. Did you mean 'params'?")
    (fault,) = faults_in(table(f"3{name}", ["Layer"], ("transform",)))
    assert fault.endswith("header: there is no column 'StepName'.")
    assert len(faults_in(table(f"4{name}", ["StepName", "Name"], ("a", "b")))) == 2


def test_a_row_of_csv_that_is_too_short_or_too_long_is_a_fault(file: Callable[..., Path]):
    path = file("c.csv", "Layer,StepName,,\n\ntransform,a,,\n,,\ntransform\ntransform,b,c\n")
    assert faults_in(path) == [
        "c.csv, row 5: the row has another number of cells than the header; quote texts that hold commas.",
        "c.csv, row 6: the row has another number of cells than the header; quote texts that hold commas.",
        "c.csv, row 5, column StepName: the cell is empty, and every row needs it.",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", 'StepName\n"a', 'StepName\n"a"b\n', "StepName\n" + "a" * 200_000])
def test_what_is_no_csv_is_a_fault(file: Callable[..., Path], text: str):
    assert len(faults_in(file("c.csv", text))) == 1


def test_cells_that_are_no_text_are_faults(table: Callable[..., Path]):
    path = table("c.db", ["StepName", "Value", "execution_order"], ("a", b"\0", "soon"), (5, "x", 1))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE transformation_config SET StepName = CAST(x'ff41' AS TEXT) WHERE rowid = 1")
    place = "c.db, transformation_config, row"
    assert faults_in(path) == [
        f"{place} 2, column StepName: name: a text is needed, not 5.",
        f"{place} 1, column StepName: the cell holds bytes that are not UTF-8.",
        f"{place} 1, column Value: the cell holds bytes; a text is needed.",
        f"{place} 1, column execution_order: a number is needed, not 'soon'.",
    ]


# -- filters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c.csv", "c.db"])
def test_tables_are_filtered_and_ordered(table: Callable[..., Path], name: str):
    rows = [
        ("transform", "late", "x", 1, 20),
        ("transform", "b", "x", "true", 3),
        ("transform", "a", "x", "", 3),
        ("ingest", "first", "y", "yes", ""),
        ("transform", "off", "y", "no", 1),
    ]
    path = table(name, ["Layer", "StepName", *EXTRA], *rows)

    def names(**options: Any) -> list[str]:
        return [step.name for step in load_steps(path, **options)]

    assert names() == ["first", "a", "b", "late"]
    assert names(enabled_only=False) == ["first", "off", "a", "b", "late"]
    assert names(project="y") == ["first"]
    assert names(layer="transform") == ["a", "b", "late"]
    assert names(layer="publish") == []
    assert faults_in(path, project="z") == [f"{name}: no step belongs to project 'z'. Known projects: x, y."]


def test_what_is_filtered_out_is_not_checked(table: Callable[..., Path]):
    path = table("c.db", ["StepName", "Params", "enabled"], ("a", "{}", 1), ("broken", "{", 0))
    assert [step.name for step in load_steps(path)] == ["a"]
    assert len(faults_in(path, enabled_only=False)) == 1


def test_steps_in_files_are_filtered_likewise(file: Callable[..., Path]):
    path = file("d.yaml", "- {name: a, project: x}\n- {name: b, enabled: no}\n- {name: c, layer: store}\n")
    assert [step.name for step in load_steps(path)] == ["a", "c"]
    assert [step.name for step in load_steps(path, project="x")] == ["a"]
    assert [step.name for step in load_steps(path, layer="store")] == ["c"]


# -- secrets -------------------------------------------------------------------------------------------


def test_texts_that_name_secrets_become_secrets(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASS", "hunter2")
    secret_file = file("token", "abc\n")
    path = file(
        "d.yaml",
        f"- name: a\n  value: 'db://u:${{env:DB_PASS}}@h'\n"
        f"  params: {{a: '${{file:{secret_file}}}', b: ['${{file:token}}-${{env:DB_PASS}}', '${{x}}'], c: 5}}\n",
    )
    (step,) = load_steps(path)
    assert step.value == Secret("db://u:hunter2@h")
    assert step.params == {"a": Secret("abc"), "b": [Secret("abc-hunter2"), "${x}"], "c": 5}
    assert "hunter2" not in repr(step)


def test_secrets_may_stand_in_the_defaults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASS", "hunter2")
    (step,) = load_steps({"defaults": {"params": {"key": "${env:DB_PASS}"}}, "steps": [{"name": "a"}]})
    assert step.params == {"key": Secret("hunter2")}
    assert faults_in({"defaults": {"params": {"k": "${env:NOPE_}"}}, "steps": [{"name": "a"}, {"name": "b"}]}) == [
        "<rows>, defaults.params.k: defaults.params.k: the environment variable 'NOPE_' is not set."
    ]


def test_a_missing_secret_is_a_fault_with_its_place(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    file("token", "abc")
    path = file(
        "d.json",
        '[{"name": "a", "params": {"p": ["${env:DB_PASWORD}"]},\n "value": "${file:tokn}"},\n'
        ' {"name": "b", "value": "${env:X", "params": {"x": "${file:\\u0000}"}}]',
    )
    assert faults_in(path) == [
        "d.json:1:33: step 'a': params.p[0]: the environment variable 'DB_PASWORD' is not set."
        " Did you mean 'DB_PASSWORD'?",
        "d.json:2:11: step 'a': value: the secret's file 'tokn': there is no such file. Did you mean 'token'?",
        "d.json:3:52: step 'b': params.x: the secret's file '\\x00': there is no such file.",
        "d.json:3:25: step 'b': value: '${env:' has no closing brace.",
    ]


# -- files ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_told_with_names_that_are_near(file: Callable[..., Path], tmp_path: Path):
    file("orders.yaml", "")
    assert faults_in(tmp_path / "order.yaml") == ["order.yaml: there is no such file. Did you mean 'orders.yaml'?"]
    assert "There is no folder" in faults_of(lambda: load_steps(tmp_path / "no" / "orders.yaml"))[0]
    assert faults_in(tmp_path / "order.db") == ["order.db: there is no such file. Did you mean 'orders.yaml'?"]
    (tmp_path / "folder.json").mkdir()
    assert faults_in(tmp_path / "folder.json") == ["folder.json: it is a folder, not a file."]
    assert "there is no such file." in faults_of(lambda: load_steps("a\0/b\0.json"))[0]
    assert "cannot be read" in faults_of(lambda: load_steps("a" * 300 + ".json"))[0]


def test_an_unknown_suffix_is_told_with_the_known_ones(file: Callable[..., Path]):
    assert faults_in(file("d.yalm", "")) == ["d.yalm: the suffix '.yalm' is not a known format. Did you mean '.yaml'?"]
    assert "Known: .json, .yaml" in faults_in(file("d.exe", ""))[0]
    assert load_steps(file("d.JSON", "[]")) == []


def test_a_byte_order_mark_is_accepted_and_other_bytes_are_told_with_their_offset(file: Callable[..., Path]):
    for name, text in (
        ("d.json", '[{"name": "é"}]'),
        ("d.yaml", "- name: é"),
        ("d.csv", "StepName\né"),
        ("d.toml", "steps=[{name='é'}]"),
    ):
        assert load_steps(file(name, b"\xef\xbb\xbf" + text.encode()))[0].name == "é"
        wrong = text.encode("latin-1")
        assert faults_in(file(name, wrong)) == [
            f"{name}: byte 0xe9 at offset {wrong.index(0xE9)} is not UTF-8. Save the file as UTF-8."
        ]


def test_what_is_no_database_or_lacks_the_tables_is_a_fault(file: Callable[..., Path], table: Callable[..., Path]):
    assert faults_in(file("a.db", "not a database, but a text")) == [
        "a.db: SQLite cannot read the file: file is not a database."
    ]
    assert (
        "no table 'ingestion_source_config' and no 'transformation_config'. It has none."
        in faults_in(file("b.db", ""))[0]
    )
    assert "It has: transformations." in faults_in(table("c.db", ["StepName"], ("a",), into="transformations"))[0]


# -- JSON ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: a value is expected, but the text ends."),
        ("[1,]", "1:4: a value is expected, not ']'."),
        ("[1\n 2]", "2:2: ',' or ']' is expected, not '2'."),
        ('{"a" 1}', "1:6: ':' is expected, not '1'."),
        ("{a: 1}", "1:2: a name in double quotes is expected, not 'a'."),
        ("[]]", "1:3: the end of the text is expected, not ']'."),
        ('["a\n"]', "1:4: invalid control character here."),
        ('["a]', "1:2: unterminated string starting here."),
        ("[01]", "1:3: ',' or ']' is expected, not '1'."),
        ("[" * 100_000, "1:101: lists and objects are nested more than 100 deep."),
        (f"[{'1' * 5000}]", "1:2: this number has too many digits."),
    ],
)
def test_what_is_no_json_is_told_with_its_place(file: Callable[..., Path], text: str, fault: str):
    assert faults_in(file("d.json", text)) == [f"d.json:{fault}"]


def test_json_that_means_different_things_to_different_readers_is_refused(file: Callable[..., Path]):
    text = '[{"name": "a", "params": {"x": NaN, "y": -Infinity, "z": 1e999, "x": 1, "u": "\\ud800"}}]'
    assert [fault.partition(": ")[2] for fault in faults_in(file("d.json", text))] == [
        "NaN is not a finite number.",
        "-Infinity is not a finite number.",
        "1e999 is not a finite number.",
        "'x' stands twice in the same object.",
        "the text holds half of a surrogate pair, which is no character.",
    ]


@settings(max_examples=200, deadline=None)
@given(st.text('[]{},:"\\ a1.-eEtrufalsn\n', max_size=12))
def test_json_is_what_the_standard_library_takes_for_it(text: str):
    from odibi_async.config.formats.json import read

    try:
        expected = json.loads(text)
    except ValueError:
        expected = ConfigError
    try:
        assert read(text, "").value == expected
    except ConfigError:
        assert expected is ConfigError


# -- YAML ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("on", "no", "yes", "off", "n", "y", "12:30", "1_000", "2013-01-01", "0b1", "+0o1")),
        *((f"'{text}'", text) for text in ("1", "true", "null", "")),
        *((text, None) for text in ("", "~", "null", "NULL")),
        *((text, True) for text in ("true", "True")),
        *(
            ("FALSE", False),
            ("0o14", 12),
            ("0x1F", 31),
            ("012", 12),
            ("-3", -3),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e3", 1000.0),
        ),
        *(("!!str 7", "7"), ('!!int "7"', 7), ("!!float 7", 7.0), ("! 7", "7"), ("!!null ''", None)),
        ("[a, {b: [c]}]", ["a", {"b": ["c"]}]),
        ("|\n    a\n    b", "a\nb\n"),
        ("{1: a, on: b, no: c}", {1: "a", "on": "b", "no": "c"}),
    ],
)
def test_yaml_has_the_meanings_of_version_1_2(file: Callable[..., Path], text: str, value: Any):
    (step,) = load_steps(file("d.yaml", f"- name: a\n  params:\n   x: {text}\n"))
    assert step.params == {"x": value}
    assert type(step.params["x"]) is type(value)


def test_aliases_stand_for_what_they_name(file: Callable[..., Path]):
    steps = load_steps(file("d.yml", "- &a {name: a, params: &p {x: [&one 1, *one]}}\n- name: b\n  params: *p\n"))
    assert [step.params for step in steps] == [{"x": [1, 1]}] * 2
    assert steps[0].params is not steps[1].params


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2", "2:1: 'a' appears twice in the same mapping."),
        ("a: .nan", "1:4: .nan is not a finite number."),
        ("a: -.INF", "1:4: -.INF is not a finite number."),
        ("a: 1e999", "1:4: 1e999 is not a finite number."),
        (f"a: {'1' * 5000}", "1:4: this number has too many digits."),
        (
            "a: !!python/name:os.system x",
            "1:4: tag 'tag:yaml.org,2002:python/name:os.system' is not one of YAML's own.",
        ),
        ("a: !env X", "1:4: tag '!env' is not one of YAML's own."),
        ("!!set {a}", "1:1: tag 'tag:yaml.org,2002:set' is not one of YAML's own."),
        ("a: !!int x", "1:4: 'x' is not what its tag says."),
        ("<<: {a: 1}", "1:1: '<<' merges mappings in YAML 1.1 only: put what the steps share under 'defaults'."),
        ("? [a]\n: b", "1:3: a list or a mapping cannot be a key."),
        ("a: 1\n---\nb: 1", "2:1: a second document begins here; a configuration is one document."),
        ("a: *b", "1:4: '*b' refers to nothing defined before it."),
        ("a: &a [*a]", "1:8: '*a' refers to nothing defined before it."),
        (BOMB, "5:45: aliases repeat more than 100,000 values."),
        ("[" * 100_000, "1:101: lists and mappings are nested more than 100 deep."),
        ("- " * 50_000, "1:201: lists and mappings are nested more than 100 deep."),
        ("a: b: c", "1:5: mapping values are not allowed in this context."),
        ("é: \x07", "1:4: control characters are not allowed."),
        ("a:\n\t- b", "2:1: a tab stands here: YAML is indented with spaces."),
        ("a: 1\nb: 'c\nd: 2\n", "2:4: while scanning a quoted scalar: found unexpected end of stream."),
        ("a: {b: 1\n\n", "1:4: while parsing a flow mapping: did not find expected ',' or '}'."),
    ],
)
def test_what_is_no_plain_yaml_is_told_with_its_place(file: Callable[..., Path], text: str, fault: str):
    began = perf_counter()
    assert faults_in(file("d.yaml", text))[0] == f"d.yaml:{fault}"
    assert perf_counter() - began < 1


def test_aliases_cannot_build_what_is_too_deep(file: Callable[..., Path]):
    deep = "".join(f"  b{i}: &b{i} {'[' * 50}{f'*b{i - 1}' if i else ''}{']' * 50}\n" for i in range(20))
    (fault,) = faults_in(file("d.yaml", f"- name: a\n  params:\n{deep.replace('  b', '   b')}"))
    assert fault == "d.yaml:3:4: step 'a': lists and mappings are nested more than 100 deep."


# -- TOML ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = ", "1: invalid value."),
        ("a = 1\na = 2", "2: cannot overwrite a value."),
        ("[a]\nb c", "2:3: expected '=' after a key in a key/value pair."),
        ("a = [1, {x = -inf}]", "1: a[1].x: -inf is not a finite number."),
        (f"\na = {'[' * 150}{']' * 150}", "2: a: arrays and tables are nested more than 100 deep."),
    ],
)
def test_what_is_no_plain_toml_is_told_with_its_place(file: Callable[..., Path], text: str, fault: str):
    assert faults_in(file("d.toml", text))[0] == f"d.toml:{fault}"


def test_toml_that_exhausts_its_parser_is_a_fault(file: Callable[..., Path]):
    assert "more than 100 deep" in faults_in(file("d.toml", "a = " + "[" * 5000))[0]
    assert "too many digits" in faults_in(file("d.toml", "a = " + "1" * 5000))[0]


# -- the rest ------------------------------------------------------------------------------------------


def test_pool_and_map_over_are_those_of_the_step():
    plain, mapped = load_steps([{"name": "a"}, {"name": "b", "pool": "db", "map_over": "url", "buffer": 2}])
    assert (plain.pool, plain.map_over, plain.buffer) == (None, None, None)
    assert (mapped.pool, mapped.map_over, mapped.buffer) == ("db", "url", 2)


def test_the_schema_for_editors_comes_from_the_same_model():
    schema = json_schema()
    step = schema["$defs"]["StepModel"]
    assert step["required"] == ["name"]
    assert step["additionalProperties"] is False
    assert set(step["properties"]) >= {field.name for field in dataclasses.fields(Step)}
    assert step["properties"]["engine"]["enum"] == ["pandas", "spark"]
    assert json.loads(json.dumps(schema)) == schema
    assert {"type": "array", "items": {"$ref": "#/$defs/StepModel"}} in schema["anyOf"]


def test_importing_the_package_loads_no_configuration_and_a_json_file_loads_no_yaml():
    code = (
        "import sys, odibi_async; print('odibi_async.config.loading' in sys.modules, 'pydantic' in sys.modules);"
        "from odibi_async.config import load_steps;"
        f"load_steps({str(GOLDEN / 'pipeline.json')!r}); print('yaml' in sys.modules, 'sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 4


# -- anything at all -----------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("${env:HOME_}")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(
    [
        *(field.name for field in dataclasses.fields(Step)),
        "enabled",
        "project",
        "steps",
        "defaults",
        "version",
        "schedule",
    ]
)
words = st.sampled_from(["transform", "sql", "api", "pandas", "a", "b", "OSError", "thread", "1", "{}", "true"])
entries = st.dictionaries(known | st.text(max_size=6), words | values, max_size=8)
documents = st.lists(entries | values, max_size=4) | st.dictionaries(
    known, st.lists(entries, max_size=3) | entries | values, max_size=5
)
fuzzed = settings(
    max_examples=60, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def checked(source: Any) -> None:
    """Loads and checks; whatever is wrong is one of our own errors."""
    try:
        Pipeline(load_steps(source))
    except (ConfigError, GraphError) as error:
        print(error)


@fuzzed
@given(documents)
def test_whatever_rows_hold_only_our_errors_come_out(document: Any):
    checked(document)


@fuzzed
@given(documents, st.sampled_from([".json", ".yaml"]), st.data())
def test_whatever_stands_in_a_file_only_our_errors_come_out(tmp_path: Path, document: Any, suffix: str, data: Any):
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(text)))
    inserted = data.draw(st.text("[]{}:,&*!|>'\"\\#\n -0.e", max_size=3))
    path = tmp_path / f"d{suffix}"
    path.write_text(text[:cut] + inserted + text[cut:], encoding="utf-8", errors="surrogatepass")
    checked(path)


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.sampled_from(config.SUFFIXES))
def test_whatever_bytes_a_file_has_only_our_errors_come_out(tmp_path: Path, content: bytes, suffix: str):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    checked(path)


@fuzzed
@given(st.data(), st.sampled_from(["pipeline.yaml", "pipeline.json", "pipeline.toml", "pipeline.csv"]))
def test_a_damaged_file_gives_only_our_errors(tmp_path: Path, data: Any, name: str):
    content = bytearray((GOLDEN / name).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"[", b"{", b'"', b"\n"])
        )
    path = tmp_path / name
    path.write_bytes(bytes(content))
    checked(path)


@fuzzed
@given(st.data())
def test_a_damaged_database_gives_only_our_errors(tmp_path: Path, data: Any):
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript((GOLDEN / "pipeline.sql").read_text())
        content = bytearray(db.serialize())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=30)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "d.db"
    path.write_bytes(bytes(content))
    checked(path)


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        (
            "a.yaml",
            "defaults: {layer: ingest}\nsteps:\n- {name: off, enabled: false}\n- name: a\n  inputs: {data: b}\n",
            ("5:18", "5:12", "4:3"),
        ),
        ("a.json", '[{"name": "a",\n"inputs": {"data": "b"}}]', ("2:20", "2:12", "1:2")),
        (
            "a.toml",
            '[[steps]]\nname = "a"\ninputs = { data = "b" }\n',
            ("3: steps[0].inputs.data",) * 2 + ("1: steps[0]",),
        ),
        ("a.csv", 'StepName,Inputs\na,"{""data"": ""b""}"\n', ("row 2, column Inputs",) * 2 + ("row 2",)),
    ],
)
def test_a_document_knows_where_the_entries_of_a_step_stand(
    tmp_path: Path, name: str, text: str, places: tuple[str, ...]
):
    path = tmp_path / name
    path.write_text(text)
    document = load_document(path)
    keys = ("inputs", "data")
    assert (document.place("a", keys), document.place("a", keys, of_key=True), document.place("a")) == places
    assert document.place("nobody") == ""


def test_what_a_step_leaves_to_the_defaults_stands_there(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("defaults: {layer: ingest, engine: pandas}\nsteps:\n- {name: a, engine: pandas}\n")
    document = load_document(path)
    assert document.place("a", ("layer",)) == "1:19"
    assert document.place("a", ("engine",)) == "3:21"
    assert document.place("a", ("value",)) == "3:3"


def test_a_document_knows_its_secrets_and_does_not_show_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHORT", "abc")
    monkeypatch.setenv("LONG", "abcdef")
    monkeypatch.setenv("EMPTY", "")
    document = load_document([{"name": "a", "value": "${env:SHORT}${env:LONG}${env:EMPTY}"}])
    assert document.secrets == {"abcdef", "abc", ""}
    assert "abc" not in repr(document)


def test_a_pool_may_say_how_many_units_a_step_takes(tmp_path: Path):
    path = tmp_path / "odibi.yaml"
    path.write_text("- {name: a, type: sql, value: SELECT 1 AS n, pool: {gb: 4, licence: 1}}\n")
    [made] = load_steps(path)
    assert made.pool == {"gb": 4, "licence": 1}
    path.write_text("- {name: a, type: sql, value: SELECT 1 AS n, pool: {gb: 0}}\n")
    with pytest.raises(ConfigError, match=r"pool\.gb: a number above 0 is needed, not 0"):
        load_steps(path)
    path.write_text("- {name: a, type: sql, value: SELECT 1 AS n, pool: [gb]}\n")
    with pytest.raises(ConfigError, match="pool: a text or a mapping of texts to whole numbers is needed, not a list"):
        load_steps(path)
