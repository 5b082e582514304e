"""OA4xx: what is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

_SERVICE: Final = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from odibi_async import Runner
from odibi_async.integrations.fastapi import pipeline_router, raise_for_problem

runner = Runner()
app = FastAPI(lifespan=runner.lifespan)
app.include_router(pipeline_router(runner, {}, auth=None))
with TestClient(app) as client:
"""

MISSING: Final[Mapping[str, Code]] = {
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
    "OA411": Code(
        title="a module has no such pipeline",
        text="MODULE:NAME and FILE.py:NAME name a Pipeline, or a list of steps, that is written in Python.",
        wrong="""
$ echo 'STEPS = [lambda: 1]' > flows.py
$ odibi-async validate flows.py:STEP""",
        right="""
$ echo 'from odibi_async import step; STEPS = [step(lambda: 1, name="one")]' > flows.py
$ odibi-async validate flows.py:STEPS""",
        form="console",
    ),
    "OA412": Code(
        title="there is no journal",
        text="Name its directory with --journal, or with the environment variable ODIBI_ASYNC_JOURNAL.",
        wrong="$ odibi-async runs ls --journal nowhere",
        right="""
$ odibi-async run --journal journal
$ odibi-async runs ls --journal journal""",
        form="console",
    ),
    "OA421": Code(
        title="a service has no such run, or no such dataset of it",
        text="A service shows the runs of its own pipelines. Without a journal it forgets those that are over, after a "
        "time or when they are too many, and keeps no dataset but those that were asked for.",
        wrong=f'{_SERVICE}    raise_for_problem(client.get("/runs/nightly"))',
        right=f'{_SERVICE}    raise_for_problem(client.get("/runs"))',
        form="python",
    ),
}
