"""What runs beside the requests of a service: its schedules and its streams, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable

from odibi_async.schedule import Schedules
from odibi_async.stream import Stream

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def kept_up(schedules: Schedules | None, streams: Iterable[Stream], drain: float) -> AsyncIterator[None]:
    """
    A block in which schedules fire and streams run.

    Args:
        schedules: Begun and stopped here.
        streams: Likewise. One that fails is logged; the others go on.
        drain: Seconds that the batches of streams have to end by themselves, before they are cancelled.
    """
    async with contextlib.nullcontext() if schedules is None else schedules:
        running = [asyncio.create_task(_watched(stream), name=f"odibi_async watching {stream!r}") for stream in streams]
        try:
            yield
        finally:
            await asyncio.gather(*(stream.stop(drain) for stream in streams), return_exceptions=True)
            if running:
                await asyncio.wait(running)


async def _watched(stream: Stream) -> None:
    """Runs a stream to its end; what it fails with is logged, and shown as its error."""
    try:
        await stream
    except Exception:  # of the source, the journal, the pipeline: whatever it is, the service goes on
        log.exception("Stream %r has failed.", stream.name)
