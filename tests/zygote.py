"""
A process that has loaded everything and forks one child for each command: children that are killed cost no start-up.

A command is a line of JSON on its stdin, with the folder that the child works in. It prints `{"pid": ...}` at once, and
`{"ended": wait status}` later, unless the command says `"waits": false`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from odibi_async.testing import failpoint

ROOT = Path(__file__).parent.parent


class Zygote:
    """The process, as its parent sees it; `module` is run with `-m` and calls `serve`."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, folder: Path, **command: Any) -> int:
        """The process id of a child that is on its way."""
        assert self._process.stdin is not None
        print(json.dumps({"folder": str(folder)} | command), file=self._process.stdin, flush=True)
        return int(self._told()["pid"])

    def run(self, folder: Path, *, kill_after: float | None = None, **command: Any) -> int:
        """Runs a child, killed after so many seconds; the status that it ended with."""
        timer = threading.Timer(kill_after or 300.0, _kill, [self.begin(folder, **command)])
        timer.start()
        try:
            return int(self._told()["ended"])
        finally:
            timer.cancel()
            timer.join()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGKILL)


def serve(child: Callable[[dict[str, Any]], None]) -> None:
    """What the process does: `child` is called with each command, in the command's folder, in a fork."""
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if not pid:
            os.chdir(command["folder"])
            child(command)
            os._exit(0)
        print(json.dumps({"pid": pid}), flush=True)
        if command.get("waits", True):
            print(json.dumps({"ended": os.waitpid(pid, 0)[1]}), flush=True)


@contextlib.contextmanager
def killed_at(kill: tuple[str, int] | None) -> Iterator[None]:
    """Kills this process when it comes to the failpoint of that name for the time of that number."""
    if kill is None:
        yield
        return
    (name, number), count = kill, 0

    def act() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    with failpoint(name, act):
        yield
