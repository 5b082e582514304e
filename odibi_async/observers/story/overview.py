"""What happened, at a glance: the verdict, the numbers, the graph, warnings, and where it ran."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Final

from odibi_async.errors import shortened
from odibi_async.graph.drawing import mermaid_of
from odibi_async.graph.layout import depths
from odibi_async.graph.svg import FILLS, GLYPHS, Box, svg
from odibi_async.observers.lineage import iso, lineage
from odibi_async.observers.record import StepRecord
from odibi_async.observers.story.html import LONG, SHORT, Html, cut, facts, folded, joined, tag
from odibi_async.observers.story.source import source_of
from odibi_async.observers.story.timeline import critical_path
from odibi_async.observers.story.view import View
from odibi_async.result import Status, seconds_text

LIBRARIES: Final = ("odibi_async", "pandas", "numpy", "pyarrow", "duckdb", "pyspark")
ENDED: Final = {"running": "has not ended; what happened so far", "cancelled": "was cancelled"}
DONE: Final = (Status.SUCCEEDED, Status.RUNNING)
WARNINGS: Final = 100
"""Warnings that are shown."""


def verdict(view: View) -> Html:
    """A sentence on how the run ended; of a failure the step, its error and what to do."""
    record = view.record
    ended = ", ".join(f"{count:,} {status}" for status, count in view.counts.items())
    steps = f"{len(record.steps):,} steps, {ended}" if record.steps else "no steps"
    sentence = f"The run {ENDED.get(record.status, record.status)} in {seconds_text(record.seconds)}: {steps}."
    kind = " bad" if record.failed else "" if record.status is Status.SUCCEEDED else " warn"
    return tag("div", tag("p", tag("strong", sentence)), _failure(view), class_=f"verdict{kind}")


def _failure(view: View) -> Html | None:
    failed, again = view.record.failed, view.record.again
    resume = tag("p", "Go on where it was: ", tag("code", again)) if again and view.record.status not in DONE else None
    if not failed:
        return resume
    raised = view.record.steps[failed[0]].raised
    said = "" if raised is None else f": {view.shown(raised.line, SHORT)}{f' ({raised.where})' if raised.where else ''}"
    skipped = view.counts[Status.SKIPPED]
    hint = f" Skipped, since they depend on what failed: {skipped:,}." if skipped else ""
    others = f" {len(failed) - 1:,} more failed." if len(failed) > 1 else ""
    link = tag("a", cut(failed[0], SHORT), href=f"#{view.anchor(failed[0])}")
    advice = "Mend it and run again: with a cache, what succeeded is not computed again."
    told = tag("p", f"{hint}{others}".strip()) if resume else tag("p", f"{advice}{hint}{others}")
    return joined((resume, tag("p", "Step ", link, f" failed{said}"), told))


def cards(view: View) -> Html:
    """The run in numbers."""
    counts, total = view.counts, len(view.record.steps)
    results = [step.result for step in view.record.steps.values() if step.result is not None]
    done = counts["succeeded"] + counts["cached"] + counts["resumed"]
    shown = [
        ("Steps", f"{total:,}"),
        ("Succeeded", f"{done:,} ({100 * done / max(1, total):.0f} %)"),
        ("Failed", f"{counts['failed']:,}"),
        ("Pending", f"{total - done - counts['failed']:,}"),
        ("From the cache", f"{counts['cached']:,}"),
        ("Rows made", f"{sum(each.rows or 0 for each in results):,}"),
        ("Retries", f"{sum(max(0, each.attempts - 1) for each in results):,}"),
        ("Took", seconds_text(view.record.seconds)),
    ]
    return tag("ul", [tag("li", tag("b", value), tag("span", name)) for name, value in shown], class_="cards")


def graph(view: View) -> Html | None:
    """The graph as it ended, and as levels, Mermaid and text."""
    steps = view.record.steps
    if not steps:
        return None
    boxes = [Box(name, step.outline.layer, step.status, _title(name, step)) for name, step in steps.items()]
    upstream = [[view.order[o] for o in step.outline.upstream if o in view.order] for step in steps.values()]
    levels: dict[int, list[Box]] = {}
    for box, depth in zip(boxes, depths(upstream), strict=True):
        levels.setdefault(depth, []).append(box)
    levelled = [_level(level, found) for level, found in sorted(levels.items())]
    text = "\n".join(f"{level}: {', '.join(box.name for box in found)}" for level, found in sorted(levels.items()))
    as_text = [tag("pre", each, tabindex="0") for each in (mermaid_of(boxes, upstream), text)]
    return tag(
        "section",
        tag("h2", "Graph"),
        tag("div", class_="tools", hidden=True),
        tag("div", Html(svg(boxes, upstream)), class_="drawing", tabindex="0", role="region", aria_label="Graph"),
        [folded("Levels", levelled), folded("Mermaid and text", *as_text)] if view.sources else None,
        id="graph",
    )


def _title(name: str, step: StepRecord) -> str:
    took = "" if step.began is None or step.ended is None else f" in {seconds_text(step.ended - step.began)}"
    return f"{name} ({step.outline.layer}): {step.status}{took}"


def _level(number: int, boxes: Iterable[Box]) -> Html:
    shown = [
        tag("span", glyph(box.status), box.name, class_=f"level {box.layer if box.layer in FILLS else 'other'}")
        for box in boxes
    ]
    return tag("p", f"{number} ", shown)


def glyph(status: str) -> str:
    """The sign of a status, and a space."""
    return f"{GLYPHS[status]} " if status in GLYPHS else ""


def warnings(view: View) -> Html | None:
    """What deserves a look although nothing failed."""
    if not view.warnings:
        return None
    lines = [
        tag("li", tag("a", name, href=f"#{view.anchor(name)}"), f": {text}") for name, text in view.warnings[:WARNINGS]
    ]
    left = len(view.warnings) - len(lines)
    more = tag("p", f"{left:,} more are not shown.", class_="dim") if left else None
    return tag("section", tag("h2", f"Warnings ({len(view.warnings):,})"), tag("ul", lines), more, id="warnings")


def execution(view: View) -> Html:
    """Metrics of the execution, where it ran, and the run as JSON."""
    record = view.record
    results = [step.result for step in record.steps.values() if step.result is not None]
    path = critical_path(record)
    about = (
        ("Began", iso(record.began)),
        ("Step seconds", seconds_text(sum(each.run_seconds for each in results))),
        ("Longest wait for a slot", seconds_text(max((each.queue_seconds for each in results), default=0.0))),
        ("Threads", f"{len({step.thread for step in record.steps.values() if step.thread}):,}"),
        ("Cache hits", f"{view.counts['cached']:,} of {len(record.steps):,}"),
        ("Critical path", shortened([name for name in record.steps if name in path]) if path else ""),
        ("Digest of the pipeline", _digest(view)),
    )
    libraries = [(name, _version(name)) for name in LIBRARIES]
    return tag(
        "section",
        tag("h2", "Execution"),
        facts(about),
        tag("h2", "Environment"),
        facts((("Python", platform.python_version()), ("System", platform.system()), *libraries)),
        _json(view),
        id="execution",
    )


def _digest(view: View) -> str:
    """Tells pipelines apart: of the steps, what they wait for, and what they call."""
    told = [
        (name, step.outline.layer, step.outline.upstream, source_of(step.outline.value) if view.sources else "")
        for name, step in view.record.steps.items()
    ]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _version(library: str) -> str:
    if library not in sys.modules:
        return ""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _json(view: View) -> Html | None:
    if not view.data:
        return None
    told = lineage(view.record, 1)
    for step in told["steps"]:
        step["error_message"] = step["error_message"] and cut(step["error_message"], LONG)
        for side in ("before_snapshot", "after_snapshot"):
            if step[side]:
                del step[side]["sample_data"]  # its card has it
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    return folded("The run as JSON", tag("pre", text, tabindex="0", id="run-json"))
