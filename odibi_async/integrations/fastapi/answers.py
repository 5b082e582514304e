"""Answers of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python
from starlette.requests import Request
from starlette.responses import Response


def answered(said: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as a response that nothing between keeps."""
    return Response(
        json_of(said),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )


def json_of(said: Any) -> bytes:
    """A document as JSON, also where a name or an error has half of a surrogate pair, which UTF-8 has no bytes for."""
    try:
        return to_json(said, inf_nan_mode="null", fallback=repr)
    except PydanticSerializationError:
        return json.dumps(said, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    return to_jsonable_python(value, fallback=repr)


def base_of(request: Request, end: str) -> str:
    """The path of the router: that of a request without what is the route's own."""
    path: str = request.scope["path"]
    above = request.scope.get("root_path", "").rstrip("/")
    if not f"{path}/".startswith(f"{above}/"):  # a proxy has cut it off
        path = above + path
    base = path[: -len(end)] if path.endswith(end) else path.rpartition("/runs/")[0]
    return quote(base, safe="/~")
