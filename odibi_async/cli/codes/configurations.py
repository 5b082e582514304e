"""OA1xx: what is wrong in configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

CONFIGURATIONS: Final[Mapping[str, Code]] = {
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
        title="a key appears twice in the same mapping",
        text="Only one of them could count, and which one differs from reader to reader.",
        wrong="- {name: orders, layer: ingest, value: orders.csv, value: other.csv}",
        right="- {name: orders, layer: ingest, value: orders.csv}",
    ),
    "OA107": Code(
        title="a value that a configuration does not take",
        text="Numbers that are not finite, tags that are not YAML's own, merges (<<), nesting without end, and "
        "aliases that expand to very much are refused. What steps share goes under defaults.",
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
        title="the ending of the file is not a known format",
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
        text="Each $name of a query gets its value from params: {params: {name: value}}, not from inputs as well.",
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
    "OA120": Code(
        title="a query does not parse",
        text="A transform step of type sql is one SELECT in the dialect of DuckDB, whose own parser says what is wrong "
        "and where. What the query reads is looked at when it runs.",
        wrong="- {name: one, type: sql, value: SELEC 1 AS a}",
        right="- {name: one, type: sql, value: SELECT 1 AS a}",
    ),
    "OA121": Code(
        title="two steps write the same file or table",
        text="Each of them replaces all of it, so what one of them writes is lost. Steps with mode append may share.",
        wrong="""
- {name: one, type: sql, value: SELECT 1 AS a}
- {name: save, layer: store, value: a.csv, inputs: {data: one}}
- {name: again, layer: store, value: ./a.csv, inputs: {data: one}}""",
        right="""
- {name: one, type: sql, value: SELECT 1 AS a}
- {name: save, layer: store, value: a.csv, inputs: {data: one}}
- {name: again, layer: store, value: b.csv, inputs: {data: one}}""",
    ),
}
