"""Names as paths have them: of runs, datasets, schedules and streams."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import Path
from pydantic import AfterValidator
from starlette.convertors import Convertor, register_url_convertor

DOTS: Final = (".", "..")
"""What clients take for directories, percent-encoded or not."""


def in_path(run_id: str) -> str:
    """
    The segment of a path that stands for a run.

    It is the name itself, percent-encoded. A run is named by whoever begins it, also in other processes: a name that
    servers, proxies or browsers would read as something else is `~` and its Base64 (that of URLs).
    """
    if run_id.startswith("~") or "/" in run_id or run_id in DOTS or not run_id.isprintable():
        return "~" + base64.urlsafe_b64encode(run_id.encode()).decode().rstrip("=")
    return quote(run_id, safe="")


def named_in(segment: str) -> str:
    """The name of the run that a decoded segment stands for."""
    text = segment.removeprefix("~")
    if text == segment:
        return segment
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return segment


class Name(Convertor[str]):
    """A parameter of a path that is any text: `{name:odibi_name}`. That of Starlette's `path` ends with its line."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("odibi_name", Name())

RunId = Annotated[str, Path(description="The name of the run."), AfterValidator(named_in)]
"""The parameter of a path that names a run."""
