"""
Steps on a Dask cluster: `run_on="dask"`.

What steps make there stays there, as futures, and is passed on as such; it comes back when a local step or the caller
reads it. Needs the extra `dask`, here, on the scheduler and on the workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib
import operator
import pickle
import secrets
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import anyio
import anyio.to_thread

from odibi_async.abc import Raised, Work
from odibi_async.dataset import Handle, HandleList
from odibi_async.errors import ClusterError, DataLost, NotPortable, OptionError, WorkerLost, in_a_line
from odibi_async.executors import remote
from odibi_async.executors.filing import is_large
from odibi_async.executors.pickling import dumps, unpacked_error, variables_of
from odibi_async.executors.process import log_here

SECONDS: Final = 10.0
"""How long a scheduler may not answer."""
LARGE: Final = 2**19
"""Bytes of a call from which on it does not travel through the scheduler."""
SIMPLE: Final = (type(None), bool, int, float, complex)
"""Values that are pickled on the loop: handing them to a thread would take longer."""
AGAIN: Final = 0.1
"""Seconds after which data are offered to the cluster again."""
AT_ONCE: Final = 256
"""How many datasets are asked for in one message."""


class DaskExecutor:
    """
    Calls functions on the workers of a Dask cluster.

    Without arguments, a cluster of worker processes is started on this machine, and ended with the executor.

    Args:
        address: That of a scheduler: `tcp://10.0.0.1:8786`, or `tls://...` with `security`.
        cluster: A cluster object of Dask, such as a `KubeCluster`; it is not closed.
        client: A `distributed.Client(asynchronous=True)` of the running loop; it is not closed.
        security: A `distributed.Security`: the certificates for TLS.
        timeout: Seconds that the scheduler may take to answer.
        local: For the cluster that is started here: what `distributed.LocalCluster` takes.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cluster: Any = None,
        client: Any = None,
        security: Any = None,
        timeout: float = SECONDS,
        local: Mapping[str, Any] | None = None,
    ) -> None:
        if sum(each is not None for each in (address, cluster, client)) > 1:
            raise OptionError("DaskExecutor: only one of address=, cluster= and client= can be meant.")
        self._address = address
        self._given = cluster
        self._client: Any = client
        self._security = security
        self._timeout = timeout
        self._local = dict(local or {})
        self._owns_client = client is None
        self._owned: Any = None
        self._opened = 0
        self._opening = asyncio.Lock()
        self._topic = f"odibi_async-{secrets.token_hex(6)}"
        self._starting: dict[str, Callable[[], None]] = {}
        self._placed: weakref.WeakKeyDictionary[Any, dict[int, Placed]] = weakref.WeakKeyDictionary()
        self._fetching: list[tuple[Any, asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: set[int] = set()

    # -- its life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """
        Connects to the cluster.

        Raises:
            ClusterError: The scheduler does not answer, or the cluster has other versions.
        """
        try:
            await self._connected()
        except BaseException:
            await self._leave()
            raise
        self._opened += 1

    async def close(self) -> None:
        """Leaves the cluster; one that was started here is ended."""
        self._opened -= 1
        await self._leave()

    async def _leave(self) -> None:
        """Ends what the first opening began, unless there are others."""
        if self._opened:
            return
        with anyio.CancelScope(shield=True):
            if self._owns_client and self._client is not None:
                client, self._client = self._client, None
                await _closed(client)
            if self._owned is not None:
                cluster, self._owned = self._owned, None
                await _in_thread(cluster.close)

    async def _connected(self) -> Any:
        """The client, connected again if the scheduler was gone meanwhile."""
        client = self._client
        if client is not None and client.status == "running" and self._opened:
            return client
        async with self._opening:
            if self._client is None or (self._owns_client and self._client.status in ("closed", "closing")):
                self._client = await self._new_client()
            if not self._opened:
                await self._check_versions(self._client)
            self._client.subscribe_topic(self._topic, self._hear)
        if self._client.status != "running":
            raise ClusterError(self._no_answer())
        return self._client

    async def _new_client(self) -> Any:
        distributed = await _in_thread(_imported)
        if self._address is None and self._given is None and self._owned is None:
            options = {"processes": True, "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1} | self._local
            self._owned = await _in_thread(lambda: distributed.LocalCluster(**options))
        target = self._address or self._given or self._owned.scheduler_address
        make = distributed.Client
        try:
            client = make(
                target, asynchronous=True, security=self._security, timeout=self._timeout, set_as_default=False
            )
            async with asyncio.timeout(self._timeout + 1):
                return await client
        except (OSError, TimeoutError) as error:
            raise ClusterError(self._no_answer()) from error

    def _no_answer(self) -> str:
        where = self._address or "the scheduler"
        return (
            f"The Dask scheduler does not answer ({where}). Is it running, and reachable from here? "
            "What the cluster held is lost; results in the cache or the journal are not: run the pipeline again."
        )

    async def _check_versions(self, client: Any) -> None:
        """
        Raises:
            ClusterError: Python or Dask on the cluster is another version, or this package is not there.
        """
        found = await client.get_versions(packages=["odibi_async"])
        ours = _versions(found["client"])
        faults = []
        for name, theirs in [("the scheduler", found["scheduler"]), *found["workers"].items()]:
            for package, version in _versions(theirs).items():
                if version != ours[package]:
                    faults.append(f"{name} has {package} {version or 'not at all'}, this process {ours[package]}")
        if faults:
            raise ClusterError(
                f"The Dask cluster does not fit this process: {'; '.join(faults[:5])}. Install the same versions on "
                "the scheduler, the workers and here."
            )

    def _hear(self, event: Any) -> None:
        """What a worker tells of a call."""
        kind, about = event[1]
        if kind == remote.STARTED:
            self._starting.pop(about, _nothing)()
        elif kind == remote.LOG:
            log_here(pickle.loads(about))

    # -- calls -----------------------------------------------------------------------------------------

    def takes(self, handle: Handle) -> bool:
        """Whether it stands for data of this cluster, or a list of such data."""
        if isinstance(handle, HandleList):
            return all(not isinstance(each, Handle) or self.takes(each) for each in handle.elements)
        return isinstance(handle, DaskHandle) and handle.executor is self

    def submit(self, work: Work) -> asyncio.Task[Sequence[Any]]:
        return asyncio.get_running_loop().create_task(self._call(work), name=f"{work.step} on Dask")

    async def _call(self, work: Work) -> Sequence[Any]:
        client = await self._connected()
        token = f"{work.step}-{secrets.token_hex(8)}"
        placed = await self._place(client, work)
        blob, futures = await self._packed(client, work, placed)
        future = client.submit(
            remote.call, blob, work.step, self._topic, token, work.timeout, *futures,
            key=token, pure=False, retries=0, priority=work.priority, resources=await self._resources(client, work),
        )  # fmt: skip
        if work.timeout is None:
            work.on_start()
        else:
            self._starting[token] = work.on_start
        try:
            await _ended(future)
        except asyncio.CancelledError:
            await self._cancel(client, token, future)
            raise
        finally:
            self._starting.pop(token, _nothing)()
        await self._check(client, work.step, future, futures)
        if work.datasets == 1:
            return [DaskHandle(self, work.step, future)]
        parts = [
            client.submit(operator.getitem, future, place, pure=False, priority=work.priority + 1)
            for place in range(work.datasets)
        ]
        for part in parts:
            await _ended(part)
        return [DaskHandle(self, work.step, part) for part in parts]

    async def _cancel(self, client: Any, token: str, future: Any) -> None:
        """Takes a call back: what has begun is stopped where it can be."""
        with contextlib.suppress(Exception):  # whatever has become of the cluster: nobody waits for the call any more
            async with asyncio.timeout(self._timeout):
                await client.cancel([future], force=True)
                await client.run(remote.stop, token, on_error="ignore")

    async def _check(self, client: Any, step: str, future: Any, inputs: Sequence[Any]) -> None:
        """
        Raises:
            Raised: The function raised.
            WorkerLost: Its workers died.
            DataLost: Something that it reads is gone.
            ClusterError: The scheduler is.
            NotPortable: The call or its result cannot travel.
        """
        status = future.status
        if status == "finished":
            return
        if client.status != "running" or self._client is not client:
            raise ClusterError(self._no_answer())
        if status != "error":
            raise DataLost(step, "what it reads was on a worker that is gone, and cannot be computed again by Dask.")
        error = await future.exception()
        if isinstance(error, remote.Failed):
            raise Raised(await _in_thread(unpacked_error, error.error))
        if isinstance(error, remote.Unportable):
            raise NotPortable(step, error.reason)
        if type(error).__name__ == "KilledWorker":
            raise WorkerLost(step, f"{error.allowed_failures + 1} workers died in turn while they called it.")
        if isinstance(error, concurrent.futures.CancelledError):
            raise DataLost(step, "what it reads was on a worker that is gone.")
        raise ClusterError(f"The cluster cannot call step {step!r}: {in_a_line(error)}") from error

    async def _resources(self, client: Any, work: Work) -> dict[str, int] | None:
        """What Dask is to count for a call: the pools that any worker declares as its resources."""
        if not work.units:
            return None
        try:
            workers = (await client.scheduler.identity(n_workers=-1))["workers"].values()
        except OSError as error:
            raise ClusterError(self._no_answer()) from error
        declared = {name for worker in workers for name in worker.get("resources", ())}
        unknown = sorted(work.resources.keys() - declared)
        if unknown:
            raise ClusterError(
                f"Step {work.step!r} takes of pool {unknown[0]!r}, which neither the limits nor any worker knows: give "
                f"Limits(pools={{{unknown[0]!r}: ...}}), or start workers with --resources '{unknown[0]}=...'."
            )
        return {name: units for name, units in work.units.items() if name in declared} or None

    # -- data that goes there --------------------------------------------------------------------------

    async def _place(self, client: Any, work: Work) -> dict[int, DaskHandle]:
        """Takes the large frames among the arguments to the cluster, each once a run: identity -> handle."""
        values = [*work.args, *work.kwargs.values()]
        for each in list(values):
            values += [v for v in each.elements if not isinstance(v, Handle)] if isinstance(each, HandleList) else ()
        placed = self._placed.setdefault(work.owner, {})
        handles = {}
        for value in values:
            if not is_large(value):
                continue
            place = placed.get(id(value))
            if place is None or place.value() is not value or place.is_lost:
                task = asyncio.create_task(self._scattered(client, work.step, value))
                place = placed[id(value)] = Placed(
                    weakref.ref(value, functools.partial(_forget, placed, id(value))), task
                )
            handles[id(value)] = await asyncio.shield(place.task)
        return handles

    async def _scattered(self, client: Any, step: str, value: Any) -> DaskHandle:
        packed = await _in_thread(remote.packed, value)
        return DaskHandle(self, step, await self._scatter(client, packed))

    async def _scatter(self, client: Any, value: Any) -> Any:
        """Takes a value to the cluster, to another worker if the first one dies meanwhile."""
        try:
            async with asyncio.timeout(self._timeout * 6):
                while client.status == "running":
                    with contextlib.suppress(OSError, concurrent.futures.CancelledError):
                        [future] = await client.scatter([value], hash=False)
                        return future
                    await asyncio.sleep(AGAIN)
        except TimeoutError as error:
            raise ClusterError(f"The cluster takes no data: {in_a_line(error)}. Are there any workers?") from error
        raise ClusterError(self._no_answer())

    async def _packed(self, client: Any, work: Work, placed: Mapping[int, DaskHandle]) -> tuple[Any, list[Any]]:
        """The bytes of a call, and the futures that it refers to."""
        futures: list[Any] = []

        def special(value: Any) -> Any:
            if isinstance(value, HandleList):
                return list, (value.elements,)
            value = placed.get(id(value), value)
            if not isinstance(value, DaskHandle):
                return NotImplemented
            futures.append(value.future)
            return remote.argument, (len(futures) - 1,)

        def pack() -> bytes:
            call = (work.fn, tuple(work.args), dict(work.kwargs), work.outputs, variables_of(work.context))
            return dumps(call, special)

        given = (*work.args, *work.kwargs.values())
        is_simple = all(type(each) in SIMPLE or isinstance(each, DaskHandle) for each in given)
        try:
            blob = pack() if is_simple and id(work.fn) in self._known else await _in_thread(pack)
        except Exception as error:  # whatever is in it decides what its pickling raises
            raise NotPortable(work.step, f"it cannot be pickled: {type(error).__name__}: {error}") from error
        self._known.add(id(work.fn))
        if len(blob) < LARGE:
            return blob, futures
        return await self._scatter(client, remote.Packed(remote.PICKLE, blob)), futures

    # -- data that comes back --------------------------------------------------------------------------

    async def fetch(self, handle: DaskHandle) -> Any:
        """
        The value of a dataset on the cluster.

        Raises:
            DataLost: It is gone.
            ClusterError: So is the scheduler.
        """
        client, future = self._client, handle.future
        if client is None or client.status != "running" or future.client is not client:
            raise ClusterError(self._no_answer())
        if future.status == "finished" and future.type is not remote.Packed:
            future = client.submit(remote.packed, future, pure=False, priority=2**20)
        got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._fetching.append((future, got))
        if len(self._fetching) == 1:
            asyncio.get_running_loop().call_soon(self._fetch_all)
        try:
            packed = await got
        except concurrent.futures.CancelledError as error:
            if client.status != "running":
                raise ClusterError(self._no_answer()) from error
            raise DataLost(handle.step, "its worker is gone, and it cannot be computed again by Dask.") from error
        if isinstance(packed, remote.Packed) and len(packed.data) < AT_ONCE:
            return remote.unpacked(packed)
        return await _in_thread(remote.unpacked, packed)

    def _fetch_all(self) -> None:
        wanted, self._fetching = self._fetching, []
        for start in range(0, len(wanted), AT_ONCE):
            task = asyncio.get_running_loop().create_task(_gather(self._client, wanted[start : start + AT_ONCE]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class Placed:
    """
    A local value that was taken to the cluster.

    Attributes:
        value: Gives the value while it lives.
        task: Takes it there; gives the handle.
    """

    __slots__ = ("task", "value")

    def __init__(self, value: Callable[[], Any], task: asyncio.Task[DaskHandle]) -> None:
        self.value = value
        self.task = task

    @property
    def is_lost(self) -> bool:
        """Whether it has to be taken there again."""
        if not self.task.done():
            return False
        return self.task.cancelled() or self.task.exception() is not None or self.task.result().is_lost


def _forget(placed: dict[int, Placed], identity: int, _: object) -> None:
    placed.pop(identity, None)


class DaskHandle(Handle):
    """
    Stands for a dataset on a cluster.

    Attributes:
        executor: Whose cluster it is.
        step: The step that made it.
        future: The future of Dask.
    """

    __slots__ = ("executor", "future", "step")

    def __init__(self, executor: DaskExecutor, step: str, future: Any) -> None:
        self.executor = executor
        self.step = step
        self.future = future

    @property
    def rows(self) -> int | None:
        return None

    @property
    def is_lost(self) -> bool:
        return self.future.status in ("cancelled", "lost", "error")

    async def load(self) -> Any:
        """The value, which comes here."""
        return await self.executor.fetch(self)


async def _gather(client: Any, wanted: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
    """Gathers futures in one message; where one of them is gone, one by one."""
    try:
        values = await client.gather([future for future, _ in wanted])
    except Exception as error:  # of Dask, or of whatever was in a future
        if len(wanted) > 1:
            for each in wanted:
                await _gather(client, [each])
        elif not wanted[0][1].done():
            wanted[0][1].set_exception(_as_lost(error))
        return
    for (_, got), value in zip(wanted, values, strict=True):
        if not got.done():
            got.set_result(value)


def _as_lost(error: Exception) -> Exception:
    is_lost = isinstance(error, OSError | KeyError) or type(error).__name__ == "KilledWorker"
    return concurrent.futures.CancelledError(in_a_line(error)) if is_lost else error


async def _ended(future: Any) -> None:
    """Waits until Dask has done a task, whatever it came to."""
    with contextlib.suppress(concurrent.futures.CancelledError):
        await future.exception()


async def _closed(client: Any) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(SECONDS):
            await client.close()


def _nothing() -> None:
    """A start that was told already."""


def _versions(of: Mapping[str, Any]) -> dict[str, str | None]:
    """What has to be the same everywhere."""
    packages = of["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return {"python": python} | {name: packages.get(name) for name in ("distributed", "cloudpickle", "odibi_async")}


def _imported() -> Any:
    """Dask. What it asks the system for at the start of a client blocks the first time."""
    distributed = importlib.import_module("distributed")
    importlib.import_module("distributed.versions").get_versions(packages=["odibi_async"])
    return distributed


async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))
