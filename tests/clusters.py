"""A real Dask cluster on loopback for the tests: a scheduler and two workers, each a process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "false",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
}


class Cluster:
    """
    A scheduler and its workers.

    Args:
        folder: Where they work, and their logs are.
        options: Further ones of the workers.
        tls: Those of scheduler and workers that say where their certificates are.
        environment: Further variables for the workers.

    Attributes:
        address: That of the scheduler.
    """

    def __init__(
        self,
        folder: Path,
        options: tuple[str, ...] = (),
        *,
        tls: tuple[str, ...] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._port = port
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        self._folder = folder
        self._tls = tls
        self._options = options
        self._environment = environment
        self.scheduler = self._scheduler()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.heal()
        from distributed.versions import get_versions

        get_versions()  # it reads files the first time, and remembers for good what it could not read on a loop

    def _scheduler(self) -> subprocess.Popen[bytes]:
        where = ("--host", self.address, "--port", str(self._port))
        started = self._start("scheduler", *where, "--no-dashboard", *self._tls)
        until = time.monotonic() + 60
        while started.poll() is None and time.monotonic() < until:  # a busy machine takes long to start it
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                break
            time.sleep(0.05)
        return started

    def revive(self) -> None:
        """Starts another scheduler in the place of one that is dead, and workers for it."""
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.scheduler = self._scheduler()
        self.heal()

    def _start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{command[0]}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
                stdout=log,
                stderr=log,
                env=os.environ | ENVIRONMENT | variables,
                cwd=self._folder,
                start_new_session=True,
            )

    def heal(self) -> None:
        """Sees to it that there are two workers."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < 2:
            self.workers.append(
                self._start(
                    "worker",
                    self.address,
                    "--nthreads=1",
                    "--no-nanny",
                    "--no-dashboard",
                    f"--host={self.address.rpartition(':')[0]}",
                    f"--local-directory={self._folder}",
                    *self._options,
                    *self._tls,
                    **self._environment,
                )
            )

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.end()
