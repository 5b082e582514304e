"""
What is behind the code of each kind of fault: `odibi-async explain OA102`.

OA1xx are of configurations, OA2xx of what the steps make together, OA3xx of running them, OA4xx of things that are not
there, OA5xx of how something was called. A code keeps its meaning for ever; one that is given up is not used again.
"""

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code
from odibi_async.cli.codes.configurations import CONFIGURATIONS
from odibi_async.cli.codes.graphs import GRAPHS
from odibi_async.cli.codes.missing import MISSING
from odibi_async.cli.codes.running import RUNNING
from odibi_async.cli.codes.schedules import SCHEDULES
from odibi_async.cli.codes.service import SERVICE
from odibi_async.cli.codes.sources import SOURCES
from odibi_async.cli.codes.streams import STREAMS
from odibi_async.cli.codes.usage import USAGE

__all__ = ["CODES", "Code"]

CODES: Final[Mapping[str, Code]] = dict(
    sorted(
        {
            **CONFIGURATIONS,
            **GRAPHS,
            **RUNNING,
            **SCHEDULES,
            **SERVICE,
            **SOURCES,
            **STREAMS,
            **MISSING,
            **USAGE,
        }.items()
    )
)
