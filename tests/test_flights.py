"""Single flight in one loop: who leads, who waits, and what becomes of those who waited."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from odibi_async.cache.flights import Flights

End = Literal["succeeds", "finds nothing", "fails", "is cancelled"]


async def leads_of(end: End, others: int) -> list[bool]:
    """Whether each of the others led who came while one was at it, when that one ends so; those who lead find it."""
    flights, release, leads = Flights(), asyncio.Event(), list[bool]()

    async def first() -> None:
        async with flights.of("key") as flight:
            assert flight.leads
            await release.wait()
            if end == "fails":
                raise ValueError
            flight.succeeded = end == "succeeds"

    async def other() -> None:
        async with flights.of("key") as flight:
            leads.append(flight.leads)
            flight.succeeded = True

    leader = asyncio.create_task(first())
    waiting = [asyncio.create_task(other()) for _ in range(others)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert leads == []
    if end == "is cancelled":
        leader.cancel()
    release.set()
    await asyncio.gather(leader, *waiting, return_exceptions=True)
    assert not flights._wanted
    return leads


@pytest.mark.parametrize("end", ["succeeds", "is cancelled"])
async def test_the_next_one_leads_when_the_first_has_something_or_was_cancelled(end: End):
    assert await leads_of(end, 3) == [True, True, True]


@pytest.mark.parametrize("end", ["finds nothing", "fails"])
async def test_where_the_first_has_nothing_for_the_others_they_go_ahead_side_by_side(end: End):
    assert await leads_of(end, 3) == [False, False, False]


async def test_who_does_not_wait_goes_ahead_beside_the_first():
    flights = Flights()
    async with flights.of("key", waits=False) as first, flights.of("key", waits=False) as second:
        assert (first.leads, second.leads) == (True, False)
    assert not flights._wanted


async def test_keys_do_not_wait_for_each_other():
    flights = Flights()
    async with flights.of("a") as one, flights.of("b") as other:
        assert one.leads
        assert other.leads


async def test_who_is_cancelled_while_waiting_is_not_waited_for():
    flights, release = Flights(), asyncio.Event()

    async def first() -> None:
        async with flights.of("key") as flight:
            await release.wait()
            flight.succeeded = True

    async def other() -> bool:
        async with flights.of("key") as flight:
            return flight.leads

    leader, gone, waits = (asyncio.create_task(each()) for each in (first, other, other))
    await asyncio.sleep(0)
    gone.cancel()
    release.set()
    await leader
    assert await waits
    assert gone.cancelled()
    assert not flights._wanted
