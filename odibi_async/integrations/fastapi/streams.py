"""The routes about streams and their queues: how they stand, pausing and stopping them, what is set aside, events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, RootModel
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.errors import BatchUnknown, RunError, StreamError, in_a_line
from odibi_async.integrations.fastapi.answers import answered
from odibi_async.integrations.fastapi.documents import (
    AsidesDocument,
    PutDocument,
    ReplayedDocument,
    StreamDocument,
    StreamsDocument,
)
from odibi_async.integrations.fastapi.doors import body_of
from odibi_async.integrations.fastapi.inputs import read
from odibi_async.integrations.fastapi.problems import ServiceProblem, invalid, listed, unknown
from odibi_async.integrations.fastapi.service import Service
from odibi_async.stream import Queue, QueueClosed, Stream, StreamStatus

LONGEST: Final = 2_000
"""Letters of an error."""
OVER: Final = (StreamStatus.FINISHED, StreamStatus.FAILED, StreamStatus.CANCELLED)


class Replay(BaseModel):
    """Which batches are to run again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    runs: list[str] | None = None


class Event(RootModel[Any]):
    """Something for a queue."""


class StreamRoutes:
    """
    The routes about streams and queues.

    Args:
        service: What it takes on.
        streams: Name -> stream of this worker.
        queues: Name -> queue that a stream of this worker reads.
        origins: Pages of other sites that may change something.
    """

    def __init__(
        self, service: Service, streams: Mapping[str, Stream], queues: Mapping[str, Queue], origins: frozenset[str]
    ) -> None:
        self._service = service
        self._streams = streams
        self._queues = queues
        self._origins = origins
        self._stopping: set[asyncio.Task[None]] = set()

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds them."""
        many: Any = {200: {"model": StreamsDocument}, **listed(*refusals)}
        router.get("/streams", summary="List streams", responses=many)(self.streams)
        if self._streams:
            self._add_streams(router, refusals)
        if self._queues:
            put: Any = {
                200: {"model": PutDocument, "description": "Its batch is over"},
                202: {"model": PutDocument, "description": "It is in the queue"},
                **listed(*refusals, 403, 404, 413, 415, 422, 429, 503),
            }
            schema = Event.model_json_schema()
            body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
            post = router.post(
                "/queues/{name:odibi_name}", status_code=202, summary="Put an event", responses=put, openapi_extra=body
            )
            post(self.put)

    def _add_streams(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        changed: Any = {200: {"model": StreamDocument}, **listed(*refusals, 403, 404, 409, 413, 415, 503)}
        for verb in ("pause", "resume", "stop"):
            path, summary = f"/streams/{{name:odibi_name}}/{verb}", f"{verb.capitalize()} a stream"
            router.post(path, summary=summary, responses=changed)(getattr(self, verb))
        aside: Any = {200: {"model": AsidesDocument}, **listed(*refusals, 404, 503)}
        router.get("/streams/{name:odibi_name}/aside", summary="Batches that were set aside", responses=aside)(
            self.aside
        )
        replayed: Any = {200: {"model": ReplayedDocument}, **listed(*refusals, 403, 404, 409, 413, 415, 422, 503)}
        schema = Replay.model_json_schema()
        body = {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
        post = functools.partial(router.post, responses=replayed, openapi_extra=body)
        post("/streams/{name:odibi_name}/replay", summary="Run batches again that were set aside")(self.replay)

    # -- streams ---------------------------------------------------------------------------------------

    async def streams(self) -> Response:
        """How the streams of this worker stand."""
        return answered({"streams": [shown(name, stream) for name, stream in self._streams.items()]})

    async def pause(self, request: Request, name: str) -> Response:
        """Begins no other batch until it is resumed; the one that runs is finished."""
        stream = await self._going(request, name)
        stream.pause()
        return answered(shown(name, stream))

    async def resume(self, request: Request, name: str) -> Response:
        """Goes on after a pause."""
        stream = await self._going(request, name)
        stream.resume()
        return answered(shown(name, stream))

    async def stop(self, request: Request, name: str) -> Response:
        """Ends it after the batch that runs. It begins again, where it was, when the service is started again."""
        stream = await self._going(request, name)
        task = asyncio.create_task(_stopped(stream), name=f"odibi_async stopping {name}")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        await asyncio.sleep(0)  # it is told now; the answer does not wait for its batch
        return answered(shown(name, stream))

    async def aside(self, name: str) -> Response:
        """The batches that failed as often as they may, with their errors."""
        found = [
            {
                "run": each.run_id,
                "batch": each.batch,
                "attempts": each.attempts,
                "error": each.error,
                "set_aside_at": each.time.isoformat(),
            }
            for each in await self._stream(name).set_aside()
        ]
        return answered({"batches": found})

    async def replay(self, request: Request, name: str) -> Response:
        """Runs batches again that were set aside, and waits for their end; without `runs`, all of them."""
        stream = self._stream(name)
        asked = read(Replay, await body_of(request, self._service.limits.body, self._origins))
        if asked.runs == []:
            return answered({"runs": []})
        try:
            return answered({"runs": [*await stream.replay(*asked.runs or ())]})
        except BatchUnknown as error:
            unknown(str(error))
        except RunError as error:
            raise ServiceProblem(409, "OA334", f"A batch failed again: {in_a_line(error)}") from error

    def _stream(self, name: str) -> Stream:
        return self._streams.get(name) or unknown(f"There is no stream {name[:200]!r}.")

    async def _going(self, request: Request, name: str) -> Stream:
        await body_of(request, self._service.limits.body, self._origins)
        stream = self._stream(name)
        self._service.check_begun()
        if stream.status in OVER:
            raise ServiceProblem(409, "OA334", f"Stream {name!r} is {stream.status}.")
        return stream

    # -- queues ----------------------------------------------------------------------------------------

    async def put(
        self, request: Request, name: str, wait: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None
    ) -> Response:
        """Puts an event into a queue of this worker; with `wait`, waits so many seconds for the end of its batch."""
        body = await body_of(request, self._service.limits.body, self._origins)
        if name not in self._queues:
            unknown(f"There is no queue {name[:200]!r}.")
        self._service.check_begun()
        if not body:
            raise invalid("An event is needed.", [{"loc": ("body",), "msg": "Missing."}])
        event, queue = read(Event, body).root, self._queues[name]
        if len(queue) >= queue.maxsize:
            raise ServiceProblem(429, "OA333", f"Queue {name!r} is full for now.", headers={"Retry-After": "1"})
        try:
            if wait is None:
                queue.put_nowait(event)
                return answered({"committed": False}, 202)
            is_over = await self._delivered(queue, event, min(wait, self._service.limits.wait))
        except QueueClosed as error:
            raise ServiceProblem(503, "OA333", str(error), headers={"Retry-After": "5"}) from error
        return answered({"committed": is_over}, 200 if is_over else 202)

    async def _delivered(self, queue: Queue, event: Any, seconds: float) -> bool:
        """Whether the batch of an event is over in time; else the event stays in the queue."""
        ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivering = asyncio.create_task(queue.deliver(event))
        self._service.stopping.add(ending)
        try:
            await asyncio.wait([delivering, ending], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if delivering.done():
                delivering.result()
            return delivering.done()
        finally:
            self._service.stopping.discard(ending)
            delivering.cancel()


async def _stopped(stream: Stream) -> None:
    with contextlib.suppress(StreamError):  # its status tells of it, and so does its error
        await stream.stop()


def shown(name: str, stream: Stream) -> dict[str, Any]:
    """A stream as a document."""
    progress, error = stream.progress, stream.error
    return {
        "name": name,
        "status": str(stream.status),
        "batches": progress.batches,
        "rows": progress.rows,
        "lag_seconds": progress.lag,
        "rate": progress.rate,
        "watermark": progress.watermark,
        "pending": progress.pending,
        "late": progress.late,
        "poisoned": progress.set_aside,
        "error": None if error is None else f"{type(error).__name__}: {error}"[:LONGEST],
    }
