"""odibi_async: an asyncio-native execution engine for data pipelines."""

from odibi_async.errors import OdibiError, RunError, StepError
from odibi_async.executors.local import check_cancelled
from odibi_async.limits import Limits
from odibi_async.pipeline import Pipeline, Run, Runner, run_pipeline, run_pipeline_sync
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.retry import Retry
from odibi_async.steps import Step, resource, step

__all__ = [
    "Limits",
    "OdibiError",
    "Pipeline",
    "Retry",
    "Run",
    "RunError",
    "RunResult",
    "Runner",
    "Status",
    "Step",
    "StepError",
    "StepResult",
    "check_cancelled",
    "resource",
    "run_pipeline",
    "run_pipeline_sync",
    "step",
]
