"""Which call of which step the running code is part of."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from odibi_async.quick import quick


@dataclass(frozen=True, slots=True)
class Place:
    """
    One call of a step.

    Attributes:
        run_id: The run.
        step: The name of the step.
        element: Which element of a mapped step it is, counted from 0; `None` for other steps.
        attempt: Which attempt it is; the first is 1, and 0 stands for the predicate that is asked before.
    """

    run_id: str
    step: str
    element: int | None
    attempt: int


new_place = quick(Place)
PLACE: Final[ContextVar[Place | None]] = ContextVar("odibi_async place", default=None)
"""The call that the running code is part of; `None` outside of steps, and in runs that nobody observes."""
