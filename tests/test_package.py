"""The package itself: what importing it costs and gives."""

from __future__ import annotations

import subprocess
import sys

import odibi_async

HEAVY = ("pandas", "numpy", "pydantic", "rich", "tenacity", "duckdb", "fastapi", "pyarrow", "pyspark", "diskcache")


def test_importing_loads_none_of_the_heavy_libraries():
    code = f"import sys, odibi_async; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert all(hasattr(odibi_async, name) for name in odibi_async.__all__)
    assert odibi_async.__all__ == sorted(odibi_async.__all__)


def test_a_run_without_frames_never_loads_pandas():
    code = (
        "import asyncio, sys, odibi_async as o; "
        "asyncio.run(o.run_pipeline([o.step(lambda: 1, name='s')])); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
