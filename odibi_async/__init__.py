"""odibi_async: an asyncio-native execution engine for data pipelines."""

from odibi_async.errors import OdibiError, RunError, StepError
from odibi_async.executors.local import check_cancelled
from odibi_async.pipeline import Pipeline, run_pipeline
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.retry import Retry
from odibi_async.steps import Step, step

__all__ = [
    "OdibiError",
    "Pipeline",
    "Retry",
    "RunError",
    "RunResult",
    "Status",
    "Step",
    "StepError",
    "StepResult",
    "check_cancelled",
    "run_pipeline",
    "step",
]
