"""The call of a step that code is part of: how it hears of its cancellation, and how it waits for another run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Final

Interrupt = Callable[[], object]


class CurrentCall:
    """
    A call of a step, as seen by the code that it runs. This one holds nothing, and asyncio alone cancels it.

    Attributes:
        interrupts: What stops the call, where it waits for something that can be stopped.
    """

    __slots__ = ("interrupts",)

    def __init__(self) -> None:
        self.interrupts: tuple[Interrupt, ...] = ()

    @property
    def is_cancelled(self) -> bool:
        """Whether the call was told to end."""
        return False

    @contextlib.asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """A block in which the call only waits: what it holds is free for others, and is taken again at the end."""
        yield


CURRENT: Final[ContextVar[CurrentCall | None]] = ContextVar("odibi_async call", default=None)
"""The call of a step that the running code is part of; `None` outside of steps."""


@contextlib.asynccontextmanager
async def waiting() -> AsyncIterator[None]:
    """A block that waits for a run: a step that is in it holds neither its slot nor its thread."""
    call = CURRENT.get()
    if call is None:
        yield
    else:
        async with call.aside():
            yield


@contextlib.contextmanager
def on_cancel(interrupt: Interrupt) -> Iterator[None]:
    """
    A block within which the cancellation of a blocking step calls `interrupt`, to stop what the block waits for.

    Args:
        interrupt: Called on the loop's thread, again every 0.2 s until the block is left. It must not block.

    Raises:
        asyncio.CancelledError: The step is cancelled already.
    """
    call = CURRENT.get()
    if call is None:
        yield
        return
    call.interrupts = (*call.interrupts, interrupt)
    try:
        check_cancelled()
        yield
    finally:
        call.interrupts = tuple(each for each in call.interrupts if each is not interrupt)


def check_cancelled() -> None:
    """
    Ends a blocking step that was cancelled: call it now and then in a long loop.

    Outside a step it does nothing.

    Raises:
        asyncio.CancelledError: The step was cancelled, its time is over, or another step failed.
    """
    call = CURRENT.get()
    if call is not None and call.is_cancelled:
        raise asyncio.CancelledError("the step was cancelled")
