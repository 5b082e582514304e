"""What outlives one run."""

from odibi_async.runner.background import Run
from odibi_async.runner.options import Caching, RunOptions, Steps
from odibi_async.runner.runner import Runner, runner_of_loop

__all__ = ["Caching", "Run", "RunOptions", "Runner", "Steps", "runner_of_loop"]
