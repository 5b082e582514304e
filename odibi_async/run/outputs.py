"""What a step made, from what its function returned."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from odibi_async.dataset import KINDS
from odibi_async.errors import OutputError
from odibi_async.graph.graph import Node


def refuse_awaitable(who: str, value: Any) -> None:
    """
    Makes sure that a call gave a value.

    Raises:
        OutputError: It gave a coroutine or a future, which nobody awaits.
    """
    kind = KINDS[type(value)]
    if kind is not None and kind.awaitable:
        if inspect.iscoroutine(value):
            value.close()
        raise OutputError(
            f"{who} returned {type(value).__name__} {value!r} that nobody awaits: "
            "make it an async function, or await inside it."
        )


def outputs_of(node: Node, value: Any) -> Sequence[Any]:
    """
    What a step made, one value a dataset, from what its function returned.

    Raises:
        OutputError: The function returned something that nobody awaits, or not what the step declares.
    """
    refuse_awaitable(f"Step {node.name!r}", value)
    if len(node.outputs) == 1:
        return (value,)
    if not node.outputs:
        return ()
    names = list(node.step.outputs)
    if isinstance(value, Mapping):
        if value.keys() != set(names):
            raise OutputError(f"Step {node.name!r} declares the outputs {names}, but returned {list(value)}.")
        return [value[name] for name in names]
    if not isinstance(value, tuple):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs, so it returns a tuple or a mapping, "
            f"not {type(value).__name__}."
        )
    if len(value) != len(names):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs ({', '.join(names)}), but returned {len(value)}."
        )
    return value
