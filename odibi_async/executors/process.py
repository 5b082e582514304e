"""
Worker processes of one event loop: `run_on="process"`.

A call takes a thread of its own here, which hands it to a process and waits: nothing of it is done on the event loop.
Cancelling the call kills the process; so does the end of its time. A process that ends by itself, by a signal or
for lack of memory, costs the call that it was making, and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final

import anyio
import anyio.to_thread

from odibi_async.abc import Raised, Work
from odibi_async.cancellation import on_cancel
from odibi_async.dataset import Handle, HandleList
from odibi_async.errors import Damaged, NotPortable, Unstorable, WorkerLost
from odibi_async.executors.filing import Filed, FileHandle, filed, is_large, read
from odibi_async.executors.pickling import dumps, unpacked_error, variables_of
from odibi_async.executors.threads import CallJob, Threads
from odibi_async.executors.worker import LOG, MADE, RAISED, STARTED, UNPACKED, Sending
from odibi_async.limits import usable_cpus

BEGIN: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from odibi_async.executors.worker import main
main()
"""
"""What a worker process runs, with its socket, the parent's `sys.path` and a pipe that the parent never writes to."""


class ProcessExecutor:
    """
    Calls functions in worker processes, which are started when they are needed first and used again.

    Args:
        processes: How many there may be at a time; `None` for the usable CPUs.
        grace: Seconds after which a call that was cancelled is given up, should its process not end.
        directory: Where frames are put that travel; `None` for the system's place for temporary files.
    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        grace: float = 5.0,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._processes = processes
        self._grace = grace
        self._directory = directory
        self._opened = 0
        self._opening = asyncio.Lock()
        self._threads: Threads | None = None
        self._pool: Pool | None = None

    async def open(self) -> None:
        async with self._opening:
            if self._pool is None:
                self._pool = await _in_thread(Pool, self._directory)
                limit = self._processes or await _in_thread(usable_cpus)
                self._threads = Threads(limit, self._grace)
            self._opened += 1

    async def close(self) -> None:
        self._opened -= 1
        if self._opened or self._pool is None:
            return
        pool, self._pool = self._pool, None
        with anyio.CancelScope(shield=True):
            await _in_thread(pool.close)

    def takes(self, handle: Handle) -> bool:
        """Whether it stands for a file, or a list of files."""
        if isinstance(handle, HandleList):
            return all(not isinstance(each, Handle) or self.takes(each) for each in handle.elements)
        return isinstance(handle, FileHandle)

    def submit(self, work: Work) -> asyncio.Task[Sequence[Any]]:
        return asyncio.get_running_loop().create_task(self._call(work), name=f"{work.step} in a process")

    async def _call(self, work: Work) -> Sequence[Any]:
        pool, threads = self._pool, self._threads
        assert pool is not None
        assert threads is not None

        def on_start() -> None:
            threads.mailbox.post(work.on_start, urgent=True)

        def call() -> Sequence[Any]:
            return pool.call(work, on_start)

        job = CallJob(threads, work.owner, work.priority, call, context=copy_context())
        made: Sequence[Any] = await threads.call(job)
        return made


class Pool:
    """
    The worker processes and the folder through which frames travel. Blocking; from any thread.

    Args:
        directory: Where the folder is made.
    """

    def __init__(self, directory: str | os.PathLike[str] | None) -> None:
        self._folder = tempfile.mkdtemp(prefix="odibi_async-", dir=directory)
        self._idle: list[Process] = []
        self._garbage: deque[Filed] = deque()
        self._of_owners: weakref.WeakKeyDictionary[Any, dict[int, Placed]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_closed = False
        self._cleaning = weakref.finalize(self, _clean, self._idle, self._folder)

    def close(self) -> None:
        """Ends the processes that are idle, and those that are busy when their calls end."""
        with self._lock:
            self._is_closed = True
        self._cleaning()

    def call(self, work: Work, on_start: Callable[[], None]) -> Sequence[Any]:
        """What a function makes in a process: one value, or handle, for each dataset."""
        sending = Sending(self._folder)
        while self._garbage:
            self._garbage.pop().remove()
        try:
            packed = _packed(work, self._placed(work, sending), sending)
            results, files = self._made(work.step, packed, on_start)
        finally:
            sending.remove()
        try:
            return [self._result(work.step, each) for each in results]
        finally:
            for file in files:
                file.remove()

    def _made(self, step: str, packed: bytes, on_start: Callable[[], None]) -> tuple[list[Filed | bytes], list[Filed]]:
        """What a process makes of a call; one that died while it was idle is found out here, and replaced."""
        while True:
            with self._process(step) as process, on_cancel(process.kill):
                made = process.call(packed, on_start)
                if made is not None:
                    return made
                process.end()

    def _placed(self, work: Work, sending: Sending) -> dict[int, FileHandle]:
        """Writes the large frames among the arguments to files, each once a run: identity -> handle."""
        with self._lock:
            placed = self._of_owners.setdefault(work.owner, {})
        handles = {}
        for value in (*work.args, *work.kwargs.values()):
            if not is_large(value):
                continue
            with self._lock:
                place = placed.get(id(value))
                if place is None or place.value() is not value:
                    forget = functools.partial(_forget, placed, id(value))
                    place = placed[id(value)] = Placed(weakref.ref(value, forget))
            with place.lock, contextlib.suppress(Unstorable):
                place.handle = place.handle or self._dataset(filed(value, self._folder))
                handles[id(value)] = place.handle
        return handles

    def _result(self, step: str, result: Filed | bytes) -> Any:
        """What stands for a dataset that a process made, whose classes decide what their unpickling raises."""
        try:
            return self._dataset(result)
        except Damaged:
            raise
        except BaseException as error:
            reason = f"what it returned cannot be loaded here: {type(error).__name__}: {error}"
            raise NotPortable(step, reason) from error

    def _dataset(self, result: Filed | bytes) -> Any:
        return (
            FileHandle(result, _in_thread, self._garbage.append) if isinstance(result, Filed) else pickle.loads(result)
        )

    @contextlib.contextmanager
    def _process(self, step: str) -> Iterator[Process]:
        """A process for one call, which goes back to the others unless its connection broke."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        while process is not None and not process.is_alive:  # somebody killed it meanwhile
            process.end()
            with self._lock:
                process = self._idle.pop() if self._idle else None
        process = process or Process(self._folder)
        process.step = step
        try:
            yield process
        except BaseException as error:
            if isinstance(error, Raised | NotPortable):
                self._give_back(process)
            else:
                process.end()
            raise
        else:
            self._give_back(process)

    def _give_back(self, process: Process) -> None:
        with self._lock:
            if not self._is_closed and process.is_alive:
                self._idle.append(process)
                return
        process.end()


class Placed:
    """
    A large value that calls are given as a file.

    Attributes:
        value: Gives it while it lives; nobody changes it meanwhile.
        handle: The file; `None` before it is written.
        lock: Held by who writes it.
    """

    __slots__ = ("handle", "lock", "value")

    def __init__(self, value: Callable[[], Any]) -> None:
        self.value = value
        self.handle: FileHandle | None = None
        self.lock = threading.Lock()


def _forget(placed: dict[int, Placed], identity: int, _: object) -> None:
    placed.pop(identity, None)


class Process:
    """
    One worker process.

    Attributes:
        step: The step that it is called for.
    """

    def __init__(self, folder: str) -> None:
        self.step = ""
        self._is_new = True
        self._connection: Connection[Any, Any]
        self._connection, theirs = Pipe()
        watched, self._life = Pipe(duplex=False)
        try:
            fds = [theirs.fileno(), watched.fileno()]
            command = [sys.executable, "-c", BEGIN, str(fds[0]), json.dumps(sys.path), str(fds[1])]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True)
        except BaseException:
            self._connection.close()
            self._life.close()
            raise
        finally:
            theirs.close()
            watched.close()
        self._end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        self._send(pickle.dumps((folder, _levels())))

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills it and the processes that it has started, whatever they are doing."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kills it, and waits until it is gone."""
        self.kill()
        self._process.wait()
        self._connection.close()
        self._life.close()
        if self._end is not None:
            os.close(self._end)
            self._end = None

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the end of the process shows when its answer is read
            self._connection.send_bytes(message)

    def call(self, packed: bytes, on_start: Callable[[], None]) -> tuple[list[Filed | bytes], list[Filed]] | None:
        """
        Has it make a call, and hears what came of it; `None` if the process was gone before, so that nothing was
        called.

        Raises:
            Raised: The function raised.
            NotPortable: The call, or what it made, cannot travel.
            WorkerLost: The process is gone.
        """
        may_be_gone, self._is_new = not self._is_new, False
        self._send(packed)
        while True:
            try:
                kind, *about = pickle.loads(self._heard())
            except (OSError, EOFError):
                if may_be_gone:
                    return None
                raise WorkerLost(self.step, self._end_in_words()) from None
            may_be_gone = False
            if kind == MADE:
                return about[0], about[1]
            if kind == STARTED:
                on_start()
            elif kind == LOG:
                log_here(about[0])
            elif kind == RAISED:
                raise Raised(unpacked_error(about[0]))
            elif kind == UNPACKED:
                raise NotPortable(self.step, about[0]) from unpacked_error(about[1])

    def _heard(self) -> bytes:
        """
        The next message.

        Raises:
            EOFError: The process has ended, though processes that it has forked may have its connection still.
        """
        if self._end is not None and self._connection not in wait([self._connection, self._end]):
            raise EOFError
        return self._connection.recv_bytes()

    def _end_in_words(self) -> str:
        if self._end is not None:
            wait([self._end], 5)
        self.kill()  # those that it has started; it has ended itself, and is not forgotten by the system before `wait`
        code = self._process.wait()
        if code >= 0:
            return f"its process ended with exit code {code}."
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = " The system may have run out of memory." if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}.{memory}"


def _packed(work: Work, placed: Mapping[int, FileHandle], sending: Sending) -> bytes:
    def special(value: Any) -> Any:
        value = placed.get(id(value), value)
        if isinstance(value, FileHandle):
            return read, (value.file,)
        if isinstance(value, HandleList):
            return list, (value.elements,)
        return sending(value)

    call = (work.fn, tuple(work.args), dict(work.kwargs), work.outputs, variables_of(work.context))
    try:
        return dumps(call, special)
    except Exception as error:  # whatever is in it decides what its pickling raises
        raise NotPortable(work.step, f"it cannot be pickled: {type(error).__name__}: {error}") from error


def log_here(record: logging.LogRecord) -> None:
    """Hands a log record of another process to the handlers here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _levels() -> dict[str, int]:
    """The loggers that have a level of their own."""
    loggers = {name: each for name, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {"": logging.root.level} | {name: each.level for name, each in loggers.items() if each.level}


def _clean(idle: list[Process], folder: str) -> None:
    while idle:
        idle.pop().end()
    shutil.rmtree(folder, ignore_errors=True)


async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))
