"""Estimates: a simulated run takes about as long as a real one."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from odibi_async import Limits, Pipeline, run_pipeline, step
from odibi_async.errors import OptionError
from odibi_async.testing import virtual_clock


def test_independent_steps_share_the_workers():
    pipeline = Pipeline([step(lambda: 1, name=f"s{n}") for n in range(10)])
    history = {f"s{n}": 1.0 for n in range(10)}
    made = pipeline.estimate(history, workers=4)
    assert (made.seconds, made.utilisation, made.limited_by) == (3.0, 10 / 12, "workers")
    assert pipeline.estimate(history, workers=10_000).limited_by == "the longest chain"


def test_no_number_of_workers_makes_a_chain_faster():
    steps = [step(lambda: 1, name="s0"), *[step(lambda n: n, name=f"s{i}", inputs={"n": f"s{i - 1}"}) for i in (1, 2)]]
    made = Pipeline(steps).estimate({"s0": 1, "s1": 2, "s2": 3}, workers=100, sizes={"s0": 10, "s1": 20, "s2": 30})
    assert (made.seconds, made.chain, made.chain_seconds) == (6, ("s0", "s1", "s2"), 6)
    assert (made.peak_bytes, made.moved_bytes) == (50, 0)
    assert "limited by the longest chain" in str(made)


def test_readers_on_other_workers_move_what_they_read():
    steps = [step(lambda: 1, name="a"), *[step(lambda a: a, name=f"r{i}") for i in range(4)]]
    history = {"a": 1.0} | {f"r{i}": 1.0 for i in range(4)}
    assert Pipeline(steps).estimate(history, workers=4, sizes={"a": 100}).moved_bytes == 300
    assert Pipeline(steps).estimate(history, workers=1, sizes={"a": 100}).moved_bytes == 0


def test_the_longest_way_goes_first():
    steps = [step(lambda: 1, name=f"short{n}") for n in range(4)]
    steps += [step(lambda: 1, name="long"), step(lambda long: 1, name="end")]
    history = {f"short{n}": 1.0 for n in range(4)} | {"long": 2.0, "end": 2.0}
    assert Pipeline(steps).estimate(history, workers=2).seconds == 4.0


def test_what_cannot_be_estimated_is_told():
    pipeline = Pipeline([step(lambda: 1, name="a"), step(lambda: 1, name="b")])
    with pytest.raises(OptionError, match=r"no duration of b\."):
        pipeline.estimate({"a": 1.0}, workers=1)
    with pytest.raises(OptionError, match="workers=0"):
        pipeline.estimate({"a": 1.0, "b": 1.0}, workers=0)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, "12", None, [1.0, -2.0]])
def test_seconds_that_nothing_can_have_taken_are_refused(seconds: Any):
    with pytest.raises(OptionError, match="of step 'a'"):
        Pipeline([step(lambda: 1, name="a")]).estimate({"a": seconds}, workers=1)


@pytest.mark.parametrize("size", [-1, math.nan, "12"])
def test_bytes_that_nothing_can_have_are_refused(size: Any):
    with pytest.raises(OptionError, match="dataset 'a'"):
        Pipeline([step(lambda: 1, name="a")]).estimate({"a": 1.0}, workers=1, sizes={"a": size})


def test_elements_of_a_mapped_step_run_side_by_side():
    steps = [
        step(lambda: [1, 2, 3, 4], name="ns"),
        step(lambda n: n, name="m", map_over="n", inputs={"n": "ns"}),
        step(lambda m: m, name="end"),
    ]
    history = {"ns": 1.0, "m": [1.0, 2.0, 3.0, 4.0], "end": 1.0}
    sizes = {"ns": 10, "m": 100}
    one = Pipeline(steps).estimate(history, workers=1, sizes=sizes)
    assert (one.seconds, one.utilisation, one.moved_bytes) == (12.0, 1.0, 0)
    many = Pipeline(steps).estimate(history, workers=1000, sizes=sizes)
    assert (many.seconds, many.chain_seconds, many.moved_bytes) == (6.0, 6.0, 130)
    assert many.limited_by == "the longest chain"
    empty = Pipeline(steps).estimate(history | {"m": []}, workers=3)
    assert empty.seconds == 2.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 2, 3, 8, 50])
def test_the_engine_takes_as_long_as_simulated_by_a_clock_that_nothing_disturbs(workers: int, seed: int):
    chance = random.Random(seed)
    waits = {f"s{n}": chance.uniform(1, 10) for n in range(80)}

    def of(index: int) -> object:
        async def wait(**_: object) -> None:
            await asyncio.sleep(waits[f"s{index}"])

        reads = sorted({chance.randrange(index) for _ in range(chance.randrange(3))}) if index else []
        return step(wait, name=f"s{index}", inputs={f"i{read}": f"s{read}" for read in reads})

    pipeline = Pipeline([of(index) for index in range(80)])
    estimate = pipeline.estimate(waits, workers=workers)
    with virtual_clock() as clock:
        clock.run(run_pipeline(pipeline, limits=Limits(concurrency=workers)))
        assert 0.9 <= clock.time / estimate.seconds <= 1.1
