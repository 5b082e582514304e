"""What a command works on: the configuration, the steps that are chosen, and what they are given."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odibi_async.cli.answer import Problem, Refused, problems_of
from odibi_async.cli.python import document_of, imported, is_python
from odibi_async.config import Document, examine, looked_at_closely
from odibi_async.errors import ConfigError, Fault, GraphError
from odibi_async.graph.node import NOTHING
from odibi_async.pipeline import Pipeline
from odibi_async.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What a command works on.

    Attributes:
        document: The configuration.
        whole: Its pipeline.
        pipeline: The part of it that is chosen.
        given: Dataset -> value, for those that this part reads.
    """

    document: Document
    whole: Pipeline
    pipeline: Pipeline
    given: Mapping[str, Any]


def planned(
    path: Path,
    *,
    project: str | None,
    modules: Iterable[str],
    given: Sequence[str],
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    closely: bool = False,
    engine: str | None = None,
    recalled: Mapping[str, Any] = NOTHING,
) -> Plan:
    """
    Reads and checks everything, and chooses; `closely` says whether queries are parsed, too, those for pandas, and
    `recalled` what a run was given that is resumed.

    Raises:
        Refused: With all that is wrong, whatever its kind.
    """
    values = {**recalled, **{name: _value(text) for name, text in assigned("-p", given).items()}}
    functions = _functions_of(modules)
    document, faults = _document_of(path, project)
    problems = problems_of(ConfigError(faults)) if faults else []
    try:
        if document.steps or not faults:
            known = [*values, *(document.faulty - values.keys())]
            whole = _pipeline(document, known, functions, path.name)
            whole.source = "" if is_python(str(path)) else os.path.abspath(path)
    except GraphError as error:
        problems += [each for each in problems_of(error, document) if not _is_known(each, document, problems)]
    if closely:
        found = list(looked_at_closely(document.steps, engine))
        problems += problems_of(GraphError(found), document) if found else []
    if problems:
        raise Refused(*problems)
    try:
        pipeline = whole.select(*select, exclude=exclude) if select or exclude else whole
    except GraphError as error:
        raise Refused(*problems_of(error, document)) from error
    taken = {dataset for step in pipeline.steps for dataset in step.datasets} | pipeline.inputs.keys()
    return Plan(
        document=document,
        whole=whole,
        pipeline=pipeline,
        given={name: value for name, value in values.items() if name in taken},
    )


def _pipeline(
    document: Document, known: Sequence[str], functions: Mapping[str, Callable[..., Any]], name: str
) -> Pipeline:
    """The pipeline of a configuration; one that has a schedule may read what a firing gives."""
    if document.schedule is None:
        return Pipeline(document.steps, known, functions=functions, name=name)
    from odibi_async.schedule.schedule import with_given

    return with_given(document.steps, known, functions, name=name)


def _is_known(problem: Problem, document: Document, problems: Sequence[Problem]) -> bool:
    """Whether a fault of the graph is reported already, or is due to an entry that was left out."""
    if problem.code == "OA203":
        return any(each.code == problem.code for each in problems)
    return any(problem.message.startswith(f"Input {name!r} is given") for name in document.faulty)


def _document_of(path: Path, project: str | None) -> tuple[Document, list[Fault]]:
    """What is sound of a configuration, and the faults of the rest; or a pipeline in Python."""
    if is_python(str(path)):
        return document_of(str(path)), []
    try:
        return examine(path, project=project)
    except ConfigError as error:
        raise Refused(*problems_of(error)) from error


def check_given(plan: Plan) -> None:
    """
    Raises:
        Refused: A chosen step reads what is neither given nor made by another one that is chosen.
    """
    makers = {dataset: step.name for step in plan.whole.steps for dataset in step.datasets}
    problems = [
        _missing(name, entry.readers[0], makers.get(name))
        for name, entry in plan.pipeline.inputs.items()
        if entry.required and name not in plan.given
    ]
    if problems:
        raise Refused(*problems)


def _missing(name: str, reader: str, maker: str | None) -> Problem:
    if maker is None:
        message = f"step {reader!r} reads {name!r}, which a schedule gives: by hand, give it with -p {name}=VALUE."
        return Problem(code="OA503", message=message, step=reader)
    message = (
        f"step {reader!r} reads {name!r}, which step {maker!r} makes, and that is not selected. "
        f"Select it too, with -s '+{reader}', or give it with -p {name}=VALUE."
    )
    return Problem(code="OA504", message=message, step=reader)


def assigned(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """
    What stands on the two sides of each `NAME=VALUE`; the last one of a name counts.

    Raises:
        Refused: There is no `=`, or nothing before it.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Refused(Problem(code="OA505", message=f"{option} {pair!r}: NAME=VALUE is needed."))
        found[name] = value
    return found


def _value(text: str) -> Any:
    """A text as JSON where it is JSON, else as it is."""

    def refused(text: str) -> None:
        raise ValueError(text)

    try:
        return json.loads(text, parse_constant=refused)
    except (ValueError, RecursionError):
        return text


def _functions_of(modules: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """The public functions of some modules, by name."""
    functions: dict[str, Callable[..., Any]] = {}
    homes: dict[str, str] = {}
    for module in modules:
        for name, function in _public(imported(module)).items():
            if name in functions and functions[name] is not function:
                message = f"there is a function {name!r} in {homes[name]!r} and in {module!r}: rename one of them."
                raise Refused(Problem(code="OA506", message=message))
            functions[name], homes[name] = function, module
    return functions


def _public(module: Any) -> dict[str, Callable[..., Any]]:
    """What `__all__` names, else the functions that are defined there and begin with no underscore."""
    there = {name: each.value if isinstance(each, Step) else each for name, each in vars(module).items()}
    chosen = getattr(module, "__all__", None)
    return {
        name: each
        for name, each in there.items()
        if inspect.isfunction(each)
        and (name in chosen if chosen is not None else name[0] != "_" and each.__module__ == module.__name__)
    }
