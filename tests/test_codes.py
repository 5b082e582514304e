"""Every fault has a code, every code is explained, and its examples show just that fault."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from odibi_async.cli import main
from odibi_async.cli.answer import EXITS, problems_of
from odibi_async.cli.codes import CODES, Code
from odibi_async.errors import OdibiError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_pipeline(shell_s_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["init"])
    capfd.readouterr()


def codes_of_command(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> set[str]:
    main([*arguments, "--json"])
    told: dict[str, Any] = json.loads(capfd.readouterr().out)
    return {error["code"] for error in told["errors"]}


def codes_of_console(example: str, capfd: pytest.CaptureFixture[str]) -> set[str]:
    """What the last command of an example says; those before it are a shell's simplest."""
    codes: set[str] = set()
    for line in example.strip().splitlines():
        match shlex.split(line.removeprefix("$ ")):
            case ["odibi-async", *arguments]:
                codes = codes_of_command(arguments, capfd)
            case ["mv", old, new]:
                Path(old).rename(new)
            case ["rm", name]:
                Path(name).unlink()
            case ["echo", text, ">", name]:
                Path(name).write_text(text)
            case other:
                raise AssertionError(other)
    return codes


def codes_of_python(example: str) -> set[str]:
    try:
        exec(compile(example, "example.py", "exec"), {})
    except OdibiError as error:
        return {problem.code for problem in problems_of(error)}
    return set()


def codes_of(code: str, entry: Code, example: str, capfd: pytest.CaptureFixture[str]) -> set[str]:
    match entry.form:
        case "python":
            return codes_of_python(example)
        case "console":
            return codes_of_console(example, capfd)
        case "toml":
            Path("odibi.yaml").rename("pipeline.yaml")
            Path("pyproject.toml").write_text(example)
            return codes_of_command(["validate"], capfd)
    file = f"pipeline.{entry.form}"
    Path(file).write_text(example)
    return codes_of_command(["run" if code.startswith("OA3") else "validate", file], capfd)


@pytest.mark.foreign_loop  # a command runs its own loop, and imports while it does
@pytest.mark.parametrize("code", CODES)
def test_the_wrong_example_of_a_code_has_this_fault_alone(code: str, capfd: pytest.CaptureFixture[str]):
    assert codes_of(code, CODES[code], CODES[code].wrong, capfd) == {code}


@pytest.mark.foreign_loop
@pytest.mark.parametrize("code", CODES)
def test_the_right_example_of_a_code_has_no_fault(code: str, capfd: pytest.CaptureFixture[str]):
    assert codes_of(code, CODES[code], CODES[code].right, capfd) == set()


def test_every_code_in_the_sources_is_explained():
    """That each of them is raised by something, its wrong example shows."""
    sources = [path.read_text() for path in (ROOT / "odibi_async").rglob("*.py") if path.name != "codes.py"]
    named = {code for source in sources for code in re.findall(r'"(OA\d{3})"', source)}
    assert named == set(CODES)


def test_every_code_has_an_exit_code():
    assert all(code in EXITS or code[:3] in EXITS for code in CODES)


def test_codes_stand_in_order():
    assert list(CODES) == sorted(CODES)
