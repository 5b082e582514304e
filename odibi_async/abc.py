"""What others may implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from odibi_async.events import Event
from odibi_async.place import Place
from odibi_async.steps import Step

Observer = Callable[[Event], object]
"""Anything that takes an event. Called on the loop's thread, in order; it must not block."""


class Entering(Protocol):
    """An observer that is also asked before each call of a step, in the context in which the call is made."""

    def __call__(self, event: Event, /) -> object:
        """Hears of an event."""

    def entering(self, place: Place, /) -> object:
        """
        Sets context variables for the code of the step. Called in the thread of the call; it must not block.

        A resource is entered in two contexts, that of its task and that of its thread: one attempt, two calls.
        """


NodeType = Callable[[Step[..., Any, Any]], Callable[..., Any]]
"""
What a layer of configured steps means: takes a step, when the pipeline is made, and gives what is to be called.
Its parameters are bound like any function's, by the step's inputs and params; `engine` gets the engine's context.
"""


@runtime_checkable
class Described(Protocol):
    """
    A callable that says itself what its result follows from, beside what it is given, so that it can be cached.

    Others are known by their code, as far as one can see; a node type's callable may know better: the text of
    a query, the content of a file.
    """

    def has_content(self, engine: Any, /) -> bool:
        """Whether its result follows from its contents and what it is given. Called in a worker thread."""

    def contents(self, engine: Any, /) -> Mapping[str, Any]:
        """In words -> the text, the numbers, the `pathlib.Path` of a file, that its result follows from."""


@runtime_checkable
class Doubtful(Described, Protocol):
    """One that says why its result does not follow from its contents."""

    def doubt(self, engine: Any, /) -> str:
        """In words, why; empty where it does."""
