"""How much may run at a time."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError

Units = tuple[tuple[str, int], ...]
"""How much of which pools a step takes, in the order of their names."""


def units_of(pool: str | Mapping[str, int] | None) -> Units:
    """What a step's `pool` means: a name alone is one unit of that pool."""
    if pool is None:
        return ()
    return ((pool, 1),) if isinstance(pool, str) else tuple(sorted(pool.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    How much may run at a time, over all runs that share the limits.

    All runs of one `Runner` share its limits, and so do all bare calls of `run_pipeline` in one event loop.

    Attributes:
        concurrency: Steps, and elements of mapped steps; `None` for no limit.
        threads: Blocking steps, those that were abandoned included. `None`: the usable CPUs (by affinity
            and cgroup quota) and 4 more, at most 32.
        processes: Worker processes for steps with `run_on="process"`. `None`: the usable CPUs.
        pools: Name -> how much there is of it: steps that run at a time, or units of what steps say that they
            take: `Limits(pools={"db": 4, "gb": 16})` for `step(pool="db")` and `step(pool={"gb": 4})`.
        memory: What SQL over frames may take, such as `"4GB"`; `None` for 80 % of the machine's.
        temp_directory: Where SQL may spill what does not fit in it; `None` for the system's place.
        grace: Seconds that a cancelled step has for its clean-up before it is cancelled again, or
            abandoned when it runs in a thread.
        loop_blocked: Seconds that an async step may hold the event loop before observers hear of it
            (`odibi_async.events.LoopBlocked`); `None` to leave it at that.
    """

    concurrency: int | None = None
    threads: int | None = None
    processes: int | None = None
    pools: Mapping[str, int] = field(default_factory=dict)
    memory: str | None = None
    temp_directory: str | os.PathLike[str] | None = None
    grace: float = 5.0
    loop_blocked: float | None = 0.1

    def __post_init__(self) -> None:
        counts = {"concurrency": self.concurrency, "threads": self.threads, "processes": self.processes}
        counts.update({f"pools[{name!r}]": count for name, count in self.pools.items()})
        for name, count in counts.items():
            if count is None and name in ("concurrency", "threads", "processes"):
                continue
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise OptionError(f"Limits: {name} is a whole number from 1 on, not {count!r}.")
        object.__setattr__(self, "grace", seconds_of("Limits: grace", self.grace))
        blocked = seconds_of("Limits: loop_blocked", self.loop_blocked, above_zero=True)
        object.__setattr__(self, "loop_blocked", blocked)


def default_threads() -> int:
    """The number of worker threads when nobody says another: the usable CPUs and 4, at most 32. Reads files."""
    return min(32, usable_cpus() + 4)


@functools.cache
def usable_cpus() -> int:
    """The CPUs that this process may use: by affinity and by the quota of its cgroup (version 2 or 1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = cgroup_cpus("/sys/fs/cgroup")
    return allowed if granted is None else max(1, min(allowed, math.ceil(granted)))


def cgroup_cpus(root: str | os.PathLike[str]) -> float | None:
    """CPUs' worth of time that the cgroup grants; `None` where there is no quota, or no cgroup."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(_text_of(os.path.join(root, name)) for name in files).split()
            if quota != "max" and int(quota) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return None


def _text_of(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
