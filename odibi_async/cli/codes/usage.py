"""OA5xx: how something was called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

USAGE: Final[Mapping[str, Code]] = {
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
