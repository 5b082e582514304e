"""The directory that a cache shares with the workers of a cluster: data are kept and found there, and do not travel."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from odibi_async import Cache, Runner, Status, step
from odibi_async.cache.stored import Stored
from odibi_async.errors import Damaged, OptionError
from odibi_async.events import CacheBypassed, CacheDamaged, CacheNotShared
from odibi_async.executors.dask import DaskExecutor
from odibi_async.store.shared import SharedStore, load_from
from odibi_async.testing import Recorder
from tests.test_dask import Counting, address  # noqa: F401


def made(n: int) -> pd.DataFrame:
    return pd.DataFrame({"n": np.arange(50_000) + n})


def more(made: pd.DataFrame) -> pd.DataFrame:
    return made.assign(more=made["n"] + 1)


def total(more: pd.DataFrame) -> int:
    return int(more["more"].sum())


STEPS = [step(fn, run_on="dask") for fn in (made, more, total)]
RIGHT = sum(range(1, 50_001)) + 50_000


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "local", tmp_path / "shared"


class Travels(Counting):
    """Notes what kinds of values come here."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kinds: list[str] = []

    async def fetch(self, handle: Any) -> Any:
        value = await super().fetch(handle)
        self.kinds.append(type(value).__name__)
        return value


def executor_of(cluster_address: str) -> tuple[DaskExecutor, Travels]:
    executor = DaskExecutor(cluster_address)
    executor.data = data = Travels(executor.cluster)
    return executor, data


async def run(address: str, cache: Cache, steps: Any = STEPS, **options: Any) -> tuple[Any, Travels, Recorder]:  # noqa: F811
    executor, data = executor_of(address)
    heard = Recorder()
    async with Runner(executors={"dask": executor}, cache=cache) as runner:
        result = await runner.run(steps, options.pop("inputs", {"n": 1}), observers=[heard], **options)
    await asyncio.to_thread(cache.close)
    return result, data, heard


def blobs_in(folder: Path) -> list[Path]:
    return [*folder.glob("blobs/*/*")]


def damage(folder: Path) -> None:
    for blob in blobs_in(folder):
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)


async def test_what_was_kept_on_the_cluster_is_found_by_another_machine_and_does_not_travel(
    address: str,  # noqa: F811
    folders: tuple[Path, Path],
):
    local, shared = folders
    result, data, _ = await run(address, Cache(local, shared=shared), targets=["total"])
    assert result["total"] == RIGHT
    assert (data.sent, data.kinds) == (0, ["Report"] * 3)
    other = Cache(local.with_name("other"), shared=shared)
    later = [*STEPS[:2], step(lambda more: int(more["more"].sum()) + 1, name="total", run_on="dask")]
    result, data, _ = await run(address, other, later, targets=["total"])
    assert [str(each.status) for each in result.steps.values()] == ["cached", "cached", "succeeded"]
    assert result["total"] == RIGHT + 1
    assert (data.sent, data.kinds) == (0, ["Report"])
    assert await asyncio.to_thread((local / "index").exists)
    assert await asyncio.to_thread(blobs_in, local) == []
    assert len(await asyncio.to_thread(blobs_in, shared)) == 2


async def test_a_hit_is_what_was_made(address: str, folders: tuple[Path, Path]):  # noqa: F811
    local, shared = folders
    first, _, _ = await run(address, Cache(local, shared=shared))
    again, data, _ = await run(address, Cache(local, shared=shared))
    assert {each.status for each in again.steps.values()} == {Status.CACHED}
    pd.testing.assert_frame_equal(first["more"], again["more"])
    assert data.kinds == []  # the caller reads the shared directory, too
    cache = Cache(local, shared=shared)
    assert (await asyncio.to_thread(cache.explain, "more"))["hits"] == 1
    await asyncio.to_thread(cache.close)


async def test_elements_are_kept_one_by_one(address: str, folders: tuple[Path, Path]):  # noqa: F811
    mapped = step(lambda n: [n, n], name="pairs", map_over="n", inputs={"n": "ns"}, run_on="dask")
    summed = step(lambda pairs: sum(sum(each) for each in pairs), name="sum", run_on="dask")
    cache = Cache(folders[0], shared=folders[1])
    result, _, _ = await run(address, cache, [mapped, summed], inputs={"ns": [1, 2, 3]})
    assert (result["pairs"], result["sum"]) == ([[1, 1], [2, 2], [3, 3]], 12)
    result, data, _ = await run(address, cache, [mapped, summed], inputs={"ns": [3, 1, 4]}, targets=["sum"])
    assert result["sum"] == 16
    assert data.kinds.count("Report") == 2  # of the new element, and of the sum


async def test_what_a_worker_finds_damaged_is_made_again(address: str, folders: tuple[Path, Path]):  # noqa: F811
    local, shared = folders
    await run(address, Cache(local, shared=shared), targets=["total"])
    await asyncio.to_thread(damage, shared)
    later = [*STEPS[:2], step(lambda more: int(more["more"].sum()) + 1, name="total", run_on="dask")]
    result, _, heard = await run(address, Cache(local, shared=shared), later, targets=["total"])
    assert result["total"] == RIGHT + 1
    assert [event.step for event in heard.of(CacheDamaged)] == ["more", "made"]
    result, _, heard = await run(address, Cache(local, shared=shared), targets=["more"])
    assert result["more"]["more"].sum() == RIGHT


async def test_what_cannot_be_kept_goes_on_uncached(address: str, folders: tuple[Path, Path]):  # noqa: F811
    steps = [
        step(lambda n: {object} if n else None, name="odd", run_on="dask"),
        step(lambda odd: len(odd), name="size", run_on="dask"),
        step(lambda n: None, name="nothing", run_on="dask"),
    ]
    result, _, heard = await run(address, Cache(folders[0], shared=folders[1]), steps)
    assert (result["size"], result["nothing"]) == (1, None)
    reasons = {event.step: event.reason for event in heard.of(CacheBypassed)}
    assert "not kept" in reasons["odd"]
    assert "run for its effects" in reasons["nothing"]


@pytest.mark.parametrize("broken", ["rename", "append"])
async def test_a_directory_that_cannot_be_written_to_is_read_only(
    address: str,  # noqa: F811
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
):
    local, shared = folders
    await run(address, Cache(local, shared=shared), targets=["total"])
    if broken == "rename":

        def replace(*_: Any) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("odibi_async.store.shared.os.replace", replace)
    else:
        monkeypatch.setattr("odibi_async.store.shared.Path.read_bytes", lambda _: b"one")
    # a store that this process has not probed yet
    other = Cache(local.with_name("other"), shared=shared)
    result, _, heard = await run(address, other, targets=["total"])
    assert {each.status for each in result.steps.values()} == {Status.CACHED}
    [event] = heard.of(CacheNotShared)
    assert "only read from" in event.reason


async def test_a_directory_that_cannot_be_used_is_not_used(address: str, folders: tuple[Path, Path]):  # noqa: F811
    local, shared = folders
    await asyncio.to_thread(shared.write_text, "a file")
    result, _, heard = await run(address, Cache(local, shared=shared), targets=["total"])
    assert result["total"] == RIGHT
    assert "it is not used" in heard.of(CacheNotShared)[0].reason
    result, _, _ = await run(address, Cache(local, shared=shared), targets=["total"])
    assert result.steps["total"].status is Status.CACHED  # in the cache's own directory


async def test_workers_that_do_not_see_the_directory_are_sent_what_they_read(
    address: str,  # noqa: F811
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
):
    local, shared = folders
    await run(address, Cache(local, shared=shared), targets=["total"])
    cache = Cache(local.with_name("other"), shared=shared)
    later = [*STEPS[:2], step(lambda more: int(more["more"].sum()) + 1, name="total", run_on="dask")]
    monkeypatch.setattr(Stored, "by_path", property(lambda self: (load_from, ("/nowhere", self.kept))))
    result, data, _ = await run(address, cache, later, targets=["total"])
    assert result["total"] == RIGHT + 1
    assert result.steps["more"].status is Status.CACHED
    assert data.sent == 1


def test_a_path_that_is_another_one_elsewhere_is_refused():
    with pytest.raises(OptionError, match="a path from the root"):
        Cache("local", shared="shared")


def test_half_written_files_of_writers_that_died_are_removed(tmp_path: Path):
    store = SharedStore(tmp_path)
    store.probe()
    left = tmp_path / "new" / "left"
    left.write_text("half")
    os.utime(left, (0, 0))
    assert store.probe() == ("", True)
    assert list((tmp_path / "new").iterdir()) == []


def test_values_come_back_from_a_read_only_store(tmp_path: Path):
    store = SharedStore(tmp_path)
    kept = store.keep("text" * 5000, "0" * 64)
    assert store.has(kept)
    assert store.load(kept) == "text" * 5000
    shutil.rmtree(tmp_path / "blobs")
    with pytest.raises(Damaged):
        store.load(kept)
