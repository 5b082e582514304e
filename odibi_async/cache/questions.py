"""What a run asks the cache about its steps: which of them, and under which keys."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextvars import copy_context
from typing import Any

from odibi_async.abc import Described, Doubtful
from odibi_async.cache.stored import Question, Uncached
from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT, Handle, HandleList, engine_of
from odibi_async.fingerprint.functions import FORMAT, combined, digest_of, digest_of_file, examined, is_mutable
from odibi_async.fingerprint.settings import settings
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import NOTHING, OUTSIDE, Node
from odibi_async.steps import ENDS


class Questions:
    """
    What one run asks about its steps; to be made in the context of the run.

    Attributes:
        origins: What was given from outside, contexts of engines included, and what lies in the store, by dataset:
            for those who need again what was dropped after its last reader.
    """

    def __init__(self, graph: Graph) -> None:
        self.origins: dict[int, Any] = {}
        self._graph = graph
        self._context = copy_context()
        self._policies: dict[int, CachePolicy | None] = {}
        self._digests: dict[int, str] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    # -- which steps -----------------------------------------------------------------------------------

    def policy(self, node: Node) -> CachePolicy | None:
        """How a step is cached; `None` for one that always runs. Does not block."""
        if node.index not in self._policies:
            self._policies[node.index] = self._policy(node)
        return self._policies[node.index]

    def _policy(self, node: Node) -> CachePolicy | None:
        asked = node.step.cache
        if asked is False or node.is_resource or node.iterates or node.step.layer in ENDS or not node.outputs:
            return None
        if isinstance(asked, CachePolicy):
            return asked
        return CachePolicy() if asked or self._may_have_content(node) else None

    def _may_have_content(self, node: Node) -> bool:
        """Whether it is worth asking if what a step makes follows from what it is given."""
        if isinstance(node.call.fn, Described):
            return True
        is_blocking = node.in_thread or (node.executor is not None and not node.call.is_async)
        return is_blocking and any(dataset not in self._graph.hidden for dataset in node.call.datasets)

    def check_frames(self, node: Node, frames: Iterable[Any]) -> None:
        """
        Sees to it that a function over frames of Spark is cached only when it says so: through their session it can
        read any table, and nothing in its code need show that.

        Raises:
            Uncached: It does not say so.
        """
        if node.step.cache or isinstance(node.call.fn, Described):
            return
        if any(engine_of(each) == "spark" or _kind_kept(each) == "spark" for each in frames):
            raise Uncached(
                "it works on Spark frames, through whose session it can read anything; use cache=True to"
                " cache it anyway"
            )

    def _engine_of(self, node: Node) -> Any:
        return next((self.origins.get(d) for d in node.call.datasets if d in self._graph.hidden), None)

    # -- keys ------------------------------------------------------------------------------------------

    def question(
        self, node: Node, policy: CachePolicy, values: Mapping[int, Any], instead: Mapping[str, Any] = NOTHING
    ) -> Question:
        """
        What to ask about a step.

        Args:
            node: The step.
            policy: How it is cached.
            values: The datasets that it reads; those not made are `ABSENT`.
            instead: Parameters that get something else: the element of a mapped step.

        Raises:
            Undigestible: Something that the result depends on has no content to identify it by.
        """
        parts = {
            "the format of keys": digest_of(FORMAT),
            "the names of the outputs": digest_of(tuple(node.step.outputs)),
        }
        self.check_frames(node, (*(values[dataset] for dataset in node.call.datasets), *instead.values()))
        parts |= self._about_call(node, policy)
        parts |= self._context.copy().run(settings)  # as steps see them, in contexts of their own
        parts |= {f"the variable {name}": digest_of(os.environ.get(name)) for name in policy.env}
        names, files = [], dict.fromkeys(policy.files)
        for parameter, _, dataset, constant in self._graph.bindings_of(node.call):
            if parameter in policy.ignore or dataset in self._graph.hidden:
                continue
            names.append(parameter)
            if parameter in files:
                files[parameter] = instead.get(parameter, constant if dataset is None else values[dataset])
            opened = self._connection(dataset)
            if opened is not None:
                name, contents = opened
                parts |= {f"{part} of {name!r}": digest_of(value, name=part) for part, value in contents.items()}
            elif parameter in instead:
                parts[f"the element {parameter!r}"] = self._digest_of_data(
                    f"the element {parameter!r}", instead[parameter]
                )
            elif dataset is not None and values[dataset] is not ABSENT:
                parts[f"the input {parameter!r}"] = self._digest_of_dataset(parameter, dataset, values[dataset])
            else:
                parts[f"the param {parameter!r}"] = digest_of(constant, name=f"the param {parameter!r}", ordered=True)
        for name, value in files.items():
            parts |= _digests_of_files(name if value is None else value)
        parts["the order of the arguments"] = digest_of(tuple(names))
        return Question(combined(parts), parts, policy.ttl)

    def _connection(self, dataset: int | None) -> tuple[str, Mapping[str, Any]] | None:
        """The resource that a dataset is, if it says itself what it leads to, and that."""
        producer = OUTSIDE if dataset is None else self._graph.producers[dataset]
        if producer == OUTSIDE or not self._graph.nodes[producer].is_resource:
            return None
        node = self._graph.nodes[producer]
        return (node.name, node.call.fn.contents(None)) if isinstance(node.call.fn, Described) else None

    def _about_call(self, node: Node, policy: CachePolicy) -> dict[str, str]:
        """
        What a step calls: the version that it says, or all that its code is made of.

        Raises:
            Uncached: It reads what has no content to identify it by, and the step does not ask for caching.
        """
        fn, is_told = node.call.fn, bool(node.step.cache)
        if isinstance(fn, Described):
            if not is_told and not fn.has_content(self._engine_of(node)):
                raise Uncached(_doubt(fn, self._engine_of(node)))
            contents = fn.contents(self._engine_of(node))
            parts = {name: digest_of(value, name=name) for name, value in contents.items()}
            return parts if policy.version is None else parts | {"the version": digest_of(policy.version)}
        if policy.version is not None:
            return {"the function": digest_of((node.name, *_name_of(fn))), "the version": digest_of(policy.version)}
        code = examined(fn)  # each time: what it reads of modules and objects may change during the run
        if code.outside and not is_told:
            raise Uncached(f"its code {code.outside[0]}; use cache=True to cache it anyway")
        return code.parts

    def _digest_of_dataset(self, parameter: str, dataset: int, value: Any) -> str:
        """The digest of a dataset; of what nobody can change, once a run."""
        with self._locks[dataset]:
            digest = self._digests.get(dataset)
            if digest is None:
                name, producer = f"the input {parameter!r}", self._graph.producers[dataset]
                is_mapped = producer != OUTSIDE and self._graph.nodes[producer].maps is not None
                if is_mapped and type(value) in (list, HandleList):  # not so what is given in its place
                    digest = self._digest_of_elements(name, value)
                else:
                    digest = self._digest_of_data(name, value)
                    self.note(dataset, value, digest)
            return digest

    def _digest_of_elements(self, name: str, value: Any) -> str:
        """The digest of a mapped step's list, some of whose elements may be in the store."""
        elements = value.elements if isinstance(value, HandleList) else value
        return combined({str(index): self._digest_of_data(name, each) for index, each in enumerate(elements)})

    def _digest_of_data(self, name: str, value: Any) -> str:
        """The digest of what flows between steps; the order of a mapping counts: who goes through it can tell."""
        digest = value.digest if isinstance(value, Handle) else None
        return digest or digest_of(value, name=name, ordered=True)

    def note(self, dataset: int, value: Any, digest: str) -> None:
        """Notes the digest of a dataset that nobody can change."""
        if not is_mutable(value):
            self._digests[dataset] = digest


def _digests_of_files(value: Any) -> dict[str, str]:
    """
    What the files hold that a policy names, by their names.

    Raises:
        OSError: One cannot be read.
        Uncached: There are no paths.
    """
    paths = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(paths, list | tuple | set) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise Uncached(f"its policy names files, but {type(value).__name__} is no path")
    return {f"the file {os.fspath(path)!r}": digest_of_file(path) for path in paths}


def _kind_kept(value: Any) -> str:
    """The kind of a dataset that is a handle of something kept; empty for all else."""
    return str(getattr(getattr(value, "kept", None), "kind", "")) if isinstance(value, Handle) else ""


def _doubt(fn: Described, engine: Any) -> str:
    return fn.doubt(engine) if isinstance(fn, Doubtful) else "its result may be another one any time"


def _name_of(fn: Any) -> tuple[str, str]:
    """The module of a callable, and its name there."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return str(named.__module__), str(named.__qualname__)
