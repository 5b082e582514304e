"""Code of a step knows which call of which step it is, when somebody observes the run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from odibi_async import Limits, Retry, resource, run_pipeline, step
from odibi_async.events import Event
from odibi_async.place import PLACE, Place
from odibi_async.testing import Recorder

WORD: ContextVar[str] = ContextVar("word", default="")


class Entering(Recorder):
    """An observer that leaves a word in the context of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []

    def entering(self, place: Place) -> None:
        self.places.append(place)
        WORD.set(f"{place.step} {place.element} {place.attempt}")


def here() -> str:
    place = PLACE.get()
    assert place is not None
    return f"{place.step} {place.element} {place.attempt}"


async def test_each_kind_of_step_knows_its_call():
    async def plain() -> tuple[str, str]:
        return here(), WORD.get()

    async def after(plain: Any) -> tuple[str, str]:
        return await asyncio.create_task(plain_again())

    async def plain_again() -> tuple[str, str]:
        return here(), WORD.get()

    def blocking() -> tuple[str, str]:
        return here(), WORD.get()

    def mapped(n: int) -> tuple[str, str]:
        return here(), WORD.get()

    @resource
    async def opened() -> AsyncIterator[tuple[str, str]]:
        yield here(), WORD.get()

    @resource
    def entered() -> Iterator[tuple[str, str]]:
        yield here(), WORD.get()

    def reads(opened: Any, entered: Any) -> list[Any]:
        return [opened, entered]

    steps = [
        plain,
        after,
        blocking,
        step(blocking, name="limited", timeout=30),
        step(mapped, map_over="n"),
        opened,
        entered,
        reads,
    ]
    heard = Entering()
    for limits in (None, Limits(concurrency=2)):
        result = await run_pipeline(steps, {"n": [1, 2]}, observers=[heard], limits=limits)
        for name in ("plain", "after", "blocking", "limited"):
            assert result[name] == (f"{name} None 1",) * 2, name
        assert result["mapped"] == [("mapped 0 1",) * 2, ("mapped 1 1",) * 2]
        assert result["reads"] == [("opened None 1",) * 2, ("entered None 1",) * 2]
    assert PLACE.get() is None
    assert WORD.get() == ""
    assert {place.run_id for place in heard.places} == {event.run_id for event in heard}


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_attempt_knows_its_number_and_a_predicate_is_number_0(is_async: bool):
    seen = []

    def blocking() -> None:
        seen.append(here())
        if len(seen) < 4:
            raise OSError("not yet")

    async def coroutine() -> None:
        blocking()

    def wanted() -> bool:
        seen.append(here())
        return True

    async def async_wanted() -> bool:
        return wanted()

    retry = Retry(attempts=5, wait=0, jitter=False)
    fn: Any = coroutine if is_async else blocking
    when: Any = async_wanted if is_async else wanted
    heard = Entering()
    await run_pipeline([step(fn, name="s", retry=retry, when=when)], observers=[heard])
    assert seen == ["s None 0", "s None 1", "s None 2", "s None 3"]
    assert [place.attempt for place in heard.places] == [1, 2, 3]


async def test_without_observers_nobody_notes_it():
    async def plain() -> Place | None:
        return PLACE.get()

    def blocking() -> Place | None:
        return PLACE.get()

    result = await run_pipeline([plain, blocking])
    assert result["plain"] is result["blocking"] is None


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
async def test_an_observer_that_raises_when_it_is_entered_is_dropped(
    kind: type[BaseException], heard: Recorder, caplog: pytest.LogCaptureFixture
):
    class Broken:
        def __call__(self, event: Event) -> None: ...

        def entering(self, place: Place) -> None:
            raise kind("a bad listener")

    def blocking() -> int:
        return 1

    async def plain(blocking: int) -> int:
        return blocking

    with caplog.at_level(logging.ERROR):
        result = await run_pipeline([blocking, step(blocking, name="other"), plain], observers=[Broken(), heard])
    assert result.ok
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert caplog.text.count("is dropped from run") == 1
    assert heard.story[-1] == "RunFinished"
