"""Answers of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response


def answered(said: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as a response that nothing between keeps."""
    return Response(
        to_json(said, inf_nan_mode="null", fallback=repr),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )


def base_of(request: Request, end: str) -> str:
    """The path of the router: that of a request without what is the route's own."""
    path: str = request.scope["path"]
    base = path[: -len(end)] if path.endswith(end) else path.rpartition("/runs/")[0]
    return quote(base, safe="/~")
