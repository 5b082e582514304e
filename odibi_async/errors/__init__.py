"""
Everything that odibi_async raises on its own account.

    OdibiError
    |- OptionError (also a ValueError)     an argument has a value it cannot have
    |- ConfigError                         a configuration cannot be read, or says what cannot be
    |- GraphError                          the steps do not make a pipeline
    |  `- CycleError                       ... because they wait for each other
    |- StepError                           one step failed; its __cause__ says why
    |- MapOverError (also a TypeError)     a step is to map over something that is no list
    |- OutputError                         a step returned something that is not what it declares
    |  `- BatchesDiffer                     ... frames that are not alike, as the batches of one dataset
    |- BatchesGone                         batches are read that are not there any more
    |- RunError                            a run failed; names every failed step
    |  |- DeadlineError (also a TimeoutError)
    |  `- RunCancelled                     ... by `Run.cancel()`
    |- RunnerClosed                        a runner takes no more runs
    |- DatasetMissing (also a KeyError)    a dataset was asked for that the run did not make
    |- PathError                           a dataset cannot be read from, or written to, the place that was named
    |- SqlError                            a query that is refused, or that does not fit the frames it reads
    |- CrossingError                       a frame cannot go from one engine to another as it is
    |- EngineError                         an engine cannot be started, or is gone
    |- Unstorable                          a value would not come back from the disk as it is
    |- Damaged                             what was kept on the disk is missing, or no longer what was written
    |- CacheUnavailable                    the cache's index cannot be written now
    |- JournalError                        a run cannot be journaled or resumed
    |  |- JournalUnavailable               ... because the journal cannot be read or written
    |  |- RunUnknown                       ... because the journal has no run with this id
    |  |- RunExists                        ... because the journal has a run with this id
    |  `- RunAlive                         ... because the run is still running elsewhere
    |- TriggerError (also a ValueError)    a trigger says what cannot be
    |  |- CronError                         ... its cron expression
    |  `- ZoneUnknown                       ... its time zone
    |- ScheduleError                       a schedule cannot go on
    |  |- ScheduleUnknown                   ... because there is none of this name
    |  |- NotScheduled                      ... because its configuration does not say when
    |  |- TriggerFailed                     ... because its trigger raised, or gave what is no time to come
    |  |- ClockSetBack                      ... before the clock shows again what it showed
    |  |- RecordDamaged                     ... because what the journal has of it is not what was written
    |  `- FiringAbandoned                   ... because the processes that ran it died
    |- StreamError                         a stream cannot go on
    |  |- StreamAlive                      ... because a stream of its name is running elsewhere
    |  |- StreamOvertaken                  ... because another process has moved its position meanwhile
    |  |- SourceFailed                     ... because its source cannot be read
    |  |- BatchFailed                      ... because a batch failed, and it is to stop then
    |  |- PositionDamaged                  ... because what the journal says of it cannot be read
    |  `- BatchUnknown                     a batch that was set aside cannot be replayed
    |- OutsideStep                         `current_step()` was called outside a step
    |- WorkerLost                          the process or the cluster's worker that called a step is gone
    |  `- DataLost                         ... and with it a dataset that it had
    |- ClusterError                        a cluster cannot be used
    |- NotPortable (also a TypeError)      a function, an argument or a result cannot go to another process
    `- ExtraMissing (also an ImportError)  a library is not installed that only some pipelines need

Each class words its message from its arguments, keeps them as attributes, and pickles. Each kind of fault has a code
that stays as it is; `odibi-async explain OA102` tells what is behind it (`odibi_async.cli.codes`).
"""

from odibi_async.errors.base import ExtraMissing, OdibiError, OptionError, OutsideStep
from odibi_async.errors.data import (
    CacheUnavailable,
    CrossingError,
    Damaged,
    EngineError,
    PathError,
    SqlError,
    Unstorable,
)
from odibi_async.errors.elsewhere import ClusterError, DataLost, NotPortable, RemoteTraceback, WorkerLost
from odibi_async.errors.foreign import (
    MOST_LEAVES,
    ErrorStandIn,
    in_a_line,
    keep_text,
    leaves,
    portable,
    raised_at,
    text_of,
)
from odibi_async.errors.journal import JournalError, JournalUnavailable, RunAlive, RunExists, RunUnknown
from odibi_async.errors.pipelines import ConfigError, CycleError, Fault, GraphError, GraphFault
from odibi_async.errors.runs import (
    BatchesDiffer,
    BatchesGone,
    DatasetMissing,
    DeadlineError,
    MapOverError,
    Outcome,
    OutputError,
    RunCancelled,
    RunError,
    RunnerClosed,
    StepError,
    StepOutcome,
)
from odibi_async.errors.schedules import (
    ClockSetBack,
    CronError,
    FiringAbandoned,
    NotScheduled,
    RecordDamaged,
    ScheduleError,
    ScheduleUnknown,
    TriggerError,
    TriggerFailed,
    ZoneUnknown,
)
from odibi_async.errors.streams import (
    BatchFailed,
    BatchUnknown,
    PositionDamaged,
    SourceFailed,
    StreamAlive,
    StreamError,
    StreamOvertaken,
)
from odibi_async.errors.wording import did_you_mean, listed, located, one_line, shortened, with_article

__all__ = [
    "MOST_LEAVES",
    "BatchFailed",
    "BatchUnknown",
    "BatchesDiffer",
    "BatchesGone",
    "CacheUnavailable",
    "ClockSetBack",
    "ClusterError",
    "ConfigError",
    "CronError",
    "CrossingError",
    "CycleError",
    "Damaged",
    "DataLost",
    "DatasetMissing",
    "DeadlineError",
    "EngineError",
    "ErrorStandIn",
    "ExtraMissing",
    "Fault",
    "FiringAbandoned",
    "GraphError",
    "GraphFault",
    "JournalError",
    "JournalUnavailable",
    "MapOverError",
    "NotPortable",
    "NotScheduled",
    "OdibiError",
    "OptionError",
    "Outcome",
    "OutputError",
    "OutsideStep",
    "PathError",
    "PositionDamaged",
    "RecordDamaged",
    "RemoteTraceback",
    "RunAlive",
    "RunCancelled",
    "RunError",
    "RunExists",
    "RunUnknown",
    "RunnerClosed",
    "ScheduleError",
    "ScheduleUnknown",
    "SourceFailed",
    "SqlError",
    "StepError",
    "StepOutcome",
    "StreamAlive",
    "StreamError",
    "StreamOvertaken",
    "TriggerError",
    "TriggerFailed",
    "Unstorable",
    "WorkerLost",
    "ZoneUnknown",
    "did_you_mean",
    "in_a_line",
    "keep_text",
    "leaves",
    "listed",
    "located",
    "one_line",
    "portable",
    "raised_at",
    "shortened",
    "text_of",
    "with_article",
]
