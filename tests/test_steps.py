"""Steps: what can be one, and what it is called."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Any

import pytest

from odibi_async import Retry, Runner, Step, run_pipeline, run_pipeline_sync, step
from odibi_async.errors import GraphError, OptionError
from odibi_async.steps import is_async


def double(x: int) -> int:
    return 2 * x


async def triple(x: int) -> int:
    return 3 * x


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    async def __call__(self, x: int) -> int:
        return x + self.n


def test_the_three_spellings_of_step_give_the_same():
    @step
    def one() -> int:
        return 1

    @step(name="two", tags=("a", "b"))
    def other() -> int:
        return 2

    third = step(double, name="three")
    assert [s.name for s in (one, other, third)] == ["one", "two", "three"]
    assert all(isinstance(s, Step) for s in (one, other, third))
    assert third.value is double
    assert other.tags == ("a", "b")
    assert (one.layer, one.type, one.engine) == ("transform", "function", None)


def test_a_step_stays_callable_like_its_function():
    assert step(double)(21) == 42


def test_the_predecessors_nine_fields_stand_first_and_the_last_four_may_be_none():
    old = Step("ingest", "load", "function", "pandas", double, {"x": 1}, None, {"data": "raw"}, None)
    assert (old.layer, old.name, old.type, old.engine, old.value) == ("ingest", "load", "function", "pandas", double)
    assert (old.params, old.inputs, old.outputs, old.metadata) == ({"x": 1}, {}, {"data": "raw"}, {})
    assert old.datasets == ("raw",)


def test_a_step_cannot_be_changed_after_it_was_checked():
    with pytest.raises(AttributeError):
        step(double).name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fn", "asynchronous"),
    [
        (double, False),
        (triple, True),
        (functools.partial(triple), True),
        (functools.partial(functools.partial(triple)), True),
        (Adder(1), True),
        (functools.partial(Adder(1)), True),
        (functools.partial(double), False),
        (lambda: None, False),
    ],
)
def test_partials_and_callable_objects_are_looked_into(fn: Any, asynchronous: bool):
    assert is_async(fn) is asynchronous


async def test_any_callable_can_be_a_step():
    result = await run_pipeline(
        [
            step(functools.partial(double), name="a", inputs={"x": "n"}),
            step(Adder(5), name="b", inputs={"x": "n"}),
            step(lambda n: n - 1, name="c"),
            step(max, name="d", params={}),
        ][:3],
        {"n": 10},
    )
    assert (result["a"], result["b"], result["c"]) == (20, 15, 9)


def test_a_partial_is_called_like_its_function():
    assert step(functools.partial(double, 3)).name == "double"


@pytest.mark.parametrize("nameless", [lambda: 1, Adder(1)])
def test_what_has_no_name_needs_one(nameless: Any):
    with pytest.raises(GraphError, match=r"give it one with step\(\.\.\., name=\.\.\.\)"):
        step(nameless)


def test_what_is_not_callable_is_no_step():
    with pytest.raises(GraphError, match="something callable, not from 3"):
        step(3)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_name_is_a_text_that_is_not_empty(name: Any):
    with pytest.raises(GraphError, match="name is a non-empty text"):
        Step("transform", name, "function", None, double)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="retries"):
        step(double, retries=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(timeout: float):
    with pytest.raises(OptionError, match="seconds above 0"):
        step(double, timeout=timeout)


def test_an_unknown_place_to_run_gets_a_hint():
    with pytest.raises(OptionError, match="Did you mean 'thread'"):
        step(double, run_on="threads")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"attempts": 1.5}, {"wait": -1}, {"max_wait": -1}, {"wait": float("nan")}]
)
def test_a_retry_that_makes_no_sense_is_refused(options: dict[str, Any]):
    with pytest.raises(OptionError, match=r"Retry\("):
        Retry(**options)


def test_outputs_take_a_name_several_names_or_a_mapping():
    assert step(double, outputs="a").datasets == ("a",)
    assert step(double, outputs=("a", "b")).datasets == ("a", "b")
    assert step(double, outputs={"left": "a", "right": "b"}).outputs == {"left": "a", "right": "b"}


def test_an_output_declared_twice_is_refused():
    with pytest.raises(GraphError, match="declares an output twice"):
        step(double, outputs=("a", "a"))


def test_durations_are_seconds_or_timedeltas():
    from datetime import timedelta

    from odibi_async import CachePolicy, Limits, Retry, Runner

    long = timedelta(minutes=2)
    assert step(lambda: 1, name="a", timeout=long).timeout == 120
    assert (Retry(wait=long).wait, Retry(max_wait=long).max_wait) == (120, 120)
    assert (Limits(grace=long).grace, CachePolicy(ttl=long).ttl, Runner(drain=long).drain) == (120, 120, 120)
    for make in (
        lambda: step(lambda: 1, name="a", timeout="30s"),
        lambda: step(lambda: 1, name="a", timeout=timedelta(0)),
        lambda: Retry(wait="1"),
        lambda: Limits(grace=True),
        lambda: CachePolicy(ttl="day"),
        lambda: Runner(drain=-1),
    ):
        with pytest.raises(OptionError, match=r"seconds (above 0|from 0 on) are needed"):
            make()


def test_inputs_are_a_mapping_to_names_steps_or_functions():
    def orders() -> int:
        return 1

    assert dict(step(lambda a, b: a, name="x", inputs={"a": orders, "b": step(orders, name="o")}).inputs) == {
        "a": "orders",
        "b": "o",
    }
    with pytest.raises(OptionError, match=r"inputs=\['a'\]: a mapping from parameters to datasets is needed"):
        step(lambda a: a, name="x", inputs=["a"])


async def test_what_was_called_by_mistake_is_told_so():
    from odibi_async import run_pipeline

    async def load() -> int:
        return 1

    for thing in (load(), 1):
        with pytest.raises(GraphError, match=r"Did you call it\? The function itself is needed: \[load\], not"):
            await run_pipeline([thing])
    with pytest.raises(GraphError, match=r"To give it from outside: run_pipeline\(steps, \{'path': ...\}\)"):
        await run_pipeline([lambda_reader])
    with pytest.raises(OptionError, match="Say cache=True without quotes"):
        await run_pipeline([load], cache="True")


def lambda_reader(path: str) -> str:
    return path


def in_runner(steps: list[Any], **options: Any) -> Any:
    return asyncio.run(Runner().run(steps, **options))


@pytest.mark.parametrize(
    ("call", "option", "said"),
    [
        (run_pipeline_sync, "max_workers", "run_pipeline has no option 'max_workers'. Use limits=Limits(threads="),
        (run_pipeline_sync, "path", "has no option 'path'. What comes from outside is given as the second argument"),
        (run_pipeline_sync, "target", "has no option 'target'. Did you mean 'targets'?"),
        (lambda _, **options: Runner(**options), "max_workers", "A Runner has no option 'max_workers'. Use limits="),
        (in_runner, "retries", "A run has no option 'retries'. Use retry=Retry(attempts=...) instead."),
        (in_runner, "tragets", "A run has no option 'tragets'."),
        (lambda _, **options: step(**options), "retries", "A step has no option 'retries'. Did you mean 'retry'?"),
        (lambda _, **options: step(**options), "depends_on", "A step has no option 'depends_on'. Use after="),
    ],
)
def test_an_option_of_others_is_answered_with_ours(call: Any, option: str, said: str):
    with pytest.raises(TypeError, match=re.escape(said)):
        call([], **{option: 1})
