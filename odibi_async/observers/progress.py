"""Progress on a terminal: a line for each running step, a total, and the finished steps above them."""

from __future__ import annotations

import atexit
import sys
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, TextIO

from odibi_async.errors import in_a_line
from odibi_async.events import (
    Event,
    LoopBlocked,
    RunFinished,
    RunStarted,
    StepFinished,
    StepProgressed,
    StepRetrying,
    StepStarted,
    StepStreamed,
)
from odibi_async.graph.svg import GLYPHS
from odibi_async.result import Status, StepResult, seconds_text
from odibi_async.secret import redacted

PAUSE: Final = 0.1
"""Seconds between two paintings."""
LONGEST: Final = 50
"""Letters of the name of a running step that are shown."""
COLOURS: Final = {"succeeded": "green", "cached": "cyan", "failed": "bold red", "skipped": "dim", "cancelled": "yellow"}


@dataclass(slots=True)
class _Running:
    """A step that runs: since when, how many of its elements are done, and how many batches it has made."""

    began: float = field(default_factory=monotonic)
    done: int = 0
    total: int = 0
    batches: int = 0


class Progress:
    """
    An observer that shows how far runs are: `run_pipeline(steps, observers=[Progress()])`.

    On a terminal it paints ten times a second, in a thread that lives as long as a run does; elsewhere each step that
    has ended is a line. It never raises for a stream that is closed, and shows no secret
    among the params of steps and the inputs, and no password in a URL.

    Args:
        stream: Where to; `None` for stderr.
        secrets: Texts that are not to be shown.
    """

    def __init__(self, stream: TextIO | None = None, *, secrets: Collection[str] = ()) -> None:
        self._stream = stream
        self._secrets = set(secrets)
        self._running: dict[tuple[str, str], _Running] = {}
        self._lines: deque[tuple[str, str]] = deque()
        self._runs: set[str] = set()
        self._done = self._total = self._failed = 0
        self._began = monotonic()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._start(event)
            case StepStarted():
                self._running[event.run_id, event.step] = _Running()
            case StepProgressed():
                running = self._running.setdefault((event.run_id, event.step), _Running())
                running.done, running.total = event.done, event.total
            case StepStreamed():
                running = self._running.setdefault((event.run_id, event.step), _Running())
                running.batches = event.batches
            case StepRetrying():
                again = f"attempt {event.attempt} failed, again in {event.wait:.1f} s"
                self._say("retrying", f"{event.step}: {again}: {in_a_line(event.error)}")
            case LoopBlocked():
                where = f"{event.file}, line {event.line}"
                self._say("retrying", f"{event.step} held the event loop for {seconds_text(event.seconds)}: {where}")
            case StepFinished():
                self._running.pop((event.run_id, event.step), None)
                self._done += 1
                self._failed += event.status is Status.FAILED
                self._say(str(event.status), _line(event.result))
            case RunFinished():
                self._runs.discard(event.run_id)
        if not self._on_terminal:
            self._print_lines()

    @property
    def _on_terminal(self) -> bool:
        return (self._stream or sys.stderr).isatty()

    def _start(self, event: RunStarted) -> None:
        if not self._runs:
            self._done = self._total = self._failed = 0
            self._began = monotonic()
        self._runs.add(event.run_id)
        self._total += len(event.steps)
        self._secrets |= {secret.reveal() for secret in event.secrets}
        self._secrets |= {secret.reveal() for name in event.steps for secret in event.graph[name].secrets}
        if self._on_terminal and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._paint, name="odibi progress", daemon=True)
            atexit.register(self._close)
            self._thread.start()

    def _say(self, status: str, text: str) -> None:
        shown = redacted(text, self._secrets)
        self._lines.append((status, "".join(c if c.isprintable() else " " for c in shown)))

    def _close(self) -> None:
        """Ends the painting with the process, also where a run cannot say any more that it is over."""
        self._runs.clear()
        if self._thread is not None:
            self._thread.join()

    def _print_lines(self) -> None:
        stream = self._stream or sys.stderr
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            while self._lines:
                _, text = self._lines.popleft()
                print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
        except (OSError, ValueError):  # nobody reads it any more
            self._lines.clear()

    # -- on a terminal, in a thread --------------------------------------------------------------------

    def _paint(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream or sys.stderr)
        pause = threading.Event()
        try:
            with Live(get_renderable=self._view, console=console, auto_refresh=False, transient=True) as live:
                while self._runs:
                    self._scroll(console)
                    live.refresh()
                    pause.wait(PAUSE)
                self._scroll(console)
        except (OSError, ValueError):
            self._lines.clear()
        finally:
            atexit.unregister(self._close)

    def _scroll(self, console: Any) -> None:
        """Prints what has ended above the lines that stay."""
        from rich.text import Text

        while self._lines:
            status, text = self._lines.popleft()
            console.print(Text(f"{GLYPHS.get(status, ' ')} {text}", style=COLOURS.get(status, "yellow")))

    def _view(self) -> Any:
        """The lines that stay: one for each running step, as many as fit, and the total."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now, running = monotonic(), list(self._running.items())
        room = 10
        shown = [(_shown(name), each) for (_, name), each in running[:room]]
        rows = [Text(f"▶ {name}  {now - each.began:.1f} s{_elements(each)}") for name, each in shown]
        if len(running) > room:
            rows.append(Text(f"  and {len(running) - room:,} more", style="dim"))
        failed = f", {self._failed:,} failed" if self._failed else ""
        total = Table.grid(padding=(0, 1))
        total.add_row(
            ProgressBar(total=max(1, self._total), completed=self._done, width=30),
            Text(f"{self._done:,} of {self._total:,} steps{failed}, {now - self._began:.1f} s"),
        )
        return Group(*rows, total)


def _line(record: StepResult) -> str:
    """What is said of a step that has ended."""
    said = [f"{record.name}: {record.status}"]
    if record.at is not None:
        said.append(f"in {seconds_text(record.run_seconds)}")
    if record.rows is not None:
        said.append(f"with {record.rows:,} rows")
    if record.skipped_because:
        said.append(f"because of {record.skipped_because}")
    if record.error is not None:
        said.append(f"- {in_a_line(record.error)}")
    return " ".join(said)


def _shown(name: str) -> str:
    """A name on a line that is painted again and again: it must not wrap."""
    text = "".join(c if c.isprintable() else " " for c in name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _elements(running: _Running) -> str:
    if running.batches:
        return f", {running.batches:,} batches"
    return f", {running.done:,} of {running.total:,}" if running.total else ""
