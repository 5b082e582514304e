"""OA361 to OA369: streams and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

_QUIET = """
import asyncio
from odibi_async.stream import Polling, run_stream

async def keep(batch): ...

async def main():
    await run_stream([keep], Polling(lambda: None, 60), into="batch", journal="journal").drain()

asyncio.run(main())"""

SOURCES: Final[Mapping[str, Code]] = {
    "OA361": Code(
        title="a stream of this name is running already",
        text="A position belongs to one stream at a time, in any process that uses the journal; a lock that dies with "
        "its process says so. Stop the other one, give this one another name=, or let it wait: when_held='wait'.",
        wrong="""
import asyncio
from odibi_async.stream import Queue, run_stream

async def keep(batch): ...

async def main():
    async with run_stream([keep], Queue(), into="batch", journal="journal", when_held="wait") as first:
        while first.status != "idle":
            await asyncio.sleep(0.01)
        await run_stream([keep], Queue(), into="batch", journal="journal")

asyncio.run(main())""",
        right=_QUIET,
        form="python",
    ),
    "OA362": Code(
        title="the source of a stream cannot be read",
        text="It was tried as often as attempts= says, or the error will not pass by itself. Nothing is lost: the next "
        "start goes on at the committed position.",
        wrong="""
import asyncio
from odibi_async.stream import Files, run_stream

async def keep(batch): ...

async def main():
    await run_stream([keep], Files("no such folder"), into="batch", journal="journal", attempts=1)

asyncio.run(main())""",
        right=_QUIET,
        form="python",
    ),
    "OA363": Code(
        title="a batch has failed, and its stream has stopped",
        text="on_poison='stop' says so. The stream begins with this batch when it is started again; with "
        "on_poison='skip' it sets the batch aside and goes on.",
        wrong="""
import asyncio
from odibi_async.stream import Polling, run_stream

async def keep(batch): raise ValueError("this batch is bad")

async def main():
    options = {"into": "batch", "journal": "journal", "attempts": 1, "on_poison": "stop"}
    await run_stream([keep], Polling(lambda: [1], 60), **options).drain()

asyncio.run(main())""",
        right="""
import asyncio
from odibi_async.stream import Polling, run_stream

async def keep(batch): raise ValueError("this batch is bad")

async def main():
    stream = run_stream([keep], Polling(lambda: [1], 60), into="batch", journal="journal", attempts=1)
    await stream.drain()
    for batch in await stream.set_aside():
        print(batch.batch, batch.error)

asyncio.run(main())""",
        form="python",
    ),
    "OA364": Code(
        title="another process has taken a stream over",
        text="The journal holds another position than this process committed last: its lock was lost, with the "
        "connection to the server say. This process stops, and has not overwritten anything.",
        wrong="""
from odibi_async.errors import StreamOvertaken

raise StreamOvertaken("orders")""",
        right="import odibi_async",
        form="python",
    ),
    "OA365": Code(
        title="the position of a stream cannot be used",
        text="Another kind of source wrote it, or another version, or it is damaged. Give the stream another name=, or "
        "let it begin anew with restart().",
        wrong="""
import asyncio
from odibi_async.stream import Polling, Queue, run_stream

async def keep(batch): ...

async def main():
    await run_stream([keep], Polling(lambda: 1, 60), into="batch", journal="journal").drain()
    await run_stream([keep], Queue(), into="batch", journal="journal").drain()

asyncio.run(main())""",
        right="""
import asyncio
from odibi_async.stream import Polling, Queue, run_stream

async def keep(batch): ...

async def main():
    await run_stream([keep], Polling(lambda: 1, 60), into="batch", journal="journal", name="polled").drain()
    await run_stream([keep], Queue(), into="batch", journal="journal", name="queued").drain()

asyncio.run(main())""",
        form="python",
    ),
    "OA366": Code(
        title="a batch cannot be replayed",
        text="It is not set aside (set_aside() lists those that are), or the journal could not keep its data.",
        wrong="""
import asyncio
from odibi_async.stream import Queue, run_stream

async def keep(batch): ...

asyncio.run(run_stream([keep], Queue(), into="batch", journal="journal").replay("orders-3fa9c2"))""",
        right="""
import asyncio
from odibi_async.stream import Queue, run_stream

async def keep(batch): ...

asyncio.run(run_stream([keep], Queue(), into="batch", journal="journal").replay())""",
        form="python",
    ),
}
