"""Damaged configuration files in every format of text: each is read, or refused in words that can be printed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from odibi_async import load_steps
from odibi_async.errors import OdibiError

WHOLE = {
    "json": '[{"name": "a", "layer": "ingest", "value": "a.csv", "params": {"sep": ";"}},\n'
    ' {"name": "b", "type": "sql", "value": "SELECT 1", "inputs": {"d": "a"}, "retry": {"attempts": 3}}]',
    "yaml": "defaults: {engine: pandas}\nsteps:\n- {name: a, layer: ingest, value: a.csv}\n"
    '- name: b\n  type: sql\n  value: SELECT 1\n  inputs: {d: a}\n  tags: [x, "y"]\n',
    "toml": '[[steps]]\nname = "a"\nlayer = "ingest"\nvalue = "a.csv"\n'
    '[[steps]]\nname = "b"\ntype = "sql"\nvalue = "SELECT 1"\ninputs.d = "a"\n',
    "csv": 'StepName,StepType,Value,Inputs\na,sql,SELECT 1,"{""d"": ""x""}"\nb,function,f,\n',
}
PIECES = [
    "\\ud800",
    '"',
    '\\"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "\t",
    "\x00",
    "&a",
    "*a",
    "<<",
    "!!python",
    "1e999",
    "NaN",
    "null",
    "true",
    "\\u0000",
    "é",
    "�",
    "-",
    "#",
    "'",
    "${env:HOME}",
    "${file:x}",
    "...",
    "---",
    "|",
    ">",
    "0x",
    "1_0",
    ".inf",
    "2024-01-01",
]


def damaged(rng: random.Random, text: str) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at, how = rng.randrange(len(text) + 1), rng.random()
        if how < 0.5:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif how < 0.75:
            text = text[:at] + text[at + rng.randint(1, 5) :]
        else:
            other = rng.randrange(len(text) + 1)
            text = text[:at] + text[other : other + rng.randint(1, 20)] + text[at:]
    return text.encode("utf-8" if rng.random() < 0.97 else "utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("first", "count"), [(0, 400), pytest.param(1_000, 40_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_damaged_files_are_read_or_refused_in_words(tmp_path: Path, first: int, count: int) -> None:
    for seed in range(first, first + count):
        rng = random.Random(seed)
        suffix = rng.choice(list(WHOLE))
        file = tmp_path / f"pipeline.{suffix}"
        file.write_bytes(damaged(rng, WHOLE[suffix]))
        try:
            load_steps(file)
        except OdibiError as error:
            str(error).encode("utf-8", "backslashreplace")
        except BaseException as error:
            raise AssertionError(f"{suffix}, seed {seed}: {file.read_bytes()!r}") from error


def test_half_a_character_in_a_key_is_told_of() -> None:
    with pytest.raises(OdibiError, match=r"holds half of a character"):
        load_steps([{"name": "a", "n\ud800ame": 1}])
