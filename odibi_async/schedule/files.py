"""Files that come, and have stopped growing."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
import stat
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError
from odibi_async.files import unless_gone
from odibi_async.runner.aside import in_a_thread
from odibi_async.schedule.firing import Firing, Seen
from odibi_async.schedule.triggers import Clock, Trigger, moment

WILD: Final = "*?["
TOGETHER: Final = 300
"""Milliseconds in which changes that follow each other are told together."""


class OnFiles(Trigger):
    """
    When files come or change: `OnFiles("in/*.csv")`. The payload is a sorted list of their paths.

    It looks for them every so often, and at once when the system tells of a change (extra `watch`). Files fire when
    they have stopped growing. Those that are there at the beginning fire too; a server with a journal remembers which
    ones have.

    Args:
        glob: A pattern: `*`, `?` and `[...]` within a name, `**` for any folders. Hidden files only where it says `.`.
        settle: Seconds for which all of them must stay as they are.
        every: Seconds between looking for them.
    """

    def __init__(self, glob: str | os.PathLike[str], *, settle: float = 1.0, every: float = 5.0) -> None:
        if not isinstance(glob, str | os.PathLike) or not os.fspath(glob):
            raise OptionError(f"OnFiles({glob!r}): a pattern is needed, such as 'in/*.csv'.")
        self.glob = os.fspath(glob)
        self.settle: float = seconds_of("OnFiles: settle", settle)
        self.every: float = seconds_of("OnFiles: every", every, above_zero=True)
        self._folder, self._parts = _divided(self.glob)

    @property
    def text(self) -> str:
        return f"files {self.glob}"

    def next(self, after: datetime) -> datetime | None:
        return None

    def firings(self, clock: Clock = time.time) -> AsyncGenerator[Firing, None]:
        return self.since({}, clock)

    async def since(self, seen: Seen, clock: Clock = time.time) -> AsyncGenerator[Firing, None]:
        """
        Its firings, for files that are not among those that were seen, or are not as they were.

        Raises:
            OSError: The folder cannot be read, or is not there.
        """
        async with _changes(self._folder, len(self._parts) > 1) as changes:
            found = await self._scan()
            while True:
                if not any(seen.get(path) != about for path, about in found.items()):
                    seen = found  # one that is gone and comes again is a new one
                    await changes.wait(self.every)
                    found = await self._scan()
                    continue
                await asyncio.sleep(self.settle)
                later = await self._scan()
                if later == found:
                    new = sorted(path for path, about in found.items() if seen.get(path) != about)
                    yield Firing(at=moment(clock()), trigger=self.text, payload=new, seen=found)
                    seen = found
                found = later

    async def _scan(self) -> Seen:
        return await in_a_thread(self.scan)

    def scan(self) -> Seen:
        """
        The files that are there. Blocks.

        Raises:
            OSError: The folder cannot be read, or is not there.
        """
        return dict(_matching(self._folder, self._parts, True))


def _divided(glob: str) -> tuple[Path, Sequence[str]]:
    """The folder that a pattern begins with, and the parts of the rest."""
    parts = Path(glob).parts
    wild = next((index for index, part in enumerate(parts) if any(letter in part for letter in WILD)), len(parts) - 1)
    return Path(*parts[:wild]), parts[wild:]


def _matching(folder: Path, parts: Sequence[str], is_top: bool = False) -> Iterator[tuple[str, tuple[int, int]]]:
    """
    The files below a folder that fit a pattern. Folders below it may go away meanwhile.

    Raises:
        OSError: A folder cannot be read.
    """
    part, *rest = parts
    if part == "**":
        yield from _matching(folder, rest or ["*"], is_top)
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        if is_top:
            raise
        return
    for entry in entries:
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        if part == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _matching(folder / entry.name, parts)
        elif fnmatch.fnmatchcase(entry.name, part):
            with unless_gone():
                about = entry.stat()
                if rest and stat.S_ISDIR(about.st_mode):
                    yield from _matching(folder / entry.name, rest)
                elif not rest and stat.S_ISREG(about.st_mode):
                    yield str(folder / entry.name), (about.st_size, about.st_mtime_ns)


class _Polled:
    """Waits for the next time to look."""

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Watched:
    """Waits for the next time to look, or until the system tells of a change."""

    def __init__(self) -> None:
        self.news = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.news.wait()
        self.news.clear()


@contextlib.asynccontextmanager
async def _changes(folder: Path, is_deep: bool) -> AsyncIterator[_Polled | _Watched]:
    """What tells when to look at a folder again; without watchfiles, or where it cannot watch, the time alone."""
    try:
        watchfiles = await in_a_thread(__import__, "watchfiles")
    except ImportError:
        yield _Polled()
        return
    watched, over, loop = _Watched(), threading.Event(), asyncio.get_running_loop()

    def watch() -> None:
        gone = (watchfiles.Change.deleted, os.path.abspath(folder))
        options = {"watch_filter": None, "debounce": TOGETHER, "recursive": is_deep, "stop_event": over}
        with contextlib.suppress(OSError, RuntimeError):  # it is gone, or more than the system can watch: scans find it
            while not over.is_set():
                for changes in watchfiles.watch(os.path.abspath(folder), **options):
                    loop.call_soon_threadsafe(watched.news.set)
                    if gone in changes:  # another one may have taken its place
                        break

    watching = asyncio.create_task(in_a_thread(watch))
    try:
        yield watched
    finally:
        over.set()
        await asyncio.wait([watching])
