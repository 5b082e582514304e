"""Sources as ODIBI CORE named them: a mode and options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from odibi_async.errors import OptionError, did_you_mean
from odibi_async.stream.files import Files
from odibi_async.stream.polling import Polling
from odibi_async.stream.queue import Queue
from odibi_async.stream.rows import Rows
from odibi_async.stream.source import Source

Mode: TypeAlias = Literal["file_watch", "interval", "incremental", "event"]
MODES: Final = ("file_watch", "interval", "incremental", "event")


def stream_source(
    mode: Mode,
    source_path: str | os.PathLike[str] | None = None,
    *,
    interval_seconds: float = 60,
    file_pattern: str = "*",
    watermark_column: str | None = None,
    batch_size: int = 1000,
    format: str | None = None,  # noqa: A002 (the word that people know)
    read_options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Source:
    """
    A source by the options that ODIBI CORE had for it.

    Args:
        mode: `"file_watch"` for `Files`, `"interval"` for the whole of `source_path` at each interval,
            `"incremental"` for `Rows`, `"event"` for a `Queue`.
        source_path: A directory, a file, or, with `connection=`, a table or a SELECT.
        interval_seconds: Seconds between two looks.
        file_pattern: What the names of files look like.
        watermark_column: The column that grows.
        batch_size: How many rows, or events, a batch has at most.
        format: csv, parquet, jsonl, ...; `None` to go by the suffix, and csv where there is none.
        read_options: Options of the reader of pandas.
        **more: What the class of the source takes besides.

    Raises:
        OptionError: There is no such mode, or it lacks an option.
    """
    if mode not in MODES:
        raise OptionError(f"mode={mode!r} is none of {', '.join(MODES)}.{did_you_mean(str(mode), MODES)}")
    if mode == "event":
        return Queue(batch_size=batch_size, **more)
    if source_path is None:
        raise OptionError(f"mode={mode!r}: source_path= is needed.")
    if mode == "incremental":
        if watermark_column is None:
            raise OptionError("mode='incremental': watermark_column= is needed.")
        about = {"batch_size": batch_size, "read_options": read_options, **more}
        form = None if more.get("connection") is not None else _form(source_path, format)
        return Rows(source_path, column=watermark_column, interval=interval_seconds, format=form, **about)
    if mode == "file_watch":
        about = {"read_options": read_options, **more}
        return Files(source_path, file_pattern, format=format, interval=interval_seconds, **about)
    return Polling(
        _reading(source_path, _form(source_path, format), dict(read_options or {}), **more), interval_seconds
    )


def _form(path: str | os.PathLike[str], named: str | None) -> str | None:
    return "csv" if named is None and not Path(path).suffix else named


def _reading(
    path: str | os.PathLike[str], form: str | None, options: Mapping[str, Any], **more: Any
) -> Callable[[], Any]:
    """What reads all of a file, of a pattern, or of a table."""

    def read() -> Any:
        from odibi_async.engines import create_engine_context

        with create_engine_context("pandas") as engine:
            return engine.read(path, form, **options, **more)

    return read
