"""The pandas engine: what it reads and writes, that writes are whole or not at all, and that paths stay in the root."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from odibi_async.engines import create_engine_context
from odibi_async.engines.pandas import PandasEngine
from odibi_async.errors import CrossingError, ExtraMissing, OdibiError, OptionError, PathError, SqlError
from odibi_async.files import UNFINISHED, opened, replaced
from odibi_async.observers.tracker import Tracker

FRAME = pd.DataFrame({"a": [1, 2], "b": [1.5, None], "s": ["x", "ä,\n"]})
MORE = pd.DataFrame({"s": ["z"], "a": [3], "b": [2.5]})
FILES = ["x.csv", "x.csv.gz", "x.csv.bz2", "x.csv.xz", "x.csv.zip", "x.parquet", "x.jsonl", "x.ndjson", "x.jsonl.gz",
         "x.json", "x.xlsx", "x.feather"]  # fmt: skip
CAN_APPEND = [name for name in FILES if not name.endswith(".zip")]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PandasEngine]:
    (tmp_path / "root").mkdir()
    with PandasEngine(root=tmp_path / "root") as engine:
        yield engine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


# formats


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read_again(engine: PandasEngine, name: str):
    engine.write(FRAME, f"deep/er/{name}")
    assert_frame_equal(engine.read(f"deep/er/{name}"), FRAME)


@pytest.mark.parametrize("name", FILES)
def test_without_a_root_paths_are_as_elsewhere(tmp_path: Path, name: str):
    engine = PandasEngine()
    engine.write(FRAME, tmp_path / "deep" / name)
    assert_frame_equal(engine.read(str(tmp_path / "deep" / name)), FRAME)


def test_a_path_is_judged_by_its_suffix_only(engine: PandasEngine, root: Path):
    engine.write(FRAME, "delta.parquet/delta.db/excel.CSV")
    assert (root / "delta.parquet/delta.db/excel.CSV").read_text().startswith("a,b,s\n")
    assert_frame_equal(engine.read("delta.parquet/delta.db/excel.CSV"), FRAME)


def test_format_says_what_the_suffix_does_not(engine: PandasEngine):
    engine.write(FRAME, "noext", format="parquet")
    assert_frame_equal(engine.read("noext", format="parquet"), FRAME)
    for name in ("noext", "x.txt", "x.parquet.gz", ".csv", "delta/x"):
        with pytest.raises(OptionError, match="has no suffix of a known format: say format="):
            engine.read(name)
    with pytest.raises(OptionError, match=r"no format 'parket'. Did you mean 'parquet'"):
        engine.write(FRAME, "x", format="parket")


def test_json_with_lines_is_json_lines(engine: PandasEngine, root: Path):
    engine.write(FRAME, "x.json", lines=True)
    assert len((root / "x.json").read_text().splitlines()) == 2
    engine.write(MORE, "x.json", mode="append", lines=True)
    assert_frame_equal(engine.read("x.json", lines=True), pd.concat([FRAME, MORE], ignore_index=True))


def test_options_go_to_pandas(engine: PandasEngine, root: Path):
    engine.write(FRAME, "x.csv", sep=";", columns=["a", "b"])
    assert (root / "x.csv").read_text() == "a;b\n1;1.5\n2;\n"
    assert list(engine.read("x.csv", sep=";", usecols=["b"])) == ["b"]


@pytest.mark.parametrize("name", [name for name in FILES if ".json" not in name])
@pytest.mark.parametrize("verb", ["read", "write"])
def test_an_unknown_option_is_an_error_that_names_path_format_and_option(engine: PandasEngine, name: str, verb: str):
    engine.write(FRAME, name)
    before = engine.read(name)
    with pytest.raises(OptionError, match=f"'{name}' as .*no option 'colums'"):
        engine.read(name, colums=["a"]) if verb == "read" else engine.write(MORE, name, colums=["a"])
    assert_frame_equal(engine.read(name), before)


@pytest.mark.parametrize("option", ["filepath_or_buffer", "iterator", "storage_options", "chunksize"])
def test_options_that_say_where_or_give_no_frame_are_refused(engine: PandasEngine, option: str):
    engine.write(FRAME, "x.csv")
    with pytest.raises(OptionError):
        engine.read("x.csv", **{option: 1})


def test_an_index_is_written_where_it_has_a_name(engine: PandasEngine):
    sums = pd.DataFrame({"k": ["x", "y", "x"], "v": [1, 2, 3]}).groupby("k").sum()
    for name in ("x.csv", "x.parquet", "x.jsonl", "x.feather", "x.xlsx"):
        engine.write(sums, name)
        assert engine.read(name).to_dict("list") == {"k": ["x", "y"], "v": [4, 2]}
        engine.write(FRAME[::-1], name)
        assert list(engine.read(name)) == ["a", "b", "s"]
    engine.write(FRAME, "x.csv", index=True)
    assert list(engine.read("x.csv")) == ["Unnamed: 0", "a", "b", "s"]


def test_an_extra_that_is_missing_says_what_to_install(engine: PandasEngine, monkeypatch: Any):
    engine.write(FRAME, "x.xlsx")
    for library in ("openpyxl", "sqlalchemy"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExtraMissing, match=r"Reading 'x.xlsx' as excel.*pip install 'odibi_async\[excel\]'"):
        engine.read("x.xlsx")
    with pytest.raises(ImportError, match=r"pip install 'odibi_async\[sql\]'"):
        engine.read("postgresql://host/db", table="t")


def test_a_missing_file_is_named_in_full(engine: PandasEngine, root: Path):
    for name in ("no.csv", "no/where.csv", "no.db"):
        with pytest.raises(FileNotFoundError, match=str(root / name)):
            engine.read(name, **({"table": "t"} if name == "no.db" else {}))


@pytest.mark.parametrize("name", ["", ".", "folder.csv", "folder.db"])
def test_a_folder_is_no_file(engine: PandasEngine, root: Path, name: str):
    for folder in ("folder.csv", "folder.db"):
        (root / folder).mkdir()
    for call in (lambda: engine.read(name, format="csv"), lambda: engine.write(FRAME, name, format="csv")):
        with pytest.raises(PathError, match="it is a folder"):
            call()
    if name.endswith(".db"):
        with pytest.raises(PathError, match="it is a folder"):
            engine.read(name, table="t")


# modes


@pytest.mark.parametrize("name", CAN_APPEND)
def test_append_adds_rows_and_puts_columns_in_the_order_of_the_file(engine: PandasEngine, name: str):
    for frame in (FRAME, MORE, MORE):
        engine.write(frame, name, mode="append")
    assert_frame_equal(engine.read(name), pd.concat([FRAME, MORE, MORE], ignore_index=True))


def test_append_leaves_the_lines_that_are_there_as_they_are(engine: PandasEngine, root: Path):
    (root / "x.csv").write_text('a;s\n007;"x"\n1e3;y')
    engine.write(MORE[["a", "s"]], "x.csv", mode="append", sep=";")
    assert (root / "x.csv").read_text() == 'a;s\n007;"x"\n1e3;y\n3;z\n'
    (root / "x.csv.gz").write_bytes(gzip.compress(b"a\n007"))
    engine.write(MORE[["a"]], "x.csv.gz", mode="append")
    assert gzip.decompress((root / "x.csv.gz").read_bytes()) == b"a\n007\n3\n"
    (root / "x.csv").write_text("")
    engine.write(MORE[["a"]], "x.csv", mode="append")
    assert (root / "x.csv").read_text() == "a\n3\n"
    engine.write(MORE, "x.csv", mode="append", header=False, columns=["a"])
    assert (root / "x.csv").read_text() == "a\n3\n3\n"


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.xlsx"])
def test_append_refuses_other_columns(engine: PandasEngine, name: str):
    engine.write(FRAME, name)
    with pytest.raises(PathError, match="the file has the columns a, b, s; the frame a, b, t"):
        engine.write(FRAME.rename(columns={"s": "t"}), name, mode="append")
    assert_frame_equal(engine.read(name), FRAME)


def test_append_refuses_what_would_lose_something(engine: PandasEngine, root: Path):
    engine.write(FRAME, "x.csv.zip")
    with pytest.raises(OptionError, match="compression"):
        engine.write(FRAME, "x.csv.zip", mode="append")
    with pytest.raises(OptionError, match="reset_index"):
        engine.write(FRAME, "x.csv.zip", mode="append", index=True)
    with pd.ExcelWriter(root / "x.xlsx") as book:
        FRAME.to_excel(book, sheet_name="one", index=False)
        FRAME.to_excel(book, sheet_name="two", index=False)
    with pytest.raises(OptionError, match="several sheets"):
        engine.write(FRAME, "x.xlsx", mode="append")
    assert len(pd.read_excel(root / "x.xlsx", sheet_name=None)) == 2


def test_parallel_appends_to_one_file_lose_nothing(engine: PandasEngine):
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda i: engine.write(pd.DataFrame({"i": [i]}), "x.csv", mode="append"), range(60)))
    assert sorted(engine.read("x.csv")["i"]) == list(range(60))


PLACES: list[tuple[str, dict[str, Any]]] = [("x.csv", {}), ("x.parquet", {}), ("x.db", {"table": "t"})]


@pytest.mark.parametrize(("name", "options"), PLACES)
def test_each_mode_does_what_it_says(engine: PandasEngine, name: str, options: dict[str, Any]):
    engine.write(FRAME, name, mode="error", **options)
    with pytest.raises(PathError, match="exists already"):
        engine.write(MORE, name, mode="error", **options)
    engine.write(MORE, name, mode="ignore", **options)
    assert_frame_equal(engine.read(name, **options), FRAME)
    engine.write(MORE, name, **options)
    assert_frame_equal(engine.read(name, **options), MORE)
    with pytest.raises(OptionError, match=r"'overwrit' is none of .* Did you mean 'overwrite'"):
        engine.write(MORE, name, mode="overwrit", **options)  # type: ignore[arg-type]


# whole or not at all


class Boom(Exception): ...


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("confined", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, confined: bool):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(Boom), replaced(path, tmp_path if confined else None) as file:  # noqa: PT012
        file.write(b"new" * 100_000)
        assert path.read_bytes() == b"old"
        raise Boom
    assert (path.read_bytes(), left(tmp_path)) == (b"old", ["x.bin"])


def test_a_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path):
    engine = PandasEngine()
    target = tmp_path / "real.csv"
    target.write_text("a\n0\n")
    target.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(target)
    engine.write(MORE, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert_frame_equal(engine.read(target), MORE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("confined", [True, False])
def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path, confined: bool):
    os.mkfifo(tmp_path / "pipe")  # as /dev/null would be, for who may replace it
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    engine = PandasEngine(root=tmp_path if confined else None)
    before = left(tmp_path)
    for name in ("pipe", "folder", "link"):
        with pytest.raises(PathError, match="not a file"):
            engine.write(MORE, tmp_path / name, format="csv")
    with pytest.raises(PathError, match="not a file"):
        Tracker().save(tmp_path / "folder")
    assert (tmp_path / "pipe").is_fifo()
    assert left(tmp_path) == before


def test_writers_of_one_path_do_not_sweep_each_other(tmp_path: Path):
    def write(i: int) -> None:
        with replaced(tmp_path / "x.bin", tmp_path) as file:
            file.write(b"%d" % i * 1000)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(write, range(100)))
    assert left(tmp_path) == ["x.bin"]
    assert len(set((tmp_path / "x.bin").read_bytes().decode()[::3])) <= 3


SCRIPT = """
import resource, signal, sys
import pandas as pd
from odibi_async.engines.pandas import PandasEngine
frame = pd.DataFrame({"a": range(1_000_000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
options = {"table": "t"} if sys.argv[3] == "x.db" else {}
PandasEngine(root=sys.argv[1]).write(frame, sys.argv[3], mode=sys.argv[4], **options)
"""


def writer(root: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), *args], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("mode", ["overwrite", "append"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl", "x.db"])
def test_a_full_disk_leaves_the_old_file_whole(engine: PandasEngine, root: Path, name: str, mode: str):
    options = {"table": "t"} if name == "x.db" else {}
    engine.write(MORE[["a"]], name, **options)
    with writer(root, "full", name, mode) as process:
        assert process.wait(60) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert "File too large" in said or "disk" in said
    assert_frame_equal(engine.read(name, **options), MORE[["a"]])
    assert left(root) == [name]


def test_a_kill_in_the_middle_leaves_the_old_file_whole_and_the_next_write_sweeps(engine: PandasEngine, root: Path):
    engine.write(MORE, "x.csv")
    with writer(root, "kill", "x.csv", "overwrite") as process:
        while not any(name.endswith(UNFINISHED) and (root / name).stat().st_size for name in left(root)):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert_frame_equal(engine.read("x.csv"), MORE)
    assert len(left(root)) == 2
    (root / f".other.csv.1{UNFINISHED}").touch()
    engine.write(FRAME, "x.csv")
    assert left(root) == [f".other.csv.1{UNFINISHED}", "x.csv"]
    assert_frame_equal(engine.read("x.csv"), FRAME)


# the root


@pytest.mark.parametrize("verb", ["read", "write", "connect"])
@pytest.mark.parametrize("path", ["../out.csv", "a/../../out.csv", "{}/out.csv", "link/out.csv", "file.csv", "x\0.csv",
                                  "../out.db", "filedb.db", "link/out.db"])  # fmt: skip
def test_paths_out_of_the_root_are_refused(engine: PandasEngine, tmp_path: Path, verb: str, path: str):
    MORE.to_csv(tmp_path / "out.csv", index=False)
    sqlite3.connect(tmp_path / "out.db").close()
    (tmp_path / "root/link").symlink_to(tmp_path)
    (tmp_path / "root/file.csv").symlink_to(tmp_path / "out.csv")
    (tmp_path / "root/filedb.db").symlink_to(tmp_path / "out.db")
    before = (tmp_path / "out.csv").read_bytes()
    calls = {"read": engine.read, "write": lambda path: engine.write(FRAME, path), "connect": engine.connect}
    with pytest.raises(PathError, match=r"leads outside|NUL"):
        calls[verb](path.format(tmp_path))
    assert (tmp_path / "out.csv").read_bytes() == before


def test_absolute_paths_and_links_within_the_root_are_fine(engine: PandasEngine, root: Path):
    engine.write(FRAME, root / "deep/x.csv")
    (root / "link").symlink_to(root / "deep")
    assert_frame_equal(engine.read("link/x.csv"), FRAME)
    assert_frame_equal(engine.read("deep/../deep/x.csv"), FRAME)


@pytest.mark.parametrize("swapped", ["folder", "file"])
def test_a_link_swapped_in_after_the_check_leads_nowhere(root: Path, tmp_path: Path, swapped: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.csv").write_text("secret")
    checked = root / "folder/x.csv"
    if swapped == "folder":
        root.mkdir()
        (root / "folder").symlink_to(outside)
    else:
        (root / "folder").mkdir(parents=True)
        checked.symlink_to(outside / "x.csv")
    with pytest.raises(PathError, match="in the way"), opened(checked, root):
        pass
    if swapped == "folder":
        with pytest.raises(PathError, match="in the way"), replaced(checked, root):
            pass
    else:
        with replaced(checked, root) as file:
            file.write(b"new")
        assert checked.read_text() == "new"
    assert (outside / "x.csv").read_text() == "secret"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://me:pw@example.com/x.csv", "memory://x.csv"])
def test_urls_are_no_way_around_the_root(engine: PandasEngine, url: str):
    for call in (lambda: engine.read(url, format="csv"), lambda: engine.write(FRAME, url, format="csv")):
        with pytest.raises(PathError) as caught:
            call()
        assert "pw" not in str(caught.value)
    with pytest.raises(PathError, match="name it by its path"):
        engine.read("sqlite:////etc/x.db", table="t")
    with pytest.raises(PathError, match="name it by its path"):
        engine.connect("sqlite:////etc/x.db")


def test_urls_of_files_can_be_read_without_a_root(tmp_path: Path):
    MORE.to_csv(tmp_path / "x.csv.gz", index=False)
    assert_frame_equal(PandasEngine().read((tmp_path / "x.csv.gz").as_uri()), MORE)
    with pytest.raises(PathError, match="only be read"):
        PandasEngine().write(MORE, (tmp_path / "x.csv.gz").as_uri())


# databases


@pytest.fixture(params=["path", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "s.db") if request.param == "path" else f"sqlite:///{tmp_path / 's.db'}"


@pytest.fixture
def free() -> Iterator[PandasEngine]:
    with PandasEngine() as engine:
        yield engine


def test_tables_are_written_and_read_and_queried(free: PandasEngine, place: str):
    free.write(FRAME, place, table="my table")
    free.write(MORE, place, table="my table", mode="append")
    assert_frame_equal(free.read(place, table="my table"), pd.concat([FRAME, MORE], ignore_index=True))
    query = 'SELECT s FROM "my table" WHERE a = :a'
    assert free.read(place, query=query, params={"a": 3})["s"].tolist() == ["z"]
    assert free.read(query, connection=place, params={"a": 3})["s"].tolist() == ["z"]


def test_each_mode_does_in_a_database_what_it_says(free: PandasEngine, place: str):
    free.write(FRAME, place, table="t", mode="error")
    with pytest.raises(PathError, match="the table 't' exists already"):
        free.write(MORE, place, table="t", mode="error")
    free.write(MORE, place, table="t", mode="ignore")
    assert len(free.read(place, table="t")) == 2
    free.write(MORE, place, table="t")
    assert_frame_equal(free.read(place, table="t"), MORE)


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_table_is_written_whole_or_not_at_all(free: PandasEngine, place: str, mode: Any):
    free.write(FRAME, place, table="t")
    broken = pd.DataFrame({"a": [1, {"not": "for SQL"}], "b": [0, 0], "s": ["", ""]})
    with pytest.raises(Exception, match=r"not supported|Execution failed"):
        free.write(broken, place, table="t", mode=mode)
    assert_frame_equal(free.read(place, table="t"), FRAME)


@pytest.mark.parametrize("name", ['a"b', "t; DROP TABLE x", "select", "ä", "x' OR '1'='1"])
def test_names_of_tables_are_quoted(free: PandasEngine, place: str, name: str):
    free.write(MORE, place, table="x")
    free.write(FRAME, place, table=name)
    assert_frame_equal(free.read(place, table=name), FRAME)
    assert_frame_equal(free.read(place, table="x"), MORE)


@pytest.mark.parametrize(
    "query",
    ["ATTACH '{}' AS o", "VACUUM INTO '{}'", "INSERT INTO t VALUES (1)", "DROP TABLE t", "PRAGMA journal_mode = WAL",
     "SELECT load_extension('{}')", "CREATE TABLE u (a)"],
)  # fmt: skip
def test_a_query_to_a_sqlite_file_does_nothing_but_read_it(engine: PandasEngine, tmp_path: Path, query: str):
    engine.write(MORE, "s.db", table="t")
    with pytest.raises(pd.errors.DatabaseError, match=r"not authorized|denied"):
        engine.read("s.db", query=query.format(tmp_path / "other.db"))
    assert_frame_equal(engine.read("s.db", table="t"), MORE)
    assert not (tmp_path / "other.db").exists()


def test_what_a_database_lacks_is_said(free: PandasEngine, place: str):
    free.write(MORE, place, table="t")
    for options in ({}, {"table": "t", "query": "SELECT 1"}):
        with pytest.raises(OptionError):
            free.read(place, **options)
    with pytest.raises(OptionError):
        free.write(MORE, place, format="sql" if "://" in place else None)
    with pytest.raises(OptionError, match=r"no option 'parse_date'. Did you mean 'parse_dates'"):
        free.read(place, table="t", parse_date=["a"])


def test_connect_opens_a_database_and_hides_its_password(free: PandasEngine, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 's.db'}"
    connected = free.connect(url, pool_size=1)
    free.write(MORE, url, table="t")
    assert free.connect(url) is not connected
    assert_frame_equal(free.read("SELECT * FROM t", connection=url), MORE)
    with pytest.raises(OptionError) as caught:
        free.read("postgresql://me:pa@ss@host/db", format="sql")
    assert "pa@ss" not in str(caught.value)


def test_connect_to_a_path_sees_that_it_is_there(engine: PandasEngine, root: Path):
    assert engine.connect(".") == root
    with pytest.raises(PathError, match="no such file or folder"):
        engine.connect("nope")
    with pytest.raises(OptionError, match="takes no options"):
        engine.connect(".", password="x")


# the rest of the vocabulary


def test_sql_reads_its_frames_and_nothing_else(engine: PandasEngine):
    found = engine.execute_sql("SELECT a FROM data WHERE a > $low", {"data": FRAME}, {"low": 1})
    assert found["a"].tolist() == [2]
    assert engine.execute_sql("SELECT 1 AS one")["one"].tolist() == [1]


def test_temporary_frames_are_seen_by_those_who_ask(engine: PandasEngine):
    frame = FRAME.copy()
    engine.register_temp("data", frame)
    frame["a"] = 0
    with pytest.raises(SqlError, match="none of its inputs"):
        engine.execute_sql("SELECT * FROM data")
    assert engine.execute_sql("SELECT sum(a) AS a FROM data", temps=["data"])["a"][0] == 3
    engine.drop_temp("data")
    engine.drop_temp("data")
    with pytest.raises(SqlError, match="no temporary frame 'data'"):
        engine.execute_sql("SELECT * FROM data", temps=["data"])


@pytest.mark.parametrize("secrets", [{"db_pw": "s3cret"}, {"db_pw": "s3cret"}.get])
def test_secrets_come_from_a_dict_or_a_function(secrets: Any):
    engine = PandasEngine(secrets=secrets)
    assert engine.get_secret("db_pw") == "s3cret"
    with pytest.raises(OptionError, match="no secret 'db_pwd'") as caught:
        engine.get_secret("db_pwd")
    assert "s3cret" not in str(caught.value)


def test_without_secrets_every_secret_is_unknown():
    with pytest.raises(OptionError, match="no secret 'x'"):
        PandasEngine().get_secret("x")


def test_a_sample_is_the_first_rows(engine: PandasEngine):
    assert engine.collect_sample(FRAME, 1) == [{"a": 1, "b": 1.5, "s": "x"}]
    assert len(engine.collect_sample(pd.DataFrame({"a": range(9)}))) == 5


def test_a_closed_engine_runs_no_sql(engine: PandasEngine):
    engine.execute_sql("SELECT 1")
    engine.close()
    with pytest.raises(OdibiError, match="closed"):
        engine.execute_sql("SELECT 1")


@pytest.mark.parametrize(
    "error",
    [PathError("x", "no."), CrossingError("it", "Spark", "no."), SqlError("no"), ExtraMissing("Reading", "sql")],
)
def test_the_errors_pickle(error: OdibiError):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_engines_are_made_by_name(tmp_path: Path):
    assert isinstance(create_engine_context("pandas", root=tmp_path, threads=1), PandasEngine)
    with pytest.raises(OptionError, match="Did you mean 'pandas'"):
        create_engine_context("panda")


def test_asking_for_an_engine_is_what_loads_it():
    heavy = "{'pandas', 'duckdb', 'pyarrow', 'sqlalchemy'}"
    code = f"import sys, odibi_async.engines, odibi_async.engines.views; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_overwriting_a_sqlite_table_keeps_its_keys_and_indexes(engine: PandasEngine, root: Path):
    import sqlite3

    with contextlib.closing(sqlite3.connect(root / "x.db")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, s TEXT)")
        connection.execute("CREATE INDEX i ON t (s)")
        connection.execute("INSERT INTO t VALUES (9, 'old')")
        connection.commit()
    engine.write(pd.DataFrame({"a": [1, 2], "s": ["01", "x"]}), "x.db", table="t")
    assert engine.read("x.db", table="t").to_dict("list") == {"a": [1, 2], "s": ["01", "x"]}
    kept = engine.read("x.db", query="SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    assert kept["name"].tolist() == ["i", "t"]
    assert "PRIMARY KEY" in kept["sql"][1]
    engine.write(pd.DataFrame({"a": ["01"], "s": [1]}), "x.db", table="t")  # other kinds: a table of its own
    assert engine.read("x.db", table="t").to_dict("list") == {"a": ["01"], "s": [1]}


def test_appending_other_columns_to_a_table_says_which(engine: PandasEngine):
    engine.write(pd.DataFrame({"a": [1], "b": [2]}), "x.db", table="t")
    with pytest.raises(PathError, match="the table 't' has the columns a, b; the frame has c besides"):
        engine.write(pd.DataFrame({"a": [1], "c": [2]}), "x.db", table="t", mode="append")


def test_a_pattern_reads_all_files_that_it_matches(engine: PandasEngine, root: Path):
    for name in ("in/b.csv", "in/a.csv", "in/deep/c.csv", "other.csv"):
        engine.write(pd.DataFrame({"a": [name]}), name)
    assert engine.read("in/*.csv")["a"].tolist() == ["in/a.csv", "in/b.csv"]
    assert engine.read("in/**/*.csv")["a"].tolist() == ["in/a.csv", "in/b.csv", "in/deep/c.csv"]
    assert [path.name for path in engine.files("in/*.csv")] == ["a.csv", "b.csv"]
    engine.write(pd.DataFrame({"a": ["itself"]}), "x[1].csv")
    assert engine.read("x[1].csv")["a"].tolist() == ["itself"]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        engine.read("none/*.csv")
    (root / "in/z.csv").symlink_to("/etc/hosts")
    for pattern in ("in/*.csv", "../*/*.csv"):
        with pytest.raises((PathError, FileNotFoundError)):
            engine.read(pattern)


def test_a_partitioned_parquet_folder_is_one_frame(engine: PandasEngine, root: Path):
    for year in (2023, 2024):
        engine.write(pd.DataFrame({"a": [year]}), f"sales/year={year}/part.parquet")
    (root / "sales/_SUCCESS").write_text("")
    frame = engine.read("sales")
    assert frame["a"].tolist() == [2023, 2024]
    assert frame["year"].astype(int).tolist() == [2023, 2024]
    assert len(engine.files("sales")) == 2
    assert engine.read("sales", format="parquet", columns=["a"])["a"].tolist() == [2023, 2024]


def test_a_link_in_a_parquet_folder_does_not_lead_out_of_the_root(engine: PandasEngine, root: Path, tmp_path: Path):
    engine.write(pd.DataFrame({"a": [1]}), "sales/part.parquet")
    (tmp_path / "outside").mkdir()
    pd.DataFrame({"a": [666]}).to_parquet(tmp_path / "outside/x.parquet")
    (root / "sales/link").symlink_to(tmp_path / "outside")
    with pytest.raises(PathError, match="leads outside"):
        engine.read("sales")
    assert PandasEngine().read(root / "sales")["a"].tolist() == [666, 1]
    (root / "sales/link").unlink()
    (root / "sales/link").symlink_to(root / "sales")  # a circle
    assert [path.name for path in engine.files("sales")][:1] == ["part.parquet"]


def test_a_parquet_folder_has_the_columns_of_all_its_files(engine: PandasEngine):
    big = 2**53 + 1
    engine.write(pd.DataFrame({"a": [None], "k": [1]}), "sales/year=1/part.parquet")
    engine.write(pd.DataFrame({"a": [big], "k": [2], "more": ["x"]}), "sales/year=2/part.pq")
    frame = engine.read("sales")
    assert list(frame) == ["a", "k", "more", "year"]
    assert frame["a"].tolist() == [pd.NA, big]
    assert frame["more"].tolist()[1] == "x"
    assert engine.read("sales", filters=[("year", "==", 2)], columns=["more"])["more"].tolist() == ["x"]
    assert [path.name for path in engine.files("sales")] == ["part.parquet", "part.pq"]
    engine.write(pd.DataFrame({"a": ["text"]}), "sales/year=3/part.parquet")
    with pytest.raises(PathError, match="'sales' cannot be used: its files do not go together"):
        engine.read("sales")


KEPT: list[tuple[str, Any]] = [
    ("INTEGER PRIMARY KEY", [1, 2]),
    ("BOOLEAN UNIQUE", [True, False]),
    ("DATETIME UNIQUE", pd.to_datetime(["2024-01-01", "2024-01-02"])),
    ("DECIMAL(10, 2) UNIQUE", [1.5, 2.5]),
    ("UNIQUE", ["01", "1"]),
]


@pytest.mark.parametrize(("declared", "values"), KEPT)
def test_overwriting_keeps_a_table_that_can_hold_the_rows(engine: PandasEngine, root: Path, declared: str, values: Any):
    with contextlib.closing(sqlite3.connect(root / "x.db")) as connection:
        connection.execute(f"CREATE TABLE T (a {declared}, s TEXT)")
        connection.commit()
    engine.write(pd.DataFrame({"s": ["x", "y"], "A": values}), "x.db", table="t")  # another order, another case
    [made] = engine.read("x.db", query="SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")["sql"]
    assert made == f"CREATE TABLE T (a {declared}, s TEXT)"
    assert engine.read("x.db", table="t")["s"].tolist() == ["x", "y"]


CHANGED: list[tuple[str, Any]] = [
    ("INTEGER", ["01234"]),
    ("REAL", ["1e3"]),
    ("NUMERIC", ["1.0"]),
    ("TEXT", [1]),
    ("VARCHAR(9)", [1.5]),
    ("TEXT", [True]),
    ("REAL", [2**53 + 1]),
    ("TIMESTAMP", pd.to_datetime(["2024-01-01 00:00:00.123456789"])),
    ("INTEGER", pd.to_timedelta(["1s"])),
    ("TEXT", pd.Series([1, "x"], dtype=object)),
]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(("declared", "values"), CHANGED)
@pytest.mark.filterwarnings("ignore:the 'timedelta' type is not supported")
def test_sqlite_changes_no_value_without_a_word(
    engine: PandasEngine, root: Path, declared: str, values: Any, there: bool
):
    frame = pd.DataFrame({"a": values})
    if there:
        with contextlib.closing(sqlite3.connect(root / "x.db")) as connection:
            connection.execute(f"CREATE TABLE t (a {declared})")
            connection.commit()
        with pytest.raises(
            PathError, match=f"column 'a' holds .*, which the table 't' would change: .* {declared[:4]}"
        ):
            engine.write(frame, "x.db", table="t", mode="append")
        assert len(engine.read("x.db", table="t")) == 0
        return
    try:
        engine.write(frame, "x.db", table="t")
    except PathError:
        return
    assert engine.read("x.db", table="t")["a"].tolist() == frame["a"].tolist()


def test_categories_and_numpys_numbers_are_stored_as_what_they_are(engine: PandasEngine):
    frame = pd.DataFrame({"a": pd.Categorical([1, 2]), "b": pd.Series([np.int64(3), None], dtype=object)})
    engine.write(frame, "x.db", table="t")
    assert engine.read("x.db", query="SELECT a, b, typeof(b) AS kind FROM t").to_dict("list") == {
        "a": [1, 2],
        "b": [3, pytest.approx(float("nan"), nan_ok=True)],
        "kind": ["integer", "null"],
    }


def test_integers_beside_null_keep_their_digits(free: PandasEngine, place: str):
    big = pd.array([2**53 + 1, None], dtype="Int64")
    free.write(pd.DataFrame({"a": big, "b": [1, None]}), place, table="t")
    for frame in (free.read(place, table="t"), free.read(place, query="SELECT * FROM t")):
        assert frame["a"].tolist() == [2**53 + 1, pd.NA]
        assert frame["b"].dtype == "float64"


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_what_a_table_does_not_take_is_said(engine: PandasEngine, root: Path, mode: Any):
    with contextlib.closing(sqlite3.connect(root / "x.db")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, s TEXT NOT NULL)")
        connection.commit()
    with pytest.raises(sqlite3.IntegrityError, match=r"NOT NULL constraint failed: t\.s"):
        engine.write(pd.DataFrame({"a": [1], "s": [None]}, dtype=object), "x.db", table="t", mode=mode)
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE constraint failed: t\.a"):
        engine.write(pd.DataFrame({"a": [1, 1], "s": ["x", "y"]}), "x.db", table="t", mode=mode)
