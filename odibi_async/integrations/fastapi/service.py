"""What the routes of a service share: its runner, its pipelines, and the runs of this process and of others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final

from blake3 import blake3

from odibi_async.errors import GraphError, OdibiError, OptionError, RunAlive, RunExists
from odibi_async.integrations.fastapi.entry import Ending, Entry, RunTable
from odibi_async.integrations.fastapi.inputs import Asked
from odibi_async.integrations.fastapi.kept import recorded_values
from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.log import RunLog
from odibi_async.integrations.fastapi.problems import ServiceProblem, invalid, unknown
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded, Shared
from odibi_async.integrations.fastapi.stopping import Stopping
from odibi_async.journal.records import RunRecord
from odibi_async.result import Status
from odibi_async.runner import Runner
from odibi_async.runner.runner import new_run_id

LONGEST_ID: Final = 200
"""Letters of the name of a run."""


class Service:
    """
    Begins runs, finds them, cancels and resumes them.

    Args:
        runner: Owns the runs.
        offers: Name -> pipeline.
        limits: How much is taken on.

    Attributes:
        table: The runs that this process began.
        stopping: Tells when the server is being stopped.
    """

    def __init__(self, runner: Runner, offers: Mapping[str, Offer], limits: ServiceLimits) -> None:
        self.runner = runner
        self.offers = offers
        self.limits = limits
        self.table = RunTable(limits, keeps=not runner.has_journal)
        self.stopping = Stopping()
        self._shared: Shared | None = None
        self._keys: dict[str, asyncio.Future[tuple[str, str]]] = {}
        self._starting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def shared(self) -> Shared | None:
        """What it shares with other workers; `None` where there is no journal."""
        if self._shared is None and (journal := await self.runner.journal()) is not None:
            self._shared = self._shared or Shared(journal)
        return self._shared

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """The part of the app's lifespan that is its own; the runs' is that of the runner, around it."""
        try:
            yield
        finally:
            self.stopping.close()
            self.table.close()

    # -- beginning -------------------------------------------------------------------------------------

    async def begin(self, offer: Offer, asked: Asked, body: bytes, key: str | None) -> Entry | Recorded:
        """
        Begins a run, or finds the one that an earlier request with the same key began.

        Raises:
            ServiceProblem: It cannot begin.
        """
        if key is None:
            return await self._begin(offer, asked, new_run_id())
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
        shared, run_id, said = await self.shared(), new_run_id(), digest
        if shared is not None:
            said, run_id = await shared.claim(key, digest, run_id, self.limits.key_seconds)
            if said != digest:
                raise _other_request()
            if (found := await shared.recorded(run_id)) is not None:
                claimed.set_result((digest, run_id))
                return found
        try:
            entry = await self._begin(offer, asked, run_id)
        except (RunExists, RunAlive):  # another worker was faster
            claimed.set_result((digest, run_id))
            return await self.find(run_id)
        except BaseException:
            if shared is not None:
                await shared.unclaim(key, run_id)
            raise
        claimed.set_result((digest, run_id))
        return entry

    async def _again(self, said: str, digest: str, run_id: str) -> Entry | Recorded:
        if said != digest:
            raise _other_request()
        return await self.find(run_id)

    def _forget_key_later(self, key: str, claimed: asyncio.Future[tuple[str, str]]) -> None:
        """A key whose run failed to begin is free again; another one is kept for as long as its run may be."""
        if claimed.cancelled():
            del self._keys[key]
            return
        most = 10 * (self.limits.kept + self.limits.runs)
        while len(self._keys) > most:
            oldest = next(iter(self._keys))
            del self._keys[oldest]

    async def _begin(self, offer: Offer, asked: Asked, run_id: str, record: RunRecord | None = None) -> Entry:
        """Begins a run, or resumes one that the journal has."""
        if len(self.table) + self._starting >= self.limits.runs:
            raise ServiceProblem(429, "OA333", "The service has enough runs for now.", headers={"Retry-After": "1"})
        self._starting += 1
        try:
            if offer.served.overlap == "allow":
                return await self._started(offer, asked, run_id, record)
            return await self._begin_alone(offer, asked, run_id, record)
        finally:
            self._starting -= 1

    async def _begin_alone(self, offer: Offer, asked: Asked, run_id: str, record: RunRecord | None) -> Entry:
        """Begins a run of a pipeline that has one at a time, in all workers."""
        if offer.busy:
            raise _overlap(offer)
        offer.busy += 1
        hold = None
        try:
            shared = await self.shared()
            if shared is not None and (hold := await shared.hold(f"overlap/{offer.name}")) is None:
                raise _overlap(offer)
            entry = await self._started(offer, asked, run_id, record)
        except BaseException:
            offer.busy -= 1
            if shared is not None and hold is not None:
                await shared.release(hold)
            raise
        end = entry.log.on_over

        def over() -> None:
            offer.busy -= 1
            end()
            if shared is not None and hold is not None:
                self._soon(shared.release(hold))

        entry.log.on_over = over
        return entry

    async def _started(self, offer: Offer, asked: Asked, run_id: str, record: RunRecord | None) -> Entry:
        shared = await self.shared()
        targets = asked.targets if record is None else record.targets
        log = RunLog(self.limits.events)
        options: dict[str, Any] = {
            **offer.served.options,
            "targets": targets,
            "timeout": asked.timeout or offer.served.timeout,
        }
        try:
            run = await self.runner.start(
                offer.planned,
                {**asked.inputs, **offer.given()},
                log=log,
                run_id=run_id,
                resume=record is not None,
                **options,
            )
        except (GraphError, OptionError) as error:
            raise invalid("The run cannot begin.", [{"loc": ("inputs",), "msg": str(error)}]) from error
        wanted = targets if targets is not None else (offer.outputs or offer.targets)
        entry = self.table.add(run, offer, log, asked.shown, tuple(wanted))
        log.on_over = functools.partial(self.table.end, entry)
        if shared is not None:
            try:
                await run.begun()
            except OdibiError:
                self.table.drop(entry)
                raise
            self._watch(shared)
        return entry

    # -- finding ---------------------------------------------------------------------------------------

    async def find(self, run_id: str) -> Entry | Recorded:
        """
        A run, of this process or of another one.

        Raises:
            ServiceProblem: There is none, or none of the pipelines of this service.
        """
        entry = self.table.get(run_id) if is_id(run_id) else None
        if entry is not None and entry.ended is None:
            return entry
        shared = await self.shared()
        if shared is None or not is_id(run_id):
            return entry or unknown(f"There is no run {run_id[:LONGEST_ID]!r}.")
        found = await shared.recorded(run_id)
        if found is None or found.record.pipeline not in self.offers:
            unknown(f"There is no run {run_id!r}.")
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
            self.cancel_here(found)
        else:
            shared = await self.shared()
            assert shared is not None
            await shared.ask_to_cancel(run_id)
        return found

    def cancel_here(self, entry: Entry) -> None:
        """Cancels a run of this process."""
        if entry.run is not None:
            self._soon(entry.run.cancel())

    async def resume(self, run_id: str, body: bytes) -> Entry:
        """
        Resumes a run that failed, was cancelled or interrupted.

        Raises:
            ServiceProblem: There is none, it is running or has succeeded, or something is missing.
        """
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
        return await self._begin(offer, asked, run_id, record)

    # -- within ----------------------------------------------------------------------------------------

    def _watch(self, shared: Shared) -> None:
        """As long as runs are running here, looks whether other workers were asked to cancel one."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._cancel_asked(shared), name="odibi_async service")

    async def _cancel_asked(self, shared: Shared) -> None:
        try:
            while len(self.table):
                changed = asyncio.ensure_future(self.table.idle())
                try:
                    await asyncio.wait([changed], timeout=self.limits.poll)
                finally:
                    changed.cancel()
                asked = await shared.asked_to_cancel() if len(self.table) else frozenset[str]()
                for entry in self.table.running():
                    if entry.id in asked:
                        self.cancel_here(entry)
                        await shared.forget_cancel(entry.id)
        finally:
            self._watching = None

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def is_id(text: str) -> bool:
    """Whether a run may be called so."""
    return 0 < len(text) <= LONGEST_ID and text.isprintable()


def _other_request() -> ServiceProblem:
    return ServiceProblem(422, "OA332", "This Idempotency-Key was used for another request.")


def _resumed_elsewhere(run_id: str) -> ServiceProblem:
    return ServiceProblem(409, "OA334", f"Run {run_id!r} is being resumed by somebody else.")


def _overlap(offer: Offer) -> ServiceProblem:
    return ServiceProblem(409, "OA334", f"Pipeline {offer.name!r} is running, and has one run at a time.")
