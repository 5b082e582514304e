"""The router: pipelines as a service inside your own FastAPI app."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
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
from odibi_async.integrations.fastapi.schedules import ScheduleRoutes
from odibi_async.integrations.fastapi.served import Offer, Served
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.streams import StreamRoutes
from odibi_async.integrations.fastapi.upkeep import kept_up
from odibi_async.integrations.fastapi.values import Values
from odibi_async.runner import Runner
from odibi_async.schedule import Schedules
from odibi_async.stream import Queue, Stream

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
    schedules: Schedules | None = None,
    streams: Mapping[str, Stream] | None = None,
    queues: Mapping[str, Queue] | None = None,
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
        schedules: `Schedules(...)` that fire as long as the app runs; it begins and stops them.
        streams: Name -> stream, of `run_stream(...)`, which the app begins and stops likewise.
        queues: Name -> `Queue` of one of these streams, which events are put into.

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
        lifespan=_lifespan(service, schedules, [*(streams or {}).values()], runner.drain),
        tags=["pipelines"],
    )
    refusals = () if auth is None else REFUSALS
    if page:
        add_page(router, refusals)
    PipelineRoutes(service, values, allowed, has_story=story).add_to(router, refusals)
    # In this order: where a path can be read in two ways, the longer one is tried first.
    ResultRoutes(service, values, has_story=story).add_to(router, refusals)
    EventRoutes(service).add_to(router, refusals)
    RunRoutes(service, allowed, has_story=story).add_to(router, refusals)
    ScheduleRoutes(schedules, service, allowed).add_to(router, refusals)
    StreamRoutes(service, streams or {}, queues or {}, allowed).add_to(router, refusals)
    return router


def _lifespan(
    service: Service, schedules: Schedules | None, streams: Sequence[Stream], drain: float
) -> Callable[[object], contextlib.AbstractAsyncContextManager[None]]:
    """The router's part of the life of the app: what runs beside the requests, within what answers them."""

    @contextlib.asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with service.owned.lifespan(app), kept_up(schedules, streams, drain):
            yield

    return lifespan
