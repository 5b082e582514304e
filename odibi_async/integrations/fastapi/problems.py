"""What a service answers when it cannot do what it is asked: problem documents (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NoReturn, Protocol

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.errors import JournalUnavailable, OdibiError, OptionError, RunnerClosed

MEDIA: Final = "application/problem+json"
SHOWN: Final = 50
"""Faults of a request that are listed."""


class ServiceError(OptionError):
    """A pipeline cannot be served as it is asked for."""

    code = "OA331"


class ServiceProblem(OdibiError):
    """
    Why a service did not do what it was asked.

    Attributes:
        status: The HTTP status.
        code: What kind of fault it is.
        detail: What is wrong, and what would be right.
        errors: For each member of the request that is wrong, its `field` and a `message`.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, detail, errors, headers)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def __str__(self) -> str:
        return " ".join((self.detail, *(f"{each['field']}: {each['message']}" for each in self.errors)))


class Answered(Protocol):
    """A response as clients have it: of `httpx`, `requests` or FastAPI's `TestClient`."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    def json(self) -> Any: ...
    def raise_for_status(self) -> Any: ...


def raise_for_problem(response: Answered) -> None:
    """
    For clients: raises what a response says went wrong, if something did.

    Raises:
        ServiceProblem: The response is a problem document.
    """
    if response.status_code < 400:
        return
    if not str(response.headers.get("content-type", "")).startswith(MEDIA):
        response.raise_for_status()
    said = response.json()
    raise ServiceProblem(said["status"], said.get("code", ""), said.get("detail", ""), said.get("errors", ()))


def document(problem: ServiceProblem) -> Response:
    """A problem as a response."""
    said: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(problem.status),
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.code:
        said["code"] = problem.code
    if problem.errors:
        said["errors"] = list(problem.errors)
    return Response(
        json.dumps(said).encode(),
        status_code=problem.status,
        media_type=MEDIA,
        headers={**(problem.headers or {}), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # of somebody's own
        return f"Status {status}"


async def as_problem(request: Request, error: Exception) -> Response:
    """
    An exception handler for the paths of your app that no route of this package answers.

        app.add_exception_handler(starlette.exceptions.HTTPException, as_problem)
    """
    return document(_problem_of(error))


def _problem_of(error: Exception) -> ServiceProblem:
    match error:
        case ServiceProblem():
            return error
        case RequestValidationError():
            return invalid("The request is not what this path takes.", error.errors(), 1)
        case HTTPException():
            detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
            return ServiceProblem(error.status_code, "", detail, headers=error.headers)
        case RunnerClosed():
            return ServiceProblem(503, "OA333", "The service is being stopped.", headers={"Retry-After": "5"})
        case JournalUnavailable():
            return ServiceProblem(503, error.code, "The journal cannot be used now.", headers={"Retry-After": "5"})
    raise error


def invalid(detail: str, errors: Sequence[Mapping[str, Any]], skip: int = 0) -> ServiceProblem:
    """A request that is not what is to be; its faults as pydantic lists them, without what was sent."""
    listed = [{"field": _place(each["loc"], skip), "message": str(each["msg"])} for each in errors[:SHOWN]]
    return ServiceProblem(422, "OA332", detail, listed)


def _place(places: Sequence[Any], skip: int) -> str:
    return ".".join(str(each)[:200] for each in places[skip:] or places)


class ProblemRoute(APIRoute):
    """A route whose errors are problem documents, also those of the dependencies that let a caller in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except (ServiceProblem, RequestValidationError, HTTPException, RunnerClosed, JournalUnavailable) as error:
                return document(_problem_of(error))

        return handler


def unknown(what: str) -> NoReturn:
    """
    Raises:
        ServiceProblem: There is no such thing.
    """
    raise ServiceProblem(404, "OA421", what)


def listed(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for OpenAPI."""
    from odibi_async.integrations.fastapi.documents import ProblemDocument

    schema = ProblemDocument.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA: {"schema": schema}}}
        for status in statuses
    }
