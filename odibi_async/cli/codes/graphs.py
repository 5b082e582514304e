"""OA2xx: what steps make together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

GRAPHS: Final[Mapping[str, Code]] = {
    "OA201": Code(
        title="a step reads what no step makes",
        text="An input is a dataset that another step makes, usually under its own name, or that is given from "
        "outside: -p NAME=VALUE on the command line, run(inputs={...}) in Python.",
        wrong="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: totals, type: sql, inputs: {data: ordrs}, value: SELECT count(*) AS n FROM data}""",
        right="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: totals, type: sql, inputs: {data: orders}, value: SELECT count(*) AS n FROM data}""",
    ),
    "OA202": Code(
        title="steps wait for each other in a circle",
        text="Each of them reads, or comes after, what another one of them makes, so none could ever begin.",
        wrong="""
- {name: a, type: sql, inputs: {data: b}, value: SELECT * FROM data}
- {name: b, type: sql, inputs: {data: a}, value: SELECT * FROM data}""",
        right="""
- {name: a, type: sql, value: SELECT 1 AS n}
- {name: b, type: sql, inputs: {data: a}, value: SELECT * FROM data}""",
    ),
    "OA203": Code(
        title="two steps have the same name",
        text="A step is known by its name, and so is its dataset.",
        wrong="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: orders, layer: ingest, value: more_orders.csv}""",
        right="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: more_orders, layer: ingest, value: more_orders.csv}""",
    ),
    "OA204": Code(
        title="two steps make the same dataset",
        text="Who reads it could not know which one is meant.",
        wrong="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: more, layer: ingest, value: more_orders.csv, outputs: [orders]}""",
        right="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: more, layer: ingest, value: more_orders.csv, outputs: [more_orders]}""",
    ),
    "OA205": Code(
        title="there are no steps",
        text="The list is empty, or every step of it is disabled.",
        wrong="steps: []",
        right="steps: [{name: orders, layer: ingest, value: orders.csv}]",
    ),
    "OA206": Code(
        title="a step is to run after one that is not there",
        text="after names steps, not datasets.",
        wrong="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: one, type: sql, value: SELECT 1 AS n, after: ordrs}""",
        right="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: one, type: sql, value: SELECT 1 AS n, after: orders}""",
    ),
    "OA207": Code(
        title="a function has no such parameter",
        text="What inputs and params name are parameters of the step's function, unless it takes **kwargs.",
        wrong="""
from odibi_async import Pipeline, step

Pipeline([step(lambda rate: rate, name="price", params={"rtae": 2, "rate": 1})])""",
        right="""
from odibi_async import Pipeline, step

Pipeline([step(lambda rate: rate, name="price", params={"rate": 1})])""",
        form="python",
    ),
    "OA208": Code(
        title="a parameter is filled twice",
        text="It is in inputs and in params; only one of them can be meant.",
        wrong="""
from odibi_async import Pipeline, step

Pipeline([step(lambda: 1, name="one"), step(lambda n: n, name="two", inputs={"n": "one"}, params={"n": 2})])""",
        right="""
from odibi_async import Pipeline, step

Pipeline([step(lambda: 1, name="one"), step(lambda n: n, name="two", inputs={"n": "one"})])""",
        form="python",
    ),
    "OA209": Code(
        title="a step cannot map over this",
        text="map_over names a parameter of the function that reads a dataset, a list; resources do not map.",
        wrong="""
from odibi_async import Pipeline, step

def fetch(page): return page

Pipeline([step(lambda: [1, 2], name="pages"), step(fetch, inputs={"page": "pages"}, map_over="pgae")])""",
        right="""
from odibi_async import Pipeline, step

def fetch(page): return page

Pipeline([step(lambda: [1, 2], name="pages"), step(fetch, inputs={"page": "pages"}, map_over="page")])""",
        form="python",
    ),
    "OA210": Code(
        title="a step cannot run where run_on says",
        text="Coroutines do not run in threads: what blocks is written as a plain function, which runs in a thread "
        "anyway. Resources and the contexts of engines stay in this process, so what makes or takes them runs here.",
        wrong="""
from odibi_async import Pipeline, step

async def load(): ...

Pipeline([step(load, run_on="thread")])""",
        right="""
from odibi_async import Pipeline, step

def load(): ...

Pipeline([step(load, run_on="thread")])""",
        form="python",
    ),
    "OA211": Code(
        title="what a step makes can never be what another one takes",
        text="The annotation of the first function's result and that of the second one's parameter exclude each other.",
        wrong="""
from odibi_async import Pipeline

def count() -> int: return 1
def report(count: str) -> str: return count

Pipeline([count, report])""",
        right="""
from odibi_async import Pipeline

def count() -> int: return 1
def report(count: int) -> str: return str(count)

Pipeline([count, report])""",
        form="python",
    ),
    "OA212": Code(
        title="something that is no step",
        text="A step has something to call, and a name: that of its function, or name=.",
        wrong="""
from odibi_async import step

step(lambda: 1)""",
        right="""
from odibi_async import step

step(lambda: 1, name="one")""",
        form="python",
    ),
    "OA213": Code(
        title="a step declares an output twice",
        text="Each of the datasets in outputs has a name of its own.",
        wrong="""
from odibi_async import step

step(lambda: (1, 2), name="split", outputs=("train", "train"))""",
        right="""
from odibi_async import step

step(lambda: (1, 2), name="split", outputs=("train", "test"))""",
        form="python",
    ),
    "OA214": Code(
        title="a step takes a slot of a pool that nobody gave",
        text="How many steps of a pool may run at a time is said by --pool NAME=SLOTS, in Python by "
        "Limits(pools={...}).",
        wrong="""
$ echo '[{name: one, type: sql, value: SELECT 1 AS n, pool: db}]' > odibi.yaml
$ odibi-async run""",
        right="""
$ echo '[{name: one, type: sql, value: SELECT 1 AS n, pool: db}]' > odibi.yaml
$ odibi-async run --pool db=2""",
        form="console",
    ),
    "OA215": Code(
        title="a step runs on an executor that nobody gave",
        text="loop, thread and process are there always. Others are given to the run or the runner by the name that "
        'run_on says: executors={"dask": DaskExecutor(...)}.',
        wrong="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one", run_on="dask")])""",
        right="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one", run_on="process")])""",
        form="python",
    ),
    "OA216": Code(
        title="a step takes more of a pool than there is",
        text="It would wait for ever. Limits(pools={...}) says how much there is, pool={...} what the step takes.",
        wrong="""
from odibi_async import Limits, run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one", pool={"gb": 32})], limits=Limits(pools={"gb": 16}))""",
        right="""
from odibi_async import Limits, run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one", pool={"gb": 4})], limits=Limits(pools={"gb": 16}))""",
        form="python",
    ),
}
