"""Named moments in writing to disk, at which a test may have a process die or a write fail (`odibi_async.testing`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAILPOINTS: Final = (
    "before write",
    "after write",
    "before sync",
    "after sync",
    "before rename",
    "after rename",
    "before commit",
    "after commit",
)
"""A dataset's file is written, synced and renamed; then the journal's rows are committed."""

ARMED: Final[dict[str, Callable[[], object]]] = {}
"""What happens at a moment; empty outside of tests."""


def passing(name: str) -> None:
    """Does what is armed at this moment."""
    if ARMED and (act := ARMED.get(name)) is not None:
        act()
