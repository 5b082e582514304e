"""Runs as events of OpenLineage."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from odibi_async import Retry, RunError, Runner, Secret, run_pipeline, step
from odibi_async.errors import OptionError
from odibi_async.events import Event
from odibi_async.observers.openlineage import OpenLineage

TEXT = {"type": "string"}
URI = {"type": "string", "format": "uri"}
FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {
            "_producer": URI,
            "_schemaURL": URI,
        },
    },
}
DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {
            "namespace": TEXT,
            "name": TEXT,
            "facets": FACETS,
            "outputFacets": FACETS,
        },
        "additionalProperties": False,
    },
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": URI,
        "schemaURL": URI,
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
            "additionalProperties": False,
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": TEXT, "name": TEXT, "facets": FACETS},
            "additionalProperties": False,
        },
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
    "additionalProperties": False,
}
"""What RunEvent is in https://openlineage.io/spec/2-0-2/OpenLineage.json, without more fields than it names."""


class Heard(list[dict[str, Any]]):
    """Events that were emitted, each checked against the schema."""

    def __call__(self, event: dict[str, Any]) -> None:
        jsonschema.validate(event, RUN_EVENT)
        uuid.UUID(event["run"]["runId"])
        self.append(json.loads(json.dumps(event, allow_nan=False)))

    @property
    def story(self) -> list[tuple[str, str]]:
        return [(event["eventType"], event["job"]["name"]) for event in self]


@pytest.fixture
def emitted() -> Heard:
    return Heard()


def names(datasets: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in datasets]


def clean(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(total=orders["price"] * 2).drop(columns="price")


async def count(clean: pd.DataFrame) -> int:
    return len(clean)


ORDERS = pd.DataFrame({"id": [1, 2], "price": [1.5, 2.5], "day": pd.to_datetime(["2013-01-01"] * 2)})


async def test_a_run_is_a_job_with_one_a_step_in_it(emitted: Heard):
    result = await run_pipeline([clean, count], {"orders": ORDERS}, observers=[OpenLineage(emitted, job="shop")])
    assert emitted.story == [
        ("START", "shop"),
        ("START", "shop.clean"),
        ("COMPLETE", "shop.clean"),
        ("START", "shop.count"),
        ("COMPLETE", "shop.count"),
        ("COMPLETE", "shop"),
    ]
    start, _, cleaned, _, counted, end = emitted
    assert start["run"]["runId"] == end["run"]["runId"]
    assert len({event["run"]["runId"] for event in emitted}) == 3
    parent = cleaned["run"]["facets"]["parent"]
    assert (parent["run"], parent["job"]) == (
        {"runId": start["run"]["runId"]},
        {"namespace": "odibi_async", "name": "shop"},
    )
    assert names(start["inputs"]) == names(end["inputs"]) == names(cleaned["inputs"]) == ["shop.orders"]
    assert names(cleaned["outputs"]) == names(counted["inputs"]) == ["shop.clean"]
    assert cleaned["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert names(end["outputs"]) == ["shop.clean", "shop.count"]
    assert [event["eventTime"] for event in emitted] == sorted(event["eventTime"] for event in emitted)
    assert result.started_at.isoformat()[:10] == start["eventTime"][:10]


async def test_the_end_of_a_run_tells_the_columns_and_their_types(emitted: Heard):
    await run_pipeline([clean, count], {"orders": ORDERS}, observers=[OpenLineage(emitted)])
    [orders] = emitted[-1]["inputs"]
    made, counted = emitted[-1]["outputs"]
    assert [(each["name"], each["type"]) for each in orders["facets"]["schema"]["fields"]] == [
        ("id", "int64"),
        ("price", "float64"),
        ("day", str(ORDERS["day"].dtype)),
    ]
    assert [each["name"] for each in made["facets"]["schema"]["fields"]] == ["id", "day", "total"]
    assert "columnLineage" not in made["facets"]
    assert "facets" not in counted


async def test_columns_of_the_same_name_are_taken_for_the_source_when_asked_to(emitted: Heard):
    await run_pipeline([clean], {"orders": ORDERS}, observers=[OpenLineage(emitted, columns=True)])
    facet = emitted[-1]["outputs"][0]["facets"]["columnLineage"]
    assert list(facet["fields"]) == ["id", "day"]
    [source] = facet["fields"]["id"]["inputFields"]
    assert (source["name"], source["field"]) == ("pipeline.orders", "id")
    assert source["transformations"][0]["type"] == "INDIRECT"


async def test_failures_say_why_and_what_never_ran_is_not_told_of(emitted: Heard):
    def fails() -> None:
        raise ValueError("no luck")

    steps = [fails, step(lambda fails: 1, name="skipped")]
    await run_pipeline(steps, observers=[OpenLineage(emitted)], on_error="continue")
    assert emitted.story == [
        ("START", "pipeline"),
        ("START", "pipeline.fails"),
        ("FAIL", "pipeline.fails"),
        ("FAIL", "pipeline"),
    ]
    blamed = [event["run"]["facets"]["errorMessage"]["message"] for event in emitted[2:]]
    assert blamed == ["no luck", "failed: fails"]
    assert emitted[2]["outputs"] == []


async def test_cancelled_runs_are_aborted(emitted: Heard):
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with Runner(observers=[OpenLineage(emitted)]) as runner:
        run = await runner.start([hangs, step(lambda hangs: 1, name="after")])
        await begun.wait()
        await run.cancel()
    assert emitted.story[2:] == [("ABORT", "pipeline.hangs"), ("ABORT", "pipeline")]


async def test_what_came_from_the_cache_is_complete(emitted: Heard, tmp_path: Path):
    for _ in range(2):
        emitted.clear()
        await run_pipeline([clean], {"orders": ORDERS}, observers=[OpenLineage(emitted)], cache=tmp_path)
    assert emitted.story == [("START", "pipeline"), ("COMPLETE", "pipeline.clean"), ("COMPLETE", "pipeline")]
    assert names(emitted[1]["outputs"]) == ["pipeline.clean"]


async def test_secrets_do_not_come_into_an_event(emitted: Heard):
    def fails(key: Secret, token: Secret, frame: pd.DataFrame) -> None:
        raise OSError(f"401 for {key.reveal()} and {token.reveal()} at https://me:other@host")

    retry = Retry(attempts=2, wait=0.0, jitter=False)
    with pytest.raises(RunError):
        await run_pipeline(
            [step(fails, params={"key": Secret("s3cret")}, retry=retry)],
            {"token": Secret("hunter2"), "frame": pd.DataFrame({"hunter2": [1]})},
            observers=[OpenLineage(emitted)],
        )
    text = json.dumps(emitted)
    assert "401 for **********" in text
    assert not any(secret in text for secret in ("s3cret", "hunter2", "other@"))


async def test_it_ignores_runs_whose_beginning_it_missed(emitted: Heard):
    missed: list[Event] = []
    lineage = OpenLineage(emitted)
    await run_pipeline([step(lambda: 1, name="s")], observers=[missed.append, lineage])
    emitted.clear()
    lineage(missed[1])
    assert emitted == []
    assert lineage._runs == {}


@pytest.mark.parametrize("emit", [None, "http://marquez", asyncio.sleep])
def test_what_cannot_take_an_event_is_refused(emit: Any):
    with pytest.raises(OptionError, match="a plain callable that takes an event is needed"):
        OpenLineage(emit)
