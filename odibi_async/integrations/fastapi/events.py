"""The route that tells the events of a run as they happen: Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from odibi_async.integrations.fastapi.doors import watching
from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.log import RunLog
from odibi_async.integrations.fastapi.naming import RunId
from odibi_async.integrations.fastapi.problems import ServiceProblem, listed
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.integrations.fastapi.shown import step_of
from odibi_async.integrations.fastapi.told import framed, moment, short, step_document
from odibi_async.journal.records import StepRecord
from odibi_async.result import Status

PING: Final = b": ping\n\n"
RETRY: Final = b"retry: 1000\n\n"


class EventRoutes:
    """
    The route that tells the events of runs.

    Args:
        service: Finds the runs.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._elsewhere = 0

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds it."""
        stream = {"description": "The events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
        responses: Any = {200: stream, **listed(*refusals, 404, 422, 429, 503)}
        place, summary = "/runs/{run_id:odibi_name}/events", "The events of a run, as they happen"
        router.get(place, summary=summary, responses=responses, response_class=Response)(self.events)

    async def events(
        self, run_id: RunId, last_event_id: Annotated[str | None, Header(max_length=100)] = None
    ) -> Response:
        """
        The events of a run from the first one on, or from that behind `Last-Event-ID`; the stream ends with the run.

        Of a run of another worker, the ends of its steps are told as the journal has them.
        """
        found = await self._service.find(run_id)
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
        if isinstance(found, Recorded):
            if self._elsewhere >= self._service.limits.listeners:
                raise _too_many()
            return EventStream(self._recorded(found), self._service)
        if found.log.listeners >= self._service.limits.listeners:
            raise _too_many()
        return EventStream(self._live(found.log, after), self._service)

    async def _live(self, log: RunLog, number: int) -> AsyncIterator[bytes]:
        """The events of a run of this process."""
        log.listeners += 1
        try:
            yield RETRY
            while True:
                number, text = log.after(number)
                if text:
                    yield text
                elif log.over.is_set():
                    return
                else:
                    yield await self._quiet(log)
        finally:
            log.listeners -= 1

    async def _quiet(self, log: RunLog) -> bytes:
        """Waits for news; a comment, when there are none for long."""
        try:
            async with asyncio.timeout(self._service.limits.keepalive):
                await log.news()
        except TimeoutError:
            return PING
        return b""

    async def _recorded(self, found: Recorded) -> AsyncIterator[bytes]:
        """What the journal has of a run, as events; of one that is running, with looks at it from time to time."""
        limits, number, told = self._service.limits, 0, set[str]()
        run_id = found.record.run_id
        self._elsewhere += 1
        try:
            yield RETRY
            names = self._steps_of(found)
            yield _said(run_id, 0, "run.started", found.record.started_at, {"steps": names})
            quiet = 0.0
            while True:
                news = sorted((each for each in found.steps if each.step not in told), key=_ended_at)
                for each in news:
                    number += 1
                    told.add(each.step)
                    yield _step_said(run_id, number, each)
                if found.record.status is not Status.RUNNING:
                    about = {
                        "status": str(found.record.status),
                        "seconds": found.record.seconds,
                        "error": short(found.record.error) or None,
                    }
                    yield _said(run_id, number + 1, "run.finished", found.record.ended_at, about)
                    return
                quiet = 0.0 if news else quiet + limits.poll
                if quiet >= limits.keepalive:
                    quiet = 0.0
                    yield PING
                await asyncio.sleep(limits.poll)
                again = await self._service.find(run_id)
                if isinstance(again, Entry):  # it is this process now that runs it
                    return
                found = again
        finally:
            self._elsewhere -= 1

    def _steps_of(self, found: Recorded) -> list[str]:
        graph = self._service.offers[found.record.pipeline].planned.graph
        return [graph.nodes[index].name for index in graph.order]


def _too_many() -> ServiceProblem:
    return ServiceProblem(429, "OA333", "Enough listen to this run.", headers={"Retry-After": "5"})


def _ended_at(record: StepRecord) -> float:
    return (record.started_at or 0.0) + record.seconds


def _step_said(run_id: str, number: int, record: StepRecord) -> bytes:
    result = step_document(step_of(record), short(record.error) or None)
    about = {"step": record.step, "status": str(record.status), "result": result}
    return _said(run_id, number, "step.finished", _ended_at(record), about)


def _said(run_id: str, number: int, name: str, at: float | None, about: dict[str, Any]) -> bytes:
    return framed(number, name, {"run_id": run_id, "seq": number, "time": moment(at), **about})


class EventStream(Response):
    """
    A response that sends pieces as they come, and ends when the client is gone, takes nothing, or the server stops.

    Args:
        pieces: What is sent.
        service: Says how long a client may take nothing, and when the server stops.
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[bytes], service: Service) -> None:
        self.status_code = 200
        self.background = None
        self._pieces = pieces
        self._service = service
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        leaving: asyncio.Future[bool | None] = loop.create_future()

        def gone() -> None:
            if not leaving.done():
                leaving.set_result(True)

        sending = loop.create_task(self._send(send))
        self._service.stopping.add(leaving)
        try:
            async with watching(receive, gone):
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._service.stopping.discard(leaving)
            is_gone = leaving.done() and leaving.result() is True
            leaving.cancel()
            sending.cancel()
            await asyncio.wait([sending])
        if not sending.cancelled():
            sending.result()
        elif not is_gone:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for piece in self._pieces:
                if piece:
                    async with asyncio.timeout(self._service.limits.stall):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:  # it takes nothing: it may come again, with the last number that it has
            return
        finally:
            await self._pieces.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b"", "more_body": False})
