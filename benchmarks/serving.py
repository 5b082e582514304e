"""
What a service of pipelines costs, beside a handler that calls the same functions by hand.

    python benchmarks/serving.py [--only overhead load waiting listeners] [--seconds 10] [--rate 200] [--rounds 5]
                                 [--requests 100] [--waiting 1000] [--listeners 500]

A real uvicorn serves on loopback, in a process of its own on one core. A pipeline has five small async steps, each of
which waits 1 ms, as one does that asks a database; `bare` steps do nothing at all.

    overhead    requests one after the other: the median latency, and the processor's time, beside the handler's
    load        so many requests a second: errors, and the 99th percentile of an unrelated /ping meanwhile, beside that
                under the same load of the handler
    waiting     so many requests that wait for the end of their runs at the same time
    listeners   so many listeners of the events of one run
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import psutil
from fastapi import FastAPI
from pydantic import BaseModel

from odibi_async import Pipeline, Runner, step
from odibi_async.integrations.fastapi import ServiceLimits, pipeline_router

SMALL_SECONDS: Final = 0.001
GATE = asyncio.Event()


# -- the server ----------------------------------------------------------------------------------------


class Work:
    """Five functions, and who reads whom: a diamond with a tail."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def a(self, n: int) -> int:
        await self._pause()
        return n + 1

    async def b(self, a: int) -> int:
        await self._pause()
        return a * 2

    async def c(self, a: int) -> int:
        await self._pause()
        return a * 3

    async def d(self, b: int, c: int) -> int:
        await self._pause()
        return b + c

    async def e(self, d: int) -> int:
        await self._pause()
        return d - 1

    async def _pause(self) -> None:
        if self._seconds:
            await asyncio.sleep(self._seconds)

    @property
    def pipeline(self) -> Pipeline:
        steps = [step(getattr(self, name), name=name) for name in "abcde"]
        return Pipeline(steps, ["n"])

    async def by_hand(self, n: int) -> int:
        one = await self.a(n)
        two, three = await asyncio.gather(self.b(one), self.c(one))
        return await self.e(await self.d(two, three))


class Inputs(BaseModel):
    n: int


class Body(BaseModel):
    inputs: Inputs


async def gated(n: int) -> int:
    await GATE.wait()
    return n


def app() -> FastAPI:
    runner = Runner(freeze=True)
    made = FastAPI(lifespan=runner.lifespan)
    works = {"small": Work(SMALL_SECONDS), "bare": Work(0.0)}
    pipelines = {name: work.pipeline for name, work in works.items()} | {"gated": Pipeline([gated], ["n"])}
    made.include_router(pipeline_router(runner, pipelines, auth=None, limits=ServiceLimits(runs=10_000), page=False))

    @made.get("/ping")
    async def ping() -> str:
        return "pong"

    @made.post("/open")
    async def open_gate() -> None:
        GATE.set()

    @made.post("/shut")
    async def shut_gate() -> None:
        GATE.clear()

    for name, work in works.items():
        _add_by_hand(made, name, work)
    return made


def _add_by_hand(made: FastAPI, name: str, work: Work) -> None:
    async def by_hand(body: Body) -> dict[str, Any]:
        return {"outputs": {"e": await work.by_hand(body.inputs.n)}}

    made.post(f"/by-hand/{name}")(by_hand)


def serve() -> None:
    import uvicorn

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app(), log_level="error", timeout_graceful_shutdown=2)).run([listening])


# -- a small client ------------------------------------------------------------------------------------


class Connection:
    """A connection over which one request goes after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, bytes]:
        """The status and the body of an answer."""
        reader, writer = await self._opened()
        content = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if content else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}Content-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        said = await reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in said.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        return int(said[9:12]), await reader.readexactly(int(length))

    async def listen(self, path: str) -> bytes:
        """All that a stream of events says."""
        reader, writer = await self._opened()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._pair is None:
            self._pair = await asyncio.open_connection("127.0.0.1", self._port)
        return self._pair

    def close(self) -> None:
        if self._pair is not None:
            self._pair[1].close()
            self._pair = None


class Pool:
    """Connections that are used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Connection] = []

    async def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, bytes]:
        connection = self._free.pop() if self._free else Connection(self._port)
        answer = await connection.ask(path, body, method)
        self._free.append(connection)
        return answer

    def close(self) -> None:
        for each in self._free:
            each.close()


ASKED: Final = {"inputs": {"n": 5}}
WAYS: Final = {"run": "/{}/runs?wait=30", "by hand": "/by-hand/{}"}


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def judged(ratio: float, most: float) -> str:
    return f"(target: at most {most:g}, {'met' if ratio <= most else 'missed'})"


# -- the parts -----------------------------------------------------------------------------------------


async def overhead(port: int, server: psutil.Process, options: argparse.Namespace) -> None:
    """Requests one after the other; the two ways take turns, and what counts is the median of the rounds' ratios."""
    for name in ("small", "bare"):
        latencies, processor = [], []
        pool = Pool(port)
        for _ in range(options.rounds):
            took: dict[str, tuple[float, float]] = {}
            for way, path in WAYS.items():
                seconds, before = [], server.cpu_times()
                for _ in range(options.requests):
                    start = time.perf_counter()
                    status, _ = await pool.ask(path.format(name), ASKED)
                    seconds.append(time.perf_counter() - start)
                    assert status == 200, status
                after = server.cpu_times()
                used = after.user + after.system - before.user - before.system
                took[way] = statistics.median(seconds), max(used, 1e-3) / options.requests
            latencies.append(took["run"][0] / took["by hand"][0])
            processor.append(took["run"][1] / took["by hand"][1])
        pool.close()
        ratio, spread = statistics.median(latencies), f"{min(latencies):.2f} to {max(latencies):.2f}"
        target = judged(ratio, 1.5) if name == "small" else "(no target)"
        print(f"overhead, {name} steps: latency {ratio:.2f} ({spread}) times by hand {target}")
        print(f"overhead, {name} steps: processor {statistics.median(processor):.2f} times by hand")


async def load(port: int, _: psutil.Process, options: argparse.Namespace) -> None:
    """An even flow of requests, whether or not they are answered, and pings beside it."""
    ratios, errors = [], dict.fromkeys(WAYS, 0)
    pings: dict[str, list[float]] = {way: [] for way in WAYS}
    for _round in range(options.rounds):
        found = {way: await _under_load(port, path.format("small"), options) for way, path in WAYS.items()}
        for way, (seconds, failed) in found.items():
            pings[way].append(p99(seconds))
            errors[way] += failed
        ratios.append(pings["run"][-1] / pings["by hand"][-1])
    count = int(options.rate * options.seconds) * options.rounds
    ratio, spread = statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"load: {options.rate} runs a second, {count} in all, {errors['run']} errors")
    own = f"{statistics.median(pings['run']) * 1e3:.1f} ms"
    print(f"load: p99 of /ping {own}, {ratio:.2f} ({spread}) times by hand {judged(ratio, 1.5)}")


async def _under_load(port: int, path: str, options: argparse.Namespace) -> tuple[list[float], int]:
    pool, pings, failed = Pool(port), Pool(port), 0
    seconds: list[float] = []

    async def one() -> None:
        nonlocal failed
        status, _ = await pool.ask(path, ASKED)
        failed += status != 200

    async def ping() -> None:
        start = time.perf_counter()
        await pings.ask("/ping", method="GET")
        seconds.append(time.perf_counter() - start)

    await asyncio.gather(_paced(one, options.rate, options.seconds), _paced(ping, 50, options.seconds))
    pool.close()
    pings.close()
    return seconds, failed


async def _paced(call: Callable[[], Awaitable[None]], rate: float, seconds: float) -> None:
    """Calls so often a second, each at its own time."""
    begun, calls = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        calls.append(asyncio.ensure_future(call()))
    await asyncio.gather(*calls)


async def waiting(port: int, server: psutil.Process, options: argparse.Namespace) -> None:
    """Requests that all wait until a gate opens."""
    pool = Pool(port)
    await pool.ask("/shut")
    before = server.memory_info().rss
    asked = [asyncio.ensure_future(pool.ask("/gated/runs?wait=60", ASKED)) for _ in range(options.waiting)]
    while True:
        pause = asyncio.create_task(asyncio.sleep(0.5))
        done, _ = await asyncio.wait([*asked, pause], return_when=asyncio.FIRST_COMPLETED)
        if pause in done and await _running(pool) >= options.waiting:
            break
    pings = []
    for _ in range(20):
        begun = time.perf_counter()
        await pool.ask("/ping", method="GET")
        pings.append(time.perf_counter() - begun)
    more = (server.memory_info().rss - before) / 1e6
    start = time.perf_counter()
    await pool.ask("/open")
    answers = await asyncio.gather(*asked)
    succeeded = sum(status == 200 and json.loads(said)["status"] == "succeeded" for status, said in answers)
    print(
        f"waiting: {succeeded} of {options.waiting} runs waited for at a time succeeded, all answered "
        f"{time.perf_counter() - start:.2f} s after they could, {more:.0f} MB; /ping meanwhile "
        f"{statistics.median(pings) * 1e3:.1f} ms"
    )
    pool.close()


async def _running(pool: Pool) -> int:
    count, cursor = 0, ""
    while True:
        _, said = await pool.ask(f"/runs?pipeline=gated&status=running&limit=200{cursor}", method="GET")
        page = json.loads(said)
        count += len(page["runs"])
        if page["next"] is None:
            return count
        cursor = f"&cursor={page['next']}"


async def listeners(port: int, __: psutil.Process, options: argparse.Namespace) -> None:
    """Listeners of one run, each with the whole story of it."""
    pool = Pool(port)
    await pool.ask("/shut")
    _, said = await pool.ask("/gated/runs", ASKED)
    place = json.loads(said)["links"]["events"]
    connections = [Connection(port) for _ in range(options.listeners)]
    hearing = [asyncio.ensure_future(each.listen(place)) for each in connections]
    await asyncio.sleep(1.0)
    start = time.perf_counter()
    await pool.ask("/open")
    heard = await asyncio.gather(*hearing)
    whole = sum(b"event: run.started" in each and b"event: run.finished" in each for each in heard)
    seconds = time.perf_counter() - start
    print(f"listeners: {whole} of {options.listeners} heard one run to its end, the last {seconds:.2f} s after it")
    for each in connections:
        each.close()
    pool.close()


PARTS: Final = {"overhead": overhead, "load": load, "waiting": waiting, "listeners": listeners}


async def measured(port: int, server: psutil.Process, options: argparse.Namespace) -> None:
    pool = Pool(port)
    for path in WAYS.values():  # the first requests load what is loaded late
        await asyncio.gather(*[pool.ask(path.format("small"), ASKED) for _ in range(50)])
    pool.close()
    for name in options.only:
        await PARTS[name](port, server, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--waiting", type=int, default=1_000)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    serving = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        port = int(serving.stdout.readline())
        asyncio.run(measured(port, psutil.Process(serving.pid), options))
    finally:
        serving.terminate()
        serving.communicate(timeout=10)


if __name__ == "__main__":
    main()
