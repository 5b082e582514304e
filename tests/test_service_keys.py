"""A key of a request stands for one run, for as long as it is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from odibi_async import Journal, Runner
from odibi_async.integrations.fastapi import ServiceLimits
from tests.serving import app_of, served
from tests.test_service import problem


async def begun(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/p/sum/runs?wait=9", json={"inputs": {"n": 3}}, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("has_journal", [False, True])
async def test_a_key_never_stands_for_a_second_run_when_its_own_is_not_kept_any_more(tmp_path: Path, has_journal: bool):
    def app(limits: ServiceLimits) -> FastAPI:
        runner = Runner(journal=Journal(tmp_path / "journal", keep_last=1)) if has_journal else Runner()
        return app_of(tmp_path, runner=runner, limits=limits)

    async with served(app(ServiceLimits(kept=1))) as client:
        first = (await begun(client, "first")).json()
        for other in ("a", "b", "c"):
            await begun(client, other)
        for _ in range(300):
            if (await client.get(first["links"]["self"])).status_code == 404:
                break
            await asyncio.sleep(0.02)
        said = problem(await begun(client, "first"), 409, "OA334")
        assert first["id"] in said["detail"]
    if has_journal:  # and in a worker that has never heard of it
        async with served(app(ServiceLimits())) as client:
            problem(await begun(client, "first"), 409, "OA334")


@pytest.mark.parametrize("has_journal", [False, True])
async def test_a_key_is_forgotten_in_its_time(tmp_path: Path, has_journal: bool):
    runner = Runner(journal=tmp_path / "journal") if has_journal else Runner()
    async with served(app_of(tmp_path, runner=runner, limits=ServiceLimits(key_seconds=3.0))) as client:
        one, again = [(await begun(client, "key")).json()["id"] for _ in range(2)]
        assert one == again
        await asyncio.sleep(3.0)
        assert (await begun(client, "key")).json()["id"] != one


async def test_keys_of_requests_that_are_refused_together_are_free_again(tmp_path: Path):
    app = app_of(tmp_path, runner=Runner(journal=tmp_path / "journal"), limits=ServiceLimits(runs=1, kept=0))
    async with served(app) as client:
        answers = await asyncio.gather(*[begun(client, f"key {number}") for number in range(60)])
        assert {each.status_code for each in answers} <= {200, 429}, [each.text for each in answers]
