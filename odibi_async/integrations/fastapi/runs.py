"""The routes about runs: listing and showing them, cancelling and resuming them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.integrations.fastapi.answers import answered, base_of
from odibi_async.integrations.fastapi.documents import RunDocument, RunsDocument
from odibi_async.integrations.fastapi.doors import body_of
from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.naming import RunId
from odibi_async.integrations.fastapi.problems import listed
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.integrations.fastapi.shown import id_of, links_of, shown, shown_here, summary

STATUSES = "^(running|succeeded|failed|cancelled|interrupted)$"


class RunRoutes:
    """
    The routes about runs.

    Args:
        service: Finds, cancels and resumes them.
        origins: Pages of other sites that may do so.
        has_story: Whether runs have a story.
    """

    def __init__(self, service: Service, origins: frozenset[str], *, has_story: bool) -> None:
        self._service = service
        self._origins = origins
        self._has_story = has_story

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds them."""
        many: Any = {200: {"model": RunsDocument}, **listed(*refusals, 422, 503)}
        router.get("/runs", summary="List runs", responses=many)(self.runs)
        one: Any = {200: {"model": RunDocument}, **listed(*refusals, 404, 422, 503)}
        router.get("/runs/{run_id:odibi_name}", summary="Show a run", responses=one)(self.run)
        accepted: Any = {202: {"model": RunDocument, "description": "It is being done"}}
        cancelled = {**accepted, **listed(*refusals, 403, 404, 409, 413, 415, 422, 503)}
        post = router.post(
            "/runs/{run_id:odibi_name}/cancel", status_code=202, summary="Cancel a run", responses=cancelled
        )
        post(self.cancel)
        resumed = {**accepted, **listed(*refusals, 403, 404, 409, 413, 415, 422, 429, 503)}
        schema = {
            "type": "object",
            "properties": {
                "inputs": {"type": "object"},
                "timeout_s": {"type": ["number", "null"], "exclusiveMinimum": 0},
            },
            "additionalProperties": False,
        }
        body = {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
        post = router.post(
            "/runs/{run_id:odibi_name}/resume",
            status_code=202,
            summary="Resume a run",
            responses=resumed,
            openapi_extra=body,
        )
        post(self.resume)

    async def runs(
        self,
        request: Request,
        pipeline: Annotated[str | None, Query(max_length=100)] = None,
        status: Annotated[str | None, Query(pattern=STATUSES)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    ) -> Response:
        """The runs of the pipelines of this service, the newest first. `next` is the cursor of the next page."""
        offers = self._service.offers
        names = frozenset(offers if pipeline is None else {pipeline} & offers.keys())
        base = base_of(request, "/runs")
        shared = await self._service.shared()
        if shared is None:
            return answered(self._of_table(names, status, limit, cursor, base))
        page = await shared.page(names, status, limit, cursor)
        runs = [{**summary(record), "links": self._links(base, record.run_id)} for _, record in page.runs]
        return answered({"runs": runs, "next": None if page.next is None else str(page.next)})

    def _of_table(
        self, names: frozenset[str], status: str | None, limit: int, cursor: int | None, base: str
    ) -> dict[str, Any]:
        found: list[Entry] = []
        for entry in self._service.table:
            if cursor is not None and entry.number >= cursor:
                continue
            if entry.offer.name in names and status in (None, str(entry.status)):
                found.append(entry)
            if len(found) > limit:
                break
        runs = [{**summary(entry), "links": self._links(base, entry.id)} for entry in found[:limit]]
        return {"runs": runs, "next": str(found[limit - 1].number) if len(found) > limit else None}

    async def run(self, request: Request, run_id: RunId) -> Response:
        """A run and its steps."""
        found = await self._service.find(run_id)
        return answered(await self._shown(found, _base_of(request)))

    async def cancel(self, request: Request, run_id: RunId) -> Response:
        """Cancels a run, whichever worker runs it."""
        await body_of(request, self._service.limits.body, self._origins)
        found = await self._service.cancel(run_id)
        return answered(await self._shown(found, _base_of(request, "/cancel")), 202)

    async def resume(self, request: Request, run_id: RunId) -> Response:
        """Resumes a run that failed, was cancelled, or lost its worker: committed steps are not called again."""
        body = await body_of(request, self._service.limits.body, self._origins)
        found = await self._service.resume(run_id, body)
        return answered(await self._shown(found, _base_of(request, "/resume")), 202)

    async def _shown(self, found: Entry | Recorded, base: str) -> dict[str, Any]:
        links = self._links(base, id_of(found))
        if isinstance(found, Entry):
            return {**shown_here(found), "links": links}
        shared = await self._service.shared()
        assert shared is not None
        offer = self._service.offers[found.record.pipeline]
        return {**await shared.ask(shown, found, offer, shared.journal), "links": links}

    def _links(self, base: str, run_id: str) -> dict[str, str]:
        return links_of(base, run_id, has_story=self._has_story)


def _base_of(request: Request, end: str = "") -> str:
    """The path of the router, of a request whose path names a run."""
    return base_of(request, f"/runs/{request.path_params['run_id']}{end}")
