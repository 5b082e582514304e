"""The cache: a hit equals a recompute, and whatever is wrong with the disk is a miss with a reason."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pandas as pd
import pytest

from odibi_async.cache import Cache, Entry, Miss, upkeep
from odibi_async.cache import cache as caching
from odibi_async.cache import index as indexing
from odibi_async.cache.rows import _step_row
from odibi_async.cache_policy import CachePolicy
from odibi_async.errors import CacheUnavailable, Damaged, OptionError
from odibi_async.store.blobs import digest_of_bytes


def digest(name: object) -> str:
    return digest_of_bytes([str(name).encode()])


def value_of(name: object) -> str:
    """Larger than what stands in rows."""
    return f"{name} " * 3000


def put(cache: Cache, name: object, value: Any = None, **members: Any) -> Entry:
    kept = cache.store.keep(value_of(name) if value is None else value, digest(name))
    entry = Entry(**{"key": digest(name), "step": "clean", "kept": (kept,)} | members)
    cache.record(entry, {"code of clean": digest(name)})
    return entry


def found(cache: Cache, name: object, **options: Any) -> Any:
    """The value, or the reason of the miss."""
    entry = cache.lookup(digest(name), **options)
    return entry.reason if isinstance(entry, Miss) else cache.load(entry)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache")
    yield cache
    cache.close()


@contextlib.contextmanager
def opened(directory: Path, **options: Any) -> Iterator[Cache]:
    cache = Cache(directory, **options)
    yield cache
    cache.close()


def index_file(cache: Cache) -> Path:
    (newest,) = (cache.directory / "index").glob("*/cache.db")
    return newest


def folders_of_index(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "index").glob("*/"))


@contextlib.contextmanager
def rows(cache: Cache) -> Iterator[sqlite3.Connection]:
    """The index's file, opened by somebody else."""
    connection = sqlite3.connect(index_file(cache), isolation_level=None)
    yield connection
    connection.close()


# What it is for


def test_what_was_recorded_is_found_also_by_another_cache(cache: Cache):
    assert found(cache, "a") == "new"
    entry = put(cache, "a", tags=("daily",), cost=1.5)
    assert cache.lookup(entry.key) == entry
    cache.close()
    with opened(cache.directory) as other:
        assert other.lookup(entry.key) == entry
        assert found(other, "a") == value_of("a")
        assert found(other, "b") == "new"


def test_all_datasets_of_a_step_come_back_in_order(cache: Cache):
    values: list[Any] = [1, pd.DataFrame({"a": ["x"]}), None]
    kept = tuple(cache.store.keep(value, digest(n)) for n, value in enumerate(values))
    cache.record(Entry(key=digest("k"), step="split", kept=kept), {})
    entry = cache.lookup(digest("k"))
    assert isinstance(entry, Entry)
    assert [cache.load(entry, 0), cache.load(entry, 2)] == [1, None]
    pd.testing.assert_frame_equal(cache.load(entry, 1), values[1])


def test_making_a_cache_touches_no_disk(tmp_path: Path):
    Cache(tmp_path / "cache").close()
    assert list(tmp_path.iterdir()) == []
    assert Cache().directory.name == "odibi_async"


def test_an_entry_expires_after_its_ttl(tmp_path: Path):
    with opened(tmp_path, ttl=100) as cache:
        put(cache, "a", stored_at=time.time() - 50)
        assert found(cache, "a") == value_of("a")
        assert found(cache, "a", ttl=60) == value_of("a")
        assert found(cache, "a", ttl=40) == "expired"
        put(cache, "a", stored_at=time.time() - 101)
        assert found(cache, "a") == "expired"
        assert found(cache, "a", ttl=200) == value_of("a")
        put(cache, "a", stored_at=time.time() + 1000)
        assert found(cache, "a") == "expired"
        put(cache, "a")
        assert found(cache, "a") == value_of("a")


def test_a_miss_is_explained_by_what_differs_from_the_last_time(cache: Cache):
    parts = {"the code of clean": "1", "the param 'limit'": "2", "the input 'orders'": "3"}
    assert cache.why("clean", parts) == "new step"
    kept = cache.store.keep(1, digest(1))
    cache.record(Entry(key=digest(1), step="clean", kept=(kept,)), parts)
    assert cache.why("clean", parts) == "evicted"
    assert cache.why("clean", parts | {"the param 'limit'": "7"}) == "the param 'limit' changed"
    both = parts | {"the param 'limit'": "7", "the input 'orders'": "7"}
    assert cache.why("clean", both) == "the param 'limit' and the input 'orders' changed"
    assert cache.why("clean", dict.fromkeys(parts, "7")).endswith("the param 'limit' and the input 'orders' changed")
    assert cache.why("clean", {"the code of clean": "1", "the param 'x'": ""}) == (
        "the param 'x' is new, the param 'limit' and the input 'orders' are gone"
    )
    many = {f"the input '{n}'": "1" for n in range(5)}
    cache.record(Entry(key=digest(1), step="union \ud800", kept=(kept,)), many)
    assert cache.why("union \ud800", dict.fromkeys(many, "2")) == "the input '0', the input '1' and 3 more changed"


def test_hits_and_misses_are_counted_over_all_caches(cache: Cache):
    put(cache, "a")
    for _ in range(3):
        cache.lookup(digest("a"), step="clean")
    cache.lookup(digest("b"), step="other")
    cache.close()
    with opened(cache.directory) as other:
        other.lookup(digest("a"), step="clean")
        stats = other.stats()
        (listed,) = other.entries()
    size = len(value_of("a"))
    clean = {"entries": 1, "bytes": size, "hits": 4, "misses": 0, "hit_rate": 1.0}
    missed = {"entries": 0, "bytes": 0, "hits": 0, "misses": 1, "hit_rate": 0.0}
    overall = {"entries": 1, "bytes": size, "hits": 4, "misses": 1, "hit_rate": 0.8}
    assert stats == overall | {"steps": {"clean": clean, "other": missed}}
    assert (listed.hits, listed.size) == (4, size)
    assert 0 <= time.time() - listed.used_at < 60


def test_counts_are_written_every_so_often(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching, "FLUSHED", -1.0)
    put(cache, "a")
    cache.flush()
    cache.lookup(digest("a"))
    with opened(cache.directory) as other:
        assert other.stats()["hits"] == 1


def test_entries_are_forgotten_by_step_key_or_tag(cache: Cache):
    for name, step, tags in (("a", "x", ("t",)), ("b", "x", ()), ("c", "y", ("t", "u")), ("d", "z", ())):
        put(cache, name, step=step, tags=tags)
    assert cache.invalidate(step="x", tag="t") == 1
    assert [found(cache, name) for name in "abc"] == ["new", value_of("b"), value_of("c")]
    assert cache.invalidate(tag="u") == 1
    assert cache.invalidate(key=digest("d")) == 1
    assert cache.invalidate(step="nobody") == 0
    assert [entry.entry.key for entry in cache.entries()] == [digest("b")]
    with pytest.raises(OptionError):
        cache.invalidate()


def age(cache: Cache, *names: object, seconds: float = 1000) -> None:
    """Makes the files of these entries look unused for a while."""
    for name in names:
        entry = cache.lookup(digest(name), float("inf"))
        assert isinstance(entry, Entry)
        moment = time.time() - seconds
        os.utime(cache.store._path(entry.kept[0].blob), (moment, moment))
    cache._take_uses()


def put_old(cache: Cache, *names: object) -> None:
    for number, name in enumerate(names):
        put(cache, name, stored_at=time.time() - 2000 + number)
        age(cache, name, seconds=1000 - number)


def test_pruning_removes_the_least_recently_used_first(tmp_path: Path):
    with opened(tmp_path, size_limit=len(value_of("a")) * 2) as cache:
        put_old(cache, "a", "b", "c", "d")
        cache.lookup(digest("a"))
        removed = cache.prune()
        assert (removed.entries, removed.blobs, removed.bytes) == (2, 2, 2 * len(value_of("a")))
        assert [found(cache, name) for name in "abcd"] == [value_of("a"), "new", "new", value_of("d")]


def test_pruning_removes_what_is_older_than_the_ttl(tmp_path: Path):
    with opened(tmp_path, ttl=1500) as cache:
        put_old(cache, "a")
        put(cache, "b")
        removed = cache.prune()
        assert (removed.entries, removed.blobs) == (1, 1)
        assert [found(cache, name) for name in "ab"] == ["new", value_of("b")]


def test_a_file_that_another_entry_needs_stays(tmp_path: Path):
    with opened(tmp_path, ttl=1500) as cache:
        put_old(cache, "a")
        put(cache, "b", value_of("a"))
        age(cache, "b")
        removed = cache.prune()
        assert (removed.entries, removed.blobs) == (1, 0)
        assert found(cache, "b") == value_of("a")


def test_what_was_used_a_moment_ago_is_not_pruned(tmp_path: Path):
    with opened(tmp_path, size_limit=0) as cache:
        put(cache, "a")
        cache.store.keep(value_of("not recorded yet"), digest(1))
        assert (cache.prune().entries, cache.prune().blobs) == (0, 0)
        assert found(cache, "a") == value_of("a")


LEASED = """
import sys
from odibi_async.cache import Cache
cache = Cache(sys.argv[1], size_limit=0)
with cache.lease():
    entry = cache.lookup(sys.argv[2])
    print("found", flush=True)
    sys.stdin.readline()
    print(cache.load(entry)[:1], flush=True)
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("remove", [Cache.prune, Cache.clear])
def test_what_a_living_run_found_is_not_removed_however_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Cache], Any]
):
    monkeypatch.setattr(upkeep, "GRACE", 0.0)
    with opened(tmp_path, size_limit=0) as cache:
        put_old(cache, "a", "b")
        with started(LEASED, tmp_path, digest("a")) as reader:
            assert said(reader) == "found"
            assert remove(cache).blobs == 1
            assert reader.stdin
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert said(reader) == "a"
        assert remove(cache).blobs == 1
        assert list(cache.store.blobs()) == []


def test_much_that_is_recorded_leads_to_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "GRACE", 0.0)
    size = len(value_of("0"))
    for n in range(9):  # each by a cache of its own, and each too little to notice
        with opened(tmp_path, size_limit=3 * size) as cache:
            put(cache, n)
    assert len(list(cache.store.blobs())) <= 4


def test_nothing_is_pruned_while_the_index_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "GRACE", -60.0)
    with opened(tmp_path, size_limit=0) as cache:
        put_old(cache, "a")
        with rows(cache) as connection:
            connection.execute("BEGIN IMMEDIATE")
            assert cache.prune() == caching.Removed()
        assert len(list(cache.store.blobs())) == 1


def test_clearing_forgets_everything(cache: Cache):
    for name in "ab":
        put(cache, name)
    removed = cache.clear()
    assert (removed.entries, removed.blobs) == (2, 2)
    assert found(cache, "a") == "new"
    assert cache.why("clean", {}) == "new step"
    assert cache.stats()["entries"] == 0


def test_verifying_reads_everything_and_removes_what_is_damaged(cache: Cache):
    for name in "abcd":
        put(cache, name)
    path = {name: cache.store._path(put(cache, name).kept[0].blob) for name in "ab"}
    path["a"].write_bytes(b"x" + path["a"].read_bytes()[1:])
    path["b"].unlink()
    with rows(cache) as connection:
        connection.execute("UPDATE Cache SET value = 'x' WHERE key = ?", (f"entry/{digest('c')}",))
    report = cache.verify()
    assert (report.entries, report.blobs, len(report.damaged)) == (3, 1, 4)
    assert [found(cache, name) for name in "abcd"] == ["new", "new", "new", value_of("d")]
    assert cache.verify() == caching.Removed()


@pytest.mark.parametrize(
    ("text", "size"), [("10GB", 10**10), ("1.5 MB", 1_500_000), ("2GiB", 2**31), ("7b", 7), (12, 12), ("1kb", 1000)]
)
def test_sizes_have_units(tmp_path: Path, text: Any, size: int):
    assert Cache(tmp_path, size_limit=text).size_limit == size


@pytest.mark.parametrize(
    "options", [{"size_limit": "much"}, {"size_limit": -1}, {"ttl": 0}, {"pickle": "signed"}, {"size_limit": True}]
)
def test_impossible_options_are_refused(tmp_path: Path, options: Any):
    with pytest.raises(OptionError):
        Cache(tmp_path, **options)


@pytest.mark.parametrize("options", [{"ttl": -1}, {"ttl": float("nan")}])
def test_impossible_policies_are_refused(options: Any):
    with pytest.raises(OptionError):
        CachePolicy(**options)


def test_many_threads_share_a_cache(cache: Cache):
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for n in random.Random(seed).choices(range(20), k=60):
            if (value := found(cache, n)) not in ("new", value_of(n)):
                wrong.append(value)
            put(cache, n)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.trouble is None
    assert cache.stats()["entries"] == 20


# Damaged datasets


def test_a_dataset_that_is_missing_or_cut_short_is_a_miss(cache: Cache):
    for spoil in (Path.unlink, lambda path: os.truncate(path, 10)):
        path = cache.store._path(put(cache, "a").kept[0].blob)
        spoil(path)
        assert found(cache, "a") == "damaged: one of its files is missing, or has another length."
        assert found(cache, "a") == "new"


def test_a_dataset_with_wrong_bytes_is_found_on_loading_and_forgotten(cache: Cache):
    entry = put(cache, "a")
    path = cache.store._path(entry.kept[0].blob)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    hit = cache.lookup(entry.key)
    assert isinstance(hit, Entry)
    with pytest.raises(Damaged):
        cache.load(hit)
    assert found(cache, "a") == "new"
    put(cache, "a")
    assert found(cache, "a") == value_of("a")


# A damaged index


def recovers(directory: Path, names: Any = "abc") -> None:
    """No exception, no wrong value, and after recording again all is found."""
    with opened(directory) as cache:
        for name in names:
            reason = found(cache, name)
            assert reason == value_of(name) or reason == "new" or "damaged" in reason, reason
        cache.stats(), cache.entries(), cache.verify(), cache.prune(), cache.why("clean", {})
        with contextlib.suppress(CacheUnavailable):  # the index is begun anew by the first who finds it damaged
            put(cache, "a")
        put(cache, "a")
        assert found(cache, "a") == value_of("a")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory with three entries, and nobody using it."""
    with opened(tmp_path / "closed") as cache:
        for name in "abc":
            put(cache, name)
            cache.lookup(digest(name))
    return tmp_path / "closed"


def test_every_flipped_page_of_the_index_is_at_worst_a_miss(closed: Path, tmp_path: Path):
    pages = (closed / "index/1/cache.db").stat().st_size // 4096
    assert pages >= 5
    for page in range(pages):
        for first, last in ((0, 16), (16, 4096), (2000, 2100)):
            directory = shutil.copytree(closed, tmp_path / f"{page}-{first}")
            path = directory / "index/1/cache.db"
            data = bytearray(path.read_bytes())
            for position in range(page * 4096 + first, page * 4096 + last):
                data[position] ^= 0xFF
            path.write_bytes(data)
            recovers(directory)
            shutil.rmtree(directory)


def test_every_truncation_of_the_index_is_at_worst_a_miss(closed: Path, tmp_path: Path):
    size = (closed / "index/1/cache.db").stat().st_size
    for length in [*range(0, size, 4096), 1, 99, 100, 5000, size - 1]:
        directory = shutil.copytree(closed, tmp_path / str(length))
        os.truncate(directory / "index/1/cache.db", length)
        recovers(directory)
        shutil.rmtree(directory)


def test_an_index_that_is_another_file_is_replaced(closed: Path):
    path = closed / "index/1/cache.db"
    for data in (b"", b"hello " * 5000, pickle.dumps({"a": 1})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        recovers(closed)
        shutil.rmtree(closed / "index")
        recovers(closed)
        shutil.rmtree(closed / "index")


def test_an_index_that_is_another_database_is_replaced(closed: Path):
    path = closed / "index/1/cache.db"
    for statement in (
        "CREATE TABLE Cache (key, value)",
        "CREATE VIEW Cache AS SELECT 1 AS key",
        "CREATE TABLE Settings (a)",
        "CREATE TABLE Settings (key, value); INSERT INTO Settings VALUES (x'00', 1), ('b', 2)",
        "CREATE TABLE Settings (key, value); INSERT INTO Settings VALUES ('disk_directory', '/')",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(statement)
        recovers(closed)
        shutil.rmtree(closed / "index")


def test_an_index_that_is_spoilt_while_it_is_open_is_at_worst_a_miss(cache: Cache):
    for spoil in (lambda path: path.write_bytes(b"x" * 30_000), lambda path: os.truncate(path, 5000), Path.unlink):
        for name in "abc":
            put(cache, name)
        with rows(cache) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        spoil(index_file(cache))
        for name in "abc":
            assert found(cache, name) in ("new", value_of(name)) or cache.trouble
        cache.close()
        recovers(cache.directory)


def test_a_damaged_index_is_told_of(closed: Path):
    (closed / "index/1/cache.db").write_bytes(b"x" * 8192)
    with opened(closed) as cache:
        assert found(cache, "a") == "new"
        assert cache.trouble == "the index was damaged (file is not a database), and an empty one was begun"
    assert folders_of_index(closed) == ["1", "2"]
    with opened(closed) as cache:
        put(cache, "a")
        assert cache.trouble is None
    assert folders_of_index(closed) == ["2"]


def test_processes_that_find_the_same_damage_go_on_with_one_index(closed: Path):
    path = closed / "index/1/cache.db"
    with opened(closed) as one, opened(closed) as other:
        for cache in (one, other):
            assert found(cache, "a") == value_of("a")
        with rows(one) as connection:
            connection.execute("DROP TABLE Cache")
        for cache in (one, other):
            assert "damaged (no such table: Cache)" in found(cache, "a")
        assert folders_of_index(closed) == ["1", "2"]
        put(one, "a")
        assert found(other, "a") == value_of("a")
    assert not path.exists()


# Rows that others wrote


def test_a_rewritten_row_is_damage(cache: Cache):
    put(cache, "a")
    put(cache, "b")
    key, other = f"entry/{digest('a')}", f"entry/{digest('b')}"
    with rows(cache) as connection:
        good = connection.execute("SELECT raw, mode, filename, value FROM Cache WHERE key = ?", (key,)).fetchone()
        foreign = connection.execute("SELECT value FROM Cache WHERE key = ?", (other,)).fetchone()[0]
        for change in (
            {"value": foreign},
            {"value": good[3][:-1]},
            {"value": good[3].replace("clean", "other")},
            {"value": ""},
            {"value": None},
            {"value": 7},
            {"value": 1.5},
            {"value": b"\xff\xfe"},
            {"mode": 4},
            {"mode": 3, "filename": "../../../../../../../../etc/passwd", "value": None},
            {"mode": 2, "filename": "cache.db", "value": None},
            {"mode": "x"},
            {"filename": "../1/cache.db"},
        ):
            names = ", ".join(f"{name} = ?" for name in change)
            connection.execute(f"UPDATE Cache SET {names} WHERE key = ?", (*change.values(), key))
            assert found(cache, "a").startswith("damaged: its row"), change
            assert found(cache, "a") == "new"
            put(cache, "a")
            assert found(cache, "a") == value_of("a")
    assert index_file(cache).exists()


def test_removing_a_row_removes_no_file_that_it_names(cache: Cache, tmp_path: Path):
    precious = tmp_path / "precious"
    for remove in (lambda: put(cache, "a"), lambda: cache.invalidate(key=digest("a")), cache.clear, cache.verify):
        precious.write_text("")
        put(cache, "a")
        with rows(cache) as connection:
            connection.execute("UPDATE Cache SET filename = ?", (str(precious),))
        remove()
        assert precious.exists()


def test_a_sound_row_with_nonsense_is_damage(cache: Cache):
    sound = '{"step": "s", "kept": [], "tags": [], "stored_at": 1, "cost": 1}'
    nonsense = ["", "[]", "{}", '{"step": 1, "kept": [{}], "tags": []}', '{"kept": 7}', "nonsense"]
    for text in (*nonsense, sound.replace('"s"', "1"), sound.replace("1,", '"1",')):
        cache._rows.index().put(f"entry/{digest('a')}", text)
        reason = found(cache, "a")
        assert reason in ("damaged: its row in the index cannot be read.", "damaged: its description cannot be read.")
        assert found(cache, "a") == "new"


@pytest.mark.parametrize(
    "text", ["", "[]", "nonsense", '{"hits": "x", "parts": 1, "step": [], "used_at": null, "bytes": "x"}']
)
def test_counts_and_explanations_that_are_nonsense_begin_anew(cache: Cache, text: str):
    put(cache, "a")
    for name in (f"use/{digest('a')}", _step_row("clean"), "written"):
        cache._rows.index().put(name, text)
    assert cache.why("clean", {}) == "new step"
    cache.lookup(digest("a"))
    assert (cache.stats()["hits"], cache.stats()["steps"]["clean"]["hits"]) == (1, 1)
    assert cache.prune().entries == 0
    put(cache, "a")
    assert cache.trouble is None


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"import pathlib; pathlib.Path({str(self.path)!r}).touch()",)


def test_planted_pickles_run_no_code(cache: Cache, tmp_path: Path):
    trap = tmp_path / "trap"
    hostile = pickle.dumps(Trap(trap))
    blob = cache.store._path(put(cache, "a").kept[0].blob)
    file = index_file(cache).parent / "00" / "00.val"
    file.parent.mkdir()
    file.write_bytes(hostile)
    with rows(cache) as connection:
        connection.execute("UPDATE Cache SET mode = 4, value = ?", (hostile,))
        connection.execute("INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 4, ?)", (hostile, hostile))
        connection.execute("INSERT INTO Cache (key, raw, mode, filename) VALUES ('entry/x', 1, 4, '00/00.val')")
        for key in ("disk_pickle_protocol", "size", "count", "get", "_directory", "sqlite_x", "disk_min_file_size"):
            connection.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, hostile))
    blob.write_bytes(hostile)
    cache.close()
    with opened(cache.directory) as other:
        assert found(other, "a").startswith("damaged")
        assert found(other, "x") == "new"
        other.stats(), other.entries(), other.verify(), other.prune(), other.invalidate(step="x"), other.clear()
        put(other, "a")
        assert found(other, "a") == value_of("a")
    assert not trap.exists()
    pickle.loads(hostile)
    assert trap.exists()  # the trap is one


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_directory", "/nowhere"),
        ("directory", "/nowhere"),
        ("get", 1),
        ("disk_remove", 1),
        ("statistics", 1),
        ("eviction_policy", "least-recently-used"),
        ("eviction_policy", "nonsense"),
        ("cull_limit", 100),
        ("size_limit", 0),
        ("sqlite_mmap_size", 2**26),
        ("sqlite_journal_mode", "memory"),
        ("sqlite_query_only", 1),
        ("sqlite_writable_schema = 1 --", 1),
        ("_con", None),
    ],
)
def test_foreign_settings_change_nothing(cache: Cache, key: str, value: Any):
    put(cache, "a")
    with rows(cache) as connection:
        connection.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, value))
    cache.close()
    with opened(cache.directory) as other:
        assert found(other, "a") == value_of("a")
        put(other, "b")
        assert found(other, "b") == value_of("b")
        opened_rows: Any = other._rows.index()
        connection = opened_rows._rows._con
        assert connection.execute("PRAGMA mmap_size").fetchall() in ([], [(0,)])
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.trouble is None


# An index that cannot be used


def test_a_locked_index_delays_a_run_once_and_misses(cache: Cache):
    put(cache, "a")
    with rows(cache) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert found(cache, "a") == value_of("a")  # who writes does not keep others from reading
        began = time.monotonic()
        for name in range(50):
            kept = cache.store.keep(name, digest(name))
            with pytest.raises(CacheUnavailable, match="locked"):
                cache.record(Entry(key=digest(name), step="s", kept=(kept,)), {})
        assert found(cache, "a") == cache.trouble == "the index is locked, or cannot be written to"
        assert time.monotonic() - began < 5
        cache.flush()
        connection.execute("ROLLBACK")
    rests: Any = cache._rows.index()
    rests._resting_until = 0.001
    assert found(cache, "a") == value_of("a")
    assert cache.trouble is None
    assert cache.stats()["hits"] == 2  # what was counted meanwhile is not lost


def test_an_index_that_is_locked_at_opening_misses(closed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "GRACE", -60.0)
    with contextlib.closing(sqlite3.connect(closed / "index/1/cache.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = exclusive")
        connection.execute("BEGIN EXCLUSIVE")
        with opened(closed) as cache:
            began = time.monotonic()
            assert "the index cannot be used: database is locked" in found(cache, "a")
            assert time.monotonic() - began < 5
            assert cache.entries() == []
            assert cache.invalidate(step="clean") == 0
            assert cache.clear() == caching.Removed()
            assert cache.why("clean", {}) == cache.trouble
            assert cache.prune() == caching.Removed()
    assert (
        len(list(Cache(closed).store.blobs())) == 3
    )  # an index that cannot be read does not say that nothing is needed
    recovers(closed)
    assert folders_of_index(closed) == ["1"]


def test_a_directory_that_cannot_be_made_misses_and_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with opened(tmp_path / "file" / "cache") as cache:
        assert found(cache, "a") == cache.trouble == "the index cannot be opened: Not a directory"
        with pytest.raises(CacheUnavailable, match="Not a directory"):
            cache.record(Entry(key=digest("a"), step="s", kept=()), {})
        with cache.lease():
            flight = cache.flight(digest("a"))
            assert flight.try_acquire()
            flight.release()
        assert cache.stats()["entries"] == 0
        assert cache.prune() == cache.clear() == cache.verify() == caching.Removed()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR])
def test_a_disk_that_fails_under_the_index_is_unavailable_and_loses_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, code: int
):
    put(cache, "a")
    number, calls, original = 0, 0, indexing._Rows.set

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = code
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(indexing._Rows, "set", failing)
    for number in (1, 2):  # noqa: B007
        calls = 0
        with pytest.raises(CacheUnavailable, match="disk is full"):
            put(cache, "b")
        rests: Any = cache._rows.index()
        rests._resting_until = 0.001
        assert found(cache, "a") == value_of("a")
        assert found(cache, "b") == "new"
    put(cache, "b")
    assert found(cache, "b") == value_of("b")


def test_a_directory_without_room_for_files_still_finds_what_is_there(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    put(cache, "a")

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(1, "Read-only file system")

    for name in ("utime", "replace", "mkdir", "makedirs"):
        monkeypatch.setattr(os, name, read_only)
    assert found(cache, "a") == value_of("a")
    with pytest.raises(OSError, match="Read-only"):
        cache.store.keep(value_of("b"), digest("b"))


# Between processes

HOLDING = """
import sys
from odibi_async.cache import Cache
flight = Cache(sys.argv[1]).flight(sys.argv[2])
print(flight.try_acquire(), flush=True)
sys.stdin.readline()
"""


def test_one_process_at_a_time_computes_a_key_and_a_killed_one_gives_way(cache: Cache):
    flight, stranger = cache.flight(digest("a")), cache.flight(digest("b"))
    with started(HOLDING, cache.directory, digest("a")) as holder:
        assert said(holder) == "True"
        assert not flight.try_acquire()
        assert stranger.try_acquire()
        holder.kill()
        holder.wait()
    assert flight.try_acquire()
    with started(HOLDING, cache.directory, digest("a")) as loser:
        assert said(loser) == "False"
        loser.communicate("\n")
    flight.release()
    stranger.release()
    stranger.release()
    assert list((cache.directory / "locks").iterdir()) == []


def test_flights_of_one_key_exclude_each_other_within_a_process(cache: Cache):
    inside = most = 0

    def fly() -> None:
        nonlocal inside, most
        for _ in range(20):
            flight = cache.flight(digest("a"))
            while not flight.try_acquire():
                time.sleep(0.001)
            inside += 1
            most = max(most, inside)
            time.sleep(0.0005)
            inside -= 1
            flight.release()

    threads = [threading.Thread(target=fly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


WORKING = """
import random, sys, time
from odibi_async.cache import Cache, Entry
from odibi_async.errors import CacheUnavailable, Damaged
from odibi_async.store.blobs import digest_of_bytes

def digest(name):
    return digest_of_bytes([str(name).encode()])

directory, seed = sys.argv[1:]
chance = random.Random(int(seed))
cache = Cache(directory, size_limit="400kB")
while True:
    n = chance.randrange(40)
    right = f"{n} " * (3000 if n % 2 else 3)
    began = time.monotonic()
    with cache.lease():
        flight = cache.flight(digest(n))
        if flight.try_acquire():
            entry = cache.lookup(digest(n), step="s")
            if isinstance(entry, Entry):
                assert cache.load(entry) == right, "a wrong value"
            else:
                kept = cache.store.keep(right, digest(n))
                try:
                    cache.record(Entry(key=digest(n), step="s", kept=(kept,)), {"n": digest(n)})
                except CacheUnavailable:
                    pass
            flight.release()
    if chance.random() < 0.02:
        chance.choice([cache.flush, cache.prune, cache.close, cache.stats])()
    assert time.monotonic() - began < 5, "a hang"
    print(n, flush=True)
"""


@pytest.mark.parametrize("runs", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_processes_leave_nothing_wrong(tmp_path: Path, runs: int):
    chance = random.Random(7)
    for run in range(runs):
        errors = [(tmp_path / f"{run}-{n}").open("w+") for n in range(4)]
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKING, tmp_path / "c", str(run * 4 + n)], stdout=error, stderr=error
            )
            for n, error in enumerate(errors)
        ]
        time.sleep(0.5 + chance.random())
        for worker in workers:
            time.sleep(chance.random() / 20)
            worker.kill()
        for worker, error in zip(workers, errors, strict=True):
            assert worker.wait() == -signal.SIGKILL, Path(error.name).read_text()[-2000:]
            error.close()
    with opened(tmp_path / "c") as cache:
        for n in range(40):
            assert found(cache, n) in ("new", f"{n} " * (3000 if n % 2 else 3))
        put(cache, "x")
        assert cache.trouble is None
        left = [path for path in (tmp_path / "c" / "work").rglob("*") if path.is_file() and path.suffix != ".lock"]
        assert left == []
        assert cache.verify().damaged == ()


async def test_a_flight_and_a_lookup_work_in_worker_threads(cache: Cache):
    flight = cache.flight(digest("a"))
    assert await anyio.to_thread.run_sync(flight.try_acquire)
    await anyio.to_thread.run_sync(flight.release)
    assert await anyio.to_thread.run_sync(found, cache, "a") == "new"
    await anyio.to_thread.run_sync(cache.close)


def test_importing_the_cache_loads_nothing_heavy():
    heavy = ("pandas", "numpy", "pyarrow", "diskcache", "sqlite3", "filelock", "blake3", "platformdirs", "pickle")
    code = f"import sys, odibi_async.cache as c; c.Cache('x'); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
