"""The pytest plugin; pytest finds it through its entry point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def odibi_run() -> Callable[..., Any]:
    """
    Runs steps to their end, without any wait between retries: `odibi_run(steps, inputs, **options)`.

    It takes what `run_pipeline` takes. It gives an object with `.result` and `.events`; in an async test,
    `await` it.
    """
    from odibi_async.testing import rehearse  # here, so that pytest loads it only for those who ask

    def run(*args: Any, **options: Any) -> Any:
        rehearsal = rehearse(*args, **options)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(rehearsal)
        return rehearsal

    return run
