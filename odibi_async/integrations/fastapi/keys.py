"""Requests that are sent again: a key stands for one run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import NamedTuple, NoReturn

from blake3 import blake3

from odibi_async.errors import RunAlive, RunExists
from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.inputs import Asked
from odibi_async.integrations.fastapi.owned import Owned
from odibi_async.integrations.fastapi.problems import ServiceProblem
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.runner.runner import new_run_id


class Claim(NamedTuple):
    """
    What a key stands for.

    Attributes:
        digest: Of what was asked for.
        run_id: The run.
        at: When it was claimed, by the clock that never goes back.
    """

    digest: str
    run_id: str
    at: float


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
        self._keys: dict[str, asyncio.Future[Claim]] = {}

    async def begin(self, offer: Offer, asked: Asked, body: bytes, key: str | None) -> Entry | Recorded:
        """Begins a run, or finds that of an earlier request with the same key."""
        if key is None:
            return await self._owned.begin(offer, asked, new_run_id())
        key, digest = f"{offer.name}\0{key}", blake3(body).hexdigest()
        claimed = self._known(key)
        if claimed is None:
            claimed = self._keys[key] = asyncio.get_running_loop().create_future()
            try:
                return await self._begin_claimed(offer, asked, key, digest, claimed)
            finally:
                if not claimed.done():
                    claimed.cancel()
                self._forget_key_later(key, claimed)
        try:
            said, run_id, _ = await asyncio.shield(claimed)
        except asyncio.CancelledError:
            if not claimed.cancelled():
                raise
            return await self.begin(offer, asked, body, key.partition("\0")[2])
        return await self._again(said, digest, run_id)

    async def _begin_claimed(
        self, offer: Offer, asked: Asked, key: str, digest: str, claimed: asyncio.Future[Claim]
    ) -> Entry | Recorded:
        shared, run_id, said, at = await self._owned.shared(), new_run_id(), digest, time.monotonic()
        if shared is not None:
            said, run_id, has_begun = await shared.claim(key, digest, run_id, self._owned.limits.key_seconds)
            if said != digest:
                raise _other_request()
            if (found := await shared.recorded(run_id)) is not None:
                claimed.set_result(Claim(digest, run_id, at))
                return found
            if has_begun:
                _forgotten(run_id)
        try:
            entry = await self._owned.begin(offer, asked, run_id)
        except (RunExists, RunAlive):  # another worker was faster
            claimed.set_result(Claim(digest, run_id, at))
            return await self._find(run_id)
        except BaseException:
            if shared is not None:
                await shared.unclaim(key, run_id)
            raise
        claimed.set_result(Claim(digest, run_id, at))
        if shared is not None:
            await shared.begun(key, run_id)
        return entry

    async def _again(self, said: str, digest: str, run_id: str) -> Entry | Recorded:
        if said != digest:
            raise _other_request()
        try:
            return await self._find(run_id)
        except ServiceProblem as problem:
            if problem.status == 404:
                _forgotten(run_id)
            raise

    def _known(self, key: str) -> asyncio.Future[Claim] | None:
        """What a key was claimed for, unless that was too long ago."""
        claimed = self._keys.get(key)
        if claimed is None or not claimed.done() or claimed.cancelled():
            return claimed
        if time.monotonic() - claimed.result().at <= self._owned.limits.key_seconds:
            return claimed
        del self._keys[key]
        return None

    def _forget_key_later(self, key: str, claimed: asyncio.Future[Claim]) -> None:
        """A key whose run failed to begin is free again; another one is kept for as long as its run may be."""
        if claimed.cancelled():
            self._keys.pop(key, None)
        too_many = len(self._keys) - 10 * (self._owned.limits.kept + self._owned.limits.runs)
        if too_many > 0:
            oldest = islice((other for other, each in self._keys.items() if each.done()), too_many)
            for other in tuple(oldest):
                del self._keys[other]


def _forgotten(run_id: str) -> NoReturn:
    raise ServiceProblem(
        409, "OA334", f"This Idempotency-Key stands for run {run_id!r}, which is over and not kept any more."
    )


def _other_request() -> ServiceProblem:
    return ServiceProblem(422, "OA332", "This Idempotency-Key was used for another request.")
