"""The steps of a run in a story: a table of all of them, and a card for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from odibi_async.errors import shortened
from odibi_async.observers.lineage import iso, message_of
from odibi_async.observers.record import StepRecord
from odibi_async.observers.snapshot import Snapshot, text_of
from odibi_async.observers.story.html import LONG, SHORT, Html, facts, folded, joined, table, tag
from odibi_async.observers.story.overview import glyph
from odibi_async.observers.story.source import source_of
from odibi_async.observers.story.view import View
from odibi_async.result import seconds_text

COLUMNS: Final = ("Step", "Layer", "Status", "Attempts", "Waited", "Took", "Rows", "Change of rows", "Cache")
WIDEST: Final = 100
"""Columns of a frame that are shown."""
RETRIES: Final = 20
"""Failed attempts of a step that are told."""


def steps(view: View) -> Html | None:
    """The section."""
    records = view.record.steps
    if not records:
        return None
    listed, shown = view.first(view.rows), view.first(view.most)
    note = f"Details are shown of {len(shown):,} of {len(records):,} steps, to keep this page small."
    return tag(
        "section",
        tag("h2", "Steps"),
        tag("div", id="tools", class_="tools", hidden=True),
        table(COLUMNS, [_row(view, name) for name in listed], id="steps-table", aria_label="Steps"),
        tag("p", note, class_="dim") if len(shown) < len(records) else None,
        [card(view, name) for name in shown],
        id="steps",
    )


def _row(view: View, name: str) -> list[Any]:
    step = view.record.steps[name]
    result, began = step.result, step.result is not None and step.result.at is not None
    return [
        tag("th", tag("a", name, href=f"#{view.anchor(name)}"), scope="row"),
        step.outline.layer,
        tag("td", glyph(step.status), step.status, class_=step.status),
        _number(result.attempts or None if result is not None else None),
        _seconds(result.queue_seconds if result is not None and began else None),
        _seconds(result.run_seconds if result is not None and began else None),
        _number(None if result is None else result.rows),
        _number(view.changes[name][1], signed=True),
        "" if result is None or result.cache is None else view.shown(str(result.cache), SHORT),
    ]


def _number(value: int | None, *, signed: bool = False) -> Html:
    if value is None:
        return tag("td", class_="n")
    return tag("td", f"{value:+,}" if signed else f"{value:,}", class_="n", data_value=value)


def _seconds(value: float | None) -> Html:
    if value is None:
        return tag("td", class_="n")
    return tag("td", seconds_text(value), class_="n", data_value=f"{value:.6f}")


def card(view: View, name: str) -> Html:
    """All about a step."""
    step, said, diff = view.record.steps[name], message_of(view.record.steps[name]), view.changes[name][0]
    return folded(
        joined(
            (tag("span", glyph(step.status), class_=step.status), name, tag("span", f" {step.status}", class_="dim"))
        ),
        facts(_facts(view, name, step)),
        tag("pre", view.shown(said), tabindex="0") if said else None,
        _traceback(view, step),
        _retries(view, step),
        joined((tag("h3", "Explanation"), _told(view, view.explanations[name]))) if name in view.explanations else None,
        _schema_changes(diff) if diff else None,
        _snapshots(view, "Before", step.outline.reads),
        _snapshots(view, "After", step.outline.makes),
        _log(view, step),
        _source(view, step),
        opened=step.status == "failed",
        id=view.anchor(name),
        data_step=name,
        data_words=f"{name} {step.outline.layer} {step.status}",
    )


def _facts(view: View, name: str, step: StepRecord) -> Sequence[tuple[str, Any]]:
    result, outline, delta = step.result, step.outline, view.changes[name][1]
    return (
        ("Layer", outline.layer),
        ("Waits for", shortened(outline.upstream) if outline.upstream else ""),
        ("Reads", shortened(outline.reads) if outline.reads else ""),
        ("Makes", shortened(outline.makes) if outline.makes else ""),
        ("Began", iso(step.began)),
        ("Took", seconds_text(result.run_seconds) if result is not None and result.at is not None else ""),
        ("Thread", step.thread),
        ("Attempts", result.attempts if result is not None and result.attempts > 1 else ""),
        ("Change of rows", "" if delta is None else f"{delta:+,}"),
        ("Cache", view.shown(str(result.cache), SHORT) if result is not None and result.cache is not None else ""),
    )


def _retries(view: View, step: StepRecord) -> Html:
    told = [
        f"An attempt failed: {view.shown(each.error, SHORT)}. The next began {seconds_text(each.wait)} later."
        for each in step.retries[:RETRIES]
    ]
    left = len(step.retries) - len(told)
    return joined(tag("p", text) for text in (*told, *([f"{left:,} more attempts failed."] if left else ())))


def _traceback(view: View, step: StepRecord) -> Html | None:
    text = step.raised.traceback if step.raised is not None and view.sources else ""
    return folded("Traceback", tag("pre", view.shown(text, 2 * LONG), tabindex="0")) if text else None


def _told(view: View, value: Any) -> Html:
    """Lists, mappings and dataclasses as such, all else as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        entries = [(tag("dt", _told(view, key)), tag("dd", _told(view, each))) for key, each in value.items()]
        return tag("dl", [tag("div", entry) for entry in entries])
    if isinstance(value, list | tuple):
        return tag("ul", [tag("li", _told(view, each)) for each in value])
    return joined(()) if value is None else joined((view.shown(text_of(value)),))


def _schema_changes(diff: Mapping[str, Any]) -> Html | None:
    changes = [(column, "added") for column in diff["added_columns"]]
    changes += [(column, "removed") for column in diff["removed_columns"]]
    changes += [(each["column"], f"{each['before']} -> {each['after']}") for each in diff["changed_types"]]
    if not changes:
        return None
    return joined((tag("h3", "Schema changes"), table(("Column", "Change"), changes, aria_label="Schema changes")))


def _snapshots(view: View, heading: str, datasets: Sequence[str]) -> Html:
    return joined(_snapshot(view, heading, snapshot) for snapshot in view.snapshots(datasets)[:5])


def _snapshot(view: View, heading: str, snapshot: Snapshot) -> Html:
    told = view.told(snapshot)
    count = "" if told["row_count"] is None else f", {told['row_count']:,} rows"
    title = tag("h3", f"{heading}: {snapshot.dataset} ({told['metadata']['type']}{count})")
    if not told["schema"]:
        return title
    columns = [entry["column"] for entry in told["schema"]][:WIDEST]
    types = [tag("td", entry["type"], class_="dim") for entry in told["schema"][:WIDEST]]
    rows = [[row[column] for column in columns] for row in told["sample_data"]] if view.samples else []
    return joined((title, table(columns, [types, *rows], aria_label=f"{heading}: {snapshot.dataset}")))


def _log(view: View, step: StepRecord) -> Html | None:
    if not step.log:
        return None
    return folded("Log", tag("pre", view.shown("\n".join(step.log)), tabindex="0"))


def _source(view: View, step: StepRecord) -> Html | None:
    text = source_of(step.outline.value) if view.sources else ""
    return folded("Source", tag("pre", view.masked(text), tabindex="0")) if text else None
