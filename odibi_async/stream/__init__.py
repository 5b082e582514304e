"""Pipelines that run again and again: once for each batch of a source, never twice for the same."""

from odibi_async.stream.batches import BatchResult
from odibi_async.stream.face import run_stream
from odibi_async.stream.files import Files
from odibi_async.stream.ledger import SetAside
from odibi_async.stream.options import stream_source
from odibi_async.stream.polling import Polled, Polling
from odibi_async.stream.queue import Queue, QueueClosed
from odibi_async.stream.rows import Rows
from odibi_async.stream.source import Batch, Late, Memory, Source
from odibi_async.stream.stream import Progress, Stream, StreamStatus

__all__ = [
    "Batch",
    "BatchResult",
    "Files",
    "Late",
    "Memory",
    "Polled",
    "Polling",
    "Progress",
    "Queue",
    "QueueClosed",
    "Rows",
    "SetAside",
    "Source",
    "Stream",
    "StreamStatus",
    "run_stream",
    "stream_source",
]
