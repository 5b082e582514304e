"""Pipelines that are written in Python and named on the command line: `flights.py:STEPS`, `package.module:pipeline`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from odibi_async.cli.answer import Problem, Refused, problems_of
from odibi_async.config import Document
from odibi_async.config.formats.source import Source
from odibi_async.errors import GraphError, did_you_mean, in_a_line
from odibi_async.pipeline import Pipeline
from odibi_async.steps import Step, as_step


def is_python(named: str) -> bool:
    """Whether a text names a pipeline in Python, not a file."""
    place, colon, attribute = named.rpartition(":")
    return bool(colon and place and attribute.isidentifier()) and not Path(named).exists()


def document_of(named: str) -> Document:
    """
    The steps that a module has under a name. Importing it runs its code.

    Raises:
        Refused: There is no such module or name, importing it fails, or what it has are no steps.
    """
    attribute, found = named.rpartition(":")[2], thing_of(named)
    if not isinstance(found, Pipeline | list | tuple):
        message = f"{named!r} is a {type(found).__name__}: a Pipeline or a list of steps is needed."
        raise Refused(Problem(code="OA411", message=message))
    try:
        steps = [each for thing in _listed(found) for each in _steps_of(thing)]
    except GraphError as error:
        raise Refused(*problems_of(error)) from error
    return Document(name=attribute, steps=tuple(steps), source=Source(named, []))


def thing_of(named: str) -> Any:
    """
    What a module has under a name. Importing it runs its code.

    Raises:
        Refused: There is no such module or name, or importing it fails.
    """
    place, _, attribute = named.rpartition(":")
    module = from_file(Path(place)) if place.endswith(".py") else imported(place)
    if not hasattr(module, attribute):
        known = [name for name, value in vars(module).items() if isinstance(value, Pipeline | list | tuple | dict)]
        message = f"{place!r} has no {attribute!r}.{did_you_mean(attribute, known)}"
        raise Refused(Problem(code="OA411", message=message))
    return getattr(module, attribute)


def _steps_of(thing: Any) -> Iterable[Step[..., Any, Any]]:
    return thing.steps if isinstance(thing, Pipeline) else (as_step(thing),)


def _listed(found: Pipeline | list[Any] | tuple[Any, ...]) -> Iterable[Any]:
    return [found] if isinstance(found, Pipeline) else found


def from_file(path: Path) -> Any:
    """The module that a file is."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem} of the command line"  # hides no other module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Refused(Problem(code="OA408", message=f"there is no file {str(path)!r}."))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _importing(str(path), str(path.parent.resolve())):
        spec.loader.exec_module(module)
    return module


def imported(name: str) -> Any:
    """The module of that name, also from the current directory."""
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        dotted = ".".join(Path(name.removesuffix(".py")).parts)
        hint = f" Give its name, not its path: {dotted}" if name.endswith(".py") else ""
        raise Refused(Problem(code="OA408", message=f"{name!r} is not the name of a module.{hint}"))
    with _importing(name, os.getcwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            near = did_you_mean(name, [path.stem for path in Path().glob("*.py")])
            raise Refused(Problem(code="OA408", message=f"there is no module {name!r}.{near}")) from error


@contextlib.contextmanager
def _importing(name: str, folder: str) -> Iterator[None]:
    """A block that imports a module, with its folder among those that are looked through."""
    sys.path.insert(0, folder)
    try:
        yield
    except Refused:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever the module does when it is imported
        message = f"module {name!r} cannot be imported: {in_a_line(error)}"
        raise Refused(Problem(code="OA118", message=message, error=error)) from error
    finally:
        sys.path.pop(0)
