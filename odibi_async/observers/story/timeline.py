"""The timeline of a run as SVG: a row for each step, with its waits, its attempts and the critical path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from odibi_async.graph.svg import BORDERS, PLAIN
from odibi_async.observers.record import RunRecord, StepRecord
from odibi_async.observers.story.html import SHORT, Html, cut, joined, tag
from odibi_async.result import seconds_text
from odibi_async.secret import redacted

MOST: Final = 150
"""Steps that the timeline shows: those of the critical path and the longest of the others."""
TICKS: Final = 200
"""Failed attempts that a row shows."""
LEFT, WIDE, ROW, TOP = 210, 900, 20, 26


def timeline(record: RunRecord) -> Html | None:
    """The section; `None` where no step began."""
    began = {name: step for name, step in record.steps.items() if step.began is not None}
    if not began:
        return None
    path = critical_path(record)
    shown = _chosen(began, path)
    start = min(_first(step) for step in began.values())
    end = max(*(step.ended or record.heard for step in began.values()), start + 1e-6)
    scale = WIDE / (end - start)
    height = TOP + ROW * len(shown) + 8
    rows = [joined(_row(number, name, record, name in path, start, scale)) for number, name in enumerate(shown)]
    label = f"Timeline of {len(shown)} steps over {seconds_text(end - start)}"
    drawing = tag(
        "svg",
        _axis(end - start, height),
        rows,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {LEFT + WIDE + 20} {height}",
        width=LEFT + WIDE + 20,
        height=height,
        role="img",
        aria_label=label,
        font_size=12,
        font_family="ui-monospace,monospace",
    )
    left = f"The {len(shown)} longest of {len(began):,} steps. " if len(shown) < len(began) else ""
    note = f"{left}Thin grey: waiting. Violet: the critical path. Red ticks: attempts that failed."
    framed = tag("div", drawing, class_="drawing", tabindex="0", role="region", aria_label="Timeline")
    return tag("section", tag("h2", "Timeline"), tag("p", note, class_="dim"), framed, id="timeline")


def critical_path(record: RunRecord) -> set[str]:
    """The steps that the end of the run waited for: back from the last to end, each time to the last that it needed."""
    ends = {name: step.ended for name, step in record.steps.items() if step.ended is not None}
    path: set[str] = set()
    name = max(ends, key=lambda each: ends[each] or 0.0, default=None)
    while name is not None:
        path.add(name)
        above = [other for other in record.steps[name].outline.upstream if other in ends and other not in path]
        name = max(above, key=lambda each: ends[each] or 0.0, default=None)
    return path


def _chosen(began: Mapping[str, StepRecord], path: set[str]) -> Sequence[str]:
    if len(began) > MOST:
        took = {name: (step.ended or 0.0) - (step.began or 0.0) for name, step in began.items()}
        longest = sorted(began, key=lambda name: (name in path, took[name]), reverse=True)[:MOST]
        began = {name: began[name] for name in longest}
    return sorted(began, key=lambda name: (_first(began[name]), began[name].began or 0.0))


def _first(step: StepRecord) -> float:
    return min(step.ready or step.began or 0.0, step.began or 0.0)


def _axis(seconds: float, height: int) -> Iterator[Html]:
    for part in range(5):
        x = LEFT + WIDE * part / 4
        yield tag("line", x1=f"{x:.1f}", y1=TOP - 6, x2=f"{x:.1f}", y2=height, stroke_width=1)
        yield tag("text", seconds_text(seconds * part / 4), x=f"{x:.1f}", y=14, text_anchor="middle", class_="time")


def _row(number: int, name: str, record: RunRecord, critical: bool, start: float, scale: float) -> Iterator[Html]:
    step, y = record.steps[name], TOP + ROW * number
    began, ended, ready = step.began or start, step.ended or record.heard, step.ready or step.began or start
    colour = BORDERS.get(step.status, PLAIN)
    short = name if len(name) <= 26 else f"{name[:25]}…"
    x = LEFT + (began - start) * scale
    title = (
        f"{name}: {step.status}, {seconds_text(ended - began)} after {seconds_text(max(0.0, began - ready))} of waiting"
    )
    yield tag("text", short, x=LEFT - 8, y=y + 13, text_anchor="end", class_="lane")
    if began - ready > 1e-4:
        wait = LEFT + (ready - start) * scale
        yield tag(
            "rect", x=f"{wait:.1f}", y=y + 7, width=f"{max(0.0, x - wait):.1f}", height=3, fill=PLAIN, opacity=0.5
        )
    width = f"{max(1.5, (ended - began) * scale):.1f}"
    yield tag("rect", tag("title", title), x=f"{x:.1f}", y=y + 3, width=width, height=12, rx=2, fill=colour)
    for attempt in step.retries[:TICKS]:
        at = LEFT + (attempt.at - start) * scale
        yield tag(
            "rect",
            tag("title", cut(redacted(attempt.error, record.secrets), SHORT // 5)),
            x=f"{at:.1f}",
            y=y + 1,
            width=2,
            height=16,
            fill=BORDERS["failed"],
        )
    if critical:
        yield tag("rect", x=f"{x:.1f}", y=y + 16, width=width, height=2, fill="#6f42c1")
