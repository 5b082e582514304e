"""Runs as metrics of Prometheus."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from odibi_async import Retry, Runner, run_pipeline, step
from odibi_async.errors import OptionError
from odibi_async.events import Event
from odibi_async.observers.prometheus import Prometheus


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"odibi_async_{name}", labels)


async def test_runs_and_steps_are_counted_by_how_they_ended(registry: CollectorRegistry):
    def fails() -> None:
        raise ValueError

    steps = [step(lambda: 1, name="a"), step(lambda a: a, name="b"), fails, step(lambda fails: 1, name="skipped")]
    for _ in range(2):
        await run_pipeline(steps, observers=[Prometheus(registry)], on_error="continue")
    await run_pipeline(steps[:2], observers=[Prometheus(registry)])
    assert value(registry, "runs_total", status="failed") == 2
    assert value(registry, "runs_total", status="succeeded") == 1
    assert value(registry, "steps_total", status="succeeded") == 6
    assert value(registry, "steps_total", status="failed") == 2
    assert value(registry, "steps_total", status="skipped") == 2
    assert value(registry, "run_seconds_count") == 3
    assert value(registry, "step_seconds_count") == 8
    assert value(registry, "runs_running") == 0


async def test_durations_are_in_seconds(registry: CollectorRegistry):
    async def naps() -> None:
        await asyncio.sleep(0.06)

    await run_pipeline([naps], observers=[Prometheus(registry)])
    for name in ("run_seconds", "step_seconds"):
        assert 0.06 <= (value(registry, f"{name}_sum") or 0) < 1
        assert value(registry, f"{name}_bucket", le="0.05") == 0
        assert value(registry, f"{name}_bucket", le="+Inf") == 1


async def test_retries_and_what_the_cache_does_are_counted(registry: CollectorRegistry, tmp_path: Path):
    calls = []

    @step(retry=Retry(attempts=3, wait=0.0, jitter=False))
    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OSError
        return 1

    def clean(n: int) -> int:
        return n

    await run_pipeline([flaky], observers=[Prometheus(registry)])
    for n in (1, 1, 1, 2):
        await run_pipeline([clean], {"n": n}, observers=[Prometheus(registry)], cache=tmp_path)
    assert value(registry, "step_retries_total") == 2
    assert value(registry, "cache_hits_total") == 2
    assert value(registry, "cache_misses_total") == 2
    assert value(registry, "steps_total", status="cached") == 2


async def test_runs_that_are_going_on_are_counted_also_when_they_are_cancelled(registry: CollectorRegistry):
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with Runner(observers=[Prometheus(registry)]) as runner:
        run = await runner.start([hangs])
        await begun.wait()
        assert value(registry, "runs_running") == 1
        await run.cancel()
    assert value(registry, "runs_running") == 0
    assert value(registry, "runs_total", status="cancelled") == 1


@pytest.mark.foreign_loop
async def test_the_time_for_which_the_loop_was_held_is_counted(registry: CollectorRegistry):
    async def freezes() -> None:
        time.sleep(0.4)

    await run_pipeline([freezes], observers=[Prometheus(registry, per_step=True)])
    assert 0.2 < (value(registry, "loop_blocked_seconds_total", step="freezes") or 0) < 0.6


async def test_steps_can_be_told_apart(registry: CollectorRegistry):
    steps = [step(lambda: 1, name="a"), step(lambda a: a, name='"\n')]
    for _ in range(2):
        await run_pipeline(steps, observers=[Prometheus(registry, per_step=True)])
    for name in ("a", '"\n'):
        assert value(registry, "steps_total", step=name, status="succeeded") == 2
        assert value(registry, "step_seconds_count", step=name) == 2
    assert rb'odibi_async_steps_total{status="succeeded",step="\"\n"} 2.0' in generate_latest(registry)
    with pytest.raises(OptionError, match="per_step=False: this registry has metrics already"):
        Prometheus(registry)


async def test_a_run_whose_beginning_was_missed_does_not_count_as_going_on(registry: CollectorRegistry):
    missed: list[Event] = []
    await run_pipeline([step(lambda: 1, name="s")], observers=[missed.append])
    metrics = Prometheus(registry)
    for event in missed[1:]:
        metrics(event)
    assert value(registry, "runs_running") == 0


def test_a_registry_is_not_kept():
    registry = CollectorRegistry()
    Prometheus(registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_without_the_library_it_says_what_to_install():
    script = "import sys; sys.modules['prometheus_client'] = None; import odibi_async.observers.prometheus"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "needs a library that is not installed: pip install 'odibi_async[prometheus]'" in done.stderr


async def test_names_that_utf8_cannot_say_do_not_break_the_page_of_metrics(registry: CollectorRegistry):
    await run_pipeline([step(lambda: 1, name="a\udc80")], observers=[Prometheus(registry, per_step=True)])
    assert b'odibi_async_steps_total{status="succeeded",step="a\\\\udc80"} 1.0' in generate_latest(registry)
