"""
The graph: every parameter bound, every fault found, before anything runs.

`Graph` is plain data over small whole numbers: a step is known by its place in the declaration, a dataset
by its place in `Graph.datasets`. A `Selection` says which part of a graph one run is to do.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odibi_async.errors import CycleError, GraphError, GraphFault, did_you_mean
from odibi_async.events import Outline, StepOutline
from odibi_async.graph.binding import Binder
from odibi_async.graph.checks import annotated_among, check_places, check_read, check_types, ordered
from odibi_async.graph.edges import edges_of, edges_without, find_streams_and_resources
from odibi_async.graph.faults import Faults
from odibi_async.graph.flows import find_flows
from odibi_async.graph.inputs import inputs_of
from odibi_async.graph.node import OUTSIDE, Binding, Call, Input
from odibi_async.graph.select import Selection, ancestors, reversed_edges, selected
from odibi_async.secret import Secret, secrets_in
from odibi_async.steps import ENDS, Step, as_step, name_of


class Graph:
    """
    Steps with every parameter bound, in a graph without cycles.

    Args:
        steps: Steps or plain functions.
        given: The names of datasets that come from outside.
        faults: What was found wrong with the steps before.

    Raises:
        GraphError: With all faults that there are; a `CycleError` when one of them is a cycle.
    """

    def __init__(self, steps: Iterable[Any], given: Iterable[str] = (), faults: Iterable[GraphFault] = ()) -> None:
        self.faults = Faults(faults)
        self.steps = _collected(steps, self.faults)
        self.names = {step.name: index for index, step in enumerate(self.steps)}
        self.datasets: list[str] = []
        self.producers: list[int] = []
        self.ids: dict[str, int] = {}
        self._binder = binder = Binder(self.ids, self.datasets, self.producers, self.faults)
        outputs = self._name_outputs()
        declared = self._name_given(given)
        self.nodes = binder.bound(self.steps, outputs)
        if len(self.nodes) < len(self.steps):
            raise GraphError(self.faults)  # not all steps are there to look for circles among
        self.upstream = edges_of(self.nodes, self.names, self.producers, self.faults)
        self.downstream = reversed_edges(self.upstream)
        find_streams_and_resources(self.nodes, self.upstream, self.producers)
        self.order, cycle = ordered(self.nodes, self.upstream, self.downstream, self.faults)
        annotated = annotated_among(self.nodes)
        if (annotated or binder.has_generators) and not cycle:
            self._find_flows(annotated)
        known = binder.unbound + ([self.datasets[d] for n in self.nodes for d in n.reads] if declared else [])
        check_read(declared, self.nodes, self.ids, self.producers, known, self.faults)
        if self.executors:
            check_places(self.nodes, self.producers, frozenset(binder.hidden.values()), self.faults)
        check_types(self.nodes, self.producers, binder, annotated, self.faults)
        if cycle:
            raise CycleError(self.faults, cycle)
        if self.faults:
            raise GraphError(self.faults)

    # -- the build, in order ---------------------------------------------------------------------------

    def _name_outputs(self) -> list[Sequence[int]]:
        """Gives each dataset its place; the places of each step's datasets."""
        ids, datasets, producers = self.ids, self.datasets, self.producers
        outputs: list[Sequence[int]] = []
        for index, step in enumerate(self.steps):
            first = len(datasets)
            if not step.outputs and step.layer not in ENDS and step.name not in ids:
                ids[step.name] = first
                datasets.append(step.name)
                producers.append(index)
                outputs.append((first,))
                continue
            for name in step.datasets:
                if name in ids:
                    self._check_maker(step, name)
                ids[name] = len(datasets)
                datasets.append(name)
                producers.append(index)
            outputs.append((first,) if len(datasets) == first + 1 else range(first, len(datasets)))
        return outputs

    def _check_maker(self, step: Step[..., Any, Any], dataset: str) -> None:
        """A dataset is made by one step; two steps of one name are another fault."""
        other = self.steps[self.producers[self.ids[dataset]]].name
        if other != step.name:
            message = f"Dataset {dataset!r} is made by two steps: {other!r} and {step.name!r}."
            self.faults.add("OA204", message, step, "outputs")

    def _name_given(self, given: Iterable[str]) -> list[str]:
        given = [given] if isinstance(given, str) else list(given)
        for name in given:
            if not isinstance(name, str):
                self.faults.add("OA404", f"The name of an input is a text, not {name!r}.")
            elif name not in self.ids:
                self._binder.from_outside(name, self.ids)
        return given

    def _find_flows(self, annotated: Mapping[int, Any]) -> None:
        """Finds which steps make batches, and who takes them while they are made."""
        find_flows(
            self.nodes,
            self.order,
            self.upstream,
            self.producers,
            self._binder.bindings_of,
            annotated,
            self.faults,
            has_generators=self._binder.has_generators,
        )

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

    def heights_in(self, seconds: Mapping[str, float]) -> list[float]:
        """How many seconds the longest way down from each step takes, itself included; those not known as others."""
        usual = sorted(seconds.values())[len(seconds) // 2]
        heights = [seconds.get(node.name, usual) for node in self.nodes]
        for index in reversed(self.order):
            heights[index] += max((heights[other] for other in self.downstream[index]), default=0.0)
        return heights

    @functools.cached_property
    def streams(self) -> dict[int, list[int]]:
        """For each step whose elements or batches others take as they are made, these others."""
        streams: dict[int, list[int]] = {}
        for node in self.nodes:
            if node.streams_from is not None:
                streams.setdefault(node.streams_from, []).append(node.index)
            for maker in {self.producers[dataset] for dataset in node.follows.values()}:
                streams.setdefault(maker, []).append(node.index)
        return streams

    @functools.cached_property
    def has_batches(self) -> bool:
        """Whether any step makes batches, or takes them one by one."""
        return any(node.is_stream or node.iterates for node in self.nodes)

    @functools.cached_property
    def pools(self) -> dict[str, str]:
        """The pools that steps name, each with one of these steps."""
        return {name: node.name for node in self.nodes for name, _ in node.pool}

    @functools.cached_property
    def executors(self) -> dict[str, str]:
        """The executors that steps name, each with one of these steps."""
        return {node.executor: node.name for node in self.nodes if node.executor is not None}

    @functools.cached_property
    def is_simple(self) -> bool:
        """Whether all steps run on the loop, and none is a resource, mapped, or in a pool."""
        return not self.executors and not any(
            n.in_thread or n.is_resource or n.maps is not None or n.pool or n.is_stream or n.iterates
            for n in self.nodes
        )

    @functools.cached_property
    def has_threads(self) -> bool:
        """Whether any step runs in a worker thread."""
        return any(node.in_thread for node in self.nodes)

    @functools.cached_property
    def hidden(self) -> frozenset[int]:
        """The places of the datasets that hold the contexts of engines."""
        return frozenset(self._binder.hidden.values())

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
        return inputs_of(self.nodes, self.datasets, self.producers, self._binder)

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
                secrets=tuple(map(Secret, secrets_in(dict(node.step.params)))),
                value=node.call.fn,
            )
            for node, waits in zip(self.nodes, self.upstream, strict=True)
        }

    def engines_of(self, selection: Selection) -> dict[str | None, str]:
        """The engines whose contexts a run takes, each with the name of the dataset that holds it."""
        engines = self._binder.engines
        read = {place for index in selection.nodes for place in self.nodes[index].reads} if engines else ()
        return {engine: name for engine, name in engines.items() if self.ids[name] in read}

    def bindings_of(self, call: Call) -> Sequence[Binding]:
        """The bindings of a call of this graph, also where it keeps only what it reads."""
        return self._binder.bindings_of(call)

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
        known = self.ids.keys() - self._binder.hidden.keys() if self._binder.hidden else self.ids.keys()
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
                GraphFault("OA405", f"Target {name!r} is not a dataset of this pipeline.{did_you_mean(name, known)}")
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
        if not self._has_inputs:
            return frozenset()
        producers, hidden = self.producers, self.hidden
        needs = {dataset for node in self.nodes for dataset in node.needs}
        return frozenset([dataset for dataset in needs if producers[dataset] == OUTSIDE and dataset not in hidden])

    @property
    def _has_inputs(self) -> bool:
        """Whether anything but the contexts of engines comes from outside."""
        return self.producers.count(OUTSIDE) > len(self.hidden)

    def _selected(self, outside: frozenset[int], targets: Sequence[int] | None, ends: Sequence[int] = ()) -> Selection:
        upstream: Sequence[Sequence[int]] = self.upstream
        downstream: Sequence[Sequence[int]] = self.downstream
        if any(self.producers[dataset] != OUTSIDE for dataset in outside):
            upstream = edges_without(outside, self.nodes, self.names, self.producers)
            downstream = reversed_edges(upstream)
        chosen = ancestors(self.nodes, self.producers, upstream, outside, targets, ends)
        passing = self._passing(outside, chosen, targets) if self.has_batches else frozenset()
        return selected(self.nodes, self.order, upstream, downstream, chosen, targets, len(self.datasets), passing)

    def _passing(
        self, outside: frozenset[int], chosen: Sequence[bool], targets: Sequence[int] | None
    ) -> frozenset[int]:
        """The chosen steps whose batches only pass through: all that wait for such a step follow it."""
        kept, chosen_nodes = frozenset(targets or ()), [node for node in self.nodes if chosen[node.index]]
        passing = {node.index for node in chosen_nodes if node.is_stream and kept.isdisjoint(node.outputs)}
        followed = set()
        for node in chosen_nodes:
            makers = {self.producers[dataset] for dataset in node.follows.values() if dataset not in outside}
            followed |= makers
            passing -= {other for other in self.upstream[node.index] if other not in makers}
        return frozenset(passing & followed)


def _collected(things: Iterable[Any], faults: Faults) -> tuple[Step[..., Any, Any], ...]:
    """The steps, of which no two may have the same name."""
    steps: list[Step[..., Any, Any]] = []
    for thing in things:
        try:
            steps.append(as_step(thing))
        except GraphError as error:
            faults.extend(error.faults)
    if not steps and not faults:
        faults.add("OA205", "There are no steps to run: the list is empty.")
    names = set()
    for step in steps:
        if step.name in names:
            message = f"Two steps are called {step.name!r}. Give one another name: step(..., name=...)."
            faults.add("OA203", message, step, "name")
        names.add(step.name)
    return tuple(steps)


def _listed(targets: Any) -> list[Any]:
    return [targets] if isinstance(targets, str | Step) or callable(targets) else list(targets)


def _datasets_of(target: Any) -> tuple[str, ...]:
    return (target.datasets or (target.name,)) if isinstance(target, Step) else (name_of(target),)
