"""What the workers of a Dask cluster do for a run: they import this module, and so does the scheduler."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

import cloudpickle

from odibi_async.abc import Raised, Work
from odibi_async.cancellation import CURRENT, CurrentCall
from odibi_async.dataset import reader_copy
from odibi_async.errors import Damaged, ExtraMissing, NotPortable, Unstorable
from odibi_async.executors.filing import FileHandle, is_large, read
from odibi_async.executors.pickling import PLAIN, context_with, dumps, packed_error
from odibi_async.executors.process import Pool
from odibi_async.executors.worker import called, portable_record

try:
    from distributed.protocol import dask_deserialize, dask_serialize
except ImportError as error:
    raise ExtraMissing("run_on='dask'", "dask") from error

PICKLE: Final = "pickle"
STARTED: Final = "started"
LOG: Final = "log"


class Packed:
    """
    A value as bytes, which travel without a copy.

    Attributes:
        kind: How they are read: `pickle`, or as the store names it.
        data: The bytes.
    """

    __slots__ = ("data", "kind")

    def __init__(self, kind: str, data: Any) -> None:
        self.kind = kind
        self.data = memoryview(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.kind, bytes(self.data))

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.data.nbytes


def _frames_of(value: Packed) -> tuple[dict[str, Any], list[memoryview]]:
    return {"kind": value.kind}, [value.data]


def _of_frames(header: dict[str, Any], frames: Sequence[Any]) -> Packed:
    return Packed(header["kind"], frames[0] if len(frames) == 1 else b"".join(frames))


dask_serialize.register(Packed, _frames_of)
dask_deserialize.register(Packed, _of_frames)


SMALL: Final = 2**14
"""Bytes of a pickle that are not worth a frame of their own in a message."""


def packed(value: Any) -> Packed | bytes:
    """
    The bytes of a value: a large frame as the store would write it, all else as a pickle, which is `bytes` if small.

    Raises:
        Exception: It cannot be pickled.
    """
    if is_large(value):
        from odibi_async.store.kinds import dumped

        with contextlib.suppress(Unstorable):
            kind, pieces = dumped(value)
            return Packed(kind, b"".join(memoryview(piece).cast("B") for piece in pieces if len(piece)))
    pickled = pickle.dumps(value, 5) if type(value) in PLAIN else dumps(value)
    return pickled if len(pickled) < SMALL else Packed(PICKLE, pickled)


def unpacked(value: Any) -> Any:
    """The value whose bytes these are, over memory of its own; what is not packed is the reader's copy."""
    if type(value) is bytes:
        return cloudpickle.loads(value)
    if not isinstance(value, Packed):
        return reader_copy(value)
    if value.kind == PICKLE:
        return cloudpickle.loads(value.data)
    import numpy as np

    from odibi_async.store.kinds import parsed

    return parsed(value.kind, np.frombuffer(value.data, "u1").copy())


class Failed(Exception):
    """
    The function raised.

    Attributes:
        error: What it raised, with its traceback, as bytes.
    """

    def __init__(self, error: bytes) -> None:
        super().__init__(error)
        self.error = error


class Unportable(Exception):
    """
    The call, or what it made, could not travel.

    Attributes:
        reason: What, and why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotThere(Exception):
    """
    Something is not in the shared directory, or not as it was kept.

    Attributes:
        reason: What was found.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RemoteCall(CurrentCall):
    """
    A call that a worker is making.

    Attributes:
        is_stopped: Whether the run has cancelled it.
    """

    __slots__ = ("__weakref__", "is_stopped")

    def __init__(self) -> None:
        super().__init__()
        self.is_stopped = False

    @property
    def is_cancelled(self) -> bool:
        return self.is_stopped


_running: dict[str, RemoteCall] = {}
_arguments = threading.local()
TOKEN: ContextVar[tuple[str, str] | None] = ContextVar("odibi_async call on a cluster", default=None)


def argument(index: int) -> Any:
    """Stands in the bytes of a call for the data that the worker has, or gets from another one."""
    return _arguments.values[index]


def call(blob: Any, step: str, topic: str, token: str, timeout: float | None, alone: bool, *data: Any) -> Any:
    """
    Makes a call on a worker: a large frame stays as it is, all else becomes bytes.

    Args:
        blob: The function and what it is given, pickled.
        step: The name of the step.
        topic: Where the caller hears of it.
        token: The name of the call.
        timeout: Seconds that it may take; a child process is killed when they are over.
        alone: Whether it is made in a child process.
        *data: What the arguments refer to.

    Raises:
        Failed: The function raised.
        Unportable: Something cannot travel.
    """
    _arguments.values = [unpacked(each) for each in data]
    try:
        fn, args, kwargs, outputs, variables = unpacked(blob)
    except Damaged as error:
        raise NotThere(str(error)) from None
    except Exception as error:  # whatever is in it decides what this raises
        raise Unportable(f"it cannot be loaded in the worker: {type(error).__name__}: {error}") from None
    finally:
        _arguments.values = ()
    call = RemoteCall()
    with _registered(token, call, topic):
        context = context_with(variables)
        context.run(CURRENT.set, call)
        if not alone:
            made = _made(functools.partial(context.run, called, fn, args, kwargs), outputs)
        else:
            work = Work(
                step=step, fn=fn, args=args, kwargs=kwargs, outputs=outputs, datasets=0, timeout=timeout,
                owner=call, priority=0, units={}, resources={}, context=context, on_start=_nothing,
            )  # fmt: skip
            made = _in_child(work, call, timeout, functools.partial(_tell, topic, STARTED, token))
    results = [_kept(each) for each in made]
    return results[0] if len(results) == 1 else tuple(results)


def _made(function: Any, outputs: Any) -> Sequence[Any]:
    try:
        made: Sequence[Any] = outputs(function())
    except BaseException as error:
        raise Failed(packed_error(error)) from None
    return made


def _kept(value: Any) -> Any:
    """What a worker keeps of a dataset."""
    if is_large(value):
        return value
    try:
        return packed(value)
    except Exception as error:  # the value decides what its pickling raises
        raise Unportable(f"what it returned cannot be sent back: {type(error).__name__}: {error}") from None


@functools.cache
def _pool() -> Pool:
    return Pool(tempfile.gettempdir())


def _in_child(work: Work, call: RemoteCall, timeout: float | None, tell: Callable[[], None]) -> Sequence[Any]:
    """Has a call made in a child process of the worker; its time runs from the moment that this is told."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        _interrupt(call)

    def on_start() -> None:
        if timeout is not None:
            timer.start()
        tell()

    timer = threading.Timer(timeout or 0, end)
    timer.daemon = True
    before = CURRENT.set(call)
    try:
        made = _pool().call(work, on_start)
    except Raised as raised:
        raise Failed(packed_error(raised.error)) from None
    except NotPortable as error:
        raise Unportable(error.reason) from None
    except BaseException as error:
        raise Failed(
            packed_error(TimeoutError(f"no result within {timeout:g} s") if is_over.is_set() else error)
        ) from None
    finally:
        timer.cancel()
        CURRENT.reset(before)
    return [read(each.file) if isinstance(each, FileHandle) else each for each in made]


def _nothing() -> None:
    """The start of a call that nobody waits for."""


def _interrupt(call: RemoteCall) -> None:
    for interrupt in call.interrupts:
        interrupt()


def stop(token: str) -> None:
    """Stops a call, if this worker is making it: at once in a child process, else at its next `check_cancelled()`."""
    call = _running.get(token)
    if call is not None:
        call.is_stopped = True
        _interrupt(call)


# -- what the caller hears ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _registered(token: str, call: RemoteCall, topic: str) -> Iterator[None]:
    _forward_records()
    _running[token] = call
    before = TOKEN.set((topic, token))
    try:
        yield
    finally:
        TOKEN.reset(before)
        del _running[token]


def _tell(topic: str, kind: str, about: Any) -> None:
    from distributed import get_worker

    get_worker().log_event(topic, (kind, about))


class Forwarding(logging.Handler):
    """Sends the log records of calls to their caller."""

    def emit(self, record: logging.LogRecord) -> None:
        call = TOKEN.get()
        if call is None:
            return
        try:
            _tell(call[0], LOG, pickle.dumps(portable_record(record)))
        except Exception:  # as of any handler: a message that does not fit its arguments fails nobody's call
            self.handleError(record)


@functools.cache
def _forward_records() -> None:
    logging.getLogger().addHandler(Forwarding())
