"""
Pipelines as a service inside your own FastAPI app.

    runner = Runner(journal="journal")
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, {"flights": flights}, auth=require_user), prefix="/pipelines")
"""

from odibi_async.errors import ExtraMissing

try:
    import fastapi as _fastapi  # noqa: F401
except ImportError as error:
    raise ExtraMissing("A service", "fastapi") from error

from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.problems import ServiceError, ServiceProblem, as_problem, raise_for_problem
from odibi_async.integrations.fastapi.router import pipeline_router
from odibi_async.integrations.fastapi.served import Served

__all__ = [
    "Served",
    "ServiceError",
    "ServiceLimits",
    "ServiceProblem",
    "as_problem",
    "pipeline_router",
    "raise_for_problem",
]
