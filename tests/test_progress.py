"""Progress: lines where there is no terminal, a picture of the moment where there is one."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd

from odibi_async import Retry, Secret, run_pipeline, step
from odibi_async.observers.progress import Progress


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2]})


def bad(frame: pd.DataFrame) -> None:
    raise ValueError("no such\ncolumn")


def never(bad: None) -> None: ...


async def shown(stream: Any, *steps: Any, **options: Any) -> None:
    await run_pipeline(list(steps), observers=[Progress(stream)], on_error="continue", **options)


async def test_without_a_terminal_each_step_that_has_ended_is_a_line():
    stream = io.StringIO()
    await shown(stream, frame, bad, never)
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"frame: succeeded in [\d.]+ ms with 2 rows", lines[0])
    assert re.fullmatch(r"bad: failed in [\d.]+ ms - ValueError: no such", lines[1])
    assert lines[2] == "never: skipped because of bad"


async def test_attempts_that_failed_are_told_and_secrets_are_not():
    def use(token: Any) -> None:
        raise ConnectionError(f"refused {token.reveal()}")

    stream = io.StringIO()
    await shown(stream, step(use, params={"token": Secret("hush")}, retry=Retry(attempts=2, wait=0.01)))
    assert "use: attempt 1 failed, again in 0.0 s: ConnectionError: refused **********" in stream.getvalue()
    assert "hush" not in stream.getvalue()


async def test_a_stream_that_is_closed_breaks_no_run():
    stream = io.StringIO()
    stream.close()

    class Closed(io.StringIO):
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise BrokenPipeError

    await shown(Closed(), frame)


def on_a_terminal(run: Callable[[Any], Any]) -> str:
    """What a run writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        asyncio.run(run(terminal))
    seen = b""
    os.set_blocking(ours, False)
    try:
        while part := os.read(ours, 100_000):
            seen += part
    except (BlockingIOError, OSError):
        pass
    os.close(ours)
    return seen.decode()


def test_on_a_terminal_running_steps_stay_and_finished_ones_scroll_up():
    async def slow() -> None:
        await asyncio.sleep(0.5)

    @step(map_over="x")
    async def many(x: int) -> int:
        await asyncio.sleep(0.02 * x)
        return x

    async def run(terminal: Any) -> None:
        hostile = step(frame, name="\x1b[2J\x07frame")
        await shown(terminal, slow, many, hostile, inputs={"x": list(range(20))})
        for _ in range(100):
            if not [thread for thread in __import__("threading").enumerate() if thread.name == "odibi progress"]:
                break
            await asyncio.sleep(0.05)

    written = on_a_terminal(run)
    assert re.search(r"▶ many  0\.\d s, \d+ of 20", written)
    assert re.search(r"✓ slow: succeeded in 5\d\d ms", written)
    assert "3 of 3 steps" in written
    assert "\x1b[2J" not in written
    assert "\x07" not in written


async def test_runs_at_the_same_time_are_counted_together():
    stream, progress = io.StringIO(), None
    progress = Progress(stream)
    await asyncio.gather(*[run_pipeline([frame], observers=[progress]) for _ in range(5)])
    assert stream.getvalue().count("frame: succeeded") == 5
    assert (progress._done, progress._total) == (5, 5)


async def test_names_that_a_stream_cannot_say_are_escaped():
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    await shown(stream, step(frame, name="größe"), step(frame, name="other"))
    assert b"gr\\xf6\\xdfe: succeeded" in written.getvalue()
    assert b"other: succeeded" in written.getvalue()


def test_long_names_of_running_steps_do_not_wrap():
    async def slow() -> None:
        await asyncio.sleep(0.3)

    async def run(terminal: Any) -> None:
        await shown(terminal, step(slow, name="n" * 500))

    assert f"▶ {'n' * 49}…  0." in on_a_terminal(run)


def test_a_process_ends_though_its_loop_stopped_in_the_middle_of_a_run():
    script = """if True:
        import asyncio
        from odibi_async import run_pipeline
        from odibi_async.observers.progress import Progress

        async def hangs():
            loop.call_soon(loop.stop)
            await asyncio.Event().wait()

        loop = asyncio.new_event_loop()
        task = loop.create_task(run_pipeline([hangs], observers=[Progress()]))
        loop.run_forever()
    """
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", script], stderr=theirs, stdout=theirs, timeout=20, check=False)
    assert done.returncode == 0
    os.close(theirs)
    os.close(ours)
