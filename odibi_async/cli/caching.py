"""The commands about a cache: what is in it, why something is computed again, and how to remove it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from odibi_async.cache import Cache, Removed
from odibi_async.cli.answer import Answer, Problem, Refused
from odibi_async.cli.output import table
from odibi_async.errors import did_you_mean


@contextmanager
def opened(directory: str | None) -> Iterator[Cache]:
    """
    The cache in a directory, or the user's.

    Raises:
        Refused: There is none, or it cannot be read.
    """
    cache = Cache(directory)
    if not cache.directory.is_dir():
        raise Refused(Problem(code="OA409", message=f"there is no cache in {str(cache.directory)!r}."))
    try:
        yield cache
    finally:
        cache.close()
    if cache.trouble:
        raise Refused(Problem(code="OA311", message=f"the cache in {str(cache.directory)!r}: {cache.trouble}."))


def stats(directory: str | None) -> Answer:
    with opened(directory) as cache:
        found = cache.stats()
        place = str(cache.directory)
    head = ("STEP", "ENTRIES", "SIZE", "HITS", "MISSES", "HIT RATE")
    rows = [head, *(_figures(name, each) for name, each in found["steps"].items()), _figures("all", found)]
    return Answer(text="\n".join((place, table(rows))), data={"directory": place, **found})


def entries(directory: str | None) -> Answer:
    with opened(directory) as cache:
        listed = cache.entries()
    rows = [("KEY", "STEP", "SIZE", "HITS", "STORED", "USED", "TOOK")]
    data = []
    for each in listed:
        entry = each.entry
        rows.append(
            (
                entry.key[:12],
                entry.step,
                size(each.size),
                str(each.hits),
                _time(entry.stored_at),
                _time(each.used_at),
                f"{entry.cost:.2f} s",
            )
        )
        about = {"key": entry.key, "step": entry.step, "tags": entry.tags, "bytes": each.size, "hits": each.hits}
        times = {"stored_at": _utc(entry.stored_at), "used_at": _utc(each.used_at), "seconds": entry.cost}
        data.append({**about, **times})
    return Answer(text=table(rows), data={"entries": data})


def removed(directory: str | None, how: str) -> Answer:
    """Prunes, clears or verifies."""
    with opened(directory) as cache:
        found: Removed = getattr(cache, how)()
    counts = f"{_counted(found.entries, 'entry', 'entries')}, {_counted(found.blobs, 'file', 'files')}"
    text = "\n".join((f"removed: {counts}, {size(found.bytes)}", *found.damaged))
    return Answer(text=text, data=asdict(found))


def invalidated(directory: str | None, step: str | None, tag: str | None) -> Answer:
    with opened(directory) as cache:
        count = cache.invalidate(step=step, tag=tag)
    return Answer(text=f"forgot {_counted(count, 'entry', 'entries')}", data={"entries": count})


def explained(directory: str | None, step: str) -> Answer:
    """
    Raises:
        Refused: The step was never computed with this cache.
    """
    with opened(directory) as cache:
        found = cache.explain(step)
        known = cache.stats()["steps"]
    if found is None:
        message = f"no step {step!r} was computed with this cache.{did_you_mean(step, known)}"
        raise Refused(Problem(code="OA410", message=message))
    rows = [
        ("last computed", _time(found["computed_at"])),
        ("because", found["reason"]),
        ("in all", f"{_counted(found['hits'], 'hit', 'hits')}, {_counted(found['misses'], 'miss', 'misses')}"),
        ("kept", _counted(len(found["entries"]), "result", "results")),
        *zip(("depends on", *[""] * len(found["depends_on"])), found["depends_on"], strict=False),
    ]
    return Answer(text=table(rows), data={**found, "computed_at": _utc(found["computed_at"])})


def size(count: int) -> str:
    """Bytes as people read them: `812 B`, `1.4 MB`."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"


def _figures(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    counts = (found["entries"], size(found["bytes"]), found["hits"], found["misses"], f"{found['hit_rate']:.0%}")
    return (name, *map(str, counts))


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
