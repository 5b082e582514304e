"""
A worker process: takes calls from a socket, one at a time, until the other side of it is gone.

Messages are pickled tuples. The parent sends the bytes of
calls, and is sent `started`, any number of `log` records, and then `made` or `raised`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import cloudpickle

from odibi_async.errors import Unstorable
from odibi_async.executors.filing import Filed, filed, is_large, read
from odibi_async.executors.pickling import context_with, dumps, packed_error

Reply = Callable[..., None]
STARTED: Final = "started"
LOG: Final = "log"
MADE: Final = "made"
RAISED: Final = "raised"
UNPACKED: Final = "unpacked"
"""The call, or what it made, could not travel."""


class Sending:
    """
    Tells how large values travel: as files in a folder.

    Attributes:
        files: Those that were written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.files: list[Filed] = []

    def __call__(self, value: Any) -> Any:
        if not is_large(value):
            return NotImplemented
        with contextlib.suppress(Unstorable):
            self.files.append(file := filed(value, self._folder))
            return read, (file,)
        return NotImplemented

    def packed(self, value: Any) -> Filed | bytes:
        """A dataset as it travels: a large one as a file, which its reader is to remove."""
        if is_large(value):
            with contextlib.suppress(Unstorable):
                return filed(value, self._folder)
        return dumps(value, self)

    def remove(self) -> None:
        """Removes the files."""
        for file in self.files:
            file.remove()


def called(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a function returns; a coroutine gets a loop of its own."""
    value = fn(*args, **kwargs)
    return asyncio.run(_awaited(value)) if inspect.iscoroutine(value) else value


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


def serve(packed: bytes, folder: str, reply: Reply) -> None:
    """Makes one call, and says what came of it."""
    try:
        fn, args, kwargs, outputs, variables = cloudpickle.loads(packed)
        context = context_with(variables)
    except BaseException as error:  # whatever is in it decides what this raises
        reply(UNPACKED, f"it cannot be loaded in the worker: {type(error).__name__}: {error}", packed_error(error))
        return
    reply(STARTED)
    try:
        made = outputs(context.run(called, fn, args, kwargs))
    except BaseException as error:
        reply(RAISED, packed_error(error))
        return
    finally:
        del fn, args, kwargs
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the function may have closed it, or put something else in its place
                stream.flush()
    sending = Sending(folder)
    try:
        results = [sending.packed(value) for value in made]
    except BaseException as error:
        sending.remove()
        reply(UNPACKED, f"what it returned cannot be sent back: {type(error).__name__}: {error}", packed_error(error))
    else:
        reply(MADE, results, sending.files)


class ToParent(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._reply(LOG, portable_record(record))
        except Exception:  # as of any handler: a message that does not fit its arguments fails nobody's call
            self.handleError(record)


def portable_record(record: logging.LogRecord) -> logging.LogRecord:
    """A log record that can be pickled, with the texts of what cannot."""
    sent = logging.makeLogRecord(record.__dict__ | {"msg": record.getMessage(), "args": None})
    if sent.exc_info:
        sent.exc_text = sent.exc_text or logging.Formatter().formatException(sent.exc_info)
        sent.exc_info = None
    try:
        pickle.dumps(sent)
    except Exception:  # somebody's extra attributes
        known = logging.makeLogRecord({}).__dict__
        return logging.makeLogRecord({key: sent.__dict__[key] for key in known})
    return sent


def main() -> None:
    """
    Serves the socket that the first argument numbers, and ends with whoever has the other end of the pipe that the
    third one numbers, whatever it is doing then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: the parent decides
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    for number in (sys.argv[1], sys.argv[3]):
        os.set_inheritable(int(number), False)
    lock = threading.Lock()

    def reply(*message: Any) -> None:
        with lock:
            connection.send_bytes(pickle.dumps(message, protocol=5))

    folder, levels = pickle.loads(connection.recv_bytes())
    logging.getLogger().addHandler(ToParent(reply))
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)

    def watch() -> None:
        os.read(int(sys.argv[3]), 1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="odibi_async watching").start()
    while True:
        try:
            packed = connection.recv_bytes()
        except (OSError, EOFError):
            os._exit(0)
        serve(packed, folder, reply)
