"""
Datasets on disk: a value goes in with the digest of its content, and comes back exactly, or not at all.

Every value becomes bytes by rules that promise the way back: frames, series and indexes (`columns.py`), Arrow tables,
NumPy arrays (`.npy`), texts, bytes and plain Python values (`plain.py`). Few bytes stand in the row that tells of
the value; others are a file, `blobs/ab/abcdef...`, whose name is the BLAKE3 of its bytes. Length and BLAKE3 of all
bytes are checked before anything parses them.

    blobs/    the values
    work/     half-written files, a folder and a lock for each living writer
    leases/   a lock for each living run: nothing that was used since the oldest began is removed

Files are not synced. A process that is killed leaves no half-written blob, for a file gets its name when it is whole; a
machine that loses power may leave one, which reading finds out.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import os
import secrets
import shutil
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from odibi_async.errors import Damaged, OptionError, Unstorable
from odibi_async.secret import Secret
from odibi_async.store import plain

if TYPE_CHECKING:
    import filelock

SLICE: Final = 2**20
"""Bytes that are written, read and hashed at a time: what was just read is still in the processor's cache."""

INLINE: Final = 4096
"""Bytes that still stand in the row; making a file costs more than a larger row."""

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """
    Where a value is, and what it must look like.

    Attributes:
        digest: Digest of the value's content, as the caller gave it.
        kind: How its bytes are read: `frame`, `series`, `index`, `table`, `npy`, `text`, `bytes`, `json`, `pickle`.
        blob: BLAKE3 of its bytes, in hex; the name of its file when it has one.
        size: Its bytes.
        inline: The bytes themselves when they are few; `None` when they are a file.
        rows: Rows of a frame, a series or a table; `None` for all else.
    """

    digest: str
    kind: str
    blob: str
    size: int
    inline: bytes | None = None
    rows: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The members as JSON has them."""
        inline = None if self.inline is None else b64encode(self.inline).decode("ascii")
        return {name: getattr(self, name) for name in self.__slots__} | {"inline": inline}

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Kept:
        """
        What `to_json` gave.

        Raises:
            Damaged: The members are not what `to_json` gives.
        """
        try:
            inline = None if members["inline"] is None else b64decode(members["inline"], validate=True)
            kept = cls(**members | {"inline": inline})
        except (TypeError, ValueError, KeyError):
            raise Damaged("its description cannot be read.") from None
        if not (_is_name(kept.blob) and type(kept.size) is int and kept.size >= 0 and isinstance(kept.digest, str)):
            raise Damaged("its description cannot be read.")
        return kept


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
        self._signing = _key_of(secret) if pickle == "signed" and secret else None
        self._opening = threading.Lock()
        self._work: Beacon | None = None
        self._swept = False

    def keep(self, value: Any, digest: str) -> Kept:
        """
        Writes a value, unless its bytes are there already, and says where it is.

        Args:
            value: Is not changed by others meanwhile.
            digest: Digest of the value's content.

        Raises:
            Unstorable: It would not come back as it is.
            OSError: The disk is full, the directory cannot be written to, ...
        """
        kind, pieces, rows = self._bytes_of(value, digest)
        size = sum(map(len, pieces))
        blob = _blake3(pieces)
        kept = Kept(digest=digest, kind=kind, blob=blob, size=size, rows=rows)
        if size <= INLINE:
            return Kept(digest=digest, kind=kind, blob=blob, size=size, rows=rows, inline=b"".join(pieces))
        if not self.has(kept):
            self._write(self._path(blob), pieces)
        return kept

    def has(self, kept: Kept) -> bool:
        """Whether the value's file is there with its length. Marks it as used now, which protects it for a while."""
        if kept.inline is not None:
            return True
        path = self._path(kept.blob)
        try:
            if os.stat(path).st_size != kept.size:
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
        for path in _listed(self.directory / "blobs", "??/*"):
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

    def is_sound(self, blob: str) -> bool:
        """Reads a whole file: whether its bytes are those of its name."""
        path = self._path(blob)
        try:
            return _fill(path, bytearray(path.stat().st_size)) == blob
        except OSError:
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

    def _write(self, path: Path, pieces: list[memoryview]) -> None:
        try:
            self._write_in(self._workplace(), path, pieces)
        except FileNotFoundError:  # somebody removed the directory, or parts of it
            self.close()
            self._swept = False
            self._write_in(self._workplace(), path, pieces)

    def _write_in(self, folder: Path, path: Path, pieces: list[memoryview]) -> None:
        temporary = folder / secrets.token_hex(8)
        try:
            with open(temporary, "xb", opener=_private) as file:
                for part in _slices(pieces):
                    file.write(part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.parent, 0o700)
            os.replace(temporary, path)
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
        if len(kept.inline) != kept.size or _blake3([kept.inline]) != kept.blob:
            raise Damaged("its bytes are not those that were written.")
        data = _memory(kept)
        memoryview(data)[:] = kept.inline
        return data

    def _read(self, kept: Kept) -> Any:
        path = self._path(kept.blob)
        try:
            if os.stat(path).st_size == kept.size:
                data = _memory(kept)
                if _fill(path, data) == kept.blob:
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
            kind, pieces = _dumped(value)
        except Unstorable:
            if self._signing is None:
                raise
            kind, pieces = "pickle", [_pickled(value, digest, self._signing)]
        rows = len(value) if kind in ("frame", "series", "table") else None
        return kind, [memoryview(piece).cast("B") for piece in pieces if len(piece)], rows

    def _value_of(self, kept: Kept, data: Any) -> Any:
        if kept.kind == "pickle":
            if self._signing is None:
                raise Damaged("it is a pickle, and pickle='signed' with its secret is needed to read it.")
            return _unpickled(bytes(data), kept.digest, self._signing)
        return _parsed(kept.kind, data)


_ARRAYS: Final = ("frame", "series", "index", "table", "npy")


def _memory(kept: Kept) -> Any:
    """Room for its bytes."""
    if kept.kind not in _ARRAYS:
        return bytearray(kept.size)
    import numpy as np

    return np.empty(kept.size, "u1")


def _dumped(value: Any) -> tuple[str, list[Any]]:
    """The kind of a value and its bytes, in pieces."""
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    if library == "pandas":
        from odibi_async.store import columns

        if kind := columns.kind_of(value):
            return kind, columns.dump(value)
    if library == "pyarrow" and cls.__name__ == "Table":
        from odibi_async.store import columns

        return "table", columns.dump_table(value)
    if library == "numpy" and cls.__name__ == "ndarray":
        return "npy", _dumped_array(value)
    if cls is bytes:
        return "bytes", [value]
    if cls is str:
        with contextlib.suppress(UnicodeEncodeError):  # lone surrogates: a plain value
            return "text", [value.encode()]
    return "json", [b"\n".join(plain.dump(value))]


def _parsed(kind: str, data: Any) -> Any:
    if kind in ("frame", "series", "index", "table"):
        from odibi_async.store import columns

        return columns.parse_table(data) if kind == "table" else columns.parse(data, kind)
    if kind == "npy":
        return _parsed_array(data)
    if kind == "bytes":
        return bytes(data)
    if kind == "text":
        return data.decode()
    if kind == "json":
        return plain.parse(bytes(data).split(b"\n"))
    raise Damaged(f"its kind {kind!r} is unknown here.")


def _dumped_array(array: Any) -> list[Any]:
    """A NumPy array in its own format; what has to be pickled for it, or changes by it, is refused."""
    import numpy as np

    dtype = array.dtype
    if dtype.kind not in "biufcmMSUV" or dtype.hasobject or dtype.char in "gG" or dtype.metadata or not dtype.itemsize:
        raise Unstorable(f"arrays of type {dtype} would not come back as they are.")
    again = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    if again != dtype or again.isalignedstruct != dtype.isalignedstruct:
        raise Unstorable(f"arrays of type {dtype} would not come back as they are.")
    header = io.BytesIO()
    members = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_2_0(header, members)
    flat = np.ascontiguousarray(array.T if members["fortran_order"] else array).reshape(-1)
    return [header.getvalue(), flat.view("u1")]


def _parsed_array(data: Any) -> Any:
    import numpy as np

    length = int.from_bytes(data[8:12].tobytes(), "little")
    header = io.BytesIO(data[: 12 + length].tobytes())
    np.lib.format.read_magic(header)
    shape, fortran, dtype = np.lib.format.read_array_header_2_0(header, max_header_size=length)
    return data[12 + length :].view(dtype).reshape(shape, order="F" if fortran else "C")


def _pickled(value: Any, digest: str, key: bytes) -> bytes:
    import pickle

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> None:
            if isinstance(each, Secret):
                raise Unstorable("it holds a secret, and secrets are never written to disk.")

    file = io.BytesIO()
    try:
        Pickler(file, protocol=5).dump(value)
    except Unstorable:
        raise
    except Exception as error:  # classes decide what their pickling raises
        raise Unstorable(f"it cannot be pickled: {type(error).__name__}: {error}") from error
    pickled = file.getvalue()
    return _signature(pickled, digest, key) + pickled


def _unpickled(data: bytes, digest: str, key: bytes) -> Any:
    import pickle

    signature, pickled = data[:32], data[32:]
    if not hmac.compare_digest(signature, _signature(pickled, digest, key)):
        raise Damaged("its signature is not by this secret.")
    return pickle.loads(pickled)


def _signature(pickled: bytes, digest: str, key: bytes) -> bytes:
    """Signs a pickle as the value with this digest, so that it stands for no other."""
    message = "\0".join(("odibi_async pickle 1", digest, _blake3([pickled])))
    return hmac.digest(key, message.encode(), "sha256")


def _key_of(secret: Secret | str | bytes) -> bytes:
    text = secret.reveal() if isinstance(secret, Secret) else secret
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


# Bytes and files


def _slices(pieces: Iterable[Bytes]) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), SLICE):
            yield view[start : start + SLICE]


def _blake3(pieces: Iterable[Bytes]) -> str:
    from blake3 import blake3

    hasher = blake3()
    for part in _slices(pieces):
        hasher.update(part)
    return hasher.hexdigest()


def _fill(path: Path, data: Any) -> str:
    """Reads a file into memory of its length; the BLAKE3 of what was read, which for a shorter file is no good."""
    from blake3 import blake3

    hasher = blake3()
    with open(path, "rb", buffering=0) as file:
        for part in _slices([data]):
            hasher.update(part[: file.readinto(part)])
    return hasher.hexdigest()


def _is_name(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# Who is alive


class Beacon:
    """
    A lock file that tells others that its holder is alive, and owns the `folder` beside it if the holder makes one.

    The system releases the lock when the holder's process ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            path = folder / f"{secrets.token_hex(8)}.lock"
            self._lock = file_lock(path)
            if try_lock(self._lock):
                break  # else a sweep took it for dead between its making and its locking
        self._path = path
        self.folder = path.with_suffix("")

    def out(self) -> None:
        """Removes both."""
        _remove(self._path)
        self._lock.release()

    def __enter__(self) -> Beacon:
        return self

    def __exit__(self, *_: object) -> None:
        self.out()


def sweep(folder: Path) -> float:
    """Removes the beacons that nobody holds; when the oldest held one was lit, infinity when there is none."""
    oldest = float("inf")
    for path in _listed(folder, "*.lock"):
        try:
            lit = path.stat().st_mtime
            lock = file_lock(path)
            if try_lock(lock):
                _remove(path)
                lock.release()
            else:
                oldest = min(oldest, lit)
        except OSError:  # gone meanwhile; or not ours to remove
            continue
    return oldest


def _listed(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder; none when somebody removes it meanwhile."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _remove(path: Path) -> None:
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    with contextlib.suppress(OSError):  # where open files cannot be removed, the next sweep does it
        os.unlink(path)


def file_lock(path: Path) -> filelock.BaseFileLock:
    """A lock between processes, and between its own objects, that any thread may release."""
    from filelock import FileLock

    return FileLock(path, thread_local=False, mode=0o600)


def try_lock(lock: filelock.BaseFileLock) -> bool:
    """
    Whether the lock is now held by this object.

    Raises:
        OSError: There can be no lock in that place.
    """
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
