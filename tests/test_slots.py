"""Pools that count in units: nobody takes more than there is, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from odibi_async import Limits, RunError, Runner, run_pipeline, step
from odibi_async.errors import GraphError, OptionError
from odibi_async.limits import units_of
from odibi_async.run.slots import Held, Slots


class Meter:
    """Counts what the running steps take of each pool."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.order: list[str] = []

    def step(self, name: str, pool: Any, **options: Any) -> Any:
        async def work() -> str:
            self.order.append(name)
            for each, units in units_of(pool):
                self.taken[each] = self.taken.get(each, 0) + units
                self.most[each] = max(self.most.get(each, 0), self.taken[each])
            await asyncio.sleep(0.002)
            for each, units in units_of(pool):
                self.taken[each] -= units
            return name

        return step(work, name=name, pool=pool, **options)


@pytest.fixture
def meter() -> Meter:
    return Meter()


async def test_steps_take_no_more_units_than_there_are(meter: Meter):
    sizes = [4, 1, 8, 16, 2, 3, 5, 7] * 5
    steps = [meter.step(f"s{i}", {"gb": size}) for i, size in enumerate(sizes)]
    result = await run_pipeline(steps, limits=Limits(pools={"gb": 16}))
    assert len(result.steps) == len(sizes)
    assert 12 <= meter.most["gb"] <= 16


async def test_a_step_takes_of_several_pools_at_once(meter: Meter):
    pools: list[Any] = [{"gb": 4, "gpu": 1}, {"gpu": 1}, {"gb": 16}, "gpu", {"licence": 1, "gb": 1}] * 6
    steps = [meter.step(f"s{i}", pool) for i, pool in enumerate(pools)]
    limits = Limits(pools={"gb": 16, "gpu": 2, "licence": 1}, concurrency=5)
    assert (await run_pipeline(steps, limits=limits)).ok
    assert meter.most == {"gb": 16, "gpu": 2, "licence": 1}


async def test_a_step_that_takes_much_is_not_passed_by_for_ever(meter: Meter):
    steps = [meter.step(f"small{i}", {"gb": 1}) for i in range(8)]
    steps += [meter.step("large", {"gb": 8})]
    steps += [meter.step(f"later{i}", {"gb": 1}) for i in range(40)]
    await run_pipeline(steps, limits=Limits(pools={"gb": 8}))
    assert meter.order.index("large") == 8


async def test_a_step_that_waits_keeps_nobody_from_other_pools(meter: Meter):
    gate = asyncio.Event()

    async def holding() -> None:
        await gate.wait()

    async def other() -> None:
        gate.set()

    steps = [
        step(holding, pool={"gb": 1}),
        meter.step("large", {"gb": 8}),
        step(other, pool="db"),
        meter.step("small", {"gb": 1}),
    ]
    await run_pipeline(steps, limits=Limits(pools={"gb": 8, "db": 1}), timeout=5)
    assert meter.order == ["large", "small"]


async def test_runs_take_turns_whatever_they_take(meter: Meter):
    async with Runner(limits=Limits(pools={"gb": 4})) as runner:
        many = [meter.step(f"many{i}", {"gb": 1}) for i in range(60)]
        await asyncio.gather(runner.run(many), runner.run([meter.step("one", {"gb": 4})]))
    assert meter.order.index("one") < 12


async def test_elements_and_retries_take_units_too(meter: Meter):
    most, taken = 0, 0

    async def work(n: int) -> int:
        nonlocal most, taken
        taken += 3
        most = max(most, taken)
        await asyncio.sleep(0.001)
        taken -= 3
        return n

    mapped = step(work, map_over="n", inputs={"n": "ns"}, pool={"gb": 3})
    assert (await run_pipeline([mapped], {"ns": list(range(20))}, limits=Limits(pools={"gb": 10})))["work"]
    assert most == 9


async def test_what_can_never_start_is_a_fault_before_anything_runs(meter: Meter):
    steps = [meter.step("fine", {"gb": 16}), meter.step("huge", {"gb": 17})]
    with pytest.raises(GraphError, match=r"Step 'huge' takes 17 of pool 'gb', of which there are only 16\.") as caught:
        await run_pipeline(steps, limits=Limits(pools={"gb": 16}))
    assert [fault.code for fault in caught.value.faults] == ["OA216"]
    assert not meter.order
    with pytest.raises(GraphError, match="pool 'gbs', which the limits do not know"):
        await run_pipeline([meter.step("s", {"gbs": 1})], limits=Limits(pools={"gb": 16}))


@pytest.mark.parametrize("pool", [{"gb": 0}, {"gb": -1}, {"gb": 1.5}, {"gb": True}, {1: 1}, 3, ["gb"]])
def test_a_pool_that_is_none_is_refused(pool: Any):
    with pytest.raises(OptionError, match="the name of a pool is needed"):
        step(lambda: 1, name="s", pool=pool)


async def test_units_come_back_however_a_step_ends(meter: Meter):
    async def fail() -> None:
        raise ValueError

    async with Runner(limits=Limits(pools={"gb": 4})) as runner:
        for _ in range(3):
            with pytest.raises(RunError):
                await runner.run([step(fail, pool={"gb": 3})])
            with pytest.raises(RunError):
                await runner.run([step(asyncio.Event().wait, name="w", pool={"gb": 3}, timeout=0.01)])
        assert (await runner.run([meter.step("all", {"gb": 4})], timeout=5)).ok


async def test_one_who_gives_up_waiting_holds_nobody_up():
    slots = Slots(Limits(pools={"gb": 4}))
    first = await slots.wait("a", 0, (("gb", 4),))
    waiting = asyncio.create_task(slots.wait("b", 0, (("gb", 3),)))
    small = asyncio.create_task(slots.wait("c", 0, (("gb", 1),)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    first.end()
    held: Held = await asyncio.wait_for(small, 1)
    held.end()


def test_units_are_those_of_a_name_or_of_a_mapping():
    assert units_of(None) == ()
    assert units_of("db") == (("db", 1),)
    assert units_of({"gpu": 1, "gb": 4}) == (("gb", 4), ("gpu", 1))
