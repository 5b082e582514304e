"""
By what a journal knows a step again: its code, its params, and the digests of what it reads.

It is the cache's key with other rules where the two are for something else. A cached result must equal a recompute, so
the cache refuses what it cannot see through. A resumed run must not do again what is done, so here

- every step counts, whatever it does to the world outside;
- code and params are looked at once, as they are when the run begins, and of code that reads what has no content (a
  client, say) its own text counts;
- paths in code and params count by their text: a step may write there;
- what a step changes itself while it runs, a list that it appends to, does not count;
- a resource counts by the function that opens it, and what was given from outside and has no content by its class.

What ingests of configurations read, and the `files` of a `CachePolicy`, count by their content.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from blake3 import blake3

from odibi_async.abc import Described
from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT
from odibi_async.fingerprint.functions import (
    FORMAT,
    Code,
    Undigestible,
    combined,
    digest_of,
    digest_of_file,
    examined,
)
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import OUTSIDE, Node

NO_POLICY: Final = CachePolicy()


@dataclass(slots=True)
class Static:
    """
    What is known of a step's key before it is ready. Steps that are alike in this share it.

    Attributes:
        parts: Of what its code and its params are: in words -> digest.
        digest: Of all of them.
        mutable: Parts that code could change.
    """

    parts: Mapping[str, str]
    digest: str
    mutable: frozenset[str]

    def without(self, state: Sequence[str]) -> str:
        """The digest without some of its parts."""
        if not state:
            return self.digest
        return combined({name: part for name, part in self.parts.items() if name not in state})


class Fingerprints:
    """
    The keys of the steps of one run.

    Args:
        graph: What is run.
        values: The datasets, of which the contexts of engines are looked at.
    """

    def __init__(self, graph: Graph, values: Sequence[Any]) -> None:
        self._graph = graph
        self._values = values
        self._codes: dict[int, Code] = {}
        self._statics: dict[int, Static] = {}
        self._shared: dict[tuple[Any, ...], Static] = {}
        self._reads: dict[int, tuple[tuple[str, int], ...]] = {}
        self._kept: list[Any] = []  # so that no other function gets the same id

    def prepared(self, nodes: Sequence[Node]) -> None:
        """Looks at the code of all these steps, as it is now. Blocks."""
        for node in nodes:
            if not (node.is_resource or is_described(node.call.fn)):
                self._static_of(node)

    def known(self, node: Node) -> Static | None:
        """What is known of a step's key; `None` where that needs a look at files."""
        return self._statics.get(node.index)

    def static(self, node: Node) -> Static:
        """What is known of a step's key. May block."""
        return self._statics.get(node.index) or self._static_of(node)

    def reads(self, node: Node) -> tuple[tuple[str, int], ...]:
        """Parameter -> dataset, of a step that is known, for those whose content counts, in order."""
        return self._reads[node.index]

    def changed(self, node: Node, static: Static) -> tuple[str, ...]:
        """Which parts of a step's code are not as they were when the run began, since it changes them. Blocks."""
        try:
            now = examined(node.call.fn, _by_text).parts
        except Undigestible:
            now = {}
        return tuple(sorted(name for name in static.mutable if now.get(name) != static.parts[name]))

    def _static_of(self, node: Node) -> Static:
        policy = node.step.cache if isinstance(node.step.cache, CachePolicy) else NO_POLICY
        code = self._code(node, policy)
        parts = {
            "the format of keys": FORMAT,
            "the names of the outputs": digest_of(tuple(node.step.outputs)),
            **code.parts,
            **{f"the variable {name}": digest_of(os.environ.get(name)) for name in policy.env},
        }
        reads, names = [], []
        files = dict.fromkeys(policy.files)
        for parameter, _, dataset, constant in self._graph.bindings_of(node.call):
            if parameter in policy.ignore or dataset in self._graph.hidden:
                continue
            names.append(parameter)
            if parameter in files:
                files[parameter] = constant if dataset is None else self._values[dataset]
            if dataset is None or constant is not ABSENT:
                parts[f"the param {parameter!r}"] = _digest_of_constant(constant)
            if dataset is not None:
                resource = self._resource(dataset)
                if resource is None:
                    reads.append((parameter, dataset))
                else:
                    parts[f"the resource {parameter!r}"] = resource.digest
        for name, value in files.items():
            parts |= _digests_of_files(name if value is None else value)
        parts["the order of the arguments"] = digest_of(tuple(names))
        self._reads[node.index] = tuple(reads)
        alike = (*parts.items(), code.mutable)
        static = self._shared.get(alike)
        if static is None:
            static = self._shared[alike] = Static(parts, combined(parts), code.mutable)
        self._statics[node.index] = static
        return static

    def _resource(self, dataset: int) -> Static | None:
        """What is known of the resource that a dataset is, if it is one."""
        producer = self._graph.producers[dataset]
        if producer == OUTSIDE or not self._graph.nodes[producer].is_resource:
            return None
        return self.static(self._graph.nodes[producer])

    def _code(self, node: Node, policy: CachePolicy) -> Code:
        """What a step calls."""
        fn = node.call.fn
        if policy.version is not None:
            return Code({"the version": digest_of((node.name, policy.version))}, [])
        if is_described(fn):
            contents = fn.contents(self._engine_of(node))
            return Code({name: digest_of(value, name=name, files=_by_text) for name, value in contents.items()}, [])
        if id(fn) not in self._codes:
            self._kept.append(fn)
            self._codes[id(fn)] = _code_of(fn)
        return self._codes[id(fn)]

    def _engine_of(self, node: Node) -> Any:
        return next((self._values[d] for d in node.call.datasets if d in self._graph.hidden), None)


def is_described(fn: Any) -> TypeGuard[Described]:
    """Whether a callable says itself what its result follows from; a plain function never does, and that is cheap."""
    return not isinstance(fn, types.FunctionType) and isinstance(fn, Described)


def key_of(static: str, reads: Sequence[str]) -> str:
    """The key of a step, or of an element of one, from the digests of all that it reads."""
    return blake3("\0".join((static, *reads)).encode()).hexdigest()


def _code_of(fn: Callable[..., Any]) -> Code:
    try:
        return examined(fn, _by_text)
    except Undigestible as error:
        try:
            text = inspect.getsource(fn)
        except (OSError, TypeError):
            text = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
        return Code({"the text of the code": digest_of(text)}, [str(error)])


def _by_text(path: os.PathLike[str]) -> str:
    """Stands for the content of a file that a step may write."""
    return "0" * 64


def _digest_of_constant(value: Any) -> str:
    try:
        return digest_of(value, ordered=True, files=_by_text)
    except Undigestible:
        return digest_of_class(value)


def digest_of_class(value: Any) -> str:
    """Stands for the content of what has none."""
    cls = type(value)
    return digest_of(("a", cls.__module__, cls.__qualname__))


def _digests_of_files(value: Any) -> dict[str, str]:
    """What files hold; `absent` where there is none."""
    paths = [value] if isinstance(value, str | os.PathLike) else value
    found = {}
    for path in paths if isinstance(paths, list | tuple | set) else ():
        try:
            found[f"the file {os.fspath(path)!r}"] = digest_of_file(path)
        except OSError:
            found[f"the file {os.fspath(path)!r}"] = "absent"
    return found
