"""What the routes of a service share: beginning runs, finding those of all workers, cancelling and resuming them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from odibi_async.errors import RunAlive
from odibi_async.integrations.fastapi.entry import Ending, Entry
from odibi_async.integrations.fastapi.inputs import Asked
from odibi_async.integrations.fastapi.kept import recorded_values
from odibi_async.integrations.fastapi.keys import Keys
from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.owned import Owned
from odibi_async.integrations.fastapi.problems import ServiceProblem, invalid, unknown
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded, Shared
from odibi_async.result import Status
from odibi_async.runner import Runner
from odibi_async.runner.runner import new_run_id

SHOWN: Final = 200
"""Letters of a name that nothing has."""


class Service:
    """
    Begins runs, finds them, cancels and resumes them.

    Args:
        runner: Owns the runs.
        offers: Name -> pipeline.
        limits: How much is taken on.

    Attributes:
        owned: The runs of this process.
        table: The table of these.
        stopping: Tells when the server is being stopped.
    """

    def __init__(self, runner: Runner, offers: Mapping[str, Offer], limits: ServiceLimits) -> None:
        self.offers = offers
        self.limits = limits
        self.owned = Owned(runner, limits)
        self.table = self.owned.table
        self.stopping = self.owned.stopping
        self._has_journal = runner.has_journal
        self._keys = Keys(self.owned, self.find)

    async def shared(self) -> Shared | None:
        """What it shares with other workers; `None` where there is no journal."""
        return await self.owned.shared()

    def check_begun(self) -> None:
        """
        For what runs beside the requests.

        Raises:
            ServiceProblem: Nobody has begun it.
        """
        if not self.owned.has_begun:
            raise ServiceProblem(
                503,
                "OA333",
                "Schedules and streams begin with the lifespan of their app, which has not begun. "
                "An app that is mounted in another one has none: include the router in the outer app.",
            )

    async def begin(self, offer: Offer, asked: Asked, body: bytes, key: str | None) -> Entry | Recorded:
        """
        Begins a run, or finds the one that an earlier request with the same key began.

        Raises:
            ServiceProblem: It cannot begin.
        """
        if key is None and not self._has_journal:
            return await self.owned.begin(offer, asked, new_run_id())
        return await self.owned.whole(self._keys.begin(offer, asked, body, key))

    # -- finding ---------------------------------------------------------------------------------------

    async def find(self, run_id: str) -> Entry | Recorded:
        """
        A run, of this process or of another one.

        Raises:
            ServiceProblem: There is none, or none of the pipelines of this service.
        """
        entry = self.table.get(run_id)
        if entry is not None and entry.ended is None:
            return entry
        shared = await self.shared()
        if shared is None:
            return entry or unknown(f"There is no run {run_id[:SHOWN]!r}.")
        found = None if "\0" in run_id else await shared.recorded(run_id)  # PostgreSQL has no texts with it
        if found is None or found.record.pipeline not in self.offers:
            unknown(f"There is no run {run_id[:SHOWN]!r}.")
        if entry is None:
            return found
        if found.record.status == entry.status and (found.record.ended_at or 0.0) <= (entry.ended or 0.0):
            return entry
        self.table.drop(entry)  # another worker has resumed it
        return found

    async def now(self, found: Entry | Recorded) -> Entry | Recorded:
        """A run as it is now."""
        return found if isinstance(found, Entry) else await self.find(found.record.run_id)

    async def end_within(self, found: Entry | Recorded, seconds: float, ending: Ending) -> Mapping[str, Any] | None:
        """
        Waits for the end of a run, or of the server; the arguments are those of `Entry.end_within`.

        Returns:
            The datasets of its answer; `None` where it is not over.
        """
        self.stopping.add(ending)
        try:
            return await self._end_within(found, seconds, ending)
        finally:
            self.stopping.discard(ending)

    async def _end_within(self, found: Entry | Recorded, seconds: float, ending: Ending) -> Mapping[str, Any] | None:
        if isinstance(found, Entry):
            if found.ended is None:
                return await found.end_within(seconds, ending)
            return found.outputs if found.outputs is not None else await self._recorded_outputs(found.id)
        deadline = asyncio.get_running_loop().time() + seconds
        while found.record.status is Status.RUNNING:  # in another worker
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or ending.done():
                return None
            await asyncio.wait([ending], timeout=min(left, self.limits.poll))
            again = await self.find(found.record.run_id)
            if isinstance(again, Entry):
                return await self._end_within(again, max(left, 0.001), ending)
            found = again
        return await self._recorded_outputs(found.record.run_id)

    async def _recorded_outputs(self, run_id: str) -> Mapping[str, Any]:
        """What the journal has of the datasets of a run's answer."""
        shared = await self.shared()
        found = None if shared is None else await shared.recorded(run_id)
        if shared is None or found is None:
            return {}
        offer = self.offers[found.record.pipeline]
        wanted = offer.outputs or offer.targets if found.record.targets is None else found.record.targets
        return await shared.ask(recorded_values, shared.journal, found, offer, wanted)

    # -- cancelling and resuming -----------------------------------------------------------------------

    async def cancel(self, run_id: str) -> Entry | Recorded:
        """
        Cancels a run, or asks the worker that runs it to do so. Returns at once.

        Raises:
            ServiceProblem: There is none, or it is over.
        """
        found = await self.find(run_id)
        status = found.status if isinstance(found, Entry) else found.record.status
        if status is not Status.RUNNING:
            raise ServiceProblem(409, "OA334", f"Run {run_id!r} is {status}: there is nothing to cancel.")
        if isinstance(found, Entry):
            self.owned.cancel_here(found)
        else:
            shared = await self.shared()
            assert shared is not None
            await shared.ask_to_cancel(run_id)
        return found

    async def resume(self, run_id: str, body: bytes) -> Entry:
        """
        Resumes a run that failed, was cancelled or interrupted.

        Raises:
            ServiceProblem: There is none, it is running or has succeeded, or something is missing.
        """
        return await self.owned.whole(self._resume_alone(run_id, body))

    async def _resume_alone(self, run_id: str, body: bytes) -> Entry:
        shared = await self.shared()
        if shared is None:
            raise ServiceProblem(409, "OA334", "Runs cannot be resumed: the runner has no journal.")
        await self.find(run_id)
        hold = await shared.hold(f"resume/{run_id}")
        if hold is None:
            raise _resumed_elsewhere(run_id)
        try:  # one at a time: the next one finds it running, or how it ended
            return await self._resume(shared, run_id, body)
        except RunAlive as error:
            raise _resumed_elsewhere(run_id) from error
        finally:
            await shared.release(hold)

    async def _resume(self, shared: Shared, run_id: str, body: bytes) -> Entry:
        recorded = await shared.recorded(run_id)
        if recorded is None:
            unknown(f"There is no run {run_id!r}.")
        record = recorded.record
        if record.status in (Status.RUNNING, Status.SUCCEEDED):
            raise ServiceProblem(409, "OA334", f"Run {run_id!r} is {record.status} and cannot be resumed.")
        offer = self.offers[record.pipeline]
        asked = offer.asks.resumption(body)
        kept = await shared.ask(shared.journal.inputs, run_id)
        asked = asked._replace(inputs={**kept, **asked.inputs}, targets=record.targets)
        given = offer.given()
        missing = [name for name in record.inputs if name not in asked.inputs and name not in given]
        if missing:
            faults = [{"loc": ("inputs", name), "msg": "It is not kept; give it again."} for name in missing]
            raise invalid("The run needs what the journal does not keep.", faults)
        await shared.forget_cancel(run_id)
        return await self.owned.begin(offer, asked, run_id, record)


def _resumed_elsewhere(run_id: str) -> ServiceProblem:
    return ServiceProblem(409, "OA334", f"Run {run_id!r} is being resumed by somebody else.")
