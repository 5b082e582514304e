"""What Spark's errors mean to a step: it was cancelled, the session is gone, or the query does not fit."""

from __future__ import annotations

from typing import Final

CANCELLED: Final = (
    "SPARK_JOB_CANCELLED",
    "OPERATION_CANCELED",
    "OPERATION_ABANDONED",
    "cancelled part of cancelled job",
)
GONE: Final = (
    "Answer from Java side is empty",
    "Error while sending or receiving",
    "An error occurred while trying to connect to the Java server",
    "Cannot call methods on a stopped SparkContext",
    "SparkContext was shut down",
    "SparkContext has been shutdown",
    "INVALID_HANDLE.SESSION",
    "StatusCode.UNAVAILABLE",
    "UNAVAILABLE",
    "NO_ACTIVE_SESSION",
)


def is_cancellation(error: BaseException) -> bool:
    """Whether a job ended because it was cancelled."""
    return any(mark in str(error) for mark in CANCELLED)


def is_gone(error: BaseException) -> bool:
    """Whether the session, or the process that it runs in, is not there any more."""
    module = type(error).__module__
    if module.startswith("py4j") and type(error).__name__ == "Py4JNetworkError":
        return True
    if isinstance(error, ConnectionError):
        return any(entry.startswith("py4j") for entry in _modules_of(error))
    return module.startswith(("py4j", "pyspark", "grpc")) and any(mark in str(error) for mark in GONE)


def _modules_of(error: BaseException) -> list[str]:
    """The modules that an error came through."""
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return found


def first_lines(error: BaseException) -> str:
    """What an error says without the query, the plan and the Java stack that Spark puts behind it."""
    text = str(error)
    for mark in ("\n\n== SQL ==", ";\n'", "\n\nJVM stacktrace", "\n\tat ", "\nDriver stacktrace"):
        text = text.partition(mark)[0]
    return " ".join(text.split())
