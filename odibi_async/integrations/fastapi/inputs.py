"""What a request may give a pipeline: a model made from the annotations of its inputs, and its JSON Schema."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from odibi_async.graph.node import Input
from odibi_async.integrations.fastapi.problems import ServiceError, invalid
from odibi_async.secret import Secret

Asking = TypeVar("Asking", bound=BaseModel)
Records = list[dict[str, Any]]
"""What a frame is in JSON: its rows."""
SUSPICIOUS: Final = re.compile(rb"NaN|Infinity|\d[eE]\+?\d\d|\d{300}")
"""What Python's JSON has and JSON has not, and numbers that may be larger than any float."""


class GivenInput(NamedTuple):
    """
    An input that requests may give.

    Attributes:
        input: The input as the graph knows it.
        kind: What pydantic is to check.
        is_frame: Whether it is made a frame of pandas afterwards.
        is_secret: Whether it is made a `Secret` afterwards.
        schema: Its JSON Schema.
    """

    input: Input
    kind: Any
    is_frame: bool
    is_secret: bool
    schema: dict[str, Any]

    def value(self, checked: Any) -> Any:
        """What the run gets of a value that was checked."""
        if self.is_secret:
            return None if checked is None else Secret(checked)
        if self.is_frame and checked is not None:
            import pandas as pd

            return pd.DataFrame.from_records(checked)
        return checked


class Asked(NamedTuple):
    """
    What a request asks for, checked.

    Attributes:
        inputs: Dataset -> value.
        shown: The same as it was sent, without secrets.
        targets: The datasets wanted; `None` for all.
        timeout: Seconds that the run may take; `None` where nothing is said.
    """

    inputs: dict[str, Any]
    shown: dict[str, Any]
    targets: tuple[str, ...] | None
    timeout: float | None


class RequestModel:
    """
    What requests may ask of one pipeline.

    Args:
        name: What the pipeline is called.
        inputs: What its graph may be given.
        given: The names of those that the service gives itself.
        targets: The datasets that may be asked for.
        longest: Seconds that a run may take; `None` for no limit.

    Raises:
        ServiceError: An input that is needed cannot be given as JSON.
    """

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Input],
        given: Iterable[str],
        targets: Iterable[str],
        longest: float | None,
    ) -> None:
        known = set(given)
        self.targets = frozenset(targets)
        self.inputs: dict[str, GivenInput] = {}
        for each in inputs.values():
            if each.name not in known:
                found = _given(each)
                if found is not None:
                    self.inputs[each.name] = found
                elif each.required:
                    _refuse(name, each)
        members: dict[str, Any] = {
            f"input_{place}": (each.kind, _member(each)) for place, each in enumerate(self.inputs.values())
        }
        self._names = dict(zip(members, self.inputs, strict=True))
        self._inputs = create_model("Inputs", __config__=_STRICT, **members)
        every = [each for each in self.inputs.values() if each.input.required]
        first = Field(...) if every else Field(default_factory=self._inputs)
        kind = float | None
        self._request: type[BaseModel] = create_model(
            "Request",
            __config__=_STRICT,
            inputs=(self._inputs, first),
            targets=(list[str] | None, Field(None, min_length=1, max_length=10_000)),
            timeout_s=(kind, Field(None, gt=0, le=longest, description="Seconds that the run may take.")),
        )
        self._resumption: type[BaseModel] = create_model(
            "Resumption",
            __config__=_STRICT,
            inputs=(dict[str, Any], Field(default_factory=dict)),
            timeout_s=(kind, Field(None, gt=0, le=longest)),
        )

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the object of inputs."""
        required = [name for name, each in self.inputs.items() if each.input.required]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: each.schema for name, each in self.inputs.items()},
            "additionalProperties": False,
        }
        return schema | ({"required": required} if required else {})

    @property
    def body_schema(self) -> dict[str, Any]:
        """The JSON Schema of a whole request."""
        schema = self._request.model_json_schema()
        schema.pop("$defs", None)
        schema["properties"]["inputs"] = self.schema
        if self.targets:
            targets = {"type": "array", "minItems": 1, "items": {"enum": sorted(self.targets)}}
            schema["properties"]["targets"] = {"anyOf": [targets, {"type": "null"}], "title": "Targets"}
        return schema

    def asked(self, body: bytes) -> Asked:
        """
        What a request asks for.

        Raises:
            ServiceProblem: It is not what the pipeline takes.
        """
        said: Any = read(self._request, body)
        given, targets, timeout = said.inputs, said.targets, said.timeout_s
        for place, target in enumerate(targets or ()):
            if target not in self.targets:
                fault = {"loc": ("targets", place), "msg": f"{target!r} is no dataset that this pipeline makes."}
                raise invalid("There is no such target.", [fault])
        inputs, shown = {}, {}
        for member in given.model_fields_set:
            name = self._names[member]
            each, value = self.inputs[name], getattr(given, member)
            inputs[name] = each.value(value)
            if not each.is_secret:
                shown[name] = value
        return Asked(inputs, shown, None if targets is None else tuple(targets), timeout)

    def resumption(self, body: bytes) -> Asked:
        """
        What a request to resume a run gives anew: inputs that no journal keeps, such as secrets.

        Raises:
            ServiceProblem: It is not what the pipeline takes.
        """
        said: Any = read(self._resumption, body)
        inputs, timeout = said.inputs, said.timeout_s
        found: dict[str, Any] = {}
        for name, value in inputs.items():
            each = self.inputs.get(name)
            if each is None:
                raise invalid("There is no such input.", [{"loc": ("inputs", name), "msg": "Not an input."}])
            try:
                checked = TypeAdapter(each.kind).validate_json(json.dumps(value), strict=True)
            except ValidationError as error:
                faults = [{"loc": ("inputs", name, *each["loc"]), "msg": each["msg"]} for each in error.errors()]
                raise invalid("An input is not what the pipeline takes.", faults) from None
            found[name] = each.value(checked)
        return Asked(found, {}, None, timeout)


_STRICT: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=False)


def read(model: type[Asking], body: bytes) -> Asking:
    """
    What a request asks for; nothing, when it has no body.

    Raises:
        ServiceProblem: It is not what the model takes.
    """
    body = body or b"{}"
    try:
        if SUSPICIOUS.search(body):
            json.loads(body, parse_constant=_no_number, parse_float=_finite)
        return model.model_validate_json(body)
    except ValidationError as error:
        faults: Any = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid("The request is not what this path takes.", faults) from None
    except (ValueError, RecursionError) as error:
        raise invalid("The request is not JSON.", [{"loc": ("body",), "msg": str(error)[:200]}]) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON.")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:40]} is too large for a number.")
    return number


def _given(each: Input) -> GivenInput | None:
    """An input as requests may give it; `None` for what JSON cannot give."""
    kind: Any = Any if each.type is None else each.type
    parts = {kind, *get_args(kind)}
    is_optional = type(None) in parts
    is_frame = any(_is_frame(part) for part in parts)
    is_secret = Secret in parts
    if any(isinstance(part, type) and issubclass(part, os.PathLike | PurePath) for part in parts):
        return None
    if is_frame or is_secret:
        kind = Records if is_frame else str
        kind = kind | None if is_optional else kind
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema = inlined(TypeAdapter(kind).json_schema())
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None
    if is_secret:
        schema |= {"writeOnly": True}
    if not each.required and (shown := _as_json(each.default)) is not _NONE:
        schema |= {"default": shown}
    return GivenInput(each, kind, is_frame, is_secret, schema)


def _is_frame(kind: Any) -> bool:
    return getattr(kind, "__name__", "") == "DataFrame" and str(getattr(kind, "__module__", "")).startswith("pandas")


def _member(each: GivenInput) -> Any:
    # The alias is the input's name, which may be any text. Those that are left out keep the step's own default.
    if each.input.required:
        return Field(..., alias=each.input.name)
    return Field(default_factory=lambda: None, alias=each.input.name)


def _refuse(pipeline: str, each: Input) -> NoReturn:
    kind = getattr(each.type, "__name__", repr(each.type))
    raise ServiceError(
        f"Pipeline {pipeline!r} needs the input {each.name!r} ({kind}), which no request may give: "
        f"give it yourself, Served(pipeline, given={{{each.name!r}: ...}})."
    )


_NONE: Final = object()


def _as_json(value: Any) -> Any:
    """A value that JSON can say; `_NONE` for others."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return _NONE


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema without references: what refers to itself may be anything there."""
    known = schema.get("$defs", {})

    def put(each: Any, within: frozenset[str]) -> Any:
        if isinstance(each, list):
            return [put(part, within) for part in each]
        if not isinstance(each, dict):
            return each
        name = str(each.get("$ref", "")).removeprefix("#/$defs/")
        if name in within:
            return {}
        if name in known:
            rest = {key: value for key, value in each.items() if key != "$ref"}
            return {**put(known[name], within | {name}), **put(rest, within)}
        return {key: put(value, within) for key, value in each.items() if key != "$defs"}

    found: dict[str, Any] = put(schema, frozenset())
    return found


def named(kind: Any) -> str:
    """A type as people write it."""
    return "Any" if kind is None else getattr(kind, "__name__", None) or str(kind).replace("typing.", "")
