"""
What is behind the code of each kind of fault: `odibi-async explain OA102`.

OA1xx are of configurations, OA2xx of what the steps make together, OA3xx of running them, OA4xx of things that are not
there, OA5xx of how something was called. A code keeps its meaning for ever; one that is given up is not used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from textwrap import fill, indent
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """
    A kind of fault.

    Attributes:
        title: What is wrong, in a few words.
        text: Why it is wrong, and what to do.
        wrong: An example with this fault and no other.
        right: The same without it.
        form: What the examples are: a configuration, Python, or commands in a shell.
    """

    title: str
    text: str
    wrong: str
    right: str
    form: Literal["yaml", "csv", "toml", "python", "console"] = "yaml"

    def explained(self, code: str) -> str:
        """All of it, for reading."""
        parts = (
            f"{code}  {self.title}",
            fill(self.text, 100),
            "Wrong:",
            _set_in(self.wrong),
            "Right:",
            _set_in(self.right),
        )
        return "\n\n".join(parts)

    def as_data(self) -> dict[str, str]:
        """All of it, for JSON."""
        return asdict(self)


def _set_in(example: str) -> str:
    return indent(example.strip("\n"), "    ")


CODES: Final[Mapping[str, Code]] = {
    # -- configurations --------------------------------------------------------------------------------
    "OA101": Code(
        title="the file is not what its ending says",
        text="The text breaks a rule of its format (JSON, YAML, TOML, CSV), is not UTF-8, or is no SQLite "
        "database. The place is where reading failed; the mistake often stands just before it. "
        "YAML is indented with spaces, never with tabs.",
        wrong="- {name: orders, layer: ingest, value: orders.csv",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA102": Code(
        title="a word is unknown where only some are known",
        text="Layers, types, engines, modes, places to run on and errors go by the words of docs/configuration.md. "
        "Layers of your own are given in Python, with nodes={...}.",
        wrong="- {name: orders, layer: ingst, value: orders.csv}",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA103": Code(
        title="a key is unknown",
        text="A step has the keys of docs/configuration.md and no others, so that a slip of the pen is not taken "
        "for something that was left out. What is only for you stands under metadata.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, owner: Ada}",
        right="- {name: orders, layer: ingest, value: orders.csv, metadata: {owner: Ada}}",
    ),
    "OA104": Code(
        title="something is missing that has to be there",
        text="Every step has a name. In tables, every required column is there and none of its cells is empty.",
        wrong="- {layer: ingest, value: orders.csv}",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA105": Code(
        title="a value is of the wrong kind",
        text="A text, a number, a list or a mapping stands where another kind is needed, or a number is out of range.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, timeout: soon}",
        right="- {name: orders, layer: ingest, value: orders.csv, timeout: 30}",
    ),
    "OA106": Code(
        title="a key stands twice in the same mapping",
        text="Only one of them could count, and which one differs from reader to reader.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, value: other.csv}",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA107": Code(
        title="a value that a configuration does not take",
        text="Numbers that are not finite, tags that are not YAML's own, merges (<<), nesting without end, and "
        "aliases that stand for very much are refused. What steps share stands under defaults.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, metadata: {limit: .inf}}",
        right="- {name: orders, layer: ingest, value: orders.csv, metadata: {limit: 1000000}}",
    ),
    "OA108": Code(
        title="a secret is not there",
        text="${env:NAME} stands for an environment variable, which has to be set, and ${file:path} for a file "
        "beside the configuration.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, params: {sep: '${env:NOT_SET_ANYWHERE}'}}",
        right="- {name: orders, layer: ingest, value: orders.csv, params: {sep: '${env:PATH}'}}",
    ),
    "OA109": Code(
        title="the ending of the file tells of no known format",
        text="A configuration is a file that ends in .json, .yaml, .yml, .toml, .csv, .db or .sqlite.",
        wrong="""
$ mv odibi.yaml pipeline.txt
$ odibi-async validate pipeline.txt""",
        right="""
$ mv odibi.yaml pipeline.yaml
$ odibi-async validate pipeline.yaml""",
        form="console",
    ),
    "OA110": Code(
        title="a table does not have the form of a configuration",
        text="Each row has as many cells as the header, and a database has the table transformation_config or "
        "ingestion_source_config. Texts with commas in them are quoted.",
        wrong="StepName,StepType,Value\none,sql,SELECT 1 AS a, 2 AS b",
        right='StepName,StepType,Value\none,sql,"SELECT 1 AS a, 2 AS b"',
        form="csv",
    ),
    "OA111": Code(
        title="this layer has no steps of this type",
        text="A transform step is a query (sql) or a function; ingest, store and publish say what to do by their "
        "value alone (config_op). The table in docs/configuration.md tells which goes with which.",
        wrong="- {name: one, layer: transform, type: config_op, value: SELECT 1 AS n}",
        right="- {name: one, layer: transform, type: sql, value: SELECT 1 AS n}",
    ),
    "OA112": Code(
        title="inputs or outputs that steps of this layer do not have",
        text="Connect and ingest steps read no dataset; store and publish steps write exactly one and make none; a "
        "query makes one.",
        wrong="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: save, layer: store, value: out.csv}""",
        right="""
- {name: orders, layer: ingest, value: orders.csv}
- {name: save, layer: store, value: out.csv, inputs: {data: orders}}""",
    ),
    "OA113": Code(
        title="a step without a value that says what it does",
        text="The value is the path, the table, the query or the name of the function, as a text.",
        wrong="- {name: orders, layer: ingest}",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA114": Code(
        title="a connection is missing or unknown",
        text="params: {connection: ...} names a connect step, a URL or a path. An ingest step of type sql needs one.",
        wrong="- {name: orders, layer: ingest, type: sql, value: SELECT * FROM orders}",
        right="""
- {name: orders, layer: ingest, type: sql, value: SELECT * FROM orders, params: {connection: 'sqlite:///shop.db'}}""",
    ),
    "OA115": Code(
        title="the params of a query",
        text="The value of each $name in a query stands in params: {params: {name: value}}, and not in inputs as well.",
        wrong="- {name: one, type: sql, value: SELECT $low AS n, params: {low: 15}}",
        right="- {name: one, type: sql, value: SELECT $low AS n, params: {params: {low: 15}}}",
    ),
    "OA116": Code(
        title="a function is named that was not given",
        text="A configuration can call only functions that it is given, by their exact names: on the command line "
        "those of the modules named with --functions, in Python functions={...}. Nothing else is imported.",
        wrong="- {name: labelled, type: function, value: label}",
        right="- {name: labelled, type: sql, value: SELECT 'big' AS label}",
    ),
    "OA117": Code(
        title="a layer of your own gave nothing to call",
        text="A node type takes a step and returns a callable; what it raises, as an OdibiError, is a fault of the "
        "step.",
        wrong="""
from odibi_async import Pipeline, Step

Pipeline([Step("check", "valid", "config_op", None, "n > 0")], nodes={"check": lambda step: None})""",
        right="""
from odibi_async import Pipeline, Step

Pipeline([Step("check", "valid", "config_op", None, "n > 0")], nodes={"check": lambda step: lambda: step.value})""",
        form="python",
    ),
    "OA118": Code(
        title="a module of functions cannot be imported",
        text="Importing the module named with --functions raised an error. odibi-async run --traceback shows where.",
        wrong="""
$ echo 'import no_such_library' > functions.py
$ odibi-async validate --functions functions""",
        right="""
$ echo 'def label(frame): return frame' > functions.py
$ odibi-async validate --functions functions""",
        form="console",
    ),
    "OA119": Code(
        title="pyproject.toml does not say where the configuration is",
        text='The table [tool.odibi_async] has one entry: config = "path", from the folder of pyproject.toml.',
        wrong="""
[tool.odibi_async]
confg = "pipeline.yaml"
""",
        right="""
[tool.odibi_async]
config = "pipeline.yaml"
""",
        form="toml",
    ),
    # -- graphs ----------------------------------------------------------------------------------------
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
        text="It stands in inputs and in params; only one of them can be meant.",
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
        title="an async function is to run in a thread",
        text="Coroutines run on the event loop. What blocks is written as a plain function, which runs in a thread "
        "anyway.",
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
    # -- running ---------------------------------------------------------------------------------------
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
    # -- not there -------------------------------------------------------------------------------------
    "OA401": Code(
        title="there is no such file, or it cannot be read",
        text="The path is taken from the current directory.",
        wrong="$ odibi-async validate odbi.yaml",
        right="$ odibi-async validate odibi.yaml",
        form="console",
    ),
    "OA402": Code(
        title="no configuration is named, and none is found",
        text="It is looked for in this order: ODIBI_ASYNC_CONFIG, odibi.yaml, .yml, .toml or .json, and "
        "[tool.odibi_async] in pyproject.toml, in the current directory and those above it up to the root of "
        "the repository.",
        wrong="""
$ rm odibi.yaml
$ odibi-async validate""",
        right="$ odibi-async validate",
        form="console",
    ),
    "OA403": Code(
        title="a step is named that is not there",
        text="A term selects by a step's name (with * for any letters), layer:x or tag:x; it has to select something. "
        "Several terms are given by repeating -s.",
        wrong="$ odibi-async ls -s totls",
        right="$ odibi-async ls -s totals",
        form="console",
    ),
    "OA404": Code(
        title="a dataset is given that nobody reads",
        text="-p, or inputs= in Python, names a dataset that a step reads or makes.",
        wrong="$ odibi-async run -p year=2013",
        right="$ odibi-async run",
        form="console",
    ),
    "OA405": Code(
        title="a target is no dataset of the pipeline",
        text="targets= names datasets, or steps that make none.",
        wrong="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one")], targets=["two"])""",
        right="""
from odibi_async import run_pipeline_sync, step

run_pipeline_sync([step(lambda: 1, name="one")], targets=["one"])""",
        form="python",
    ),
    "OA406": Code(
        title="no step belongs to the project",
        text="--project, or project= of load_steps, takes the steps whose project is the same.",
        wrong="$ odibi-async ls --project sales",
        right="$ odibi-async ls",
        form="console",
    ),
    "OA407": Code(
        title="there is no such code",
        text="odibi-async explain lists all of them.",
        wrong="$ odibi-async explain OA999",
        right="$ odibi-async explain OA407",
        form="console",
    ),
    "OA408": Code(
        title="there is no such module",
        text="--functions takes the name of a module, without .py, from the current directory or as it is installed.",
        wrong="$ odibi-async validate --functions functions.py",
        right="""
$ echo 'def label(frame): return frame' > functions.py
$ odibi-async validate --functions functions""",
        form="console",
    ),
    "OA409": Code(
        title="there is no such cache",
        text="A cache is made by the first run with --cache DIR, or with cache: DIR in the configuration.",
        wrong="$ odibi-async cache stats --cache cache",
        right="""
$ odibi-async run --cache cache
$ odibi-async cache stats --cache cache""",
        form="console",
    ),
    "OA410": Code(
        title="a cache knows no such step",
        text="The name is that of a step that was computed with this cache; odibi-async cache stats lists them.",
        wrong="""
$ odibi-async run --cache cache
$ odibi-async cache explain totls --cache cache""",
        right="""
$ odibi-async run --cache cache
$ odibi-async cache explain totals --cache cache""",
        form="console",
    ),
    # -- usage -----------------------------------------------------------------------------------------
    "OA501": Code(
        title="the command line cannot be understood",
        text="A command or a flag is unknown, or its value is of the wrong kind: odibi-async COMMAND --help tells "
        "of them.",
        wrong="$ odibi-async run --tiemout 5",
        right="$ odibi-async run --timeout 5",
        form="console",
    ),
    "OA502": Code(
        title="an option has a value that it cannot have",
        text="The message says which values it can have.",
        wrong="$ odibi-async run --threads 0",
        right="$ odibi-async run --threads 1",
        form="console",
    ),
    "OA503": Code(
        title="a run was not given what its steps read",
        text="A pipeline declares what it is given from outside, and each run gives it.",
        wrong="""
from odibi_async import Pipeline, run_pipeline_sync, step

run_pipeline_sync(Pipeline([step(lambda year: year, name="same")], inputs=("year",)))""",
        right="""
from odibi_async import Pipeline, run_pipeline_sync, step

run_pipeline_sync(Pipeline([step(lambda year: year, name="same")], inputs=("year",)), {"year": 2013})""",
        form="python",
    ),
    "OA504": Code(
        title="a selected step reads what a step makes that is not selected",
        text="A selection runs what it names and nothing else; no dataset is kept from an earlier run. A + before "
        "the name selects all that it needs, too.",
        wrong="$ odibi-async run -s totals",
        right="$ odibi-async run -s +totals",
        form="console",
    ),
    "OA505": Code(
        title="NAME=VALUE is needed",
        text="-p takes the name of a dataset and its value, --pool the name of a pool and its number of slots.",
        wrong="$ odibi-async run -p orders",
        right="$ odibi-async run -p 'orders=[]' -s orders+ --dry-run",
        form="console",
    ),
    "OA506": Code(
        title="two modules have a function of the same name",
        text="A configuration names functions without their modules. __all__ says which ones a module gives.",
        wrong="""
$ echo 'def label(frame): return frame' > one.py
$ echo 'def label(frame): return frame' > two.py
$ odibi-async validate --functions one --functions two""",
        right="""
$ echo 'def label(frame): return frame' > one.py
$ odibi-async validate --functions one""",
        form="console",
    ),
    "OA507": Code(
        title="init cannot write its files",
        text="They are there already, and nothing is overwritten, or the folder does not take them.",
        wrong="$ odibi-async init",
        right="$ odibi-async init sales",
        form="console",
    ),
}
