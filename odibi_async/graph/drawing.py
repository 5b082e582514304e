"""Graphs as text that other tools draw."""

from __future__ import annotations

from collections.abc import Sequence

from odibi_async.graph.node import Node

_FILLS = {"ingest": "#e1f5ff", "store": "#fff3e0", "transform": "#f3e5f5", "publish": "#e8f5e9"}


def mermaid(nodes: Sequence[Node], upstream: Sequence[Sequence[int]]) -> str:
    """A graph in the Mermaid language, one fill a layer."""
    lines = ["graph TD"]
    lines += [f'    n{node.index}["{_mermaid_text(node.name)}"]' for node in nodes]
    for index, waits in enumerate(upstream):
        lines += [f"    n{other} --> n{index}" for other in waits]
    lines += [f"    style n{node.index} fill:{_FILLS.get(node.step.layer, '#fafafa')}" for node in nodes]
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """A text as Mermaid draws it letter by letter: whatever could mean something is written as its code."""
    return "".join(
        letter if letter.isalnum() or letter in " _-.,:+/()" else " " if letter.isspace() else f"#{ord(letter)};"
        for letter in text
    )
