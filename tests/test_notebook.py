"""In a notebook: a live graph, results as a graph and a table; elsewhere nothing of it."""

from __future__ import annotations

import gc
import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from odibi_async import Pipeline, run_pipeline, step

SETUP = """
import asyncio, sys
import pandas as pd
from odibi_async import *

def orders(): return pd.DataFrame({"a": [1, 2]})

@step(retry=Retry(attempts=2, wait=0.6, jitter=False))
async def large(orders):
    await asyncio.sleep(0.6)
    return orders

def bad(large): raise ValueError("no <b>")
"""


def executed(*cells: str) -> list[Any]:
    """The outputs of the cells, of which the last may fail."""
    cells_of = [nbformat.v4.new_code_cell(source) for source in (SETUP, *cells)]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells_of)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True)
    client.execute()
    del client
    gc.collect()  # what it left is cleaned up here, where no loop runs
    return [cell.outputs for cell in notebook.cells[1:]]


@pytest.mark.foreign_loop
def test_a_run_shows_a_graph_that_stays_as_it_ended_and_the_result_a_table():
    live, again, failed, pipeline = executed(
        "await run_pipeline([orders, large])",
        "result = await run_pipeline([orders, large])\nNone",
        "await run_pipeline([orders, large, bad])",
        "Pipeline([orders, large])",
    )
    shown = [output for output in live if output.output_type == "display_data"]
    assert len(shown) == 1
    svg = shown[0]["data"]["text/html"]
    assert svg.startswith("<svg ")
    assert svg.count("✓") == 2
    [result] = [output for output in live if output.output_type == "execute_result"]
    html = result["data"]["text/html"]
    assert "<svg" not in html  # it stands above already
    assert "2 steps, 2 succeeded" in html
    assert "2 steps, 2 succeeded" in result["data"]["text/plain"]
    assert [output.output_type for output in again] == ["display_data"]
    assert "✗ bad" in failed[0]["data"]["text/html"]
    assert failed[-1].output_type == "error"
    assert pipeline[0]["data"]["text/html"].startswith("<svg ")


@pytest.mark.foreign_loop
def test_a_result_that_is_shown_later_has_its_graph():
    _, later = executed("result = await run_pipeline([orders, large])\nNone", "result")
    html = later[0]["data"]["text/html"]
    assert html.count("<svg ") == 1
    assert "succeeded" in html


async def test_outside_of_a_notebook_results_are_drawn_on_request_and_nothing_is_imported():
    def bad() -> None:
        raise ValueError("<script>alert(1)</script>")

    before = "IPython" in sys.modules
    result = await run_pipeline([step(lambda: 1, name="<i>"), bad], on_error="continue")
    bundle = result._repr_mimebundle_()
    assert "&lt;i&gt;" in bundle["text/html"]
    assert "<script>" not in bundle["text/html"]
    assert bundle["text/plain"] == str(result)
    assert ("IPython" in sys.modules) is before
    assert Pipeline([bad])._repr_html_().startswith("<svg ")
