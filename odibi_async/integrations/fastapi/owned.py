"""The runs that this process begins: all that is to be held to until they are over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import anyio.to_thread

from odibi_async.errors import GraphError, OdibiError, OptionError
from odibi_async.integrations.fastapi.entry import Entry, RunTable
from odibi_async.integrations.fastapi.inputs import Asked
from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.log import RunLog
from odibi_async.integrations.fastapi.problems import ServiceProblem, invalid
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Shared
from odibi_async.integrations.fastapi.stopping import Stopping
from odibi_async.journal.records import RunRecord
from odibi_async.runner import Runner

T = TypeVar("T")


class Owned:
    """
    Begins runs and cancels them, within the limits, and in the name of other workers too.

    Args:
        runner: Owns the runs.
        limits: How much is taken on.

    Attributes:
        table: The runs that this process began.
        stopping: Tells when the server is being stopped.
        has_begun: Whether the app that it belongs to has begun.
    """

    def __init__(self, runner: Runner, limits: ServiceLimits) -> None:
        self.runner = runner
        self.limits = limits
        self.table = RunTable(limits, keeps=not runner.has_journal)
        self.stopping = Stopping()
        self.has_begun = False
        self._shared: Shared | None = None
        self._starting = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def shared(self) -> Shared | None:
        """What it shares with other workers; `None` where there is no journal."""
        if self._shared is None and (journal := await self.runner.journal()) is not None:
            self._shared = self._shared or Shared(journal)
        return self._shared

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """The part of the app's lifespan that is its own; the runs' is that of the runner, around it."""
        # The first thread loads what it takes 0.1 s to load: now, not within a request.
        await anyio.to_thread.run_sync(int)
        self.has_begun = True
        try:
            yield
        finally:
            self.stopping.close()
            self.table.close()

    async def begin(self, offer: Offer, asked: Asked, run_id: str, record: RunRecord | None = None) -> Entry:
        """
        Begins a run, or resumes one that the journal has.

        Raises:
            ServiceProblem: It cannot begin.
            JournalError: It is running elsewhere, or the journal has it already.
        """
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
        hold = shared = None
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

        if entry.log.over.is_set():  # it was over before anybody could say what is to be done then
            over()
        else:
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

    def cancel_here(self, entry: Entry) -> None:
        """Cancels a run of this process."""
        if entry.run is not None:
            self._soon(entry.run.cancel())

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

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """What some work returns, which is done as a whole also when the request is cancelled meanwhile."""
        return await asyncio.shield(self._soon(work))

    def _soon(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has got it


def _overlap(offer: Offer) -> ServiceProblem:
    return ServiceProblem(409, "OA334", f"Pipeline {offer.name!r} is running, and has one run at a time.")
