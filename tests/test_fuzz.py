"""Whatever a pipeline is made of and whenever it is cancelled: the run ends, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest

from tests.fuzzing import check

SEED = int(os.environ.get("ODIBI_FUZZ_SEED", "0"))
CASES = int(os.environ.get("ODIBI_FUZZ_CASES", "5000"))


@pytest.mark.parametrize("seed", range(100))
def test_a_random_pipeline_leaves_nothing_behind(seed: int):
    check(seed)


@pytest.mark.slow
def test_thousands_of_random_pipelines_leave_nothing_behind():
    for seed in range(SEED, SEED + CASES):
        check(seed)
