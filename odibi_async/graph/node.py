"""The parts of a graph: steps whose parameters are bound. Plain data over small whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from odibi_async.dataset import ABSENT, reader_copy
from odibi_async.limits import units_of
from odibi_async.steps import Step

OUTSIDE = -1
"""Stands for the producer of a dataset that no step makes."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Binding(NamedTuple):
    """
    Where one parameter gets its value.

    Attributes:
        parameter: Its name.
        by_position: Whether it is given by position, as all are that can be: some wrappers take only these.
        dataset: The dataset it reads; `None` when it gets `value`.
        value: The constant, or what it gets when the dataset is not there (`ABSENT`: it needs it).
    """

    parameter: str
    by_position: bool
    dataset: int | None
    value: Any


@dataclass(slots=True)
class Call:
    """
    A function with its parameters bound.

    Attributes:
        reads: The datasets given by position, when nothing else is bound.
        bindings: All parameters, when something else is.
        yields: Whether calling the function gives a generator, async or plain.
    """

    fn: Callable[..., Any]
    is_async: bool
    reads: tuple[int, ...] = ()
    bindings: tuple[Binding, ...] = ()
    yields: bool = False

    def arguments(
        self,
        values: Sequence[Any] | Mapping[int, Any],
        instead: Mapping[str, Any] = NOTHING,
        *,
        is_copied: bool = True,
    ) -> tuple[list[Any], dict[str, Any]]:
        """
        What to call the function with. `instead` fills parameters first; each frame is the reader's own, unless the
        reader is in another process and gets a copy anyway.
        """
        copied = reader_copy if is_copied else _itself
        positional, named = [copied(values[dataset]) for dataset in self.reads], {}
        for parameter, by_position, dataset, value in self.bindings:
            if parameter in instead:
                value = instead[parameter]
            elif dataset is not None and (made := values[dataset]) is not ABSENT:
                value = made
            if by_position:
                positional.append(copied(value))
            else:
                named[parameter] = copied(value)
        return positional, named

    @property
    def datasets(self) -> tuple[int, ...]:
        """The datasets it reads."""
        return self.reads or tuple(b.dataset for b in self.bindings if b.dataset is not None)

    @property
    def needs(self) -> tuple[int, ...]:
        """The datasets it cannot do without."""
        return self.reads or tuple(b.dataset for b in self.bindings if b.dataset is not None and b.value is ABSENT)


def _itself(value: Any) -> Any:
    return value


class Node:
    """
    One step of a graph, as the run needs it.

    Attributes:
        index: Its place in the declaration.
        call: The function with its parameters bound.
        when: The predicate likewise, if there is one.
        outputs: The datasets that it makes.
        needs: The datasets that the two cannot do without.
        reads: The datasets that the function and the predicate read, each once.
        single: Whether it makes just one dataset.
        in_thread: Whether it runs in a worker thread.
        executor: The name of the executor that calls it; `None` for those that run on the loop or in a thread.
        is_resource: Whether it is a context manager.
        maps: The parameter that gets one element at a time, if there is one.
        pool: How much of which pools it takes.
        streams_from: The mapped step whose elements it takes one by one, as they are made.
        resources: The resources among the steps that it waits for.
        is_stream: Whether it makes batches, one after another: a generator function, or what is mapped over batches.
        iterates: The parameters that get an iterator of batches, wherever these come from.
        follows: Parameter -> dataset, for those that get the batches of a streaming step while it makes them.
        plain: Whether a call is all there is to it, unless it fails.
        runs_plain: Whether, besides, it is async and reads nothing but required datasets.
    """

    __slots__ = (
        "call",
        "executor",
        "follows",
        "in_thread",
        "index",
        "is_resource",
        "is_stream",
        "iterates",
        "maps",
        "name",
        "needs",
        "outputs",
        "plain",
        "pool",
        "reads",
        "resources",
        "runs_plain",
        "single",
        "step",
        "streams_from",
        "when",
    )

    def __init__(self, index: int, step: Step[..., Any, Any], call: Call, when: Call | None, outputs: Sequence[int]):
        self.index = index
        self.name = step.name
        self.step = step
        self.call = call
        self.when = when
        self.outputs = outputs
        self.reads = self.needs = reads = call.reads
        if call.bindings or when is not None:
            calls = (call,) if when is None else (call, when)
            self.needs = tuple(dict.fromkeys([dataset for each in calls for dataset in each.needs]))
            self.reads = tuple(dict.fromkeys([dataset for each in calls for dataset in each.datasets]))
        elif len(reads) > 1 and len(set(reads)) < len(reads):
            self.reads = self.needs = tuple(dict.fromkeys(reads))
        run_on = step.run_on
        self.in_thread = not call.is_async if run_on is None else run_on == "thread"
        self.executor = None if run_on in (None, "loop", "thread") else run_on
        self.single = len(outputs) == 1
        self.is_resource = step.type == "resource"
        self.maps = maps = step.map_over
        self.pool = units_of(step.pool)
        self.streams_from: int | None = None
        self.resources: tuple[int, ...] = ()
        self.is_stream = call.yields and not self.is_resource
        self.iterates: tuple[str, ...] = ()
        self.follows: Mapping[str, int] = NOTHING
        plain = when is None and maps is None and step.timeout is None and not self.is_resource
        self.plain = plain = plain and self.executor is None and not call.yields
        self.runs_plain = plain and call.is_async and not call.bindings


@dataclass(frozen=True, slots=True)
class Input:
    """
    A dataset that may be given from outside.

    Attributes:
        type: What its first reader's annotation says; `None` where there is none.
        default: What its first reader takes when it is not given; `None` also where it is required.
        required: Whether a run needs it.
        readers: The steps that read it, those that cannot do without it first.
    """

    name: str
    type: Any
    default: Any
    required: bool
    readers: tuple[str, ...]
