"""odibi_async: an asyncio-native execution engine for data pipelines."""

from typing import TYPE_CHECKING, Any

from odibi_async.cache_policy import CachePolicy
from odibi_async.cancellation import check_cancelled
from odibi_async.current import current_step
from odibi_async.engines import create_engine_context
from odibi_async.errors import OdibiError, RunError, StepError
from odibi_async.limits import Limits
from odibi_async.pipeline import Pipeline, run_pipeline, run_pipeline_sync
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.retry import Retry
from odibi_async.runner import Run, Runner
from odibi_async.secret import Secret
from odibi_async.steps import Step, resource, step

if TYPE_CHECKING:
    from odibi_async.cache import Cache
    from odibi_async.config import ConfigLoader, load_steps
    from odibi_async.engines.views import NodeContext
    from odibi_async.journal import Journal
    from odibi_async.observers.emitter import EventEmitter
    from odibi_async.observers.tracker import Tracker
    from odibi_async.orchestrator import Orchestrator
    from odibi_async.stream import run_stream

__all__ = [
    "Cache",
    "CachePolicy",
    "ConfigLoader",
    "EventEmitter",
    "Journal",
    "Limits",
    "NodeContext",
    "OdibiError",
    "Orchestrator",
    "Pipeline",
    "Retry",
    "Run",
    "RunError",
    "RunResult",
    "Runner",
    "Secret",
    "Status",
    "Step",
    "StepError",
    "StepResult",
    "Tracker",
    "__version__",
    "check_cancelled",
    "create_engine_context",
    "current_step",
    "load_steps",
    "resource",
    "run_pipeline",
    "run_pipeline_sync",
    "run_stream",
    "step",
]

_LATER = {
    "Cache": "cache",
    "ConfigLoader": "config",
    "EventEmitter": "observers.emitter",
    "Journal": "journal",
    "NodeContext": "engines.views",
    "Orchestrator": "orchestrator",
    "Tracker": "observers.tracker",
    "load_steps": "config",
    "run_stream": "stream",
}
"""Names -> modules that load what not everybody needs."""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("odibi_async")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
