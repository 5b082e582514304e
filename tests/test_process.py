"""Worker processes: what kills them costs one attempt, and none is left behind."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from fastapi import FastAPI

from odibi_async import Limits, Retry, RunError, Runner, Status, run_pipeline, step
from odibi_async.errors import Damaged, StepError, Unstorable, WorkerLost
from odibi_async.events import StepProgressed, StepRetrying, StepStarted
from odibi_async.executors.filing import filed, read
from odibi_async.testing import Recorder
from tests.processes import children

ROOT = Path(__file__).parents[1]


async def workers() -> list[int]:
    """The worker processes of this process."""
    return sorted(await asyncio.to_thread(children, "executors.worker"))


@pytest.fixture(autouse=True)
async def _no_process_is_left():
    yield
    assert not await workers()


def die(how: str, path: str = "") -> str:
    if path:
        if os.path.exists(path):
            return "alive"
        Path(path).touch()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    return "alive"


ENDS = [("killed", "SIGKILL. The system may have run out of memory"), ("segfault", "SIGSEGV"), ("exit", "exit code 3")]


@pytest.mark.parametrize(("how", "told"), ENDS)
async def test_a_worker_that_ends_is_the_failure_of_one_step(how: str, told: str):
    def other() -> int:
        time.sleep(0.5)
        return 1

    steps = [
        step(die, run_on="process"),
        step(other, run_on="process"),
        step(lambda other: 2, name="more", run_on="process"),
    ]
    result = await run_pipeline(steps, {"how": how}, on_error="continue", limits=Limits(processes=2))
    assert (result["other"], result["more"]) == (1, 2)
    [failure] = result.failures.values()
    assert isinstance(failure.error, WorkerLost)
    assert failure.code == "OA321"
    assert told in str(failure)
    assert result.steps["die"].attempts == 1


@pytest.mark.parametrize("how", [how for how, _ in ENDS])
async def test_a_lost_worker_costs_one_attempt(how: str, tmp_path: Path):
    again = step(die, run_on="process", retry=Retry(attempts=2, wait=0))
    result = await run_pipeline([again], {"how": how, "path": str(tmp_path / "died")}, limits=Limits(processes=1))
    assert (result["die"], result.steps["die"].attempts) == ("alive", 2)


def silenced() -> int:
    sys.stdout = None  # type: ignore[assignment]
    sys.stderr.close()
    return 1


async def test_a_step_may_close_what_it_prints_to():
    assert (await run_pipeline([step(silenced, run_on="process")]))["silenced"] == 1


async def test_retry_can_be_told_not_to_cover_lost_workers():
    assert Retry().covers(WorkerLost("s", "gone."))
    assert not Retry(never=(WorkerLost,)).covers(WorkerLost("s", "gone."))
    assert not Retry(on=(OSError,)).covers(WorkerLost("s", "gone."))


async def test_processes_are_used_again_and_end_with_their_runner():
    async with Runner(limits=Limits(processes=1)) as runner:
        pids = {(await runner.run([step(os.getpid, name="pid", run_on="process")]))["pid"] for _ in range(5)}
        assert pids == set(await workers())
        assert pids != {os.getpid()}
    assert not await workers()


async def test_a_runner_that_is_used_again_has_new_processes():
    runner = Runner()
    for _ in range(2):
        async with runner:
            assert (await runner.run([step(lambda: 1, name="s", run_on="process")]))["s"] == 1
        assert not await workers()


async def test_a_worker_that_was_killed_while_it_was_idle_is_replaced():
    async with Runner(limits=Limits(processes=1)) as runner:
        pid = step(os.getpid, name="pid", run_on="process")
        first = (await runner.run([pid]))["pid"]
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(gone, first)
        assert (await runner.run([pid]))["pid"] != first


def gone(pid: int) -> None:
    for _ in range(500):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


async def test_no_more_processes_than_the_limits_say():
    def busy(n: int) -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(0.05)
        return began, time.monotonic()

    mapped = step(busy, map_over="n", inputs={"n": "ns"}, run_on="process")
    spans = (await run_pipeline([mapped], {"ns": list(range(6))}, limits=Limits(processes=2)))["busy"]
    assert max(sum(a <= began < b for a, b in spans) for began, _ in spans) == 2


async def test_processes_that_a_step_has_started_end_with_it(tmp_path: Path):
    def parent(path: str) -> None:
        child = subprocess.Popen(["sleep", "60"])
        Path(path).write_text(str(child.pid))
        time.sleep(60)

    path = tmp_path / "child"
    with pytest.raises(RunError, match="TimeoutError"):
        await run_pipeline([step(parent, run_on="process", timeout=1)], {"path": str(path)})
    await asyncio.to_thread(gone, int(await asyncio.to_thread(path.read_text)))


def fork_and_die(path: str) -> None:
    pid = os.fork()
    if not pid:
        time.sleep(30)
        os._exit(0)
    Path(path).write_text(str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


async def test_a_process_that_a_dead_worker_has_forked_holds_nobody_up(tmp_path: Path):
    path = tmp_path / "child"
    began = time.monotonic()
    with pytest.raises(RunError, match="SIGKILL"):
        await run_pipeline([step(fork_and_die, run_on="process")], {"path": str(path)})
    assert time.monotonic() - began < 20
    await asyncio.to_thread(gone, int(await asyncio.to_thread(path.read_text)))


async def test_workers_that_are_killed_at_random_cost_no_result(heard: Recorder):
    def busy(n: int) -> pd.DataFrame:
        time.sleep(0.02)
        return pd.DataFrame({"n": np.full(10_000, n)})

    steps = [
        step(busy, map_over="n", inputs={"n": "ns"}, run_on="process", retry=Retry(attempts=50, wait=0)),
        step(
            lambda busy: [int(each["n"].iloc[0]) for each in busy],
            name="all",
            run_on="process",
            retry=Retry(attempts=50, wait=0),
        ),
    ]

    progress = asyncio.Semaphore(0)

    def on_progress(event: Any) -> None:
        if isinstance(event, StepProgressed) and event.done % 10 == 5:
            progress.release()

    async def murder() -> None:
        while True:
            await progress.acquire()
            os.kill(random.choice(await workers()), signal.SIGKILL)

    async with Runner(limits=Limits(processes=2)) as runner:
        murderer = asyncio.create_task(murder())
        try:
            result = await runner.run(steps, {"ns": list(range(60))}, observers=[heard, on_progress])
        finally:
            murderer.cancel()
            await asyncio.wait([murderer])
    assert result["all"] == list(range(60))
    assert len(heard.of(StepStarted)) == 2
    assert heard.of(StepRetrying)


async def test_files_of_dropped_datasets_are_removed_while_the_runner_lives(tmp_path: Path):
    big = step(lambda: np.arange(20_000), name="big", run_on="process")
    count = step(len, name="count", inputs={"obj": "big"}, run_on="process")
    async with Runner(limits=Limits(temp_directory=tmp_path, processes=1)) as runner:
        for _ in range(5):
            await runner.run([big, count], targets=["count"])
        gc.collect()
        await runner.run([count], {"big": np.arange(20_000)})
        assert len(await asyncio.to_thread(lambda: [*tmp_path.rglob("*")])) <= 2
    assert not await asyncio.to_thread(lambda: [*tmp_path.iterdir()])


def test_damaged_files_are_told(tmp_path: Path):
    file = filed(np.arange(20_000), str(tmp_path))
    np.testing.assert_array_equal(read(file), np.arange(20_000))
    data = bytearray(Path(file.path).read_bytes())
    data[-1] ^= 1
    Path(file.path).write_bytes(data)
    with pytest.raises(Damaged, match="not those that were written"):
        read(file)
    file.remove()
    with pytest.raises(Damaged, match="cannot be read"):
        read(file)
    with pytest.raises(Unstorable):
        filed({"a": 1}, str(tmp_path))


def test_what_is_read_may_be_written_to_and_stays_ones_own(tmp_path: Path):
    file = filed(pd.DataFrame({"n": np.arange(20_000)}), str(tmp_path))
    mine, other = read(file), read(file)
    mine.loc[0, "n"] = 7
    assert other["n"].iloc[0] == 0
    assert read(file)["n"].iloc[0] == 0


SCRIPT = """
import asyncio, os
from dataclasses import dataclass
from odibi_async import run_pipeline, run_pipeline_sync, step

@dataclass
class Order:
    n: int

FACTOR = 3

def factor(): return FACTOR

@step(run_on="process")
def orders(): return [Order(1), Order(2)]

@step(run_on="process")
async def total(orders): return sum(order.n for order in orders) * factor()

@step(run_on="process")
def same(orders): return orders(), isinstance(orders()[0], Order), os.getpid()
"""


def output_of(script: str, folder: Path, **environment: str) -> str:
    path = folder / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_needs_no_guard(tmp_path: Path):
    script = f"{SCRIPT}\nresult = run_pipeline_sync([orders, total])\nprint(result['total'], result['orders'][0])"
    assert output_of(script, tmp_path) == "9 Order(n=1)\n"


def test_a_step_that_another_one_calls_comes_along(tmp_path: Path):
    script = SCRIPT.replace("def same(orders):", "def same():") + (
        "\nresult = run_pipeline_sync([same])['same']\nprint(result[0], result[1], result[2] != os.getpid())"
    )
    assert output_of(script, tmp_path) == "[Order(n=1), Order(n=2)] True True\n"


def test_it_works_under_uvloop(tmp_path: Path):
    script = f"import uvloop\n{SCRIPT}\nprint(uvloop.run(run_pipeline([orders, total]))['total'])"
    assert output_of(script, tmp_path) == "9\n"


def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time, pathlib, os\n"
        "from odibi_async import run_pipeline_sync, step\n"
        "def forever(path):\n"
        "    pathlib.Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        f"run_pipeline_sync([step(forever, run_on='process')], {{'path': {str(tmp_path / 'pid')!r}}})\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    for _ in range(1000):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    gone(int((tmp_path / "pid").read_text()))


@pytest.mark.foreign_loop
async def test_it_works_in_a_notebook(tmp_path: Path):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "from odibi_async import run_pipeline, step\nFACTOR = 2",
        "@step(run_on='process')\ndef double(n): return n * FACTOR",
        "result = await run_pipeline([double], {'n': 21})\nprint(result['double'])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    await NotebookClient(notebook, timeout=50, resources={"metadata": {"path": str(tmp_path)}}).async_execute()
    [printed] = [output.text for output in notebook.cells[-1].outputs if output.output_type == "stream"]
    assert printed == "42\n"


async def test_it_works_within_fastapi():
    runner = Runner(limits=Limits(processes=1))
    app = FastAPI(lifespan=runner.lifespan)

    @app.get("/double/{n}")
    async def double(n: int) -> Any:
        return (await runner.run([step(lambda n: n * 2, name="double", run_on="process")], {"n": n}))["double"]

    async with (
        runner.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        answers = await asyncio.gather(*[client.get(f"/double/{n}") for n in range(5)])
    assert [answer.json() for answer in answers] == [0, 2, 4, 6, 8]


async def test_a_step_of_the_command_line_runs_in_a_process(tmp_path: Path):
    path = tmp_path / "flow.py"

    def write() -> subprocess.CompletedProcess[str]:
        path.write_text(
            "from odibi_async import step\n"
            "class Own(Exception): pass\n"
            "def helper(): return 41\n"
            "@step(run_on='process')\ndef answer(): return helper() + 1\n"
            "STEPS = [answer]\n"
        )
        command = [sys.executable, "-m", "odibi_async", "run", f"{path}:STEPS", "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)

    done = await asyncio.to_thread(write)
    assert done.returncode == 0, done.stderr + done.stdout


async def test_the_error_of_a_lost_worker_pickles():
    import pickle

    error = pickle.loads(pickle.dumps(StepError("s", WorkerLost("s", "gone."))))
    assert str(error.error) == "The worker that called step 's' is lost: gone."


async def test_a_runner_that_is_closed_ends_its_steps():
    async with Runner() as runner:
        run = await runner.start([step(lambda: time.sleep(60), name="s", run_on="process")])
        async for event in run.events():
            if isinstance(event, StepStarted):
                break
    assert run.status is Status.CANCELLED


async def test_a_frame_that_many_calls_read_is_written_once(monkeypatch: pytest.MonkeyPatch):
    from odibi_async.executors import process

    written = []

    def counted(value: Any, folder: str) -> Any:
        written.append(value)
        return filed(value, folder)

    monkeypatch.setattr(process, "filed", counted)
    frame = pd.DataFrame({"n": np.arange(20_000)})
    mapped = step(lambda n, frame: len(frame) + n, name="m", map_over="n", inputs={"n": "ns"}, run_on="process")
    async with Runner(limits=Limits(processes=2)) as runner:
        assert (await runner.run([mapped], {"frame": frame, "ns": list(range(10))}))["m"][9] == 20_009
        assert len(written) == 1
        frame["n"] = -1
        total = step(lambda frame: int(frame["n"].sum()), name="total", run_on="process")
        assert (await runner.run([total], {"frame": frame}))["total"] == -20_000
