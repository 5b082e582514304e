"""A service of pipelines on a real server: what its routes answer, and what they refuse."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from odibi_async import Pipeline, Retry, Runner, Secret, step
from odibi_async.integrations.fastapi import (
    Served,
    ServiceError,
    ServiceLimits,
    ServiceProblem,
    as_problem,
    pipeline_router,
    raise_for_problem,
)
from tests.serving import BAD, JSON, SUM, TOKEN, Flag, app_of, require_token, served, slow, until


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with served(app_of(tmp_path, story=True)) as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """What a problem document says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["title"]
    assert said["detail"]
    assert code is None or said["code"] == code
    return said


# -- pipelines -----------------------------------------------------------------------------------------


async def test_pipelines_are_listed_and_described(client: httpx.AsyncClient):
    listed = (await client.get("/p/pipelines")).json()["pipelines"]
    assert [each["name"] for each in listed] == ["sum", "bad", "slow", "alone"]
    said = (await client.get(listed[0]["links"]["self"])).json()
    assert said["inputs"] == [
        {"name": "n", "type": "int", "required": True, "schema": {"type": "integer"}},
        {
            "name": "label",
            "type": "str",
            "required": False,
            "default": "x",
            "schema": {"type": "string", "default": "x"},
        },
    ]
    assert said["schema"]["required"] == ["n"]
    assert said["outputs"] == ["total"]
    assert said["targets"] == ["load", "total"]
    assert said["graph"]["steps"][1] == {"name": "total", "layer": "transform", "kind": "step", "needs": ["load"]}


async def test_inputs_that_the_service_gives_are_not_asked_for(client: httpx.AsyncClient):
    said = (await client.get("/p/slow")).json()
    assert [each["name"] for each in said["inputs"]] == ["n"]
    answer = await client.post("/p/slow/runs", json={"inputs": {"n": 1, "folder": "/etc"}})
    assert problem(answer, 422)["errors"] == [{"field": "inputs.folder", "message": "Extra inputs are not permitted"}]


async def test_a_graph_is_drawn_without_scripts(client: httpx.AsyncClient):
    answer = await client.get("/p/sum/graph.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert 'data-name="load"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_live_page_is_served_with_its_policy(client: httpx.AsyncClient):
    answer = await client.get("/p/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


# -- runs ----------------------------------------------------------------------------------------------


async def test_a_run_is_accepted_and_can_be_followed_to_its_end(client: httpx.AsyncClient):
    answer = await client.post("/p/sum/runs", json={"inputs": {"n": 4}})
    assert answer.status_code == 202
    said = answer.json()
    assert answer.headers["location"] == said["links"]["self"] == f"/p/runs/{said['id']}"
    assert answer.headers["retry-after"]
    run = await until(client, said["links"]["self"], "succeeded")
    assert run["inputs"] == {"n": 4}
    assert [(each["name"], each["status"], each["rows"]) for each in run["steps"]] == [
        ("load", "succeeded", 4),
        ("total", "succeeded", None),
    ]
    assert run["finished_at"] >= run["started_at"]


async def test_a_request_may_wait_for_the_end(client: httpx.AsyncClient):
    answer = await client.post("/p/sum/runs?wait=30", json={"inputs": {"n": 4}})
    assert answer.status_code == 200
    assert answer.json()["outputs"] == {"total": 6}
    assert answer.json()["error"] is None


async def test_a_failed_run_that_was_waited_for_is_an_answer_as_well(client: httpx.AsyncClient):
    answer = await client.post("/p/bad/runs?wait=30", json={"inputs": {"n": 4}})
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == "Step 'boom' failed: ValueError: no <b>6</b>"
    run = (await client.get(answer.json()["links"]["self"])).json()
    assert run["steps"][2]["error"] == "ValueError: no <b>6</b>"


async def test_a_request_that_waits_in_vain_gets_the_links(client: httpx.AsyncClient, tmp_path: Path):
    answer = await client.post("/p/slow/runs?wait=0.05", json={"inputs": {"n": 1}})
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    await Flag(tmp_path).raise_()
    assert (await until(client, answer.json()["links"]["self"], "succeeded"))["error"] is None


async def test_targets_choose_what_runs_and_what_is_answered(client: httpx.AsyncClient):
    answer = await client.post("/p/sum/runs?wait=30", json={"inputs": {"n": 2}, "targets": ["load"]})
    assert answer.json()["outputs"] == {"load": [{"a": 0, "b": "x"}, {"a": 1, "b": "x"}]}
    run = (await client.get(answer.json()["links"]["self"])).json()
    assert [each["name"] for each in run["steps"]] == ["load"]


async def test_a_run_ends_at_the_deadline_of_its_request(client: httpx.AsyncClient):
    answer = await client.post("/p/slow/runs?wait=30", json={"inputs": {"n": 1}, "timeout_s": 0.05})
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == "The run did not end in its time."


async def test_a_pipeline_s_own_deadline_bounds_that_of_a_request(tmp_path: Path):
    async with served(app_of(tmp_path, offers={"slow": slow(tmp_path, timeout=0.05)})) as client:
        answer = await client.post("/p/slow/runs", json={"inputs": {"n": 1}, "timeout_s": 1})
        assert problem(answer, 422)["errors"][0]["field"] == "timeout_s"
        answer = await client.post("/p/slow/runs?wait=30", json={"inputs": {"n": 1}})
        assert answer.json()["status"] == "failed"


async def test_runs_are_listed_page_by_page(client: httpx.AsyncClient):
    ids = [(await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": n}})).json()["id"] for n in range(5)]
    await client.post("/p/bad/runs?wait=9", json={"inputs": {"n": 1}})
    found, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"/p/runs?pipeline=sum&limit=2{cursor}")).json()
        found += [each["id"] for each in page["runs"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert found == ids[::-1]
    failed = (await client.get("/p/runs?status=failed")).json()["runs"]
    assert [each["pipeline"] for each in failed] == ["bad"]
    assert (await client.get("/p/runs?pipeline=nothing")).json() == {"runs": [], "next": None}


async def test_a_run_is_cancelled(client: httpx.AsyncClient, tmp_path: Path):
    run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
    await Flag(tmp_path).until_called("held")
    assert (await client.post(run["links"]["cancel"])).status_code == 202
    assert (await until(client, run["links"]["self"], "cancelled"))["steps"][1]["status"] == "cancelled"
    problem(await client.post(run["links"]["cancel"]), 409, "OA334")
    problem(await client.post(run["links"]["resume"]), 409, "OA334")  # there is no journal


async def test_a_pipeline_that_forbids_overlap_has_one_run_at_a_time(client: httpx.AsyncClient, tmp_path: Path):
    run = (await client.post("/p/alone/runs", json={"inputs": {"n": 1}})).json()
    problem(await client.post("/p/alone/runs", json={"inputs": {"n": 1}}), 409, "OA334")
    await Flag(tmp_path).raise_()
    await until(client, run["links"]["self"], "succeeded")
    assert (await client.post("/p/alone/runs?wait=30", json={"inputs": {"n": 1}})).status_code == 200


@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("name", ["sum", "alone"])
async def test_a_runner_that_was_closed_begins_nothing(tmp_path: Path, name: str, has_journal: bool):
    runner = Runner(journal=tmp_path / "journal") if has_journal else Runner()
    async with served(app_of(tmp_path, runner=runner)) as client:
        await runner.close()
        for _ in range(2):
            problem(await client.post(f"/p/{name}/runs", json={"inputs": {"n": 1}}), 503, "OA333")


async def test_more_runs_than_the_service_takes_are_refused(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(runs=2))) as client:
        runs = [await client.post("/p/slow/runs", json={"inputs": {"n": 1}}) for _ in range(3)]
        assert [each.status_code for each in runs] == [202, 202, 429]
        assert problem(runs[2], 429, "OA333")
        assert runs[2].headers["retry-after"]
        await Flag(tmp_path).raise_()
        await until(client, runs[0].json()["links"]["self"], "succeeded")
        await until(client, runs[1].json()["links"]["self"], "succeeded")
        assert (await client.post("/p/slow/runs?wait=9", json={"inputs": {"n": 1}})).status_code == 200


async def test_runs_that_are_over_leave_the_table(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(kept=2))) as client:
        runs = [(await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": n}})).json() for n in range(4)]
        problem(await client.get(runs[0]["links"]["self"]), 404, "OA421")
        assert [each["id"] for each in (await client.get("/p/runs")).json()["runs"]] == [
            runs[3]["id"],
            runs[2]["id"],
        ]


async def test_the_data_of_runs_that_are_over_is_bounded(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(kept_bytes=100_000))) as client:
        asked = {"inputs": {"n": 5_000}, "targets": ["load"]}
        runs = [(await client.post("/p/sum/runs?wait=9", json=asked)).json() for _ in range(2)]
        problem(await client.get(runs[0]["links"]["results"] + "/load"), 404)
        assert (await client.get(runs[0]["links"]["self"])).json()["status"] == "succeeded"
        assert (await client.get(runs[1]["links"]["results"] + "/load")).status_code == 200


async def test_a_key_stands_for_one_run(client: httpx.AsyncClient):
    key = {"Idempotency-Key": "a"}
    asked = {"inputs": {"n": 3}}
    answers = await asyncio.gather(*[client.post("/p/sum/runs", json=asked, headers=key) for _ in range(10)])
    assert len({each.json()["id"] for each in answers}) == 1
    again = await client.post("/p/sum/runs?wait=9", json=asked, headers=key)
    assert again.json()["id"] == answers[0].json()["id"]
    assert again.json()["outputs"] == {"total": 3}
    problem(await client.post("/p/sum/runs", json={"inputs": {"n": 4}}, headers=key), 422, "OA332")
    other = await client.post("/p/bad/runs", json=asked, headers=key)  # a key belongs to a pipeline
    assert other.json()["id"] != again.json()["id"]
    assert len((await client.get("/p/runs")).json()["runs"]) == 2


async def test_the_key_of_a_run_that_did_not_begin_is_free(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(runs=1))) as client:
        running = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        key = {"Idempotency-Key": "a"}
        problem(await client.post("/p/sum/runs", json={"inputs": {"n": 1}}, headers=key), 429)
        await Flag(tmp_path).raise_()
        await until(client, running["links"]["self"], "succeeded")
        assert (await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 1}}, headers=key)).status_code == 200


# -- what is refused -----------------------------------------------------------------------------------

WRONG: list[tuple[Any, str]] = [
    ({}, "inputs"),
    ({"inputs": {}}, "inputs.n"),
    ({"inputs": {"n": "5"}}, "inputs.n"),
    ({"inputs": {"n": 1.5}}, "inputs.n"),
    ({"inputs": {"n": True}}, "inputs.n"),
    ({"inputs": {"n": None}}, "inputs.n"),
    ({"inputs": {"n": [1]}}, "inputs.n"),
    ({"inputs": {"n": 1, "label": 5}}, "inputs.label"),
    ({"inputs": {"n": 1, "<b>": 5}}, "inputs.<b>"),
    ({"inputs": [], "targets": None}, "inputs"),
    ({"inputs": {"n": 1}, "steps": ["os.system"]}, "steps"),
    ({"inputs": {"n": 1}, "targets": []}, "targets"),
    ({"inputs": {"n": 1}, "targets": ["nothing"]}, "targets.0"),
    ({"inputs": {"n": 1}, "targets": "load"}, "targets"),
    ({"inputs": {"n": 1}, "timeout_s": 0}, "timeout_s"),
    ({"inputs": {"n": 1}, "timeout_s": "1"}, "timeout_s"),
    ([1], ""),
    ("x", ""),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=str)
async def test_a_body_that_is_not_what_the_pipeline_takes_is_refused(client: httpx.AsyncClient, body: Any, field: str):
    said = problem(await client.post("/p/sum/runs", json=body), 422, "OA332")
    assert said["errors"][0]["field"] == field


NO_JSON = [
    b"{",
    b"\xff",
    b'{"inputs": {"n": NaN}}',
    b'{"inputs": {"n": 1}} x',
    b"[" * 100_000,
    b'{"inputs": {"n": 1e999}}',
]


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes):
    problem(await client.post("/p/sum/runs", content=body, headers=JSON), 422, "OA332")


TOO_LARGE = [b"1e400", b"-1E+0400", b"[[1.5e309]]", b"9" * 310 + b".0", b"9" * 300 + b"e20", b'{"a": 1e999}']


@pytest.mark.parametrize("number", TOO_LARGE, ids=range(len(TOO_LARGE)))
async def test_a_number_that_is_too_large_is_refused_and_not_made_infinite(number: bytes):
    async def same(x: Any) -> Any:
        return x

    async with served(app_of(Path(), offers={"same": Pipeline([same], ["x"])})) as client:
        body = b'{"inputs": {"x": %b}}' % number
        problem(await client.post("/p/same/runs", content=body, headers=JSON), 422, "OA332")
        for right in (1.7e308, 1e-400, "1e400 NaN", 10**400):
            answer = await client.post("/p/same/runs?wait=9", json={"inputs": {"x": right}})
            assert answer.json()["outputs"] == {"same": right}


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=nan", "wait=1e9", "cancel_on_disconnect=maybe"])
async def test_a_query_that_makes_no_sense_is_refused(client: httpx.AsyncClient, query: str):
    problem(await client.post(f"/p/sum/runs?{query}", json={"inputs": {"n": 1}}), 422, "OA332")


async def test_a_body_that_is_too_long_is_refused_with_and_without_its_length(tmp_path: Path):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000

    async with served(app_of(tmp_path, limits=ServiceLimits(body=10_000))) as client:
        problem(await client.post("/p/sum/runs", content=b" " * 20_000, headers=JSON), 413, "OA335")
        problem(await client.post("/p/sum/runs", content=pieces(), headers=JSON), 413, "OA335")
        problem(await client.post("/p/runs/x/cancel", content=pieces(), headers=JSON), 413, "OA335")


async def test_a_request_that_is_cut_off_is_no_fault_of_the_service(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
):
    head = b"POST /p/%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    for path in (b"sum/runs", b"runs/x/cancel", b"runs/x/resume"):
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(head % path)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.1)
    assert (await client.get("/p/runs")).json()["runs"] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_is_taken(client: httpx.AsyncClient, kind: str):
    answer = await client.post("/p/sum/runs", content=b'{"inputs": {"n": 1}}', headers={"Content-Type": kind})
    problem(answer, 415, "OA335")


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_pages_of_other_sites_change_nothing(client: httpx.AsyncClient, headers: dict[str, str], tmp_path: Path):
    run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
    problem(await client.post("/p/sum/runs", json={"inputs": {"n": 1}}, headers=headers), 403, "OA335")
    problem(await client.post(run["links"]["cancel"], headers=headers), 403, "OA335")
    problem(await client.post(run["links"]["resume"], headers=headers), 403, "OA335")
    await Flag(tmp_path).raise_()
    assert (await until(client, run["links"]["self"], "succeeded"))["status"] == "succeeded"


async def test_own_pages_and_those_that_are_named_may_begin_runs(tmp_path: Path):
    async with served(app_of(tmp_path, origins=["https://friend.example"])) as client:
        host = str(client.base_url).rstrip("/")
        for headers in (
            {"Origin": host},
            {"Origin": host, "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"},
        ):
            answer = await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 1}}, headers=headers)
            assert answer.status_code == 200, headers


TRICKS = [
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "a%00b",
    "a%0d%0ab",
    "%F0%9F%92%A5",
    "x" * 500,
    "' OR 1=1 --",
    "<script>",
]


@pytest.mark.parametrize("name", TRICKS)
async def test_ids_that_are_none_are_not_found(client: httpx.AsyncClient, name: str):
    for path in (f"/p/runs/{name}", f"/p/runs/{name}/events", f"/p/runs/{name}/results/x", f"/p/runs/{name}/story"):
        answer = await client.get(path)
        assert answer.status_code in (404, 405), path
    for verb in ("cancel", "resume"):
        assert (await client.post(f"/p/runs/{name}/{verb}")).status_code in (404, 409)


async def test_datasets_that_are_none_are_not_found(client: httpx.AsyncClient):
    run = (await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 1}})).json()
    for name in ("nothing", "..%2f..%2fetc%2fpasswd", "load", "a/b", "%00"):
        problem(await client.get(f"{run['links']['results']}/{name}"), 404, "OA421")


async def test_every_route_asks_who_is_there(tmp_path: Path):
    app = app_of(tmp_path, auth=require_token, story=True)
    router = pipeline_router(Runner(), {"sum": SUM, "bad": BAD}, auth=require_token, story=True)
    async with served(app) as client:
        run = (await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 1}}, headers=TOKEN)).json()
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        assert len(routes) == 2 * 3 + 8 + 1 + 2
        for route in routes:
            path = "/p" + route.path.replace("{run_id:odibi_name}", run["id"]).replace("{dataset:odibi_name}", "total")
            for method in route.methods:
                answer = await client.request(method, path, content=b"{", headers={"Content-Type": "text/x"})
                problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert (await client.request(method, path, headers=TOKEN)).status_code != 401


@pytest.mark.parametrize("status", [401, 403, 418, 440, 599])
async def test_who_is_not_let_in_is_told_with_the_status_that_auth_says(status: int):
    def closed() -> None:
        raise HTTPException(status, "Not now.")

    async with served(app_of(Path(), offers={"sum": SUM}, auth=closed)) as client:
        for method, path in (("GET", "/p/"), ("GET", "/p/runs"), ("POST", "/p/sum/runs")):
            assert problem(await client.request(method, path), status)["detail"] == "Not now."


async def test_auth_is_to_be_said():
    with pytest.raises(TypeError, match="auth"):
        pipeline_router(Runner(), {"sum": SUM})  # type: ignore[call-arg]
    with pytest.raises(ServiceError, match="dependency"):
        pipeline_router(Runner(), {"sum": SUM}, auth="me")  # type: ignore[arg-type]


async def test_paths_outside_of_the_router_can_be_problems_too(tmp_path: Path):
    app = app_of(tmp_path)
    app.add_exception_handler(404, as_problem)
    app.add_exception_handler(HTTPException, as_problem)
    async with served(app) as client:
        problem(await client.get("/nowhere"), 404)
        problem(await client.delete("/p/runs"), 405)


async def test_clients_can_raise_problems(client: httpx.AsyncClient):
    raise_for_problem(await client.get("/p/runs"))
    with pytest.raises(ServiceProblem, match="There is no run 'x'") as caught:
        raise_for_problem(await client.get("/p/runs/x"))
    assert caught.value.code == "OA421"
    with pytest.raises(httpx.HTTPStatusError):
        raise_for_problem(await client.get("/nowhere"))


# -- what cannot be served -----------------------------------------------------------------------------


class Machine:
    pass


def of_a_machine(machine: Machine) -> int:
    return 1


def of_a_file(file: Path) -> int:
    return 1


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"runs": SUM}, "cannot be called 'runs'"),
    ({"a/b": SUM}, "a name of letters"),
    ({"": SUM}, "a name of letters"),
    ({"x" * 101: SUM}, "a name of letters"),
    ({"<b>": SUM}, "a name of letters"),
    ({"sum": [1]}, "is no Pipeline"),
    ({"machine": Pipeline([of_a_machine], ["machine"])}, "needs the input 'machine'"),
    ({"file": Pipeline([of_a_file], ["file"])}, "needs the input 'file'"),
    ({"sum": Served(SUM, given={"nothing": 1})}, "no dataset 'nothing'"),
    ({"sum": Served(SUM, overlap="queue")}, "overlap"),  # type: ignore[arg-type]
    ({"sum": Served(SUM, options={"run_id": "x"})}, "run_id"),
]


@pytest.mark.parametrize(("offers", "message"), MISTAKES, ids=[each[1] for each in MISTAKES])
async def test_what_cannot_be_served_is_said_when_the_router_is_made(offers: dict[str, Any], message: str):
    with pytest.raises(ServiceError, match=message):
        pipeline_router(Runner(), offers, auth=None)


async def test_the_routes_hide_no_other_path_of_the_app():
    runner = Runner()
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, {"sum": SUM}, auth=None, page=False))

    @app.get("/ping")
    async def ping() -> str:
        return "pong"

    async with served(app) as client:
        assert (await client.get("/ping")).json() == "pong"


@pytest.mark.parametrize(
    ("root", "asked", "told"), [("/pre", "/p", "/pre/p"), ("/pre", "/pre/p", "/pre/p"), ("/p", "/pq", "/p/pq")]
)
async def test_links_have_the_prefix_that_a_proxy_has_cut_off(root: str, asked: str, told: str):
    class Cut:
        """What a server does that is told of a prefix: some give it back to the path, some do not."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "root_path": root} if scope["type"] == "http" else scope, receive, send)

    runner = Runner()
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, {"sum": SUM}, auth=None), prefix=asked.removeprefix("/pre"))
    async with served(Cut(app)) as client:
        run = (await client.post(f"{asked}/sum/runs?wait=9", json={"inputs": {"n": 1}})).json()
        assert run["links"]["self"] == f"{told}/runs/{run['id']}"
        listed = (await client.get(f"{asked}/pipelines")).json()["pipelines"]
        assert listed[0]["links"]["self"] == f"{told}/sum"
        assert (await client.get(f"{asked}/runs/{run['id']}")).json()["links"] == run["links"]


# -- inputs --------------------------------------------------------------------------------------------


def typed(day: date, names: set[str], secret: Secret, rows: pd.DataFrame, maybe: float | None = None) -> dict[str, Any]:
    return {
        "day": f"{day:%A}",
        "names": sorted(names),
        "secret": secret.reveal(),
        "rows": int(rows["a"].sum()),
        "maybe": maybe,
    }


async def test_inputs_become_what_their_annotations_say():
    pipeline = Pipeline([step(typed, name="odd name")], ["day", "names", "secret", "rows"])
    asked = {"day": "2026-11-28", "names": ["b", "a"], "secret": "hush hush", "rows": [{"a": 1}, {"a": 2}]}
    app = app_of(Path(), offers={"typed": pipeline})
    async with served(app) as client:
        answer = await client.post("/p/typed/runs?wait=9", json={"inputs": asked})
        made = {"day": "Saturday", "names": ["a", "b"], "secret": "hush hush", "rows": 3, "maybe": None}
        assert answer.json()["outputs"] == {"odd name": made}
        run = (await client.get(answer.json()["links"]["self"])).json()
        assert "secret" not in run["inputs"]
        wrong = {**asked, "day": "today", "rows": [1]}
        said = problem(await client.post("/p/typed/runs", json={"inputs": wrong}), 422)
        assert {each["field"] for each in said["errors"]} == {"inputs.day", "inputs.rows.0"}
        assert "hush hush" not in json.dumps(said)


async def test_secrets_are_in_no_error():
    async def leak(secret: Secret) -> None:
        raise ValueError(f"key {secret.reveal()} is refused")

    async with served(app_of(Path(), offers={"leak": Pipeline([leak], ["secret"])})) as client:
        answer = await client.post("/p/leak/runs?wait=9", json={"inputs": {"secret": "hush hush"}})
        links = answer.json()["links"]
        texts = [answer.text, (await client.get(links["self"])).text, (await client.get(links["events"])).text]
        assert all("hush" not in text for text in texts)
        assert all("is refused" in text for text in texts)


# -- results -------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "whole": pd.array([1, None, 2**60], dtype="Int64"),
        "float": [0.1, float("nan"), 1e300],
        "text": ["<b>", None, 'a"b,c'],
        "at": pd.to_datetime(["2026-01-01T00:00:00.123456789", None, "2026-01-03"], format="ISO8601"),
    },
    index=pd.Index(["x", "y", "z"], name="key"),
)


def frame() -> pd.DataFrame:
    return FRAME


def machine() -> Machine:
    return Machine()


def array() -> Any:
    return np.array([[1, 2], [3, 4]])


MADE = Pipeline([frame, machine, array, step(lambda: {"a": (1, 2), "b": {3}}, name="plain/value")])


@pytest.fixture
async def results() -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async with served(app_of(Path(), offers={"made": MADE}, limits=ServiceLimits(rows=2))) as client:
        run = (await client.post("/p/made/runs?wait=9")).json()
        assert run["status"] == "succeeded"
        yield client, run["links"]["results"]


async def test_a_frame_is_sent_in_each_form(tmp_path: Path):
    async with served(app_of(Path(), offers={"made": MADE})) as client:
        place = (await client.post("/p/made/runs?wait=9")).json()["links"]["results"] + "/frame"
        rows = (await client.get(place)).json()
        assert rows[0]["whole"] == 1
        assert rows[1] == {"whole": None, "float": None, "text": None, "at": None, "key": "y"}
        assert rows[2]["whole"] == 2**60
        assert rows[0]["at"].endswith("00:00:00.123456789")
        got = await client.get(place, headers={"Accept": "application/vnd.apache.parquet"})
        table = parquet.read_table(io.BytesIO(got.content))
        pd.testing.assert_frame_equal(table.to_pandas(), FRAME.astype({"whole": "float64"}), check_dtype=False)
        got = await client.get(f"{place}?format=arrow")
        assert pa.ipc.open_stream(got.content).read_all().equals(table)
        got = await client.get(place, headers={"Accept": "text/csv;q=0.9, application/json;q=0.1"})
        assert got.headers["content-type"] == "text/csv; charset=utf-8"
        assert got.text.splitlines()[0] == '"whole","float","text","at","key"'
        assert got.text.splitlines()[3].startswith('1152921504606846976,1e+300,"a""b,c"')


async def test_rows_are_never_left_out_in_silence(results: tuple[httpx.AsyncClient, str]):
    client, place = results
    said = problem(await client.get(f"{place}/frame"), 413, "OA336")
    assert "has 3 rows" in said["detail"]
    part = await client.get(f"{place}/frame?offset=2&limit=2")
    assert [each["key"] for each in part.json()] == ["z"]
    assert part.headers["x-total-rows"] == "3"
    assert (await client.get(f"{place}/frame?offset=9")).json() == []


async def test_what_is_no_frame_is_json(results: tuple[httpx.AsyncClient, str]):
    client, place = results
    assert (await client.get(f"{place}/array")).json() == [[1, 2], [3, 4]]
    assert (await client.get(f"{place}/plain%2Fvalue")).json() == {"a": [1, 2], "b": [3]}
    problem(await client.get(f"{place}/array?format=csv"), 406, "OA336")
    problem(await client.get(f"{place}/machine"), 406, "OA336")
    problem(await client.get(f"{place}/frame", headers={"Accept": "image/png"}), 406, "OA336")
    problem(await client.get(f"{place}/frame?format=exe"), 422, "OA332")


async def test_what_an_answer_cannot_contain_is_linked(results: tuple[httpx.AsyncClient, str]):
    client, _ = results
    said = (await client.post("/p/made/runs?wait=9")).json()
    assert said["outputs"]["plain/value"] == {"a": [1, 2], "b": [3]}
    assert said["omitted"]["machine"]["reason"] == "A Machine cannot be JSON."
    assert said["omitted"]["machine"]["href"].endswith("/results/machine")


async def test_a_large_frame_is_sent_in_pieces(client: httpx.AsyncClient):
    asked = {"inputs": {"n": 70_000}, "targets": ["load"]}
    said = (await client.post("/p/sum/runs?wait=30", json=asked)).json()
    assert said["omitted"]["load"]["reason"] in ("It has 70000 rows.", "It is large.")
    place = said["omitted"]["load"]["href"]
    rows = (await client.get(place)).json()
    assert [each["a"] for each in rows] == list(range(70_000))
    got = await client.get(f"{place}?format=parquet")
    assert parquet.read_table(io.BytesIO(got.content)).num_rows == 70_000
    assert len((await client.get(f"{place}?format=csv")).text.splitlines()) == 70_001


# -- the story -----------------------------------------------------------------------------------------


async def test_the_story_of_a_run_is_a_page_in_a_sandbox(client: httpx.AsyncClient):
    run = (
        await client.post("/p/bad/runs?wait=9", json={"inputs": {"n": 2, "label": "<script>alert(1)</script>"}})
    ).json()
    answer = await client.get(run["links"]["story"])
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert run["id"] in answer.text
    assert "no &lt;b&gt;1&lt;/b&gt;" in answer.text
    assert "<script>alert" not in answer.text


async def test_stories_are_told_only_where_that_is_said(tmp_path: Path):
    async with served(app_of(tmp_path)) as client:
        run = (await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 2}})).json()
        assert "story" not in run["links"]
        assert (await client.get(f"/p/runs/{run['id']}/story")).status_code == 404


# -- clients that go -----------------------------------------------------------------------------------


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("behind", [False, True], ids=["bare", "behind BaseHTTPMiddleware"])
async def test_a_run_is_cancelled_with_its_client_where_that_is_asked_for(tmp_path: Path, behind: bool):
    app = app_of(tmp_path)
    if behind:
        app.add_middleware(Passing)
    async with served(app) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/p/slow/runs?wait=30&cancel_on_disconnect=true", json={"inputs": {"n": 1}}, timeout=0.3)
        [run] = (await client.get("/p/runs")).json()["runs"]
        await until(client, run["links"]["self"], "cancelled")


@pytest.mark.parametrize("behind", [False, True], ids=["bare", "behind BaseHTTPMiddleware"])
async def test_a_run_outlives_its_client_and_its_listeners(tmp_path: Path, behind: bool):
    app = app_of(tmp_path)
    if behind:
        app.add_middleware(Passing)
    async with served(app) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/p/slow/runs?wait=30", json={"inputs": {"n": 1}}, timeout=0.3)
        [run] = (await client.get("/p/runs")).json()["runs"]
        async with client.stream("GET", run["links"]["events"]) as events:
            async for line in events.aiter_lines():
                if line == "event: step.started":
                    break
        await Flag(tmp_path).raise_()
        await until(client, run["links"]["self"], "succeeded")


async def test_a_run_may_retry_and_go_on_after_failures(tmp_path: Path):
    calls = []

    async def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("not yet")
        return len(calls)

    async def broken() -> None:
        raise ValueError("broken")

    how: Any = {"on_error": "continue", "retry": Retry(attempts=3, wait=0.0)}
    offers = {"flaky": Served(Pipeline([flaky, step(broken, retry=Retry(attempts=1))]), options=how)}
    async with served(app_of(tmp_path, offers=offers)) as client:
        said = (await client.post("/p/flaky/runs?wait=9")).json()
        assert said["status"] == "failed"
        assert said["outputs"] == {"flaky": 3}
        events = (await client.get(said["links"]["events"])).text
        assert events.count("event: step.retrying") == 2


async def test_a_run_that_is_forgotten_is_freed_without_the_garbage_collector(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(kept=1))) as client:
        path, asked = "/p/sum/runs?wait=9", {"inputs": {"n": 1}}
        await client.post(path, json=asked)
        await client.post(path, json=asked)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await client.post(path, json=asked)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [each for each in gc.garbage if type(each).__module__.startswith("odibi_async")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
