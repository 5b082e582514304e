"""
Steps of configurations made callable: what each layer does.

A configured step says what it wants in words: a path, a query, the name of a function. `compiled` puts something to
call in their place (see `nodes`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from odibi_async.abc import NodeType
from odibi_async.config.document import ANYTHING
from odibi_async.config.nodes import CONNECTION, ENGINE, Connect, Query, Read, Write
from odibi_async.dataset import EngineOf
from odibi_async.engines import ENGINES, asked_engine
from odibi_async.engines.options import MODES
from odibi_async.errors import GraphFault, OdibiError, did_you_mean, in_a_line, shortened
from odibi_async.retry import Retry
from odibi_async.secret import Secret
from odibi_async.steps import Step

T = TypeVar("T")
AnyStep = Step[..., Any, Any]
TYPES: Final = ("config_op", "sql", "function")


def compiled(
    steps: Iterable[Any],
    functions: Mapping[str, Callable[..., Any]] | None = None,
    nodes: Mapping[str, NodeType] | None = None,
) -> tuple[list[Any], list[GraphFault]]:
    """
    The same steps with something to call in each of them, and all that is wrong with those that are configured.

    Args:
        steps: Steps of any kind; those that have something to call already stay as they are.
        functions: Name -> function, for steps of type function and for `when`. Nothing else can be named: no
            module is imported and no attribute looked up.
        nodes: Layer -> what makes its steps' callables; see `NodeType`.
    """
    steps = list(steps)
    connections = {s.name for s in steps if isinstance(s, Step) and (s.layer == "connect" or s.is_resource)}
    compiler = _Compiler(functions or {}, nodes or {}, connections)
    return [compiler.step(s) if isinstance(s, Step) and s.is_configured else s for s in steps], compiler.faults


class _Faulty(Exception):
    """
    What is wrong with a step.

    Args:
        code: What kind of fault it is.
        message: What is wrong, and what would be right.
        keys: What leads to the entry that is at fault.
        of_key: Whether it is the key that is wrong.
    """

    def __init__(self, code: str, message: str, *keys: str, of_key: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.keys = keys
        self.of_key = of_key


class _Compiler:
    """Compiles steps, and collects what is wrong with them."""

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], nodes: Mapping[str, NodeType], connections: set[str]
    ) -> None:
        self.faults: list[GraphFault] = []
        self._functions = functions
        self._nodes = nodes
        self._connections = connections
        self._layers: dict[str, Callable[[AnyStep], AnyStep]] = {
            "connect": self._connect,
            "ingest": self._ingest,
            "transform": self._transform,
            "store": self._store,
            "publish": self._store,
        }

    def step(self, step: AnyStep) -> AnyStep:
        """The step, callable; one that is faulty too, so that what it reads can be checked as well."""
        when = step.when
        if isinstance(when, str):
            when = self._noting(step, lambda: self._function(str(step.when), "when"))
            step = dataclasses.replace(step, when=when)
        if callable(step.value):
            return step
        made = self._noting(step, lambda: self._made(step))
        return made or dataclasses.replace(step, value=ANYTHING, params={}, map_over=None)

    def _noting(self, step: AnyStep, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except _Faulty as fault:
            self.faults.append(
                GraphFault(fault.code, f"Step {step.name!r}: {fault}", step.name, fault.keys, fault.of_key)
            )
            return None

    def _made(self, step: AnyStep) -> AnyStep:
        if step.type not in TYPES:
            if step.type == "api":
                wrong = "type 'api' is not supported: use type 'function', and a function that calls the API."
                raise _Faulty("OA102", wrong, "type")
            raise _Faulty("OA102", f"type {step.type!r} is unknown.{_hint(step.type, TYPES)}", "type")
        if step.engine is not None and step.engine not in ENGINES:
            raise _Faulty("OA102", f"engine {step.engine!r} is unknown.{_hint(step.engine, ENGINES)}", "engine")
        layers = {*self._layers, *self._nodes}
        if step.layer not in layers:
            raise _Faulty(
                "OA102",
                f"layer {step.layer!r} is unknown.{_hint(step.layer, layers)} Others are given with nodes={{...}}.",
                "layer",
            )
        if step.type == "function":
            return dataclasses.replace(step, value=self._function(step.value, "value"))
        if step.layer in self._nodes:
            return self._custom(step, self._nodes[step.layer])
        if not isinstance(step.value, str | Secret):
            raise _Faulty("OA113", f"its value is a text, not {step.value!r}.", "value")
        return self._layers[step.layer](step)

    def _function(self, name: Any, key: str) -> Callable[..., Any]:
        where = "when=" if key == "when" else key
        function = self._functions.get(name) if isinstance(name, str) else None
        if function is None:
            known = _hint(str(name), self._functions, "functions") if self._functions else ""
            raise _Faulty(
                "OA116", f"{where} names the function {name!r}, which is not given: functions={{...}}.{known}", key
            )
        if not callable(function):
            raise _Faulty("OA116", f"{where} names {name!r}, which is not a function but {function!r}.", key)
        return function

    def _custom(self, step: AnyStep, make: NodeType) -> AnyStep:
        try:
            value = make(step)
        except OdibiError as error:
            raise _Faulty("OA117", in_a_line(error), "layer") from error
        if not callable(value):
            raise _Faulty(
                "OA117", f"the node type of layer {step.layer!r} gave {value!r}, which cannot be called.", "layer"
            )
        params = dict(step.params)
        if "engine" in inspect.signature(value).parameters and "engine" not in {*params, *step.inputs}:
            params["engine"] = EngineOf(asked_engine(step.engine))
        return dataclasses.replace(step, value=value, params=params)

    # -- the layers of ODIBI CORE ----------------------------------------------------------------------

    def _connect(self, step: AnyStep) -> AnyStep:
        self._only(step, "config_op")
        self._no_inputs(step)
        if step.outputs:
            raise _Faulty(
                "OA112",
                "a connect step makes no dataset: others name it in their params, connection: <its name>.",
                "outputs",
            )
        made = self._with_engine(step, Connect(self._place(step), step.params))
        return dataclasses.replace(made, type="resource")

    def _ingest(self, step: AnyStep) -> AnyStep:
        self._only(step, "config_op", "sql")
        self._no_inputs(step)
        self._one_output(step)
        if step.type == "sql" and "connection" not in step.params:
            raise _Faulty(
                "OA114",
                "an ingest step of type sql needs a connection: params: {connection: <step, URL or path>}.",
                "params",
            )
        return self._connected(step, lambda params: Read(self._place(step), params, step.type == "sql"))

    def _transform(self, step: AnyStep) -> AnyStep:
        if step.type == "config_op":
            raise _Faulty(
                "OA111", "a transform step is of type sql or function: config_op does not say what to do.", "type"
            )
        self._one_output(step)
        if isinstance(step.value, str) and not step.value.strip():
            raise _Faulty("OA113", "its value is empty, but must hold the query.", "value")
        for name in step.params.keys() - {"params", "persist"}:
            raise _Faulty(
                "OA115",
                f"a query has no param {name!r}; the value of each $name goes into params: {{params: ...}}.",
                "params",
                name,
                of_key=True,
            )
        params = step.params.get("params") or {}
        if not isinstance(params, Mapping):
            raise _Faulty(
                "OA115", f"the params of a query are a mapping from each $name, not {params!r}.", "params", "params"
            )
        odd = [name for name in params if not isinstance(name, str)]
        if odd:
            raise _Faulty("OA115", f"the names of a query's params are texts, not {odd[0]!r}.", "params", "params")
        twice = params.keys() & step.inputs.keys()
        if twice:
            raise _Faulty(
                "OA115",
                f"{shortened(sorted(twice))} is in inputs and in the params of the query.",
                "params",
                "params",
            )
        names = tuple(step.inputs)
        return self._with_engine(step, Query(step.value, params, names, step.params.get("persist", False)))

    def _store(self, step: AnyStep) -> AnyStep:
        self._only(step, "config_op")
        if len(step.inputs) != 1:
            raise _Faulty(
                "OA112",
                f"a {step.layer} step writes one dataset, but its inputs name {len(step.inputs) or 'none'}.",
                "inputs",
            )
        if step.outputs:
            raise _Faulty("OA112", f"a {step.layer} step makes no dataset, but its outputs name one.", "outputs")
        mode = step.params.get("mode", "overwrite")
        if mode not in MODES:
            raise _Faulty("OA102", f"mode {mode!r} is unknown.{_hint(str(mode), MODES)}", "params", "mode")
        if mode == "append" and step.retry is None:  # appending twice would leave the rows twice
            step = dataclasses.replace(step, retry=Retry(attempts=1))
        return self._connected(step, lambda params: Write(self._place(step), params))

    # -- what they share -------------------------------------------------------------------------------

    def _connected(self, step: AnyStep, make: Callable[[Mapping[str, Any]], Any]) -> AnyStep:
        """With the connection bound, where the params name the step that opens it."""
        params = dict(step.params)
        name = params.get("connection")
        if name is None:
            return self._with_engine(step, make(params))
        if isinstance(name, str) and name in self._connections:
            made = self._with_engine(step, make(params))  # who still name it: it is no file of that path that they read
            return dataclasses.replace(made, inputs={**step.inputs, CONNECTION: name})
        if isinstance(name, str) and not any(mark in name for mark in ":/\\."):
            raise _Faulty(
                "OA114",
                f"its connection {name!r} is not a connect step, URL or path.{_hint(name, self._connections, 'ones')}",
                "params",
                "connection",
            )
        return self._with_engine(step, make(params))

    def _with_engine(self, step: AnyStep, value: Any) -> AnyStep:
        return dataclasses.replace(step, value=value, params={ENGINE: EngineOf(asked_engine(step.engine))})

    def _place(self, step: AnyStep) -> Any:
        if step.value == "":
            raise _Faulty("OA113", "its value is empty, but must say where the data is.", "value")
        return step.value

    def _only(self, step: AnyStep, *types: str) -> None:
        if step.type not in types:
            allowed = " or ".join((*types, "function"))
            raise _Faulty("OA111", f"a step of layer {step.layer} is of type {allowed}, not {step.type}.", "type")

    def _no_inputs(self, step: AnyStep) -> None:
        if step.inputs:
            raise _Faulty(
                "OA112",
                f"a step of layer {step.layer} reads no datasets, but has inputs; after= waits for steps.",
                "inputs",
            )

    def _one_output(self, step: AnyStep) -> None:
        if len(step.outputs) > 1:
            raise _Faulty("OA112", f"it makes one dataset, but its outputs name {len(step.outputs)}.", "outputs")


def _hint(name: str, known: Iterable[str], what: str = "") -> str:
    known = sorted(known)
    return did_you_mean(name, known) or f" Known{what and ' ' + what}: {shortened(known) or 'none'}."
