"""The OpenAPI document of a service is complete, and what schemathesis makes of it is answered as it says."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings

from odibi_async import Pipeline, Runner
from odibi_async.integrations.fastapi import ServiceLimits, pipeline_router
from tests.serving import BAD, SUM, app_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


async def mixed(
    colour: Colour,
    numbers: list[int],
    by_name: dict[str, float],
    mode: Literal["a", "b"] = "a",
    limit: int | None = None,
) -> int:
    return len(numbers) + len(by_name)


def app() -> FastAPI:
    runner = Runner()
    made = FastAPI(lifespan=runner.lifespan, title="Service", version="1")
    offers = {"sum": SUM, "bad": BAD, "mixed": Pipeline([mixed], ["colour", "numbers", "by_name"])}
    limits = ServiceLimits(wait=2.0, runs=20)
    made.include_router(pipeline_router(runner, offers, auth=None, story=True, limits=limits), prefix="/p")
    return made


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_names_its_statuses(document: dict[str, Any]):
    found = {name: set(operation["responses"]) for name, operation in operations(document)}
    assert len(found) == 3 * 3 + 9 + 2
    assert found["POST /p/sum/runs"] == {"200", "202", "403", "409", "413", "415", "422", "429", "503"}
    assert found["GET /p/runs/{run_id}/results/{dataset}"] >= {"200", "404", "406", "410", "413", "422", "429"}
    assert found["POST /p/runs/{run_id}/resume"] >= {"202", "403", "404", "409", "422", "429"}
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert set(answer["content"]) == {"application/problem+json"}, (name, status)
        assert operation["summary"], name


def test_refusals_are_named_where_somebody_guards_the_door():
    guarded = app_of(Path(), offers={"sum": SUM}, auth=lambda: None).openapi()
    assert all({"401", "403"} <= set(operation["responses"]) for _, operation in operations(guarded))


def test_a_request_is_described_by_the_annotations_of_the_pipeline(document: dict[str, Any]):
    body = document["paths"]["/p/mixed/runs"]["post"]["requestBody"]
    inputs = body["content"]["application/json"]["schema"]["properties"]["inputs"]
    assert inputs["required"] == ["colour", "numbers", "by_name"]
    assert inputs["properties"]["colour"]["enum"] == ["red", "blue"]
    assert inputs["properties"]["mode"]["enum"] == ["a", "b"]
    assert inputs["properties"]["mode"]["default"] == "a"
    assert inputs["additionalProperties"] is False


schema = schemathesis.openapi.from_asgi("/openapi.json", app())
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.negative_data_rejection,
]


@pytest.mark.foreign_loop  # the client of schemathesis has a loop of its own
@schema.parametrize()
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_anybody_may_send_is_answered_as_the_document_says(case: Any):
    case.call_and_validate(checks=CHECKS)
