"""Parts of pipelines, pipelines among steps, and pipelines under other names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from odibi_async import Pipeline, resource, run_pipeline, step
from odibi_async.errors import GraphError


def chain() -> Pipeline:
    return Pipeline(
        [
            step(lambda url: [url], name="load", layer="ingest", tags=("raw",)),
            step(lambda load: load * 2, name="clean"),
            step(lambda clean, limit=10: len(clean[:limit]), name="count", tags=("kpi",), after=("other",)),
            step(lambda: 1, name="other", tags=("kpi",)),
        ],
        inputs=("url",),
    )


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        (("clean",), ["clean"]),
        (("+clean",), ["load", "clean"]),
        (("clean+",), ["clean", "count"]),
        (("+clean+",), ["load", "clean", "count"]),
        (("tag:kpi",), ["count", "other"]),
        (("layer:ingest",), ["load"]),
        (("layer:ingest+",), ["load", "clean", "count"]),
        (("c*",), ["clean", "count"]),
        (("load", "other"), ["load", "other"]),
    ],
)
def test_terms_select_steps(terms: tuple[str, ...], names: list[str]):
    assert [each.name for each in chain().select(*terms).steps] == names


async def test_what_a_selection_reads_of_others_is_given():
    part = chain().select("count")
    assert [name for name, entry in part.inputs.items() if entry.required] == ["clean"]
    assert (await part.run({"clean": [1, 2, 3]}))["count"] == 3
    assert (await part.run({"clean": [1, 2, 3], "limit": 2}))["count"] == 2


@pytest.mark.parametrize("term", ["claen", "tag:none", "layer:none", "+"])
def test_a_term_that_names_nothing_is_a_fault(term: str):
    with pytest.raises(GraphError, match="selects no step"):
        chain().select(term)


def test_no_term_at_all_is_a_fault():
    with pytest.raises(GraphError, match="Nothing is selected"):
        chain().select()


async def test_a_pipeline_may_stand_among_steps():
    result = await run_pipeline([step(lambda count: count + 1, name="more"), chain()], {"url": "x"})
    assert result["more"] == 3


async def test_a_prefix_renames_steps_datasets_and_inputs():
    both = Pipeline(
        [
            chain().prefixed("eu_"),
            chain().prefixed("us_"),
            step(lambda eu_count, us_count: eu_count + us_count, name="total"),
        ],
        inputs=("eu_url", "us_url"),
    )
    result = await both.run({"eu_url": "e", "us_url": "u"})
    assert result["eu_load"] == ["e"]
    assert result["us_clean"] == ["u", "u"]
    assert result["total"] == 4
    assert both.steps[2].after == ("eu_other",)


async def test_a_prefix_keeps_outputs_predicates_and_defaults():
    @step(outputs=("left", "right"), when=lambda flag: flag)
    def split(flag: bool, size: int = 3) -> Any:
        return size, size + 1

    renamed = Pipeline([step(lambda: True, name="flag"), split, step(lambda left: left, name="use")]).prefixed("p_")
    result = await renamed.run()
    assert (result["p_left"], result["p_right"], result["p_use"]) == (3, 4, 3)
    assert (await renamed.run({"size": 7}))["p_use"] == 7


@pytest.mark.parametrize(
    ("terms", "exclude", "names"),
    [
        ((), ("clean",), ["load", "count", "other"]),
        (("load+",), ("tag:kpi",), ["load", "clean"]),
        (("+count",), ("+clean",), ["count", "other"]),
    ],
)
def test_what_is_excluded_is_left_out(terms: tuple[str, ...], exclude: tuple[str, ...], names: list[str]):
    assert [each.name for each in chain().select(*terms, exclude=exclude).steps] == names


def test_excluding_everything_or_nobody_is_a_fault():
    with pytest.raises(GraphError, match="Nothing is left"):
        chain().select("clean", exclude=["*"])
    with pytest.raises(GraphError, match="'nobody' selects no step"):
        chain().select("clean", exclude=["nobody"])


async def test_resources_come_along_with_their_readers_and_with_each_other():
    @resource
    async def pool() -> AsyncIterator[str]:
        yield "pool"

    @resource
    async def connection(pool: str) -> AsyncIterator[str]:
        yield f"connection of {pool}"

    whole = Pipeline(
        [pool, connection, step(lambda connection: connection, name="rows"), step(lambda: 1, name="other")]
    )
    part = whole.select("rows")
    assert part.order() == ["pool", "connection", "rows"]
    assert (await part.run())["rows"] == "connection of pool"


def test_upstream_tells_whom_each_step_waits_for():
    assert chain().upstream() == {"load": [], "clean": ["load"], "count": ["clean", "other"], "other": []}
