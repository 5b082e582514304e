"""What a worker does with what a step made: it keeps it in the shared directory, and reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from odibi_async.errors import OdibiError
from odibi_async.fingerprint import Undigestible, digest_of, is_mutable
from odibi_async.fingerprint.mutable import mutables_in
from odibi_async.store.kept import Kept
from odibi_async.store.shared import store_in


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a worker has kept of a call.

    Attributes:
        kept: Where each dataset is; none if they could not be kept.
        reason: Why they could not.
        has_parts: Whether readers of the same memory could change what is nested in a dataset.
    """

    kept: tuple[Kept, ...] = ()
    reason: str = ""
    has_parts: bool = False


@dataclass(frozen=True, slots=True)
class Keeping:
    """
    Has what a step makes kept where it is called.

    Attributes:
        directory: The shared directory.
        names: What each dataset is called, for messages.
        for_effects: Whether a step that returns only `None` is kept.
    """

    directory: str
    names: tuple[str, ...]
    for_effects: bool

    def around(self, outputs: Callable[[Any], Sequence[Any]]) -> Callable[[Any], Sequence[Any]]:
        """Turns what a function returned into its datasets, and a report that follows them."""
        return functools.partial(_kept_here, self, outputs)


def _kept_here(keeping: Keeping, outputs: Callable[[Any], Sequence[Any]], value: Any) -> Sequence[Any]:
    made = outputs(value)
    if all(each is None for each in made) and not keeping.for_effects:
        reason = "it returned None, so it is run for its effects; use cache=True to cache it anyway"
        return [*made, Report(reason=reason)]
    try:
        kept = tuple(_kept(keeping, name, each) for name, each in zip(keeping.names, made, strict=True))
    except (Undigestible, OdibiError, OSError) as error:
        return [*made, Report(reason=str(error))]
    has_parts = any(each is not value for value in made for each in mutables_in(value))
    return [*made, Report(kept, has_parts=has_parts)]


def _kept(keeping: Keeping, name: str, value: Any) -> Kept:
    digest = _digest(name, value)
    kept = store_in(keeping.directory).keep(value, digest)
    if is_mutable(value) and _digest(name, value) != digest:
        raise OdibiError(f"the output {name!r} changed while it was kept.")
    return kept


def _digest(name: str, value: Any) -> str:
    return digest_of(value, name=f"the output {name!r}", ordered=True, paths=False)
