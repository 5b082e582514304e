"""The routes about pipelines: which there are, what they are, their graph, and beginning a run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.graph.drawing import boxes
from odibi_async.graph.svg import svg
from odibi_async.integrations.fastapi.answers import answered, base_of
from odibi_async.integrations.fastapi.documents import (
    AcceptedDocument,
    DescribedPipeline,
    EndedDocument,
    PipelinesDocument,
)
from odibi_async.integrations.fastapi.doors import body_of, watching
from odibi_async.integrations.fastapi.entry import Ending, Entry, give_up
from odibi_async.integrations.fastapi.problems import invalid, listed
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.integrations.fastapi.shown import error_of, id_of, links_of, status_of
from odibi_async.integrations.fastapi.values import Values

SVG_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

KEY_LETTERS: Final = 255
"""Letters of an `Idempotency-Key`."""


class PipelineRoutes:
    """
    The routes about pipelines.

    Args:
        service: What does it.
        values: Makes datasets into JSON.
        origins: Pages of other sites that may begin runs.
        has_story: Whether runs have a story.
    """

    def __init__(self, service: Service, values: Values, origins: frozenset[str], *, has_story: bool) -> None:
        self._service = service
        self._values = values
        self._origins = origins
        self._has_story = has_story

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds them, with those of each pipeline under its own name, so that they hide no other path of an app."""
        document = {200: {"model": PipelinesDocument}, **listed(*refusals)}
        router.get("/pipelines", summary="List the pipelines", responses=document)(self.pipelines)
        for offer in self._service.offers.values():
            self._add(router, offer, refusals)

    def _add(self, router: APIRouter, offer: Offer, refusals: tuple[int, ...]) -> None:
        name = offer.name

        async def describe(request: Request) -> Response:
            return await self.describe(offer, request)

        async def graph(request: Request) -> Response:
            return await self.graph(offer)

        described: Any = {200: {"model": DescribedPipeline}, **listed(*refusals)}
        route = router.get(f"/{name}", name=f"describe_{name}", summary=f"Describe {name}", responses=described)
        route(describe)
        drawing = {"content": {"image/svg+xml": {"schema": {"type": "string"}}}, "description": "The graph"}
        drawn: Any = {200: drawing, **listed(*refusals)}
        place, about = f"/{name}/graph.svg", f"Draw {name}"
        route = router.get(place, name=f"draw_{name}", summary=about, responses=drawn, response_class=Response)
        route(graph)
        self._add_begin(router, offer, refusals)

    def _add_begin(self, router: APIRouter, offer: Offer, refusals: tuple[int, ...]) -> None:
        longest, schema = self._service.limits.wait, offer.asks.body_schema
        body = {"required": "required" in schema, "content": {"application/json": {"schema": schema}}}
        begun: Any = {
            200: {"model": EndedDocument, "description": "The run is over"},
            202: {"model": AcceptedDocument, "description": "The run has begun"},
            **listed(*refusals, 403, 409, 413, 415, 422, 429, 503),
        }

        async def begin(request: Request) -> Response:
            return await self.begin(offer, request, *_asked(request, longest))

        router.post(
            f"/{offer.name}/runs",
            name=f"run_{offer.name}",
            summary=f"Run {offer.name}",
            description=offer.served.description,
            status_code=202,
            responses=begun,
            openapi_extra={"requestBody": body, "parameters": _parameters(longest)},
        )(begin)

    async def pipelines(self, request: Request) -> Response:
        """The pipelines that can be run here."""
        base = base_of(request, "/pipelines")
        found = [{**offer.describe(), "links": _links(base, offer)} for offer in self._service.offers.values()]
        return answered({"pipelines": found})

    async def describe(self, offer: Offer, request: Request) -> Response:
        """A pipeline: what it is given, what it makes, its graph."""
        said = {
            **offer.describe(),
            "schema": offer.asks.schema,
            "outputs": offer.outputs,
            "targets": offer.targets,
            "graph": {"steps": offer.steps()},
            "links": _links(base_of(request, f"/{offer.name}"), offer),
        }
        return answered(said)

    async def graph(self, offer: Offer) -> Response:
        """The graph of a pipeline as a drawing."""
        graph = offer.planned.graph
        drawn = await self._values.ask(lambda: svg(boxes(graph.nodes), graph.upstream))
        headers = {"Content-Security-Policy": SVG_POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(drawn, media_type="image/svg+xml", headers=headers)

    async def begin(
        self, offer: Offer, request: Request, wait: float, cancel_on_disconnect: bool, key: str | None
    ) -> Response:
        """Begins a run, and waits for its end if asked to."""
        body = await body_of(request, self._service.limits.body, self._origins)
        asked = offer.asks.asked(body)
        found = await self._service.begin(offer, asked, body, key)
        base = base_of(request, f"/{offer.name}/runs")
        if wait:
            outputs = await self._waited(found, request, wait, cancel_on_disconnect)
            if outputs is not None:
                return await self._over(found, outputs, base)
            found = await self._service.find(id_of(found))
        said = self._about(found, base)
        return answered(said, 202, {"Location": said["links"]["self"], "Retry-After": "1"})

    async def _waited(
        self, found: Entry | Recorded, request: Request, wait: float, cancel_on_disconnect: bool
    ) -> Mapping[str, Any] | None:
        """The datasets of the answer, when the run is over in time."""
        ending: Ending = asyncio.get_running_loop().create_future()
        if not (cancel_on_disconnect and isinstance(found, Entry)):
            return await self._service.end_within(found, wait, ending)

        def gone() -> None:
            self._service.owned.cancel_here(found)
            give_up(ending)

        async with watching(request.receive, gone):
            return await self._service.end_within(found, wait, ending)

    async def _over(self, found: Entry | Recorded, outputs: Mapping[str, Any], base: str) -> Response:
        about = self._about(await self._service.now(found), base)
        made, omitted = await self._values.inline(outputs, f"{about['links']['results']}/")
        error = error_of(await self._service.now(found))
        return answered({**about, "outputs": made, "omitted": omitted, "error": error})

    def _about(self, found: Entry | Recorded, base: str) -> dict[str, Any]:
        run_id = id_of(found)
        links = links_of(base, run_id, has_story=self._has_story)
        return {"id": run_id, "status": str(status_of(found)), "links": links}


def _asked(request: Request, longest: float) -> tuple[float, bool, str | None]:
    """How long a request waits, whether the run ends with its client, and its key. By hand, which is faster."""
    wait, cancels, key = 0.0, False, request.headers.get("idempotency-key")
    faults = []
    if request.scope["query_string"]:
        said = request.query_params
        try:
            wait = float(said.get("wait", "0"))
        except ValueError:
            wait = math.nan
        if not 0 <= wait <= longest:
            faults.append({"loc": ("wait",), "msg": f"A number of seconds from 0 to {longest:g} is needed."})
        if (word := said.get("cancel_on_disconnect", "false").lower()) not in ("true", "false", "1", "0"):
            faults.append({"loc": ("cancel_on_disconnect",), "msg": "true or false is needed."})
        cancels = word in ("true", "1")
    if key is not None and not 1 <= len(key) <= KEY_LETTERS:
        faults.append({"loc": ("Idempotency-Key",), "msg": f"1 to {KEY_LETTERS} letters are needed."})
    if faults:
        raise invalid("The request is not what this path takes.", faults)
    return wait, cancels, key


def _parameters(longest: float) -> list[dict[str, Any]]:
    """What `_asked` reads, for OpenAPI."""
    seconds = {"type": "number", "minimum": 0, "maximum": longest, "default": 0}
    key = {"type": "string", "minLength": 1, "maxLength": KEY_LETTERS}
    return [
        {"name": "wait", "in": "query", "schema": seconds, "description": "Seconds to wait for the end."},
        {
            "name": "cancel_on_disconnect",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "Whether the run is cancelled when the waiting client is gone.",
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": key,
            "description": "The same key and body again find the same run.",
        },
    ]


def _links(base: str, offer: Offer) -> dict[str, str]:
    place = f"{base}/{offer.name}"
    return {
        "self": place,
        "graph": f"{place}/graph.svg",
        "run": f"{place}/runs",
        "runs": f"{base}/runs?pipeline={offer.name}",
    }
