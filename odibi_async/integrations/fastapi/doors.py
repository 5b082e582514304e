"""What is looked at before a request is let in: where it comes from, what kind of body it has, how long that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from odibi_async.integrations.fastapi.problems import ServiceProblem


async def body_of(request: Request, most: int, origins: Collection[str]) -> bytes:
    """
    The body of a request that is to change something. No more of it is read than a service takes.

    Raises:
        ServiceProblem: It comes from a page of somebody else, is no JSON, or is too long.
    """
    check_origin(request, origins)
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > 2 * most:  # what is a little too long is read to its end: else its sender could not hear of it
                break
            pieces.append(piece if size <= most else b"")
    except ClientDisconnect:
        raise ServiceProblem(400, "OA335", "The request was cut off.") from None  # nobody is there to read it
    if size > most:
        headers = {"Connection": "close"} if size > 2 * most else None
        raise ServiceProblem(413, "OA335", f"A request may have {most} bytes.", headers=headers)
    if size:
        _check_type(request)
    return b"".join(pieces)


def _check_type(request: Request) -> None:
    """A form of another page can send three types without being asked; JSON is none of them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ServiceProblem(
            415, "OA335", "Content-Type: application/json is needed.", headers={"Accept": "application/json"}
        )


def check_origin(request: Request, origins: Collection[str]) -> None:
    """
    Refuses what a page of another site makes a browser send. Clients that are no browsers name no origin.

    Raises:
        ServiceProblem: It comes from such a page.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin in origins:
        return
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    if site is None and (origin is None or urlsplit_host(origin) == request.headers.get("host", "").lower()):
        return
    raise ServiceProblem(403, "OA335", "The request comes from a page of another site; see origins=.")


def urlsplit_host(origin: str) -> str:
    """The host of an origin, with its port; of an origin that is none, a text that is no host."""
    try:
        parts = urlsplit(origin.lower())
        usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    except ValueError:
        return " "
    return parts.netloc.removesuffix(usual) or " "


@contextlib.asynccontextmanager
async def watching(receive: Receive, on_gone: Callable[[], None]) -> AsyncIterator[None]:
    """
    Calls a function when the client is gone, in a block after the body was read.

    It awaits the message of ASGI. `Request.is_disconnected` only looks whether that is there already, which behind a
    `BaseHTTPMiddleware` it never is.
    """
    listening = asyncio.create_task(_listen(receive, on_gone))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(receive: Receive, on_gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_gone()
