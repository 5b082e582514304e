"""Runs that can be resumed: what each step made is recorded the moment it is made."""

from odibi_async.journal.journal import Journal
from odibi_async.journal.records import RunRecord, StepRecord

__all__ = ["Journal", "RunRecord", "StepRecord"]
