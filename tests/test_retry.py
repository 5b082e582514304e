"""Retries: what is called again, how often, and how patiently."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from odibi_async import Pipeline, Retry, RunError, run_pipeline, step
from odibi_async.errors import OdibiError, OptionError
from odibi_async.events import StepFinished, StepRetrying, StepStarted
from odibi_async.retry import asked_delay
from odibi_async.run.attempts import try_again
from odibi_async.testing import Recorder

NOW = Retry(attempts=4, wait=0)


class Flaky:
    """Fails so many times, then gives how often it was called."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or OSError("flaky")
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@pytest.mark.parametrize("place", ["loop", "thread", "async"])
async def test_a_failed_step_is_called_again_until_it_succeeds(place: Any, heard: Recorder):
    flaky = Flaky(2)

    async def as_async() -> int:
        return flaky()

    a_step = step(as_async, name="s", retry=NOW) if place == "async" else step(flaky, name="s", retry=NOW, run_on=place)
    result = await run_pipeline([a_step], observers=[heard])
    assert result["s"] == 3
    assert result.steps["s"].attempts == 3
    assert [event.attempt for event in heard.of(StepRetrying)] == [1, 2]
    assert len(heard.of(StepStarted)) == len(heard.of(StepFinished)) == 1
    assert result.stats()["retries"] == 2


async def test_the_last_error_is_the_one_that_is_raised():
    flaky = Flaky(99)
    with pytest.raises(RunError) as caught:
        await run_pipeline([step(flaky, name="s", retry=NOW)])
    assert flaky.calls == 4
    assert caught.value.__cause__ is flaky.error
    assert caught.value.result.steps["s"].attempts == 4


@pytest.mark.parametrize(
    "error", [TypeError(), KeyError(), AssertionError(), FileNotFoundError(), OdibiError(), NameError()]
)
async def test_what_another_call_would_only_repeat_is_not_called_again(error: Exception):
    flaky = Flaky(1, error)
    with pytest.raises(RunError):
        await run_pipeline([step(flaky, name="s", retry=NOW)])
    assert flaky.calls == 1


async def test_the_policy_of_the_run_is_for_steps_without_one_and_never_for_publishing():
    mine, runs, published = Flaky(1), Flaky(1), Flaky(1)
    result = await run_pipeline(
        [
            step(mine, name="mine", retry=Retry(attempts=1)),
            step(runs, name="runs"),
            step(published, name="published", layer="publish"),
        ],
        retry=NOW,
        on_error="continue",
    )
    assert (mine.calls, runs.calls, published.calls) == (1, 2, 1)
    assert set(result.failures) == {"mine", "published"}


async def test_a_cancellation_is_never_retried():
    flaky = Flaky(1, asyncio.CancelledError())
    with pytest.raises(RunError):
        await run_pipeline([step(flaky, name="s", retry=Retry(on=(Exception,), wait=0))])
    assert flaky.calls == 1


async def test_three_hundred_steps_that_share_a_policy_each_get_their_own_result():
    flaky = [Flaky(1) for _ in range(300)]
    pipeline = Pipeline([step(each, name=str(i), run_on="loop") for i, each in enumerate(flaky)])
    result = await pipeline.run(retry=NOW)
    assert [result[str(i)] for i in range(300)] == [2] * 300


@pytest.mark.parametrize(
    ("policy", "error", "covered"),
    [
        (Retry(), OSError(), True),
        (Retry(), FileNotFoundError(), False),
        (Retry(), KeyError(), False),
        (Retry(on=(LookupError,)), KeyError(), True),
        (Retry(on=LookupError), KeyError(), True),
        (Retry(on=(OSError,)), FileNotFoundError(), False),
        (Retry(on=(FileNotFoundError,)), FileNotFoundError(), True),
        (Retry(on=(ValueError,)), OSError(), False),
        (Retry(on=lambda error: "busy" in str(error)), KeyError("busy"), True),
        (Retry(on=lambda error: "busy" in str(error)), KeyError("idle"), False),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(), asyncio.CancelledError(), False),
        (Retry(never=()), TypeError(), True),
    ],
)
def test_what_on_names_itself_wins_over_never(policy: Retry, error: BaseException, covered: bool):
    assert policy.covers(error) is covered


def test_a_predicate_that_raises_does_not_replace_the_steps_error():
    error = ValueError("the step's")
    covered, why = Retry(on=lambda error: 1 / 0).judge(error)  # type: ignore[arg-type, return-value]
    assert not covered
    assert why == "Retry(on=...) raised ZeroDivisionError: division by zero, so the step was not called again."


async def waits_of(policy: Retry, error: Exception, monkeypatch: Any) -> list[float]:
    waits: list[float] = []

    async def fail() -> None:
        raise error

    async def no_sleep(seconds: float) -> None: ...

    monkeypatch.setattr("odibi_async.run.attempts.asyncio.sleep", no_sleep)
    with pytest.raises(type(error)):
        await try_again(policy, error, fail, policy.covers, lambda attempt, error, wait: waits.append(wait))
    return waits


async def test_waits_double_up_to_the_longest(monkeypatch: Any):
    policy = Retry(attempts=6, wait=0.5, max_wait=3, jitter=False)
    assert await waits_of(policy, OSError(), monkeypatch) == [0.5, 1, 2, 3, 3]


async def test_jitter_draws_each_wait_between_nothing_and_all_of_it(monkeypatch: Any):
    waits = await waits_of(Retry(attempts=200, wait=1, max_wait=8), OSError(), monkeypatch)
    assert all(0 <= wait <= min(8, 2**i) for i, wait in enumerate(waits))
    assert len(set(waits)) > 150
    assert min(waits[3:]) < 2 < 6 < max(waits)


class Busy(Exception):
    def __init__(self, **about: Any) -> None:
        self.__dict__.update(about)


class Response:
    def __init__(self, header: str) -> None:
        self.headers = {"Retry-After": header}


def test_an_error_may_ask_for_its_delay():
    soon = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert asked_delay(Busy(retry_after=7)) == 7
    assert asked_delay(Busy(retry_after=timedelta(seconds=2))) == 2
    assert asked_delay(Busy(retry_after=-7)) == 0
    assert asked_delay(Busy(response=Response("12"))) == 12
    assert 25 < (asked_delay(Busy(response=Response(format_datetime(soon, usegmt=True)))) or 0) <= 30
    assert asked_delay(Busy(response=Response("whenever"))) is None
    assert asked_delay(Busy(response=None)) is None
    assert asked_delay(ValueError()) is None


async def test_the_asked_delay_is_the_wait_up_to_the_longest(monkeypatch: Any):
    policy = Retry(attempts=2, wait=1, max_wait=10)
    assert await waits_of(policy, Busy(retry_after=4), monkeypatch) == [4]
    assert await waits_of(policy, Busy(retry_after=400), monkeypatch) == [10]


async def test_an_observer_that_raises_does_not_replace_the_steps_error(caplog: Any):
    def broken(event: object) -> None:
        raise RuntimeError("a bad listener")

    flaky = Flaky(99)
    with pytest.raises(RunError) as caught:
        await run_pipeline([step(flaky, name="s", retry=NOW)], observers=[broken])
    assert caught.value.__cause__ is flaky.error


@pytest.mark.parametrize(
    "options", [{"on": ("ValueError",)}, {"on": 3}, {"never": [int]}, {"on": (KeyboardInterrupt,)}]
)
def test_what_is_no_class_of_errors_is_refused(options: dict[str, Any]):
    with pytest.raises(OptionError, match="classes of errors are needed"):
        Retry(**options)


def test_classes_may_stand_in_a_list_or_alone():
    assert Retry(on=[ValueError]).covers(ValueError())  # type: ignore[arg-type]
    assert not Retry(never=KeyError).covers(KeyError())
    assert Retry(never=KeyError).covers(TypeError())


def test_an_error_whose_attributes_misbehave_asks_for_nothing():
    class Odd(Exception):
        @property
        def retry_after(self) -> float:
            raise RuntimeError

    assert asked_delay(Odd()) is None
    assert asked_delay(Busy(response=Busy(headers=[1]))) is None
    assert asked_delay(Busy(retry_after=10**400)) is None
    assert asked_delay(Busy(retry_after=float("nan"))) is None
