"""Datasets and errors of odd kinds: what an answer says of them, and that none of them breaks one."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from odibi_async import Pipeline, Runner, step
from odibi_async.integrations.fastapi.sizes import bytes_of
from tests.serving import app_of, served
from tests.test_service import problem
from tests.test_service_events import told

HALF = "\ud800"
"""Half of a surrogate pair, which no UTF-8 has."""
NANOSECOND = 1_767_225_600_123_456_789


class Unmeasured:
    """A value whose own code fails when somebody wants to know how large it is."""

    @property
    def nbytes(self) -> int:
        raise RuntimeError("nobody knows")

    def memory_usage(self) -> int:
        raise RuntimeError("nobody knows")


async def made(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/p/odd/runs?wait=20")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def odd(make: Callable[[], Any]) -> dict[str, Any]:
    return {"odd": Pipeline([step(make, name="value")])}


def columns(*names: Any) -> pd.DataFrame:
    return pd.DataFrame([range(len(names))], columns=list(names))


SAID: dict[str, tuple[Callable[[], Any], Any]] = {
    "bytes in a frame": (lambda: pd.DataFrame({"a": [b"\xff"]}), [{"a": base64.urlsafe_b64encode(b"\xff").decode()}]),
    "a duration of a nanosecond": (lambda: pd.DataFrame({"a": pd.to_timedelta([-1, 0])}), ["-PT0.000000001S"]),
    "durations": (lambda: pd.DataFrame({"a": pd.to_timedelta([1000, None])}), [{"a": "PT0.000001S"}, {"a": None}]),
    "a time of day": (
        lambda: pa.table({"a": pa.array([1, None], pa.time64("ns"))}),
        [{"a": "00:00:00.000000001"}, {"a": None}],
    ),
    "a day of NumPy": (lambda: np.datetime64("2026-01-01"), "2026-01-01"),
    "a nanosecond of NumPy": (lambda: np.datetime64(NANOSECOND, "ns"), "2026-01-01T00:00:00.123456789"),
    "times of NumPy": (
        lambda: np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"),
        ["2026-01-01T00:00:00", None],
    ),
    "an integer of any length": (lambda: 10**400, 10**400),
    "numbers for names": (lambda: columns(0, 1), [{"0": 0, "1": 1}]),
}


@pytest.mark.parametrize("name", SAID)
async def test_what_json_can_say_is_said_in_full(name: str):
    make, expected = SAID[name]
    async with served(app_of(Path(), offers=odd(make))) as client:
        said = await made(client)
        found = said["outputs"]["value"]
        assert (await client.get(f"{said['links']['results']}/value")).json() == found
        assert found == expected or [each["a"] for each in found][:1] == expected


UNSAID: dict[str, tuple[Callable[[], Any], str]] = {
    "columns that share a name": (lambda: columns("a", "a"), "Duplicate column names"),
    "columns that share it as texts": (lambda: columns(0, "0"), "share the name '0'"),
    "columns of Arrow that share a name": (lambda: pa.table([[1], [2]], names=["a", "a"]), "share the name 'a'"),
    "such a frame in a mapping": (lambda: {"f": columns(0, "0")}, "cannot be JSON"),
    "a column of everything": (lambda: pd.DataFrame({"a": [1, "x"]}), "cannot be a table"),
    "complex numbers": (lambda: pd.DataFrame({"a": [1j]}), "cannot be a table"),
    "half of a pair": (lambda: HALF, "cannot be JSON"),
    "half of a pair in a list": (lambda: [{"a": HALF}], "cannot be JSON"),
    "a time that no Python has": (lambda: pa.table({"a": pa.array([2**62], pa.timestamp("s"))}), "cannot be JSON"),
    "nanoseconds between": (lambda: np.timedelta64(1, "ns"), "cannot be JSON"),
    "what cannot be measured": (Unmeasured, "A Unmeasured cannot be JSON."),
}


@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("name", UNSAID)
async def test_what_json_cannot_say_is_left_out_of_the_answer_of_a_run_that_is_well(
    name: str, has_journal: bool, tmp_path: Path
):
    make, reason = UNSAID[name]
    runner = Runner(journal=tmp_path / "journal") if has_journal else Runner()
    async with served(app_of(tmp_path, runner=runner, offers=odd(make))) as client:
        said = await made(client)
        if said["status"] == "failed":  # the journal's own store takes it for a fault
            return
        assert reason in said["omitted"]["value"]["reason"]
        answer = await client.get(said["omitted"]["value"]["href"])
        assert answer.status_code in (406, 404 if has_journal else 406), answer.text


async def test_columns_that_share_a_name_are_sent_in_the_forms_that_can_have_them():
    async with served(app_of(Path(), offers=odd(lambda: columns(0, "0")))) as client:
        place = (await made(client))["links"]["results"] + "/value"
        assert (await client.get(f"{place}?format=csv")).text == '"0","0"\n0,1\n'
        problem(await client.get(place), 406, "OA336")


async def test_few_rows_may_be_large_too():
    async with served(
        app_of(Path(), offers=odd(lambda: pd.DataFrame({"a": ["x" * 2_000_000]}, dtype=object)))
    ) as client:
        assert (await made(client))["omitted"]["value"]["reason"] == "It is large."


def test_what_a_frame_s_objects_take_counts():
    texts = ["x" * 1_000 + str(number) for number in range(1_000)]
    assert 1_000_000 < bytes_of(pd.DataFrame({"a": 1.0, "b": pd.Series(texts, dtype=object)})) < 1_300_000
    assert bytes_of(pd.DataFrame({"a": range(1_000)})) < 9_000
    assert bytes_of(pd.DataFrame()) < 1_000
    assert bytes_of(Unmeasured()) < 1_000


@pytest.mark.parametrize("has_journal", [False, True])
async def test_errors_of_any_text_are_told_and_long_ones_in_part(tmp_path: Path, has_journal: bool):
    async def failing() -> None:
        raise ValueError(f"{HALF} {'x' * 1_000_000}")

    runner = Runner(journal=tmp_path / "journal") if has_journal else Runner()
    offers = {"odd": Pipeline([failing])}
    async with served(app_of(tmp_path, runner=runner, offers=offers, story=True)) as client:
        run = await made(client)
        texts = [json.dumps(run), (await client.get("/p/runs")).text]
        texts += [(await client.get(run["links"][link])).text for link in ("self", "events")]
        for text in texts:
            assert "ud800 xxx" in text
            assert len(text) < 50_000
        assert (await client.get(run["links"]["story"])).status_code == 200


async def test_a_name_may_have_half_of_a_pair():
    async def one() -> dt.date:
        return dt.date(2026, 1, 1)

    offers = {"odd": Pipeline([step(one, name=f"a{HALF}")])}
    async with served(app_of(Path(), offers=offers)) as client:
        run = await made(client)
        assert run["omitted"] == {}
        assert run["outputs"] == {f"a{HALF}": "2026-01-01"}
        heard = told((await client.get(run["links"]["events"])).text)
        assert [data.get("step") for _, _, data in heard] == [None, f"a{HALF}", f"a{HALF}", None]
