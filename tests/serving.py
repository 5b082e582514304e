"""A service for tests: in this process on a real uvicorn, or as a worker of its own that can be stopped and killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import uvicorn
from fastapi import FastAPI, Header, HTTPException

from odibi_async import Pipeline, Runner
from odibi_async.integrations.fastapi import Served, ServiceLimits, pipeline_router

JSON = {"Content-Type": "application/json"}
TOKEN = {"Authorization": "Bearer let me in"}


def require_token(authorization: str = Header(default="")) -> str:
    if authorization != TOKEN["Authorization"]:
        raise HTTPException(401, "A token is needed.", headers={"WWW-Authenticate": "Bearer"})
    return "somebody"


def load(n: int, label: str = "x") -> pd.DataFrame:
    return pd.DataFrame({"a": range(n), "b": [label] * n})


async def total(load: pd.DataFrame) -> int:
    return int(load["a"].sum())


async def boom(total: int) -> None:
    raise ValueError(f"no <b>{total}</b>")


class Flag:
    """A file that a step waits for, and a list of the steps that were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def called(self, name: str) -> None:
        """Notes a call. Blocks, like all here that is not async."""
        with (self.folder / "calls").open("a") as file:
            file.write(f"{name}\n")

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().split() if file.exists() else []

    async def raise_(self) -> None:
        await asyncio.to_thread((self.folder / "flag").touch)

    async def raised(self) -> None:
        while not await asyncio.to_thread((self.folder / "flag").exists):
            await asyncio.sleep(0.02)

    async def until_called(self, name: str, times: int = 1) -> None:
        for _ in range(3_000):
            if (await asyncio.to_thread(lambda: self.calls)).count(name) >= times:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.calls)


def first(n: int, folder: str) -> int:
    Flag(Path(folder)).called("first")
    return n + 1


async def held(first: int, folder: str) -> int:
    flag = Flag(Path(folder))
    await asyncio.to_thread(flag.called, "held")
    await flag.raised()
    return first * 2


async def last(held: int) -> int:
    return held + 1


SUM = Pipeline([load, total], ["n"])
BAD = Pipeline([load, total, boom], ["n"])


def slow(folder: Path, **how: Any) -> Served:
    """A pipeline whose second step waits for a flag."""
    return Served(Pipeline([first, held, last], ["n", "folder"]), given={"folder": str(folder)}, **how)


def pipelines(folder: Path) -> dict[str, Any]:
    return {"sum": SUM, "bad": BAD, "slow": slow(folder), "alone": slow(folder, overlap="forbid")}


def app_of(
    folder: Path,
    *,
    runner: Runner | None = None,
    offers: Mapping[str, Any] | None = None,
    auth: Callable[..., Any] | None = None,
    **how: Any,
) -> FastAPI:
    """An app with a service under `/p`."""
    runner = runner or Runner()
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, offers or pipelines(folder), auth=auth, **how), prefix="/p")
    return app


@contextlib.asynccontextmanager
async def served(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app on a real server in this loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([listening]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
            if serving.done():
                serving.result()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, **options) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def until(client: httpx.AsyncClient, run: str, *statuses: str) -> dict[str, Any]:
    """A run when it stands as it should."""
    for _ in range(1_500):
        answer = await client.get(run)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        if said["status"] in statuses:
            return said
        await asyncio.sleep(0.02)
    raise AssertionError(said)


class Worker:
    """A process with the service of `pipelines()`, over a journal."""

    def __init__(self, folder: Path, journal: str, store: Path) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.serving", str(folder), journal, str(store)],
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, self.log.read_text()
        self.url = f"http://127.0.0.1:{int(said)}"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30)

    def stop(self) -> int:
        """Asks it to stop, and waits until it has."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def main(folder: str, journal: str, store: str) -> None:
    from odibi_async import Journal

    runner = Runner(journal=Journal(journal, store=store), drain=0.5)
    app = app_of(Path(folder), runner=runner, limits=ServiceLimits(poll=0.1), story=True)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    print(listening.getsockname()[1], flush=True)
    server.run([listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
