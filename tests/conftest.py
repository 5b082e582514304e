"""What all tests share: a blocked event loop fails the test, and so does anything that is left running."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from odibi_async.testing import Recorder

_home = itertools.count()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def the_user_s_folders_are_empty_and_nobody_s(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homes / str(next(_home))
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))


@pytest.fixture(autouse=True)
def blocking_the_loop_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    if "foreign_loop" in request.keywords:
        yield
        return
    with blockbuster_ctx():
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
