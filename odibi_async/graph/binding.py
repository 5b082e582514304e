"""Where each parameter of each step gets its value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from typing import Any

from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT, EngineOf
from odibi_async.errors import did_you_mean, shortened
from odibi_async.graph.faults import Faults
from odibi_async.graph.node import OUTSIDE, Binding, Call, Node
from odibi_async.graph.signature import CO_YIELDS, Signature, signature_of, simple_names
from odibi_async.steps import CONFIGURED, Step

AnyStep = Step[..., Any, Any]


class Binder:
    """
    Binds the parameters of steps to datasets and constants; what cannot be bound becomes a fault.

    Args:
        ids: The place of each dataset by its name; those of optional inputs and of engines' contexts are added.
        datasets: The name of each dataset; those are added too.
        producers: The step that makes each dataset; likewise.

    Attributes:
        hidden: The places of the datasets that hold the contexts of engines, by their names.
        engines: The engines whose contexts steps take, each with the name of the dataset that holds it.
        unbound: The names that steps read and nobody makes.
        has_generators: Whether any function is one of a generator.
    """

    def __init__(self, ids: dict[str, int], datasets: list[str], producers: list[int], faults: Faults) -> None:
        self.hidden: dict[str, int] = {}
        self.engines: dict[str | None, str] = {}
        self.unbound: list[str] = []
        self.has_generators = False
        self._ids = ids
        self._datasets = datasets
        self._producers = producers
        self._faults = faults
        self._optional: dict[str, int] = {}
        self._signatures: dict[int, Signature] = {}  # by identity: how callables compare is their users' business

    def from_outside(self, name: str, places: dict[str, int]) -> int:
        """Gives a dataset that no step makes its place."""
        places[name] = place = len(self._datasets)
        self._datasets.append(name)
        self._producers.append(OUTSIDE)
        return place

    def bound(self, steps: Sequence[AnyStep], outputs: Sequence[Sequence[int]]) -> list[Node]:
        """The steps with their parameters bound; those that have nothing to call are left out."""
        nodes, ids = [], self._ids
        for index, step in enumerate(steps):
            fn, inputs = step.value, step.inputs
            names, call = simple_names(fn), None
            if names is not None and not step.params and step.map_over is None:
                if not inputs:
                    reads = [ids.get(name, -1) for name in names]
                elif len(inputs) == len(names):
                    reads = [ids.get(inputs.get(name, ""), -1) for name in names]
                elif frozenset(names).issuperset(inputs):
                    reads = [ids.get(inputs.get(name, name), -1) for name in names]
                else:
                    reads = [-1]
                if -1 not in reads:  # required parameters that all read what is there: most steps have no others
                    flags = fn.__code__.co_flags
                    call = Call(fn, flags & (CO_COROUTINE | CO_ASYNC_GENERATOR) > 0, tuple(reads))
                    if flags & CO_YIELDS:
                        call.yields = True
            elif names is None and not callable(fn):
                message = f"Step {step.name!r} has nothing to call: its value is {fn!r}, of type {step.type!r}."
                self._faults.add("OA212", message, step, "value")
                continue
            if call is None:
                call = self._call(step, fn, self._signature(fn))
            when = None if step.when is None else self._predicate(step, step.when)
            if step.run_on is not None or step.map_over is not None or step.cache is not None:
                self._check(step, call)
            if call.yields:
                self.has_generators = True
            nodes.append(Node(index, step, call, when, outputs[index]))
        ids |= self._optional | self.hidden
        return nodes

    def bindings_of(self, call: Call) -> Sequence[Binding]:
        """The bindings of a call, also where it keeps only what it reads."""
        if call.bindings or not call.reads:
            return call.bindings
        names = simple_names(call.fn) or ()
        return [Binding(name, False, dataset, ABSENT) for name, dataset in zip(names, call.reads, strict=True)]

    def _signature(self, fn: Callable[..., Any]) -> Signature:
        signature = self._signatures.get(id(fn))
        if signature is None:
            signature = self._signatures[id(fn)] = signature_of(fn)
        return signature

    def _check(self, step: AnyStep, call: Call) -> None:
        """Finds faults of a step that its binding shows."""
        if step.run_on == "thread" and call.is_async:
            message = f"Step {step.name!r} is async, so it runs on the loop, not in a thread (run_on=)."
            self._faults.add("OA210", message, step, "run_on")
        if step.is_resource and step.run_on not in (None, "loop", "thread"):
            message = f"Step {step.name!r} is a resource, which is open here, so it cannot run on {step.run_on!r}."
            self._faults.add("OA210", message, step, "run_on")
        if step.map_over is not None:
            self._check_mapped(step, call)
        if step.cache is not None and isinstance(step.cache, CachePolicy):
            self._check_ignored(step, step.cache, call)

    def _check_mapped(self, step: AnyStep, call: Call) -> None:
        bound = {binding.parameter: binding.dataset for binding in call.bindings}
        if bound.get(str(step.map_over)) is None:
            hint = did_you_mean(str(step.map_over), bound)
            message = (
                f"Step {step.name!r} is to map over {step.map_over!r}, which is no parameter that reads a dataset."
            )
            self._faults.add("OA209", message + hint, step, "map_over")
        if step.is_resource:
            message = f"Step {step.name!r} is a resource, so it cannot map over {step.map_over!r}."
            self._faults.add("OA209", message, step, "map_over")

    def _check_ignored(self, step: AnyStep, policy: CachePolicy, call: Call) -> None:
        known = [binding.parameter for binding in self.bindings_of(call)]
        for name in policy.ignore:
            if name not in known:
                hint = did_you_mean(name, known)
                message = f"Step {step.name!r} has no parameter {name!r}, which its cache= ignores.{hint}"
                self._faults.add("OA207", message, step, "cache", "ignore")

    # -- one call --------------------------------------------------------------------------------------

    def _call(self, step: AnyStep, fn: Callable[..., Any], signature: Signature) -> Call:
        """The call of a step's function; entries that only its predicate takes are left to that."""
        asked: frozenset[str] = frozenset()
        if step.when is not None and step.type not in CONFIGURED:  # theirs are also the names that a query uses
            asked = self._signature(step.when).names
        own = signature.names
        inputs = {name: dataset for name, dataset in step.inputs.items() if name in own or name not in asked}
        params = {name: value for name, value in step.params.items() if name in own or name not in asked}
        bindings = tuple(self._bindings(step, signature, inputs, params, ""))
        return Call(fn, signature.is_async, (), bindings, signature.yields)

    def _predicate(self, step: AnyStep, when: Callable[..., Any]) -> Call:
        """The call of a step's predicate, which takes what it needs of the step's entries."""
        signature = self._signature(when)
        known = signature.names
        inputs = {name: dataset for name, dataset in step.inputs.items() if name in known}
        params = {name: value for name, value in step.params.items() if name in known}
        bindings = tuple(self._bindings(step, signature, inputs, params, " (when=)"))
        return Call(when, signature.is_async and not signature.yields, (), bindings)

    def _bindings(
        self,
        step: AnyStep,
        signature: Signature,
        inputs: dict[str, str],
        params: dict[str, Any],
        which: str,
    ) -> Iterator[Binding]:
        """One binding a parameter; what cannot be bound becomes a fault."""
        for name, by_position, default, is_fixed in signature.parameters:
            if name in inputs:
                if name in params:
                    message = f"Step {step.name!r}: parameter {name!r} stands in inputs= and in params=."
                    self._faults.add("OA208", message, step, "params", name, of_key=True)
                    del params[name]
                yield Binding(name, by_position, self._read(step, inputs.pop(name), name), default)
            elif name in params:
                yield self._constant(name, by_position, params.pop(name))
            elif is_fixed:
                continue
            elif name in self._ids:
                yield Binding(name, by_position, self._ids[name], default)
            elif default is not ABSENT:
                place = self._optional.get(name)
                if place is None:
                    place = self.from_outside(name, self._optional)
                yield Binding(name, by_position, place, default)
            else:
                yield Binding(name, by_position, self._read(step, name, name + which), default)
        if signature.takes_any:
            yield from [Binding(name, False, self._read(step, read, name), ABSENT) for name, read in inputs.items()]
            yield from [self._constant(name, False, value) for name, value in params.items()]
        else:
            self._check_left(step, signature, {"inputs": inputs, "params": params})

    def _check_left(self, step: AnyStep, signature: Signature, left: Mapping[str, Mapping[str, Any]]) -> None:
        """Entries that no parameter takes are faults, and so is a function that nothing can be given to."""
        if signature.takes_more is not None and not signature.names:
            message = (
                f"Step {step.name!r} takes its data by *{signature.takes_more} only, which nothing fills: give each "
                f"dataset a parameter of its own, or take **{signature.takes_more} and name them in inputs=."
            )
            self._faults.add("OA207", message, step, "value")
        for option, names in left.items():
            for name in names:
                hint = did_you_mean(name, signature.names)
                message = f"Step {step.name!r} has no parameter {name!r}, which its {option}= names.{hint}"
                self._faults.add("OA207", message, step, option, name, of_key=True)

    def _constant(self, parameter: str, by_position: bool, value: Any) -> Binding:
        """The binding of a parameter to a constant, or to the context of an engine, which is one for the run."""
        if type(value) is not EngineOf:
            return Binding(parameter, by_position, None, value)
        name = self.engines.get(value.name)
        if name is None:
            name = f"\0engine {value.name or ''}"
            while name in self._ids:
                name = f"\0{name}"
            self.engines[value.name] = name
            self.from_outside(name, self.hidden)
        return Binding(parameter, by_position, self.hidden[name], ABSENT)

    def _read(self, step: AnyStep, dataset: str, parameter: str) -> int | None:
        place = self._ids.get(dataset)
        if place is None:
            self.unbound.append(dataset)
            known = sorted(self._ids.keys() - set(step.datasets))
            as_parameter = "" if parameter == dataset else f" (as {parameter!r})"
            hint = did_you_mean(dataset, known)
            message = (
                f"Step {step.name!r} reads {dataset!r}{as_parameter}, which no step produces.{hint}\n"
                f"Known datasets: {shortened(known, 12) or 'none'}."
            )
            if not (hint or step.type in CONFIGURED):
                message += f" To give it from outside: run_pipeline(steps, {{{dataset!r}: ...}})."
            keys = ("inputs", parameter) if parameter in step.inputs else ("value",)
            self._faults.add("OA201", message, step, *keys)
        return place
