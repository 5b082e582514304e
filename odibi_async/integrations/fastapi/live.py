"""The route of the live page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from odibi_async.integrations.fastapi.page import page
from odibi_async.integrations.fastapi.problems import ProblemRoute, listed

REFUSED: Final = (401, 403)
KEPT: Final = ("WWW-Authenticate", "Set-Cookie", "Retry-After")
"""Headers of a refusal that go along with the page."""


def add_page(router: APIRouter, refusals: tuple[int, ...]) -> None:
    """Adds the route of the page."""

    async def live_page(request: Request) -> Response:
        """The live page: pipelines, their runs, and a run as it goes."""
        return await _sent(200)

    html = {"description": "The page", "content": {"text/html": {"schema": {"type": "string"}}}}
    responses: Any = {200: html, **listed(*refusals)}
    router.add_api_route(
        "/",
        live_page,
        summary="The live page",
        responses=responses,
        response_class=Response,
        route_class_override=PageRoute,
    )


class PageRoute(ProblemRoute):
    """
    A route whose refusals are the page, where a browser asks for one.

    No link can send a token, so a browser first comes without one. What it is refused with is the page, which holds
    nothing of the service and asks for the token.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            response = await inner(request)
            if response.status_code in REFUSED and "text/html" in request.headers.get("accept", ""):
                return await _refused(response)
            return response

        return handler


async def _refused(refusal: Response) -> Response:
    response = await _sent(refusal.status_code)
    for name in KEPT:
        for value in refusal.headers.getlist(name):
            response.headers.append(name, value)
    return response


async def _sent(status: int) -> Response:
    shown = await run_in_threadpool(page)  # the first time, it reads files
    headers = {
        "Content-Security-Policy": shown.csp,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache" if status == 200 else "no-store",
    }
    return Response(shown.html, status, headers, "text/html")
