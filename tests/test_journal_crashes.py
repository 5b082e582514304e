"""Runs that are killed at any moment, on disks that fail, with damaged journals: they go on where they were."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odibi_async import Journal
from odibi_async.failpoints import FAILPOINTS
from odibi_async.result import Status
from tests.zygote import Zygote


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote("tests.crashing")
    yield process
    process.close()


class Reference:
    """A run that nobody disturbed."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        folder.mkdir()
        began = time.monotonic()
        assert zygote.run(folder) == 0
        self.seconds = time.monotonic() - began
        self.outcome = outcome_of(folder)
        self.calls = called(folder)
        assert "error" not in self.outcome, self.outcome["text"]


@pytest.fixture(scope="module")
def reference(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    Reference(zygote, folder / "warm")
    return Reference(zygote, folder / "measured")


def outcome_of(folder: Path) -> Any:
    return json.loads((folder / "outcome.json").read_text())


def called(folder: Path) -> Counter[str]:
    log = folder / "calls.log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def check_resumed(zygote: Zygote, folder: Path, reference: Reference) -> None:
    """Resumes what was killed, and looks at all that is promised."""
    for name in ("totals.csv", "third.csv"):
        if (folder / name).exists():
            assert (folder / name).stat().st_size, f"{name} is there, but it is not whole"
    committed, status = committed_in(folder)
    before = called(folder)
    assert zygote.run(folder, resume=status is not None) == 0
    outcome = outcome_of(folder)
    assert "error" not in outcome, outcome["text"]
    again = called(folder) - before
    assert not {f"{step} {element}" for step, element in committed} & again.keys()
    for step, element in committed:
        if element is None:
            assert outcome["steps"][step] == "resumed"
    assert outcome["outputs"] == reference.outcome["outputs"]
    assert outcome["files"] == reference.outcome["files"]
    left = [path for path in folder.rglob("*") if "unfinished" in path.name or path.suffix == ".lock"]
    left += (folder / "journal" / "store" / "work").iterdir()
    assert not left


def committed_in(folder: Path) -> tuple[list[tuple[str, int | None]], Status | None]:
    """The steps and elements that are committed, and what the journal says of the run."""
    with Journal(folder / "journal") as journal:
        runs = journal.runs()
        if not runs:
            return [], None
        [run] = runs
        return [(each.step, each.element) for each in journal.steps("r") if each.is_committed], run.status


def kill_at_random(zygote: Zygote, folder: Path, reference: Reference, count: int) -> None:
    chance, kills, committed = random.Random(count), 0, 0
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        status = zygote.run(place, kill_after=chance.uniform(0.001, reference.seconds))
        if status == 0:
            outcome_of(place)
        else:
            kills += 1
            steps, said = committed_in(place)
            assert said in (None, Status.INTERRUPTED, Status.SUCCEEDED)
            committed += len(steps)
        check_resumed(zygote, place, reference)
        shutil.rmtree(place)
    assert kills > count / 2
    assert committed > count


def test_a_run_that_is_killed_at_any_of_60_moments_goes_on_where_it_was(
    zygote: Zygote, reference: Reference, tmp_path: Path
):
    kill_at_random(zygote, tmp_path, reference, 60)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_of_1000_moments_goes_on_where_it_was(
    zygote: Zygote, reference: Reference, tmp_path: Path
):
    kill_at_random(zygote, tmp_path, reference, 1000)


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_run_that_is_killed_at_a_failpoint_goes_on_where_it_was(
    zygote: Zygote, reference: Reference, tmp_path: Path, name: str
):
    for count in (1, 2, 4):
        place = tmp_path / str(count)
        place.mkdir()
        assert zygote.run(place, kill=[name, count]) == signal.SIGKILL
        check_resumed(zygote, place, reference)


def test_of_two_processes_that_resume_a_run_one_wins_and_the_other_is_told(
    zygote: Zygote, reference: Reference, tmp_path: Path
):
    for number in range(5):
        place = tmp_path / str(number)
        place.mkdir()
        assert zygote.run(place, kill=["before commit", 4]) == signal.SIGKILL
        pids = [zygote.begin(place, resume=True, waits=False, outcome=f"{name}.json") for name in ("one", "two")]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all((place / f"{name}.json").exists() for name in ("one", "two")):
            time.sleep(0.01)
        assert len(set(pids)) == 2
        time.sleep(0.02)
        outcomes = [json.loads((place / f"{name}.json").read_text()) for name in ("one", "two")]
        won = [outcome for outcome in outcomes if "error" not in outcome]
        lost = [outcome for outcome in outcomes if outcome.get("error") == "RunAlive"]
        assert len(won) >= 1  # where one has ended before the other began, both have the result
        assert len(won) + len(lost) == 2
        assert won[0]["outputs"] == reference.outcome["outputs"]
