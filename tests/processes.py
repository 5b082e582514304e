"""The processes that this one has started."""

from __future__ import annotations

import contextlib

import psutil


def children(word: str) -> set[int]:
    """Those, and theirs, whose command line has a word in it."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if word in " ".join(child.cmdline()):
                found.add(child.pid)
    return found
