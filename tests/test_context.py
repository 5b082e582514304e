"""What a step registers is its own, and is dropped afterwards, whatever happens."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odibi_async.engines.pandas import PandasEngine
from odibi_async.engines.views import NodeContext
from odibi_async.errors import OptionError

FRAME = pd.DataFrame({"a": [1]})


class Engine:
    """The least that an engine is to a context."""

    def __init__(self) -> None:
        self.temps: dict[str, Any] = {}
        self.stuck: set[str] = set()

    def register_temp(self, name: str, frame: Any, /) -> None:
        self.temps[name] = frame

    def drop_temp(self, name: str, /) -> None:
        if name in self.stuck:
            raise OSError(name)
        del self.temps[name]


def test_a_view_is_named_by_node_session_thread_and_logical_name():
    context = NodeContext(Engine(), "clean", "s1")
    assert context.get_view_name("orders") == f"clean_s1_{threading.get_ident()}_orders"
    assert context.register_view("orders", FRAME) == context.get_view_name("orders")


def test_each_context_has_a_session_of_its_own():
    engine = Engine()
    names = {NodeContext(engine, "n").get_view_name("data") for _ in range(100)}
    assert len(names) == 100


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_any_text_becomes_an_identifier_and_stays_apart_from_others(texts: list[str]):
    nodes = [NodeContext(Engine(), text, "s").get_view_name("x") for text in texts]
    logicals = [NodeContext(Engine(), "n", "s").get_view_name(text) for text in texts]
    for names in (nodes, logicals):
        assert len(set(names)) == 2
        assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names)


@pytest.mark.parametrize("node", ["2020 sales", "a-b", "a.b", "ä", "", 'x"; DROP VIEW y', "n" * 500])
def test_view_names_need_no_quotes_in_sql(node: str):
    with PandasEngine() as engine, NodeContext(engine, node) as views:
        view = views.register_view("select", FRAME)
        assert engine.execute_sql(f"SELECT * FROM {view}", temps=[view])["a"][0] == 1


def test_views_are_dropped_whatever_happens():
    engine = Engine()
    with pytest.raises(ValueError, match="boom"), NodeContext(engine, "n") as views:  # noqa: PT012
        views.register_view("a", FRAME)
        views.register_view("b", FRAME)
        raise ValueError("boom")
    assert engine.temps == {}


def test_one_view_that_cannot_be_dropped_does_not_keep_the_others():
    engine = Engine()
    context = NodeContext(engine, "n")
    engine.stuck = {context.register_view("b", FRAME)}
    context.register_view("a", FRAME)
    context.register_view("c", FRAME)
    with pytest.raises(OSError, match="_b"):
        context.cleanup()
    assert set(engine.temps) == engine.stuck


def test_views_can_be_replaced_and_dropped_one_by_one():
    engine = Engine()
    with NodeContext(engine, "n", "s") as views:
        views.register_view("a", FRAME)
        view = views.register_view("a", FRAME * 2)
        assert engine.temps[view]["a"][0] == 2
        assert views.get_stats() == {"node": "n", "session": "s", "views": {"a": view}, "registered": 2}
        views.unregister_view("a")
        views.unregister_view("a")
        assert engine.temps == {}
    assert views.get_stats()["views"] == {}


def test_names_that_differ_by_case_only_are_refused():
    context = NodeContext(Engine(), "n")
    context.register_view("data", FRAME)
    with pytest.raises(OptionError, match="'data' and 'Data' are the same"):
        context.register_view("Data", FRAME)


def test_parallel_contexts_on_one_engine_do_not_see_each_other():
    with PandasEngine() as engine:

        def step(i: int) -> bool:
            with NodeContext(engine, "same") as views:
                view = views.register_view("data", pd.DataFrame({"i": [i]}))
                return bool(engine.execute_sql(f"SELECT i FROM {view}", temps=[view])["i"][0] == i)

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(step, range(300)))
        assert engine._temps == {}
