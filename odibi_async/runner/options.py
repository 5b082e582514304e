"""What says how a run goes, and whether it can be so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from odibi_async.abc import Executor, Observer
from odibi_async.building import Functions, Nodes, Planned
from odibi_async.dataset import KINDS
from odibi_async.engines import ENGINES
from odibi_async.errors import GraphError, GraphFault, OptionError, did_you_mean, with_article
from odibi_async.graph.graph import Graph
from odibi_async.limits import Limits
from odibi_async.retry import Retry
from odibi_async.run.policies import OnError
from odibi_async.steps import is_async

if TYPE_CHECKING:
    from odibi_async.cache import Cache  # loads what runs without a cache do without
    from odibi_async.journal import Journal

Caching: TypeAlias = "bool | str | os.PathLike[str] | Cache | None"
Journaling: TypeAlias = "str | os.PathLike[str] | Journal | None"
Steps: TypeAlias = "Planned | Iterable[Any] | str | os.PathLike[str]"


class RunOptions(TypedDict, total=False):
    """What says how a run goes; `run_pipeline` tells what each of them means."""

    targets: Iterable[Any] | None
    cache: Caching
    retry: Retry | None
    timeout: float | None
    on_error: OnError
    engine: Any
    functions: Functions | None
    nodes: Nodes | None
    observers: Sequence[Observer]
    run_id: str | None
    resume: bool
    journal: Journaling
    executors: Mapping[str, Executor]


_INSTEAD: Final = {
    **dict.fromkeys(("max_workers", "workers", "n_jobs", "threads"), "limits=Limits(threads=...)"),
    **dict.fromkeys(("concurrency", "max_concurrency", "parallelism"), "limits=Limits(concurrency=...)"),
    **dict.fromkeys(("retries", "max_retries", "attempts"), "retry=Retry(attempts=...)"),
    **dict.fromkeys(("outputs", "final_vars"), "targets=[...]"),
    **dict.fromkeys(("params", "variables", "context", "data"), "the second argument, a mapping of inputs,"),
    **dict.fromkeys(("fail_fast", "continue_on_error", "raise_on_error"), 'on_error="raise" or "continue"'),
    **dict.fromkeys(("cache_dir", "use_cache"), "cache=True or cache=DIRECTORY"),
}
"""What others call an option -> what it is called here."""


def refuse(who: str, unknown: Iterable[str], known: Iterable[str], otherwise: str = "") -> None:
    """
    Raises:
        TypeError: There are options that are none.
    """
    for name in unknown:
        hint = f" Use {_INSTEAD[name]} instead." if name in _INSTEAD else did_you_mean(name, known)
        raise TypeError(f"{who} has no option {name!r}.{hint or otherwise}")


def check_given(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        kind = KINDS[type(value)]
        if kind is not None and kind.refused:
            raise OptionError(f"Input {name!r} is {with_article(type(value).__name__)}, {kind.refused}")


def check_cache(cache: Caching) -> Caching:
    if isinstance(cache, str) and cache.lower() in ("true", "false", "none"):
        raise OptionError(f"cache={cache!r}: a text is a directory. Say cache={cache.capitalize()} without quotes.")
    if cache is None or isinstance(cache, bool | str | os.PathLike) or hasattr(cache, "lookup"):
        return cache
    raise OptionError(f"cache={cache!r}: True, False, a directory or a Cache(...) is needed.")


def check_journal(journal: Journaling) -> Journaling:
    if journal is None or isinstance(journal, str | os.PathLike) or hasattr(journal, "keep_last"):
        return journal
    raise OptionError(f"journal={journal!r}: a directory or a Journal(...) is needed.")


def check_run_id(run_id: str | None, resume: bool, journal: Journaling) -> None:
    if run_id is not None and not (isinstance(run_id, str) and run_id.strip()):
        raise OptionError(f"run_id={run_id!r}: a text that is not empty is needed.")
    if resume and journal is None:
        raise OptionError("resume=True: the journal is needed that has the run, journal=DIRECTORY.")
    if resume and run_id is None:
        raise OptionError("resume=True: the id of the run is needed, run_id=.")


def check_engine(engine: Any) -> None:
    if isinstance(engine, str):
        if engine not in ENGINES:
            raise OptionError(f"engine={engine!r} is none of {', '.join(ENGINES)}.{did_you_mean(engine, ENGINES)}")
    elif engine is not None and not isinstance(getattr(engine, "name", None), str):
        raise OptionError(f"engine={engine!r} is neither a name nor a context made by create_engine_context().")


def checked(observers: Iterable[Observer]) -> Sequence[Observer]:
    if not isinstance(observers, Iterable):
        raise OptionError(f"observers={observers!r}: a list of observers is needed, also for a single one.")
    observers = tuple(observers)
    for observer in observers:
        if not callable(observer) or is_async(observer):
            raise OptionError(f"An observer is a plain callable that takes an event; {observer!r} is not.")
    return observers


def check_executors(executors: Mapping[str, Executor]) -> Mapping[str, Executor]:
    if not isinstance(executors, Mapping):
        raise OptionError(f"executors={executors!r}: a mapping from names to executors is needed.")
    for name, executor in executors.items():
        if name in ("loop", "thread") or not isinstance(name, str) or not hasattr(executor, "submit"):
            raise OptionError(f"executors={{{name!r}: {executor!r}}}: a name of your own and an executor are needed.")
    return executors


def check_places(known: Iterable[str], graph: Graph) -> None:
    known = ("loop", "thread", *known)
    faults = [
        GraphFault(
            "OA215",
            f"Step {step!r} runs on {name!r}, which is no executor of this run.{did_you_mean(name, known)}"
            f" Known: {', '.join(known)}; give others with executors={{{name!r}: ...}}.",
            step,
            ("run_on",),
        )
        for name, step in graph.executors.items()
        if name not in known
    ]
    if faults:
        raise GraphError(faults)


def check_pools(limits: Limits, graph: Graph) -> None:
    known = limits.pools
    faults = [
        GraphFault(
            "OA214",
            f"Step {step!r} takes a slot of pool {pool!r}, which the limits do not know.{did_you_mean(pool, known)}"
            f" Known pools: {', '.join(sorted(known)) or 'none; give them with Limits(pools={...})'}.",
            step,
            ("pool",),
        )
        for pool, step in graph.pools.items()
        if pool not in known and graph.nodes[graph.names[step]].executor in (None, "process")
    ]
    faults += [
        GraphFault(
            "OA216",
            f"Step {node.name!r} takes {units} of pool {pool!r}, of which there are only {known[pool]}.",
            node.name,
            ("pool",),
        )
        for node in graph.nodes
        for pool, units in node.pool
        if units > known.get(pool, units)
    ]
    if faults:
        raise GraphError(faults)
