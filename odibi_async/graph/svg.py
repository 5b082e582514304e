"""Graphs as SVG: laid out here, so that no page needs a library, a network or a second to draw them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from odibi_async.graph.layout import Layout, depths, laid_out

MOST: Final = 150
"""Nodes that are drawn one by one; of more, those of one depth and layer are one box."""
COLUMNS: Final = 12
"""Columns that a graph with boxes for many nodes has at most."""
LETTER, ROW, GAP, HIGH, LONGEST = 7.2, 46, 46, 30, 32
GLYPHS: Final = {
    "succeeded": "✓",
    "cached": "⟲",
    "failed": "✗",
    "skipped": "↷",
    "cancelled": "■",
    "running": "▶",
    "retrying": "↻",
    "interrupted": "!",
    "resumed": "⏎",
}
FILLS: Final = {
    "connect": "#eceff1",
    "ingest": "#dbeafe",
    "transform": "#ede9fe",
    "store": "#ffedd5",
    "publish": "#dcfce7",
}
OTHER: Final = "#f4f4f5"
BORDERS: Final = {
    "succeeded": "#2e7d32",
    "cached": "#00838f",
    "failed": "#c62828",
    "skipped": "#9e9e9e",
    "cancelled": "#6d4c41",
    "running": "#1565c0",
    "retrying": "#ef6c00",
    "interrupted": "#c62828",
    "resumed": "#00838f",
}
PLAIN: Final = "#78909c"


@dataclass(frozen=True, slots=True)
class Box:
    """
    A node as it is drawn.

    Attributes:
        name: What it is called.
        layer: What kind of work it does; its fill.
        status: How it ended; its border and its glyph. Empty where nothing ran.
        title: What a reader sees who points at it.
    """

    name: str
    layer: str = "transform"
    status: str = ""
    title: str = ""


def svg(boxes: Sequence[Box], upstream: Sequence[Sequence[int]]) -> str:
    """
    A graph as a whole SVG document, which HTML can also contain as it is.

    It has no style sheets, scripts or links, and takes the colour of edges from its surroundings.

    Args:
        boxes: The nodes.
        upstream: Node -> the nodes that it waits for.
    """
    if len(boxes) > MOST:
        boxes, upstream = _collapsed(boxes, upstream)
    return _drawn(boxes, laid_out(upstream))


def _drawn(boxes: Sequence[Box], layout: Layout) -> str:
    labels = [_label(box) for box in boxes]
    widths = [0.0] * layout.layers
    for node, (layer, _) in layout.places.items():
        widths[int(layer)] = max(widths[int(layer)], 24 + LETTER * len(labels[node]))
    lefts = [GAP / 2 + sum(widths[:layer]) + GAP * layer for layer in range(layout.layers)]
    width = (lefts[-1] + widths[-1] if lefts else 0) + GAP / 2
    height = layout.rows * ROW + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" role="img" aria-label="Graph of {len(boxes)} boxes" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="ui-monospace,monospace" font-size="12" color="#607d8b">'
    ]
    for (start, end), points in layout.ways.items():
        path = _way(points, lefts, widths)
        lines.append(
            f'<path class="edge" data-from="{start}" data-to="{end}" d="{path}" fill="none" stroke="currentColor" '
            'stroke-width="1.2"/>'
        )
    for node, box in enumerate(boxes):
        layer, row = layout.places[node]
        lines.append(_boxed(node, box, labels[node], lefts[int(layer)], 10 + row * ROW, widths[int(layer)]))
    return "\n".join((*lines, "</svg>\n"))


def _boxed(node: int, box: Box, label: str, x: float, y: float, width: float) -> str:
    border = BORDERS.get(box.status, PLAIN)
    dashes = ' stroke-dasharray="5 3"' if box.status in ("skipped", "cancelled") else ""
    heavy = 2.5 if box.status in ("failed", "running", "interrupted") else 1.5
    title = _printed(box.title or f"{box.name} ({box.layer}{', ' if box.status else ''}{box.status})")
    return (
        f'<g class="node" data-node="{node}" data-name="{_printed(box.name)}"><title>{title}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HIGH}" rx="6" '
        f'fill="{FILLS.get(box.layer, OTHER)}" stroke="{border}" stroke-width="{heavy}"{dashes}/>'
        f'<text x="{x + width / 2:.1f}" y="{y + HIGH / 2 + 4:.1f}" text-anchor="middle" fill="#1f2328">'
        f"{_printed(label)}</text></g>"
    )


def _printed(text: str) -> str:
    """A text that XML can hold, escaped: what is not printed becomes a space."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _label(box: Box) -> str:
    name = box.name
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return f"{GLYPHS[box.status]} {short}" if box.status in GLYPHS else short


def _way(points: Sequence[tuple[float, float]], lefts: Sequence[float], widths: Sequence[float]) -> str:
    """A curve from the right side of a box to the left side of another, level where it passes a layer."""
    spots: list[tuple[float, float]] = []
    for number, (layer, row) in enumerate(points):
        left, middle = lefts[int(layer)], 10 + row * ROW + HIGH / 2
        if number:
            spots.append((left, middle))
        if number < len(points) - 1:
            spots.append((left + widths[int(layer)], middle))
    path = [f"M{spots[0][0]:.1f} {spots[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in itertools.pairwise(spots):
        bend = (x2 - x1) / 2
        straight = abs(y1 - y2) < 0.1
        curve = f"L{x2:.1f} {y2:.1f}"
        path.append(curve if straight else f"C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}")
    return "".join(path)


def _collapsed(boxes: Sequence[Box], upstream: Sequence[Sequence[int]]) -> tuple[list[Box], list[list[int]]]:
    """
    The graph with one box for all nodes of one layer at neighbouring depths, in columns that fit a screen. Where the
    layers are many, one for all nodes.
    """
    depth = depths(upstream)
    together = -(-(max(depth) + 1) // COLUMNS)
    are_many = len({box.layer for box in boxes}) > COLUMNS
    members: dict[tuple[int, str], list[int]] = {}
    for node, box in enumerate(boxes):
        members.setdefault((depth[node] // together, "steps" if are_many else box.layer), []).append(node)
    group = {node: number for number, nodes in enumerate(members.values()) for node in nodes}
    waits: list[set[int]] = [set() for _ in members]
    for node, others in enumerate(upstream):  # two groups may wait for each other: one of the two ways is drawn
        waits[group[node]] |= {group[other] for other in others if group[other] < group[node]}
    grouped = [_together([boxes[node] for node in nodes], layer) for (_, layer), nodes in members.items()]
    return grouped, [sorted(each) for each in waits]


def _together(boxes: Sequence[Box], layer: str) -> Box:
    if len(boxes) == 1:
        return boxes[0]
    statuses = Counter(box.status for box in boxes if box.status)
    worst = next((status for status in BORDERS if status == "failed" and statuses[status]), None)
    status = worst or (statuses.most_common(1)[0][0] if statuses else "")
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
    names = ", ".join(box.name for box in boxes[:10]) + (", …" if len(boxes) > 10 else "")
    return Box(f"{len(boxes):,} x {layer}", layer, status, f"{len(boxes):,} steps ({counts or layer}): {names}")
