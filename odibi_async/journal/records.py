"""What a journal knows of a run and of its steps, and how it is written down."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from blake3 import blake3

from odibi_async.errors import Damaged
from odibi_async.result import Status
from odibi_async.store.kept import Kept

FORMAT: Final = "odibi_async journal 1"
"""The form of all that is written here; another one whenever that changes."""
HOST: Final = socket.gethostname()
DONE: Final = (Status.SUCCEEDED, Status.CACHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenInput:
    """
    A dataset that a run was given.

    Attributes:
        digest: Of its content; `None` where it has none, such as a client of a service.
        kept: Where it is; `None` where it cannot be kept.
    """

    digest: str | None
    kept: Kept | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """
    What a journal knows of a run.

    Attributes:
        run_id: Its name.
        pipeline: The name of its pipeline.
        source: The configuration file that it was read from; empty where there is none.
        digest: Of the names of its steps and datasets.
        status: `running`, or how it ended; `interrupted` when it is running no more and has not ended.
        started_at: When it began first, in seconds since the epoch.
        ended_at: When it ended last; `None` before that.
        resumed: How often it was resumed.
        steps: How many steps it has to run.
        host: Where it ran last.
        pid: The number of the process there.
        store: The directory that holds what its steps made, from that of the journal.
        error: What went wrong, in a line; empty where nothing did.
        inputs: What it was given, by name.
        targets: The datasets that it was asked for; `None` for all.
    """

    run_id: str
    pipeline: str
    source: str = ""
    digest: str = ""
    status: Status = Status.RUNNING
    started_at: float
    ended_at: float | None = None
    resumed: int = 0
    steps: int = 0
    host: str = HOST
    pid: int = field(default_factory=os.getpid)
    store: str = ""
    error: str = ""
    inputs: Mapping[str, GivenInput] = field(default_factory=dict)
    targets: tuple[str, ...] | None = None

    @property
    def began(self) -> datetime:
        """When it began first (UTC)."""
        return datetime.fromtimestamp(self.started_at, timezone.utc)

    @property
    def seconds(self) -> float | None:
        """From its first beginning to its last end; `None` before that."""
        return None if self.ended_at is None else self.ended_at - self.started_at

    def to_text(self) -> str:
        """For the journal; `run_of` reads it."""
        members = {name: getattr(self, name) for name in self.__slots__}
        members["inputs"] = {
            name: [given.digest, None if given.kept is None else given.kept.to_json()]
            for name, given in self.inputs.items()
        }
        return sealed(self.run_id, json.dumps(members))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """
    What a journal knows of a step, or of one element of a mapped step.

    Attributes:
        step: Its name.
        element: Which element it is, counted from 0; `None` for a step as a whole.
        status: How it ended.
        attempts: How often it was called.
        started_at: When its first attempt began, in seconds since the epoch; `None` if none did.
        seconds: How long it took.
        key: The digest of all that its result depends on; `None` where something has no content to identify it by.
        state: Parts of its code that it changes itself, so that they are no part of the key: a list that it appends to.
        kept: Where each of its datasets is; `None` where they are not kept.
        rows: Rows of the frame that it made; `None` if it made something else.
        note: Why it runs again when the run is resumed; empty where it does not.
        error: What it raised, in a line; empty where it raised nothing.
        host: Where it ran.
        pid: The number of the process there.
    """

    step: str
    element: int | None = None
    status: Status
    attempts: int = 0
    started_at: float | None = None
    seconds: float = 0.0
    key: str | None = None
    state: tuple[str, ...] = ()
    kept: tuple[Kept, ...] | None = None
    rows: int | None = None
    note: str = ""
    error: str = ""
    host: str = HOST
    pid: int = field(default_factory=os.getpid)

    @property
    def row_count(self) -> int | None:
        """Rows of the one frame that it made; `None` if it made something else."""
        kept = self.kept or ()
        return self.rows if self.rows is not None or len(kept) != 1 else kept[0].rows

    @property
    def is_committed(self) -> bool:
        """Whether a resumed run may take what it made."""
        return self.status in DONE and self.key is not None and self.kept is not None

    def to_text(self, run_id: str) -> str:
        """For the journal; `step_of` reads it."""
        kept = None if self.kept is None else [kept.to_json() for kept in self.kept]
        members = [*(getattr(self, name) for name in _SHORT), kept]
        return sealed(f"{run_id}\0{self.step}\0{self.element}", json.dumps(members))


_SHORT: Final = (
    "status",
    "attempts",
    "started_at",
    "seconds",
    "key",
    "state",
    "rows",
    "note",
    "error",
    "host",
    "pid",
)


def sealed(place: str, text: str) -> str:
    """A text with a checksum over it and the place that it belongs to."""
    return _seal(place, text) + text


def unsealed(place: str, row: str) -> str:
    """
    Raises:
        Damaged: It is not what was written in this place.
    """
    if row[:64] != _seal(place, row[64:]):
        raise Damaged("its row in the journal is not what was written.")
    return row[64:]


def _seal(place: str, text: str) -> str:
    return blake3("\0".join((FORMAT, place, text)).encode("utf-8", "surrogatepass")).hexdigest()


def run_of(run_id: str, row: str) -> RunRecord:
    """
    Raises:
        Damaged: It is not what was written.
    """
    members = json.loads(unsealed(run_id, row))
    members["inputs"] = {
        name: GivenInput(digest=digest, kept=None if kept is None else Kept.from_json(kept))
        for name, (digest, kept) in members["inputs"].items()
    }
    targets = members.get("targets")
    told = {"status": Status(members["status"]), "targets": None if targets is None else tuple(targets)}
    return RunRecord(**members | told)


def step_of(run_id: str, step: str, element: int | None, row: str) -> StepRecord:
    """
    Raises:
        Damaged: It is not what was written.
    """
    *members, kept = json.loads(unsealed(f"{run_id}\0{step}\0{element}", row))
    about = dict(zip(_SHORT, members, strict=True))
    return StepRecord(
        **about
        | {
            "step": step,
            "element": element,
            "status": Status(about["status"]),
            "state": tuple(about["state"]),
            "kept": None if kept is None else tuple(map(Kept.from_json, kept)),
        }
    )


def as_data(record: RunRecord | StepRecord) -> dict[str, Any]:
    """A record for JSON, without what its datasets hold."""
    data = asdict(record)
    data["status"] = str(record.status)
    if isinstance(record, RunRecord):
        data["inputs"] = {name: given.digest for name, given in record.inputs.items()}
    else:
        data["kept"] = None if record.kept is None else [kept.digest for kept in record.kept]
    return data
