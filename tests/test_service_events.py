"""The events of a run over HTTP: replayed, live, bounded, and gone when the run is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from odibi_async import Pipeline, step
from odibi_async.integrations.fastapi import ServiceLimits
from tests.serving import Flag, app_of, served, slow, until

Told = tuple[int, str, dict[str, Any]]


def told(text: str) -> list[Told]:
    """The events of a stream: id, name, data."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in lines:
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


async def streamed(client: httpx.AsyncClient, place: str, **headers: str) -> AsyncIterator[Told]:
    async with client.stream("GET", place, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        kept = ""
        async for piece in answer.aiter_text():
            kept += piece
            *whole, kept = kept.split("\n\n")
            for each in told("\n\n".join(whole)):
                yield each


NAMES = [
    "run.started",
    "step.started",
    "step.finished",
    "step.started",
    "step.finished",
    "step.started",
    "step.finished",
    "run.finished",
]


async def test_events_come_as_they_happen_and_the_stream_ends_with_the_run(tmp_path: Path):
    async with served(app_of(tmp_path)) as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        heard: list[Told] = []
        async for each in streamed(client, run["links"]["events"]):
            heard.append(each)
            if each[1] == "step.started" and each[2]["step"] == "held":
                await Flag(tmp_path).raise_()
        assert [name for _, name, _ in heard] == NAMES
        assert [number for number, _, _ in heard] == list(range(8))
        assert all(data["run_id"] == run["id"] and data["seq"] == number and data["time"] for number, _, data in heard)
        assert heard[0][2]["steps"] == ["first", "held", "last"]
        assert heard[2][2]["result"]["status"] == heard[2][2]["status"] == "succeeded"
        assert heard[-1][2]["status"] == "succeeded"


async def test_a_listener_that_comes_again_hears_what_it_missed(tmp_path: Path):
    async with served(app_of(tmp_path)) as client:
        run = (await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 1}})).json()
        whole = told((await client.get(run["links"]["events"])).text)
        for last in range(len(whole)):
            answer = await client.get(run["links"]["events"], headers={"Last-Event-ID": str(last)})
            assert told(answer.text) == whole[last + 1 :]
        for nonsense in ("x", "-1", "9" * 50, ""):
            answer = await client.get(run["links"]["events"], headers={"Last-Event-ID": nonsense})
            assert answer.status_code == 200


async def test_a_silent_run_keeps_its_listeners(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(keepalive=0.05))) as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        pings = 0
        async with client.stream("GET", run["links"]["events"]) as answer:
            async for line in answer.aiter_lines():
                pings += line.startswith(":")
                if pings == 3:
                    await Flag(tmp_path).raise_()
        assert pings >= 3


async def many(n: int) -> int:
    return n


WIDE = Pipeline([step(many, name=f"s{i}") for i in range(50)], ["n"])


async def test_only_the_last_events_are_kept(tmp_path: Path):
    async with served(app_of(tmp_path, offers={"wide": WIDE}, limits=ServiceLimits(events=10))) as client:
        run = (await client.post("/p/wide/runs?wait=9", json={"inputs": {"n": 1}})).json()
        heard = told((await client.get(run["links"]["events"])).text)
        assert 10 <= len(heard) <= 20
        assert [number for number, _, _ in heard] == list(range(heard[0][0], 102))
        assert heard[-1][1] == "run.finished"
        steps = (await client.get(run["links"]["self"])).json()["steps"]
        assert [each["status"] for each in steps] == ["succeeded"] * 50


async def test_listeners_are_bounded_and_gone_ones_do_not_count(tmp_path: Path):
    async with served(app_of(tmp_path, limits=ServiceLimits(listeners=2))) as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        place = run["links"]["events"]
        for _ in range(3):
            async with client.stream("GET", place) as one, client.stream("GET", place) as two:
                assert one.status_code == two.status_code == 200
                assert (await client.get(place)).status_code == 429
            for _ in range(200):
                async with client.stream("GET", place) as again:
                    if again.status_code == 200:
                        break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError("listeners that are gone still count")
        await Flag(tmp_path).raise_()
        await until(client, run["links"]["self"], "succeeded")


async def test_a_listener_that_takes_nothing_is_dropped_and_holds_up_nobody(tmp_path: Path):
    async def chatty(n: int) -> int:
        await asyncio.sleep(0)
        return n

    steps = [step(chatty, name=f"{'s' * 2_000}{i}") for i in range(1_000)]  # more than the buffers of sockets take
    offers = {"chatty": Pipeline(steps, ["n"]), "slow": slow(tmp_path)}
    limits = ServiceLimits(stall=0.3, listeners=1)
    async with served(app_of(tmp_path, offers=offers, limits=limits)) as client:
        run = (await client.post("/p/chatty/runs", json={"inputs": {"n": 1}})).json()
        host, port = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(host, port, limit=1_024)
        writer.write(f"GET {run['links']['events']} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await reader.readline()
        while (await client.get("/p/runs?status=succeeded")).json()["runs"] == []:  # it is not held up
            await asyncio.sleep(0.05)
        for _ in range(300):
            answer = await client.get(run["links"]["events"])
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the listener was not dropped")
        assert told(answer.text)[-1][1] == "run.finished"
        writer.close()


async def test_a_hundred_listeners_hear_the_same(tmp_path: Path):
    async with served(app_of(tmp_path), limits=httpx.Limits(max_connections=None)) as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()

        async def listen() -> list[Told]:
            return [each async for each in streamed(client, run["links"]["events"])]

        listening = [asyncio.create_task(listen()) for _ in range(100)]
        await Flag(tmp_path).until_called("held")
        await Flag(tmp_path).raise_()
        heard = await asyncio.gather(*listening)
        assert all(each == heard[0] for each in heard)
        assert [name for _, name, _ in heard[0]] == NAMES


@pytest.mark.parametrize("name", ['<img src=x onerror="alert(1)">', "a\nb", "ü\u2028\x85"])
async def test_any_name_of_a_step_is_one_line_of_data(tmp_path: Path, name: str):
    async with served(app_of(tmp_path, offers={"odd": Pipeline([step(many, name=name)], ["n"])})) as client:
        run = (await client.post("/p/odd/runs?wait=9", json={"inputs": {"n": 1}})).json()
        heard = told((await client.get(run["links"]["events"])).text)
        assert [data.get("step") for _, _, data in heard] == [None, name, name, None]
        assert "<img" not in (await client.get("/p/odd/graph.svg")).text
        assert (await client.get("/p/odd")).json()["graph"]["steps"][0]["name"] == name
