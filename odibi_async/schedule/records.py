"""What is kept of a schedule, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from odibi_async.errors import Damaged
from odibi_async.journal.records import sealed, unsealed
from odibi_async.schedule.firing import Seen

FORM: Final = 1
"""The form of what is written here; another one whenever that changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """
    A firing that somebody claimed, and whose run is not over.

    Attributes:
        run_id: The run.
        at: The time that it stands for (UTC).
        trigger: What fired, as text.
        payload: What it brought, where that can be written as JSON.
        is_whole: Whether that is so.
        owner: Who runs it, or did when its process died.
        attempts: How many have begun to.
    """

    run_id: str
    at: datetime
    trigger: str
    payload: Any = None
    is_whole: bool = True
    owner: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """
    How the run of a firing ended.

    Attributes:
        run_id: The run.
        at: The time that it stands for (UTC).
        ended_at: When it ended (UTC).
        status: `succeeded`, `failed` or `cancelled`.
        error: What went wrong, in a line; empty where nothing did.
    """

    run_id: str
    at: datetime
    ended_at: datetime
    status: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    What is kept of a schedule.

    Attributes:
        at: The last of its times that was claimed (UTC); `None` before the first.
        is_paused: Whether it does not fire.
        opened: Its firings whose runs are not over, the oldest first.
        last: The last run that ended.
        rewound: How often its times began anew, since the clock was set back.
        seen: Trigger, as text -> the files that were there when it fired last.
    """

    at: datetime | None = None
    is_paused: bool = False
    opened: tuple[Opened, ...] = ()
    last: LastRun | None = None
    rewound: int = 0
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def to_text(self, name: str) -> str:
        """For the journal; `record_of` reads it."""
        members = {
            "form": FORM,
            "at": _text(self.at),
            "is_paused": self.is_paused,
            "opened": [_members(opened) for opened in self.opened],
            "last": None if self.last is None else _members(self.last),
            "rewound": self.rewound,
            "seen": self.seen,
        }
        return sealed(f"schedule\0{name}", json.dumps(members))


def paused(record: Record) -> Record:
    """The record of a schedule that does not fire until it is resumed."""
    return replace(record, is_paused=True)


def resumed(now: datetime, record: Record) -> Record:
    """The record of a schedule that fires from now on."""
    is_ahead = record.at is not None and record.at > now  # the clock was set back: its times come again
    return replace(record, is_paused=False, at=now, rewound=record.rewound + is_ahead)


def record_of(name: str, text: str | None) -> Record:
    """
    Raises:
        Damaged: It is not what was written.
    """
    if text is None:
        return Record()
    members = json.loads(unsealed(f"schedule\0{name}", text))
    if members["form"] != FORM:
        raise Damaged(f"it was written by another version (form {members['form']!r}).")
    last = members["last"]
    return Record(
        at=_time(members["at"]),
        is_paused=members["is_paused"],
        opened=tuple(Opened(**_timed(opened)) for opened in members["opened"]),
        last=None if last is None else LastRun(**_timed(last)),
        rewound=members["rewound"],
        seen={
            trigger: {path: (about[0], about[1]) for path, about in files.items()}
            for trigger, files in members["seen"].items()
        },
    )


def _members(kept: Opened | LastRun) -> dict[str, Any]:
    found = {name: getattr(kept, name) for name in kept.__slots__}
    return {name: _text(value) if isinstance(value, datetime) else value for name, value in found.items()}


def _timed(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _time(value) if name in ("at", "ended_at") else value for name, value in members.items()}


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
