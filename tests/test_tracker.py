"""The tracker: what it keeps of runs, as lineage, JSON and story, whatever the data is."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import enum
import fractions
import gc
import html.parser
import json
import subprocess
import sys
import time
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from odibi_async import Pipeline, Retry, RunError, Secret, Step, Tracker, run_pipeline, run_pipeline_sync, step
from odibi_async.errors import OptionError
from odibi_async.events import StepRetrying, StepStarted
from odibi_async.observers.snapshot import Snapshot, plain
from odibi_async.secret import MASK

STEP = {
    "step_name",
    "layer",
    "start_time",
    "end_time",
    "duration_ms",
    "before_snapshot",
    "after_snapshot",
    "schema_diff",
    "row_delta",
    "state",
    "error_message",
    "iteration",
    "checkpoint_id",
}


def orders() -> pd.DataFrame:
    return pd.DataFrame({"customer": [1, 2, 1, 3, 2, 1, 3], "amount": [30, 20, 12, 7, 1, 2, 3], "note": "x"})


def large(orders: pd.DataFrame) -> pd.DataFrame:
    kept = orders[orders["amount"] > 5].drop(columns="note")
    return kept.astype({"amount": "float64"}).assign(year=2013)


def tracked(steps: list[Any], inputs: dict[str, Any] | None = None, **options: Any) -> Tracker:
    tracker = Tracker()
    run_pipeline_sync(steps, inputs, observers=[tracker], **options)
    return tracker


def steps_of(tracker: Tracker) -> dict[str, dict[str, Any]]:
    return {each["step_name"]: each for each in tracker.export_lineage()["steps"]}


# -- lineage -------------------------------------------------------------------------------------------


async def test_the_lineage_tells_what_each_step_did_to_its_data():
    tracker = Tracker()
    result = await run_pipeline([large, step(orders, layer="ingest")], observers=[tracker])
    lineage = tracker.export_lineage()
    assert lineage.keys() == {"pipeline_id", "start_time", "steps", "summary"}
    assert lineage["pipeline_id"] == result.run_id
    assert dt.datetime.fromisoformat(lineage["start_time"]).tzinfo is not None
    first, second = lineage["steps"]
    assert first.keys() == second.keys() == STEP
    assert (first["step_name"], first["layer"], second["step_name"]) == ("orders", "ingest", "large")
    assert (first["state"], first["error_message"], first["iteration"]) == ("success", None, 1)
    assert (first["before_snapshot"], first["row_delta"], first["schema_diff"]) == (None, None, None)
    assert second["before_snapshot"]["sample_data"] == first["after_snapshot"]["sample_data"]
    assert second["row_delta"] == -3
    assert second["schema_diff"] == {
        "added_columns": ["year"],
        "removed_columns": ["note"],
        "changed_types": [{"column": "amount", "before": "int64", "after": "float64"}],
    }
    took = dt.datetime.fromisoformat(second["end_time"]) - dt.datetime.fromisoformat(second["start_time"])
    assert second["duration_ms"] == pytest.approx(took.total_seconds() * 1e3, abs=0.1)
    assert lineage["summary"].pop("total_duration_ms") >= first["duration_ms"] + second["duration_ms"]
    assert lineage["summary"] == {
        "status": "succeeded",
        "total_steps": 2,
        "success_count": 2,
        "failed_count": 0,
        "pending_count": 0,
        "success_rate": 100.0,
    }


def test_a_snapshot_tells_the_columns_the_rows_and_the_first_five_of_them():
    snapshot = steps_of(tracked([orders]))["orders"]["after_snapshot"]
    assert snapshot.keys() == {"name", "timestamp", "row_count", "schema", "sample_data", "metadata"}
    assert (snapshot["name"], snapshot["row_count"]) == ("orders", 7)
    assert snapshot["schema"][:2] == [{"column": "customer", "type": "int64"}, {"column": "amount", "type": "int64"}]
    assert snapshot["sample_data"][:2] == [
        {"customer": 1, "amount": 30, "note": "x"},
        {"customer": 2, "amount": 20, "note": "x"},
    ]
    assert len(snapshot["sample_data"]) == 5
    assert snapshot["metadata"] == {"type": "pandas.DataFrame", "others": []}


def test_the_snapshot_of_several_datasets_is_that_of_the_first_frame_and_names_the_others():
    def joined(limit: int, orders: pd.DataFrame, names: pd.DataFrame) -> tuple[int, pd.DataFrame]:
        return limit, orders.merge(names)

    names = pd.DataFrame({"customer": [1], "name": ["Ada"]})
    tracker = tracked([orders, step(joined, outputs=("n", "both"))], {"limit": 3, "names": names})
    record = steps_of(tracker)["joined"]
    assert record["before_snapshot"]["name"] == "orders"
    assert record["before_snapshot"]["metadata"]["others"] == ["limit", "names"]
    assert record["after_snapshot"]["name"] == "both"
    assert record["after_snapshot"]["metadata"]["others"] == ["n"]
    assert record["row_delta"] == -4


def test_of_what_is_no_frame_the_class_is_told():
    record = steps_of(tracked([step(lambda: {"a": 1}, name="a"), step(lambda a: a, name="b")]))["b"]
    assert record["after_snapshot"]["row_count"] is None
    assert record["after_snapshot"]["schema"] == record["after_snapshot"]["sample_data"] == []
    assert record["after_snapshot"]["metadata"]["type"] == "dict"
    assert (record["row_delta"], record["schema_diff"]) == (None, None)


def test_a_series_is_a_frame_of_one_column():
    made = tracked([step(lambda: pd.Series([1.5, 2.5], name="x"), name="s")])
    snapshot = steps_of(made)["s"]["after_snapshot"]
    assert (snapshot["schema"], snapshot["row_count"]) == ([{"column": "x", "type": "float64"}], 2)


def test_what_the_run_drops_is_looked_at_before():
    record = steps_of(tracked([orders, large], targets=["large"]))["large"]
    assert record["before_snapshot"]["row_count"] == 7
    assert record["row_delta"] == record["after_snapshot"]["row_count"] - 7


def test_readers_that_change_their_frame_change_no_snapshot():
    def spoiled(orders: pd.DataFrame) -> int:
        orders["amount"] = 0
        return len(orders)

    record = steps_of(tracked([orders, spoiled]))["spoiled"]
    assert [row["amount"] for row in record["before_snapshot"]["sample_data"]] == [30, 20, 12, 7, 1]


def test_connections_and_engines_are_no_data(tmp_path: Path):
    tracker = tracked(
        [
            Step("connect", "lake", "config_op", "pandas", str(tmp_path)),
            Step("transform", "one", "sql", "pandas", "SELECT 1 AS n"),
            Step("store", "save", "config_op", "pandas", "one.csv", {"connection": "lake"}, {"data": "one"}),
        ]
    )
    records = steps_of(tracker)
    assert records["lake"]["after_snapshot"] is None
    assert records["one"]["before_snapshot"] is None
    assert records["save"]["before_snapshot"]["row_count"] == 1
    assert records["save"]["before_snapshot"]["metadata"]["others"] == []
    assert records["save"]["after_snapshot"] is None


# -- states --------------------------------------------------------------------------------------------


def test_states_of_steps_that_did_not_come_to_their_end():
    def waits(bad: int) -> None: ...

    steps = [
        step(lambda: 1 / 0, name="bad"),
        waits,
        step(lambda: 1, name="unwanted", when=lambda: False),
        step(lambda: 1, name="good"),
    ]
    tracker = tracked(steps, on_error="continue")
    told = {name: (each["state"], each["error_message"]) for name, each in steps_of(tracker).items()}
    assert told == {
        "bad": ("failed", "ZeroDivisionError: division by zero"),
        "waits": ("pending", "skipped because of 'bad'"),
        "unwanted": ("pending", "skipped: its when= was false"),
        "good": ("success", None),
    }
    pending = steps_of(tracker)["waits"]
    assert [pending[key] for key in ("start_time", "end_time", "duration_ms", "before_snapshot")] == [None] * 4
    summary = tracker.export_lineage()["summary"]
    assert (summary["success_count"], summary["failed_count"], summary["pending_count"]) == (1, 1, 2)
    assert (summary["success_rate"], summary["status"]) == (25.0, "failed")


def test_a_failed_run_is_on_record_with_what_was_cancelled():
    async def slow() -> None:
        await asyncio.sleep(60)

    async def bad() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no such column")

    tracker = Tracker()
    with pytest.raises(RunError):
        run_pipeline_sync([slow, bad], observers=[tracker])
    told = {name: (each["state"], each["error_message"]) for name, each in steps_of(tracker).items()}
    assert told == {"slow": ("pending", "cancelled"), "bad": ("failed", "ValueError: no such column")}


async def test_while_it_runs_a_step_is_pending_and_after_a_failed_attempt_it_is_retry():
    tracker, seen = Tracker(), []

    def look(event: Any) -> None:
        if isinstance(event, StepStarted | StepRetrying):
            seen.append(tracker.export_lineage()["steps"][0]["state"])

    errors = [OSError(), OSError()]

    async def flaky() -> None:
        if errors:
            raise errors.pop()

    await run_pipeline([step(flaky, retry=Retry(attempts=3, wait=0))], observers=[tracker, look])
    assert seen == ["pending", "retry", "retry"]
    assert tracker.export_lineage()["steps"][0]["state"] == "success"


def test_an_error_without_words_and_one_that_cannot_speak():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def mute() -> None:
        raise Mute

    def short() -> None:
        raise ValueError

    told = {name: each["error_message"] for name, each in steps_of(tracked([mute, short], on_error="continue")).items()}
    assert told == {"mute": "Mute: <Mute that cannot be shown>", "short": "ValueError"}


# -- several runs --------------------------------------------------------------------------------------


def test_before_any_run_there_is_nothing_to_tell(tmp_path: Path):
    tracker = Tracker()
    lineage = tracker.export_lineage()
    assert (lineage["steps"], lineage["summary"]["total_steps"], tracker.runs) == ([], 0, ())
    tracker.save(tmp_path / "empty.json")
    assert json.loads((tmp_path / "empty.json").read_text()) == lineage
    assert Path(tracker.export_to_story(tmp_path)).exists()


async def test_runs_at_the_same_time_are_kept_apart():
    tracker = Tracker()

    async def slept(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    results = await asyncio.gather(
        *[run_pipeline([slept], {"seconds": s}, observers=[tracker]) for s in (0.03, 0.02, 0.01)]
    )
    assert tracker.runs == tuple(result.run_id for result in results)
    for number, result in enumerate(results, 1):
        lineage = tracker.export_lineage(result.run_id)
        [record] = lineage["steps"]
        assert (lineage["pipeline_id"], record["iteration"], record["state"]) == (result.run_id, number, "success")
        assert record["duration_ms"] == pytest.approx(result.steps["slept"].run_seconds * 1e3, abs=0.1)
    assert tracker.export_lineage() == tracker.export_lineage(results[-1].run_id)


def test_the_oldest_runs_are_forgotten():
    tracker = Tracker(keep_last=2)
    ids = [run_pipeline_sync([orders], observers=[tracker]).run_id for _ in range(4)]
    assert tracker.runs == tuple(ids[2:])
    assert tracker.export_lineage()["steps"][0]["iteration"] == 4
    with pytest.raises(OptionError, match="no run"):
        tracker.export_lineage(ids[0])
    with pytest.raises(OptionError, match="keep_last=0"):
        Tracker(keep_last=0)


def test_it_keeps_nothing_of_the_data_but_the_rows_that_it_shows():
    class Thing: ...

    alive: list[weakref.ref[Any]] = []

    async def made() -> pd.DataFrame:
        frame = pd.DataFrame({"thing": [Thing() for _ in range(1_000)]})
        alive.extend((weakref.ref(frame), weakref.ref(frame["thing"].iloc[-1])))
        return frame

    async def bad(made: pd.DataFrame) -> None:
        raise ValueError

    tracker = tracked([made, bad], on_error="continue")
    for _ in range(50):  # a thread looks at the frame, and the first collection may only finalise what held it
        gc.collect()
        if not any(ref() is not None for ref in alive):
            break
        time.sleep(0.1)
    assert [ref() is None for ref in alive] == [True, True]
    assert steps_of(tracker)["made"]["after_snapshot"]["row_count"] == 1_000


# -- odd values ----------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Broken:
    def __str__(self) -> str:
        raise ValueError


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
ODD = [
    (None, None),
    (True, True),
    (np.bool_(False), False),
    (7, 7),
    (np.int64(7), 7),
    (np.uint8(7), 7),
    (np.array(7), 7),
    (2**63, str(2**63)),
    (10**5000, "<int that cannot be shown>"),
    (1.5, 1.5),
    (np.float32(0.5), 0.5),
    (float("nan"), None),
    (np.float64("nan"), None),
    (float("inf"), "inf"),
    (-np.float64("inf"), "-inf"),
    (pd.NA, None),
    (pd.NaT, None),
    (pd.Timestamp("2013-01-01", tz="UTC"), "2013-01-01T00:00:00+00:00"),
    (dt.datetime(2013, 1, 1, 5), "2013-01-01T05:00:00"),
    (dt.date(2013, 1, 1), "2013-01-01"),
    (dt.time(5, 17), "05:17:00"),
    (dt.timedelta(seconds=5), "0:00:05"),
    (pd.Timedelta("5s"), "0 days 00:00:05"),
    (np.datetime64("2013-01-01"), "2013-01-01"),
    (decimal.Decimal("1.10"), "1.10"),
    (fractions.Fraction(1, 3), "1/3"),
    (1 + 2j, "(1+2j)"),
    (b"\xff\x00", r"b'\xff\x00'"),
    (bytearray(b"x"), "bytearray(b'x')"),
    ({"b", "a", 1}, [1, "a", "b"]),
    (frozenset(), []),
    ((1, [2, {"x": dt.date(2013, 1, 1)}]), [1, [2, {"x": "2013-01-01"}]]),
    ({(1, 2): {3}}, {"[1, 2]": [3]}),
    (np.array([1, 2]), "[1 2]"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Path("a"), "a"),
    (Colour.RED, "Colour.RED"),
    (Broken(), "<Broken that cannot be shown>"),
    (Secret("hunter2"), MASK),
    ("ü\udc80", "ü\udc80"),
    ("x" * 5_000, "x" * 1_000 + "…"),
    (list(range(1_000)), list(range(100))),
    (ENDLESS, [[[[["…"]]]]]),
]


@pytest.mark.parametrize(("value", "expected"), [pytest.param(*pair, id=type(pair[0]).__name__) for pair in ODD])
def test_any_value_is_said_as_json_says_it(value: Any, expected: Any):
    said = plain(value)
    assert said == expected
    assert type(said) is type(expected)


def test_a_frame_of_odd_values_is_saved_and_told(tmp_path: Path):
    values = pd.Series([value for value, _ in ODD], dtype=object)
    frames = {f"f{start}": pd.DataFrame({"odd": values[start : start + 5]}) for start in range(0, len(ODD), 5)}
    tracker = tracked([step(lambda f=frame: f, name=name) for name, frame in frames.items()])
    tracker.save(tmp_path / "odd.json")
    text = (tmp_path / "odd.json").read_text(encoding="utf-8")
    lineage = json.loads(text, parse_constant=pytest.fail)
    assert lineage == tracker.export_lineage()
    shown = [row["odd"] for each in lineage["steps"] for row in each["after_snapshot"]["sample_data"]]
    assert shown == [expected for _, expected in ODD]
    assert Path(tracker.export_to_story(tmp_path)).exists()


FRAMES = {
    "empty": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="int64")}),
    "no columns": pd.DataFrame(index=range(3)),
    "twice": pd.DataFrame([[1, 2, 3, 4]], columns=["a", "a", "a.1", "b"]),
    "levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
    "no texts": pd.DataFrame([[1, 2, 3]], columns=[0, None, dt.date(2013, 1, 1)]),
    "kinds": pd.DataFrame(
        {
            "category": pd.Categorical(["a", None]),
            "period": pd.period_range("2013", periods=2),
            "nullable": pd.array([1, None], dtype="Int64"),
            "zoned": pd.to_datetime(["2013-01-01", None], utc=True),
            "interval": pd.interval_range(0, 2),
            "sparse": pd.arrays.SparseArray([0, 1]),
        }
    ),
}


@pytest.mark.parametrize("frame", [pytest.param(frame, id=name) for name, frame in FRAMES.items()])
def test_any_frame_is_saved_and_told(frame: pd.DataFrame, tmp_path: Path):
    tracker = tracked([step(lambda: frame, name="made")])
    tracker.save(tmp_path / "a.json")
    lineage = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    snapshot = lineage["steps"][0]["after_snapshot"]
    columns = [each["column"] for each in snapshot["schema"]]
    assert len(set(columns)) == len(frame.columns)
    assert [list(row) for row in snapshot["sample_data"]] == [columns] * len(frame)
    assert snapshot["row_count"] == len(frame)
    assert Path(tracker.export_to_story(tmp_path)).exists()


def test_columns_of_the_same_name_are_numbered():
    snapshot = Snapshot.of("twice", FRAMES["twice"]).told(None, (), ())
    assert snapshot["sample_data"] == [{"a": 1, "a.1": 2, "a.1.1": 3, "b": 4}]


def test_saving_replaces_a_whole_file_and_makes_its_folder(tmp_path: Path):
    tracker = tracked([orders])
    path = tmp_path / "logs" / "run.json"
    tracker.save(path)
    tracker.save(str(path))
    assert [each.name for each in path.parent.iterdir()] == ["run.json"]
    assert json.loads(path.read_text())["summary"]["success_count"] == 1


# -- secrets -------------------------------------------------------------------------------------------


def test_secrets_are_shown_nowhere(tmp_path: Path):
    def made(given: Secret, key: Secret, deep: list[Secret]) -> pd.DataFrame:
        return pd.DataFrame({"key": [key], "text": [f"<{key.reveal()}> {given.reveal()}"], deep[0].reveal(): ["x"]})

    def bad(made: pd.DataFrame, given: Secret, key: Secret) -> None:
        raise ValueError(f"login as {key.reveal()} with {given.reveal()} refused")

    steps = [
        step(made, params={"key": Secret("hunter&2"), "deep": [Secret("deep-one")]}),
        step(bad, params={"key": Secret("hunter&2")}),
    ]
    tracker = tracked(steps, {"given": Secret("from-outside")}, on_error="continue")
    tracker.save(tmp_path / "a.json")
    page = tracker.export_to_story(tmp_path, {"bad": {"notes": ["hunter&2", Secret("other")]}})
    for text in ((tmp_path / "a.json").read_text(), Path(page).read_text(), repr(tracker.export_lineage())):
        assert MASK in text
        for secret in ("hunter", "deep-one", "from-outside", "other<"):
            assert secret not in text
    assert steps_of(tracker)["bad"]["error_message"] == f"ValueError: login as {MASK} with {MASK} refused"


# -- the story -----------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """Checks that every tag is closed by its like, and keeps the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(path: str) -> Tags:
    tags = Tags()
    tags.feed(Path(path).read_text(encoding="utf-8"))
    tags.close()
    assert not tags.open
    return tags


@dataclass
class Explanation:
    purpose: str
    formulas: dict[str, str]
    added_columns: tuple[str, ...]
    notes: str | None = None


def test_the_story_shows_steps_data_changes_errors_and_explanations(tmp_path: Path):
    def bad(large: pd.DataFrame) -> None:
        raise ValueError("no such column")

    steps = [orders, large, bad, step(lambda bad: 0, name="never")]
    tracker = tracked(steps, on_error="continue")
    long = "word " * 1_000
    explanations = {
        "large": Explanation("Large ones only", {"year": "the year"}, ("year",)),
        "bad": long,
        "stranger": "of another run",
    }
    page = tracker.export_to_story(tmp_path / "stories", explanations)
    tags = parsed(page)
    text = "\n".join(tags.texts)
    for expected in (
        tracker.runs[0],
        "2 (50 %)",
        "ValueError: no such column",
        "skipped because of 'bad'",
        "int64 -> float64",
        "After: large (pandas.DataFrame, 4 rows)",
        "Large ones only",
        "the year",
        "-3",
    ):
        assert expected in text
    assert long.strip() in text
    assert "of another run" not in text
    assert Path(page).name == f"story_{tracker.runs[0]}.html"


def test_nothing_in_a_story_is_taken_for_html(tmp_path: Path):
    evil = "</pre><script>alert(1)</script><iframe a='\"&amp;"
    frame = pd.DataFrame({evil: [evil]})

    def bad(data: pd.DataFrame) -> None:
        raise ValueError(evil)

    steps = [
        step(lambda: frame, name=evil, layer=evil),
        step(lambda data: data, name="next", inputs={"data": evil}),
        step(bad, inputs={"data": "next"}),
    ]
    tracker = tracked(steps, on_error="continue")
    page = tracker.export_to_story(tmp_path, {evil: evil, "bad": {evil: [evil]}}, dag_builder=Pipeline(steps))
    tags = parsed(page)
    assert "iframe" not in tags.seen
    assert Path(page).read_text().count("<script") == 1
    assert sum(evil in text for text in tags.texts) > 8


def test_what_steps_log_is_printed_as_ever_where_nobody_has_set_up_logging(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import logging\n"
        "from odibi_async import Tracker, run_pipeline_sync\n"
        "def warns(): logging.getLogger('shop').warning('disk nearly full'); logging.getLogger('shop').info('no')\n"
        "trackers = [Tracker(), Tracker()]\n"
        "run_pipeline_sync([warns], observers=trackers)\n"
        "logging.getLogger('shop').addHandler(logging.NullHandler())\n"
        "run_pipeline_sync([warns], observers=trackers)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stderr == "disk nearly full\n"


@pytest.mark.parametrize("options", [{"mask": None}, {"mask": [None]}, {"keep_last": "3"}, {"keep_last": 1.5}])
def test_a_tracker_refuses_options_that_would_do_nothing(options: Any):
    with pytest.raises(OptionError, match="is needed"):
        Tracker(**options)


def test_explanations_that_are_no_mapping_are_refused(tmp_path: Path):
    with pytest.raises(OptionError, match="explanations='Only large ones': a mapping"):
        Tracker().tell(tmp_path / "story.html", "Only large ones")  # type: ignore[arg-type]


@pytest.mark.parametrize("run_id", ["../../evil", "/evil", "nightly/2026", "nul\0", "a\udc80"])
def test_a_story_stays_in_its_folder_whatever_the_run_is_called(tmp_path: Path, run_id: str):
    tracker = Tracker()
    run_pipeline_sync([step(lambda: 1, name="s")], observers=[tracker], run_id=run_id)
    page = Path(tracker.export_to_story(tmp_path / "stories"))
    assert [page] == list((tmp_path / "stories").iterdir())
    assert [each.name for each in tmp_path.iterdir()] == ["stories"]
