"""
What the steps of configurations call: connections, reads, queries, writes.

What each needs from outside, the frames, the connection and the engine, it takes as arguments, bound by the graph
like those of any function.

A query reads its frames as arguments of `execute_sql`, which a cursor of its own knows for the length of that call. So
steps that run at the same time never see each other's frames, whatever they call them. `NodeContext` does the same
for engines whose views are seen by all, and for functions that register views themselves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from odibi_async.cancellation import on_cancel
from odibi_async.dataset import is_frame
from odibi_async.errors import OdibiError, in_a_line
from odibi_async.secret import MASK, Secret, masked, secrets_in

ENGINE: Final = "\0engine"
CONNECTION: Final = "\0connection"
"""Parameters that no logical name of a dataset can clash with: no engine takes a name with a NUL in it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """
    What a connect step opened.

    Attributes:
        place: The URL or path by which the engine finds it again.
        handle: What the engine gave.
        secrets: Texts that no message may show.
    """

    place: str = field(repr=False)
    handle: Any = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Connect:
    """
    Opens a connection: `engine.connect(value, **params)`.

    A param that ends in `_secret` or `_key` names a secret of the engine, which is passed without that ending:
    `password_secret: db` becomes `password=...`.
    """

    value: Any
    params: Mapping[str, Any]

    def __call__(self, /, **given: Any) -> Any:
        engine = given[ENGINE]
        secrets = set(secrets_in(self.value)) | set(secrets_in(self.params))
        with _masked(secrets):
            params: dict[str, Any] = {}
            for name, value in self.params.items():
                ending = next((ending for ending in ("_secret", "_key") if name.endswith(ending)), "")
                if ending:
                    value = _revealed(engine.get_secret(_revealed(value)))
                    secrets.add(str(value))
                params[name.removesuffix(ending)] = _revealed(value)
            place = _revealed(self.value)
            handle = engine.connect(place, **params)
        return contextlib.nullcontext(Connection(place, handle, tuple(secrets)))

    def has_content(self, engine: Any) -> bool:
        """Never: what is there may change any time."""
        return False

    def contents(self, engine: Any) -> Mapping[str, Any]:
        """Where it leads, for readers that are cached."""
        return {"the place": self.value, "the options": self.params}


@dataclass(frozen=True, slots=True)
class Read:
    """
    Reads a frame: `engine.read(value, **params)`.

    With a connection, `value` is a query, else a table, or a file where the connection is a folder.
    """

    value: Any
    params: Mapping[str, Any]
    is_query: bool = False

    def __call__(self, /, **given: Any) -> Any:
        place, params, secrets = _placed(self, given)
        with _masked(secrets):
            return given[ENGINE].read(place, **params)

    def has_content(self, engine: Any) -> bool:
        """Whether it reads a file: databases and URLs may say something else any time."""
        return not self.doubt(engine)

    def doubt(self, engine: Any) -> str:
        """What it reads that is no file."""
        is_file = not self.is_query and engine.reads_file(_revealed(self.value), **_revealed(self.params))
        return "" if is_file else "it reads a database or a URL"

    def contents(self, engine: Any) -> Mapping[str, Any]:
        """The place, the options, the file, and what reads it."""
        about = {"the place": self.value, "the options": self.params, **engine.libraries()}
        if self.has_content(engine):
            from odibi_async.fingerprint.functions import digest_of_file  # 25 ms to import, for runs with a cache

            files = engine.files(_revealed(self.value), _revealed(self.params).get("format"))
            if len(files) == 1:
                about[f"the file {_file_name(self.value)}"] = digest_of_file(files[0])
            else:
                about["the files"] = [(str(file), digest_of_file(file)) for file in files]
        return about


@dataclass(frozen=True, slots=True)
class Query:
    """
    Runs a query: `engine.execute_sql(value, frames, params)`.

    What it is given that is no frame, a year say, fills the `$name` in the query.

    Attributes:
        names: What the query calls the datasets that it reads.
        persist: Whether, and where, the engine computes and keeps the rows at once; see `SparkEngine.persist`.
    """

    value: Any
    params: Mapping[str, Any]
    names: tuple[str, ...] = ()
    persist: bool | str = False

    def __call__(self, /, **given: Any) -> Any:
        engine = given.pop(ENGINE)
        frames = {name: value for name, value in given.items() if is_frame(value)}
        values = {name: value for name, value in given.items() if name not in frames}
        with _masked({*secrets_in(self.value), *secrets_in(self.params), *secrets_in(values)}):
            params = {name: _python(value) for name, value in _revealed({**self.params, **values}).items()}
            rows = engine.execute_sql(_revealed(self.value), frames, params or None, on_interruptible=on_cancel)
            return engine.persist(rows, self.persist) if self.persist else rows

    def has_content(self, engine: Any) -> bool:
        """Whether the query asks for nothing but its frames and params: not for the time, not for chance."""
        return not self.doubt(engine)

    def doubt(self, engine: Any) -> str:
        """What it asks for besides."""
        asked: str = engine.changes_by_itself(_revealed(self.value), self.names)
        return asked and f"the query asks for {asked}"

    def contents(self, engine: Any) -> Mapping[str, Any]:
        """The text, the params, the session's time zone, and the libraries that run it."""
        about = {"the query": self.value, "the params": self.params, "the time zone": engine.time_zone}
        return {**about, **engine.libraries()}


@dataclass(frozen=True, slots=True)
class Write:
    """Writes its one input: `engine.write(frame, value, **params)`; with a connection to the table `value` in it."""

    value: Any
    params: Mapping[str, Any]
    is_query: bool = False

    def __call__(self, /, **given: Any) -> None:
        place, params, secrets = _placed(self, given)
        [frame] = (value for name, value in given.items() if name not in (ENGINE, CONNECTION))
        with _masked(secrets):
            given[ENGINE].write(frame, place, **params)

    def has_content(self, engine: Any) -> bool:
        """Never: it is called for what it does."""
        return False

    def contents(self, engine: Any) -> Mapping[str, Any]:
        """Where it writes and how, for a journal that is to know it again."""
        return {"the place": self.value, "the options": self.params, **engine.libraries()}


def _placed(node: Read | Write, given: Mapping[str, Any]) -> tuple[str, dict[str, Any], set[str]]:
    """Where to read or write, with which options, and what must not be shown."""
    value, params = _revealed(node.value), _revealed(dict(node.params))
    secrets = {*secrets_in(node.value), *secrets_in(node.params)}
    connection = given.get(CONNECTION, params.pop("connection", None))
    if connection is None:
        return value, params, secrets
    if isinstance(connection, Connection):
        secrets |= set(connection.secrets)
        place = connection.place
        if not node.is_query and isinstance(connection.handle, Path) and connection.handle.is_dir():
            return os.path.join(place, value), params, secrets
    else:
        place = os.fspath(connection)
    if node.is_query:
        return value, {**params, "connection": place}, secrets
    return place, {**params, "table": value}, secrets


def _python(value: Any) -> Any:
    """The value itself, of a NumPy scalar the number or moment that it is, in lists too: DuckDB takes it for a text."""
    if isinstance(value, list | tuple):
        return [_python(each) for each in value]
    if type(value).__module__ != "numpy" or getattr(value, "ndim", None) != 0:
        return value
    if value.dtype.kind in "mM":  # as Python's own, unless that is an integer: of nanoseconds
        value = value.astype(f"{value.dtype.kind}8[us]")
    return value.item()


def _file_name(place: Any) -> str:
    return MASK if isinstance(place, Secret) else repr(os.path.basename(place))


# -- frames and secrets --------------------------------------------------------------------------------


def _revealed(value: Any) -> Any:
    """The same value with the text of each secret in its place."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: _revealed(each) for name, each in value.items()}
    return [_revealed(each) for each in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _masked(secrets: set[str]) -> Iterator[None]:
    """Errors raised within show no secret: those of drivers like to repeat the URL that they were given."""
    try:
        yield
    except Exception as error:
        known = secrets - {""}
        if not _mask_chain(error, known):
            raise OdibiError(masked(in_a_line(error), known)) from None
        raise


def _mask_chain(error: BaseException, secrets: set[str]) -> bool:
    """Masks an error and all that led to it; whether that could be done without changing what it is."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error] if secrets else []
    while ahead:
        each = ahead.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.args = tuple(masked(arg, secrets) if isinstance(arg, str) else arg for arg in each.args)
        shown = f"{each} {each!r}"
        if any(secret in shown for secret in secrets):
            return False
        ahead += [each.__cause__, each.__context__]
    return True
