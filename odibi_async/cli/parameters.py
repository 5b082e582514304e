"""What commands take: flags that several of them share, and what these come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from odibi_async.cli.answer import Problem, Refused

if TYPE_CHECKING:
    from odibi_async.cli.plan import Plan


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """
    What all commands take.

    Attributes:
        json: Print exactly one JSON object on stdout, whatever happens.
        quiet: Print nothing but results and errors.
        verbose: Print more, and nothing shortened.
    """

    json: bool = False
    quiet: Annotated[bool, Parameter(alias="-q")] = False
    verbose: Annotated[bool, Parameter(alias="-v")] = False


Engine = Literal["pandas", "spark"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """
    What a pipeline is made of beside its file.

    Attributes:
        param: NAME=VALUE gives a dataset that the pipeline reads and no step makes, or that stands in for what a step
            makes. The value is JSON where it is JSON, else text. May be repeated.
        functions: A module whose public functions the configuration may name; it is imported. May be repeated.
        project: Only the steps of this project.
    """

    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = ()
    functions: tuple[str, ...] = ()
    project: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    Which steps.

    Attributes:
        select: A step (* for any letters), layer:x or tag:x; + before it takes what it needs, + behind it
            what needs it. May be repeated.
        exclude: The same, for what is left out. May be repeated.
    """

    select: Annotated[tuple[str, ...], Parameter(alias="-s")] = ()
    exclude: tuple[str, ...] = ()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """
    Which cache.

    Attributes:
        cache: Its directory; the user's own without it.
    """

    cache: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class InJournal:
    """
    Which journal.

    Attributes:
        journal: Its directory or postgresql:// URL; that of ODIBI_ASYNC_JOURNAL without it.
    """

    journal: str | None = None


def planned_from(
    config: str | None,
    given: Given,
    choice: Choice = Choice(),
    *,
    closely: bool = False,
    engine: str | None = None,
    recalled: Mapping[str, Any] | None = None,
) -> Plan:
    from odibi_async.cli.lookup import configuration
    from odibi_async.cli.plan import planned

    return planned(
        configuration(config),
        project=given.project,
        modules=given.functions,
        given=given.param,
        select=choice.select,
        exclude=choice.exclude,
        closely=closely,
        engine=engine,
        recalled=recalled or {},
    )


def slots_of(pool: str, text: str) -> int:
    """
    Raises:
        Refused: The text is no whole number.
    """
    if not text.isdecimal():
        raise Refused(Problem(code="OA505", message=f"--pool {pool}={text}: a whole number of slots is needed."))
    return int(text)
