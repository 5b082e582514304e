"""What tests of the command line share: a command in this process, and one in its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("ODIBI_ASYNC_CONFIG", "NO_COLOR", "COLUMNS")},
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    "PYTHONUNBUFFERED": "1",
}
COMMAND = [sys.executable, "-m", "odibi_async"]


@dataclass(frozen=True)
class Said:
    """What a command ended with and wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything beside it fails."""
        assert self.out.count("\n") == 1
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def codes(self) -> list[str]:
        return [error["code"] for error in self.json["errors"]]


def process(*arguments: str, environment: Mapping[str, str] | None = None, **options: Any) -> Said:
    """A command in a process of its own, as people run it."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        env={**ENVIRONMENT, **(environment or {})},
        timeout=60,
        **options,
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs; killed if it is not over by then."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def wait_for(popen: subprocess.Popen[str], text: str) -> None:
    """Reads its stderr up to a line that holds this text."""
    assert popen.stderr is not None
    for line in popen.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} was never written")
