"""What may stand where in a configuration, and what is said when something else does."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from odibi_async.config.formats.source import Keys, spelled
from odibi_async.errors import CronError, ZoneUnknown, did_you_mean
from odibi_async.steps import PLACES
from odibi_async.steps import Place as RunsOn

StepType = Literal["config_op", "sql", "function"]
Engine = Literal["pandas", "spark"]
KNOWN: dict[str, tuple[str, ...]] = {
    "type": get_args(StepType),
    "engine": get_args(Engine),
    "run_on": PLACES,
    "version": ("1",),
    "overlap": ("skip", "queue", "allow"),
    "missed": ("skip", "latest", "all"),
}
ERRORS: dict[str, type[Exception]] = {
    name: thing for name, thing in vars(builtins).items() if isinstance(thing, type) and issubclass(thing, Exception)
}
"""The errors that a file can name, by their exact names; nothing is ever imported."""


def _shape(value: Any) -> str:
    """The tag of a value where several shapes are allowed."""
    return _LIST if isinstance(value, list | tuple) else _MAPPING if isinstance(value, dict) else _ONE


_LIST, _MAPPING, _ONE = _TAGS = ("<list>", "<mapping>", "<one>")


def _either(wanted: str) -> Discriminator:
    """Picks the alternative by a value's shape; `wanted` names all of them."""
    return Discriminator(_shape, custom_error_type="shape", custom_error_message=wanted)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("shape", "a number")
    return value


def _flag_or_text(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise PydanticCustomError("shape", "true, false or a directory")


def _error_name(name: str) -> str:
    if name not in ERRORS:
        hint = did_you_mean(name, ERRORS) or " Only errors of Python's own can be named."
        raise PydanticCustomError("unknown", "{hint}", {"hint": hint})
    return name


def _cron(expression: str) -> str:
    from odibi_async.cron import CronTimes  # loads what few need

    try:
        CronTimes(expression)
    except CronError as error:
        raise PydanticCustomError("cron", "{reason}", {"reason": str(error)}) from None
    return expression


def _zone(name: str) -> str:
    from odibi_async.cron import CronTimes

    try:
        CronTimes("@daily", name)
    except ZoneUnknown as error:
        raise PydanticCustomError("zone", "{reason}", {"reason": str(error)}) from None
    return name


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("shape", "a list without repetitions")
    return names


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[Annotated[Name, Tag(_ONE)] | Annotated[list[Name], Tag(_LIST)], _either("a text or a list of texts")]
Units = Annotated[int, Field(gt=0, strict=True)]
Pool = Annotated[
    Annotated[Name, Tag(_ONE)] | Annotated[dict[Name, Units], Field(min_length=1), Tag(_MAPPING)],
    _either("a text or a mapping of texts to whole numbers"),
]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Outputs = Annotated[
    Annotated[Name, Tag(_ONE)]
    | Annotated[list[Name], AfterValidator(_distinct), Tag(_LIST)]
    | Annotated[dict[str, Name], Tag(_MAPPING)],
    _either("a mapping, a list of texts or a text"),
]
ErrorName = Annotated[str, AfterValidator(_error_name), Field(json_schema_extra={"enum": sorted(ERRORS)})]
ErrorNames = Annotated[
    Annotated[ErrorName, Tag(_ONE)] | Annotated[list[ErrorName], Tag(_LIST)], _either("a text or a list of texts")
]
Place = Annotated[
    Any, BeforeValidator(_flag_or_text), Field(json_schema_extra={"type": ["boolean", "string"], "minLength": 1})
]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]


CronText = Annotated[Name, AfterValidator(_cron)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RetryModel(_Model):
    """How often, and how patiently, a failed step is called again."""

    attempts: Count | None = None
    wait: Annotated[Number, Field(ge=0)] | None = None
    max_wait: Annotated[Number, Field(ge=0)] | None = None
    jitter: bool | None = None
    on: ErrorNames | None = None
    never: ErrorNames | None = None


Attempts = Annotated[
    Annotated[Count, Tag(_ONE)] | Annotated[RetryModel, Tag(_MAPPING)], _either("a number of attempts or a mapping")
]


class CacheModel(_Model):
    """How a step is cached."""

    ttl: Annotated[Number, Field(gt=0)] | None = None
    version: str | int | None = None
    ignore: Names | None = None
    files: Names | None = None
    env: Names | None = None


Caching = Annotated[
    Annotated[bool, Tag(_ONE)] | Annotated[CacheModel, Tag(_MAPPING)], _either("true, false or a mapping")
]


class DefaultsModel(_Model):
    """What a step may say, but its name."""

    layer: Name = "transform"
    type: StepType = "config_op"
    engine: Engine = "pandas"
    value: str = ""
    params: dict[str, Any] | None = None
    inputs: dict[str, Name] | None = None
    outputs: Outputs | None = None
    metadata: dict[str, Any] | None = None
    retry: Attempts | None = None
    timeout: Annotated[Number, Field(gt=0)] | None = None
    when: Name | None = None
    tags: Names | None = None
    pool: Pool | None = None
    after: Names | None = None
    map_over: Name | None = None
    buffer: Annotated[int, Field(ge=1)] | None = None
    cache: Caching | None = None
    run_on: RunsOn | None = None
    project: Name | None = None
    enabled: bool = True


class StepModel(DefaultsModel):
    """One step."""

    name: Name


class ScheduleModel(_Model):
    """When a pipeline runs, at any of what is named, and what happens when it cannot."""

    cron: (
        Annotated[
            Annotated[CronText, Tag(_ONE)] | Annotated[list[CronText], Tag(_LIST)], _either("a text or a list of texts")
        ]
        | None
    ) = None
    tz: Annotated[Name, AfterValidator(_zone)] | None = None
    every: Annotated[Number, Field(ge=0.001, lt=1e9)] | None = None
    jitter: Annotated[Number, Field(ge=0)] | None = None
    files: Names | None = None
    event: Names | None = None
    overlap: Literal["skip", "queue", "allow"] | None = None
    missed: Literal["skip", "latest", "all"] | None = None
    within: Annotated[Number, Field(ge=0, le=1e10)] | None = None
    grace: Annotated[Number, Field(ge=1, le=1e10)] | None = None
    attempts: Count | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not (self.cron or self.every or self.files or self.event):
            raise PydanticCustomError("schedule", "one of cron, every, files and event is needed")
        if self.tz is not None and not self.cron:
            raise PydanticCustomError("schedule", "tz belongs to cron, which is not there")
        if self.jitter is not None and not (self.every and self.jitter <= self.every):
            raise PydanticCustomError("schedule", "jitter belongs to every, and is at most as much")
        return self


Schedule = Annotated[
    Annotated[CronText, Tag(_ONE)] | Annotated[ScheduleModel, Tag(_MAPPING)], _either("a cron expression or a mapping")
]


class HeadModel(_Model):
    """What a document says beside its steps."""

    version: Literal[1] = 1
    name: Name | None = None
    cache: Place | None = None
    defaults: DefaultsModel | None = None
    schedule: Schedule | None = None


class DocumentModel(HeadModel):
    """A whole document."""

    steps: list[StepModel]


M = TypeVar("M", bound=BaseModel)


class Wrong(NamedTuple):
    """
    What is wrong with one entry.

    Attributes:
        code: What kind of fault it is.
        keys: What leads to it.
        message: What is wrong, and what would be right.
        of_key: Whether it is the key that is wrong.
    """

    code: str
    keys: Keys
    message: str
    of_key: bool


def validated(model: type[M], entries: Mapping[str, Any]) -> tuple[M | None, list[Wrong]]:
    """The entries as their model, or all that is wrong with them."""
    wrong = [
        Wrong("OA103", [key], f"{key!r} is unknown: it holds half of a character (a lone surrogate).", True)
        for key in entries
        if isinstance(key, str) and not _is_encodable(key)
    ]
    if wrong:
        entries = {key: value for key, value in entries.items() if _is_encodable(str(key))}
    try:
        made = model.model_validate(entries)
        return (None, wrong) if wrong else (made, [])
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        of_key = detail["loc"][-1] == _KEY or detail["type"] in ("extra_forbidden", "invalid_key")
        keys = _keys(detail)
        wrong.append(Wrong(_CODES.get(detail["type"], "OA105"), keys, _told(detail, keys, model), of_key))
    return None, wrong


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keys(detail: ErrorDetails) -> Keys:
    """What leads to a fault, without what the library adds; an unknown key may look like that."""
    first, *rest = detail["loc"]
    last = rest[-1:] if detail["type"] == "extra_forbidden" else []
    return [first, *(key for key in rest[: len(rest) - len(last)] if key not in (*_TAGS, _KEY)), *last]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a document, or of a bare list of steps."""
    schema = TypeAdapter(DocumentModel | list[StepModel]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "odibi_async configuration", **schema}


_KEY = "[key]"
"""What the library puts behind the key of a mapping, where the key is wrong."""
_CODES = {
    "missing": "OA104",
    "extra_forbidden": "OA103",
    "unknown": "OA102",
    "literal_error": "OA102",
    "cron": "OA351",
    "zone": "OA352",
}
"""The kinds of the library's faults -> our codes; all others are of values that cannot stand where they do."""
_WANTED = {
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g} on",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number up to {le:g}",
}


def _told(detail: ErrorDetails, keys: Keys, model: type[BaseModel]) -> str:
    """What a fault of the model says, in our words."""
    kind, where = detail["type"], spelled(keys)
    found = shown(detail["input"])
    context = detail.get("ctx", {})
    if kind == "invalid_key" or detail["loc"][-1] == _KEY:
        return f"{where}: a text is needed as a key, not {found}."
    if kind == "missing":
        return f"there is no {where!r}, which every step needs."
    if kind == "extra_forbidden":
        known = _entries_at(keys[:-1], model)
        hint = did_you_mean(str(keys[-1]), known) or f" Known: {', '.join(known)}."
        return f"{where!r} is unknown.{hint}"
    if kind == "unknown":
        return f"{where} {found} is unknown.{detail['msg']}"
    if kind == "literal_error":
        if keys[-1] == "type" and detail["input"] == "api":
            return "type 'api' is not supported: use type 'function', and a function that calls the API."
        names = KNOWN[str(keys[-1])]
        hint = did_you_mean(str(detail["input"]), names) or f" Known: {', '.join(names)}."
        return f"{where} {found} is unknown.{hint}"
    if kind in ("cron", "zone"):
        return f"{where}: {detail['msg']}"
    if kind == "shape":
        return f"{where}: {detail['msg']} is needed, not {found}."
    if kind in _WANTED:
        return f"{where}: {_WANTED[kind].format(**context)} is needed, not {found}."
    return f"{where}: {detail['msg']}."


def _entries_at(keys: Keys, model: type[BaseModel]) -> list[str]:
    """What may stand where these keys lead."""
    if keys and keys[-1] == "retry":
        model = RetryModel
    elif keys and keys[-1] == "cache":
        model = CacheModel
    elif keys == ["schedule"]:
        model = ScheduleModel
    elif keys:
        model = DefaultsModel
    elif model is HeadModel:
        model = DocumentModel
    return list(model.model_fields)


def shown(value: Any) -> str:
    """A value for a message: what is large, or may hold what is not to be shown, is only named."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
