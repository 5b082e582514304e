"""Random pipelines, run again and again with this and that changed or damaged: with a cache and without, the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odibi_async import Limits, RunResult, run_pipeline, step
from odibi_async.fingerprint import digest_of
from odibi_async.steps import Step

pytestmark = pytest.mark.foreign_loop  # each example runs a loop of its own, and reads and writes files around it

ROWS = 700
"""Enough for a frame to be a file of its own, which can be damaged."""


@dataclass(frozen=True)
class Spec:
    """
    One step.

    Attributes:
        kind: What it makes: "number", "list", "frame", "array", "nested" (a named tuple of such), "two" (a
            number and a frame), "alias" (what it reads first, as it is) or "change" (a number, and what it reads first
            is changed in place where it can be).
        constant: A constant in its code.
        reads: What it reads, of all that stands before it.
        maps: Whether it maps over the first of these.
        is_async: Whether it is a coroutine, which is cached only when it says so.
        cache: Its policy.
        when: The dataset that decides, if one does: odd numbers say no.
    """

    kind: str
    constant: int
    reads: tuple[int, ...]
    maps: bool
    is_async: bool
    cache: bool | None
    when: bool


class Nested(NamedTuple):
    """Has parts that can be changed in place, and a frame."""

    array: Any
    rows: list[dict[str, int]]
    frame: pd.DataFrame


def shown(thing: Any) -> Any:
    if isinstance(thing, pd.DataFrame):
        return thing.to_csv()
    if isinstance(thing, tuple):
        return [shown(part) for part in thing]
    return thing.tolist() if isinstance(thing, np.ndarray) else thing


def number(*things: Any) -> int:
    return zlib.crc32(repr(shown(things)).encode())


def change(thing: Any) -> None:
    if isinstance(thing, np.ndarray):
        thing += 1
    elif isinstance(thing, list):
        thing.append(1)
    elif isinstance(thing, pd.DataFrame):
        thing["more"] = 1


def value_of(kind: str, seed: int) -> Any:
    match kind:
        case "number":
            return seed
        case "list":
            return [seed % 5, seed % 7]
        case "frame":
            return pd.DataFrame({"a": range(seed % 100, seed % 100 + ROWS), "b": [str(seed)] * ROWS})
        case "array":
            return np.arange(seed % 10, seed % 10 + ROWS)
        case "nested":
            array = np.arange(seed % 7)
            return Nested(array, [{"n": seed}], pd.DataFrame({"a": [seed, None], "b": [array, None]}))
    return seed, pd.DataFrame({"a": [float(seed)] * ROWS})


def function_of(kind: str, constant: int, is_async: bool) -> Callable[..., Any]:
    def call(**reads: Any) -> Any:
        if kind == "alias":
            return reads["p0"]
        seed = number(constant, sorted(reads), *[reads[name] for name in sorted(reads)])
        if kind == "change":
            change(reads["p0"])
        return value_of("number" if kind == "change" else kind, seed)

    async def call_async(**reads: Any) -> Any:
        await asyncio.sleep(0)
        return call(**reads)

    return call_async if is_async else call


def mapped_function_of(kind: str, constant: int) -> Callable[..., Any]:
    def call(element: Any, **reads: Any) -> Any:
        seed = number(constant, element, sorted(reads), *[reads[name] for name in sorted(reads)])
        return value_of("array" if kind in ("alias", "change") else kind, seed)

    return call


def is_even(decides: Any) -> bool:
    return number(decides) % 2 == 0


def steps_of(specs: list[Spec]) -> list[Step[..., Any, Any]]:
    datasets, lists, steps = ["x", "y"], ["y"], [step(lambda x, y: number(x, y), name="first")]
    for index, spec in enumerate(specs):
        name = f"s{index}"
        reads = {f"p{place}": datasets[read % len(datasets)] for place, read in enumerate(spec.reads)}
        options: dict[str, Any] = {"name": name, "cache": spec.cache}
        if spec.kind == "two":
            options["outputs"] = (f"{name}a", f"{name}b")
        if spec.when:
            options["when"] = is_even
            reads["decides"] = datasets[spec.constant % len(datasets)]
        if spec.maps:
            over = lists[spec.constant % len(lists)]
            made = step(
                mapped_function_of(spec.kind, spec.constant),
                map_over="element",
                inputs={"element": over, **reads},
                **options,
            )
        else:
            made = step(function_of(spec.kind, spec.constant, spec.is_async), inputs=reads, **options)
        steps.append(made)
        datasets += made.datasets
        lists += made.datasets if spec.maps else ([name] if spec.kind == "list" else [])
    return steps


@st.composite
def drawn_specs(draw: st.DrawFn) -> list[Spec]:
    one = st.builds(
        Spec,
        kind=st.sampled_from(["number", "list", "frame", "frame", "two", "array", "nested", "alias", "change"]),
        constant=st.integers(0, 50),
        reads=st.lists(st.integers(0, 50), min_size=1, max_size=3).map(tuple),
        maps=st.sampled_from([False, False, True]),
        is_async=st.sampled_from([False, False, True]),
        cache=st.sampled_from([None, None, True, False]),
        when=st.sampled_from([False, False, False, True]),
    )
    return draw(st.lists(one, min_size=1, max_size=7))


@dataclass(frozen=True)
class Turn:
    """
    One run, and what is changed before it.

    Attributes:
        change: The step whose code is changed, if one is.
        x: What is given.
        damage: "flip": a byte of each file; "delete": each file; "index": the whole index; else nothing.
        target: The step that is asked for, if only one is.
    """

    change: int | None
    x: int
    damage: str
    target: int | None
    concurrency: int | None


turns = st.builds(
    Turn,
    change=st.none() | st.integers(0, 6),
    x=st.integers(0, 2),
    damage=st.sampled_from(["", "", "flip", "delete", "index"]),
    target=st.none() | st.integers(0, 6),
    concurrency=st.sampled_from([None, None, 1]),
)


def damage(how: str, directory: Path) -> None:
    if how == "index":
        shutil.rmtree(directory / "index", ignore_errors=True)
        return
    for path in (directory / "blobs").glob("??/*"):
        if how == "delete":
            path.unlink()
        elif how == "flip":
            content = bytearray(path.read_bytes())
            content[len(content) // 3] ^= 4
            path.write_bytes(content)


def run(specs: list[Spec], turn: Turn, cache: Path | None) -> RunResult:
    steps = steps_of(specs)
    targets = None if turn.target is None else steps[turn.target % len(steps)].datasets
    limits = Limits(concurrency=turn.concurrency, threads=2)
    given_ = {"x": turn.x, "y": [turn.x, 2]}
    return asyncio.run(run_pipeline(steps, given_, targets=targets, cache=cache, limits=limits, on_error="continue"))


def what(result: RunResult) -> dict[str, Any]:
    statuses = {name: "done" if record.is_done else str(record.status) for name, record in result.steps.items()}
    return {"statuses": statuses} | {name: digest_of(value, ordered=True) for name, value in result.outputs.items()}


def check(specs: list[Spec], drawn: list[Turn]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for turn in drawn:
            if turn.change is not None:
                place = turn.change % len(specs)
                specs = [
                    *specs[:place],
                    replace(specs[place], constant=specs[place].constant + 51),
                    *specs[place + 1 :],
                ]
            damage(turn.damage, Path(directory))
            expected = what(run(specs, turn, None))
            assert what(run(specs, turn, Path(directory))) == expected
            again = run(specs, turn, Path(directory))
            assert what(again) == expected
            for record in again.steps.values():
                assert record.cache is None or record.cache.hit or not record.is_done, record


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_specs(), st.lists(turns, min_size=1, max_size=3))
def test_a_cached_run_gives_what_an_uncached_one_gives(specs: list[Spec], drawn: list[Turn]):
    check(specs, drawn)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_specs(), st.lists(turns, min_size=1, max_size=4))
def test_many_cached_runs_give_what_uncached_ones_give(specs: list[Spec], drawn: list[Turn]):
    check(specs, drawn)
