"""The live page of a service, in a real browser, on a real server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pandas as pd
import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe
from fastapi import FastAPI, Header, HTTPException
from playwright.async_api import Browser, Locator, async_playwright, expect
from playwright.async_api import Page as Tab

from odibi_async import Pipeline, Retry, Runner, Secret, step
from odibi_async.graph.svg import BORDERS
from odibi_async.integrations.fastapi import Served, pipeline_router
from odibi_async.integrations.fastapi.naming import in_path, named_in
from odibi_async.integrations.fastapi.page import SCRIPTS, page
from odibi_async.schedule import Cron, Schedules
from odibi_async.stream import Queue, run_stream
from tests.serving import Flag, Worker

EVIL = "</script></pre><script>window.hacked=1</script><img src=x onerror='hacked=2'>\"'`&amp;--> {{x}} #59;"
PHONE: Any = {"viewport": {"width": 360, "height": 740}}
pytestmark = pytest.mark.foreign_loop  # the driver of the browser blocks where it likes
expect.set_options(timeout=30_000)  # a busy machine takes its time


# -- the file --------------------------------------------------------------------------------------


def test_the_page_is_made_once_whoever_asks_first():
    with ThreadPoolExecutor(8) as pool:
        pages = {id(each) for each in pool.map(lambda _: page(), range(50))}
    assert pages == {id(page())}


def test_the_policy_names_the_style_and_the_script_and_nothing_else():
    for part, directive in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{part}[^>]*>(.*?)</{part}>", page().html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in page().csp
    assert page().csp.startswith("default-src 'none';")
    assert "unsafe" not in page().csp
    assert "http" not in page().csp


def test_the_script_has_no_way_to_turn_text_into_elements_and_no_address_but_its_own():
    folder = resources.files("odibi_async.integrations.fastapi.page").joinpath("script")
    assert {each.name for each in folder.iterdir()} == {f"{name}.js" for name in SCRIPTS}
    for name in SCRIPTS:
        text = folder.joinpath(f"{name}.js").read_text("utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setHTML", text
        )
        assert set(re.findall(r"https?://[^\"'\s]*", text)) <= {"http://www.w3.org/2000/svg"}


def test_statuses_have_the_colours_that_they_have_in_a_story():
    style = page().html
    for status, colour in BORDERS.items():
        assert f"--{'cached' if status == 'resumed' else status}:{colour}" in style, status


# -- a service and a browser -----------------------------------------------------------------------


@dataclass
class Gates:
    """Steps of a test that wait until it lets them go on, and what they were given."""

    given: list[dict[str, Any]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    calls: int = 0

    def pipeline(self) -> Pipeline:
        """Flights, cleaned once a gate opens, and counted unless that is to fail."""

        async def flights(
            url: str,
            year: int = 2013,
            ratio: float | None = None,
            mode: Literal["full", "sample"] = "full",
            day: date | None = None,
            strict: bool = True,
            carriers: list[str] | None = None,
        ) -> pd.DataFrame:
            self.given.append(
                {
                    "url": url,
                    "year": year,
                    "ratio": ratio,
                    "mode": mode,
                    "day": day,
                    "strict": strict,
                    "carriers": carriers,
                }
            )
            return pd.DataFrame({"carrier": ["UA", "AA", "UA"]})

        async def weather() -> int:
            self.calls += 1
            if self.calls == 1:
                raise ConnectionError("503 <from> the weather service")
            return 1

        async def clean(flights: pd.DataFrame) -> pd.DataFrame:
            await self.open.wait()
            return flights.drop_duplicates()

        async def count(clean: pd.DataFrame, weather: int) -> pd.DataFrame:
            if self.fails:
                raise ValueError("no rate for <DE> & friends")
            return clean

        def publish(count: pd.DataFrame) -> int:
            return len(count)

        patient = step(weather, retry=Retry(attempts=3, wait=0.01, jitter=False))
        return Pipeline([flights, patient, clean, count, publish], inputs=("url",))


@contextlib.asynccontextmanager
async def serving(app: Any, port: int = 0) -> AsyncIterator[int]:
    """
    Serves an app for as long as the block lasts; gives its port.

    Args:
        app: An ASGI app.
        port: Where; 0 for any that is free.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            assert not task.done(), "The server did not start."
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "These tests need Chromium: apt-get install chromium"
    async with async_playwright() as driver:
        args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = await driver.chromium.launch(executable_path=found, args=args)
        yield browser
        await browser.close()


def app_of(
    pipelines: dict[str, Any],
    *,
    auth: Any = None,
    journal: Path | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> FastAPI:
    runner = runner or Runner(journal=journal)
    app = FastAPI(lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, pipelines, auth=auth, **options), prefix="/flow")
    return app


class Shown:
    """A tab with the page, and what went wrong in it or left its origin."""

    def __init__(self, tab: Tab, port: int) -> None:
        self.tab, self.base, self.trouble = tab, f"http://127.0.0.1:{port}/flow/", list[str]()
        tab.on("console", lambda message: self._note(f"console: {message.text} {message.location['url']}"))
        tab.on("pageerror", lambda error: self._note(f"error: {error}"))
        tab.on(
            "request", lambda request: None if request.url.startswith((self.base, "data:")) else self._note(request.url)
        )

    def _note(self, trouble: str) -> None:
        if not re.search(r"404 .*/(schedules|streams)$", trouble):  # the page asks whether there are any
            self.trouble.append(trouble)

    async def goto(self, place: str = "") -> None:
        await self.tab.goto(self.base + place)

    async def start(self, url: str = "https://example.org/flights") -> None:
        await self.goto("#/pipelines/flights")
        await self.tab.get_by_label("url").fill(url)
        await self.tab.get_by_role("button", name="Start", exact=True).click()
        await self.tab.wait_for_url("**/#/runs/*")

    @property
    def status(self) -> Locator:
        return self.tab.locator("header.run .state .pill")

    def row(self, name: str) -> Locator:
        return self.tab.locator("table.steps tbody tr", has=self.tab.get_by_role("button", name=name, exact=True))

    async def serious(self) -> list[str]:
        found = (await Axe().run(self.tab)).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")
        ]

    async def too_wide(self) -> bool:
        return bool(await self.tab.evaluate("document.documentElement.scrollWidth > innerWidth"))


Open = Callable[..., Any]


@pytest.fixture
async def opened(browser: Browser) -> AsyncIterator[Open]:
    """Opens the page of an app in a tab of its own: `await opened(app, color_scheme="dark")`."""
    async with contextlib.AsyncExitStack() as stack:
        ports: dict[int, int] = {}

        async def open_page(app: Any, place: str = "", **options: Any) -> Shown:
            if id(app) not in ports:
                ports[id(app)] = await stack.enter_async_context(serving(app))
            context = await browser.new_context(**options)
            stack.push_async_callback(context.close)
            shown = Shown(await context.new_page(), ports[id(app)])
            await shown.goto(place)
            return shown

        yield open_page


# -- what needs no service -------------------------------------------------------------------------


async def reckoned(browser: Browser, scripts: str, expression: str, given: Any) -> Any:
    """What an expression over some of the page's scripts gives, in a browser with nothing in it."""
    folder = resources.files("odibi_async.integrations.fastapi.page").joinpath("script")
    source = "\n".join(folder.joinpath(f"{name}.js").read_text("utf-8") for name in scripts.split())
    tab = await browser.new_page()
    found = await tab.evaluate(f"(given) => {{ {source}\n return ({expression})(given); }}", given)
    await tab.close()
    return found


async def test_a_stream_is_taken_apart_alike_wherever_its_pieces_end(browser: Browser):
    stream = (
        ": hello\r\n\r\nretry: 10\n\nid: 1\nevent: a.b\ndata: {\ndata:  }\n\n: ping\n\r\nid:2\r\ndata\r\n\r\n"
        "event: x\rdata: ü: y\r\rid: 9\n\ndata: cut off"
    )
    told = [
        {"id": "1", "name": "a.b", "data": "{\n }"},
        {"id": "2", "name": "message", "data": ""},
        {"id": None, "name": "x", "data": "ü: y"},
    ]
    cut = """(text) => Array.from({ length: text.length }, (_, size) => {
        const feed = eventParser();
        return text.match(new RegExp(`[^]{1,${size + 1}}`, "g")).flatMap(feed);
    })"""
    for found in await reckoned(browser, "dom words asking stream", cut, stream):
        assert found == told


async def test_the_address_of_a_run_stands_for_the_same_name_as_its_links(browser: Browser):
    names = ["a/b", "..", ".", "~a", "a b?c#d%2F", "ü💥", "a\nb\u202e\x7f", "\xa0", "x" * 300, "~", "a/??>>"]
    made = "(names) => names.map((name) => new URL(`http://x/${runAddress(name)}`).pathname.split('/').pop())"
    found = await reckoned(browser, "dom words asking", made, names)
    assert [named_in(unquote(each)) for each in found] == names
    assert [named_in(unquote(in_path(each))) for each in names] == names


FIELDS: list[tuple[Any, str, str]] = [
    ({"type": "integer"}, "007", "7"),
    ({"type": "integer"}, " -12345678901234567890 ", "-12345678901234567890"),
    ({"type": "integer"}, "1e3", "! whole number"),
    ({"type": "integer", "minimum": 1}, "0", "! least is 1"),
    ({"type": "integer", "exclusiveMaximum": 9}, "9", "! less than 9"),
    ({"type": "number"}, "1.", "1"),
    ({"type": "number"}, "-.5e-3", "-0.0005"),
    ({"type": "number"}, "1e400", "! too large"),
    ({"type": "number"}, "NaN", "! not a number"),
    ({"type": "number"}, "0x10", "! not a number"),
    ({"type": "number"}, "", "! needed"),
    ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "", "null"),
    ({"type": ["string", "null"], "default": "x"}, "", "null"),
    ({"type": "string"}, ' "\u2028', '" \\"\u2028"'),
    ({"$ref": "#/$defs/a~1b"}, "3", "3"),
    ({"allOf": [{"$ref": "#/$defs/a~1b"}], "description": "d"}, "x", "! not a number"),
    ({"$ref": "#/$defs/loop"}, "[1, 2", "! not JSON"),
    ({"$ref": "#/$defs/none"}, "[1]", "[1]"),
    ({"type": "array"}, "{}", "! list"),
    ({"type": "object"}, "[]", "! object"),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, '"a"', '"a"'),
    (True, "1", "1"),
    ({"enum": ["a", 1, None]}, "1", "1"),
    ({"enum": ["a", 1, None]}, "", "! needed"),
]
"""A schema, what is typed, and what is sent; or what is said, behind a !."""


async def test_a_field_gives_what_its_schema_says(browser: Browser):
    read = """(cases) => cases.map(([schema, typed]) => {
        const root = { $defs: { "a/b": { type: "integer" }, loop: { $ref: "#/$defs/loop" } } };
        const one = field("x", schema, root, true);
        one.input.value = typed;
        try { return one.read(); } catch (error) { return `! ${error.message}`; }
    })"""
    found = await reckoned(browser, "dom words form", read, FIELDS)
    for (schema, typed, sent), given in zip(FIELDS, found, strict=True):
        assert given.startswith("!") == sent.startswith("!"), (schema, typed, given)
        assert sent[2:] in given if sent.startswith("!") else given == sent, (schema, typed, given)


# -- a run from its start to its end ---------------------------------------------------------------


async def test_a_run_is_started_and_watched_until_it_ends(opened: Open):
    gates = Gates()
    shown = await opened(app_of({"flights": gates.pipeline()}, story=True))
    await shown.tab.get_by_role("link", name="flights").click()
    await shown.tab.get_by_label("url").fill("https://example.org/flights")
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.row("clean")).to_contain_text("running")
    await expect(shown.row("publish")).to_contain_text("waiting")
    await expect(shown.row("weather").locator("td").last).to_have_text("2")
    await expect(shown.tab.locator("svg g.is-running")).to_contain_text("clean")
    await expect(shown.tab.locator(".link")).to_have_text("live")
    width = await shown.row("clean").locator(".bar").evaluate("(bar) => bar.getBoundingClientRect().width")
    assert width > 0
    gates.open.set()
    await expect(shown.status).to_contain_text("succeeded")
    await expect(shown.row("flights").locator("td").nth(3)).to_have_text("3")
    await expect(shown.tab.locator("svg g.is-succeeded")).to_have_count(5)
    log = shown.tab.get_by_role("log", name="Events")
    await expect(log).to_contain_text("attempt 1 failed: ConnectionError: 503 <from> the weather service")
    await expect(log.locator("li").last).to_contain_text("run.finished")
    await expect(shown.tab.get_by_role("link", name="Story of this run")).to_be_visible()
    await expect(shown.tab.get_by_role("button", name="Cancel")).to_be_hidden()
    assert gates.given[0] | {"url": "https://example.org/flights", "year": 2013, "mode": "full"} == gates.given[0]
    assert shown.trouble == []


async def test_results_are_one_click_away(opened: Open):
    gates = Gates()
    gates.open.set()
    shown = await opened(app_of({"flights": gates.pipeline()}))
    await shown.start()
    async with shown.tab.context.expect_page() as waiting:
        await shown.tab.get_by_role("link", name="publish as json").click()
    found = await waiting.value
    await expect(found.locator("body")).to_contain_text("2")
    assert shown.trouble == []


async def test_a_run_that_failed_says_which_step_and_why_and_goes_on_where_it_was(opened: Open, tmp_path: Path):
    gates = Gates(fails=True)
    gates.open.set()
    shown = await opened(app_of({"flights": gates.pipeline()}, journal=tmp_path / "journal"))
    await shown.start()
    await expect(shown.status).to_contain_text("failed")
    verdict = shown.tab.locator(".verdict.bad")
    await expect(verdict).to_contain_text("The run failed.")
    await expect(verdict).to_contain_text("Step count failed: ValueError: no rate for <DE> & friends")
    await expect(shown.row("publish")).to_contain_text("skipped")
    await verdict.get_by_role("button", name="count").click()
    await expect(shown.tab.locator("tr.detail pre")).to_contain_text("no rate for <DE> & friends")
    await expect(shown.tab.get_by_role("button", name="count", exact=True).last).to_be_focused()
    gates.fails = False
    await shown.tab.get_by_role("button", name="Resume").click()
    await expect(shown.status).to_contain_text("succeeded")
    await shown.tab.get_by_label("Find").first.fill("")
    await expect(shown.row("clean")).to_contain_text("resumed")
    await expect(verdict).to_be_hidden()
    log = await shown.tab.get_by_role("log").locator("li").all_inner_texts()
    finished = {
        name: [line for line in log if re.search(rf"step.finished\s+{name}\b", line)] for name in ("clean", "count")
    }
    assert [len(each) for each in finished.values()] == [1, 1]
    assert "resumed" in finished["clean"][0]
    assert "succeeded" in finished["count"][0]
    assert len(gates.given) == 1
    assert shown.trouble == []


async def test_a_run_is_cancelled_once_that_is_confirmed(opened: Open):
    gates = Gates()
    shown = await opened(app_of({"flights": gates.pipeline()}))
    await shown.start()
    await expect(shown.row("clean")).to_contain_text("running")
    await shown.tab.get_by_role("button", name="Cancel").click()
    await shown.tab.get_by_role("button", name="Let it run").click()
    await expect(shown.status).to_contain_text("running")
    await shown.tab.get_by_role("button", name="Cancel").click()
    await shown.tab.get_by_role("button", name="Cancel the run").click()
    await expect(shown.status).to_contain_text("cancelled")
    await expect(shown.row("clean")).to_contain_text("cancelled")
    await expect(shown.tab.locator(".verdict")).to_contain_text("The run was cancelled.")
    assert shown.trouble == []


async def test_two_who_look_at_a_run_see_the_same(opened: Open):
    gates = Gates()
    app = app_of({"flights": gates.pipeline()})
    shown = await opened(app)
    await shown.start()
    await expect(shown.row("clean")).to_contain_text("running")
    other = await opened(app, shown.tab.url.removeprefix(shown.base))
    await expect(other.row("clean")).to_contain_text("running")
    await expect(other.row("flights")).to_contain_text("succeeded")
    gates.open.set()
    for each in (shown, other):
        await expect(each.status).to_contain_text("succeeded")
        assert each.trouble == []


async def test_a_tab_that_nobody_sees_holds_no_stream_and_still_tells_the_end(opened: Open):
    gates = Gates()

    class Counts:
        def __init__(self, app: FastAPI) -> None:
            self.app, self.open, self.none = app, 0, asyncio.Event()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            is_stream = scope["path"].endswith("/events")
            self.open += is_stream
            try:
                await self.app(scope, receive, send)
            finally:
                self.open -= is_stream
                if is_stream and not self.open:
                    self.none.set()

    app = Counts(app_of({"flights": gates.pipeline()}))
    shown = await opened(app)
    await shown.start()
    await expect(shown.row("clean")).to_contain_text("running")
    assert app.open == 1
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await shown.tab.evaluate(hide, True)
    async with asyncio.timeout(20):
        await app.none.wait()
    gates.open.set()
    await expect(shown.tab).to_have_title(re.compile("✓"), timeout=20_000)
    assert app.open == 0
    await shown.tab.evaluate(hide, False)
    await expect(shown.tab.get_by_role("log").locator("li").last).to_contain_text("run.finished")
    assert shown.trouble == []


@pytest.mark.slow
async def test_a_run_whose_worker_was_killed_is_interrupted_and_goes_on_in_another(browser: Browser, tmp_path: Path):
    flag, workers = Flag(tmp_path), list[Worker]()
    context = await browser.new_context()
    try:
        workers.append(await asyncio.to_thread(Worker, tmp_path, str(tmp_path / "journal"), tmp_path / "store"))
        async with workers[0].client() as client:
            run = (await client.post("/p/slow/runs", json={"inputs": {"n": 1}})).json()["id"]
        await flag.until_called("held")
        await asyncio.to_thread(workers[0].kill)
        workers.append(await asyncio.to_thread(Worker, tmp_path, str(tmp_path / "journal"), tmp_path / "store"))
        shown = Shown(await context.new_page(), 0)
        await shown.tab.goto(f"{workers[1].url}/p/#/runs/{run}")
        await expect(shown.status).to_contain_text("interrupted")
        await expect(shown.tab.locator(".verdict")).to_contain_text("its process is gone")
        await expect(shown.row("first")).to_contain_text("succeeded")
        await flag.raise_()
        await shown.tab.get_by_role("button", name="Resume").click()
        await expect(shown.status).to_contain_text("succeeded")
        await expect(shown.row("first")).to_contain_text("resumed")
        assert await asyncio.to_thread(lambda: flag.calls) == ["first", "held", "held"]
        assert [each for each in shown.trouble if each.startswith("error")] == []
    finally:
        await context.close()
        for worker in workers:
            if worker.process.poll() is None:
                await asyncio.to_thread(worker.stop)


# -- the form --------------------------------------------------------------------------------------


async def test_what_is_typed_arrives_as_it_was_typed_and_what_is_left_is_left_out(opened: Open):
    gates = Gates()
    gates.open.set()
    shown = await opened(app_of({"flights": gates.pipeline()}), "#/pipelines/flights")
    await shown.tab.get_by_label("url").fill("x:'\"<b>&")
    await shown.tab.get_by_label("year").fill("12345678901234567890")
    await shown.tab.get_by_label("ratio").fill("+.5")
    await shown.tab.get_by_label("mode").select_option("sample")
    await shown.tab.get_by_label("day").fill("2013-02-28")
    await shown.tab.get_by_label("strict").uncheck()
    await shown.tab.get_by_label("carriers").fill('["UA", "ü"]')
    async with shown.tab.expect_request("**/flights/runs") as sent:
        await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.status).to_contain_text("succeeded")
    assert gates.given == [
        {
            "url": "x:'\"<b>&",
            "year": 12345678901234567890,
            "ratio": 0.5,
            "mode": "sample",
            "day": date(2013, 2, 28),
            "strict": False,
            "carriers": ["UA", "ü"],
        }
    ]
    request = await sent.value
    assert len(request.headers["idempotency-key"]) == 32
    await shown.goto("#/pipelines/flights")
    await shown.tab.get_by_label("url").fill("only")
    async with shown.tab.expect_request("**/flights/runs") as sent:
        await shown.tab.get_by_role("button", name="Start", exact=True).click()
    assert (await sent.value).post_data == '{"inputs":{"url":"only"}}'
    assert shown.trouble == []


async def test_what_cannot_be_right_is_said_at_its_field_before_it_is_sent(opened: Open):
    gates = Gates()
    shown = await opened(app_of({"flights": gates.pipeline()}), "#/pipelines/flights")
    start = shown.tab.get_by_role("button", name="Start", exact=True)
    await shown.tab.get_by_label("year").fill("20x3")
    await shown.tab.get_by_label("carriers").fill("[UA")
    await start.click()
    await expect(shown.tab.get_by_label("url")).to_be_focused()
    for label, said in (("url", "A value is needed."), ("year", "not a number"), ("carriers", "This is not JSON")):
        control = shown.tab.get_by_label(label)
        await expect(control).to_have_attribute("aria-invalid", "true")
        await expect(control).to_have_accessible_description(re.compile(said))
    await shown.tab.get_by_label("year").fill("2013")
    await expect(shown.tab.get_by_label("year")).not_to_have_attribute("aria-invalid", "true")
    assert gates.given == []
    assert shown.trouble == []


async def test_what_the_service_refuses_is_said_at_its_field(opened: Open):
    def total(prices: list[float], limit: int = 1) -> float:
        return sum(prices) * limit

    shown = await opened(app_of({"flights": Pipeline([total], inputs=("prices",))}), "#/pipelines/flights")
    await shown.tab.get_by_label("prices").fill('[1, "x"]')
    await shown.tab.get_by_text("Options").click()
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.tab.get_by_label("prices")).to_have_accessible_description(re.compile("^1: .*number"))
    await expect(shown.tab.get_by_label("prices")).to_be_focused()
    assert [each for each in shown.trouble if "422" not in each] == []


async def test_targets_and_a_time_limit_are_options(opened: Open):
    gates = Gates()
    shown = await opened(app_of({"flights": gates.pipeline()}), "#/pipelines/flights")
    await shown.tab.get_by_label("url").fill("u")
    await shown.tab.get_by_text("Options").click()
    await shown.tab.get_by_label("timeout_s").fill("20")
    await shown.tab.get_by_label("weather", exact=True).check()
    async with shown.tab.expect_request("**/flights/runs") as sent:
        await shown.tab.get_by_role("button", name="Start", exact=True).click()
    assert (await sent.value).post_data == '{"inputs":{"url":"u"},"targets":["weather"],"timeout_s":20}'
    await expect(shown.status).to_contain_text("succeeded")
    assert shown.trouble == []


async def test_a_resumed_run_is_given_its_secrets_again(opened: Open, tmp_path: Path):
    seen: list[str] = []

    async def fetch(token: Secret) -> int:
        seen.append(token.reveal())
        if len(seen) == 1:
            raise ConnectionError("503")
        return 1

    app = app_of({"flights": Pipeline([fetch], inputs=("token",))}, journal=tmp_path / "journal")
    shown = await opened(app, "#/pipelines/flights")
    token = shown.tab.get_by_label("token")
    assert await token.get_attribute("type") == "password"
    await token.fill("hush")
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.status).to_contain_text("failed")
    await shown.tab.get_by_role("button", name="Resume").click()
    dialog = shown.tab.get_by_role("dialog")
    await dialog.get_by_label("token").fill("hush again")
    await dialog.get_by_role("button", name="Resume").click()
    await expect(shown.status).to_contain_text("succeeded")
    assert seen == ["hush", "hush again"]
    assert shown.trouble == []


# -- lists -----------------------------------------------------------------------------------------


async def test_runs_are_listed_filtered_and_turned_over(opened: Open):
    async def work(fail: bool = False) -> int:
        if fail:
            raise ValueError("as asked")
        return 1

    shown = await opened(app_of({"flights": Pipeline([work]), "other": Pipeline([work])}))
    post = """async ([name, fail]) => {
        const body = JSON.stringify({inputs: {fail}}), headers = {"Content-Type": "application/json"};
        return (await fetch(`${name}/runs?wait=20`, {method: "POST", body, headers})).status;
    }"""
    for _ in range(28):
        assert await shown.tab.evaluate(post, ["flights", False]) == 200
    assert await shown.tab.evaluate(post, ["other", True]) == 200
    await shown.goto("#/runs")
    rows = shown.tab.locator("table.runs tbody tr")
    await expect(rows).to_have_count(25)
    await expect(rows.first).to_contain_text("other")
    await expect(rows.first).to_contain_text("as asked")
    await shown.tab.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(4)
    await shown.tab.get_by_role("button", name="Newest").click()
    await shown.tab.get_by_label("Status").select_option("failed")
    await expect(rows).to_have_count(1)
    await shown.tab.get_by_label("Status").select_option("")
    await shown.tab.get_by_label("Pipeline").select_option("other")
    await expect(rows).to_have_count(1)
    assert await shown.tab.evaluate(post, ["other", False]) == 200
    await expect(rows).to_have_count(2)  # nobody reloaded it
    await shown.goto("#/")
    card = shown.tab.locator(".cards li", has_text="other")
    await expect(card.locator(".dot")).to_have_count(2)
    assert shown.trouble == []


async def test_what_is_not_there_is_said(opened: Open):
    shown = await opened(app_of({"flights": Gates().pipeline()}), "#/runs/none")
    await expect(shown.tab.locator("#trouble")).not_to_be_empty()
    await shown.goto("#/pipelines/none")
    await expect(shown.tab.locator("#trouble")).not_to_be_empty()
    await shown.goto("#/%E0%A4%A/nonsense?%%%")
    await expect(shown.tab.get_by_role("heading", name="Pipelines")).to_be_visible()
    assert [each for each in shown.trouble if " 404 " not in each] == []


async def test_schedules_and_streams_are_watched_and_steered(opened: Open, tmp_path: Path):
    clicks = Queue()

    async def counted(batch: list[int]) -> int:
        return len(batch)

    async def broken() -> None:
        raise ValueError("<b>")

    runner = Runner(journal=tmp_path / "journal")
    app = app_of(
        {"flights": Gates().pipeline()},
        runner=runner,
        schedules=Schedules({"nightly": (Pipeline([broken]), Cron("0 3 * * *"))}, runner),
        streams={"clicks": run_stream([counted], clicks, into="batch", runner=runner)},
        queues={"clicks": clicks},
    )
    shown = await opened(app)
    await shown.tab.get_by_role("link", name="Schedules").click()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("0 3 * * *")
    await shown.tab.get_by_role("button", name="Pause nightly").click()
    await expect(shown.tab.get_by_role("button", name="Resume nightly")).to_be_focused()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("paused")
    await shown.tab.get_by_role("button", name="Resume nightly").click()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("waiting")
    await shown.tab.get_by_role("button", name="Trigger nightly").click()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("ValueError: <b>")
    link = shown.tab.get_by_role("link", name=re.compile("^failed, "))
    assert str(await link.get_attribute("href")).startswith("#/runs/nightly%40")
    await shown.tab.get_by_role("link", name="Streams").click()
    await clicks.deliver(1)
    await expect(shown.tab.locator("tbody tr td").nth(2)).to_have_text("1")
    await shown.tab.get_by_role("button", name="Pause clicks").click()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("paused")
    await shown.tab.get_by_role("button", name="Stop clicks").click()
    await shown.tab.get_by_role("button", name="Stop it").click()
    await expect(shown.tab.locator("tbody tr")).to_contain_text("finished")
    assert shown.trouble == []


async def test_nothing_is_said_of_schedules_and_streams_where_there_are_none(opened: Open):
    shown = await opened(app_of({"flights": Gates().pipeline()}))
    await expect(shown.tab.locator(".cards li")).to_have_count(1)
    await expect(shown.tab.get_by_role("link", name="Schedules")).to_be_hidden()
    await expect(shown.tab.get_by_role("link", name="Streams")).to_be_hidden()


# -- who may, and what breaks ----------------------------------------------------------------------


async def test_a_token_is_asked_for_and_sent_with_every_request(opened: Open):
    def known(authorization: str = Header("")) -> None:
        if authorization != "Bearer sesame":
            raise HTTPException(401, "Say the word.", headers={"WWW-Authenticate": "Bearer"})

    gates = Gates()
    app = app_of({"flights": gates.pipeline()}, auth=known, story=True)
    shown = await opened(app)
    await expect(shown.tab.get_by_text("Say the word.")).to_be_visible()
    await shown.tab.locator("#token-value").fill("wrong")
    await shown.tab.get_by_role("button", name="Use it").click()
    await expect(shown.tab.get_by_text("Say the word.")).to_be_visible()
    await shown.tab.locator("#token-value").fill("sesame")
    await shown.tab.get_by_role("button", name="Use it").click()
    await expect(shown.tab.locator(".cards li")).to_have_count(1)
    assert "sesame" not in str(await shown.tab.evaluate("JSON.stringify([localStorage, document.cookie])"))
    await shown.start()
    await expect(shown.row("clean")).to_contain_text("running")
    await expect(shown.tab.locator("svg g.is-running")).to_contain_text("clean")
    gates.open.set()
    await expect(shown.status).to_contain_text("succeeded")
    async with shown.tab.expect_download() as waiting:
        await shown.tab.get_by_role("link", name="publish as json").click()
    assert (await waiting.value).suggested_filename == "publish.json"
    async with shown.tab.expect_download() as waiting:
        await shown.tab.get_by_role("link", name="Story").click()
    assert (await waiting.value).suggested_filename.startswith("story-")
    assert [each for each in shown.trouble if " 401 " not in each and "blob:" not in each] == []


class Breaks:
    """An app whose first streams of events break after two pieces, and after one."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.asked, self.whole = app, list[str](), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("/events"):
            return await self.app(scope, receive, send)
        self.asked.append(dict(scope["headers"]).get(b"last-event-id", b"").decode())
        if len(self.asked) > 2:
            self.whole.set()
            return await self.app(scope, receive, send)
        gone, pieces, last = asyncio.Event(), 0, 3 - len(self.asked)

        async def broken(message: Any) -> None:
            nonlocal pieces
            pieces += message["type"] == "http.response.body"
            if gone.is_set():
                return
            await send({**message, "more_body": False} if pieces == last else message)
            if pieces == last:
                gone.set()

        async def left() -> Any:
            if not gone.is_set():
                await gone.wait()
            return {"type": "http.disconnect"}

        return await self.app(scope, left, broken)


async def test_a_stream_that_breaks_is_taken_up_where_it_broke(opened: Open):
    gates = Gates()
    app = Breaks(app_of({"flights": gates.pipeline()}))
    shown = await opened(app)
    await shown.start()
    async with asyncio.timeout(20):
        await app.whole.wait()
    gates.open.set()
    await expect(shown.status).to_contain_text("succeeded")
    lines = await shown.tab.get_by_role("log").locator("li").all_inner_texts()
    assert len([each for each in lines if "run.started" in each]) == 1
    assert app.asked[0] == ""
    assert int(app.asked[1]) == int(app.asked[2]) > 3
    assert shown.trouble == []


async def test_a_service_that_was_away_is_found_again_and_its_run_goes_on(browser: Browser, tmp_path: Path):
    gates = Gates()
    context = await browser.new_context()
    async with serving(app_of({"flights": gates.pipeline()}, journal=tmp_path / "journal")) as port:
        shown = Shown(await context.new_page(), port)
        await shown.start()
        await expect(shown.row("clean")).to_contain_text("running")
    await expect(shown.tab.locator("#trouble")).to_have_text("The service does not answer.")
    gates.open.set()
    async with serving(app_of({"flights": gates.pipeline()}, journal=tmp_path / "journal"), port):
        await expect(shown.tab.get_by_role("button", name="Resume")).to_be_visible(timeout=15_000)
        await expect(shown.tab.locator("#trouble")).to_be_empty()
        await shown.tab.get_by_role("button", name="Resume").click()
        await expect(shown.status).to_contain_text("succeeded")
        await expect(shown.row("flights")).to_contain_text("resumed")
        await context.close()
    assert [each for each in shown.trouble if "ERR_" not in each] == []


async def test_hostile_names_errors_and_inputs_do_nothing(opened: Open):
    frame = pd.DataFrame({EVIL: [EVIL]})

    def fails(x: pd.DataFrame) -> None:
        raise ValueError(EVIL)

    def made(given: str) -> pd.DataFrame:
        return frame.assign(given=given)

    steps = [
        step(made, name=EVIL, layer=EVIL, inputs={"given": f"in {EVIL}"}),
        step(fails, name=f"bad {EVIL}", inputs={"x": EVIL}),
    ]
    served = Served(Pipeline(steps, inputs=(f"in {EVIL}",)), description=EVIL)
    shown = await opened(app_of({"flights": served}), **PHONE)
    await expect(shown.tab.locator(".cards")).to_contain_text(EVIL)
    assert not await shown.too_wide()
    await shown.goto("#/pipelines/flights")
    await expect(shown.tab.locator(".lead")).to_have_text(EVIL)
    await shown.tab.get_by_label(f"in {EVIL}").fill(EVIL)
    assert not await shown.too_wide()
    await shown.tab.get_by_text("Options").click()
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.status).to_contain_text("failed")
    await expect(shown.tab.locator(".verdict")).to_contain_text(f"bad {EVIL}")
    await shown.tab.locator(".verdict button").click()
    await expect(shown.tab.locator("tr.detail pre")).to_contain_text("window.hacked=1")
    assert not await shown.too_wide()
    await shown.goto("#/runs")
    await expect(shown.tab.locator("table.runs tbody")).to_contain_text("flights")
    assert not await shown.too_wide()
    await shown.goto(f"#/runs/{EVIL}")
    await shown.goto(f"#/pipelines/{EVIL}")
    assert await shown.tab.evaluate("typeof window.hacked") == "undefined"
    assert await shown.tab.locator("script").count() == 1
    assert await shown.tab.locator("img").count() == 0
    assert [each for each in shown.trouble if " 404 " not in each] == []


async def test_a_large_run_keeps_the_page_small(opened: Open):
    async def one() -> int:
        return 1

    async def element(url: int) -> int:
        return url

    async def urls(one_0: int) -> list[int]:
        return list(range(10_000))

    steps = [step(one, name=f"one_{i}") for i in range(298)]
    app = app_of({"flights": Pipeline([*steps, urls, step(element, map_over="url", inputs={"url": "urls"})])})
    shown = await opened(app, "#/pipelines/flights")
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await expect(shown.status).to_contain_text("succeeded", timeout=30_000)
    await expect(shown.tab.get_by_text(re.compile(r"The last 200 of 6\d\d events"))).to_be_visible()
    await expect(shown.tab.get_by_role("log")).to_contain_text("10,000 of 10,000")
    await expect(shown.tab.get_by_text("Steps 1 to 100 of 300")).to_be_visible()
    await expect(shown.tab.locator(".mosaic rect.is-succeeded")).to_have_count(300)
    assert await shown.tab.evaluate("document.querySelectorAll('*').length") < 5_000
    await shown.tab.get_by_role("button", name="Next").click()
    await expect(shown.tab.get_by_text("Steps 101 to 200 of 300")).to_be_visible()
    await shown.tab.get_by_label("Find").first.fill("element")
    await expect(shown.tab.locator("table.steps tbody tr")).to_have_count(1)
    assert shown.trouble == []


# -- for everybody ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [PHONE, {"color_scheme": "dark"}, {"color_scheme": "light"}], ids=["phone", "dark", "light"]
)
async def test_every_view_is_accessible_and_fits_a_phone(opened: Open, options: Any):
    gates = Gates(fails=True)
    runner = Runner()
    schedules = Schedules({"nightly": (Pipeline([step(lambda: 1, name="one")]), Cron("0 3 * * *"))}, runner)
    app = app_of({"flights": gates.pipeline()}, runner=runner, story=True, schedules=schedules)
    shown = await opened(app, "#/pipelines/flights", **options)

    async def fine(where: str) -> None:
        assert await shown.serious() == [], where
        assert not await shown.too_wide(), where

    await expect(shown.tab.locator("svg.graph")).to_be_visible()
    await shown.tab.get_by_text("Options").click()
    await shown.tab.get_by_role("button", name="Start", exact=True).click()
    await fine("a form with errors")
    await shown.start()
    await expect(shown.row("clean")).to_contain_text("running")
    await fine("a live run")
    await shown.tab.get_by_role("button", name="Cancel").click()
    await fine("a question")
    await shown.tab.get_by_role("button", name="Let it run").click()
    gates.open.set()
    await expect(shown.status).to_contain_text("failed")
    await shown.tab.locator(".verdict button").click()
    await fine("a failed run")
    await shown.tab.get_by_role("button", name="Token").click()
    await fine("a token")
    for place, found in (("#/", ".cards li"), ("#/runs", "table.runs tbody tr"), ("#/schedules", "tbody tr")):
        await shown.goto(place)
        await expect(shown.tab.locator(found).first).to_be_visible()
        await fine(place)
    assert shown.trouble == []


async def test_everything_is_done_with_the_keyboard_and_the_focus_is_seen(opened: Open):
    gates = Gates()
    shown = await opened(app_of({"flights": gates.pipeline()}))
    await expect(shown.tab.locator(".cards li")).to_have_count(1)
    press = shown.tab.keyboard.press

    async def tab_to(target: Locator) -> None:
        for _ in range(60):
            if await target.count() and await target.first.evaluate("(each) => each === document.activeElement"):
                outline = await target.first.evaluate("(each) => getComputedStyle(each).outlineStyle")
                assert outline == "solid"
                return
            await press("Tab")
        raise AssertionError(f"{target} cannot be reached")

    await tab_to(shown.tab.get_by_role("link", name="Skip to the content"))
    await press("Enter")
    await tab_to(shown.tab.locator(".cards").get_by_role("link", name="flights"))
    await press("Enter")
    await expect(shown.tab.get_by_label("url")).to_be_visible()
    await tab_to(shown.tab.get_by_label("url"))
    await shown.tab.keyboard.type("u")
    await press("Enter")
    await expect(shown.row("clean")).to_contain_text("running")
    await tab_to(shown.tab.get_by_role("button", name="Cancel"))
    await press("Enter")
    await expect(shown.tab.get_by_role("button", name="Let it run")).to_be_focused()
    await press("Escape")
    await expect(shown.tab.get_by_role("dialog")).to_have_count(0)
    await expect(shown.tab.get_by_role("button", name="Cancel")).to_be_focused()
    await tab_to(shown.tab.get_by_role("button", name="flights", exact=True))
    await press("Space")
    await expect(shown.tab.locator("tr.detail")).to_contain_text("Rows")
    gates.open.set()
    await expect(shown.tab.get_by_role("status")).to_have_text("Run succeeded.")
    assert shown.trouble == []


async def test_nothing_moves_for_those_who_do_not_want_it(opened: Open):
    gates = Gates()
    app = app_of({"flights": gates.pipeline()})
    for motion, moves in (("reduce", "none"), ("no-preference", "breathe")):
        shown = await opened(app, reduced_motion=motion)
        await shown.start()
        await expect(shown.row("clean")).to_contain_text("running")
        found = await shown.row("clean").locator(".bar").evaluate("(bar) => getComputedStyle(bar).animationName")
        assert found == moves
    gates.open.set()
