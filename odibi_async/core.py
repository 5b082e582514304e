"""The door of ODIBI CORE: `from odibi_async.core import ConfigLoader, Orchestrator, Tracker, ...`."""

from odibi_async.cache import Cache as CacheManager
from odibi_async.config import ConfigLoader
from odibi_async.engines import create_engine_context
from odibi_async.engines.views import NodeContext
from odibi_async.observers.emitter import EventEmitter
from odibi_async.observers.tracker import Tracker
from odibi_async.orchestrator import Orchestrator
from odibi_async.pipeline import Pipeline as DAGBuilder
from odibi_async.steps import Step

__all__ = [
    "CacheManager",
    "ConfigLoader",
    "DAGBuilder",
    "EventEmitter",
    "NodeContext",
    "Orchestrator",
    "Step",
    "Tracker",
    "create_engine_context",
]
