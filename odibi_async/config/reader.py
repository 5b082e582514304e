"""From entries to steps: defaults, interpolation, and the place of every fault."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from odibi_async.cache_policy import CachePolicy
from odibi_async.config import model as models
from odibi_async.config.document import ANYTHING, Document
from odibi_async.config.formats.source import MAX_DEPTH, Keys, Source, spelled, text_of
from odibi_async.config.model import (
    ERRORS,
    CacheModel,
    HeadModel,
    RetryModel,
    ScheduleModel,
    StepModel,
    shown,
)
from odibi_async.engines import DEFAULT
from odibi_async.errors import ConfigError, Fault, did_you_mean, shortened
from odibi_async.retry import Retry
from odibi_async.secret import Secret
from odibi_async.steps import Step

Entries = dict[str, Any]
OFF = ("0", "false", "no", "off", "f", "n")
REFERENCE = re.compile(r"\$\{(env|file):([^}]*)(\}?)")


class _Part(NamedTuple):
    """
    One step, or what is beside the steps.

    Attributes:
        keys: What leads to it.
        label: What its faults begin with.
    """

    keys: Keys
    label: str = ""


class Reader:
    """Makes a document of a source, and collects what is wrong on the way."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.faults = list(source.faults)
        self._source = source
        self._folder = folder
        self._environment = dict(os.environ)
        self._named: dict[str, Keys] = {}
        self._secrets: set[str] = set()

    def document(self, project: str | None, enabled_only: bool, layer: str | None) -> Document:
        value = self._source.value
        head, above = HeadModel(), _Part(())
        defaults: Entries = {}
        if isinstance(value, dict):
            head, defaults = self._head(value)
            value, above = value.get("steps"), _Part(("steps",))
        if not isinstance(value, list | tuple):
            self._fault("OA105", above, (), "a list of steps is needed, or a mapping whose 'steps' are one.")
            value = []
        given = [_merged(defaults, entries) for entries in value]
        if project is not None:
            self._check_project(project, given)
        made, faulty = [], set[str]()
        for index, entries in enumerate(given):
            if _is_chosen(entries, project, enabled_only, layer):
                step = self._step((*above.keys, index), index, entries)
                if step is not None:
                    made.append(step)
                else:
                    faulty |= _names_in(entries)
        return Document(
            name=head.name,
            version=head.version,
            schedule=_scheduled(head.schedule),
            cache=head.cache,
            steps=tuple(made),
            faulty=frozenset(faulty),
            source=self._source,
            keys=self._named,
            secrets=frozenset(self._secrets),
        )

    def _head(self, value: Entries) -> tuple[HeadModel, Entries]:
        """What is beside the steps, and those of the defaults that are valid."""
        part = _Part(())
        given = {key: each for key, each in value.items() if key != "steps" and each is not None}
        if isinstance(given.get("defaults"), dict):
            given["defaults"] = _merged({}, given["defaults"])
        head, wrong = models.validated(HeadModel, given)
        for code, keys, message, of_key in wrong:
            self._fault(code, part, keys, message, of_key)
        sound: Entries = {}
        if isinstance(given.get("defaults"), dict):
            unsound = {fault.keys[1] for fault in wrong if fault.keys[0] == "defaults"}
            sound = {key: each for key, each in given["defaults"].items() if key not in unsound}
            if "params" in sound:
                sound["params"] = self._resolved(part, ("defaults", "params"), sound["params"])
        return head or HeadModel(), sound

    def _check_project(self, project: str, given: list[Any]) -> None:
        known = {str(entries["project"]) for entries in given if isinstance(entries, dict) and "project" in entries}
        if project not in known:
            hint = did_you_mean(project, known) or f" Known projects: {shortened(sorted(known)) or 'none'}."
            message = f"no step belongs to project {project!r}.{hint}"
            self.faults.append(Fault(self._source.name, "", message, "OA406"))

    def _step(self, keys: Keys, index: int, given: Any) -> Step[..., Any, Any] | None:
        if not isinstance(given, dict):
            self._fault("OA105", _Part(keys), (), f"a step is a mapping, not {shown(given)}.")
            return None
        entries, faults = self._source.unpacked(index, given)
        name = entries.get("name")
        part = _Part(keys, f"step {name!r}: " if isinstance(name, str) and name else "")
        for code, inner, message in faults:
            self._fault(code, part, inner, message)
        params = self._resolved(part, ("params",), entries.get("params"))
        value = self._resolved(part, ("value",), entries.get("value", ""))
        model, wrong = models.validated(StepModel, entries)
        told = {fault.keys[0] for fault in faults}
        for code, inner, message, of_key in wrong:
            if inner[0] not in told:
                self._fault(code, part, inner, message, of_key)
        if model is None:
            model, value = _without({fault.keys[0] for fault in wrong} | told, entries, value)
        if model is None:
            return None
        first = self._named.setdefault(model.name, keys)
        if first is not keys:
            place = self._source.place((*first, "name"))
            self._fault("OA203", part, ("name",), f"another step has the same name ({place}).")
        return _made(model, value, params)

    def _resolved(self, part: _Part, inner: Keys, value: Any) -> Any:
        """The same value with a secret in place of each text that names one."""
        if isinstance(value, str):
            return self._resolved_text(part, inner, value) if "${" in value else value
        if not isinstance(value, dict | list):
            return value
        if len(inner) > MAX_DEPTH:
            self._fault("OA107", part, inner[:1], f"lists and mappings are nested more than {MAX_DEPTH} deep.")
            return None
        if isinstance(value, dict):
            return {key: self._resolved(part, (*inner, key), each) for key, each in value.items()}
        return [self._resolved(part, (*inner, index), each) for index, each in enumerate(value)]

    def _resolved_text(self, part: _Part, inner: Keys, text: str) -> str | Secret:
        def secret(reference: re.Match[str]) -> str:
            try:
                found = self._secret(*reference.groups())
            except ValueError as error:
                self._fault("OA108", part, inner, f"{spelled(inner)}: {error}")
                return ""
            self._secrets.add(found)
            return found

        resolved, count = REFERENCE.subn(secret, text)
        return Secret(resolved) if count else text

    def _secret(self, kind: str, name: str, end: str) -> str:
        """
        Raises:
            ValueError: There is no such variable or file.
        """
        if not end:
            raise ValueError(f"'${{{kind}:' has no closing brace.")
        if kind == "env":
            if name not in self._environment:
                hint = did_you_mean(name, self._environment)
                raise ValueError(f"the environment variable {name!r} is not set.{hint}")
            return self._environment[name]
        try:
            return text_of(self._folder / name).removesuffix("\n").removesuffix("\r")
        except ConfigError as error:
            raise ValueError(f"the secret's file {name!r}: {error.faults[0].message}") from None

    def _fault(self, code: str, part: _Part, inner: Keys, message: str, of_key: bool = False) -> None:
        self.faults.append(self._source.fault(code, (*part.keys, *inner), part.label + message, of_key))


def _scheduled(schedule: str | ScheduleModel | None) -> Any:
    return schedule.model_dump(exclude_none=True) if isinstance(schedule, ScheduleModel) else schedule


def _merged(defaults: Entries, entries: Any) -> Any:
    """The entries of a step over the defaults; where both are mappings, both count. `None` counts as left out."""
    if isinstance(entries, Mapping):
        both = {**defaults, **entries}
        for key in defaults.keys() & entries.keys():
            if isinstance(defaults[key], dict) and isinstance(entries[key], dict):
                both[key] = {**defaults[key], **entries[key]}
        return {key: each for key, each in both.items() if each is not None}
    return entries


def _without(unsound: set[Any], entries: Entries, value: Any) -> tuple[StepModel | None, Any]:
    """
    What a faulty step is without its faulty entries, so that its other faults are found in the same pass.

    What depends on one of them is nothing to look at any more: anything can be called in its place.
    """
    model, _ = models.validated(StepModel, {key: each for key, each in entries.items() if key not in unsound})
    if model is not None and "outputs" in unsound:
        model = model.model_copy(update={"outputs": sorted(_names_in(entries) - {model.name})})
    return model, ANYTHING if unsound & {"layer", "type", "engine", "value", "params", "inputs", "outputs"} else value


def _names_in(entries: Any) -> set[str]:
    """What a faulty step calls itself and what it makes, as far as that can be told."""
    if not isinstance(entries, dict):
        return set()
    outputs = entries.get("outputs")
    made = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list) else [outputs]
    return {name for name in (entries.get("name"), *made) if isinstance(name, str) and name}


def _is_chosen(given: Any, project: str | None, enabled_only: bool, layer: str | None) -> bool:
    """Whether a step is asked for; what is not a step counts too, so that it is reported."""
    if not isinstance(given, dict):
        return True
    enabled = given.get("enabled", True)
    if enabled_only and (enabled == 0 or str(enabled).strip().lower() in OFF):
        return False
    if project is not None and str(given.get("project")) != project:
        return False
    return layer is None or str(given.get("layer", "transform")).lower() == layer.lower()


def _made(model: StepModel, value: Any, params: Any) -> Step[..., Any, Any]:
    when: Any = model.when  # a name until the functions are known
    return Step(
        model.layer,
        model.name,
        model.type,
        model.engine if "engine" in model.model_fields_set else DEFAULT,
        value,
        params or {},
        model.inputs or {},
        model.outputs or {},  # type: ignore[arg-type]  # a step takes a list, too
        model.metadata or {},
        retry=_policy(model.retry),
        timeout=model.timeout,
        run_on=model.run_on,
        after=_listed(model.after),
        when=when,
        tags=_listed(model.tags),
        pool=model.pool,
        map_over=model.map_over,
        buffer=model.buffer,
        cache=_caching(model.cache),
    )


def _policy(retry: int | RetryModel | None) -> Retry | None:
    if not isinstance(retry, RetryModel):
        return None if retry is None else Retry(attempts=retry)
    fields = retry.model_dump(exclude_none=True)
    for name in fields.keys() & {"on", "never"}:
        fields[name] = tuple(ERRORS[error] for error in _listed(fields[name]))
    return Retry(**fields)


def _caching(cache: bool | CacheModel | None) -> bool | CachePolicy | None:
    if not isinstance(cache, CacheModel):
        return cache
    lists = {name: _listed(getattr(cache, name)) for name in ("ignore", "files", "env")}
    return CachePolicy(ttl=cache.ttl, version=cache.version, **lists)


def _listed(names: str | list[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
