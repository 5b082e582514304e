"""The routes about schedules: listing and pausing them, firing one by hand, and telling of events."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.errors import OptionError, ScheduleError, ScheduleUnknown
from odibi_async.integrations.fastapi.answers import answered
from odibi_async.integrations.fastapi.documents import FiredDocument, ScheduleDocument, SchedulesDocument
from odibi_async.integrations.fastapi.doors import body_of
from odibi_async.integrations.fastapi.inputs import read
from odibi_async.integrations.fastapi.problems import ServiceProblem, invalid, listed, unknown
from odibi_async.integrations.fastapi.service import Service
from odibi_async.schedule import Schedules, ScheduleState


class Payload(BaseModel):
    """What a firing brings."""

    model_config = ConfigDict(extra="forbid")

    payload: Any = Field(None, description="What the run is given if it reads `payload`.")


class ScheduleRoutes:
    """
    The routes about schedules.

    Args:
        schedules: Fires them; `None` where there are none.
        service: What it takes on, and whether it has begun.
        origins: Pages of other sites that may change something.
    """

    def __init__(self, schedules: Schedules | None, service: Service, origins: frozenset[str]) -> None:
        self._given = schedules
        self._service = service
        self._most = service.limits.body
        self._origins = origins

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds them."""
        many: Any = {200: {"model": SchedulesDocument}, **listed(*refusals, 503)}
        router.get("/schedules", summary="List schedules", responses=many)(self.schedules)
        if self._given is not None:
            self._add_steering(router, refusals)

    def _add_steering(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        changed: Any = {200: {"model": ScheduleDocument}, **listed(*refusals, 403, 404, 413, 415, 503)}
        for verb, does in (("pause", self.pause), ("resume", self.resume)):
            path, summary = f"/schedules/{{name:odibi_name}}/{verb}", f"{verb.capitalize()} a schedule"
            router.post(path, summary=summary, responses=changed)(does)
        fired: Any = {202: {"model": FiredDocument}, **listed(*refusals, 403, 404, 413, 415, 422, 503)}
        schema = Payload.model_json_schema()
        body = {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
        post = functools.partial(router.post, status_code=202, responses=fired, openapi_extra=body)
        post("/schedules/{name:odibi_name}/trigger", summary="Fire a schedule now")(self.trigger)
        post("/events/{event:odibi_name}", summary="Tell of an event")(self.fire)

    async def schedules(self) -> Response:
        """How each schedule stands, as far as this worker knows, and whether it is this worker that fires them."""
        if self._given is None:
            return answered({"schedules": [], "leading": False})
        schedules = self._schedules
        return answered({"schedules": [shown(each) for each in schedules.list()], "leading": schedules.is_leading})

    @property
    def _schedules(self) -> Schedules:
        assert self._given is not None  # else there is no route that asks
        self._service.check_begun()
        return self._given

    async def pause(self, request: Request, name: str) -> Response:
        """Has it fire no more, in no worker, until it is resumed. Runs that are going go on."""
        await body_of(request, self._most, self._origins)
        try:
            await self._schedules.pause(name)
        except ScheduleUnknown as error:
            unknown(str(error))
        return self._shown(name)

    async def resume(self, request: Request, name: str) -> Response:
        """Has it fire again that was paused, or stopped since its trigger failed."""
        await body_of(request, self._most, self._origins)
        try:
            await self._schedules.resume(name)
        except ScheduleUnknown as error:
            unknown(str(error))
        return self._shown(name)

    async def trigger(self, request: Request, name: str) -> Response:
        """Fires it now. No run is begun while it is paused, or where another run is not to be overlapped."""
        asked = read(Payload, await body_of(request, self._most, self._origins))
        try:
            run_id = await self._schedules.trigger(name, asked.payload)
        except ScheduleUnknown as error:
            unknown(str(error))
        except ScheduleError as error:
            raise _unready(error) from error
        return answered({"runs": [] if run_id is None else [run_id]}, 202)

    async def fire(
        self, request: Request, event: str, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """Fires all schedules that wait for an event of this name. One with the same `Idempotency-Key` fires once."""
        asked = read(Payload, await body_of(request, self._most, self._origins))
        if event not in self._schedules.events:
            unknown(f"No schedule waits for an event {event[:200]!r}.")
        try:
            runs = await self._schedules.fire(event, asked.payload, key=idempotency_key)
        except OptionError as error:
            raise invalid("The event cannot be taken.", [{"loc": ("Idempotency-Key",), "msg": str(error)}]) from error
        except ScheduleError as error:
            raise _unready(error) from error
        return answered({"runs": runs}, 202)

    def _shown(self, name: str) -> Response:
        [state] = [each for each in self._schedules.list() if each.name == name]
        return answered(shown(state))


def shown(state: ScheduleState) -> dict[str, Any]:
    """A schedule as a document."""
    last = state.last
    return {
        "name": state.name,
        "pipeline": state.pipeline,
        "trigger": state.trigger,
        "state": state.state,
        "paused": state.paused,
        "next": None if state.next is None else state.next.isoformat(),
        "running": list(state.running),
        "error": state.error or None,
        "last": None
        if last is None
        else {
            "run_id": last.run_id,
            "scheduled_at": last.at.isoformat(),
            "finished_at": last.ended_at.isoformat(),
            "status": last.status,
            "error": last.error or None,
        },
    }


def _unready(error: ScheduleError) -> ServiceProblem:
    return ServiceProblem(503, error.code, str(error), headers={"Retry-After": "5"})
