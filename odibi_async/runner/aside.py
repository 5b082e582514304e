"""What takes long, done beside the loop and beside the threads of the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def in_a_thread(call: Callable[..., T], *args: Any) -> T:
    """Calls what takes long, or imports a lot, beside the steps' own threads."""
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1))
