"""Graphs as text that other tools draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from odibi_async.graph.node import Node
from odibi_async.graph.svg import Box

_FILLS = {"ingest": "#e1f5ff", "store": "#fff3e0", "transform": "#f3e5f5", "publish": "#e8f5e9"}


def mermaid(nodes: Sequence[Node], upstream: Sequence[Sequence[int]]) -> str:
    """A graph in the Mermaid language, one fill a layer."""
    return mermaid_of(boxes(nodes), upstream)


def mermaid_of(boxes: Sequence[Box], upstream: Sequence[Sequence[int]]) -> str:
    """Drawn boxes in the Mermaid language."""
    lines = ["graph TD"]
    lines += [f'    n{index}["{_mermaid_text(box.name)}"]' for index, box in enumerate(boxes)]
    for index, waits in enumerate(upstream):
        lines += [f"    n{other} --> n{index}" for other in waits]
    lines += [f"    style n{index} fill:{_FILLS.get(box.layer, '#fafafa')}" for index, box in enumerate(boxes)]
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """A text as Mermaid draws it letter by letter: whatever could mean something is written as its code."""
    return "".join(
        letter if letter.isalnum() or letter in " _-.,:+/()" else " " if letter.isspace() else f"#{ord(letter)};"
        for letter in text
    )


def dot(nodes: Sequence[Node], upstream: Sequence[Sequence[int]]) -> str:
    """A graph in the DOT language of Graphviz, one fill a layer."""
    lines = ["digraph {", "    rankdir=LR", '    node [shape=box, style="rounded,filled", fontname=monospace]']
    for node in nodes:
        fill = _FILLS.get(node.step.layer, "#fafafa")
        lines.append(f'    n{node.index} [label={_dot_text(node.name)}, fillcolor="{fill}"]')
    for index, waits in enumerate(upstream):
        lines += [f"    n{other} -> n{index}" for other in waits]
    return "\n".join((*lines, "}")) + "\n"


def _dot_text(text: str) -> str:
    """A text as DOT takes it letter by letter: a backslash begins its escapes, whatever is not printed is left out."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


def boxes(nodes: Sequence[Node]) -> list[Box]:
    """The steps of a graph as they are drawn where nothing has run."""
    return [Box(node.name, node.step.layer) for node in nodes]


def tree(order: Sequence[str], upstream: Mapping[str, Sequence[str]]) -> str:
    """
    A graph as an indented tree: each step under the one that it waits for longest, and beside it the others.

    Args:
        order: The steps, each after those that it waits for.
        upstream: Step -> those that it waits for.
    """
    place = {name: number for number, name in enumerate(order)}
    below: dict[str, list[str]] = {name: [] for name in order}
    roots = []
    for name in order:
        waits = [other for other in upstream[name] if other in place]
        if waits:
            below[max(waits, key=place.__getitem__)].append(name)
        else:
            roots.append(name)
    lines: list[str] = []
    waiting = [(name, "", "") for name in reversed(roots)]
    while waiting:
        name, lead, indent = waiting.pop()
        parent = max((place[other] for other in upstream[name] if other in place), default=None)
        others = [other for other in upstream[name] if place.get(other) != parent]
        lines.append(f"{lead}{name}{'  (also waits for ' + ', '.join(others) + ')' if others else ''}")
        children = below[name]
        for number, child in reversed(list(enumerate(children))):
            is_last = number == len(children) - 1
            waiting.append((child, indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")))
    return "\n".join(lines)
