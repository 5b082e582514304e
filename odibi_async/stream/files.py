"""Files that appear in a directory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fnmatch
import importlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

import anyio
from blake3 import blake3

from odibi_async.durations import seconds_of
from odibi_async.errors import ExtraMissing, OptionError
from odibi_async.runner.aside import in_a_thread
from odibi_async.stream.listing import Pattern, Seen
from odibi_async.stream.source import Batch, Found, Memory

DEBOUNCE: Final = 200
"""Milliseconds that changes are collected for."""
AGAIN: Final = 1.0
"""Seconds after which a directory is looked at again when what changed in it could not be told."""
_log = logging.getLogger("odibi_async")


@dataclass(slots=True)
class _Look:
    """
    A file, as it was seen last.

    Attributes:
        seen: What can be seen of it.
        since: Since when it is so, by the clock of the loop.
        key: What it is known by, once it was read; empty before that.
        is_taken: Whether a committed batch has it.
    """

    seen: Seen
    since: float
    key: str = ""
    is_taken: bool = False


class _Changed(Exception):
    """A file is no longer what it was a moment ago."""


class Files:
    """
    A source of files that appear in a directory; a batch is the content of one, as a frame.

    A file is taken when it has not changed for `settle` seconds, by a clock that is never set, or when its marker is
    there. It is known by its content: one that was renamed, copied or touched is not taken twice, one that was
    replaced by another content is taken again.

    Args:
        where: A directory, or a pattern such as `incoming/*.csv`; `**` stands for any number of directories. Names that
            begin with a dot are left out.
        file_pattern: In a directory, what names look like.
        format: csv, parquet, jsonl, ...; `None` to go by the suffix.
        read_options: Options of the reader of pandas.
        read: Reads a file, given its path, instead; in a worker thread. `Path.read_bytes`, say.
        settle: Seconds that a file must not have changed for; 0 where files are written elsewhere and moved here.
        done: The name of the marker that says that a file is whole: `"_SUCCESS"`, or, with its name, `"{}.done"`.
        interval: Seconds between two looks, where nothing is heard of changes.
        identity: `"content"`, or `"name"`: then two files of the same content are two batches if their paths differ.
        watch: Whether changes are heard of at once (extra `watch`); `None` where that is installed.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        file_pattern: str = "*",
        *,
        format: str | None = None,  # noqa: A002 (the word that people know)
        read_options: Mapping[str, Any] | None = None,
        read: Callable[[Path], Any] | None = None,
        settle: float = 1.0,
        done: str | None = None,
        interval: float = 60.0,
        identity: Literal["content", "name"] = "content",
        watch: bool | None = None,
    ) -> None:
        if identity not in ("content", "name"):
            raise OptionError(f"identity={identity!r} is neither 'content' nor 'name'.")
        if done is not None and (not isinstance(done, str) or done in ("", "{}")):
            raise OptionError(f"done={done!r}: the name of a marker is needed, such as '_SUCCESS' or '{{}}.done'.")
        if read is not None and (format is not None or read_options):
            raise OptionError("read= reads files itself: format= and read_options= are for files that are read here.")
        self._where = os.fspath(where)
        self._names = file_pattern
        self._pattern: Pattern | None = None
        self._read = read
        self._format = format
        self._options = dict(read_options or {})
        self._settle: float = 0.0 if done is not None else seconds_of("settle", settle)
        self._done = done
        self._interval: float = seconds_of("interval", interval, above_zero=True)
        self._by_name = identity == "name"
        self._watch = watch
        self._looks: dict[str, _Look] | None = None
        self._is_growing = False
        self._newest: datetime | None = None
        self._news = asyncio.Event()
        self._watcher: _Watcher | None = None

    def __repr__(self) -> str:
        return f"<Files {self._where}>"

    # -- its life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Begins to listen for changes.

        Raises:
            ExtraMissing: `watch=True`, and what listens is not installed.
        """
        self._pattern = await in_a_thread(Pattern, self._where, self._names)
        if self._watch is False:
            return
        try:
            library = await in_a_thread(importlib.import_module, "watchfiles")
        except ImportError as error:
            if self._watch:
                raise ExtraMissing("Hearing of files at once", "watch") from error
            return
        self._watcher = _Watcher(library, self._pattern, self._news)

    async def close(self) -> None:
        """Listens no more."""
        self._looks = None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await watcher.close()

    async def changed(self) -> bool:
        """Returns when something has changed, when a file may have stopped growing, or after the interval."""
        if self._watcher is not None:
            self._watcher.start()
        wait = max(self._settle, 0.01) if self._is_growing else self._interval
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()
        return True

    # -- a look ----------------------------------------------------------------------------------------

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Found]:
        """The files that no committed batch has, in the order of their paths; those that still grow are left out."""
        self._news.clear()
        if self._watcher is not None:
            self._watcher.start()
        known = await memory.items() if self._looks is None else {}
        new = await in_a_thread(self._compare, known, asyncio.get_running_loop().time())
        while new:
            now = asyncio.get_running_loop().time()
            ready = [path for path, look in new.items() if now - look.since >= self._settle]
            for path in ready:
                batch = await self._taken(path, new.pop(path), memory)
                if batch is not None:
                    yield dataclasses.replace(batch, pending=len(new))
            if new:
                due = min(look.since for look in new.values()) + self._settle
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                new = self._still(await in_a_thread(self._listed), new)

    def _listed(self) -> dict[str, Seen]:
        """The files that are there, and that are whole as far as markers say."""
        assert self._pattern is not None
        found = self._pattern.files()
        if self._done is None:
            return found
        form = self._done.replace("{}", "*")
        return {
            path: seen
            for path, seen in found.items()
            if not fnmatch.fnmatchcase(os.path.basename(path), form) and os.path.exists(self._marker(path))
        }

    def _marker(self, path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(folder, (self._done or "").replace("{}", name))

    def _compare(self, known: Mapping[str, str], now: float) -> dict[str, _Look]:
        """The files that are new or have changed since the last look, in the order of their paths. Blocks."""
        found, before, new = self._listed(), self._looks or _recalled(known), {}
        self._looks = {}
        for path in sorted(found):
            look = before.get(path)
            if look is None or look.seen != found[path]:
                look = _Look(found[path], now)
            self._looks[path] = look
            if not look.is_taken:
                new[path] = look
        self._is_growing = False
        return new

    def _still(self, found: Mapping[str, Seen], new: Mapping[str, _Look]) -> dict[str, _Look]:
        """Of some files, those that have not changed meanwhile; the others are left to the next look."""
        still = {}
        for path, look in new.items():
            if path in found and found[path] == look.seen:
                still[path] = look
            elif path in found:
                self._again(path)
        return still

    def _again(self, path: str) -> None:
        """A file has changed: it is looked at again soon, as a new one."""
        if self._looks is not None:
            self._looks.pop(path, None)
        self._is_growing = True

    async def _taken(self, path: str, look: _Look, memory: Memory) -> Batch | None:
        """The batch of a file; `None` if another one has it, or it has vanished or changed."""
        try:
            look.key = key = look.key or await in_a_thread(self._key, path, look.seen)
            if key and await memory.get(key) is not None:  # asked each time: it may be replayed one day
                return None
            data, error = await in_a_thread(self._data, path, look.seen)
            if not key:
                key = self._key_of_unreadable(path, look.seen)
                if error is None:
                    raise _Changed
                if await memory.get(key) is not None:
                    return None
        except FileNotFoundError:
            return None
        except _Changed:
            self._again(path)
            return None
        return Batch(
            data=data,
            error=error,
            position=json.dumps(key),
            content=key,
            watermark=self._watermark(look.seen),
            label=path,
            remember={key: json.dumps([path, look.seen])},
            settled=lambda: setattr(look, "is_taken", True),
        )

    def _watermark(self, seen: Seen) -> datetime:
        modified = datetime.fromtimestamp(seen.modified / 1e9, timezone.utc)
        self._newest = modified if self._newest is None else max(self._newest, modified)
        return self._newest

    # -- in a worker thread ----------------------------------------------------------------------------

    def _key(self, path: str, seen: Seen) -> str:
        """What a file is known by: a digest of its content; empty where that cannot be read."""
        hasher = blake3(path.encode("utf-8", "surrogateescape") if self._by_name else b"")
        try:
            with open(path, "rb", buffering=0) as file:
                _check(file.fileno(), seen)
                while block := file.read(2**20):
                    hasher.update(block)
                _check(file.fileno(), seen)
        except FileNotFoundError:
            raise
        except OSError:  # `_data` meets it again
            return ""
        return hasher.hexdigest()

    def _key_of_unreadable(self, path: str, seen: Seen) -> str:
        return blake3(json.dumps([path, seen]).encode()).hexdigest()

    def _data(self, path: str, seen: Seen) -> tuple[Any, Exception | None]:
        """What is in a file, or why it cannot be read."""
        try:
            with open(path, "rb") as file:  # it stays what it is, whatever takes its place
                _check(file.fileno(), seen)
                try:
                    return (self._frame(file) if self._read is None else self._read(Path(path))), None
                finally:
                    _check(path if self._read else file.fileno(), seen)
        except (OptionError, _Changed):
            raise
        except FileNotFoundError as error:
            if not os.path.exists(path):
                raise
            return None, error
        except Exception as error:  # whatever a reader raises about a file is that file's error
            return None, error

    def _frame(self, file: Any) -> Any:
        from odibi_async.engines.formats import dialect, read_frame  # loads pandas

        return read_frame(file, dialect(file.name, self._format), self._options)


class _Watcher:
    """Hears of changes in a directory, as long as that can be watched."""

    def __init__(self, library: Any, pattern: Pattern, news: asyncio.Event) -> None:
        self._library = library
        self._pattern = pattern
        self._news = news
        self._stop = anyio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watches, if it does not already: the directory may have been missing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="odibi_async watching files")

    async def _watch(self) -> None:
        try:
            await self._listen()
        except* OSError as errors:  # it is looked at from time to time all the same
            _log.warning("%s cannot be watched: %s", self._pattern, errors.exceptions[0])
        except* RuntimeError as errors:  # of a change that it has no words for: a name that is no text, say
            _log.warning("%s: a change could not be told: %s", self._pattern, errors.exceptions[0])
            with anyio.move_on_after(AGAIN):
                await self._stop.wait()
            self._news.set()

    async def _listen(self) -> None:
        """Hears of changes until it is closed, or the directory is gone: another one may take its place."""
        await in_a_thread(os.stat, self._pattern.base)  # a missing one would be watched for ever, and in vain
        gone = (self._library.Change.deleted, str(self._pattern.base))
        listening = self._library.awatch(
            self._pattern.base,
            watch_filter=None,
            recursive=self._pattern.is_deep,
            stop_event=self._stop,
            debounce=DEBOUNCE,
            ignore_permission_denied=True,
        )
        async with contextlib.aclosing(listening):
            async for changes in listening:
                self._news.set()
                if gone in changes:
                    return

    async def close(self) -> None:
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])


def _check(file: int | str, seen: Seen) -> None:
    if Seen.of(os.stat(file)) != seen:
        raise _Changed


def _recalled(known: Mapping[str, str]) -> dict[str, _Look]:
    """The files that committed batches have, as they were then."""
    found = {}
    for text in known.values():
        path, seen = json.loads(text)
        found[path] = _Look(Seen(*seen), 0.0, is_taken=True)
    return found
