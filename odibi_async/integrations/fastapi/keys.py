"""Requests that are sent again: a key stands for one run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from blake3 import blake3

from odibi_async.errors import RunAlive, RunExists
from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.inputs import Asked
from odibi_async.integrations.fastapi.owned import Owned
from odibi_async.integrations.fastapi.problems import ServiceProblem
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.runner.runner import new_run_id


class Keys:
    """
    Begins the runs of requests, one for each key.

    In this process a key is a future, for all workers it is a mark in the journal. A run that was promised to a key and
    never began is begun by whoever asks next, under the same name: the journal lets only one of them.

    Args:
        owned: Begins runs.
        find: Finds them.
    """

    def __init__(self, owned: Owned, find: Callable[[str], Awaitable[Entry | Recorded]]) -> None:
        self._owned = owned
        self._find = find
        self._keys: dict[str, asyncio.Future[tuple[str, str]]] = {}

    async def begin(self, offer: Offer, asked: Asked, body: bytes, key: str | None) -> Entry | Recorded:
        """Begins a run, or finds that of an earlier request with the same key."""
        if key is None:
            return await self._owned.begin(offer, asked, new_run_id())
        key, digest = f"{offer.name}\0{key}", blake3(body).hexdigest()
        claimed = self._keys.get(key)
        if claimed is None:
            claimed = self._keys[key] = asyncio.get_running_loop().create_future()
            try:
                return await self._begin_claimed(offer, asked, key, digest, claimed)
            finally:
                if not claimed.done():
                    claimed.cancel()
                self._forget_key_later(key, claimed)
        try:
            said, run_id = await asyncio.shield(claimed)
        except asyncio.CancelledError:
            if not claimed.cancelled():
                raise
            return await self.begin(offer, asked, body, key.partition("\0")[2])
        return await self._again(said, digest, run_id)

    async def _begin_claimed(
        self, offer: Offer, asked: Asked, key: str, digest: str, claimed: asyncio.Future[tuple[str, str]]
    ) -> Entry | Recorded:
        shared, run_id, said = await self._owned.shared(), new_run_id(), digest
        if shared is not None:
            said, run_id = await shared.claim(key, digest, run_id, self._owned.limits.key_seconds)
            if said != digest:
                raise _other_request()
            if (found := await shared.recorded(run_id)) is not None:
                claimed.set_result((digest, run_id))
                return found
        try:
            entry = await self._owned.begin(offer, asked, run_id)
        except (RunExists, RunAlive):  # another worker was faster
            claimed.set_result((digest, run_id))
            return await self._find(run_id)
        except BaseException:
            if shared is not None:
                await shared.unclaim(key, run_id)
            raise
        claimed.set_result((digest, run_id))
        return entry

    async def _again(self, said: str, digest: str, run_id: str) -> Entry | Recorded:
        if said != digest:
            raise _other_request()
        return await self._find(run_id)

    def _forget_key_later(self, key: str, claimed: asyncio.Future[tuple[str, str]]) -> None:
        """A key whose run failed to begin is free again; another one is kept for as long as its run may be."""
        if claimed.cancelled():
            del self._keys[key]
            return
        most = 10 * (self._owned.limits.kept + self._owned.limits.runs)
        while len(self._keys) > most:
            oldest = next(iter(self._keys))
            del self._keys[oldest]


def _other_request() -> ServiceProblem:
    return ServiceProblem(422, "OA332", "This Idempotency-Key was used for another request.")
