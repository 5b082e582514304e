"""Steps: what a pipeline is declared with."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import FunctionType
from typing import Any, Final, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, get_args, overload

from odibi_async.cache_policy import CachePolicy
from odibi_async.durations import seconds_of
from odibi_async.errors import GraphError, GraphFault, OptionError, did_you_mean
from odibi_async.quick import quick
from odibi_async.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Place = Literal["loop", "thread", "process", "dask"]
PLACES: tuple[Place, ...] = get_args(Place)
"""Where a step may run; others have the names that their executors are given."""
RunOn = Place | str
CONFIGURED = ("config_op", "sql")
"""The types of steps that say in words what they do."""
TAP: Final = "tap"
"""The type of the step that hands what a run makes to its caller while it is made."""
ENDS = ("connect", "store", "publish")
"""The layers of theirs that make no dataset, unless they say so."""


class _OfFunction:
    """An attribute that a step shares with its function, for those who take it for one; its class has none."""

    def __init__(self, attribute: str, of_class: Any = None) -> None:
        self._attribute = attribute
        self._of_class = of_class

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            if self._attribute == "__signature__":
                return inspect.signature(instance.value)
            if self._attribute == "__wrapped__":
                return instance.value
            return getattr(instance.value, self._attribute, None)
        if self._of_class is None:
            raise AttributeError(self._attribute)
        return self._of_class


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[P, R, T]):
    """
    One step of a pipeline: something to call, what it reads and what it makes.

    Usually made from a function with `step`; still callable like that function.

    Attributes:
        layer: What kind of work it does: ingest, transform, store, ...
        name: What it is called, and what its dataset is called unless `outputs` says otherwise.
        type: `"function"`, or `"resource"` for a context manager; `"config_op"` and `"sql"` say in words what to do.
        engine: What its datasets are: `"pandas"` or `"spark"`; `None` for the engine of the run.
        value: The function; in configurations its name, a query, a path.
        params: Parameter -> value, for parameters that no dataset fills.
        inputs: Parameter -> dataset, where the parameter is not named like the dataset.
        outputs: The names of its datasets; a mapping gives the name that the function uses first.
        metadata: Anything you want to keep with it.
        retry: How it is called again after a failure; `None` for the policy of the run.
        timeout: Seconds that each call may take; `None` for no limit.
        run_on: `"loop"`, `"thread"`, `"process"`, or the name of an executor that the run is given, such as `"dask"`;
            `None` for the loop when the function is async, else a thread.
        after: Steps to wait for without reading what they make.
        when: A predicate with parameters bound like the function's; the step is skipped if it is false.
        tags: Words to find it by.
        pool: The name of the pool (`Limits.pools`) that it takes a slot of, or pool -> how many units it takes, such
            as `{"gb": 4, "licence": 1}`, all at once.
        map_over: The parameter that gets, instead of a list, each of its elements in turn; the dataset is
            the list of the results. Each element has its own retries, timeout, cache entry and slot.
        cache: Whether, and how, what it makes is kept in the cache of a run that has one; `None` to leave it to the
            run, which keeps what has content to go by: see docs/caching.md.
        buffer: Of a step that yields batches, how many there may be that its slowest reader has not done with, the
            one being made included; `None` for 4.
    """

    layer: str
    name: str
    type: str
    engine: str | None
    value: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    retry: Retry | None = None
    timeout: float | None = None
    run_on: RunOn | None = None
    after: tuple[str, ...] = ()
    when: Callable[..., Any] | None = None
    tags: tuple[str, ...] = ()
    pool: str | Mapping[str, int] | None = None
    map_over: str | None = None
    cache: bool | CachePolicy | None = None
    buffer: int | None = None

    __name__ = _OfFunction("__name__")
    __signature__ = _OfFunction("__signature__")
    __wrapped__ = _OfFunction("__wrapped__")

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Brings the fields into their final form, and refuses what cannot be one."""
        if not isinstance(self.name, str) or not self.name:
            fault = f"A step's name is a non-empty text, not {self.name!r}."
            raise GraphError([GraphFault("OA212", fault)])
        if self.params is None or self.inputs is None or self.outputs is None or self.metadata is None:
            for optional in ("params", "inputs", "outputs", "metadata"):
                if getattr(self, optional) is None:
                    object.__setattr__(self, optional, {})
        if self.outputs or type(self.outputs) is not dict:
            object.__setattr__(self, "outputs", _named_outputs(self.name, self.outputs))
        if self.after:
            after = (self.after,) if isinstance(self.after, str) else self.after
            object.__setattr__(self, "after", tuple(map(name_of, after)))
        if self.tags:
            object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))
        if self.inputs:
            self._check_inputs()
        if self.timeout is not None:
            timeout = seconds_of(f"Step {self.name!r}: timeout", self.timeout, above_zero=True)
            object.__setattr__(self, "timeout", timeout)
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise OptionError(
                f"Step {self.name!r}: retry={self.retry!r}: a policy is needed, such as Retry(attempts=3)."
            )
        if self.run_on is not None and self.run_on not in PLACES:
            hint = did_you_mean(str(self.run_on), PLACES)
            if hint or not (isinstance(self.run_on, str) and self.run_on):
                raise OptionError(f"Step {self.name!r}: run_on={self.run_on!r} is none of {', '.join(PLACES)}.{hint}")
        if self.pool is not None and not _is_pool(self.pool):
            raise OptionError(
                f"Step {self.name!r}: pool={self.pool!r}: the name of a pool is needed, or names with whole numbers"
                " from 1 on, such as {'gb': 4}."
            )
        if self.cache is not None and not isinstance(self.cache, bool | CachePolicy):
            raise OptionError(f"Step {self.name!r}: cache={self.cache!r}: True, False or CachePolicy(...) is needed.")
        if self.buffer is not None and (type(self.buffer) is not int or self.buffer < 1):
            raise OptionError(f"Step {self.name!r}: buffer={self.buffer!r}: a whole number from 1 on is needed.")

    def _check_inputs(self) -> None:
        if not isinstance(self.inputs, Mapping):
            raise OptionError(
                f"Step {self.name!r}: inputs={self.inputs!r}: a mapping from parameters to datasets is needed, such as"
                " inputs={'frame': 'orders'}."
            )
        if any([type(dataset) is not str for dataset in self.inputs.values()]):  # noqa: C419 (twice as fast)
            named = {parameter: name_of(dataset) for parameter, dataset in self.inputs.items()}
            object.__setattr__(self, "inputs", named)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function itself: for unit tests, and from other functions."""
        result: R = self.value(*args, **kwargs)
        return result

    def __get__(self, instance: object, owner: Any = None) -> Step[..., Any, T]:
        """A step of the bound method, where the function was declared in a class."""
        if isinstance(self.value, classmethod) or (instance is not None and isinstance(self.value, FunctionType)):
            return dataclasses.replace(self, value=self.value.__get__(instance, owner))
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A step that its module has under its function's name is found there again, as functions are."""
        module, name = _place_of(self.value)
        found = _named(module, name)
        if found is self:
            return _named, (module, name)
        if isinstance(found, Step) and found.value is self.value:  # a decorated function under another name or policy
            fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            return _from_another, (found, {key: value for key, value in fields.items() if key != "value"})
        return object.__reduce_ex__(self, protocol)  # a class with slots is made anew, and `super` knows the old one

    @property
    def is_configured(self) -> bool:
        """Whether what it is to call is only named yet, as in a configuration."""
        return not callable(self.value) or isinstance(self.when, str)

    @property
    def is_resource(self) -> bool:
        """Whether it is a context manager, open as long as somebody reads it."""
        return self.type == "resource"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets that it makes."""
        if self.outputs:
            return tuple(self.outputs.values())
        return () if self.layer in ENDS and self.type in CONFIGURED else (self.name,)


Step.__doc__ = _OfFunction("__doc__", Step.__doc__)  # type: ignore[assignment]
_new_step = quick(Step)


def _place_of(fn: Any) -> tuple[str, str]:
    """The module of a callable, and what it is called there."""
    return str(getattr(fn, "__module__", "")), str(getattr(fn, "__qualname__", ""))


def _named(module: str, name: str) -> Any:
    """What a module has under a name; `None` if that is nothing."""
    found: Any = sys.modules.get(module)
    if found is None and module:
        found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _from_another(other: Step[..., Any, Any], fields: Mapping[str, Any]) -> Step[..., Any, Any]:
    return dataclasses.replace(other, **fields)


class StepOptions(TypedDict, total=False):
    """What `step` takes beside the function: the fields of `Step`, in the forms that read well."""

    name: str
    layer: str
    engine: str
    inputs: Mapping[str, str]
    outputs: Sequence[str] | Mapping[str, str]
    params: Mapping[str, Any]
    metadata: Mapping[str, Any]
    retry: Retry | None
    timeout: float | None
    run_on: RunOn
    after: Sequence[str | Step[..., Any, Any] | Callable[..., Any]] | str
    when: Callable[..., Any]
    tags: Sequence[str]
    pool: str | Mapping[str, int]
    map_over: str
    cache: bool | CachePolicy | None
    buffer: int | None


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Step[P, T, T]: ...


@overload
def step(
    fn: Callable[P, Coroutine[Any, Any, T]], /, **options: Unpack[StepOptions]
) -> Step[P, Coroutine[Any, Any, T], T]: ...
@overload
def step(fn: Callable[P, T], /, **options: Unpack[StepOptions]) -> Step[P, T, T]: ...
@overload
def step(**options: Unpack[StepOptions]) -> _Decorator: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """
    Makes a step of a function: `@step`, `@step(name=..., retry=...)` or `step(fn, name=...)`.

    Args:
        fn: Anything callable, sync or async; of a step, another one with other options is made. Its
            parameters are filled by name: from `inputs` (parameter -> dataset), else from `params`, else from
            the dataset of the same name, else by its default.
        **options: The policies and names of `Step`. `name` is needed where the callable has none (a
            lambda, an object). `outputs=("train", "test")` names several datasets, for a function that
            returns a tuple in that order or a mapping.

    Raises:
        GraphError: There is no name, or nothing that can be called.
        OptionError: An option has a value that it cannot have.
    """
    if fn is None:
        _check_options(options)
        return functools.partial(step, **options)
    if isinstance(fn, Step):
        return dataclasses.replace(fn, **options)
    if not callable(fn) and not isinstance(fn, classmethod):
        message = f"A step is made from something callable, not from {fn!r}."
        if inspect.iscoroutine(fn):
            fn.close()
        if not isinstance(fn, str | Mapping | None):
            message += " Did you call it? The function itself is needed: [load], not [load()]."
        raise GraphError([GraphFault("OA212", message)])
    try:
        return _made(fn, **options)
    except TypeError:
        _check_options(options)
        raise


def _made(
    fn: Any,
    *,
    name: Any = None,
    layer: Any = "transform",
    engine: Any = None,
    params: Any = None,
    inputs: Any = None,
    outputs: Any = None,
    metadata: Any = None,
    retry: Any = None,
    timeout: Any = None,
    run_on: Any = None,
    after: Any = (),
    when: Any = None,
    tags: Any = (),
    pool: Any = None,
    map_over: Any = None,
    cache: Any = None,
    buffer: Any = None,
) -> Step[..., Any, Any]:
    """A step, made in a third of the time that `Step(...)` takes and checked alike."""
    made = _new_step(
        layer,
        name or function_name(fn),
        "function",
        engine,
        fn,
        {} if params is None else params,
        {} if inputs is None else inputs,
        {} if outputs is None else outputs,
        {} if metadata is None else metadata,
        retry,
        timeout,
        run_on,
        after,
        when,
        tags,
        pool,
        map_over,
        cache,
        buffer,
    )
    made._check()
    return made


_AFTER: Final = ("depends_on", "upstream", "requires", "dependencies")


def _check_options(options: Mapping[str, Any]) -> None:
    """
    Raises:
        TypeError: One of them is no option of a step.
    """
    known = StepOptions.__annotations__
    for option in options:
        if option not in known:
            hint = " Use after=[...] instead." if option in _AFTER else did_you_mean(option, known)
            raise TypeError(f"A step has no option {option!r}.{hint}") from None


def resource(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """
    Makes a step of a context manager function: `@resource`, or `@resource(name=..., params=...)`.

    What the context manager yields is a dataset for the steps that read it. It is entered before the first of
    them and exited after the last, also when the run fails or is cancelled; several are exited in reverse
    order. On exit it is given the error of a reader that failed, as a `with` block would. It is never
    returned, cached or journaled.

    Args:
        fn: An async or plain generator function that yields once, or any callable that returns an async or
            plain context manager. Plain ones are entered and exited in worker threads.
        **options: As for `step`.
    """
    if fn is None:
        return functools.partial(resource, **options)
    made = step(fn, **({"layer": "connect"} | options))
    return dataclasses.replace(made, type="resource")


def as_step(thing: Any) -> Step[..., Any, Any]:
    """The step itself, or the step of a plain function."""
    return thing if isinstance(thing, Step) else step(thing)


def name_of(thing: Any) -> str:
    """The name of what a text, a step or a function refers to."""
    if isinstance(thing, str):
        return thing
    return thing.name if isinstance(thing, Step) else function_name(thing)


def function_name(fn: Any) -> str:
    """
    What a callable calls itself.

    Raises:
        GraphError: It is a lambda, or an object without a name.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = fn.name if isinstance(fn, Step) else getattr(fn, "__name__", "<lambda>")
    if name == "<lambda>":
        fault = f"{fn!r} has no name of its own: give it one with step(..., name=...)."
        raise GraphError([GraphFault("OA212", fault)])
    return str(name)


def is_async(fn: Any) -> bool:
    """Whether calling gives a coroutine; partials and callable objects are looked into."""
    return any(map(inspect.iscoroutinefunction, _called(fn)))


def kind_of_generator(fn: Any) -> Literal["async", "plain"] | None:
    """Which kind of generator calling gives; `None` for none. Partials and callable objects are looked into."""
    if any(map(inspect.isasyncgenfunction, _called(fn))):
        return "async"
    return "plain" if any(map(inspect.isgeneratorfunction, _called(fn))) else None


def _called(fn: Any) -> tuple[Any, Any]:
    """What a callable calls in the end, and if it is an object, the method that makes it one."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, Step):
            fn = fn.value
        elif isinstance(fn, staticmethod | classmethod):
            fn = fn.__func__
        else:
            return fn, getattr(type(fn), "__call__", None)  # noqa: B004


def _is_pool(pool: Any) -> bool:
    if isinstance(pool, Mapping):
        return all(isinstance(name, str) and type(units) is int and units > 0 for name, units in pool.items())
    return isinstance(pool, str)


def _named_outputs(step: str, outputs: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The mapping form of `outputs`: the name that the function uses -> the dataset."""
    if isinstance(outputs, str):
        outputs = (outputs,)
    names = tuple(outputs.values()) if isinstance(outputs, Mapping) else tuple(outputs)
    if len(set(names)) < len(names):
        fault = f"Step {step!r} declares an output twice: {', '.join(map(repr, names))}."
        raise GraphError([GraphFault("OA213", fault, step, ("outputs",))])
    return dict(outputs) if isinstance(outputs, Mapping) else {name: name for name in names}
