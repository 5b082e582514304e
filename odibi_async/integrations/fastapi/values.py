"""Datasets as answers have them: in JSON, or in pieces of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from pydantic_core import from_json

from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.problems import ServiceProblem
from odibi_async.integrations.fastapi.sizes import bytes_of
from odibi_async.integrations.fastapi.tables import json_of_table, json_of_value, table_of

T = TypeVar("T")
THREADS: Final = 4
"""Datasets that are made into bytes at a time."""
SMALL: Final = (bool, int, float, str, type(None))
SHORTEST: Final = (*SMALL, list, dict, tuple)
SHORT: Final = 10_000
"""Bytes of a value that is made into JSON on the loop itself."""
LARGE: Final = 1_000_000
"""Bytes of a value that is left out of an answer."""
LARGEST: Final = "It is large."


class Values:
    """
    Makes datasets into JSON, in threads of its own.

    Args:
        limits: How much of them.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self._limiter = anyio.CapacityLimiter(THREADS)

    async def ask(self, call: Callable[..., T], *args: Any) -> T:
        """What a call that takes long returns."""
        return await anyio.to_thread.run_sync(call, *args, limiter=self._limiter)

    async def inline(self, outputs: Mapping[str, Any], place: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Datasets as an answer contains them, and where those are that it does not.

        Args:
            outputs: The datasets.
            place: Where they can be had.
        """
        made: dict[str, Any] = {}
        omitted: dict[str, Any] = {}
        for name, value in outputs.items():
            is_short = isinstance(value, SHORTEST) and bytes_of(value) < SHORT
            if is_short and type(value) in SMALL and (not isinstance(value, str) or value.isascii()):
                made[name] = value
                continue
            found, reason = self._inline(value) if is_short else await self.ask(self._inline, value)
            if reason:
                omitted[name] = {"reason": reason, "href": place + quote(name, safe="")}
            else:
                made[name] = found
        return made, omitted

    def _inline(self, value: Any) -> tuple[Any, str]:
        """A value as JSON has it, or why it is left out."""
        if bytes_of(value) > LARGE:
            return None, LARGEST
        try:
            table = table_of(value)
            if table is not None and table.num_rows > self._limits.inline_rows:
                return None, f"It has {table.num_rows} rows."
            text = b"".join(json_of_value(value) if table is None else json_of_table(table))
            return (None, LARGEST) if len(text) > LARGE else (from_json(text), "")
        except ServiceProblem as problem:
            return None, problem.detail
        except Exception:  # Python cannot say all that a table can, and raises what it likes
            return None, f"A {type(value).__name__} cannot be JSON."
