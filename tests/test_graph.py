"""Binding and checking: every fault before anything runs, all of them together."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from odibi_async import Pipeline, Step, run_pipeline, step
from odibi_async.errors import CycleError, GraphError


def made(**datasets: Any) -> list[Step[..., Any, Any]]:
    """Steps that make these datasets."""
    return [step(lambda value=value: value, name=name, params={"value": value}) for name, value in datasets.items()]


def faults_of(build: Callable[[], Any]) -> list[str]:
    with pytest.raises(GraphError) as caught:
        build()
    return list(map(str, caught.value.faults))


async def test_a_parameter_is_bound_to_inputs_then_params_then_the_dataset_of_its_name_then_its_default():
    def reader(by_input: Any, by_param: Any, by_name: Any, by_default: Any = "default") -> Any:
        return by_input, by_param, by_name, by_default

    result = await run_pipeline(
        [
            *made(other="dataset", by_param="a dataset of that name", by_name="named"),
            step(reader, inputs={"by_input": "other"}, params={"by_param": "constant"}),
        ]
    )
    assert result["reader"] == ("dataset", "constant", "named", "default")


async def test_a_dataset_wins_over_a_default():
    result = await run_pipeline([*made(limit=3), step(lambda limit=10: limit, name="reader")])
    assert result["reader"] == 3


async def test_a_parameter_with_a_default_is_an_optional_input():
    pipeline = Pipeline([step(lambda limit=10: limit, name="reader")])
    assert (await pipeline.run())["reader"] == 10
    assert (await pipeline.run({"limit": 4}))["reader"] == 4


async def test_all_kinds_of_parameters_are_bound():
    def reader(a: Any, /, b: Any, *rest: Any, c: Any, d: Any = 4, **more: Any) -> Any:
        return a, b, rest, c, d, more

    result = await run_pipeline(
        [*made(a=1, b=2, c=3, y=6), step(reader, inputs={"extra": "y"}, params={"note": "x"})],
    )
    assert result["reader"] == (1, 2, (), 3, 4, {"extra": 6, "note": "x"})


async def test_names_may_be_any_text():
    result = await run_pipeline([step(lambda: 1, name="a b/ü\n"), step(lambda x: x, name="0", inputs={"x": "a b/ü\n"})])
    assert result["0"] == 1


async def test_several_outputs_come_as_a_tuple_or_a_mapping():
    @step(outputs=("train", "test"))
    def split() -> Any:
        return 1, 2

    @step(outputs={"left": "l", "right": "r"})
    async def halves() -> Any:
        return {"right": 4, "left": 3}

    result = await run_pipeline([split, halves, step(lambda train, r: train + r, name="sum")])
    assert (result["train"], result["test"], result["l"], result["r"], result["sum"]) == (1, 2, 3, 4, 5)
    assert result[split] == (1, 2)


async def test_one_named_output_is_the_bare_value():
    result = await run_pipeline([step(lambda: {"data": 1}, name="load", outputs={"data": "raw"})])
    assert result["raw"] == {"data": 1}


def test_an_unknown_dataset_is_named_with_the_nearest_one():
    [fault] = faults_of(lambda: Pipeline([*made(orders=1, customers=2), step(lambda ordrs: 0, name="totals")]))
    assert fault == (
        "Step 'totals' reads 'ordrs', which no step produces. Did you mean 'orders'?\n"
        "Known datasets: customers, orders."
    )


def test_an_input_entry_must_name_a_known_dataset_even_where_there_is_a_default():
    [fault] = faults_of(lambda: Pipeline([step(lambda a=1: a, name="x", inputs={"a": "nowhere"})]))
    assert "reads 'nowhere'" in fault


def test_an_optional_input_of_one_step_does_not_fill_a_required_parameter_of_another():
    for order in (1, -1):
        steps = [step(lambda limit=1: limit, name="a"), step(lambda limit: limit, name="b")][::order]
        [fault] = faults_of(lambda steps=steps: Pipeline(steps))
        assert "Step 'b' reads 'limit'" in fault


@pytest.mark.parametrize("option", ["inputs", "params"])
def test_an_entry_for_a_parameter_that_is_not_there_is_a_fault(option: str):
    [fault] = faults_of(lambda: Pipeline([*made(a=1), step(lambda rate=1: rate, name="x", **{option: {"rte": "a"}})]))
    assert f"no parameter 'rte', which its {option}= names. Did you mean 'rate'?" in fault


def test_a_parameter_in_inputs_and_params_is_a_fault():
    [fault] = faults_of(lambda: Pipeline([*made(a=1), step(lambda x: x, name="y", inputs={"x": "a"}, params={"x": 1})]))
    assert "stands in inputs= and in params=" in fault


def test_a_given_name_that_nobody_reads_or_makes_is_a_fault():
    [fault] = faults_of(lambda: Pipeline([step(lambda url: url, name="x")], inputs=("url", "ulr")))
    assert fault == "Input 'ulr' is given, but no step reads it or makes it. Did you mean 'url'?"


def test_a_step_or_a_dataset_that_is_there_twice_is_a_fault():
    faults = faults_of(lambda: Pipeline([*made(a=1), *made(a=2), step(lambda: 1, name="b", outputs=("c", "a"))]))
    assert "Two steps are called 'a'. Give one another name: step(..., name=...)." in faults
    assert "Dataset 'a' is made by two steps: 'a' and 'b'." in faults


def test_a_cycle_is_named_along_its_path():
    steps = [
        step(lambda c: c, name="a"),
        step(lambda a: a, name="b"),
        step(lambda b: b, name="c"),
        step(lambda c: c, name="d"),
    ]
    with pytest.raises(CycleError) as caught:
        Pipeline(steps)
    assert caught.value.cycle[0] == caught.value.cycle[-1]
    assert "a -> b -> c -> a" in 2 * (" -> ".join(caught.value.cycle[:-1]) + " -> ")


def test_a_step_that_reads_itself_is_a_cycle():
    with pytest.raises(CycleError, match="orders -> orders"):
        Pipeline([step(lambda orders: orders, name="orders")])


def test_a_cycle_through_after_is_found():
    with pytest.raises(CycleError, match="circle"):
        Pipeline([step(lambda: 1, name="a", after="b"), step(lambda a: a, name="b")])


def test_after_names_a_known_step():
    [fault] = faults_of(lambda: Pipeline([*made(load=1), step(lambda: 1, name="x", after=("laod",))]))
    assert "after 'laod', which is not a step. Did you mean 'load'?" in fault


def test_all_faults_are_reported_together():
    faults = faults_of(
        lambda: Pipeline(
            [
                step(lambda nothing: 1, name="a"),
                step(lambda c: 1, name="b"),
                step(lambda b: 1, name="c", after="nobody"),
                step(lambda: 1, name="a"),
                lambda: 1,
            ],
            inputs=("unread",),
        )
    )
    for part in ("'nothing'", "b -> c -> b", "'nobody'", "Two steps are called 'a'", "'unread'", "no name of its own"):
        assert any(part in fault or part in 2 * f"{fault} -> " for fault in faults), (part, faults)


def test_an_empty_list_of_steps_is_a_fault():
    assert faults_of(lambda: Pipeline([])) == ["There are no steps to run: the list is empty."]


def test_a_step_without_anything_to_call_is_a_fault_and_never_a_success():
    [fault] = faults_of(lambda: Pipeline([Step("transform", "q", "function", "pandas", "clean")]))
    assert "Step 'q': value names the function 'clean', which is not given" in fault


def test_an_async_function_cannot_be_sent_to_a_thread():
    async def load() -> None: ...

    [fault] = faults_of(lambda: Pipeline([step(load, run_on="thread")]))
    assert "runs on the loop" in fault


def number() -> int:
    return 1


def text() -> str:
    return ""


async def numbers() -> list[int]:
    return [1]


def maybe() -> int | None:
    return None


@pytest.mark.parametrize(
    ("maker", "annotation", "fits"),
    [
        (number, int, True),
        (number, float, True),
        (number, str, False),
        (number, "str", False),
        (number, object, True),
        (number, Any, True),
        (number, str | int, True),
        (text, "list[str]", False),
        (numbers, "list[str]", True),
        (numbers, dict, False),
        (numbers, "Callable", True),
        (maybe, int, True),
        (maybe, str, False),
        (text, "NoSuchType", True),
    ],
)
def test_edge_types_that_can_never_fit_are_faults_and_only_those(maker: Any, annotation: Any, fits: bool):
    def reader(data):  # type: ignore[no-untyped-def]
        return data

    reader.__annotations__["data"] = annotation
    steps = [step(maker, name="data"), step(reader)]
    if fits:
        Pipeline(steps)
    else:
        [fault] = faults_of(lambda: Pipeline(steps))
        assert "Step 'reader' takes 'data' as " in fault
        assert "but step 'data' makes " in fault


def test_order_is_that_of_the_declaration_where_it_is_free():
    steps = [*made(z=1), step(lambda b: b, name="y"), *made(b=1, a=1), step(lambda y, z: 1, name="x")]
    pipeline = Pipeline(steps)
    assert pipeline.order() == ["z", "b", "y", "a", "x"]
    assert pipeline.levels() == [["z", "b", "a"], ["y"], ["x"]]


def test_inputs_lists_what_may_be_given():
    def load(url: str, limit: int = 10) -> str:
        return url[:limit]

    def more(load: str, url: str) -> str:
        return load + url

    inputs = Pipeline([load, more], inputs=("url",)).inputs
    assert inputs["url"].required
    assert inputs["url"].type is str
    assert inputs["url"].readers == ("load", "more")
    assert (inputs["limit"].required, inputs["limit"].default, inputs["limit"].type) == (False, 10, int)


def test_mermaid_escapes_what_its_language_would_read():
    drawn = Pipeline([step(lambda: 1, name='a"];click x <script> #', layer="ingest")]).to_mermaid()
    assert drawn.startswith("graph TD\n")
    assert 'n0["a#34;#93;#59;click x #60;script#62; #35;"]' in drawn
    assert "fill:#e1f5ff" in drawn


def test_mermaid_draws_every_edge():
    drawn = Pipeline([*made(a=1), step(lambda a: a, name="b"), step(lambda: 1, name="c", after="b")]).to_mermaid()
    assert "n0 --> n1" in drawn
    assert "n1 --> n2" in drawn


def test_graph_errors_pickle():
    import pickle

    with pytest.raises(CycleError) as caught:
        Pipeline([step(lambda orders: orders, name="orders")])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.cycle) == (str(caught.value), caught.value.cycle)


def test_faults_tell_their_code_their_step_and_the_entry_that_is_wrong():
    with pytest.raises(GraphError) as caught:
        Pipeline(
            [
                step(lambda a: a, name="reads", inputs={"a": "nowhere"}),
                step(lambda: 1, name="after", after=("reads", "laod")),
                step(lambda: 1, name="extra", params={"b": 1}),
            ]
        )
    told = {(fault.code, fault.step, fault.keys, fault.of_key) for fault in caught.value.faults}
    assert told == {
        ("OA201", "reads", ("inputs", "a"), False),
        ("OA206", "after", ("after", 1), False),
        ("OA207", "extra", ("params", "b"), True),
    }
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.faults, str(again)) == (caught.value.faults, str(caught.value))


def test_a_tree_shows_each_step_once_under_the_last_that_it_waits_for():
    from odibi_async.graph.drawing import tree

    upstream = {"a": (), "b": (), "c": ("a",), "d": ("c", "b"), "e": ("c",), "f": ()}
    assert tree(["a", "b", "c", "d", "e", "f"], upstream).splitlines() == [
        "a",
        "└─ c",
        "   ├─ d  (also waits for b)",
        "   └─ e",
        "b",
        "f",
    ]
    many = [str(number) for number in range(5000)]
    deep = tree(many, {each: many[number - 1 : number] if number else () for number, each in enumerate(many)})
    assert deep.count("\n") == 4999
