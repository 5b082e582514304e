"""A Dask cluster: data stays there, and what dies there is told and made good."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from odibi_async import Limits, Retry, RunError, Runner, Status, run_pipeline, step
from odibi_async.errors import ClusterError, DataLost, OptionError, WorkerLost
from odibi_async.executors import cluster as connection
from odibi_async.executors.cluster_data import ClusterData, DaskHandle
from odibi_async.executors.dask import DaskExecutor
from tests.clusters import ENVIRONMENT, ROOT, Cluster
from tests.processes import children

AGAIN = Retry(attempts=10, wait=0.05)


@pytest.fixture
def address(cluster: Cluster) -> str:
    cluster.heal()
    return cluster.address


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that a test may do anything to."""
    started = Cluster(tmp_path, ("--resources", "GPU=1"))
    yield started
    started.end()


class Counting(ClusterData):
    """Counts what travels."""

    fetched = 0
    sent = 0

    async def fetch(self, handle: DaskHandle) -> Any:
        self.fetched += 1
        return await super().fetch(handle)

    async def scatter(self, client: Any, value: Any) -> Any:
        self.sent += 1
        return await super().scatter(client, value)


def counting(address: str) -> tuple[DaskExecutor, Counting]:
    executor = DaskExecutor(address)
    executor.data = data = Counting(executor.cluster)
    return executor, data


def frame() -> pd.DataFrame:
    return pd.DataFrame({"n": np.arange(50_000), "text": [f"row {n}" for n in range(50_000)]})


async def test_a_chain_of_steps_moves_its_frame_twice(address: str):
    def add(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(n=frame["n"] + 1)

    steps: list[Any] = [
        step(add, name=f"s{i}", inputs={"frame": f"s{i - 1}" if i else "frame"}, run_on="dask") for i in range(20)
    ]
    executor, data = counting(address)
    result = await run_pipeline(
        steps, {"frame": await asyncio.to_thread(frame)}, targets=["s19"], executors={"dask": executor}
    )
    assert result["s19"]["n"].iloc[0] == 20
    assert (data.sent, data.fetched) == (1, 1)


async def test_that_data_are_not_needed_is_told_along_with_the_next_call(address: str):
    def more(n: int) -> int:
        return n + 1

    executor = DaskExecutor(address)
    chain = [step(more, name=f"s{i}", inputs={"n": f"s{i - 1}" if i else "n"}, run_on="dask") for i in range(20)]
    async with Runner(executors={"dask": executor}) as runner:
        await runner.run(chain[:2], {"n": 0})
        told = (await executor.cluster.client()).scheduler_comm.comm
        messages: list[list[str]] = []
        write = told.write

        async def noted(message: Any, **options: Any) -> Any:
            messages.append([each["op"] for each in message])
            return await write(message, **options)

        told.write = noted
        assert (await runner.run(chain, {"n": 0}, targets=["s19"]))["s19"] == 20
        calls = sum("update-graph" in each for each in messages)
        assert calls == 20
        assert sum(each == ["client-releases-keys"] for each in messages) < 10  # each makes the next call wait 10 ms


async def test_a_local_frame_goes_there_once_a_run(address: str):
    mapped = step(lambda n, frame: len(frame) + n, name="m", map_over="n", inputs={"n": "ns"}, run_on="dask")
    given = {"frame": await asyncio.to_thread(frame), "ns": list(range(10))}
    executor, data = counting(address)
    result = await run_pipeline([mapped], given, executors={"dask": executor})
    assert result["m"] == [50_000 + n for n in range(10)]
    assert data.sent == 1


async def run_beside_a_killer(runner: Runner) -> None:
    """
    Steps that have nothing to do with one that kills its workers, but are on them when they die.

    Calls that take resources wait on the workers, so that each death makes suspects of many.
    """

    def innocent(n: int) -> int:
        time.sleep(0.05)
        return n

    steps = [
        step(lambda: (time.sleep(0.3), os._exit(1)), name="killer", run_on="dask", pool={"GPU": 1}),
        step(innocent, map_over="n", inputs={"n": "ns"}, run_on="dask", pool={"GPU": 1}),
        step(lambda innocent: sum(innocent), name="sum", run_on="dask"),
        step(lambda killer: killer, name="after", run_on="dask"),
    ]
    result = await runner.run(steps, {"ns": list(range(40))}, on_error="continue")
    [failure] = result.failures.values()
    assert failure.step == "killer"
    assert isinstance(failure.error, WorkerLost)
    assert "3 workers died in turn, and so did a process of its own: its process ended with exit code 1" in str(
        failure.error
    )
    assert result["sum"] == sum(range(40))
    attempts = {name: result.steps[name].attempts for name in ("innocent", "sum", "killer")}
    assert attempts == {"innocent": 1, "sum": 1, "killer": 1}  # none is charged for what another step did


async def test_a_step_that_kills_its_workers_fails_alone(own: Cluster):
    keeping = asyncio.create_task(healing(own))
    try:
        async with Runner(executors={"dask": DaskExecutor(own.address)}) as runner:
            await run_beside_a_killer(runner)
            assert (await runner.run([step(lambda: 2, name="two", run_on="dask")]))["two"] == 2
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


@pytest.mark.slow
async def test_no_step_ever_fails_for_another_one_that_kills_its_workers(own: Cluster):
    keeping = asyncio.create_task(healing(own))
    try:
        async with Runner(executors={"dask": DaskExecutor(own.address)}) as runner:
            for _ in range(20):
                await run_beside_a_killer(runner)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def healing(own: Cluster) -> None:
    """Starts a worker wherever one has died."""
    while True:
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own.heal)


@pytest.mark.slow
async def test_workers_that_are_killed_at_random_change_no_result(own: Cluster):
    def busy(n: int, frame: pd.DataFrame) -> pd.DataFrame:
        time.sleep(0.02)
        return frame.assign(n=n)

    steps = [
        step(busy, map_over="n", inputs={"n": "ns"}, run_on="dask", retry=AGAIN),
        step(
            lambda one: int(one["n"].sum()),
            name="sums",
            inputs={"one": "busy"},
            map_over="one",
            run_on="dask",
            retry=AGAIN,
        ),
        step(lambda busy, sums: (sum(len(each) for each in busy), sum(sums)), name="all", run_on="dask", retry=AGAIN),
    ]
    given = {"frame": await asyncio.to_thread(frame), "ns": list(range(8))}

    async def murder(executor: DaskExecutor) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.2, 1.0))
            while len((await (await executor.cluster.client()).scheduler.identity())["workers"]) < 2:
                await asyncio.sleep(0.1)  # or a busy machine never has one
            os.killpg(random.choice(own.workers).pid, signal.SIGKILL)
            await asyncio.to_thread(own.heal)

    executor = DaskExecutor(own.address)
    async with Runner(executors={"dask": executor}) as runner:
        await runner.run(steps, given, targets=["all"])
        murderer = asyncio.create_task(murder(executor))
        try:
            for _ in range(50):
                result = await runner.run(steps, given, targets=["all"])
                assert result["all"] == (400_000, 50_000 * 28)
        finally:
            murderer.cancel()
            await asyncio.wait([murderer])


async def test_lost_data_are_made_again(own: Cluster, tmp_path: Path):
    def make(frame: pd.DataFrame, path: str) -> pd.DataFrame:
        with open(path, "a", encoding="ascii") as file:
            file.write("x")
        return frame.assign(n=1)

    async def kill_all(make_done: int) -> int:
        for worker in own.workers:
            os.killpg(worker.pid, signal.SIGKILL)
        await asyncio.to_thread(lambda: [worker.wait() for worker in own.workers])
        await asyncio.to_thread(own.heal)
        return make_done

    path = tmp_path / "calls"
    steps = [
        step(make, run_on="dask", params={"path": str(path)}),
        step(len, name="make_done", inputs={"obj": "make"}, run_on="dask"),
        kill_all,
        step(lambda make, kill_all: int(make["n"].sum()) + kill_all, name="sum", run_on="dask"),
    ]
    given = {"frame": await asyncio.to_thread(frame)}
    result = await run_pipeline(steps, given, targets=["sum"], executors={"dask": DaskExecutor(own.address)})
    assert result["sum"] == 100_000
    assert len(await asyncio.to_thread(path.read_text)) >= 2


async def test_a_scheduler_that_dies_is_told_within_ten_seconds(own: Cluster):
    async with Runner(executors={"dask": DaskExecutor(own.address)}) as runner:
        run = await runner.start([step(lambda: time.sleep(30), name="s", run_on="dask", retry=AGAIN)])
        await asyncio.sleep(1)
        began = time.monotonic()
        own.scheduler.kill()
        with pytest.raises(RunError, match=r"The Dask scheduler does not answer.*run the pipeline again"):
            await run.result()
        assert time.monotonic() - began < 10
        with pytest.raises((RunError, ClusterError), match="does not answer"):
            await runner.run([step(lambda: 1, name="one", run_on="dask")])
        assert time.monotonic() - began < 25


async def test_a_scheduler_that_is_not_there_is_told(free_port: int):
    with pytest.raises(ClusterError, match=r"does not answer \(tcp://127.0.0.1"):
        await run_pipeline(
            [step(lambda: 1, name="one", run_on="dask")],
            executors={"dask": DaskExecutor(f"tcp://127.0.0.1:{free_port}", timeout=0.5)},
        )


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_another_version_is_told_with_what_to_do(address: str, monkeypatch: pytest.MonkeyPatch):
    ours = connection._versions
    calls = iter([{"python": "3.99", "distributed": "1", "cloudpickle": "1", "odibi_async": "1"}])
    monkeypatch.setattr(connection, "_versions", lambda of: next(calls, None) or ours(of))
    with pytest.raises(ClusterError, match=r"this process 3\.99.*Install the same versions"):
        await run_pipeline([step(lambda: 1, name="s", run_on="dask")], executors={"dask": DaskExecutor(address)})


async def test_pools_reach_the_workers_as_their_resources(own: Cluster):
    def busy(n: int) -> tuple[float, float, str]:
        from distributed import get_worker

        began = time.time()
        time.sleep(0.05)
        return began, time.time(), str(get_worker().address)

    mapped = step(busy, map_over="n", inputs={"n": "ns"}, run_on="dask", pool={"GPU": 1})
    async with Runner(executors={"dask": DaskExecutor(own.address)}) as runner:
        spans = (await runner.run([mapped], {"ns": list(range(8))}))["busy"]
        for began, _, worker in spans:
            assert sum(a <= began < b and other == worker for a, b, other in spans) == 1
        with pytest.raises(RunError, match="pool 'TPU', which neither the limits nor any worker knows"):
            await runner.run([step(lambda: 1, name="s", run_on="dask", pool="TPU")])
    limits = Limits(pools={"TPU": 1})
    async with Runner(executors={"dask": DaskExecutor(own.address)}, limits=limits) as runner:
        assert (await runner.run([step(lambda: 1, name="s", run_on="dask", pool="TPU")]))["s"] == 1


async def test_a_pool_of_workers_that_have_all_died_is_waited_for(own: Cluster):
    for worker in own.workers:
        os.killpg(worker.pid, signal.SIGKILL)
    await asyncio.to_thread(lambda: [worker.wait() for worker in own.workers])
    async with Runner(executors={"dask": DaskExecutor(own.address)}) as runner:
        run = await runner.start([step(lambda: 1, name="one", run_on="dask", pool={"GPU": 1})])
        await asyncio.to_thread(own.heal)
        assert (await run.result())["one"] == 1


@pytest.mark.foreign_loop  # the scheduler's, in a thread of this process
async def test_a_cluster_of_its_own_is_started_and_ended():
    before = await asyncio.to_thread(children, "spawn_main")
    async with Runner(executors={"dask": DaskExecutor(local={"n_workers": 1})}) as runner:
        assert (await runner.run([step(os.getpid, name="pid", run_on="dask")]))["pid"] != os.getpid()
    assert await asyncio.to_thread(children, "spawn_main") <= before


async def test_a_client_of_the_caller_is_used_and_left_open(address: str):
    from distributed import Client

    client = await asyncio.to_thread(lambda: None) or Client(address, asynchronous=True, set_as_default=False)
    await client
    try:
        for _ in range(2):
            result = await run_pipeline(
                [step(lambda: 1, name="s", run_on="dask")], executors={"dask": DaskExecutor(client=client)}
            )
            assert result["s"] == 1
        assert client.status == "running"
    finally:
        await client.close()


async def test_only_one_cluster_can_be_meant():
    with pytest.raises(OptionError, match="only one of"):
        DaskExecutor("tcp://a", client=object())


async def test_one_executor_serves_several_runs_and_runners(address: str):
    executor = DaskExecutor(address)
    one = step(lambda: 1, name="one", run_on="dask")
    async with Runner(executors={"dask": executor}) as first, Runner(executors={"dask": executor}) as second:
        results = await asyncio.gather(*[runner.run([one]) for runner in (first, second) * 3])
    assert {result["one"] for result in results} == {1}
    assert (await run_pipeline([one], executors={"dask": executor})).ok


async def test_many_small_steps(address: str):
    mapped = step(lambda n: n + 1, name="m", map_over="n", inputs={"n": "ns"}, run_on="dask")
    result = await run_pipeline([mapped], {"ns": list(range(300))}, executors={"dask": DaskExecutor(address)})
    assert result["m"] == list(range(1, 301))


async def test_processes_and_the_cluster_hand_data_to_each_other(address: str):
    steps = [
        step(frame, run_on="process"),
        step(lambda frame: frame.assign(n=1), name="ones", run_on="dask"),
        step(lambda ones: int(ones["n"].sum()), name="sum", run_on="process"),
    ]
    result = await run_pipeline(steps, executors={"dask": DaskExecutor(address)}, targets=["sum"])
    assert result["sum"] == 50_000


async def test_what_is_read_later_of_lost_data_fails_the_step_that_made_it(own: Cluster):
    handle_error = DataLost("s", "gone.")
    assert isinstance(handle_error, WorkerLost)
    assert Retry().covers(handle_error)


def test_it_works_under_uvloop(address: str, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, uvloop\n"
        "from odibi_async import run_pipeline, step\n"
        "from odibi_async.executors.dask import DaskExecutor\n"
        "async def main():\n"
        "    double = step(lambda n: n * 2, name='double', run_on='dask')\n"
        "    result = await run_pipeline([double], {'n': 21}, executors={'dask': DaskExecutor(sys.argv[1])})\n"
        "    print(result['double'])\n"
        "uvloop.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), address],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


async def test_cancelled_before_it_began(address: str):
    executor = DaskExecutor(address)
    async with Runner(executors={"dask": executor}) as runner:
        slow = [step(lambda: time.sleep(0.3), name=f"s{i}", run_on="dask") for i in range(12)]
        run = await runner.start(slow)
        await asyncio.sleep(0.1)
        await run.cancel()
        assert run.status is Status.CANCELLED
        assert (await runner.run([step(lambda: 1, name="one", run_on="dask")]))["one"] == 1
