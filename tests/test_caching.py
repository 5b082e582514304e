"""The cache in a run: what is not computed again, and why what is computed again is."""

from __future__ import annotations

import asyncio
import configparser
import decimal
import functools
import inspect
import io
import locale
import logging
import operator
import os
import random
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from os import environ
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from odibi_async import (
    Cache,
    CachePolicy,
    Limits,
    Pipeline,
    Retry,
    RunError,
    Runner,
    Status,
    create_engine_context,
    load_steps,
    resource,
    run_pipeline,
    run_pipeline_sync,
    step,
)
from odibi_async.errors import GraphError, OptionError
from odibi_async.events import (
    CacheBypassed,
    CacheDamaged,
    CacheMissed,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepRetrying,
    StepStarted,
)
from odibi_async.fingerprint import Undigestible, digest_of
from odibi_async.store import Store
from odibi_async.testing import Recorder

log = logging.getLogger("tests.calls")
"""What cached functions tell of their calls: a counter that they changed would be part of their code."""
calls: Counter[str] = Counter()


class Calls(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        calls[record.getMessage()] += 1


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    calls.clear()
    handler = Calls()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield
    log.removeHandler(handler)


def frame(rows: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"a": range(rows), "b": ["x", "y", "z"] * (rows // 3)})


@step
def doubled(orders: pd.DataFrame) -> pd.DataFrame:
    log.info("doubled")
    return orders.assign(a=2 * orders["a"])


@step
def total(doubled: pd.DataFrame) -> int:
    log.info("total")
    return int(doubled["a"].sum())


def blobs(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("blobs/*/*") if path.is_file()]


def damage(directory: Path) -> None:
    """Flips a byte in the middle of each blob."""
    found = blobs(directory)
    assert found
    for path in found:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)


# -- hits ----------------------------------------------------------------------------------------------


async def test_what_was_computed_from_the_same_content_is_not_computed_again(tmp_path: Path) -> None:
    first = await run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path)
    second = await run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path)
    assert calls == {"doubled": 1, "total": 1}
    assert [record.status for record in first.steps.values()] == [Status.SUCCEEDED] * 2
    assert [record.status for record in second.steps.values()] == [Status.CACHED] * 2
    assert second.ok
    assert second["total"] == first["total"] == 6
    pd.testing.assert_frame_equal(second["doubled"], first["doubled"])
    assert second.stats()["cached"] == 2
    assert second.steps["doubled"].rows == 3
    assert second.steps["doubled"].cache is not None
    assert second.steps["doubled"].cache.hit
    assert str(first.steps["doubled"].cache) == "miss: new step"


async def test_a_hit_starts_nothing_and_loads_nothing_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path)
    loaded: list[Any] = []
    load = Cache.load
    monkeypatch.setattr(Cache, "load", lambda cache, *what: loaded.append(what) or load(cache, *what))
    heard = Recorder()
    result = await run_pipeline(
        [doubled, total], {"orders": frame()}, targets=["total"], cache=tmp_path, observers=[heard]
    )
    assert result["total"] == 6
    assert len(loaded) == 1  # the number; not the frame
    assert not heard.of(StepStarted)
    assert [event.status for event in heard.of(StepFinished)] == [Status.CACHED] * 2


async def test_a_changed_input_misses_and_says_so(tmp_path: Path) -> None:
    await run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path)
    heard = Recorder()
    result = await run_pipeline([doubled, total], {"orders": frame(6)}, cache=tmp_path, observers=[heard])
    assert calls == {"doubled": 2, "total": 2}
    assert [event.reason for event in heard.of(CacheMissed)] == [
        "the input 'orders' changed",
        "the input 'doubled' changed",
    ]
    assert str(result.steps["total"].cache) == "miss: the input 'doubled' changed"


async def test_a_step_that_reruns_to_the_same_content_invalidates_nothing(tmp_path: Path) -> None:
    @step
    def head(orders: pd.DataFrame) -> pd.DataFrame:
        log.info("head")
        return orders.head(3)

    @step
    def count(head: pd.DataFrame) -> int:
        log.info("count")
        return len(head)

    await run_pipeline([head, count], {"orders": frame(3)}, cache=tmp_path)
    result = await run_pipeline([head, count], {"orders": frame(6)}, cache=tmp_path)
    assert calls == {"head": 2, "count": 1}
    assert result.steps["count"].status == Status.CACHED


async def test_swapped_inputs_miss(tmp_path: Path) -> None:
    @step
    def difference(left: int, right: int) -> int:
        return left - right

    assert (await run_pipeline([difference], {"left": 5, "right": 3}, cache=tmp_path))["difference"] == 2
    assert (await run_pipeline([difference], {"left": 3, "right": 5}, cache=tmp_path))["difference"] == -2


async def test_the_order_of_a_mapping_counts_in_datasets_and_in_params(tmp_path: Path) -> None:
    @step(params={"names": {"a": 1, "b": 2}})
    def firsts(orders: dict[str, int], names: dict[str, int]) -> tuple[str, str]:
        return next(iter(orders)), next(iter(names))

    reordered = step(firsts, params={"names": {"b": 2, "a": 1}})
    for each, orders, expected in (
        (firsts, {"x": 1, "y": 2}, ("x", "a")),
        (reordered, {"x": 1, "y": 2}, ("x", "b")),
        (reordered, {"y": 2, "x": 1}, ("y", "b")),
    ):
        assert (await run_pipeline([each], {"orders": orders}, cache=tmp_path))["firsts"] == expected


@pytest.mark.parametrize("as_mapping", [False, True])
async def test_every_output_is_kept(tmp_path: Path, as_mapping: bool) -> None:
    @step(outputs=("small", "large"))
    def split(orders: pd.DataFrame) -> Any:
        log.info("split")
        small, large = orders[orders["a"] < 1], orders[orders["a"] >= 1]
        return {"large": large, "small": small} if as_mapping else (small, large)

    first = await run_pipeline([split], {"orders": frame()}, cache=tmp_path)
    second = await run_pipeline([split], {"orders": frame()}, cache=tmp_path)
    assert calls["split"] == 1
    for name in ("small", "large"):
        pd.testing.assert_frame_equal(second[name], first[name])


async def test_what_a_hit_gives_is_as_good_as_computed(tmp_path: Path) -> None:
    @step
    def changed(doubled: pd.DataFrame) -> pd.DataFrame:
        doubled.iloc[0, 0] = 100
        doubled["a"] += 1
        return doubled

    again = step(changed, cache=False)
    await run_pipeline([doubled, again], {"orders": frame()}, cache=tmp_path)
    result = await run_pipeline([doubled, again], {"orders": frame()}, cache=tmp_path)
    assert list(result["changed"]["a"]) == [101, 3, 5]
    assert list(result["doubled"]["a"]) == [0, 2, 4]
    result["doubled"].iloc[0, 0] = 7  # the caller may write, too
    assert digest_of(result["doubled"]) != digest_of(frame())


async def test_a_caller_who_changes_a_result_does_not_change_the_cache(tmp_path: Path) -> None:
    shared = frame()

    @step(cache=CachePolicy(version=1))
    def kept(orders: int) -> pd.DataFrame:
        return shared

    first = await run_pipeline([kept], {"orders": 1}, cache=tmp_path)
    shared.loc[0, "a"] = 99
    first["kept"].loc[1, "a"] = 99
    second = await run_pipeline([kept], {"orders": 1}, cache=tmp_path)
    assert list(second["kept"]["a"]) == [0, 1, 2]


# -- which steps ---------------------------------------------------------------------------------------


async def test_only_what_has_content_to_go_by_is_cached_unless_the_step_says_so(tmp_path: Path) -> None:
    async def fetched(orders: int) -> int:
        log.info("fetched")
        return orders

    def now() -> int:
        log.info("now")
        return 1

    def never(orders: int) -> int:
        log.info("never")
        return orders

    def published(orders: int) -> int:
        log.info("published")
        return orders

    async def asked(orders: int) -> int:
        log.info("asked")
        return orders

    def constant() -> int:
        log.info("constant")
        return 1

    steps = [
        fetched,
        now,
        step(never, cache=False),
        step(published, layer="publish", cache=True),
        step(asked, cache=True),
        step(constant, cache=CachePolicy(version=1)),
    ]
    for _ in range(2):
        result = await run_pipeline(steps, {"orders": 1}, cache=tmp_path)
    assert calls == {"fetched": 2, "now": 2, "never": 2, "published": 2, "asked": 1, "constant": 1}
    assert result.steps["fetched"].cache is None


async def test_a_step_s_policy_does_nothing_in_a_run_without_a_cache() -> None:
    for _ in range(2):
        result = await run_pipeline([step(doubled, cache=True)], {"orders": frame()})
    assert calls["doubled"] == 2
    assert result.steps["doubled"].cache is None


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_miss_is_told_of_as_any_step(tmp_path: Path, is_async: bool) -> None:
    async def fetched_here(orders: int) -> int:
        return orders

    def fetched_there(orders: int) -> int:
        return orders

    heard = Recorder()
    fetched = step(fetched_here if is_async else fetched_there, name="fetched", cache=True)
    result = await run_pipeline([fetched], {"orders": 1}, cache=tmp_path, observers=[heard])
    assert heard.story == ["RunStarted", "CacheMissed fetched", "StepStarted fetched", "StepFinished fetched"] + [
        "RunFinished"
    ]
    record = result.steps["fetched"]
    assert record.at is not None
    assert record.at >= result.started_at.timestamp()
    assert 0 <= record.run_seconds <= result.seconds
    assert 0 <= record.queue_seconds <= result.seconds


async def test_errors_are_never_cached(tmp_path: Path) -> None:
    @step(cache=CachePolicy(version=1))
    def fragile(orders: int) -> int:
        log.info("fragile")
        if calls["fragile"] == 1:
            raise ValueError("no")
        return orders

    with pytest.raises(RunError):
        await run_pipeline([fragile], {"orders": 1}, cache=tmp_path)
    assert (await run_pipeline([fragile], {"orders": 1}, cache=tmp_path))["fragile"] == 1


async def test_retries_and_time_limits_are_those_of_the_step(tmp_path: Path) -> None:
    @step(retry=Retry(attempts=3, wait=0), timeout=5, cache=CachePolicy(version=1))
    def fragile(orders: int) -> int:
        log.info("fragile")
        if calls["fragile"] < 3:
            raise ValueError("no")
        return orders

    first = await run_pipeline([fragile], {"orders": 1}, cache=tmp_path)
    assert first.steps["fragile"].attempts == 3
    second = await run_pipeline([fragile], {"orders": 1}, cache=tmp_path)
    assert second.steps["fragile"].attempts == 0
    assert calls["fragile"] == 3


async def test_a_false_predicate_skips_a_cached_step_as_any_other(tmp_path: Path) -> None:
    chosen = step(doubled, when=lambda wanted: wanted)
    for wanted in (True, False, True):
        result = await run_pipeline([chosen], {"orders": frame(), "wanted": wanted}, cache=tmp_path)
        assert ("doubled" in result) is wanted
    assert calls["doubled"] == 1


# -- policies ------------------------------------------------------------------------------------------


async def test_what_is_older_than_the_policy_allows_is_computed_again(tmp_path: Path) -> None:
    brief = step(doubled, cache=CachePolicy(ttl=0.05))
    await run_pipeline([brief], {"orders": frame()}, cache=tmp_path)
    await asyncio.sleep(0.06)
    result = await run_pipeline([brief], {"orders": frame()}, cache=tmp_path)
    assert calls["doubled"] == 2
    assert "expired" in str(result.steps["doubled"].cache)


async def test_a_version_stands_for_the_code(tmp_path: Path) -> None:
    for offset, version in ((1, "a"), (2, "a"), (3, "b")):
        fn = eval(f"lambda orders: orders + {offset}")
        added = step(fn, name="added", cache=CachePolicy(version=version))
        result = await run_pipeline([added], {"orders": 0}, cache=tmp_path)
    assert result["added"] == 3
    assert str(result.steps["added"].cache) == "miss: the version changed"


async def test_ignored_parameters_make_no_difference(tmp_path: Path) -> None:
    class Client:
        pass

    @step(cache=CachePolicy(ignore="client"))
    def fetched(orders: int, client: Any) -> int:
        log.info("fetched")
        return orders

    for _ in range(2):
        await run_pipeline([fetched], {"orders": 1, "client": Client()}, cache=tmp_path)
    assert calls["fetched"] == 1


async def test_steps_of_one_version_are_told_apart(tmp_path: Path) -> None:
    versioned = CachePolicy(version=1)
    plus_one = step(lambda number: number + 1, name="plus_one", cache=versioned)
    plus_two = step(lambda number: number + 2, name="plus_two", cache=versioned)
    result = await run_pipeline([plus_one, plus_two], {"number": 1}, cache=tmp_path)
    assert (result["plus_one"], result["plus_two"]) == (2, 3)


def test_ignoring_what_a_step_has_not_is_a_mistake() -> None:
    with pytest.raises(GraphError, match=r"no parameter 'ordres', which its cache= ignores. Did you mean 'orders'"):
        Pipeline([step(doubled, cache=CachePolicy(ignore=("ordres",)))], inputs=["orders"])


def test_policies_are_checked() -> None:
    with pytest.raises(OptionError, match="seconds above 0"):
        CachePolicy(ttl=0)
    with pytest.raises(OptionError, match="CachePolicy"):
        step(doubled, cache="yes")  # type: ignore[call-overload]


async def test_a_cache_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="a directory or a Cache"):
        await run_pipeline([doubled], {"orders": frame()}, cache=5)  # type: ignore[arg-type]


# -- why -----------------------------------------------------------------------------------------------


async def test_each_miss_says_why(tmp_path: Path) -> None:
    async def why(fn: Any, **params: int) -> str:
        scaled = step(fn, name="scaled", cache=True, params=params)
        return str((await run_pipeline([scaled], {"orders": 1}, cache=tmp_path)).steps["scaled"].cache)

    def scaled(orders: int, factor: int) -> int:
        return orders * factor

    def scaled_otherwise(orders: int, factor: int) -> int:
        return orders * factor + 1

    assert await why(scaled, factor=2) == "miss: new step"
    assert await why(scaled, factor=2) == "hit"
    assert await why(scaled, factor=3) == "miss: the param 'factor' changed"
    assert "the code of scaled_otherwise" in await why(scaled_otherwise, factor=3)


async def test_what_has_no_content_makes_its_step_uncacheable_with_an_event_that_says_what(tmp_path: Path) -> None:
    heard = Recorder()
    lock = object()

    @step
    def locked(orders: int, lock: object) -> int:
        log.info("locked")
        return orders

    for _ in range(2):
        result = await run_pipeline([locked], {"orders": 1, "lock": lock}, cache=tmp_path, observers=[heard])
    assert calls["locked"] == 2
    assert len(heard.of(CacheBypassed)) == 2
    assert "the input 'lock'" in heard.of(CacheBypassed)[0].reason
    assert "the input 'lock'" in str(result.steps["locked"].cache)


async def test_what_cannot_be_kept_exactly_is_not_kept_with_an_event(tmp_path: Path) -> None:
    @step
    def odd(orders: int) -> pd.DataFrame:
        log.info("odd")
        return pd.DataFrame({"a": [1, object()]})

    heard = Recorder()
    for _ in range(2):
        result = await run_pipeline([odd], {"orders": 1}, cache=tmp_path, observers=[heard])
    assert calls["odd"] == 2
    assert result["odd"]["a"][0] == 1
    assert len(heard.of(CacheBypassed)) == 2
    assert result.ok


async def test_a_step_that_changes_what_it_was_given_is_not_cached(tmp_path: Path) -> None:
    @step
    def spoiled(orders: list[list[int]]) -> int:
        log.info("spoiled")
        orders[0].append(1)
        return len(orders[0])

    heard = Recorder()
    for _ in range(2):
        await run_pipeline([spoiled], {"orders": [[]]}, cache=tmp_path, observers=[heard])
    assert calls["spoiled"] == 2
    assert [event.reason for event in heard.of(CacheBypassed)] == [
        "not kept: the input 'orders' changed while the step ran."
    ] * 2


async def test_a_value_that_another_step_changes_is_told_apart(tmp_path: Path) -> None:
    def filled(orders: list[list[int]]) -> int:
        orders[0].append(1)
        return 1

    def count(orders: list[list[int]]) -> int:
        return len(orders[0])

    steps = [step(count, name="before"), step(filled, cache=False, after="before")]
    steps.append(step(count, name="behind", after="filled"))
    for _ in range(2):
        result = await run_pipeline(steps, {"orders": [[]]}, cache=tmp_path)
        assert (result["before"], result["behind"]) == (0, 1)


async def test_what_was_read_from_the_store_and_then_changed_is_told_apart(tmp_path: Path) -> None:
    def made(number: int) -> list[list[int]]:
        return [[number]]

    def filled(made: list[list[int]]) -> int:
        made[0].append(1)
        return 1

    def count(made: list[list[int]]) -> int:
        return len(made[0])

    given, one_at_a_time = {"number": 1}, Limits(concurrency=1)
    await run_pipeline([made], given, cache=tmp_path)
    await run_pipeline([made, step(filled, cache=False), count], given, cache=tmp_path, limits=one_at_a_time)
    result = await run_pipeline([made, count], given, cache=tmp_path)
    assert result["count"] == 1


async def test_what_a_step_changes_of_its_own_function_is_not_kept(tmp_path: Path) -> None:
    class Counter:
        called = 0

        def __call__(self, orders: int) -> int:
            self.called += 1
            return orders + self.called

    counter, heard = Counter(), Recorder()
    steps = [step(counter, name="first"), step(counter, name="second", after="first")]
    result = await run_pipeline(steps, {"orders": 10}, cache=tmp_path, observers=[heard])
    assert (result["first"], result["second"]) == (11, 12)
    reason = "not kept: how Counter.__call__ is called changed while the step ran."
    assert [event.reason for event in heard.of(CacheBypassed)] == [reason] * 2


async def test_a_file_that_is_written_while_a_step_reads_it_is_found_out(tmp_path: Path) -> None:
    file, heard = tmp_path / "orders.txt", Recorder()

    def read(path: Path) -> str:
        path.write_text("after")
        return path.read_text()

    await asyncio.to_thread(file.write_text, "before")
    await run_pipeline([step(read, cache=True)], {"path": file}, cache=tmp_path / "cache", observers=[heard])
    assert [event.reason for event in heard.of(CacheBypassed)] == [
        "not kept: the input 'path' changed while the step ran."
    ]


async def test_a_step_that_writes_a_file_and_returns_its_path_runs_each_time(tmp_path: Path) -> None:
    def written(text: str) -> Path:
        (tmp_path / "file.txt").write_text(text)
        return tmp_path / "file.txt"

    for text in ("one", "two", "one"):
        result = await run_pipeline([written], {"text": text}, cache=tmp_path / "cache")
        assert await asyncio.to_thread(result["written"].read_text) == text


async def test_an_output_that_its_maker_changes_while_it_is_kept_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [1]
    keep = Store.keep

    def changing(store: Store, value: Any, digest: str) -> Any:
        shared.append(2)
        return keep(store, value, digest)

    @step(cache=CachePolicy(version=1))
    def made() -> list[list[int]]:
        return [shared]

    monkeypatch.setattr(Store, "keep", changing)
    heard = Recorder()
    await run_pipeline([made], cache=tmp_path, observers=[heard])
    assert [event.reason for event in heard.of(CacheBypassed)] == [
        "not kept: the output 'made' changed while it was kept."
    ]


# -- mapped steps --------------------------------------------------------------------------------------


@step(map_over="page", inputs={"page": "pages"}, cache=True)
async def fetched(page: str) -> pd.DataFrame:
    log.info("fetched %s", page)
    return pd.DataFrame({"page": [page]})


@step(map_over="page", inputs={"page": "fetched"})
def measured(page: pd.DataFrame) -> int:
    log.info("measured %s", page["page"].iloc[0])
    return len(page)


@step
def joined(fetched: list[pd.DataFrame]) -> pd.DataFrame:
    log.info("joined")
    return pd.concat(fetched)


async def test_each_element_of_a_mapped_step_has_its_own_entry(tmp_path: Path) -> None:
    steps = [fetched, measured, joined]
    first = await run_pipeline(steps, {"pages": ["a", "b"]}, cache=tmp_path)
    second = await run_pipeline(steps, {"pages": ["a", "b"]}, cache=tmp_path)
    assert all(record.status == Status.CACHED for record in second.steps.values())
    third = await run_pipeline(steps, {"pages": ["b", "c", "a"]}, cache=tmp_path)
    assert calls == {
        **{f"{name} {page}": 1 for name in ("fetched", "measured") for page in "abc"},
        "joined": 2,
    }
    for result in (first, second):
        assert [frame["page"].iloc[0] for frame in result["fetched"]] == ["a", "b"]
        assert list(result["joined"]["page"]) == ["a", "b"]
        assert result["measured"] == [1, 1]
    assert list(third["joined"]["page"]) == ["b", "c", "a"]
    assert "1 of 3 elements, such as 1" in str(third.steps["fetched"].cache)


@pytest.mark.parametrize(("one", "other"), [({"a": 1}, {"a": 2}), ([1], (1,)), (frame(3), frame(6))])
async def test_what_is_given_in_place_of_a_mapped_step_goes_by_its_content(
    tmp_path: Path, one: Any, other: Any
) -> None:
    def described(fetched: Any) -> str:
        return repr(fetched)

    for value in (one, other):
        given = {"pages": ["a"], "fetched": value}
        result = await run_pipeline([fetched, described], given, cache=tmp_path)
        assert result["described"] == repr(value)


async def test_a_mapped_step_of_nothing_is_nothing(tmp_path: Path) -> None:
    result = await run_pipeline([fetched, measured], {"pages": []}, cache=tmp_path)
    assert result["measured"] == []


# -- damage --------------------------------------------------------------------------------------------


async def test_what_is_found_damaged_on_loading_is_made_at_that_moment(tmp_path: Path) -> None:
    def large(orders: pd.DataFrame) -> pd.DataFrame:
        log.info("large")
        return pd.concat([orders] * 10_000, ignore_index=True)

    def sum_of(large: pd.DataFrame) -> int:
        log.info("sum_of")
        return int(large["a"].sum())

    steps = [large, step(sum_of, cache=False)]
    given = {"orders": frame()}
    await run_pipeline(steps, given, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    heard = Recorder()
    result = await run_pipeline(steps, given, targets=["sum_of"], cache=tmp_path, observers=[heard])
    assert result["sum_of"] == 30_000
    assert calls == {"large": 2, "sum_of": 2}
    assert [event.step for event in heard.of(CacheDamaged)] == ["large"]
    await run_pipeline(steps, given, cache=tmp_path)
    assert calls["large"] == 2  # what was made anew is sound again


async def test_outputs_that_are_damaged_are_made_together(tmp_path: Path) -> None:
    @step(outputs=("train", "test"))
    def split(orders: int) -> tuple[list[int], list[int]]:
        log.info("split")
        at = calls["split"] * 1_000
        return list(range(at)), list(range(at, 10_000))

    await run_pipeline([split], {"orders": 1}, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    result = await run_pipeline([split], {"orders": 1}, cache=tmp_path)
    assert result["train"] + result["test"] == list(range(10_000))
    assert calls["split"] == 2


async def test_what_is_made_again_of_something_else_is_not_kept(tmp_path: Path) -> None:
    def counted_up(orders: list[list[int]]) -> list[int]:
        return [*range(2_000), len(orders[0])]

    def filled(orders: list[list[int]]) -> int:
        orders[0].append(1)
        return 1

    await run_pipeline([counted_up], {"orders": [[]]}, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    steps = [counted_up, step(filled, cache=False, after="counted_up")]
    await run_pipeline(steps, {"orders": [[]]}, cache=tmp_path)
    result = await run_pipeline([counted_up], {"orders": [[]]}, cache=tmp_path)
    assert result["counted_up"][-1] == 0


async def test_damage_is_told_of_the_step_of_this_run(tmp_path: Path) -> None:
    def numbers(orders: int) -> list[int]:
        return list(range(2_000))

    await run_pipeline([step(numbers, name="ours")], {"orders": 1}, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    heard = Recorder()
    await run_pipeline([step(numbers, name="theirs")], {"orders": 1}, cache=tmp_path, observers=[heard])
    assert [event.step for event in heard.of(CacheDamaged)] == ["theirs"]


async def test_a_chain_that_is_damaged_all_along_is_made_from_its_beginning(tmp_path: Path) -> None:
    length = 200

    def grown(before: pd.DataFrame) -> pd.DataFrame:
        log.info("grown")
        return before + 1

    steps = [step(grown, name=f"s{i}", inputs={"before": f"s{i - 1}" if i else "orders"}) for i in range(length)]
    given = {"orders": pd.DataFrame({"a": range(10_000)})}
    await run_pipeline(steps, given, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    result = await run_pipeline(steps, given, targets=[f"s{length - 1}"], cache=tmp_path)
    assert result[f"s{length - 1}"]["a"].iloc[0] == length
    assert calls["grown"] == 2 * length


async def test_an_input_that_was_dropped_is_got_back_for_a_step_that_must_run_after_all(tmp_path: Path) -> None:
    async def source(n: int) -> pd.DataFrame:  # a coroutine: not cached
        log.info("source")
        return pd.DataFrame({"a": range(n)})

    def grown(source: pd.DataFrame) -> pd.DataFrame:
        return source + 1

    def same(grown: pd.DataFrame) -> pd.DataFrame:
        return grown

    @step(cache=False, after="same")
    def last(same: pd.DataFrame) -> int:
        return int(same["a"].sum())

    steps = [source, grown, same, last]
    expected = (await run_pipeline(steps, {"n": 10_000}, cache=tmp_path))["last"]
    await asyncio.to_thread(damage, tmp_path)
    result = await run_pipeline(steps, {"n": 10_000}, targets=["last"], cache=tmp_path)
    assert result["last"] == expected
    assert calls["source"] == 3


async def test_a_step_that_cannot_make_again_what_is_damaged_has_failed(tmp_path: Path) -> None:
    @step(cache=CachePolicy(version=1))
    def once(orders: pd.DataFrame) -> pd.DataFrame:
        log.info("once")
        if calls["once"] > 1:
            raise ValueError("only once")
        return pd.concat([orders] * 10_000, ignore_index=True)

    await run_pipeline([once], {"orders": frame()}, cache=tmp_path)
    await asyncio.to_thread(damage, tmp_path)
    with pytest.raises(RunError, match="only once") as caught:
        await run_pipeline([once], {"orders": frame()}, cache=tmp_path)
    assert caught.value.result.steps["once"].status == Status.FAILED  # type: ignore[attr-defined]


async def test_a_cached_reader_of_a_resource_is_verified_while_the_resource_is_open(tmp_path: Path) -> None:
    opened: list[str] = []

    @resource
    async def connection() -> Any:
        opened.append("open")
        yield opened
        opened.append("closed")

    @step(cache=CachePolicy(ignore=("connection",)))
    def rows(connection: list[str]) -> pd.DataFrame:
        assert connection[-1] == "open"
        log.info("rows")
        return pd.DataFrame({"a": range(10_000)})

    await run_pipeline([connection, rows], cache=tmp_path)
    hit = await run_pipeline([connection, rows], cache=tmp_path)
    assert hit.steps["rows"].status == Status.CACHED
    await asyncio.to_thread(damage, tmp_path)
    heard = Recorder()
    result = await run_pipeline([connection, rows], cache=tmp_path, observers=[heard])
    assert len(result["rows"]) == 10_000
    assert calls["rows"] == 2
    assert len(heard.of(CacheDamaged)) == 1


async def test_a_disk_that_is_full_costs_the_cache_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "keep", full)
    heard = Recorder()
    result = await run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path, observers=[heard])
    assert result["total"] == 6
    assert ["No space left" in event.reason for event in heard.of(CacheBypassed)] == [True, True]


# -- several at once -----------------------------------------------------------------------------------


async def test_equal_runs_at_once_compute_once(tmp_path: Path) -> None:
    results = await asyncio.gather(
        *[run_pipeline([doubled, total], {"orders": frame()}, cache=tmp_path) for _ in range(50)]
    )
    assert {result["total"] for result in results} == {6}
    assert calls == {"doubled": 1, "total": 1}


async def test_when_the_run_that_computes_is_cancelled_the_next_one_does(tmp_path: Path) -> None:
    began = asyncio.Event()

    @step(cache=CachePolicy(version=1))
    async def slow(orders: int) -> int:
        log.info("slow")
        began.set()
        if calls["slow"] == 1:
            await asyncio.sleep(60)
        return orders

    async with Runner(cache=tmp_path) as runner:
        leader = await runner.start([slow], {"orders": 1})
        await began.wait()
        others = [await runner.start([slow], {"orders": 1}) for _ in range(5)]
        await leader.cancel()
        results = [await other.result() for other in others]
    assert [result["slow"] for result in results] == [1] * 5
    assert calls["slow"] == 2


async def test_a_run_inside_a_step_waits_for_no_run_that_waits_for_the_step_s_slot(tmp_path: Path) -> None:
    began, queued = asyncio.Event(), asyncio.Event()

    @step
    async def outer() -> int:
        began.set()
        await queued.wait()
        result = await run_pipeline([doubled], {"orders": frame()}, cache=tmp_path, limits=Limits())
        return len(result["doubled"])

    def note(event: Event) -> None:
        if isinstance(event, CacheMissed):
            queued.set()

    async with Runner(limits=Limits(concurrency=1), cache=tmp_path) as runner:
        holding = await runner.start([outer])
        await began.wait()
        waiting = await runner.start([doubled], {"orders": frame()}, observers=[note])
        async with asyncio.timeout(10):
            assert (await holding.result())["outer"] == 3
            await waiting.result()


async def test_a_run_inside_a_cached_step_may_ask_for_the_same_key(tmp_path: Path) -> None:
    @step(cache=CachePolicy(ignore=("depth",)))
    def nested(orders: int, depth: int) -> int:
        if not depth:
            return orders
        inner: int = run_pipeline_sync([nested], {"orders": orders, "depth": depth - 1}, cache=tmp_path)["nested"]
        return inner

    async with asyncio.timeout(10):
        assert (await run_pipeline([nested], {"orders": 1, "depth": 2}, cache=tmp_path))["nested"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="lists open files by /proc")
async def test_few_files_are_open_however_many_wait(tmp_path: Path) -> None:
    most = 0

    def count() -> int:
        files = Path("/proc/self/fd")
        return sum(os.path.realpath(file).startswith(str(tmp_path)) for file in files.iterdir())

    @step(map_over="page", inputs={"page": "pages"})
    def numbered(page: int) -> int:
        log.info("numbered")
        return page

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(count))

    watching = asyncio.create_task(watch())
    await run_pipeline([numbered], {"pages": list(range(500))}, cache=tmp_path, limits=Limits(threads=1))
    await asyncio.gather(*[run_pipeline([total], {"doubled": frame()}, cache=tmp_path) for _ in range(300)])
    watching.cancel()
    assert 0 < most < 200
    assert await asyncio.to_thread(count) == 0


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_cancelling_a_run_however_often_leaves_no_lock_and_no_lease(
    tmp_path: Path, times: int, turns: int
) -> None:
    began = asyncio.Event()

    @step(cache=True)
    async def stuck() -> None:
        began.set()
        await asyncio.sleep(60)

    running = asyncio.create_task(run_pipeline([stuck], cache=tmp_path), name="run")
    await began.wait()
    for _ in range(times):
        for task in asyncio.all_tasks():
            if task.get_name() in ("run", "stuck", "odibi_async closing"):
                task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(lambda: list(tmp_path.rglob("*.lock"))) == []


async def test_a_cancelled_step_is_not_called_also_when_it_turns_out_that_it_cannot_be_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, asked, cancelled = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def undigestible(fn: object) -> dict[str, str]:
        loop.call_soon_threadsafe(asked.set)
        cancelled.wait(10)
        raise Undigestible("it", "has no content")

    monkeypatch.setattr("odibi_async.cache.questions.examined", undigestible)
    async with Runner(cache=tmp_path) as runner:
        run = await runner.start([doubled], {"orders": frame()})
        await asked.wait()
        cancelling = asyncio.create_task(run.cancel())
        await asyncio.sleep(0)
        cancelled.set()
        await cancelling
    assert calls["doubled"] == 0


async def test_a_run_that_is_cancelled_at_once_begins_before_it_ends(tmp_path: Path) -> None:
    async with Runner(cache=tmp_path) as runner:
        run = await runner.start([doubled, total], {"orders": frame()})
        await asyncio.sleep(0)
        await run.cancel()
        kinds = [type(event) async for event in run.events()]
    assert kinds == [RunStarted, StepFinished, StepFinished, RunFinished]


async def test_a_hit_takes_no_slot(tmp_path: Path) -> None:
    await run_pipeline([doubled], {"orders": frame()}, cache=tmp_path)
    release = asyncio.Event()

    @step(pool="db")
    async def holds() -> None:
        await release.wait()

    async with Runner(limits=Limits(pools={"db": 1}), cache=tmp_path) as runner:
        holding = await runner.start([holds])
        result = await runner.run([step(doubled, pool="db")], {"orders": frame()})
        assert result.steps["doubled"].status == Status.CACHED
        release.set()
        await holding.result()


async def test_one_slot_is_enough_also_where_something_is_damaged(tmp_path: Path) -> None:
    limits = Limits(concurrency=1, threads=1)
    steps = [doubled, step(total, cache=False)]
    given = {"orders": frame(9_000)}
    await run_pipeline(steps, given, cache=tmp_path, limits=limits)
    await asyncio.to_thread(damage, tmp_path)
    result = await run_pipeline(steps, given, targets=["total"], cache=tmp_path, limits=limits)
    assert calls["doubled"] == 2
    assert result.ok


# -- the runner's cache, and none ----------------------------------------------------------------------


async def test_the_runner_s_cache_serves_runs_that_name_none(tmp_path: Path) -> None:
    async with Runner(cache=tmp_path) as runner:
        await runner.run([doubled], {"orders": frame()})
        await runner.run([doubled], {"orders": frame()})
        assert calls["doubled"] == 1
        await runner.run([doubled], {"orders": frame()}, cache=False)
        assert calls["doubled"] == 2
        await runner.run([doubled], {"orders": frame()}, cache=tmp_path / "other")
        assert calls["doubled"] == 3


async def test_a_cache_of_one_s_own_can_be_asked_about_its_runs(tmp_path: Path) -> None:
    cache = await asyncio.to_thread(Cache, tmp_path)
    for _ in range(2):
        await run_pipeline([doubled, total], {"orders": frame()}, cache=cache)
    stats = await asyncio.to_thread(cache.stats)
    assert (stats["entries"], stats["hits"], stats["misses"], stats["hit_rate"]) == (2, 2, 2, 0.5)
    assert await asyncio.to_thread(cache.invalidate, step="total") == 1
    await run_pipeline([doubled, total], {"orders": frame()}, cache=cache)
    assert calls == {"doubled": 1, "total": 2}
    await asyncio.to_thread(cache.close)


async def test_cancelling_while_outputs_are_loaded_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_pipeline([doubled], {"orders": frame()}, cache=tmp_path)
    loop, began = asyncio.get_running_loop(), asyncio.Event()
    load = Cache.load

    def slow(cache: Cache, *what: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        return load(cache, *what)

    monkeypatch.setattr(Cache, "load", slow)
    task = asyncio.create_task(run_pipeline([doubled], {"orders": frame()}, cache=tmp_path))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- configured pipelines ------------------------------------------------------------------------------


def configured(folder: Path, query: str = "SELECT a, count(*) AS n FROM data GROUP BY a ORDER BY a") -> list[Any]:
    return [
        {"name": "orders", "layer": "ingest", "value": str(folder / "orders.csv")},
        {"name": "totals", "type": "sql", "inputs": {"data": "orders"}, "value": query},
        {"name": "save", "layer": "store", "value": str(folder / "totals.parquet"), "inputs": {"data": "totals"}},
    ]


async def run_configured(folder: Path, **options: Any) -> Any:
    steps = await asyncio.to_thread(load_steps, configured(folder, **options))
    return await run_pipeline(steps, cache=folder / "cache")


def statuses(result: Any) -> list[str]:
    return [str(record.status) for record in result.steps.values()]


async def test_configured_steps_are_known_by_files_queries_and_params(tmp_path: Path) -> None:
    data = tmp_path / "orders.csv"

    def rewrite() -> None:
        before = data.stat()
        data.write_text("a\n1\n3\n")
        os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size, the same time

    await asyncio.to_thread(data.write_text, "a\n1\n2\n")
    assert statuses(await run_configured(tmp_path)) == ["succeeded"] * 3
    assert statuses(await run_configured(tmp_path)) == ["cached", "cached", "succeeded"]
    await asyncio.to_thread(rewrite)
    changed = await run_configured(tmp_path)
    assert statuses(changed) == ["succeeded"] * 3
    assert list(changed["totals"]["a"]) == [1, 3]
    assert str(changed.steps["orders"].cache) == "miss: the file 'orders.csv' changed"
    await asyncio.to_thread(os.utime, data)
    assert statuses(await run_configured(tmp_path)) == ["cached", "cached", "succeeded"]
    other = await run_configured(tmp_path, query="SELECT a, count(*) AS m FROM data GROUP BY a ORDER BY a")
    assert statuses(other) == ["cached", "succeeded", "succeeded"]
    assert str(other.steps["totals"].cache) == "miss: the query changed"


async def test_a_file_that_is_not_there_yet_is_read_in_a_later_attempt(tmp_path: Path) -> None:
    failed = asyncio.Event()
    [missing] = await asyncio.to_thread(load_steps, configured(tmp_path)[:1])
    missing = replace(missing, retry=Retry(attempts=100, wait=0.01, max_wait=0.1, on=(FileNotFoundError, ValueError)))

    def note(event: Event) -> None:
        if isinstance(event, StepRetrying):
            failed.set()

    running = asyncio.create_task(run_pipeline([missing], cache=tmp_path / "cache", observers=[note]))
    await failed.wait()
    await asyncio.to_thread((tmp_path / "orders.csv").write_text, "a\n1\n")
    assert len((await running)["orders"]) == 1


async def test_what_is_read_through_a_connection_is_read_each_time(tmp_path: Path) -> None:
    steps = [
        {"name": "files", "layer": "connect", "value": str(tmp_path)},
        {"name": "orders", "layer": "ingest", "value": "orders.csv", "params": {"connection": "files"}},
    ]
    for number in (1, 2):
        await asyncio.to_thread((tmp_path / "orders.csv").write_text, f"a\n{number}\n")
        loaded = await asyncio.to_thread(load_steps, steps)
        result = await run_pipeline(loaded, cache=tmp_path / "cache")
        assert list(result["orders"]["a"]) == [number]


@pytest.mark.parametrize("query", ["SELECT now() AS t FROM data", "SELECT *, current_date FROM data"])
async def test_a_query_that_asks_for_the_time_is_not_cached(tmp_path: Path, query: str) -> None:
    await asyncio.to_thread((tmp_path / "orders.csv").write_text, "a\n1\n")
    for _ in range(2):
        result = await run_configured(tmp_path, query=query)
    assert result.steps["totals"].status == Status.SUCCEEDED


@pytest.mark.parametrize(
    ("query", "doubt"),
    [
        ("SELECT a, b AS updated_now, user FROM data", ""),
        ("SELECT date_trunc('day', ts), year(ts), strftime(ts, '%Y'), ts::TIMESTAMPTZ FROM data", ""),
        ("SELECT count(*), sum(a) OVER (ORDER BY b) FROM data, range(3)", ""),
        ("SELECT age(a, b), 'now()', \"random\" FROM data -- random()", ""),
        ("SELECT age(a) FROM data", "age() from today"),
        ('SELECT "random"() FROM data', "random()"),
        ("SELECT random /* by */ -- chance\n () FROM data", "random()"),
        ("SELECT list_transform([1], lambda x: (SELECT uuid())) FROM data", "uuid()"),
        ("SELECT current_date FROM data", "current_date"),
        ("SELECT now() FROM data", "now()"),
        ("SELECT getvariable('a'), current_setting('TimeZone')", "getvariable()"),
        ("SELECT * FROM data USING/**/SAMPLE 10%", "a sample"),
        ("SELECT * FROM data TABLESAMPLE 3 ROWS", "a sample"),
        ("SELECT * FROM duckdb_settings()", "duckdb_settings()"),
        ("SELECT * FROM duckdb_tables", "the table duckdb_tables, which is none of its inputs"),
        ("FROM information_schema.tables", "the table tables, which is none of its inputs"),
        ("SELEC 1", "something that cannot be told"),
    ],
)
def test_duckdb_is_asked_what_changes_by_itself(query: str, doubt: str) -> None:
    from odibi_async.engines.queries import changes_by_itself

    assert changes_by_itself(query) == doubt


def test_every_function_that_duckdb_calls_changeable_is_known() -> None:
    import duckdb

    from odibi_async.engines.queries import changes_by_itself

    rows = duckdb.sql("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'").fetchall()
    assert {"random", "uuid"} <= {name for (name,) in rows}
    assert [name for (name,) in rows if not changes_by_itself(f'SELECT "{name}"()')] == []


def _reads_by_pandas(path: str) -> pd.DataFrame:
    return pd.read_csv(path)


def _by_a_helper(path: str) -> pd.DataFrame:
    return _reads_by_pandas(path)


def _by_an_import(path: str) -> str:
    from urllib.request import urlopen

    return str(urlopen(path))


def _by_another_name(path: str) -> Any:
    lib = pd
    return lib.read_excel(path)


def _of_a_module_that_is_passed_on(path: str) -> Any:
    def timed(clock: Any) -> Any:
        return clock.monotonic()

    return path, timed(time)


def _with_a_default(path: str, now: Any = time.time) -> Any:
    return path, now()


def _with_a_module_as_default(path: str, lib: Any = time) -> Any:
    return path, lib.time()


@dataclass
class Stamped:
    path: str
    at: datetime = field(default_factory=datetime.now)


class Stamping:
    clock = staticmethod(time.time)

    def __call__(self, path: str) -> Any:
        return path, self.clock()


@dataclass(frozen=True, slots=True, order=True)
class Money:
    amount: float
    source: random.Random | None = None

    def rounded(self) -> Money:
        return Money(round(self.amount, 2))


CHANCES = {"a": [uuid.uuid4]}
NOW = datetime.now
WRITTEN = operator.methodcaller("read_text")


READERS: list[tuple[Any, str]] = [
    (_reads_by_pandas, "reads files (pandas.read_csv)"),
    (_by_a_helper, "reads files (pandas.read_csv)"),
    (_by_an_import, "reads the network (urllib.request.urlopen)"),
    (lambda path: open(path).read(), "reads files (open)"),  # noqa: SIM115
    (lambda path: Path(path).read_text(), "reads files (.read_text)"),
    (lambda path: os.path.getsize(path), "reads files (posixpath.getsize)"),
    (lambda path: (path, time.time()), "reads the clock (time.time)"),
    (lambda path: (path, pd.Timestamp.now()), "reads the clock (pandas.Timestamp.now)"),
    (lambda path: (path, os.environ["HOME"]), "reads the environment (os.environ)"),
    (lambda path: (path, os.getenv("HOME")), "reads the environment (os.getenv)"),
    (lambda path: (path, subprocess.run(["true"], check=True)), "reads another program (subprocess.run)"),
    (lambda path: path.sample(1), "reads chance (.sample)"),
    (lambda path: path.query("a > @LIMIT"), "reads names in a text (.query)"),
    (lambda path: pd.eval(path), "reads names in a text (pandas.eval)"),
    (lambda path: (path, pd.Timestamp("now")), "reads the clock (pandas.Timestamp of a text)"),
    (lambda path: (path, pd.to_datetime("today")), "reads the clock (pandas.to_datetime of a text)"),
    (lambda path: (path, np.datetime64("now")), "reads the clock (numpy.datetime64 of a text)"),
    (lambda path: Path(path).exists(), "reads files (.exists)"),
    (lambda path: (path, Path.cwd()), "reads the environment (pathlib.Path.cwd)"),
    (lambda path: Path(path).open().read(), "reads files (.open)"),  # noqa: SIM115
    (lambda path: hash(path), "reads what differs between processes (hash)"),
    (lambda path: configparser.ConfigParser().read(path), "reads files (configparser.ConfigParser)"),
    (lambda path: ElementTree.parse(path), "reads files (xml.etree.ElementTree.parse)"),
    (lambda path: pd.DataFrame({"a": [1]}).to_parquet(path), "writes files (.to_parquet)"),
    (lambda path: Path(path).write_text("a"), "writes files (.write_text)"),
    (lambda path: np.save(path, np.zeros(1)), "writes files (numpy.save)"),
    (lambda path: (path, os.environ.get("HOME")), "reads the environment (os.environ.get)"),
    (lambda path: (path, environ.get("HOME")), "reads the environment (os.environ.get)"),
    (lambda path: (path, sys.version_info.minor), "reads the environment (sys.version_info.minor)"),
    (lambda path: (path, os.getcwdb()), "reads the environment (os.getcwdb)"),
    (lambda path: os.path.relpath(path), "reads the environment (posixpath.relpath)"),
    (lambda path: Path(path).absolute(), "reads the environment (.absolute)"),
    (lambda path: Path(path).resolve(), "reads files (.resolve)"),
    (lambda path: list(Path(path).glob("*")), "reads files (.glob)"),
    (lambda path: list(map(Path.is_mount, path)), "reads files (pathlib.Path.is_mount)"),
    (lambda path: io.FileIO(path).read(), "reads files (io.FileIO)"),
    (lambda path: (path, type(path).today()), "reads the clock (.today)"),
    (lambda path: path.__hash__(), "reads what differs between processes (.__hash__)"),
    (lambda path: (path, CHANCES["a"][0]()), "reads chance (uuid.uuid4)"),
    (lambda path: (path, NOW()), "reads the clock (datetime.datetime.now)"),
    (lambda path: WRITTEN(Path(path)), "reads files (.read_text)"),
    (lambda path: operator.methodcaller("read_text")(Path(path)), "reads files (.read_text)"),
    (lambda path: functools.partial(pd.read_csv, sep=";")(path), "reads files (pandas.read_csv)"),
    (lambda path: Stamped(path), "reads the clock (datetime.datetime.now)"),
    (Stamping(), "reads the clock (time.time)"),
    (_with_a_default, "reads the clock (time.time)"),
    (_with_a_module_as_default, "reads the clock (time.time)"),
    (_by_another_name, "reads files (pandas.read_excel)"),
    (_of_a_module_that_is_passed_on, "reads the clock (time.monotonic)"),
    (lambda path: inspect.signature(path), "reads what keys leave out (inspect.signature)"),
    (lambda path: path.shuffle(), "reads chance (.shuffle)"),
    (lambda path: (path.to_csv("a.csv"), path)[1], "writes files (.to_csv)"),
    (lambda path: (path.to_json(path_or_buf="a.json"), path)[1], "writes files (.to_json)"),
    (lambda path: (path.to_html(*["a.html"]), path)[1], "writes files (.to_html)"),
]


@pytest.mark.parametrize(("fn", "found"), READERS)
async def test_a_function_that_is_seen_to_read_the_world_outside_is_cached_only_when_it_says_so(
    tmp_path: Path, fn: Any, found: str
) -> None:
    from odibi_async.fingerprint.functions import examined

    assert (await asyncio.to_thread(examined, fn)).outside[0] == found
    heard = Recorder()
    file = tmp_path / "orders.csv"
    await asyncio.to_thread(file.write_text, "a\n1\n")
    steps = [step(fn, name="read", inputs={"path": "path"})]
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        await run_pipeline(steps, {"path": str(file)}, cache=tmp_path / "c", observers=[heard], on_error="continue")
    [bypassed] = heard.of(CacheBypassed)
    assert bypassed.reason == f"its code {found}; use cache=True to cache it anyway"


def test_a_function_of_a_library_is_known_by_its_name() -> None:
    from odibi_async.fingerprint.functions import code_of, examined

    assert "reads files (pandas" in examined(functools.partial(pd.read_csv, sep=";")).outside[0]
    assert code_of(functools.partial(pd.merge, on="a")) != code_of(functools.partial(pd.merge, on="b"))
    assert code_of(np.add) != code_of(np.subtract)


@pytest.mark.parametrize(
    "fn",
    [
        lambda path: os.path.join(path, "a"),
        lambda path: path.upper(),
        lambda path: pd.Timestamp(path) + pd.Timedelta(1, "D"),
        lambda path: path.sample(1, random_state=1),
        lambda path: path.query("a > 1"),
        lambda path: path.groupby("a").agg(b=("b", "sum")).to_csv(),
        lambda path: path.to_csv(index=path.any(axis=1), sep=";") + path.to_json(orient="records"),
        lambda path: np.absolute(path),
        lambda path: Money(path).rounded(),
        functools.partial(pd.merge, on="a"),
        lambda path: (path.open.max(), path.stat),
        lambda path: {"now": 1, "path": path},
    ],
)
def test_what_reads_nothing_outside_is_not_suspected(fn: Any) -> None:
    from odibi_async.fingerprint.functions import examined

    assert examined(fn).outside == []


async def test_files_and_variables_that_a_policy_names_belong_to_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, more = tmp_path / "a.txt", tmp_path / "b.txt"

    @step(cache=CachePolicy(files=("path", str(more)), env="RATE"))
    def read(path: str, others: str) -> list[str]:
        texts = [Path(each).read_text() for each in (path, others)]
        return [*texts, os.environ.get("RATE", "")]

    async def run() -> tuple[str, Any]:
        result = await run_pipeline([read], {"path": str(file), "others": str(more)}, cache=tmp_path / "cache")
        return str(result.steps["read"].status), result["read"]

    monkeypatch.delenv("RATE", raising=False)
    await asyncio.to_thread(more.write_text, "1")
    for path, text in ((file, "one"), (file, "two"), (more, "2")):
        await asyncio.to_thread(path.write_text, text)
        made = [*(await asyncio.gather(*[asyncio.to_thread(each.read_text) for each in (file, more)])), ""]
        assert await run() == ("succeeded", made)
        assert await run() == ("cached", made)
    monkeypatch.setenv("RATE", "2")
    assert (await run())[0] == "succeeded"
    assert (await run())[0] == "cached"
    given = {"path": "missing", "others": str(more)}
    result = await run_pipeline([read], given, cache=tmp_path / "cache", on_error="continue")
    assert "missing" in str(result.steps["read"].cache)


ZONES = ("Europe/Berlin", "Europe/Paris", "America/Costa_Rica", "America/Mexico_City", "JST-9", "Asia/Tokyo")


async def test_a_cached_query_is_known_by_the_time_zone_that_it_is_told_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"name": "told", "type": "sql", "inputs": {"data": "data"}, "value": "SELECT moment::VARCHAR AS at FROM data"}
    ]
    steps = await asyncio.to_thread(load_steps, rows)
    moments = {"data": pd.DataFrame({"moment": pd.to_datetime(["2024-04-15 12:00Z", "1930-07-01 12:00Z"])})}

    async def run(cache: Any) -> list[str]:
        async with Runner() as runner:
            return list((await runner.run(steps, moments, cache=cache))["told"]["at"])

    try:
        for zone in ZONES:
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert await run(tmp_path / "cache") == await run(False), zone
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_engine_keeps_its_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    from odibi_async.errors import OptionError

    query = "SELECT (TIMESTAMPTZ '2024-07-01 12:00:00+00')::VARCHAR AS at, current_setting('TimeZone') AS zone"
    with create_engine_context(time_zone="Asia/Tokyo") as engine:
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        try:
            assert list(engine.execute_sql(query).iloc[0]) == ["2024-07-01 21:00:00+09", "Asia/Tokyo"]
        finally:
            monkeypatch.undo()
            time.tzset()
    with pytest.raises(OptionError, match="time_zone='Mars'"):
        create_engine_context(time_zone="Mars")


async def test_an_ingest_from_a_database_is_cached_when_it_says_so_by_where_the_connection_leads(
    tmp_path: Path,
) -> None:
    import sqlite3

    def write(name: str, value: int) -> None:
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS orders (a INTEGER)")
            connection.execute("INSERT INTO orders VALUES (?)", (value,))
        connection.close()

    async def run(name: str, cache: Any) -> Any:
        rows = [
            {"name": "sales", "layer": "connect", "value": str(tmp_path / name)},
            {
                "name": "orders",
                "layer": "ingest",
                "type": "sql",
                "value": "SELECT * FROM orders",
                "params": {"connection": "sales"},
                "cache": cache,
            },
        ]
        return await run_pipeline(await asyncio.to_thread(load_steps, rows), cache=tmp_path / "cache")

    await asyncio.to_thread(write, "one.db", 1)
    await asyncio.to_thread(write, "two.db", 2)
    for name, cache, status, found in (
        ("one.db", None, "succeeded", [1]),
        ("one.db", {"ttl": 60}, "succeeded", [1]),
        ("one.db", {"ttl": 60}, "cached", [1]),
        ("two.db", {"ttl": 60}, "succeeded", [2]),
    ):
        result = await run(name, cache)
        assert (str(result.steps["orders"].status), list(result["orders"]["a"])) == (status, found)
    assert str(result.steps["orders"].cache) == "miss: the place of 'sales' changed"


LEFT = """
import asyncio, sys, time
from odibi_async import Runner, step

@step
def slow(x: int) -> int:
    time.sleep(0.02)
    return x

async def main():
    runner = Runner(cache=sys.argv[1])
    for x in range(6):
        await runner.start([step(slow, name=f"s{i}") for i in range(5)], {"x": x})
    await asyncio.sleep(0.01)

for _ in range(10):
    asyncio.run(main())
"""


@pytest.mark.foreign_loop
def test_runs_that_nobody_awaits_do_not_keep_the_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEFT, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.rglob("*.lock")] in ([], ["opening.lock"])


async def test_a_node_type_that_cannot_tell_its_contents_makes_its_step_uncached_and_not_failed(tmp_path: Path) -> None:
    class Broken:
        def __call__(self) -> int:
            return 1

        def has_content(self, engine: Any) -> bool:
            return True

        def contents(self, engine: Any) -> Any:
            raise ZeroDivisionError("of its own")

    heard = Recorder()
    result = await run_pipeline([step(Broken(), name="broken")], cache=tmp_path, observers=[heard])
    assert result["broken"] == 1
    assert [event.reason for event in heard.of(CacheBypassed)] == ["ZeroDivisionError: of its own"]


async def test_an_ingest_of_many_files_is_known_by_all_of_them(tmp_path: Path) -> None:
    def write(name: str, value: int) -> None:
        (tmp_path / name).write_text(f"a\n{value}\n")

    rows = [{"name": "all", "layer": "ingest", "value": str(tmp_path / "*.csv")}]
    steps = await asyncio.to_thread(load_steps, rows)
    for name, value in (("a.csv", 1), ("b.csv", 2), ("b.csv", 3)):
        await asyncio.to_thread(write, name, value)
        for status in ("succeeded", "cached"):
            result = await run_pipeline(steps, cache=tmp_path / "cache")
            assert str(result.steps["all"].status) == status
            assert result["all"]["a"].iloc[-1] == value


async def test_a_function_that_returns_none_is_run_for_what_it_does(tmp_path: Path) -> None:
    target = tmp_path / "saved.csv"

    def save(frame: pd.DataFrame, to: str) -> None:
        getattr(frame, "to_{}".format("csv"))(to)  # so that it cannot be seen

    def told(frame: pd.DataFrame) -> None: ...

    given = {"frame": pd.DataFrame({"a": [1]}), "to": str(target)}
    steps = [save, step(told, cache=True)]
    for _ in range(2):
        result = await run_pipeline(steps, given, cache=tmp_path / "c")
        assert await asyncio.to_thread(target.exists)
        await asyncio.to_thread(target.unlink)
    use = result.steps["save"].cache
    assert use is not None
    assert use.reason.startswith("not kept: it returned None, so it is run for its effects")
    assert result.steps["told"].status is Status.CACHED


async def test_data_classes_are_made_by_cached_functions(tmp_path: Path) -> None:
    def rounded(amount: float) -> Money:
        return Money(round(amount, 2))

    for status in (Status.SUCCEEDED, Status.CACHED):
        result = await run_pipeline([rounded], {"amount": 1.234}, cache=tmp_path / "c")
        assert (result.steps["rounded"].status, result["rounded"]) == (status, Money(1.23))


def _set_decimals() -> Any:
    decimal.getcontext().prec = 5
    return lambda: decimal.setcontext(decimal.Context())


def _set_pandas(name: str, value: Any) -> Any:
    before = pd.get_option(name)
    with warnings.catch_warnings(action="ignore"):
        pd.set_option(name, value)
    return lambda: _set_pandas(name, before)


def _set_numpy() -> Any:
    before = np.get_printoptions()
    np.set_printoptions(precision=3)
    return lambda: np.set_printoptions(**before)


def _set_errors() -> Any:
    before = np.seterr(divide="ignore")
    return lambda: np.seterr(**before)


SETTINGS: list[tuple[str, Any, Any]] = [
    ("the decimal context", _set_decimals, lambda x: str(decimal.Decimal(x) / 3)),
    ("what is set in pandas", lambda: _set_pandas("display.precision", 2), lambda x: str(pd.Series([x / 3]))),
    (
        "what is set in pandas",
        lambda: _set_pandas("mode.string_storage", "python"),
        lambda x: pd.Series(["a"], dtype="string"),
    ),
    ("what is set in NumPy", _set_numpy, lambda x: str(np.array([x / 3]))),
    ("what is set in NumPy", _set_errors, lambda x: str(np.geterr()["divide"])),
]


@pytest.mark.parametrize(("what", "change", "fn"), SETTINGS)
async def test_what_is_set_in_the_process_belongs_to_the_key(tmp_path: Path, what: str, change: Any, fn: Any) -> None:
    async def run(cache: Any) -> Any:
        return await run_pipeline([step(fn, name="made")], {"x": 1}, cache=cache)

    await run(tmp_path / "c")
    change_back = change()
    try:
        changed, computed = await run(tmp_path / "c"), await run(None)
        again = await run(tmp_path / "c")
    finally:
        change_back()
    assert str(changed.steps["made"].cache) == f"miss: {what} is new"
    assert digest_of(changed["made"]) == digest_of(computed["made"]) == digest_of(again["made"])
    assert again.steps["made"].status is Status.CACHED
    assert (await run(tmp_path / "c")).steps["made"].status is Status.CACHED


async def test_what_a_step_sets_itself_is_found_out(tmp_path: Path) -> None:
    def careless(x: int) -> int:
        pd.set_option("display.precision", 3)
        return x

    try:
        result = await run_pipeline([careless], {"x": 1}, cache=tmp_path / "c")
    finally:
        pd.reset_option("display.precision")
    assert result.steps["careless"].cache is not None
    assert "what is set in pandas changed while the step ran" in result.steps["careless"].cache.reason


def test_the_locale_belongs_to_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from odibi_async.fingerprint.settings import settings

    monkeypatch.setattr(locale, "setlocale", lambda _: "C")
    assert "the locale" not in settings()
    seen = set()
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8"):
        monkeypatch.setattr(locale, "setlocale", lambda _, name=name: name)
        seen.add(settings()["the locale"])
    assert len(seen) == 2


async def test_what_was_damaged_is_kept_again_also_when_its_inputs_were_dropped(tmp_path: Path) -> None:
    async def source(x: int) -> int:
        return x

    def frame(source: int) -> pd.DataFrame:
        return pd.DataFrame({"a": range(source, source + 1000)})

    async def run() -> Any:
        return await run_pipeline([source, frame], {"x": 1}, targets=["frame"], cache=tmp_path / "c")

    def damage() -> None:
        for path in (tmp_path / "c" / "blobs").glob("??/*"):
            path.write_bytes(b"x" * path.stat().st_size)

    await run()
    await asyncio.to_thread(damage)
    assert len((await run())["frame"]) == 1000
    assert (await run()).steps["frame"].cache.hit
