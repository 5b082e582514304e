"""A streaming run that is killed and resumed loses nothing, and does nothing again that is committed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.streamed import BATCHES

ROOT = Path(__file__).parents[1]
AT_ONCE = 4
"""How many batches are under way when a run is killed."""


def _lines(folder: Path) -> list[str]:
    log = folder / "calls.log"
    return log.read_text().splitlines() if log.exists() else []


def _killed(folder: Path, after: int) -> bool:
    """Starts the run, or resumes it, and kills it when so many more calls have begun; whether it had not ended."""
    before = len(_lines(folder))
    process = subprocess.Popen([sys.executable, "-m", "tests.streamed", str(folder)], cwd=ROOT)
    while process.poll() is None and len(_lines(folder)) < before + after:
        time.sleep(0.001)
    process.kill()
    return process.wait() != 0


def _check(folder: Path, kills: list[int]) -> None:
    killed = sum([_killed(folder, after) for after in kills])
    subprocess.run([sys.executable, "-m", "tests.streamed", str(folder)], cwd=ROOT, check=True)
    lines = _lines(folder)
    assert lines[-1].startswith(f"ended {3 * BATCHES} ")
    assert sorted(int(row.name) for row in (folder / "rows").iterdir()) == list(range(3 * BATCHES))
    loads = [line for line in lines if line.startswith("load")]
    assert len(set(loads)) == BATCHES
    assert len(loads) <= BATCHES + killed * AT_ONCE


def test_a_run_that_is_killed_twice_goes_on_where_it_was(tmp_path: Path):
    _check(tmp_path, [3, 8])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_run_that_is_killed_at_random_goes_on_where_it_was(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    _check(tmp_path, [chance.randint(1, 15) for _ in range(4)])
