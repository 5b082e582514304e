"""OA33x: what a service of pipelines refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

_APP: Final = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from odibi_async import Pipeline, Runner
from odibi_async.integrations.fastapi import Served, ServiceLimits, pipeline_router, raise_for_problem

async def double(n: int = 1) -> int:
    return 2 * n

runner = Runner()
app = FastAPI(lifespan=runner.lifespan)
pipelines = {"double": Pipeline([double])}
"""


def _asked(request: str, options: str = "") -> str:
    """An example of a request."""
    return (
        f"{_APP}app.include_router(pipeline_router(runner, pipelines, auth=None{options}))\n"
        f"with TestClient(app) as client:\n    raise_for_problem(client.{request})"
    )


_BEGUN: Final = 'post("/double/runs?wait=9", json={"inputs": {"n": 2}})'

SERVICE: Final[Mapping[str, Code]] = {
    "OA331": Code(
        title="a pipeline cannot be served so",
        text="Its name does not fit into a path, or means something else there, or it needs an input that JSON cannot "
        "give: give that yourself, with Served(pipeline, given={...}).",
        wrong=f'{_APP}pipeline_router(runner, {{"runs": pipelines["double"]}}, auth=None)',
        right=f"{_APP}pipeline_router(runner, pipelines, auth=None)",
        form="python",
    ),
    "OA332": Code(
        title="a request is not what the pipeline takes",
        text="The problem lists each member that is wrong. GET /{pipeline} tells what the pipeline takes.",
        wrong=_asked('post("/double/runs", json={"inputs": {"n": "two"}})'),
        right=_asked(_BEGUN),
        form="python",
    ),
    "OA333": Code(
        title="the service has enough to do, or is being stopped",
        text="Try again after the seconds that Retry-After says. ServiceLimits says how much the service takes on.",
        wrong=_asked(_BEGUN, ", limits=ServiceLimits(runs=0)"),
        right=_asked(_BEGUN, ", limits=ServiceLimits(runs=1)"),
        form="python",
    ),
    "OA334": Code(
        title="a run does not stand as it would have to",
        text="What is over cannot be cancelled, what runs or has succeeded cannot be resumed, and a pipeline that "
        "forbids overlap has one run at a time. Runs can be resumed where the runner has a journal.",
        wrong=_asked(f"post(client.{_BEGUN}.json()['links']['cancel'])"),
        right=_asked(f"get(client.{_BEGUN}.json()['links']['self'])"),
        form="python",
    ),
    "OA335": Code(
        title="a request is not let in",
        text="It is too long, its body is no application/json, or a page of another site sent it: name that site with "
        "origins=.",
        wrong=_asked('post("/double/runs?wait=9", headers={"Origin": "https://example.org"})'),
        right=_asked(
            'post("/double/runs?wait=9", headers={"Origin": "https://example.org"})',
            ', origins=["https://example.org"]',
        ),
        form="python",
    ),
    "OA336": Code(
        title="a dataset cannot be sent so",
        text="Frames are sent as JSON, CSV, Parquet or Arrow, all else as JSON, and of a large one only parts, with "
        "offset and limit.",
        wrong=_asked(f"get(client.{_BEGUN}.json()['links']['results'] + '/double?format=csv')"),
        right=_asked(f"get(client.{_BEGUN}.json()['links']['results'] + '/double')"),
        form="python",
    ),
}
