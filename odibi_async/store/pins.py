"""What no upkeep removes: the files that runs need when they are resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from odibi_async.store.blobs import is_name, private, synced
from odibi_async.store.locks import files_in


class Pins:
    """
    A list of files for each run that may be resumed.

    Args:
        folder: Holds a text file for each run: first where the run is recorded, then the names of files, a line each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, run: str, home: str, blobs: Iterable[str]) -> None:
        """
        Pins files for a run; they have reached the disk when this returns.

        Args:
            run: A name for the run that can be that of a file.
            home: The directory of the journal that knows the run, so that pins do not outlive it; empty where the
                journal is no directory.
            blobs: The files.
        """
        os.makedirs(self._folder, 0o700, exist_ok=True)
        path = self._folder / run
        is_new = not path.exists()
        with open(path, "a", encoding="utf-8", opener=private) as file:
            lines = [home] if is_new else []
            file.writelines(f"{line}\n" for line in (*lines, *blobs))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            synced(self._folder)

    def remove(self, run: str) -> None:
        """Pins nothing for a run any more."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / run)

    def blobs(self) -> set[str]:
        """Every file that is pinned; a list whose journal is gone is removed."""
        found: set[str] = set()
        for path in files_in(self._folder, "*"):
            try:
                home, *lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError):  # gone meanwhile, or empty
                continue
            if home and not os.path.isdir(home):
                self.remove(path.name)
            else:
                found.update(filter(is_name, lines))
        return found
