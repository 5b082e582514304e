"""
Datasets on disk: a value goes in with the digest of its content, and comes back exactly, or not at all.

Every value becomes bytes by rules that promise the way back: frames, series and indexes (`columns.py`), Arrow tables,
NumPy arrays (`.npy`), texts, bytes and plain Python values (`plain.py`). Few bytes stand in the row that tells of
the value; others are a file, `blobs/ab/abcdef...`, whose name is the BLAKE3 of its bytes. Length and BLAKE3 of all
bytes are checked before anything parses them.

    blobs/    the values
    work/     half-written files, a folder and a lock for each living writer
    leases/   a lock for each living run: nothing that was used since the oldest began is removed
    pins/     a list for each run that may be resumed: nothing on it is removed

Files are not synced, except those that a journal asks for. A process that is killed leaves no half-written blob, for a
file gets its name when it is whole; a machine that loses power may leave one, which reading finds out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from odibi_async.errors import Damaged, OptionError, Unstorable
from odibi_async.failpoints import passing
from odibi_async.secret import Secret
from odibi_async.store.blobs import digest_of_bytes, digest_of_file, fill, private, slices, synced
from odibi_async.store.kept import Kept
from odibi_async.store.kinds import dumped, key_of, parsed, pickled, unpickled
from odibi_async.store.locks import Beacon, files_in, sweep
from odibi_async.store.pins import Pins

INLINE: Final = 4096
"""Bytes that are still kept in the row; making a file costs more than a larger row."""


class Store:
    """
    Keeps values in a directory. Blocking, and safe to use from several threads and processes at a time.

    Whoever may write to the directory decides what is read from it, but runs no code by it: nothing is unpickled
    that was not signed with the secret.

    Args:
        directory: Made with mode 0700 when it is needed first.
        pickle: `"never"`, or `"signed"`: values that no other rule keeps are pickled and signed. Pickling keeps other
            threads waiting, and unpickling needs the classes.
        secret: What signs pickles; needed for `"signed"`, and nowhere written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        pickle: Literal["never", "signed"] = "never",
        secret: Secret | str | bytes | None = None,
    ) -> None:
        if pickle not in ("never", "signed"):
            raise OptionError(f"pickle={pickle!r}: 'never' or 'signed' is needed.")
        if pickle == "signed" and not secret:
            raise OptionError("pickle='signed' needs a secret= to sign with.")
        self.directory = Path(directory)
        self._signing = key_of(secret) if pickle == "signed" and secret else None
        self._opening = threading.Lock()
        self._work: Beacon | None = None
        self._swept = False
        self.pins = Pins(self.directory / "pins")

    def keep(self, value: Any, digest: str, *, durable: bool = False) -> Kept:
        """
        Writes a value, unless its bytes are there already, and says where it is.

        Args:
            value: Is not changed by others meanwhile.
            digest: Digest of the value's content.
            durable: Whether it has reached the disk when this returns, so that it outlasts a loss of power.

        Raises:
            Unstorable: It would not come back unchanged.
            OSError: The disk is full, the directory cannot be written to, ...
        """
        kind, pieces, rows = self._bytes_of(value, digest)
        size = sum(map(len, pieces))
        blob = digest_of_bytes(pieces)
        kept = Kept(digest=digest, kind=kind, blob=blob, size=size, rows=rows)
        if size <= INLINE:
            return Kept(digest=digest, kind=kind, blob=blob, size=size, rows=rows, inline=b"".join(pieces))
        if not self.has(kept):
            self._write(self._path(blob), pieces, durable)
        elif durable:
            self.sync(kept)
        return kept

    def sync(self, kept: Kept) -> None:
        """Returns when a value's file has reached the disk."""
        if kept.inline is None:
            path = self._path(kept.blob)
            synced(path)
            synced(path.parent)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """The path of a new folder for files that somebody else writes; it is removed at the end."""
        path = self._workplace() / secrets.token_hex(8)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def keep_files(self, folder: Path, about: bytes, digest: str, kind: str) -> Kept:
        """
        Takes the files of a folder, in the order of their names, and says where they are.

        Args:
            folder: Where they are; those whose names begin with a dot or an underscore are left.
            about: What is needed to read them, kept in the row.
            digest: Digest of what they hold.
            kind: How they are read.

        Raises:
            OSError: They cannot be moved.
        """
        parts = []
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name[0] not in "._":
                blob, size = digest_of_file(path)
                self._path(blob).parent.mkdir(0o700, exist_ok=True)
                os.replace(path, self._path(blob))
                parts.append((blob, size))
        return Kept(
            digest=digest,
            kind=kind,
            blob=digest_of_bytes([about]),
            size=len(about),
            inline=about,
            parts=tuple(parts),
        )

    def paths(self, kept: Kept) -> tuple[list[Path], bytes]:
        """
        The files that `keep_files` took, and what is needed to read them.

        Raises:
            Damaged: One is missing, or not what was kept; that one is removed.
        """
        about = bytes(self._verified(kept))
        paths = [self._path(blob) for blob, _ in kept.parts]
        for path in paths:
            try:
                blob, _ = digest_of_file(path)
            except FileNotFoundError:
                raise Damaged("one of its files is missing.") from None
            if blob != path.name:
                self.discard(path.name)
                raise Damaged("the bytes of one of its files are not those that were written.")
        return paths, about

    def has(self, kept: Kept) -> bool:
        """Whether the value's files are there with their lengths. Marks them as used now: protected for a while."""
        own = () if kept.inline is not None else ((kept.blob, kept.size),)
        return all([self._has(blob, size) for blob, size in (*own, *kept.parts)])  # noqa: C419 - marks all of them

    def _has(self, blob: str, size: int) -> bool:
        path = self._path(blob)
        try:
            if os.stat(path).st_size != size:
                return False
            with contextlib.suppress(PermissionError):
                os.utime(path)
        except OSError:
            return False
        return True

    def load(self, kept: Kept) -> Any:
        """
        The value. Its memory is its own: it may be written to, and outlives the file.

        Raises:
            Damaged: Its bytes are not there, not readable, or not what was written. A file with wrong bytes is
                removed, so that the value can be kept again.
        """
        data = self._verified(kept)
        try:
            return self._value_of(kept, data)
        except Damaged:
            raise
        except Exception as error:  # parsers raise what they like: bytes that others wrote, a class that is gone
            raise Damaged(f"its bytes cannot be read as {kept.kind}: {type(error).__name__}: {error}") from error

    def sweep(self) -> None:
        """Removes half-written files and leases of processes that are no more; done by itself at the first write."""
        for folder in ("work", "leases"):
            sweep(self.directory / folder)

    def lease(self) -> Beacon:
        """
        Protects what is used from now on until the lease is `out()`, or its process has ended.

        Raises:
            OSError: The directory cannot be written to.
        """
        self._prepare()
        return Beacon(self.directory / "leases")

    def leased_since(self) -> float:
        """When the oldest living lease began, in seconds since the epoch; infinity when there is none."""
        return sweep(self.directory / "leases")

    def blobs(self) -> Iterator[tuple[str, int, float]]:
        """Name, bytes and time of last use (seconds since the epoch) of each file; those that vanish are left out."""
        for path in files_in(self.directory / "blobs", "??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                yield path.name, status.st_size, status.st_mtime

    def discard(self, blob: str) -> bool:
        """Removes a file; whether it was there, and could be removed."""
        try:
            os.unlink(self._path(blob))
        except OSError:
            return False
        return True

    def unneeded(self, needed: Collection[str], before: float) -> tuple[int, int]:
        """Removes the files that are neither needed nor pinned nor used since a time; their number and their bytes."""
        needed, count, size = {*needed, *self.pins.blobs()}, 0, 0
        for blob, length, used_at in self.blobs():
            if blob not in needed and used_at < before and self.discard(blob):
                count, size = count + 1, size + length
        return count, size

    def is_sound(self, blob: str) -> bool:
        """Reads a whole file: whether its bytes are those of its name."""
        path = self._path(blob)
        try:
            return fill(path, bytearray(path.stat().st_size)) == blob
        except OSError:
            return False

    def mentions(self, kept: Kept, word: bytes) -> bool:
        """
        Whether a word stands in the bytes of a value, all of which are read.

        Raises:
            Damaged: They are not there, or not what was written; see `load`.
        """
        before = b""
        for part in slices([self._verified(kept)]):
            here = before + bytes(part)
            if word in here:
                return True
            before = here[-len(word) :]
        return False

    def close(self) -> None:
        """Removes what the store has in `work/`; the next write begins anew."""
        with self._opening:
            work, self._work = self._work, None
        if work is not None:
            work.out()

    def _path(self, blob: str) -> Path:
        return self.directory / "blobs" / blob[:2] / blob

    # Writing

    def _write(self, path: Path, pieces: list[memoryview], durable: bool) -> None:
        try:
            self._write_in(self._workplace(), path, pieces, durable)
        except FileNotFoundError:  # somebody removed the directory, or parts of it
            self.close()
            self._swept = False
            self._write_in(self._workplace(), path, pieces, durable)

    def _write_in(self, folder: Path, path: Path, pieces: list[memoryview], durable: bool) -> None:
        temporary = folder / secrets.token_hex(8)
        try:
            passing("before write")
            with open(temporary, "xb", opener=private) as file:
                for part in slices(pieces):
                    file.write(part)
                passing("after write")
                if durable:
                    file.flush()
                    passing("before sync")
                    os.fsync(file.fileno())
                    passing("after sync")
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.parent, 0o700)
            passing("before rename")
            os.replace(temporary, path)
            passing("after rename")
            if durable:
                synced(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _workplace(self) -> Path:
        with self._opening:
            if self._work is None:
                self._prepare()
                self._work = Beacon(self.directory / "work")
                os.mkdir(self._work.folder, 0o700)
            return self._work.folder

    def _prepare(self) -> None:
        if self._swept:
            return
        os.makedirs(self.directory, 0o700, exist_ok=True)
        for name in ("blobs", "work", "leases"):
            os.makedirs(self.directory / name, 0o700, exist_ok=True)
        self.sweep()
        self._swept = True

    # Reading

    def _verified(self, kept: Kept) -> Any:
        """All bytes, in memory of their own: a NumPy array for the kinds that live on in it."""
        if kept.inline is None:
            return self._read(kept)
        if len(kept.inline) != kept.size or digest_of_bytes([kept.inline]) != kept.blob:
            raise Damaged("its bytes are not those that were written.")
        data = _memory(kept)
        memoryview(data)[:] = kept.inline
        return data

    def _read(self, kept: Kept) -> Any:
        path = self._path(kept.blob)
        try:
            if os.stat(path).st_size == kept.size:
                data = _memory(kept)
                if fill(path, data) == kept.blob:
                    return data
        except FileNotFoundError:
            raise Damaged("its file is missing.") from None
        except OSError as error:
            raise Damaged(f"its file cannot be read: {error.strerror}.") from error
        self.discard(kept.blob)
        raise Damaged("its bytes are not those that were written.")

    # Values and bytes

    def _bytes_of(self, value: Any, digest: str) -> tuple[str, list[memoryview], int | None]:
        try:
            kind, pieces = dumped(value)
        except Unstorable:
            if self._signing is None:
                raise
            kind, pieces = "pickle", [pickled(value, digest, self._signing)]
        rows = len(value) if kind in ("frame", "series", "table") else None
        return kind, [memoryview(piece).cast("B") for piece in pieces if len(piece)], rows

    def _value_of(self, kept: Kept, data: Any) -> Any:
        if kept.kind == "pickle":
            if self._signing is None:
                raise Damaged("it is a pickle, and pickle='signed' with its secret is needed to read it.")
            return unpickled(bytes(data), kept.digest, self._signing)
        return parsed(kept.kind, data)


_ARRAYS: Final = ("frame", "series", "index", "table", "npy", "read-only npy", "bundle")


def _memory(kept: Kept) -> Any:
    """Room for its bytes."""
    if kept.kind not in _ARRAYS:
        return bytearray(kept.size)
    import numpy as np

    return np.empty(kept.size, "u1")
