"""The step that the running code belongs to."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from odibi_async.errors import OutsideStep

RUN: Final[ContextVar[str | None]] = ContextVar("odibi_async run", default=None)
"""The id of the run that the running code belongs to."""
STEP: Final[ContextVar[tuple[str, int | None] | None]] = ContextVar("odibi_async step", default=None)
"""Name and element of the step that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentStep:
    """
    The step that is running.

    Attributes:
        run_id: The run that it belongs to.
        name: Its name.
        element: Which element of a mapped step it is, counted from 0; `None` for other steps.
    """

    run_id: str
    name: str
    element: int | None

    @property
    def idempotency_key(self) -> str:
        """
        32 hex digits from the run's id, the step's name and the element, the same in every attempt and when the run is
        resumed: a service that is given the key can tell a repeated request from a new one.
        """
        parts = (self.run_id, self.name, "" if self.element is None else str(self.element))
        lengths = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(lengths.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def current_step() -> CurrentStep:
    """
    The step that the calling code is part of, on the loop or in a worker thread.

    Raises:
        OutsideStep: It is not part of a step.
    """
    run_id, step = RUN.get(), STEP.get()
    if run_id is None or step is None:
        raise OutsideStep
    return CurrentStep(run_id=run_id, name=step[0], element=step[1])
