"""Several workers over one journal: they show, cancel and resume each other's runs, also those of workers that died."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from odibi_async import Journal, Pipeline, RunError, Runner
from odibi_async.integrations.fastapi import Served, ServiceLimits
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.shown import id_of
from tests.serving import SUM, Flag, Worker, app_of, boom, load, served, total, until
from tests.test_journal_backends import Server
from tests.test_service_events import streamed, told


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="odibi-postgres-"))
    folder.chmod(0o755)
    server = Server(folder)
    yield server
    server.server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal's place."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("server").url()
        return url
    return str(tmp_path / "journal")


@pytest.fixture
async def two(where: str, tmp_path: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of two services over one journal, each with a runner of its own."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            journal = Journal(where, store=tmp_path / "store")
            stack.push_async_callback(asyncio.to_thread, journal.close)
            runner = Runner(journal=journal)
            app = app_of(tmp_path, runner=runner, story=True, limits=ServiceLimits(poll=0.05))
            clients.append(await stack.enter_async_context(served(app)))
        yield clients


async def test_each_worker_lists_and_shows_the_runs_of_all(two: list[httpx.AsyncClient], tmp_path: Path):
    one, other = two
    run = (await one.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
    await Flag(tmp_path).until_called("held")
    seen = (await other.get(run["links"]["self"])).json()
    assert seen["status"] == "running"
    assert seen["inputs"] == {"n": 1}
    assert [(each["name"], each["status"]) for each in seen["steps"]] == [
        ("first", "succeeded"),
        ("held", "pending"),  # the journal knows of ends
        ("last", "pending"),
    ]
    assert [each["id"] for each in (await other.get("/p/runs?status=running")).json()["runs"]] == [run["id"]]
    assert (await other.get(run["links"]["results"] + "/first")).json() == 2
    await Flag(tmp_path).raise_()
    await until(other, run["links"]["self"], "succeeded")
    assert (await other.get(run["links"]["results"] + "/last")).json() == 5
    assert (await other.get(run["links"]["story"])).status_code == 200
    assert (await other.get("/p/runs?status=running")).json()["runs"] == []


async def test_a_worker_tells_the_events_of_another_s_run(two: list[httpx.AsyncClient], tmp_path: Path):
    one, other = two
    run = (await one.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
    heard = []
    async for number, name, data in streamed(other, run["links"]["events"]):
        heard.append((number, name, data.get("step")))
        if data.get("step") == "first":
            await Flag(tmp_path).raise_()
    assert heard == [
        (0, "run.started", None),
        (1, "step.finished", "first"),
        (2, "step.finished", "held"),
        (3, "step.finished", "last"),
        (4, "run.finished", None),
    ]
    assert [name for _, name, _ in told((await one.get(run["links"]["events"])).text)].count("step.started") == 3


async def test_each_worker_cancels_the_runs_of_all_and_resumes_them(two: list[httpx.AsyncClient], tmp_path: Path):
    one, other = two
    flag = Flag(tmp_path)
    run = (await one.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
    await flag.until_called("held")
    assert (await other.post(run["links"]["cancel"])).status_code == 202
    await until(other, run["links"]["self"], "cancelled")
    await until(one, run["links"]["self"], "cancelled")
    await flag.raise_()
    answers = await asyncio.gather(*[each.post(run["links"]["resume"]) for each in two for _ in range(3)])
    assert sorted(each.status_code for each in answers) == [202, *[409] * 5]
    for each in two:
        done = await until(each, run["links"]["self"], "succeeded")
        assert {step["status"] for step in done["steps"]} <= {"resumed", "succeeded"}
    assert (await asyncio.to_thread(lambda: flag.calls)).count("first") == 1
    assert (await one.post(run["links"]["resume"])).status_code == 409


async def test_a_key_stands_for_one_run_in_all_workers(two: list[httpx.AsyncClient]):
    asked: dict[str, Any] = {"json": {"inputs": {"n": 3}}, "headers": {"Idempotency-Key": "k"}}
    answers = await asyncio.gather(*[each.post("/p/sum/runs?wait=20", **asked) for each in two for _ in range(4)])
    assert {each.status_code for each in answers} == {200}, [each.text for each in answers]
    assert len({each.json()["id"] for each in answers}) == 1
    assert all(each.json()["outputs"] == {"total": 3} for each in answers)
    other = await two[0].post("/p/sum/runs", json={"inputs": {"n": 4}}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422
    assert len((await two[1].get("/p/runs")).json()["runs"]) == 1


async def test_a_pipeline_that_forbids_overlap_has_one_run_in_all_workers(two: list[httpx.AsyncClient], tmp_path: Path):
    one, other = two
    run = (await one.post("/p/alone/runs", json={"inputs": {"n": 1}})).json()
    assert (await other.post("/p/alone/runs", json={"inputs": {"n": 1}})).status_code == 409
    await Flag(tmp_path).raise_()
    await until(other, run["links"]["self"], "succeeded")
    for _ in range(100):
        answer = await other.post("/p/alone/runs?wait=9", json={"inputs": {"n": 1}})
        if answer.status_code == 200:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(answer.text)


async def test_lists_have_pages_with_a_journal(two: list[httpx.AsyncClient]):
    ids = [(await two[n % 2].post("/p/sum/runs?wait=9", json={"inputs": {"n": n}})).json()["id"] for n in range(5)]
    await two[0].post("/p/bad/runs?wait=9", json={"inputs": {"n": 1}})
    found, cursor = [], ""
    while cursor is not None:
        page = (await two[1].get(f"/p/runs?pipeline=sum&limit=2{cursor}")).json()
        found += [each["id"] for each in page["runs"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert found == ids[::-1]
    assert [each["pipeline"] for each in (await two[1].get("/p/runs?status=failed")).json()["runs"]] == ["bad"]


async def test_a_resumed_run_makes_the_targets_that_it_was_asked_for(two: list[httpx.AsyncClient], tmp_path: Path):
    run = (await two[0].post("/p/slow/runs", json={"inputs": {"n": 1}, "targets": ["held"]})).json()
    await Flag(tmp_path).until_called("held")
    await two[0].post(run["links"]["cancel"])
    await until(two[0], run["links"]["self"], "cancelled")
    await Flag(tmp_path).raise_()
    assert (await two[1].post(run["links"]["resume"])).status_code == 202
    done = await until(two[1], run["links"]["self"], "succeeded")
    assert [each["name"] for each in done["steps"]] == ["first", "held"]


NAMES = [
    "a/b",
    "a",
    "a/events",
    "a/results/total",
    "..",
    ".",
    "%2F",
    "a b?c#d;e",
    "ü💥",
    "a\nb",
    "~YS9i",
    "x" * 300,
    "/",
]


async def test_a_run_of_another_process_is_addressed_whatever_it_is_called(where: str, tmp_path: Path):
    with Journal(where, store=tmp_path / "store") as journal:
        bad = Pipeline([load, total, boom], ["n"], name="bad")
        async with Runner(journal=journal) as elsewhere:
            for place, name in enumerate(NAMES):
                with pytest.raises(RunError):
                    await elsewhere.run(bad, {"n": place}, run_id=name)
        async with served(app_of(tmp_path, runner=Runner(journal=journal), story=True)) as client:
            listed = {each["id"]: each["links"] for each in (await client.get("/p/runs")).json()["runs"]}
            assert sorted(listed) == sorted(NAMES)
            for place, name in enumerate(NAMES):
                await _addressed(client, name, place, listed[name])
            for hidden in ("a%00b", "~YQBi", "~", "~/", "~%C3%BC", "x" * 5_000):
                assert (await client.get(f"/p/runs/{hidden}")).status_code == 404
            assert (await client.get("/p/runs/a%2Fb")).json()["links"] == listed["a/b"]
            assert (await client.get("/p/runs/a%2Fb/results/total")).json() == 0
            assert (await client.get("/p/runs/a%0Ab")).json()["links"] == listed["a\nb"]


async def _addressed(client: httpx.AsyncClient, name: str, place: int, links: dict[str, str]) -> None:
    """The links of a run lead to it, also for a browser, which takes dots for directories."""
    links = {each: str(httpx.URL("http://x").join(link).raw_path, "ascii") for each, link in links.items()}
    run = (await client.get(links["self"])).json()
    assert (run["id"], run["inputs"], run["links"]) == (name, {"n": place}, links)
    assert told((await client.get(links["events"])).text)[0][2]["run_id"] == name
    assert (await client.get(f"{links['results']}/total")).json() == sum(range(place))
    assert (await client.get(links["story"])).status_code == 200
    assert (await client.post(links["cancel"])).status_code == 409
    assert (await client.post(links["resume"])).json()["id"] == name
    await until(client, links["self"], "failed")


async def test_a_run_that_begins_while_its_request_is_cancelled_is_that_of_its_key(where: str, tmp_path: Path):
    with Journal(where, store=tmp_path / "store") as journal:
        await _begun_and_cancelled(journal)


async def _begun_and_cancelled(journal: Journal) -> None:
    ids = set()
    async with Runner(journal=journal) as runner:
        offer = Offer("sum", Served(SUM))
        service = Service(runner, {"sum": offer}, ServiceLimits())
        body = b'{"inputs": {"n": 3}}'
        for turns in range(12):
            key = f"key {turns}"
            begin = asyncio.create_task(service.begin(offer, offer.asks.asked(body), body, key))
            for _ in range(turns):
                await asyncio.sleep(0)
            begin.cancel()
            await asyncio.wait([begin])
            found = await service.begin(offer, offer.asks.asked(body), body, key)
            assert id_of(found) == id_of(await service.begin(offer, offer.asks.asked(body), body, key))
            ids.add(id_of(found))
    runs = await asyncio.to_thread(journal.runs)
    assert {run.run_id for run in runs} == ids
    assert len(runs) == 12


# -- workers that die ----------------------------------------------------------------------------------


@pytest.fixture
def start(where: str, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(tmp_path, where, tmp_path / "store"))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_a_run_of_a_killed_worker_is_interrupted_and_any_other_resumes_it(
    start: Callable[[], Worker], tmp_path: Path
):
    flag = Flag(tmp_path)
    dying = await asyncio.to_thread(start)
    async with dying.client() as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        await flag.until_called("held")
    await asyncio.to_thread(dying.kill)
    again = await asyncio.to_thread(start)
    async with again.client() as client:
        [listed] = (await client.get("/p/runs")).json()["runs"]
        assert (listed["id"], listed["status"]) == (run["id"], "interrupted")
        assert (await client.post(run["links"]["cancel"])).status_code == 409
        events = told((await client.get(run["links"]["events"])).text)
        assert events[-1][2]["status"] == "interrupted"
        await flag.raise_()
        assert (await client.post(run["links"]["resume"])).status_code == 202
        done = await until(client, run["links"]["self"], "succeeded")
        assert [each["status"] for each in done["steps"]] == ["resumed", "succeeded", "succeeded"]
        assert (await asyncio.to_thread(lambda: flag.calls)).count("first") == 1
    assert await asyncio.to_thread(again.stop) in (0, -15)


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
async def test_a_stopped_worker_lets_listeners_go_drains_and_journals_what_it_cancels(
    start: Callable[[], Worker], tmp_path: Path
):
    stopped = await asyncio.to_thread(start)
    async with stopped.client() as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        waiting = asyncio.create_task(client.post("/p/slow/runs?wait=60", json={"inputs": {"n": 2}}))
        await Flag(tmp_path).until_called("held", 2)
        async with client.stream("GET", run["links"]["events"]) as events:
            stopping = asyncio.create_task(asyncio.to_thread(stopped.stop))
            async for _ in events.aiter_text():  # it ends, though its run does not
                pass
        assert (await waiting).status_code == 202
    assert await stopping in (0, -15)
    again = await asyncio.to_thread(start)
    async with again.client() as client:
        listed = (await client.get("/p/runs")).json()["runs"]
        assert [each["status"] for each in listed] == ["cancelled", "cancelled"]
        await Flag(tmp_path).raise_()
        assert (await client.post(run["links"]["resume"])).status_code == 202
        await until(client, run["links"]["self"], "succeeded")
    assert await asyncio.to_thread(again.stop) in (0, -15)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
async def test_a_stopped_worker_lets_its_runs_end_within_the_grace(start: Callable[[], Worker], tmp_path: Path):
    stopped = await asyncio.to_thread(start)
    async with stopped.client() as client:
        run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()
        await Flag(tmp_path).until_called("held")
    stopping = asyncio.create_task(asyncio.to_thread(stopped.stop))
    await Flag(tmp_path).raise_()
    assert await stopping in (0, -15)
    again = await asyncio.to_thread(start)
    async with again.client() as client:
        assert (await client.get(run["links"]["self"])).json()["status"] == "succeeded"
    assert await asyncio.to_thread(again.stop) in (0, -15)
