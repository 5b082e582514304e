"""Drawings of graphs: every label is text, everything has its place, and large graphs are put together."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from odibi_async import Pipeline, step
from odibi_async.graph.layout import depths, laid_out
from odibi_async.graph.svg import COLUMNS, MOST, Box, svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    '<script>alert("x")</script>',
    "a & b",
    'it\'s "quoted" \\ n',
    "]]> --> #59; {x}",
    "\x00\x1b[31m\u202e",
    "é" * 99,
]


def grown(count: int, seed: int = 1) -> tuple[list[Box], list[list[int]]]:
    chance = random.Random(seed)
    upstream = [sorted({chance.randrange(max(0, i - 12), i) for _ in range(2)}) if i > 2 else [] for i in range(count)]
    return [Box(f"step {i}", ("ingest", "transform", "store")[i * 3 // count]) for i in range(count)], upstream


@pytest.mark.parametrize("count", [1, 5, 50, MOST])
def test_no_two_boxes_overlap_and_edges_go_to_the_right(count: int):
    boxes, upstream = grown(count)
    root = ET.fromstring(svg(boxes, upstream))
    rects = [
        tuple(float(rect.get(key, "")) for key in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")
    ]
    assert len(rects) == count
    for i, (x, y, width, height) in enumerate(rects):
        for other in rects[:i]:
            apart = (
                x + width <= other[0] or other[0] + other[2] <= x or y + height <= other[1] or other[1] + other[3] <= y
            )
            assert apart
    edges = [(int(path.get("data-from", "")), int(path.get("data-to", ""))) for path in root.iter(f"{SVG}path")]
    assert sorted(edges) == sorted((other, node) for node, waits in enumerate(upstream) for other in waits)
    assert all(rects[start][0] + rects[start][2] <= rects[end][0] for start, end in edges)
    _, _, wide, high = map(float, root.get("viewBox", "").split())
    assert all(x >= 0 and x + w <= wide and y >= 0 and y + h <= high for x, y, w, h in rects)


@pytest.mark.parametrize("count", [MOST + 1, 300, 3_000])
def test_large_graphs_are_put_together(count: int):
    boxes, upstream = grown(count)
    root = ET.fromstring(svg(boxes, upstream))
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert len(titles) <= 5 * COLUMNS
    assert (
        sum(int(title.split()[0].replace(",", "")) for title in titles if title[0].isdigit())
        + sum(not title[0].isdigit() for title in titles)
        == count
    )


def test_a_chain_of_many_layers_is_laid_out_without_recursion():
    assert depths([[i - 1] if i else [] for i in range(20_000)])[-1] == 19_999
    assert laid_out([[i - 1] if i else [] for i in range(2_000)]).layers == 2_000


def test_an_empty_graph_has_a_drawing():
    assert ET.fromstring(svg([], [])).tag == f"{SVG}svg"


def hostile() -> Pipeline:
    def nothing() -> None: ...

    return Pipeline([step(nothing, name=name, layer=name) for name in HOSTILE])


def test_names_are_text_in_every_form():
    pipeline = hostile()
    root = ET.fromstring(pipeline.to_svg())
    assert [
        each.tag for each in root.iter() if each.tag.removeprefix(SVG) not in ("svg", "g", "title", "rect", "text")
    ] == []
    shown = [text.text for text in root.iter(f"{SVG}text")]
    assert HOSTILE[0] in shown
    assert not any("\x1b" in (text or "") or "\x00" in (text or "") for text in shown)
    assert "style=" not in pipeline.to_svg()
    dot = pipeline.to_dot()
    assert r'label="it\'s \"quoted\" \\ n"'.replace(r"\'", "'") in dot
    assert dot.count("\n") == 4 + len(HOSTILE)


def test_dot_has_the_edges():
    def a() -> int:
        return 1

    def b(a: int) -> int:
        return a

    lines: list[Any] = Pipeline([a, b]).to_dot().splitlines()
    assert lines[0] == "digraph {"
    assert "    n0 -> n1" in lines


def test_a_notebook_shows_the_drawing():
    assert hostile()._repr_html_().startswith("<svg ")
