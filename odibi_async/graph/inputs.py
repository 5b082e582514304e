"""What a graph may be given from outside."""

from __future__ import annotations

from collections.abc import Sequence

from odibi_async.dataset import ABSENT
from odibi_async.graph.binding import Binder
from odibi_async.graph.hints import hints_of
from odibi_async.graph.node import OUTSIDE, Call, Input, Node


def inputs_of(
    nodes: Sequence[Node], datasets: Sequence[str], producers: Sequence[int], binder: Binder
) -> dict[str, Input]:
    """What may be given from outside, by name; not the contexts of engines."""
    found: dict[str, Input] = {}
    hidden = frozenset(binder.hidden.values())

    def add(reader: str, call: Call) -> None:
        for parameter, _, dataset, default in binder.bindings_of(call):
            if dataset is None or producers[dataset] != OUTSIDE or dataset in hidden:
                continue
            name, required = datasets[dataset], default is ABSENT
            before = found.get(name)
            if before is None:
                kind = hints_of(call.fn).get(parameter)
                found[name] = Input(name, kind, None if required else default, required, (reader,))
            else:
                others = tuple(other for other in before.readers if other != reader)
                readers = (reader, *others) if required and not before.required else (*others, reader)
                found[name] = Input(name, before.type, before.default, before.required or required, readers)

    for node in nodes:
        add(node.name, node.call)
        if node.when is not None:
            add(node.name, node.when)
    return found
