"""Datasets as answers have them: in JSON, or in pieces of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from pydantic_core import PydanticSerializationError, to_jsonable_python

from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.sizes import bytes_of
from odibi_async.integrations.fastapi.tables import plain, rows_of, table_of

T = TypeVar("T")
THREADS: Final = 4
"""Datasets that are made into bytes at a time."""
SMALL: Final = (bool, int, float, str, type(None))
SHORT: Final = 10_000
"""Bytes of a value that is made into JSON on the loop itself."""
LARGE: Final = 1_000_000
"""Bytes of a value that is left out of an answer."""


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
            if type(value) in SMALL and bytes_of(value) < SHORT:
                made[name] = value
                continue
            is_short = isinstance(value, list | dict | tuple) and bytes_of(value) < SHORT
            found, reason = self._inline(value) if is_short else await self.ask(self._inline, value)
            if reason:
                omitted[name] = {"reason": reason, "href": place + quote(name, safe="")}
            else:
                made[name] = found
        return made, omitted

    def _inline(self, value: Any) -> tuple[Any, str]:
        """A value as JSON has it, or why it is left out."""
        if bytes_of(value) > LARGE:
            return None, "It is large."
        table = table_of(value)
        if table is not None:
            if table.num_rows > self._limits.inline_rows:
                return None, f"It has {table.num_rows} rows."
            return rows_of(table), ""
        try:
            return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", fallback=plain), ""
        except (PydanticSerializationError, TypeError, ValueError, RecursionError):
            return None, f"A {type(value).__name__} cannot be JSON."
