"""Options that all engines have: modes of writing, and where secrets come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, get_args

from odibi_async.errors import OptionError, did_you_mean

Mode = Literal["overwrite", "append", "error", "ignore"]
MODES: Final[tuple[str, ...]] = get_args(Mode)
Secrets = Mapping[str, Any] | Callable[[str], Any]


def secret_of(secrets: Secrets | None, name: str) -> Any:
    """
    The secret of that name.

    Raises:
        OptionError: There is none.
    """
    known: Collection[str] = ()
    if callable(secrets):
        found = secrets(name)
    else:
        known = secrets or {}
        found = (secrets or {}).get(name)
    if found is None:
        raise OptionError(f"There is no secret {name!r}.{did_you_mean(name, known)}")
    return found
