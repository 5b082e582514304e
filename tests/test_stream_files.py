"""Files as a source of streams: each content once, whole, whatever happens in the directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async.errors import ExtraMissing, OptionError, SourceFailed
from odibi_async.events import BatchFinished, BatchRetrying, BatchSetAside
from odibi_async.stream import Files, Stream, run_stream
from odibi_async.stream import files as module
from odibi_async.stream.listing import Pattern
from odibi_async.testing import Recorder, VirtualLoop

pytestmark = pytest.mark.foreign_loop  # the tests write files where they stand


class Folder:
    """A directory, and streams over it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "in"
        self.path.mkdir()
        self.journal = path / "journal"
        self.taken: list[Any] = []
        self.heard = Recorder()

    def write(self, name: str, text: str = "a\n1\n") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def stream(self, *, where: Any = None, fails: Callable[[Any], object] = id, **options: Any) -> Stream:
        def keep(batch: Any) -> None:
            fails(batch)
            self.taken.append(batch)

        of_stream = {name: options.pop(name) for name in ("attempts", "on_poison", "name") if name in options}
        options = {"settle": 0, "watch": False, "read": Path.read_text, **options}
        source = Files(self.path if where is None else where, **options)
        about = {"wait": 0.001, "observers": [self.heard], "name": "files", **of_stream}
        return run_stream([keep], source, into="batch", journal=self.journal, **about)

    def drained(self, **options: Any) -> list[Any]:
        """What a stream takes that is started, drained and over."""
        self.taken.clear()
        asyncio.run(_drained(self.stream(**options)))
        return list(self.taken)


async def _drained(stream: Stream) -> None:
    await stream.drain()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# -- what is taken -----------------------------------------------------------------------------------------


def test_each_file_is_a_batch_in_the_order_of_names(folder: Folder):
    for name in ("b.txt", "a.txt", "c.txt"):
        folder.write(name, name)
    assert folder.drained() == ["a.txt", "b.txt", "c.txt"]
    assert [event.pending for event in folder.heard.of(BatchFinished)] == [2, 1, 0]
    assert folder.drained() == []


def test_files_are_read_by_their_suffix(folder: Folder):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    frame.to_csv(folder.path / "1.csv", index=False)
    frame.to_parquet(folder.path / "2.parquet", index=False)
    frame.to_json(folder.path / "3.jsonl", orient="records", lines=True)
    frame.to_csv(folder.path / "4.csv.gz", index=False)
    frame.to_csv(folder.path / "5", index=False, sep=";")
    taken = folder.drained(read=None, file_pattern="*.*")
    assert len(taken) == 4
    for each in taken:
        pd.testing.assert_frame_equal(each, frame)
    [last] = folder.drained(read=None, format="csv", read_options={"sep": ";"}, file_pattern="5")
    pd.testing.assert_frame_equal(last, frame)
    assert [event.rows for event in folder.heard.of(BatchFinished)] == [2] * 5


def test_a_renamed_touched_or_copied_file_is_not_taken_twice(folder: Folder):
    folder.write("a", "one")
    folder.write("b", "two")
    folder.write("c", "three")
    assert len(folder.drained()) == 3
    os.rename(folder.path / "a", folder.path / "d")
    os.utime(folder.path / "b", (0, 0))
    shutil.copy(folder.path / "c", folder.path / "e")
    assert folder.drained() == []


def test_a_file_that_is_replaced_by_another_content_is_taken_again(folder: Folder):
    path = folder.write("a", "one")
    times = path.stat()
    assert folder.drained() == ["one"]
    path.write_text("two")  # as long as before, and as old
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder.drained() == ["two"]
    other = folder.write(".other", "three")
    os.replace(other, path)
    assert folder.drained() == ["three"]


def test_a_file_that_is_deleted_and_comes_back_is_known(folder: Folder):
    path = folder.write("a", "one")
    assert folder.drained() == ["one"]
    path.unlink()
    assert folder.drained() == []
    folder.write("a", "one")
    assert folder.drained() == []


def test_files_of_equal_content_are_different_ones_where_names_count(folder: Folder):
    folder.write("a", "same")
    folder.write("b", "same")
    assert folder.drained() == ["same"]
    assert folder.drained(identity="name", name="by name") == ["same", "same"]
    os.utime(folder.path / "a", (0, 0))
    assert folder.drained(identity="name", name="by name") == []


def test_hidden_files_and_other_names_are_left_out(folder: Folder):
    for name in (".hidden.csv", "a.csv", "b.txt", "deep/c.csv", "deep/er/d.csv", ".secret/e.csv"):
        folder.write(name, name)
    assert folder.drained(file_pattern="*.csv") == ["a.csv"]
    assert folder.drained(where=folder.path / "*.txt") == ["b.txt"]
    assert folder.drained(where=folder.path / "**" / "*.csv") == ["deep/c.csv", "deep/er/d.csv"]
    assert folder.drained(where=folder.path / "*" / "*.csv", name="other") == ["deep/c.csv"]


def test_a_link_that_leads_nowhere_or_in_a_circle_is_no_file(folder: Folder):
    folder.write("deep/a.csv", "a")
    for name in ("circle", "nowhere"):
        (folder.path / name).symlink_to(folder.path / name.replace("nowhere", "missing"))
    assert folder.drained() == []
    assert folder.drained(where=folder.path / "*" / "*.csv") == ["a"]


def test_patterns_know_their_directory(tmp_path: Path):
    (tmp_path / "[x]").mkdir()
    assert Pattern(tmp_path / "[x]", "*").base == tmp_path / "[x]"
    assert Pattern(tmp_path / "a*" / "b", "*").base == tmp_path
    assert Pattern(tmp_path / "a*" / "b", "*").is_deep
    assert not Pattern(tmp_path / "*.csv", "*").is_deep
    assert str(Pattern(tmp_path, "*.csv")) == str(tmp_path / "*.csv")


def test_a_marker_says_that_a_file_is_whole(folder: Folder):
    folder.write("a.csv", "a")
    folder.write("b.csv", "b")
    folder.write("b.csv.done", "")
    assert folder.drained(done="{}.done", settle=1000) == ["b"]
    folder.write("a.csv.done", "")
    assert folder.drained(done="{}.done") == ["a"]
    folder.write("day/c", "c")
    pattern = folder.path / "*" / "*"
    assert folder.drained(where=pattern, done="_SUCCESS") == []
    folder.write("day/_SUCCESS", "")
    assert folder.drained(where=pattern, done="_SUCCESS") == ["c"]


# -- files that are being written --------------------------------------------------------------------------


def test_a_file_is_taken_when_it_has_not_changed_for_a_while(folder: Folder):
    """By the clock of the loop, which nobody sets: the file's own times say anything."""
    path = folder.write("a", "half")
    os.utime(path, (10**9, 10**9))
    looks = []

    async def main() -> None:
        async with folder.stream(settle=5, interval=60) as stream:
            for text in (" and", " half", " whole"):
                await asyncio.sleep(4)
                looks.append(list(folder.taken))
                with path.open("a") as file:
                    file.write(text)
                os.utime(path, (2 * 10**9, 2 * 10**9))
            await stream.drain()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert looks == [[], [], []]
    assert folder.taken == ["half and half whole"]


def test_a_drain_waits_until_a_file_has_settled(folder: Folder):
    folder.write("a", "quiet")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_drained(folder.stream(settle=30)))
        assert runner.get_loop().time() >= 30
    assert folder.taken == ["quiet"]


def test_a_file_that_grows_does_not_keep_others_waiting(folder: Folder):
    growing = folder.write("growing", "")
    folder.write("quiet", "quiet")

    async def main() -> None:
        async with folder.stream(settle=0.3, interval=0.1):
            while not folder.taken:
                with growing.open("a") as file:
                    file.write("more")
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert folder.taken == ["quiet"]


def test_a_file_that_changes_while_it_is_read_is_not_taken_half(folder: Folder):
    path = folder.write("a", "first")
    reads = []

    def read(path: Path) -> str:
        text = path.read_text()
        reads.append(text)
        if len(reads) == 1:
            path.write_text("second")
        return text

    async def main() -> None:
        async with folder.stream(read=read, interval=0.01):
            await _until(lambda: bool(folder.taken))

    asyncio.run(main())
    assert folder.taken == ["second"]
    assert reads == ["first", "second"]
    assert path.exists()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_deleted_or_replaced_between_looks_and_reading(
    folder: Folder, how: str, monkeypatch: pytest.MonkeyPatch
):
    path = folder.write("a", "first")
    key = Files._key

    def meddle(self: Files, name: str, seen: Any) -> str:
        found = key(self, name, seen)
        if how == "deleted":
            path.unlink(missing_ok=True)
        elif path.read_text() == "first":
            os.replace(folder.write(".new", "second"), path)
        return found

    monkeypatch.setattr(Files, "_key", meddle)

    async def main() -> None:
        async with folder.stream(interval=0.01) as stream:
            await _until(lambda: bool(folder.taken) or (how == "deleted" and stream.status == "idle"))

    asyncio.run(main())
    assert folder.taken == (["second"] if how == "replaced" else [])
    assert not folder.heard.of(BatchSetAside)


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    path = folder.write("a.csv", "a\n1\n")
    frame = Files._frame

    def delete(self: Files, file: Any) -> Any:
        path.unlink()
        return frame(self, file)

    monkeypatch.setattr(Files, "_frame", delete)
    monkeypatch.setattr(module, "_check", _check_but_links)
    [taken] = folder.drained(read=None)
    assert taken.to_dict("records") == [{"a": 1}]


def _check_but_links(file: int | str, seen: Any) -> None:
    """A removed file has another time of change, since its number of links has changed."""
    now = os.stat(file)
    if (now.st_size, now.st_mtime_ns) != (seen.size, seen.modified):
        raise module._Changed


async def test_nothing_is_lost_and_nothing_taken_half_while_many_write(folder: Folder):
    """Some write slowly, some replace, some rename, some delete: at the end each content that stayed is there once."""
    stop = threading.Event()

    def write(worker: int) -> None:
        for number in range(15):
            if stop.is_set():
                return
            text = f"{worker}-{number}|" * 200 + "end"
            path = folder.path / f"{worker}-{number}"
            with path.open("w") as file:
                for start in range(0, len(text), 200):
                    file.write(text[start : start + 200])
                    file.flush()
            if number % 3 == 1:
                path.rename(folder.path / f"renamed-{worker}-{number}")
            if number % 5 == 4:
                os.utime(path if path.exists() else folder.path / f"renamed-{worker}-{number}", (0, number))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    async with folder.stream(settle=0.1, interval=0.02) as stream:
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        stop.set()
        await stream.drain()
    assert all(text.endswith("end") for text in folder.taken)
    assert sorted(text[:4].split("|")[0] for text in folder.taken) == sorted(
        f"{worker}-{number}" for worker in range(4) for number in range(15)
    )


# -- what cannot be read -----------------------------------------------------------------------------------


def test_a_file_that_cannot_be_parsed_is_set_aside_and_the_others_are_taken(folder: Folder):
    folder.write("a.csv", "a\n1\n")
    folder.write("b.parquet", "this is no Parquet")
    folder.write("c.csv", "a\n3\n")
    assert [int(frame["a"].iloc[0]) for frame in folder.drained(read=None)] == [1, 3]
    assert [event.attempt for event in folder.heard.of(BatchRetrying)] == [1, 2]
    [aside] = asyncio.run(_set_aside(folder.stream()))
    assert aside.batch.endswith("b.parquet")
    assert "Parquet" in aside.error
    assert not aside.was_read
    folder.heard.clear()
    assert folder.drained(read=None) == []
    assert not folder.heard.of(BatchRetrying)


async def _set_aside(stream: Stream) -> Any:
    return await stream.set_aside()


@pytest.mark.parametrize("is_running", [False, True])
def test_what_could_not_be_read_is_read_again_when_it_is_replayed(folder: Folder, is_running: bool):
    folder.write("a", "text")
    readers = [Path.read_text]

    def read(path: Path) -> str:
        if len(readers) == 1:
            raise OSError("the disk is tired")
        return path.read_text()

    async def main() -> None:
        stream = folder.stream(read=read, interval=0.01)
        if not is_running:
            await stream.drain()
            readers.append(Path.read_text)
            assert list((await folder.stream().replay()).values()) == [None]
            await folder.stream(read=read).drain()
            return
        async with stream:
            await _until(lambda: bool(folder.heard.of(BatchSetAside)))
            readers.append(Path.read_text)
            await stream.replay()
            await _until(lambda: bool(folder.taken))

    asyncio.run(main())
    assert folder.taken == ["text"]
    assert asyncio.run(_set_aside(folder.stream())) == []


def test_a_read_error_that_passes_is_no_reason_to_lose_a_file(folder: Folder):
    folder.write("a", "text")
    errors = [OSError("first"), OSError("second")]

    def read(path: Path) -> str:
        if errors:
            raise errors.pop(0)
        return path.read_text()

    assert folder.drained(read=read) == ["text"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_missing_or_unreadable_directory_is_an_error_and_never_no_data(
    folder: Folder, gone: bool, monkeypatch: pytest.MonkeyPatch
):
    if gone:
        folder.path.rmdir()
    else:

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(folder.path))

        monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceFailed, match="No such file" if gone else "Permission denied"):
        folder.drained()


def test_a_format_that_nobody_knows_is_an_error_at_once(folder: Folder):
    folder.write("a.odd")
    with pytest.raises(SourceFailed, match=r"failed once.*say format="):
        folder.drained(read=None)
    with pytest.raises(SourceFailed, match="there is no option 'seperator'"):
        folder.drained(read=None, format="csv", read_options={"seperator": ";"})


def test_a_poisoned_file_is_tried_with_the_same_content_and_set_aside(folder: Folder):
    folder.write("a", "bad")
    folder.write("b", "good")

    def fails(text: str) -> None:
        if text == "bad":
            raise ValueError(text)

    assert folder.drained(fails=fails) == ["good"]
    assert folder.drained(fails=fails) == []
    folder.taken.clear()
    asyncio.run(_replayed(folder.stream()))
    assert folder.taken == ["bad"]


async def _replayed(stream: Stream) -> None:
    await stream.replay()


# -- hearing of changes ------------------------------------------------------------------------------------


def test_new_files_are_heard_of_at_once(folder: Folder):
    async def main() -> None:
        async with folder.stream(watch=True, interval=3600) as stream:
            await _until(lambda: stream.status == "idle")
            await asyncio.sleep(0.2)
            folder.write("a", "heard")
            await _until(lambda: bool(folder.taken))

    asyncio.run(asyncio.wait_for(main(), 30))
    assert folder.taken == ["heard"]


@pytest.mark.parametrize("is_swapped", [True, False])
def test_a_directory_that_is_made_again_is_heard_of_as_well(folder: Folder, is_swapped: bool):
    async def main() -> None:
        async with folder.stream(watch=True, interval=3600, attempts=1000) as stream:
            await _until(lambda: stream.status == "idle")
            await asyncio.sleep(0.2)
            folder.path.rename(folder.path.with_name("old"))
            await asyncio.sleep(0 if is_swapped else 0.5)
            folder.path.mkdir()
            await asyncio.sleep(1)
            folder.write("a", "heard")
            await _until(lambda: bool(folder.taken))

    asyncio.run(asyncio.wait_for(main(), 30))
    assert folder.taken == ["heard"]


def test_a_name_that_is_no_text_keeps_no_file_from_being_heard_of(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AGAIN", 0.1)

    async def main() -> None:
        async with folder.stream(watch=True, interval=3600) as stream:
            for name in (b"\xff", b"a"):
                await _until(lambda: stream.status == "idle")
                await asyncio.sleep(0.3)
                Path(os.fsdecode(os.fsencode(folder.path / "") + b"/" + name)).write_text(str(name))
                await _until(lambda: str(name) in folder.taken)  # noqa: B023

    asyncio.run(asyncio.wait_for(main(), 30))


def test_files_are_found_without_hearing_of_them(folder: Folder):
    async def main() -> None:
        async with folder.stream(watch=False, interval=0.02) as stream:
            await _until(lambda: stream.status == "idle")
            folder.write("a", "found")
            await _until(lambda: bool(folder.taken))

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_directory_that_cannot_be_watched_is_looked_at_from_time_to_time(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import watchfiles

    async def full(*_: object, **__: object) -> Any:
        raise OSError("no more watches")
        yield

    monkeypatch.setattr(watchfiles, "awatch", full)
    folder.write("a", "found")

    async def main() -> None:
        async with folder.stream(watch=True, interval=0.02):
            await _until(lambda: bool(folder.taken))

    asyncio.run(asyncio.wait_for(main(), 30))
    assert "cannot be watched: no more watches" in caplog.text


def test_watching_needs_its_extra(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ExtraMissing, match=r"odibi_async\[watch\]"):
        folder.drained(watch=True)
    folder.write("a", "found")
    assert folder.drained(watch=None) == ["found"]


def test_options_that_cannot_be_are_refused(tmp_path: Path):
    with pytest.raises(OptionError, match="identity='inode'"):
        Files(tmp_path, identity="inode")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="interval=0"):
        Files(tmp_path, interval=0)
    with pytest.raises(OptionError, match="settle=-1"):
        Files(tmp_path, settle=-1)
    for done in ("", "{}", 3):
        with pytest.raises(OptionError, match="the name of a marker is needed"):
            Files(tmp_path, done=done)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="read= reads files itself"):
        Files(tmp_path, read=Path.read_text, format="csv")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
