"""Schedules, streams and queues in a service: what the routes answer, and their life with the app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from odibi_async import Pipeline, Runner, step
from odibi_async.integrations.fastapi import ServiceError, pipeline_router
from odibi_async.integrations.fastapi.served import RESERVED
from odibi_async.schedule import Cron, OnEvent, Schedules
from odibi_async.stream import Queue, Stream, run_stream
from tests.serving import JSON, SUM, app_of, require_token, served, until
from tests.test_service import problem


class Upkeep:
    """An app with a schedule, a stream and its queue."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self.payloads: list[Any] = []
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.queue = Queue(maxsize=2)
        runner = Runner(journal=folder / "journal", drain=5.0)

        async def nightly(payload: Any) -> int:
            self.payloads.append(payload)
            return 1

        async def count(batch: list[Any]) -> int:
            await self.gate.wait()
            if self.fails:
                raise ValueError("no <b>such</b> batch")
            return len(batch)

        told = Pipeline([nightly], ["payload"], name="nightly")
        self.schedules = Schedules(
            {
                "every night": (
                    Pipeline([nightly], ["payload"], name="nightly"),
                    Cron("30 2 * * *") | OnEvent("delivery"),
                )
            },
            runner,
        )
        self.stream = run_stream([count], self.queue, into="batch", runner=runner, attempts=1, name="count")
        self.app = app_of(
            folder,
            runner=runner,
            offers={"sum": SUM, "nightly": told},
            schedules=self.schedules,
            streams={"clicks": self.stream},
            queues={"clicks": self.queue},
            **how,
        )


@pytest.fixture
async def upkeep(tmp_path: Path) -> Upkeep:
    return Upkeep(tmp_path)


@pytest.fixture
async def client(upkeep: Upkeep) -> AsyncIterator[httpx.AsyncClient]:
    async with served(upkeep.app) as client:
        yield client


NIGHTLY = "/p/schedules/every%20night"


async def test_a_schedule_is_shown_paused_resumed_and_fired(client: httpx.AsyncClient, upkeep: Upkeep):
    while not (said := (await client.get("/p/schedules")).json())["leading"]:
        await asyncio.sleep(0.02)
    [schedule] = said["schedules"]
    assert (schedule["name"], schedule["pipeline"], schedule["state"]) == ("every night", "nightly", "waiting")
    assert schedule["next"].endswith("T02:30:00+00:00")
    assert schedule["last"] is None
    paused = await client.post(f"{NIGHTLY}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert (await client.post(f"{NIGHTLY}/trigger", json={"payload": 0})).json() == {"runs": []}
    assert (await client.post(f"{NIGHTLY}/resume")).json()["state"] == "waiting"
    fired = await client.post(f"{NIGHTLY}/trigger", json={"payload": {"n": 1}})
    assert fired.status_code == 202
    [run_id] = fired.json()["runs"]
    run = await until(client, f"/p/runs/{run_id}", "succeeded")
    assert run["pipeline"] == "nightly"
    while (last := (await client.get("/p/schedules")).json()["schedules"][0]["last"]) is None:
        await asyncio.sleep(0.02)
    assert (last["status"], last["run_id"]) == ("succeeded", run_id)
    assert upkeep.payloads == [{"n": 1}]


async def test_an_event_fires_what_waits_for_it_and_once_by_its_key(client: httpx.AsyncClient, upkeep: Upkeep):
    key = {"Idempotency-Key": "parcel 7"}
    first = await client.post("/p/events/delivery", json={"payload": 7}, headers=key)
    assert (first.status_code, first.json()) == (202, {"runs": ["every night@parcel 7"]})
    assert (await client.post("/p/events/delivery", json={"payload": 7}, headers=key)).json() == {"runs": []}
    await until(client, "/p/runs/every night@parcel 7", "succeeded")
    assert upkeep.payloads == [7]
    problem(await client.post("/p/events/deliveries"), 404, "OA421")
    problem(await client.post("/p/events/delivery", headers={"Idempotency-Key": "x" * 201}), 422, "OA332")
    problem(await client.post("/p/events/delivery", json={"paylaod": 7}), 422, "OA332")


async def test_a_stream_takes_events_over_http_and_is_shown(client: httpx.AsyncClient):
    put = await client.post("/p/queues/clicks?wait=20", json={"page": "/"})
    assert (put.status_code, put.json()) == (200, {"committed": True})
    [stream] = (await client.get("/p/streams")).json()["streams"]
    assert (stream["name"], stream["batches"], stream["poisoned"], stream["error"]) == ("clicks", 1, 0, None)


async def test_a_queue_is_bounded_and_a_paused_stream_leaves_events_in_it(client: httpx.AsyncClient):
    assert (await client.post("/p/streams/clicks/pause")).json()["status"] == "paused"
    for event in (1, 2):
        answer = await client.post("/p/queues/clicks", json=event)
        assert (answer.status_code, answer.json()) == (202, {"committed": False})
    refused = await client.post("/p/queues/clicks", json=3)
    problem(refused, 429, "OA333")
    assert refused.headers["retry-after"] == "1"
    assert (await client.post("/p/streams/clicks/resume")).json()["status"] != "paused"
    while (await client.post("/p/queues/clicks?wait=20", json=4)).status_code != 200:
        await asyncio.sleep(0.02)


async def test_an_event_that_is_not_over_in_time_stays_in_the_queue(client: httpx.AsyncClient, upkeep: Upkeep):
    upkeep.gate.clear()
    answer = await client.post("/p/queues/clicks?wait=0.05", json=1)
    assert (answer.status_code, answer.json()) == (202, {"committed": False})
    upkeep.gate.set()
    while (await client.get("/p/streams")).json()["streams"][0]["batches"] != 1:
        await asyncio.sleep(0.02)


async def test_batches_that_were_set_aside_are_listed_and_run_again(client: httpx.AsyncClient, upkeep: Upkeep):
    upkeep.fails = True
    assert (await client.post("/p/queues/clicks?wait=20", json=1)).json() == {"committed": True}
    [batch] = (await client.get("/p/streams/clicks/aside")).json()["batches"]
    assert "no <b>such</b> batch" in batch["error"]
    problem(await client.post("/p/streams/clicks/replay", json={"runs": [batch["run"]]}), 409, "OA334")
    problem(await client.post("/p/streams/clicks/replay", json={"runs": ["nobody"]}), 404, "OA421")
    upkeep.fails = False
    assert (await client.post("/p/streams/clicks/replay", json={"runs": []})).json() == {"runs": []}
    assert (await client.post("/p/streams/clicks/replay")).json() == {"runs": [batch["run"]]}
    assert (await client.get("/p/streams/clicks/aside")).json() == {"batches": []}


async def test_a_stream_is_stopped_once(client: httpx.AsyncClient):
    assert (await client.post("/p/streams/clicks/stop")).json()["status"] in ("stopping", "finished")
    while (await client.get("/p/streams")).json()["streams"][0]["status"] != "finished":
        await asyncio.sleep(0.02)
    for verb in ("stop", "pause", "resume"):
        problem(await client.post(f"/p/streams/clicks/{verb}"), 409, "OA334")


@pytest.mark.parametrize(
    "path", ["schedules/x/pause", "schedules/x/resume", "schedules/x/trigger", "streams/x/stop", "streams/x/replay"]
)
async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, path: str):
    problem(await client.post(f"/p/{path}"), 404, "OA421")


async def test_nonsense_and_other_sites_are_refused(client: httpx.AsyncClient):
    posts = ["queues/clicks", "events/delivery", "schedules/every%20night/trigger", "streams/clicks/replay"]
    for path in posts:
        for text in ("{", "[" * 10_000, "NaN", '{"payload": NaN}', "\xff"):
            answer = await client.post(f"/p/{path}", content=text.encode("latin-1"), headers=JSON)
            problem(answer, 422, "OA332")
        problem(await client.post(f"/p/{path}", content=b"a=1", headers={"Content-Type": "text/plain"}), 415)
        problem(await client.post(f"/p/{path}", json=1, headers={"Origin": "https://evil.example"}), 403)
    for path in ("schedules/every%20night/pause", "streams/clicks/stop", "streams/clicks/pause"):
        problem(await client.post(f"/p/{path}", headers={"Origin": "https://evil.example"}), 403)
    problem(await client.post("/p/queues/clicks"), 422, "OA332")
    problem(await client.post("/p/queues/clicks?wait=inf", json=1), 422)
    problem(await client.post("/p/queues/nobody", json=1), 404, "OA421")


async def test_every_route_wants_to_know_who_asks(tmp_path: Path):
    upkeep = Upkeep(tmp_path, auth=require_token)
    async with served(upkeep.app) as client:
        for method, path in paths_of(upkeep.app):
            problem(await client.request(method, path.replace("{name}", "clicks")), 401)


def paths_of(app: FastAPI) -> list[tuple[str, str]]:
    """The methods and paths of an app's schedules, streams, queues and events."""
    first = ("/p/schedules", "/p/streams", "/p/queues", "/p/events")
    found = [
        (method, path) for path, each in app.openapi()["paths"].items() for method in each if path.startswith(first)
    ]
    assert len(found) == 5 + 6 + 1
    return found


async def test_the_names_of_these_paths_are_reserved():
    for name in ("schedules", "streams", "queues", "events"):
        assert name in RESERVED
        with pytest.raises(ServiceError, match="used for something else"):
            pipeline_router(Runner(), {name: SUM}, auth=None)


async def test_nothing_is_there_that_the_service_has_not(tmp_path: Path):
    async with served(app_of(tmp_path)) as client:
        assert (await client.get("/p/schedules")).json() == {"schedules": [], "leading": False}
        assert (await client.get("/p/streams")).json() == {"streams": []}
        for path in ("schedules/x/pause", "streams/x/stop", "queues/x", "events/x"):
            assert (await client.post(f"/p/{path}")).status_code == 404


async def test_schedules_and_streams_that_nobody_has_begun_say_so(tmp_path: Path):
    outer, upkeep = FastAPI(), Upkeep(tmp_path)
    outer.mount("/mounted", upkeep.app)  # it hears nothing of the beginning of the app that it is mounted in
    async with served(outer) as client:
        for method, path in (
            ("GET", "schedules"),
            ("POST", "schedules/every%20night/trigger"),
            ("POST", "schedules/every%20night/pause"),
            ("POST", "events/delivery"),
            ("POST", "streams/clicks/pause"),
            ("POST", "queues/clicks"),
        ):
            answer = await client.request(method, f"/mounted/p/{path}", json=None if method == "GET" else {})
            assert "include the router in the outer app" in problem(answer, 503, "OA333")["detail"]
        run = await client.post("/mounted/p/sum/runs?wait=20", json={"inputs": {"n": 3}})
        assert run.json()["outputs"] == {"total": 3}
    assert len(upkeep.queue) == 0


async def test_stopping_the_app_finishes_a_batch_and_a_firing(tmp_path: Path):
    upkeep = Upkeep(tmp_path)
    async with served(upkeep.app) as client:
        upkeep.gate.clear()
        await client.post("/p/queues/clicks", json=1)
        while upkeep.stream.progress.pending is None and str(upkeep.stream.status) != "running":
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.3, upkeep.gate.set)
    assert str(upkeep.stream.status) == "finished"
    assert upkeep.stream.progress.batches == 1


async def test_a_stream_that_fails_is_told_and_leaves_the_service_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    runner = Runner(journal=tmp_path / "journal")
    stream: Stream = run_stream([step(lambda batch: batch, name="one")], Queue(), into="other", runner=runner)
    with caplog.at_level(logging.ERROR):
        async with served(app_of(tmp_path, runner=runner, streams={"wrong": stream})) as client:
            while (shown := (await client.get("/p/streams")).json()["streams"][0])["status"] != "failed":
                await asyncio.sleep(0.01)
            assert "other" in shown["error"]
            assert (await client.post("/p/sum/runs?wait=20", json={"inputs": {"n": 3}})).json()["outputs"] == {
                "total": 3
            }
    assert "has failed" in caplog.text
