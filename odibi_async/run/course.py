"""How far one call has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from odibi_async.graph.node import NOTHING, Node
from odibi_async.result import CacheUse, Status
from odibi_async.run.slots import Held

Outputs = Callable[[Any], Sequence[Any]]
"""Turns what a function returned into its datasets."""


@dataclass(slots=True)
class Course:
    """
    How far a step has come, or an element of one.

    Attributes:
        ready: When its inputs were there, in seconds of `perf_counter`.
        started: When its first attempt began; 0 before that.
        attempts: How many began.
        use: What the cache did for it, if it was asked.
        found: How a layer had its datasets without a call (`cached`); `None` if it was called.
        note: What is to be said of its failure beside its error.
    """

    ready: float
    started: float = 0.0
    attempts: int = 0
    use: CacheUse | None = None
    found: Status | None = None
    note: str = ""


class Invocation:
    """
    One call of a step, or of one element of a mapped step, as the layers around it see it.

    Attributes:
        node: The step.
        course: How far it has come.
        on_begin: Told when an attempt begins, with the time.
        instead: Parameter -> value in place of a dataset.
        element: The number of the element; `None` for a step as a whole.
        held: The slot that it was given before it started, for its first attempt.
        keeping: Has what it makes kept where it is called, on another machine say: a report then follows its datasets.
        values: The datasets that it reads, where some of them had to be loaded; `None` where all are in the table.
        spent: Says why it cannot be made once more, what it read or made being gone; empty where it can.
    """

    __slots__ = ("course", "element", "held", "instead", "keeping", "node", "on_begin", "spent", "values")

    def __init__(
        self,
        node: Node,
        course: Course,
        on_begin: Callable[[float], None],
        instead: Mapping[str, Any] = NOTHING,
        element: int | None = None,
        held: Held | None = None,
    ) -> None:
        self.node = node
        self.course = course
        self.on_begin = on_begin
        self.instead = instead
        self.element = element
        self.held = held
        self.keeping: Callable[[Outputs], Outputs] | None = None
        self.values: Mapping[int, Any] | None = None
        self.spent: Callable[[], str] | None = None

    def begin(self) -> None:
        """Notes that an attempt begins. Told of the first time."""
        if not self.course.started:
            self.course.started = now = perf_counter()
            self.on_begin(now)
