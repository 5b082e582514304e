"""The story of a run: what it tells, that nothing in it is taken for HTML, and how it is in a real browser."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from odibi_async import (
    Retry,
    RunError,
    Runner,
    RunResult,
    Secret,
    Step,
    Tracker,
    run_pipeline,
    step,
)
from odibi_async.errors import OptionError, RunCancelled
from odibi_async.observers.record import RunRecord
from odibi_async.observers.story.page import LARGEST, page

EVIL = "</script></pre><script>window.hacked = 1</script><img src=x onerror='hacked=2'>\"'`&amp;--> ]]> {{x}} #59;"
pytestmark = pytest.mark.foreign_loop  # the driver of the browser blocks where it likes


def orders() -> pd.DataFrame:
    return pd.DataFrame({"id": range(100), "amount": [i % 7 for i in range(100)], "e-mail": "@".join(("a", "b.c"))})


def large(orders: pd.DataFrame) -> pd.DataFrame:
    return orders[orders["amount"] > 5].assign(amount=lambda frame: frame["amount"] / 2)


def none(large: pd.DataFrame) -> pd.DataFrame:
    return large[large["id"] < 0]


def bad(large: pd.DataFrame) -> None:
    raise ValueError("no rate for <DE> & friends")


def save(bad: None) -> None: ...


def flaky() -> Any:
    calls = [ConnectionError("503"), ConnectionError("503")]

    async def directory() -> int:
        if calls:
            raise calls.pop()
        return 1

    return step(directory, retry=Retry(attempts=3, wait=0.01, jitter=False))


async def told(tmp_path: Path, *steps: Any, tracker: Tracker | None = None, **options: Any) -> str:
    tracker = tracker or Tracker()
    await run_pipeline(list(steps), observers=[tracker], on_error="continue", **options)
    path = await asyncio.to_thread(tracker.tell, tmp_path / "story.html", {"large": {"purpose": "Only large ones"}})
    return await asyncio.to_thread(Path(path).read_text, "utf-8")


# -- what it tells ---------------------------------------------------------------------------------


async def test_the_story_of_a_failed_run_begins_with_what_failed_and_where(tmp_path: Path):
    text = await told(tmp_path, orders, large, none, bad, save, flaky())
    verdict = text[text.index('<div class="verdict bad">') :]
    assert "6 steps, 4 succeeded, 1 failed, 1 skipped" in verdict
    assert "failed: ValueError: no rate for &lt;DE&gt; &amp; friends (test_story.py, line " in verdict
    places = [text.index(f'id="{part}"') for part in ("graph", "timeline", "warnings", "steps", "execution")]
    assert places == sorted(places)
    for expected in (
        "it kept 14 of 100 rows.",
        "it made no rows.",
        "column &#x27;amount&#x27; was int64 and is float64.",
        "Only large ones",
        "An attempt failed: ConnectionError: 503. The next began",
        "int64 -&gt; float64",
        "def large(orders: pd.DataFrame)",
        "graph TD",
        "0: orders, directory",
        "Traceback (most recent call last)",
        "&quot;pipeline_id&quot;",
        "Python",
        "<dt>Thread</dt><dd>MainThread</dd>",
    ):
        assert expected in text, expected


async def test_fourteen_steps_take_at_most_100_kb(tmp_path: Path):
    more = [step(lambda large, i=i: large.head(i), name=f"report {i}", inputs={"large": "large"}) for i in range(9)]
    text = await told(tmp_path, orders, large, none, flaky(), step(lambda orders: 1, name="one"), *more)
    assert text.count("<details") > 14
    assert len(text.encode()) <= 100_000


async def test_the_result_tells_its_story_without_a_tracker(tmp_path: Path):
    result = await run_pipeline([orders, large])
    path = await asyncio.to_thread(result.to_story, tmp_path / "deep" / "story.html")
    text = await asyncio.to_thread(Path(path).read_text, "utf-8")
    assert "2 steps, 2 succeeded" in text
    assert "After: large (pandas.DataFrame, 14 rows)" in text
    with pytest.raises(RunError) as caught:
        await run_pipeline([orders, large, bad])
    failed: Any = caught.value.result
    path = await asyncio.to_thread(failed.to_story, tmp_path / "failed.html")
    assert "no rate for" in await asyncio.to_thread(Path(path).read_text, "utf-8")


def test_a_result_that_no_run_made_has_no_story():
    result = RunResult(run_id="x", status="succeeded", steps={}, outputs={}, failures={}, started_at=None, seconds=0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="not made by a run"):
        result.to_story("x.html")


async def test_runs_of_every_end_have_a_story(tmp_path: Path):
    tracker, hanging = Tracker(), asyncio.Event()

    async def hang() -> None:
        hanging.set()
        await asyncio.Event().wait()

    def after(hang: None) -> None: ...

    for cache in (tmp_path / "cache", tmp_path / "cache"):
        await run_pipeline([step(orders, cache=True), large], observers=[tracker], cache=cache)
    assert "2 cached" in page(tracker._run(None).record, {})
    async with Runner(observers=[tracker]) as runner:
        run = await runner.start([hang, after])
        await hanging.wait()
        running = page(tracker._run(None).record, {})
        assert "has not ended" in running
        assert "1 running, 1 pending" in running
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
    assert "The run was cancelled" in page(tracker._run(None).record, {})
    assert "no steps" in page(RunRecord("", 0.0, {}), {})


async def test_columns_are_masked_and_data_is_kept_out_on_request(tmp_path: Path):
    text = await told(tmp_path, orders, large, tracker=Tracker(mask=("*MAIL*",)))
    assert "a@b.c" not in text
    assert "•••" in text
    assert "<td>6</td>" in text
    text = await told(tmp_path, orders, large, tracker=Tracker(samples=False))
    assert "a@b.c" not in text
    assert "<td>6</td>" not in text


async def test_secrets_are_nowhere(tmp_path: Path):
    def use(token: Any, orders: pd.DataFrame) -> pd.DataFrame:
        raise ConnectionError(f"https://user:{token.reveal()}@host refused {token.reveal()}")

    flaky = step(use, params={"token": Secret("hush-hush")}, retry=Retry(attempts=2, wait=0.01))
    text = await told(tmp_path, orders, flaky)
    assert "hush-hush" not in text
    assert "refused **********" in text


async def test_what_steps_log_is_told_and_the_handler_goes(tmp_path: Path):
    log, before = logging.getLogger("somebody's"), list(logging.getLogger().handlers)

    def says(orders: pd.DataFrame) -> None:
        log.warning("%d rows & <b>", len(orders))

    async def says_too(orders: pd.DataFrame) -> None:
        log.error("from the loop")

    text = await told(tmp_path, orders, says, says_too)
    assert "WARNING somebody&#x27;s: 100 rows &amp; &lt;b&gt;" in text
    assert "ERROR somebody&#x27;s: from the loop" in text
    assert logging.getLogger().handlers == before


async def test_what_steers_a_terminal_or_turns_the_direction_of_reading_is_in_no_page(tmp_path: Path):
    odd = "a\x1b[31m\x9b\x00b\u202efdp.exe\u2066"

    def fails() -> None:
        raise ValueError(odd)

    frame = pd.DataFrame({odd: [odd]})
    text = await told(tmp_path, step(fails, name=odd, layer=odd), step(lambda: frame, name="frame"))
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []


async def test_frames_that_a_run_drops_are_looked_at_all_the_same(tmp_path: Path):
    text = await told(tmp_path, orders, large, step(len, name="n", inputs={"obj": "large"}), targets=["n"])
    assert "After: large (pandas.DataFrame, 14 rows)" in text


async def test_a_page_that_would_be_too_large_says_what_it_leaves_out(tmp_path: Path):
    wide = pd.DataFrame({f"column {i}": ["x" * 900] * 5 for i in range(60)})
    steps = [step(lambda: wide, name=f"wide {i}") for i in range(12)]
    text = await told(tmp_path, *steps)
    assert len(text.encode()) <= LARGEST
    assert "it leaves out first rows." in text


def of_3_mb() -> None:
    raise ValueError("<a&b>" * 600_000)


def logs_5_mb() -> None:
    for _ in range(50):
        logging.getLogger("somebody's").warning("x" * 100_000)


def retried_1_000_times() -> Any:
    async def odd(n: int) -> None:
        if n not in seen:
            seen.add(n)
            raise ConnectionError("503 " * 500)

    seen = set[int]()
    retry = Retry(attempts=2, wait=0.0, jitter=False)
    return step(odd, map_over="n", inputs={"n": "numbers"}, retry=retry)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([of_3_mb], ""),
        ([step(of_3_mb, name=f"{i}") for i in range(30)], "sources and the run as JSON"),
        ([logs_5_mb], ""),
        ([step(lambda: list(range(1_000)), name="numbers"), retried_1_000_times()], ""),
        ([step(int, name=f"{i} " + "n" * 300, layer=f"layer {i}") for i in range(4_000)], "most steps"),
        ([step(int, name=f"{i} " + "n" * 100_000) for i in range(20)], "all but how the run ended"),
    ],
    ids=["an error", "errors", "logs", "retries", "layers", "names"],
)
async def test_no_page_is_too_large_whatever_it_tells_of(tmp_path: Path, steps: Any, left: str):
    text = await told(tmp_path, orders, *steps)
    assert len(text.encode()) <= LARGEST
    assert f"{len(steps) + 1:,} steps, " in text
    assert left or "it leaves out" not in text
    assert not left or f"{left}.</p>" in text


@pytest.mark.parametrize("count", [151, 10_000])
async def test_large_runs_are_put_together(tmp_path: Path, count: int):
    async def one() -> int:
        return 1

    text = await told(tmp_path, *[step(one, name=f"step {i}", layer="ingest") for i in range(count)])
    assert f"{count:,} x ingest" in text
    assert f"The 150 longest of {count:,} steps." in text
    assert len(text.encode()) <= LARGEST


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "These tests need Chromium: apt-get install chromium"
    async with async_playwright() as driver:
        args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = await driver.chromium.launch(executable_path=found, args=args)
        yield browser
        await browser.close()


async def opened(browser: Browser, path: Path, **options: Any) -> tuple[Page, list[str]]:
    """A page with a story in it, and what went wrong or left the page."""
    context = await browser.new_context(**options)
    shown, trouble = await context.new_page(), list[str]()
    shown.on("console", lambda message: trouble.append(f"console: {message.text}"))
    shown.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    shown.on("request", lambda request: trouble.append(request.url) if request.url != path.as_uri() else None)
    await shown.goto(path.as_uri())
    return shown, trouble


async def serious(shown: Page) -> list[str]:
    """What axe finds that is serious or critical."""
    found = (await Axe().run(shown)).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


async def test_all_of_a_story_is_on_paper(browser: Browser, tmp_path: Path):
    await told(tmp_path, orders)
    shown, _ = await opened(browser, tmp_path / "story.html")
    is_hidden = "(each) => !each.checkVisibility({contentVisibilityAuto: true})"
    folded = f"[...document.querySelectorAll('details > pre')].filter({is_hidden}).length"
    assert await shown.evaluate(folded)
    await shown.emulate_media(media="print")
    await shown.wait_for_function(f"{folded} === 0", timeout=10_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_story_is_accessible_and_loads_nothing(browser: Browser, tmp_path: Path, scheme: Any):
    await told(tmp_path, orders, large, none, bad, save, flaky())
    shown, trouble = await opened(browser, tmp_path / "story.html", color_scheme=scheme)
    assert await serious(shown) == []
    await shown.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert await serious(shown) == []
    assert trouble == []


async def test_steps_are_filtered_sorted_and_found_from_the_graph(browser: Browser, tmp_path: Path):
    await told(tmp_path, orders, large, none, bad, save, flaky())
    shown, trouble = await opened(browser, tmp_path / "story.html")
    rows = shown.locator("#steps-table tbody tr:visible")
    assert await rows.count() == 6
    await shown.get_by_label("Filter steps").fill("skipped")
    assert await rows.all_inner_texts() == [text for text in await rows.all_inner_texts() if "save" in text]
    await shown.get_by_label("Filter steps").fill("")
    await shown.get_by_role("button", name="Rows", exact=True).click()
    await shown.get_by_role("button", name="Rows", exact=True).click()
    assert "orders" in (await rows.all_inner_texts())[0]
    await shown.locator("g.node[data-name=none]").hover()
    assert await shown.locator("g.node.dimmed").count() == 3
    await shown.locator("g.node[data-name=large]").click()
    assert await shown.locator("details[data-step=large]").get_attribute("open") is not None
    await shown.get_by_role("button", name="+").click()
    assert trouble == []


async def test_everything_is_there_without_scripts(browser: Browser, tmp_path: Path):
    await told(tmp_path, orders, large, bad)
    shown, trouble = await opened(browser, tmp_path / "story.html", java_script_enabled=False)
    assert await shown.locator("#steps-table tbody tr").count() == 3
    assert await shown.locator("g.node").count() == 3
    assert await shown.locator("#tools").is_hidden()
    await shown.locator("details[data-step=large] > summary").click()
    assert await shown.get_by_text("After: large").is_visible()
    assert trouble == []


async def test_hostile_names_data_errors_and_queries_do_nothing(browser: Browser, tmp_path: Path):
    frame = pd.DataFrame({EVIL: [EVIL]})

    def fails(frame: pd.DataFrame) -> None:
        raise ValueError(EVIL)

    query = Step("transform", EVIL, "sql", None, f'SELECT 1 AS "a" -- {EVIL}', {}, {}, {EVIL: EVIL})
    steps = [
        query,
        step(lambda: frame, name="frame", layer=EVIL),
        fails,
        step(lambda f: f, name="x" + EVIL, inputs={"f": "frame"}),
    ]
    tracker = Tracker()
    await run_pipeline(steps, observers=[tracker], on_error="continue")
    await asyncio.to_thread(tracker.tell, tmp_path / "story.html", {"frame": {EVIL: [EVIL]}})
    shown, trouble = await opened(browser, tmp_path / "story.html")
    assert await shown.evaluate("typeof window.hacked") == "undefined"
    assert await shown.locator("script").count() == 1
    assert await shown.locator("img").count() == 0
    assert trouble == []
    assert await shown.locator("#steps-table th a", has_text=EVIL).count() == 2
