"""What a step made, from what its function returned."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from odibi_async.dataset import KINDS
from odibi_async.errors import OutputError, with_article
from odibi_async.graph.node import Node


def refuse_used_up(who: str, value: Any) -> None:
    """
    Makes sure that a call gave a value that every reader can have.

    Raises:
        OutputError: It gave a coroutine or a future, which nobody awaits, or an iterator, empty for the second reader.
    """
    kind = KINDS[type(value)]
    if kind is not None and kind.refused:
        if inspect.iscoroutine(value) or inspect.isgenerator(value):
            with contextlib.suppress(BaseException):  # what it does when it is closed is anybody's code
                value.close()
        raise OutputError(f"{who} returned {with_article(type(value).__name__)}, {kind.refused}")


def outputs_of(node: Node, value: Any) -> Sequence[Any]:
    """
    What a step made, one value a dataset, from what its function returned.

    Raises:
        OutputError: The function returned something that nobody awaits, or not what the step declares.
    """
    return made_of(node.name, len(node.outputs), node.step.outputs, value)


def made_of(step: str, count: int, outputs: Mapping[str, str], value: Any) -> Sequence[Any]:
    """The same for a step with this name, as many datasets, and these declared outputs; also in another process."""
    who = f"Step {step!r}"
    refuse_used_up(who, value)
    if count == 1:
        return (value,)
    if not count:
        return ()
    made = _several(who, list(outputs), value)
    for each in made:
        refuse_used_up(who, each)
    return made


def _several(who: str, names: Sequence[str], value: Any) -> Sequence[Any]:
    """One value for each of several datasets."""
    if isinstance(value, Mapping):
        if value.keys() != set(names):
            raise OutputError(f"{who} declares the outputs {names}, but returned {list(value)}.")
        return [value[name] for name in names]
    if not isinstance(value, tuple):
        raise OutputError(
            f"{who} declares {len(names)} outputs, so it returns a tuple or a mapping, not {type(value).__name__}."
        )
    if len(value) != len(names):
        raise OutputError(f"{who} declares {len(names)} outputs ({', '.join(names)}), but returned {len(value)}.")
    return value
