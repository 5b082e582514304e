"""Pipelines in web apps without the router: in endpoints, background tasks, dependencies and other frameworks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import get as litestar_get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from odibi_async import Pipeline, RunError, Runner, RunResult, run_pipeline


async def doubled(n: int) -> int:
    if n < 0:
        raise ValueError("n is below 0")
    return 2 * n


async def told(doubled: int) -> str:
    return f"{doubled}"


PIPELINE = Pipeline([doubled, told], ["n"])


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


async def test_in_an_endpoint():
    app = FastAPI()

    @app.get("/told/{n}")
    async def endpoint(n: int) -> str:
        try:
            result = await run_pipeline(PIPELINE, {"n": n})
        except RunError as error:
            raise HTTPException(422, str(error)) from error
        return str(result["told"])

    async with client_of(app) as client:
        assert (await client.get("/told/3")).json() == "6"
        failed = await client.get("/told/-1")
        assert failed.status_code == 422
        assert "n is below 0" in failed.json()["detail"]
        answers = await asyncio.gather(*[client.get(f"/told/{n}") for n in range(100)])
        assert [each.json() for each in answers] == [str(2 * n) for n in range(100)]


async def test_in_a_background_task():
    runner, done = Runner(), list[RunResult]()
    app = FastAPI(lifespan=runner.lifespan)

    async def work(n: int) -> None:
        done.append(await runner.run(PIPELINE, {"n": n}))

    @app.post("/told/{n}", status_code=202)
    async def endpoint(n: int, background: BackgroundTasks) -> None:
        background.add_task(work, n)

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.post("/told/3")).status_code == 202
    assert [each["told"] for each in done] == ["6"]


async def test_from_a_dependency():
    runner = Runner()
    app = FastAPI(lifespan=runner.lifespan)

    async def result(n: int) -> RunResult:
        return await runner.run(PIPELINE, {"n": n})

    @app.get("/told")
    async def endpoint(result: RunResult = Depends(result)) -> dict[str, Any]:  # noqa: B008
        return {"told": result["told"], "steps": len(result.steps)}

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/told?n=4")).json() == {"told": "8", "steps": 2}


async def test_in_starlette():
    runner = Runner()

    async def endpoint(request: Request) -> JSONResponse:
        run = await runner.start(PIPELINE, {"n": int(request.path_params["n"])})
        return JSONResponse({"id": run.id, "told": (await run.result())["told"]})

    app = Starlette(routes=[Route("/told/{n}", endpoint)], lifespan=runner.lifespan)
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/told/5")).json()["told"] == "10"


@pytest.mark.foreign_loop  # it imports while it serves
async def test_in_litestar():
    runner = Runner()

    @litestar_get("/told/{n:int}")
    async def endpoint(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
        result = await runner.run(PIPELINE, {"n": request.path_params["n"]})
        return {"told": result["told"]}

    app = Litestar([endpoint], lifespan=[runner.lifespan])
    async with app.lifespan(), client_of(app) as client:
        assert (await client.get("/told/6")).json() == {"told": "12"}
