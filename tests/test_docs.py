"""Every Python example in the README and in docs/ runs, in the order in which it stands."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


TEXTS = [pytest.param(page, page.read_text(encoding="utf-8"), id=page.name) for page in PAGES]


@pytest.fixture
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_as_a_script(source: str) -> None:
    """Runs what a reader pastes into a file of its own."""
    Path("script.py").write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.foreign_loop  # the examples import on the loop, as a notebook does
@pytest.mark.usefixtures("_in_a_folder_of_its_own")
@pytest.mark.parametrize(("page", "text"), TEXTS)
async def test_the_examples_run(page: Path, text: str):
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if "asyncio.run(" in block[1]:
            await asyncio.to_thread(run_as_a_script, block[1])
            continue
        line = text[: block.start()].count("\n") + 1
        source = "\n" * line + block[1]  # so that an error names the page's own line
        code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
