"""The router: pipelines as a service inside your own FastAPI app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Depends

from odibi_async.building import Planned
from odibi_async.integrations.fastapi.events import EventRoutes
from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.live import add_page
from odibi_async.integrations.fastapi.pipelines import PipelineRoutes
from odibi_async.integrations.fastapi.problems import ProblemRoute, ServiceError
from odibi_async.integrations.fastapi.results import ResultRoutes
from odibi_async.integrations.fastapi.runs import RunRoutes
from odibi_async.integrations.fastapi.served import Offer, Served
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.values import Values
from odibi_async.runner import Runner

REFUSALS: Final = (401, 403)
"""What a dependency that lets callers in usually answers."""


def pipeline_router(
    runner: Runner,
    pipelines: Mapping[str, Planned | Served],
    *,
    auth: Callable[..., Any] | None,
    prefix: str = "",
    story: bool = False,
    page: bool = True,
    origins: Iterable[str] = (),
    limits: ServiceLimits | None = None,
) -> APIRouter:
    """
    A router with all that a service of pipelines needs: `app.include_router(pipeline_router(...))`.

    The runs live as long as the runner: `FastAPI(lifespan=runner.lifespan)`. With a journal, several workers show,
    cancel and resume each other's runs.

    Args:
        runner: What runs the pipelines.
        pipelines: Name -> pipeline, or `Served(pipeline, ...)`. Nothing else can be run.
        auth: A dependency of FastAPI that lets a caller in, or raises. It stands before every route. `None` lets
            everybody in.
        prefix: The beginning of all paths, `/pipelines` say; here or in `include_router`.
        story: Whether runs have a page that tells their story, with the first rows of their datasets and with code.
        page: Whether there is a live page at `/`.
        origins: Other sites whose pages may begin, cancel and resume runs: `["https://example.org"]`.
        limits: How much is taken on.

    Raises:
        ServiceError: A pipeline cannot be served so.
    """
    if auth is not None and not callable(auth):
        raise ServiceError(f"auth={auth!r}: a dependency of FastAPI is needed, a function that raises HTTPException.")
    if not isinstance(runner, Runner):
        raise ServiceError(f"runner={runner!r}: a Runner is needed.")
    limits = limits or ServiceLimits()
    offers = {name: Offer(name, each if isinstance(each, Served) else Served(each)) for name, each in pipelines.items()}
    service, values = Service(runner, offers, limits), Values(limits)
    allowed = frozenset(origin.rstrip("/").lower() for origin in origins)
    dependencies = [] if auth is None else [Depends(auth)]
    router = APIRouter(
        prefix=prefix,
        dependencies=dependencies,
        route_class=ProblemRoute,
        lifespan=service.lifespan,
        tags=["pipelines"],
    )
    refusals = () if auth is None else REFUSALS
    if page:
        add_page(router, refusals)
    PipelineRoutes(service, values, allowed, has_story=story).add_to(router, refusals)
    RunRoutes(service, allowed, has_story=story).add_to(router, refusals)
    EventRoutes(service).add_to(router, refusals)
    ResultRoutes(service, values, has_story=story).add_to(router, refusals)
    return router
