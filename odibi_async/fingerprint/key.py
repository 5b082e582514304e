"""The key that secrets are digested with: random, made once a user, and never where digests are kept."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Final

import platformdirs

from odibi_async.fingerprint.encoding import Undigestible

SIZE: Final = 32
"""Bytes, as BLAKE3 wants them."""


def secret_key() -> bytes:
    """
    The key of this user, made if there is none; processes that make it at once all get the same.

    Raises:
        Undigestible: It can neither be read nor made, or others can read it.
    """
    path = platformdirs.user_data_path("odibi_async", appauthor=False) / "secret.key"
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise Undigestible("", f"is a secret, and the key to digest it with is not available: {error}") from error


def _read(path: Path) -> bytes:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Undigestible("", f"is a secret, and the key to digest it with can be read by others: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != SIZE:
        raise Undigestible("", f"is a secret, and the key to digest it with is damaged: {path}")
    return key


def _make(path: Path) -> None:
    """Writes a key beside its place and links it there, which only the first of several can."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent)  # for the owner alone, from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was faster: its key holds
    finally:
        os.unlink(draft)
