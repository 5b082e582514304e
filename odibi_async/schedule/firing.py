"""A moment at which a trigger says that a pipeline is to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Seen = Mapping[str, tuple[int, int]]
"""The files that were there: path -> bytes, and when it was changed last in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """
    A moment at which a pipeline is to run, and why.

    Attributes:
        at: The time that it stands for (UTC), not that at which somebody came to it.
        trigger: What fired, as text: `cron 30 2 * * *`.
        payload: What an event brought, or the paths of the files that are there; `None` for times.
        seen: For files, all that were there.
    """

    at: datetime
    trigger: str
    payload: Any = None
    seen: Seen | None = field(default=None, repr=False)
