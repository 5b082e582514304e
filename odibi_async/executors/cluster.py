"""The connection to a Dask cluster, in the running loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.to_thread

from odibi_async.errors import ClusterError, OptionError

SECONDS: Final = 10.0
"""How long a scheduler may not answer."""


class Cluster:
    """
    A Dask cluster: one that is named, or one that is started on this machine.

    Args:
        address: That of a scheduler: `tcp://10.0.0.1:8786`, or `tls://...` with `security`.
        cluster: A cluster object of Dask, such as a `KubeCluster`; it is not closed.
        client: A `distributed.Client(asynchronous=True)` of the running loop; it is not closed.
        security: A `distributed.Security`: the certificates for TLS.
        timeout: Seconds that the scheduler may take to answer.
        local: For the cluster that is started here: what `distributed.LocalCluster` takes.
        on_connect: Called with each new client.
    """

    def __init__(
        self,
        address: str | None,
        *,
        cluster: Any,
        client: Any,
        security: Any,
        timeout: float,
        local: Mapping[str, Any] | None,
        on_connect: Callable[[Any], None],
    ) -> None:
        if sum(each is not None for each in (address, cluster, client)) > 1:
            raise OptionError("DaskExecutor: only one of address=, cluster= and client= can be meant.")
        self.timeout = timeout
        self._address = address
        self._given = cluster
        self._client: Any = client
        self._security = security
        self._local = dict(local or {})
        self._owns_client = client is None
        self._owned: Any = None
        self._opened = 0
        self._opening = asyncio.Lock()
        self._on_connect = on_connect

    async def open(self) -> None:
        """
        Connects to it.

        Raises:
            ClusterError: The scheduler does not answer, or the cluster has other versions.
        """
        try:
            await self.client()
        except BaseException:
            await self._leave()
            raise
        self._opened += 1

    async def close(self) -> None:
        """Leaves it, if it was opened no other time; one that was started here is ended."""
        self._opened -= 1
        await self._leave()

    async def _leave(self) -> None:
        if self._opened:
            return
        with anyio.CancelScope(shield=True):
            if self._owns_client and self._client is not None:
                client, self._client = self._client, None
                await _closed(client)
            if self._owned is not None:
                cluster, self._owned = self._owned, None
                await in_thread(cluster.close)

    async def client(self) -> Any:
        """The client, connected again if the scheduler was gone meanwhile."""
        client = self._client
        if client is not None and client.status == "running" and self._opened:
            return client
        async with self._opening:
            if self._owns_client and self._client is not None and self._client.status != "running":
                lost, self._client = self._client, None  # it may be trying to connect again, and would give up soon
                await _closed(lost)
            if self._client is None:
                self._client = await self._new_client()
            if not self._opened:
                await self._check_versions(self._client)
            self._on_connect(self._client)
        if self._client.status != "running":
            raise ClusterError(self.no_answer())
        return self._client

    async def _new_client(self) -> Any:
        distributed = await in_thread(_imported)
        if self._address is None and self._given is None and self._owned is None:
            options = {"processes": True, "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1} | self._local
            self._owned = await in_thread(lambda: distributed.LocalCluster(**options))
        target = self._address or self._given or self._owned.scheduler_address
        options = {"security": self._security, "timeout": self.timeout, "set_as_default": False}
        client = distributed.Client(target, asynchronous=True, **options)
        try:
            async with asyncio.timeout(self.timeout + 1):
                return await client
        except (OSError, TimeoutError) as error:
            await _closed(client)
            raise ClusterError(self.no_answer()) from error

    def is_up(self, client: Any) -> bool:
        """Whether a client has its connection."""
        return client is not None and client is self._client and client.status == "running"

    def no_answer(self) -> str:
        """What is to be said when the scheduler is gone."""
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


async def _closed(client: Any) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(SECONDS):
            await client.close()


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


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a worker thread of its own."""
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))
