"""A Dask cluster from start to end: certificates, versions, a scheduler that dies, and where the caller runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
import trustme
from fastapi import FastAPI
from nbclient import NotebookClient

from odibi_async import RunError, Runner, Status, run_pipeline, step
from odibi_async.errors import ClusterError
from odibi_async.events import StepFinished
from odibi_async.executors.dask import DaskExecutor
from odibi_async.testing import Recorder
from tests.clusters import ROOT, Cluster
from tests.test_dask import address, own  # noqa: F401

DOUBLE = step(lambda n: n * 2, name="double", run_on="dask")


class Certificates:
    """An authority, and certificates of it for this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    @property
    def security(self) -> Any:
        from distributed import Security

        return Security(
            require_encryption=True, tls_ca_file=self.ca, tls_client_cert=self.cert, tls_client_key=self.key
        )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "ours")


@pytest.fixture
def secured(tmp_path: Path, certificates: Certificates) -> Iterator[Cluster]:
    options = ("--tls-ca-file", certificates.ca, "--tls-cert", certificates.cert, "--tls-key", certificates.key)
    started = Cluster(tmp_path, tls=options)
    yield started
    started.end()


async def test_tls_from_end_to_end(secured: Cluster, certificates: Certificates, tmp_path: Path):
    assert secured.address.startswith("tls://")
    security = await asyncio.to_thread(lambda: certificates.security)
    executor = DaskExecutor(secured.address, security=security)
    result = await run_pipeline([DOUBLE], {"n": list(range(5000))}, executors={"dask": executor})
    assert len(result["double"]) == 10_000
    strangers = await asyncio.to_thread(lambda: Certificates(tmp_path / "theirs").security)
    for refused in (
        DaskExecutor(secured.address, security=strangers, timeout=3),
        DaskExecutor(secured.address.replace("tls", "tcp"), timeout=3),
    ):
        with pytest.raises(ClusterError, match="does not answer"):
            await run_pipeline([DOUBLE], {"n": 1}, executors={"dask": refused})


async def test_workers_with_another_version_are_told_when_it_connects(tmp_path: Path):
    about = tmp_path / "odibi_async-99.0.dist-info"

    def start() -> Cluster:
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odibi_async\nVersion: 99.0\n")
        return Cluster(tmp_path, environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})

    others = await asyncio.to_thread(start)
    try:
        from distributed import Client

        async with Client(others.address, asynchronous=True, set_as_default=False) as client:
            await client.wait_for_workers(1, timeout=30)
        with pytest.raises(ClusterError, match=r"has odibi_async 99\.0, this process .*Install the same versions"):
            await run_pipeline([DOUBLE], {"n": 1}, executors={"dask": DaskExecutor(others.address)})
    finally:
        await asyncio.to_thread(others.end)


async def test_a_run_whose_scheduler_died_is_resumed_with_a_journal(own: Cluster, tmp_path: Path):  # noqa: F811
    def first(n: int, calls: str) -> int:
        with open(calls, "a", encoding="ascii") as file:
            file.write("x")
        return n + 1

    def second(first: int, gate: str) -> int:
        while not os.path.exists(gate):
            time.sleep(0.05)
        return first * 10

    calls, gate, heard = tmp_path / "calls", tmp_path / "gate", Recorder()
    steps = [
        step(first, run_on="dask", params={"calls": str(calls)}),
        step(second, run_on="dask", params={"gate": str(gate)}),
    ]
    journal = str(tmp_path / "journal")
    async with Runner(executors={"dask": DaskExecutor(own.address, timeout=10)}, journal=journal) as runner:
        run = await runner.start(steps, {"n": 1}, observers=[heard])
        await heard.wait_for(StepFinished, step="first")
        own.scheduler.kill()
        died = time.monotonic()
        with pytest.raises(RunError, match=r"The Dask scheduler does not answer.*run the pipeline again"):
            await run.result()
        assert time.monotonic() - died < 10
        await asyncio.to_thread(own.revive)
        await asyncio.to_thread(gate.touch)
        again = await runner.run(steps, {"n": 1}, run_id=run.id, resume=True)
    assert again["second"] == 20
    assert again.steps["first"].status is Status.RESUMED
    assert await asyncio.to_thread(calls.read_text) == "x"


async def test_it_works_within_fastapi(address: str):  # noqa: F811
    runner = Runner(executors={"dask": DaskExecutor(address)})
    app = FastAPI(lifespan=runner.lifespan)

    @app.get("/double/{n}")
    async def double(n: int) -> Any:
        return (await runner.run([DOUBLE], {"n": n}))["double"]

    async with (
        runner.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        answers = await asyncio.gather(*[client.get(f"/double/{n}") for n in range(5)])
    assert [answer.json() for answer in answers] == [0, 2, 4, 6, 8]


@pytest.mark.foreign_loop
async def test_it_works_in_a_notebook(address: str, tmp_path: Path):  # noqa: F811
    cells = [
        "from odibi_async import run_pipeline, step\nfrom odibi_async.executors.dask import DaskExecutor\nFACTOR = 2",
        "@step(run_on='dask')\ndef double(n): return n * FACTOR",
        f"result = await run_pipeline([double], {{'n': 21}}, executors={{'dask': DaskExecutor({address!r})}})\n"
        "print(result['double'])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    await NotebookClient(notebook, timeout=50, resources={"metadata": {"path": str(tmp_path)}}).async_execute()
    [printed] = [output.text for output in notebook.cells[-1].outputs if output.output_type == "stream"]
    assert printed == "42\n"
