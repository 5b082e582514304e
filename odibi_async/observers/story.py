"""The story of a run: a page of HTML, made of what the tracker knows. Nothing comes into it unescaped."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from odibi_async.observers.snapshot import text_of
from odibi_async.secret import masked


class Drawable(Protocol):
    """What a story can draw; a `Pipeline` is one."""

    def levels(self) -> list[list[str]]: ...
    def to_mermaid(self) -> str: ...


def page(
    lineage: Mapping[str, Any],
    upstream: Mapping[str, Sequence[str]],
    explanations: Mapping[str, Any],
    graph: Drawable | None,
    secrets: Collection[str],
) -> str:
    """
    The page.

    Args:
        lineage: As `Tracker.export_lineage` gives it.
        upstream: The steps that each step waited for.
        explanations: Step -> what to say about it; those of other steps are left out.
        graph: What to draw; `None` for no drawing.
        secrets: Texts that the page may not show.
    """
    title = f"Run {lineage['pipeline_id']}"
    parts = [_element("h1", title), *_summary(lineage)]
    if graph is not None:
        parts += _drawing(graph)
    for step in lineage["steps"]:
        parts += _step(step, upstream[step["step_name"]])
        if step["step_name"] in explanations:
            parts += [_element("h3", "Explanation"), _told(explanations[step["step_name"]], secrets)]
    head = f'<meta charset="utf-8">{_element("title", title)}<style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


_STYLE = (
    "body{font-family:sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:left}"
    "pre{background:#f6f6f6;padding:.5rem;overflow:auto}"
)


def _element(tag: str, content: Any) -> str:
    return f"<{tag}>{'' if content is None else html.escape(str(content))}</{tag}>"


def _told(value: Any, secrets: Collection[str] = ()) -> str:
    """Lists, mappings and dataclasses as such, all else as text."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        entries = (f"<dt>{_told(key, secrets)}</dt><dd>{_told(each, secrets)}</dd>" for key, each in value.items())
        return f"<dl>{''.join(entries)}</dl>"
    if isinstance(value, list | tuple):
        return f"<ul>{''.join(f'<li>{_told(each, secrets)}</li>' for each in value)}</ul>"
    return "" if value is None else html.escape(masked(text_of(value), secrets))


def _table(heading: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["".join(_element("th", each) for each in heading)]
    lines += ["".join(_element("td", each) for each in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _summary(lineage: Mapping[str, Any]) -> Iterator[str]:
    summary = lineage["summary"]
    yield _told(
        {
            "Status": summary["status"],
            "Began": lineage["start_time"],
            "Took": _duration(summary["total_duration_ms"]),
            "Steps": summary["total_steps"],
            "Succeeded": f"{summary['success_count']} ({summary['success_rate']:.0f} %)",
            "Failed": summary["failed_count"],
            "Pending": summary["pending_count"],
        }
    )
    rows = [
        (step["step_name"], step["layer"], step["state"], _duration(step["duration_ms"]), _delta(step["row_delta"]))
        for step in lineage["steps"]
    ]
    yield _table(("Step", "Layer", "Status", "Duration", "Rows"), rows)


def _drawing(graph: Drawable) -> Iterator[str]:
    yield _element("h2", "Graph")
    yield _element("pre", "\n".join(f"{level}: {', '.join(names)}" for level, names in enumerate(graph.levels())))
    yield f"<details><summary>Mermaid</summary>{_element('pre', graph.to_mermaid())}</details>"


def _step(step: Mapping[str, Any], upstream: Sequence[str]) -> Iterator[str]:
    yield _element("h2", step["step_name"])
    facts = {
        "Layer": step["layer"],
        "Status": step["state"],
        "Began": step["start_time"],
        "Duration": _duration(step["duration_ms"]),
        "Row delta": _delta(step["row_delta"]),
        "Waited for": ", ".join(upstream),
    }
    yield _told({heading: fact for heading, fact in facts.items() if fact})
    if step["error_message"]:
        yield _element("pre", step["error_message"])
    if step["schema_diff"]:
        yield from _schema_changes(step["schema_diff"])
    for heading, snapshot in (("Before", step["before_snapshot"]), ("After", step["after_snapshot"])):
        if snapshot:
            yield from _snapshot(heading, snapshot)


def _schema_changes(diff: Mapping[str, Any]) -> Iterator[str]:
    changes = [(column, "added") for column in diff["added_columns"]]
    changes += [(column, "removed") for column in diff["removed_columns"]]
    changes += [(each["column"], f"{each['before']} -> {each['after']}") for each in diff["changed_types"]]
    if changes:
        yield _element("h3", "Schema changes")
        yield _table(("Column", "Change"), changes)


def _snapshot(heading: str, snapshot: Mapping[str, Any]) -> Iterator[str]:
    rows = "" if snapshot["row_count"] is None else f", {snapshot['row_count']:,} rows"
    yield _element("h3", f"{heading}: {snapshot['name']} ({snapshot['metadata']['type']}{rows})")
    if snapshot["schema"]:
        columns = [column["column"] for column in snapshot["schema"]]
        cells = [[row[column] for column in columns] for row in snapshot["sample_data"]]
        yield _table(columns, [[column["type"] for column in snapshot["schema"]], *cells])


def _duration(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:,.1f} ms"


def _delta(rows: int | None) -> str:
    return "" if rows is None else f"{rows:+,}"
