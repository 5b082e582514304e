"""
Who waits for whom: every parameter bound, every fault found, before anything runs.

`Graph` is plain data over small whole numbers: a step is known by its place in the declaration, a dataset
by its place in `Graph.datasets`. A `Selection` says which part of a graph one run is to do.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MappingProxyType
from typing import Any, NamedTuple

from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT, EngineOf, reader_copy
from odibi_async.errors import CycleError, GraphError, GraphFault, did_you_mean, shortened
from odibi_async.events import Outline, StepOutline
from odibi_async.graph.hints import can_fit, hints_of
from odibi_async.secret import Secret, secrets_in
from odibi_async.steps import CONFIGURED, Step, as_step, is_async, name_of

OUTSIDE = -1
"""Stands for the producer of a dataset that no step makes."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Parameter(NamedTuple):
    """
    One parameter of a function.

    Attributes:
        by_position: Whether it is given by position.
        default: `ABSENT` where there is none.
        is_fixed: Whether a partial gives it a value, so that no dataset fills it unless the step says so.
    """

    name: str
    by_position: bool
    default: Any
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """
    What binding needs to know of a function.

    Attributes:
        parameters: Those that are bound by name; `*args` never is.
        takes_any: Whether there are `**kwargs`.
        is_async: Whether a call is to be awaited.
        simple: The names, when each parameter is required and may be given by position; else `None`.
        takes_more: The name of `*args`, if there is such a parameter.
    """

    parameters: tuple[Parameter, ...]
    takes_any: bool
    is_async: bool
    simple: tuple[str, ...] | None
    takes_more: str | None = None


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
    """

    fn: Callable[..., Any]
    is_async: bool
    reads: tuple[int, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def arguments(
        self, values: Sequence[Any] | Mapping[int, Any], instead: Mapping[str, Any] = NOTHING
    ) -> tuple[list[Any], dict[str, Any]]:
        """What to call the function with; each frame is the reader's own. `instead` fills parameters first."""
        positional, named = [reader_copy(values[dataset]) for dataset in self.reads], {}
        for parameter, by_position, dataset, value in self.bindings:
            if parameter in instead:
                value = instead[parameter]
            elif dataset is not None and (made := values[dataset]) is not ABSENT:
                value = made
            if by_position:
                positional.append(reader_copy(value))
            else:
                named[parameter] = reader_copy(value)
        return positional, named

    @property
    def datasets(self) -> tuple[int, ...]:
        """The datasets it reads."""
        return self.reads or tuple(b.dataset for b in self.bindings if b.dataset is not None)

    @property
    def needs(self) -> tuple[int, ...]:
        """The datasets it cannot do without."""
        return self.reads or tuple(b.dataset for b in self.bindings if b.dataset is not None and b.value is ABSENT)


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
        is_resource: Whether it is a context manager.
        maps: The parameter that gets one element at a time, if there is one.
        pool: The pool that it takes a slot of.
        streams_from: The mapped step whose elements it takes one by one, as they are made.
        resources: The resources among the steps that it waits for.
        plain: Whether a call is all there is to it, unless it fails.
        runs_plain: Whether, besides, it is async and reads nothing but required datasets.
    """

    __slots__ = (
        "call",
        "in_thread",
        "index",
        "is_resource",
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
        self.needs = call.reads
        self.reads = call.reads
        if len(call.reads) > 1:
            self.needs = self.reads = tuple(dict.fromkeys(call.reads))
        if call.bindings or when is not None:
            calls = (call,) if when is None else (call, when)
            self.needs = tuple(dict.fromkeys(dataset for each in calls for dataset in each.needs))
            self.reads = tuple(dict.fromkeys(dataset for each in calls for dataset in each.datasets))
        self.in_thread = step.run_on == "thread" or (step.run_on is None and not call.is_async)
        self.single = len(outputs) == 1
        self.is_resource = step.type == "resource"
        self.maps = step.map_over
        self.pool = step.pool
        self.streams_from: int | None = None
        self.resources: tuple[int, ...] = ()
        self.plain = when is None and step.timeout is None and not self.is_resource and self.maps is None
        self.runs_plain = self.plain and call.is_async and not call.bindings and self.pool is None


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


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The part of a graph that one run is to do.

    Attributes:
        nodes: The places of its steps, in topological order.
        upstream: The steps that each step waits for.
        unmet: How many steps each step waits for; a step that is not to run waits for ever.
        downstream: The steps that wait for each step.
        uses: How many steps read each dataset.
        kept: The datasets that are not dropped after their last reader; `None` for all.
    """

    nodes: Sequence[int]
    upstream: Sequence[Sequence[int]]
    unmet: Sequence[int]
    downstream: Sequence[Sequence[int]]
    uses: Sequence[int]
    kept: frozenset[int] | None


class Graph:
    """
    Steps whose every parameter is bound and who wait for each other without a circle.

    Args:
        steps: Steps or plain functions.
        given: The names of datasets that come from outside.
        faults: What was found wrong with the steps before.

    Attributes:
        engines: The engines whose contexts steps take, each with the name of the dataset that holds it.

    Raises:
        GraphError: With all faults that there are; a `CycleError` when one of them is a cycle.
    """

    def __init__(self, steps: Iterable[Any], given: Iterable[str] = (), faults: Iterable[GraphFault] = ()) -> None:
        self.faults = list(faults)
        self.engines: dict[str | None, str] = {}
        self._hidden: dict[str, int] = {}
        self.steps = self._collected(steps)
        self.names = {step.name: index for index, step in enumerate(self.steps)}
        self.datasets: list[str] = []
        self.producers: list[int] = []
        self.ids: dict[str, int] = {}
        self._optional: dict[str, int] = {}
        self._unbound: list[str] = []
        self._signatures: dict[int, Signature] = {}
        outputs = self._name_outputs()
        declared = self._name_given(given)
        self.nodes = self._bound(outputs)
        if len(self.nodes) < len(self.steps):
            raise GraphError(self.faults)  # not all steps are there to look for circles among
        self.upstream = self._edges()
        self.downstream = self._reversed(self.upstream)
        self._find_streams_and_resources()
        cycle: list[str] = []
        self.order = self._ordered(cycle)
        self._check_read(declared)
        self._check_types()
        if cycle:
            raise CycleError(self.faults, cycle)
        if self.faults:
            raise GraphError(self.faults)

    # -- the build, in order ---------------------------------------------------------------------------

    def _fault(
        self, code: str, message: str, step: Step[..., Any, Any] | None = None, *keys: str | int, of_key: bool = False
    ) -> None:
        self.faults.append(GraphFault(code, message, None if step is None else step.name, keys, of_key))

    def _collected(self, things: Iterable[Any]) -> tuple[Step[..., Any, Any], ...]:
        steps: list[Step[..., Any, Any]] = []
        for thing in things:
            try:
                steps.append(as_step(thing))
            except GraphError as error:
                self.faults.extend(error.faults)
        if not steps and not self.faults:
            self._fault("OA205", "There are no steps to run: the list is empty.")
        names = set()
        for step in steps:
            if step.name in names:
                message = f"Two steps are called {step.name!r}. Give one another name: step(..., name=...)."
                self._fault("OA203", message, step, "name")
            names.add(step.name)
        return tuple(steps)

    def _name_outputs(self) -> list[Sequence[int]]:
        """Gives each dataset its place; the places of each step's datasets."""
        ids, datasets, producers = self.ids, self.datasets, self.producers
        outputs: list[Sequence[int]] = []
        for index, step in enumerate(self.steps):
            first = len(datasets)
            for name in step.datasets:
                if name in ids:
                    other = self.steps[producers[ids[name]]].name
                    if other != step.name:
                        message = f"Dataset {name!r} is made by two steps: {other!r} and {step.name!r}."
                        self._fault("OA204", message, step, "outputs")
                ids[name] = len(datasets)
                datasets.append(name)
                producers.append(index)
            outputs.append((first,) if len(datasets) == first + 1 else range(first, len(datasets)))
        return outputs

    def _name_given(self, given: Iterable[str]) -> list[str]:
        given = [given] if isinstance(given, str) else list(given)
        for name in given:
            if not isinstance(name, str):
                self._fault("OA404", f"The name of an input is a text, not {name!r}.")
            elif name not in self.ids:
                self._from_outside(name, self.ids)
        return given

    def _from_outside(self, name: str, places: dict[str, int]) -> int:
        places[name] = place = len(self.datasets)
        self.datasets.append(name)
        self.producers.append(OUTSIDE)
        return place

    def _bound(self, outputs: Sequence[Sequence[int]]) -> list[Node]:
        nodes = []
        for index, step in enumerate(self.steps):
            if not callable(step.value):
                message = f"Step {step.name!r} has nothing to call: its value is {step.value!r}, of type {step.type!r}."
                self._fault("OA212", message, step, "value")
                continue
            call = self._call(step, step.value, "")
            when = self._call(step, step.when, " (when=)") if step.when is not None else None
            if step.run_on == "thread" and call.is_async:
                message = f"Step {step.name!r} is async, so it runs on the loop, not in a thread (run_on=)."
                self._fault("OA210", message, step, "run_on")
            if step.map_over is not None:
                self._check_mapped(step, call)
            if isinstance(step.cache, CachePolicy):
                self._check_ignored(step, step.cache, call)
            nodes.append(Node(index, step, call, when, outputs[index]))
        self.ids |= self._optional | self._hidden
        return nodes

    def _check_mapped(self, step: Step[..., Any, Any], call: Call) -> None:
        bound = {binding.parameter: binding.dataset for binding in call.bindings}
        if bound.get(str(step.map_over)) is None:
            hint = did_you_mean(str(step.map_over), bound)
            message = (
                f"Step {step.name!r} is to map over {step.map_over!r}, which is no parameter that reads a dataset."
            )
            self._fault("OA209", message + hint, step, "map_over")
        if step.is_resource:
            message = f"Step {step.name!r} is a resource, so it cannot map over {step.map_over!r}."
            self._fault("OA209", message, step, "map_over")

    def _check_ignored(self, step: Step[..., Any, Any], policy: CachePolicy, call: Call) -> None:
        known = [binding.parameter for binding in self.bindings_of(call)]
        for name in policy.ignore:
            if name not in known:
                hint = did_you_mean(name, known)
                message = f"Step {step.name!r} has no parameter {name!r}, which its cache= ignores.{hint}"
                self._fault("OA207", message, step, "cache", "ignore")

    def _call(self, step: Step[..., Any, Any], fn: Callable[..., Any], which: str) -> Call:
        signature = self._signatures.get(id(fn))
        if signature is None:
            signature = self._signatures[id(fn)] = signature_of(fn)
        if signature.simple is not None and not step.params and step.map_over is None:
            reads = self._simple_reads(step, signature.simple, whole=not which)
            if reads is not None:
                return Call(fn, signature.is_async, reads)
        if which:  # a predicate takes what it needs of the step's entries
            known = {parameter.name for parameter in signature.parameters}
            inputs = {name: dataset for name, dataset in step.inputs.items() if name in known}
            params = {name: value for name, value in step.params.items() if name in known}
        else:
            asked = self._names_of_predicate(step)
            own = {parameter.name for parameter in signature.parameters}
            inputs = {name: dataset for name, dataset in step.inputs.items() if name in own or name not in asked}
            params = {name: value for name, value in step.params.items() if name in own or name not in asked}
        return Call(fn, signature.is_async, (), tuple(self._bindings(step, signature, inputs, params, which)))

    def _names_of_predicate(self, step: Step[..., Any, Any]) -> set[str]:
        """The parameters of `when`, whose entries need not be the function's as well."""
        if step.when is None or step.type in CONFIGURED:  # theirs are also the names that a query uses
            return set()
        return {parameter.name for parameter in signature_of(step.when).parameters}

    def _simple_reads(self, step: Step[..., Any, Any], names: tuple[str, ...], whole: bool) -> tuple[int, ...] | None:
        """The datasets of required parameters; `None` where something is not as simple as that."""
        ids, inputs = self.ids, step.inputs
        if not inputs:
            reads = [ids.get(name) for name in names]
        else:
            if whole and any([name not in names for name in inputs]):  # noqa: C419 (a generator costs twice as much)
                return None
            reads = [ids.get(inputs.get(name, name)) for name in names]
        return None if None in reads else tuple(reads)  # type: ignore[arg-type]

    def _bindings(
        self,
        step: Step[..., Any, Any],
        signature: Signature,
        inputs: dict[str, str],
        params: dict[str, Any],
        which: str,
    ) -> Iterable[Binding]:
        """One binding a parameter; what cannot be bound becomes a fault."""
        names = [parameter.name for parameter in signature.parameters]
        for name, by_position, default, is_fixed in signature.parameters:
            if name in inputs:
                if name in params:
                    message = f"Step {step.name!r}: parameter {name!r} stands in inputs= and in params=."
                    self._fault("OA208", message, step, "params", name, of_key=True)
                    del params[name]
                yield Binding(name, by_position, self._read(step, inputs.pop(name), name, names), default)
            elif name in params:
                yield self._constant(name, by_position, params.pop(name))
            elif is_fixed:
                continue
            elif name in self.ids:
                yield Binding(name, by_position, self.ids[name], default)
            elif default is not ABSENT:
                place = self._optional.get(name)
                if place is None:
                    place = self._from_outside(name, self._optional)
                yield Binding(name, by_position, place, default)
            else:
                yield Binding(name, by_position, self._read(step, name, name + which, names), default)
        if signature.takes_more is not None and not (names or signature.takes_any):
            self._fault("OA207", _only_more(step, signature.takes_more), step, "value")
        if signature.takes_any:
            yield from (
                Binding(name, False, self._read(step, inputs.pop(name), name, names), ABSENT) for name in list(inputs)
            )
            yield from (self._constant(name, False, params.pop(name)) for name in list(params))
        for option, left in (("inputs", inputs), ("params", params)):
            for name in left:
                hint = did_you_mean(name, names)
                message = f"Step {step.name!r} has no parameter {name!r}, which its {option}= names.{hint}"
                self._fault("OA207", message, step, option, name, of_key=True)

    def _constant(self, parameter: str, by_position: bool, value: Any) -> Binding:
        """The binding of a parameter to a constant, or to the context of an engine, which is one for the run."""
        if type(value) is not EngineOf:
            return Binding(parameter, by_position, None, value)
        name = self.engines.get(value.name)
        if name is None:
            name = f"\0engine {value.name or ''}"
            while name in self.ids:
                name = f"\0{name}"
            self.engines[value.name] = name
            self._from_outside(name, self._hidden)
        return Binding(parameter, by_position, self._hidden[name], ABSENT)

    def _read(self, step: Step[..., Any, Any], dataset: str, parameter: str, names: Sequence[str]) -> int | None:
        place = self.ids.get(dataset)
        if place is None:
            self._unbound.append(dataset)
            known = sorted(self.ids.keys() - set(step.datasets))
            as_parameter = "" if parameter == dataset else f" (as {parameter!r})"
            message = (
                f"Step {step.name!r} reads {dataset!r}{as_parameter}, which no step produces."
                f"{did_you_mean(dataset, known)}\n"
                f"Known datasets: {shortened(known, 12) or 'none'}."
            )
            keys = ("inputs", parameter) if parameter in step.inputs else ("value",)
            self._fault("OA201", message, step, *keys)
        return place

    def _edges(self) -> list[tuple[int, ...]]:
        """The steps that each step waits for."""
        producers = self.producers
        edges: list[tuple[int, ...]] = []
        for node in self.nodes:
            reads = node.reads
            if len(reads) == 1 and not node.step.after:
                producer = producers[reads[0]]
                edges.append(() if producer == OUTSIDE else (producer,))
                continue
            waits = dict.fromkeys([producers[dataset] for dataset in reads])
            waits.pop(OUTSIDE, None)
            for name in node.step.after:
                if name in self.names:
                    waits[self.names[name]] = None
                else:
                    hint = did_you_mean(name, self.names)
                    message = f"Step {node.name!r} is to run after {name!r}, which is no step.{hint}"
                    self._fault("OA206", message, node.step, "after", node.step.after.index(name))
            edges.append(tuple(waits))
        return edges

    def _find_streams_and_resources(self) -> None:
        """Marks mapped steps that read nothing of another mapped step but its elements, and readers of resources."""
        resources = {node.index for node in self.nodes if node.is_resource}
        mapped = {node.index for node in self.nodes if node.maps is not None and node.single}
        if not resources and not mapped:
            return
        for node, waits in zip(self.nodes, self.upstream, strict=True):
            node.resources = tuple(other for other in waits if other in resources)
            if node.maps is None:
                continue
            dataset = next((b.dataset for b in node.call.bindings if b.parameter == node.maps), None)
            if dataset is None:
                continue
            maker = self.producers[dataset]
            calls = (node.call,) if node.when is None else (node.call, node.when)
            reads = [place for call in calls for place in call.datasets]
            if maker in mapped and reads.count(dataset) == 1 and self.nodes[maker].name not in node.step.after:
                node.streams_from = maker

    @staticmethod
    def _reversed(upstream: Sequence[Sequence[int]]) -> list[list[int]]:
        downstream: list[list[int]] = [[] for _ in upstream]
        for index, waits in enumerate(upstream):
            for other in waits:
                downstream[other].append(index)
        return downstream

    def _ordered(self, cycle: list[str]) -> Sequence[int]:
        """
        The places in topological order, the declaration's order where it is free (Kahn's algorithm over
        a heap, CACM 5(11), 1962). A circle is reported, and named in `cycle`.
        """
        if all(not waits or max(waits) < index for index, waits in enumerate(self.upstream)):
            return range(len(self.nodes))
        unmet = [len(waits) for waits in self.upstream]
        ready = [index for index, count in enumerate(unmet) if not count]
        order = []
        while ready:
            index = heapq.heappop(ready)
            order.append(index)
            for other in self.downstream[index]:
                unmet[other] -= 1
                if not unmet[other]:
                    heapq.heappush(ready, other)
        if len(order) < len(self.nodes):
            cycle.extend(self._circle(unmet))
            message = "Steps wait for each other in a circle: " + " -> ".join(cycle)
            self._fault("OA202", message, self.steps[self.names[cycle[0]]])
        return order

    def _circle(self, unmet: Sequence[int]) -> list[str]:
        """Walks upstream among the steps that can never start, until one comes again."""
        walk: dict[int, None] = {}
        index = next(index for index, count in enumerate(unmet) if count)
        while index not in walk:
            walk[index] = None
            index = next(other for other in self.upstream[index] if unmet[other])
        circle = list(walk)[list(walk).index(index) :]
        return [self.nodes[place].name for place in (index, *reversed(circle))]

    def _check_read(self, given: Sequence[str]) -> None:
        if not given:
            return
        read = {dataset for node in self.nodes for dataset in node.reads}
        for name in given:
            if isinstance(name, str) and self.producers[self.ids[name]] == OUTSIDE and self.ids[name] not in read:
                hint = did_you_mean(name, self._unbound + [self.datasets[dataset] for dataset in read])
                self._fault("OA404", f"Input {name!r} is given, but no step reads it or makes it.{hint}")

    def _check_types(self) -> None:
        """Finds edges whose two annotations exclude each other; each pair of functions is looked at once."""
        seen: dict[tuple[int, int, str], tuple[str, str] | None] = {}
        for node in self.nodes:
            reader = node.call.fn
            if isinstance(reader, FunctionType) and not reader.__annotations__:
                continue
            for parameter, _, dataset, _ in self.bindings_of(node.call):
                if dataset is None or self.producers[dataset] == OUTSIDE or parameter == node.maps:
                    continue
                maker = self.nodes[self.producers[dataset]]
                if maker.is_resource or not maker.single or maker.maps is not None:
                    continue  # its annotation is not that of what it makes
                pair = (id(maker.call.fn), id(reader), parameter)
                if pair not in seen:
                    seen[pair] = _misfit(maker.call.fn, reader, parameter)
                if (misfit := seen[pair]) is not None:
                    made, taken = misfit
                    message = (
                        f"Step {node.name!r} takes {parameter!r} as {taken}, but step {maker.name!r} makes {made}."
                    )
                    self._fault("OA211", message, node.step, "inputs", parameter)

    # -- questions -------------------------------------------------------------------------------------

    @functools.cached_property
    def levels(self) -> list[int]:
        """How many steps stand above each step on the longest way down to it."""
        levels = [0] * len(self.nodes)
        for index in self.order:
            levels[index] = 1 + max((levels[other] for other in self.upstream[index]), default=-1)
        return levels

    @functools.cached_property
    def heights(self) -> list[int]:
        """How many steps stand below each step on the longest way down from it: its priority."""
        heights = [0] * len(self.nodes)
        for index in reversed(self.order):
            heights[index] = 1 + max((heights[other] for other in self.downstream[index]), default=-1)
        return heights

    @functools.cached_property
    def streams(self) -> dict[int, list[int]]:
        """For each mapped step, the steps that take its elements as they are made."""
        streams: dict[int, list[int]] = {}
        for node in self.nodes:
            if node.streams_from is not None:
                streams.setdefault(node.streams_from, []).append(node.index)
        return streams

    @functools.cached_property
    def pools(self) -> dict[str, str]:
        """The pools that steps name, each with one of these steps."""
        return {node.pool: node.name for node in self.nodes if node.pool is not None}

    @functools.cached_property
    def is_simple(self) -> bool:
        """Whether all steps run on the loop, and none is a resource, mapped, or in a pool."""
        return not any(n.in_thread or n.is_resource or n.maps is not None or n.pool is not None for n in self.nodes)

    @functools.cached_property
    def has_threads(self) -> bool:
        """Whether any step runs in a worker thread."""
        return any(node.in_thread for node in self.nodes)

    @functools.cached_property
    def hidden(self) -> frozenset[int]:
        """The places of the datasets that hold the contexts of engines."""
        return frozenset(self._hidden.values())

    @functools.cached_property
    def makers(self) -> dict[str, str]:
        """The step that makes each dataset."""
        return {
            name: self.nodes[producer].name
            for name, producer in zip(self.datasets, self.producers, strict=True)
            if producer != OUTSIDE
        }

    @functools.cached_property
    def inputs(self) -> dict[str, Input]:
        """What may be given from outside, by name."""
        found: dict[str, Input] = {}
        for node in self.nodes:
            for call in (node.call, node.when):
                if call is not None:
                    self._add_inputs(found, node.name, call)
        return found

    @functools.cached_property
    def outline(self) -> Outline:
        """The graph as observers see it."""
        return Outline(self._outlined)

    def _outlined(self) -> dict[str, StepOutline]:
        return {
            node.name: StepOutline(
                layer=node.step.layer,
                upstream=tuple(self.nodes[other].name for other in waits),
                reads=tuple(self.datasets[place] for place in node.reads if place not in self.hidden),
                makes=node.step.datasets,
                secrets=tuple(map(Secret, secrets_in(node.step.params))),
            )
            for node, waits in zip(self.nodes, self.upstream, strict=True)
        }

    def bindings_of(self, call: Call) -> Sequence[Binding]:
        """The bindings of a call of this graph, also where it keeps only what it reads."""
        simple = self._signatures[id(call.fn)].simple or ()
        if call.bindings or not call.reads:
            return call.bindings
        return [Binding(name, False, dataset, ABSENT) for name, dataset in zip(simple, call.reads, strict=True)]

    def _add_inputs(self, found: dict[str, Input], reader: str, call: Call) -> None:
        for parameter, _, dataset, default in self.bindings_of(call):
            if dataset is None or self.producers[dataset] != OUTSIDE or dataset in self.hidden:
                continue
            name, required = self.datasets[dataset], default is ABSENT
            before = found.get(name)
            if before is None:
                kind = hints_of(call.fn).get(parameter)
                found[name] = Input(name, kind, None if required else default, required, (reader,))
            else:
                others = tuple(other for other in before.readers if other != reader)
                readers = (reader, *others) if required and not before.required else (*others, reader)
                found[name] = Input(name, before.type, before.default, before.required or required, readers)

    @functools.cached_property
    def everything(self) -> Selection:
        """The selection of a run that asks for all there is."""
        return self._selected(frozenset(), None)

    def select(self, given: Iterable[str], targets: Iterable[Any] | None) -> Selection:
        """
        The part of the graph that makes the targets from what is given.

        Args:
            given: Names of datasets that come from outside; they may stand in for what a step makes.
            targets: Names, steps or functions; `None` for all. A step that makes no dataset goes by its own name.

        Raises:
            GraphError: A name is unknown, or a dataset is needed that is not given.
        """
        faults: list[GraphFault] = []
        known = self.ids.keys() - self._hidden.keys() if self._hidden else self.ids.keys()
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known)
                faults.append(GraphFault("OA404", f"Input {name!r} is given, but no step reads it or makes it.{hint}"))
        wanted: list[str] | None = None
        ends: set[str] = set()
        if targets is not None:
            wanted = [name for target in _listed(targets) for name in _datasets_of(target)]
            ends = {name for name in wanted if name in self.names and not self.nodes[self.names[name]].outputs}
            faults += [
                GraphFault("OA405", f"Target {name!r} is no dataset of this pipeline.{did_you_mean(name, known)}")
                for name in wanted
                if name not in known and name not in ends
            ]
        if faults:
            raise GraphError(faults)
        outside = frozenset(self.ids[name] for name in given)
        stands_in = any(self.producers[dataset] != OUTSIDE for dataset in outside)
        if wanted is None and not stands_in:
            selection = self.everything
        else:
            kept = None if wanted is None else [self.ids[name] for name in wanted if name in known]
            selection = self._selected(outside, kept, [self.names[name] for name in ends])
        self._check_given(selection, outside)
        return selection

    def _check_given(self, selection: Selection, outside: frozenset[int]) -> None:
        faults = {
            dataset: self._not_given(self.nodes[index].name, self.datasets[dataset])
            for index in (selection.nodes if self.required_inputs - outside else ())
            for dataset in self.nodes[index].needs
            if self.producers[dataset] == OUTSIDE and dataset not in outside and dataset not in self.hidden
        }
        if faults:
            raise GraphError(list(faults.values()))

    @staticmethod
    def _not_given(step: str, dataset: str) -> GraphFault:
        message = f"Step {step!r} reads {dataset!r}, which this run was not given: run(inputs={{{dataset!r}: ...}})."
        return GraphFault("OA503", message, step)

    @functools.cached_property
    def required_inputs(self) -> frozenset[int]:
        """The datasets from outside that some step cannot do without."""
        return frozenset(self.ids[name] for name, entry in self.inputs.items() if entry.required)

    def _selected(self, outside: frozenset[int], targets: Sequence[int] | None, ends: Sequence[int] = ()) -> Selection:
        upstream: Sequence[Sequence[int]] = self.upstream
        downstream: Sequence[Sequence[int]] = self.downstream
        if any(self.producers[dataset] != OUTSIDE for dataset in outside):
            upstream = [self._waits(node, outside) for node in self.nodes]
            downstream = self._reversed(upstream)
        chosen = self._ancestors(upstream, outside, targets, ends)
        nodes = [index for index in self.order if chosen[index]]
        uses = [0] * len(self.datasets)
        for index in nodes:
            for dataset in self.nodes[index].reads:
                uses[dataset] += 1
        unmet = [len(waits) if chosen[index] else sys.maxsize for index, waits in enumerate(upstream)]
        return Selection(nodes, upstream, unmet, downstream, uses, None if targets is None else frozenset(targets))

    def _waits(self, node: Node, outside: frozenset[int]) -> tuple[int, ...]:
        """The steps that a step waits for when some datasets come from outside."""
        waits = dict.fromkeys(self.producers[dataset] for dataset in node.reads if dataset not in outside)
        waits.pop(OUTSIDE, None)
        waits.update(dict.fromkeys(self.names[name] for name in node.step.after))
        return tuple(waits)

    def _ancestors(
        self,
        upstream: Sequence[Sequence[int]],
        outside: frozenset[int],
        targets: Sequence[int] | None,
        ends: Sequence[int],
    ) -> list[bool]:
        """Which steps are needed: a step whose every dataset is given is not, unless another waits for it."""
        if targets is None:
            needed = [i for i, node in enumerate(self.nodes) if not (node.outputs and outside.issuperset(node.outputs))]
        else:
            needed = [self.producers[dataset] for dataset in targets if dataset not in outside] + [*ends]
        chosen = [False] * len(self.nodes)
        while needed:
            index = needed.pop()
            if index != OUTSIDE and not chosen[index]:
                chosen[index] = True
                needed.extend(upstream[index])
        return chosen

    def to_mermaid(self) -> str:
        """The graph in the Mermaid language, one fill a layer."""
        lines = ["graph TD"]
        lines += [f'    n{node.index}["{_mermaid_text(node.name)}"]' for node in self.nodes]
        for index, waits in enumerate(self.upstream):
            lines += [f"    n{other} --> n{index}" for other in waits]
        lines += [f"    style n{node.index} fill:{_fills.get(node.step.layer, '#fafafa')}" for node in self.nodes]
        return "\n".join(lines) + "\n"


_fills = {"ingest": "#e1f5ff", "store": "#fff3e0", "transform": "#f3e5f5", "publish": "#e8f5e9"}


def _mermaid_text(text: str) -> str:
    """A text as Mermaid draws it letter by letter: whatever could mean something is written as its code."""
    return "".join(
        letter if letter.isalnum() or letter in " _-.,:+/()" else " " if letter.isspace() else f"#{ord(letter)};"
        for letter in text
    )


def _only_more(step: Step[..., Any, Any], name: str) -> str:
    return (
        f"Step {step.name!r} takes its data by *{name} only, which nothing fills: give each dataset a parameter of its "
        f"own, or take **{name} and name them in inputs=."
    )


def _misfit(maker: Any, reader: Any, parameter: str) -> tuple[str, str] | None:
    """What one function makes and another one takes, if no value can be both."""
    made, taken = hints_of(maker).get("return", Any), hints_of(reader).get(parameter, Any)
    return None if can_fit(made, taken) else (_spelled(made), _spelled(taken))


def _spelled(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _listed(targets: Any) -> list[Any]:
    return [targets] if isinstance(targets, str | Step) or callable(targets) else list(targets)


def _datasets_of(target: Any) -> tuple[str, ...]:
    return (target.datasets or (target.name,)) if isinstance(target, Step) else (name_of(target),)


def signature_of(fn: Callable[..., Any]) -> Signature:
    """
    What binding needs to know of a function.

    A plain function is read off its code object (1 us where `inspect.signature` takes 10).
    """
    if type(fn) is FunctionType and not fn.__dict__:
        code = fn.__code__
        takes = code.co_argcount
        if not (code.co_kwonlyargcount or code.co_posonlyargcount or fn.__defaults__ or code.co_flags & 0x0C):
            simple = code.co_varnames[:takes]
            parameters = tuple(Parameter(name, True, ABSENT) for name in simple)
            return Signature(parameters, False, is_async(fn), simple)
    return _inspected(fn)


def _inspected(fn: Callable[..., Any]) -> Signature:
    """
    The same by `inspect`. A wrapper shows the parameters of what it wraps, and is called as it can be itself; what a
    partial fixes by name is no parameter.
    """
    shown, own = _parameters(fn), _parameters(fn, follow_wrapped=False)
    fixed = _fixed_by_partials(fn)
    places = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in own.values())
    if any(p.kind is p.VAR_POSITIONAL for p in own.values()):
        places = len(shown)
    parameters, takes_any, takes_more = [], False, None
    for place, (name, parameter) in enumerate(shown.items()):
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is parameter.VAR_POSITIONAL:
            takes_more = name
        else:
            default = ABSENT if parameter.default is parameter.empty else parameter.default
            by_position = parameter.kind is not parameter.KEYWORD_ONLY and place < places
            parameters.append(Parameter(name, by_position, default, name in fixed))
    return Signature(tuple(parameters), takes_any, is_async(fn), None, takes_more)


def _parameters(fn: Callable[..., Any], *, follow_wrapped: bool = True) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(fn, follow_wrapped=follow_wrapped).parameters
    except (TypeError, ValueError):  # some built-in callables tell nothing of their parameters
        return {}


def _fixed_by_partials(fn: Any) -> set[str]:
    fixed: set[str] = set()
    while True:
        if isinstance(fn, functools.partial):
            fixed |= fn.keywords.keys()
            fn = fn.func
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            return fixed
