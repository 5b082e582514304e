"""What others may implement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from odibi_async.dataset import Handle
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """
    One call of a step's function, as an executor gets it.

    Attributes:
        step: The name of the step.
        fn: The function, plain or async.
        args: What it is given by position. Handles among them are those that the executor takes.
        kwargs: What it is given by name, likewise.
        outputs: Turns what the function returned into one value for each dataset, or raises. Pickles by name.
        datasets: How many datasets that makes.
        timeout: Seconds that the call may take, for executors that can keep to it where the call runs. The run
            itself cancels the call as well.
        owner: For whom it is called: owners take turns.
        priority: Of one owner's calls, the highest goes first.
        units: Pool -> how much of it the call takes.
        resources: Those of them that the limits do not count, so that the executor has to.
        context: The context variables that the function is to see.
        on_start: To be called on the loop when the function is about to be called, also when it is called once more.
    """

    step: str
    fn: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Callable[[Any], Sequence[Any]]
    datasets: int
    timeout: float | None
    owner: object
    priority: float
    units: Mapping[str, int]
    resources: Mapping[str, int]
    context: Context
    on_start: Callable[[], None]


class Raised(Exception):
    """
    What a task of an executor raises when the function did.

    Attributes:
        error: What the function raised. A task cannot raise all of that itself: `SystemExit` would end its loop.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Executor(Protocol):
    """
    A place where steps are called: worker processes, a cluster.

    A runner opens it before the first run that needs it, in the loop of its runs, and closes it once for each opening.
    """

    async def open(self) -> None:
        """Gets ready. Called again while it is open, by another runner."""

    async def close(self) -> None:
        """Ends what the opening began; after the last one, nothing is left behind."""

    def takes(self, handle: Handle, /) -> bool:
        """Whether a call can be given this handle in place of its value. Must not block."""

    def submit(self, work: Work, /) -> asyncio.Task[Sequence[Any]]:
        """
        Has a function called. Must not block.

        Returns:
            A task that gives one value, or one handle, for each dataset, or raises: `Raised` with what the function
            raised, else an error of the executor's own. Cancelling it ends the call; it is done when nothing of the
            call is running any more, or when that cannot be helped.
        """


@runtime_checkable
class FrameEngine(Protocol):
    """An engine, as a run sees it. Every method blocks, and is called in a worker thread."""

    @property
    def name(self) -> str:
        """What steps call it."""

    @property
    def works_elsewhere(self) -> bool:
        """Whether its work is done outside of this process, so that threads only wait for it."""

    def around(self, step: str, /) -> AbstractContextManager[object]:
        """A block in which a step is called, in the thread of the call."""

    def to_arrow(self, frame: Any, what: str, /) -> Any:
        """The rows of one of its frames, as an Arrow table; `what` it is, for messages."""

    def from_arrow(self, table: Any, what: str, /) -> Any:
        """A frame of its own, of an Arrow table."""


@runtime_checkable
class FrameKeeper(FrameEngine, Protocol):
    """An engine whose frames only it can write and read, for a cache."""

    def save(self, frame: Any, folder: Path, /) -> bytes:
        """Writes a frame as files into a folder that does not exist yet; what `restore` needs besides."""

    def restore(self, paths: Sequence[Path], about: bytes, /) -> Any:
        """The frame of files that `save` wrote, in the order of their names then."""

    def save_is_exact(self, frame: Any, paths: Sequence[Path], about: bytes, /) -> str:
        """Why what `restore` gives is not the frame that was saved; empty when it is."""


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
