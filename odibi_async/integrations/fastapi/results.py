"""The routes about what runs made: their datasets, and their story."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.kept import recorded_value
from odibi_async.integrations.fastapi.naming import RunId, named_in
from odibi_async.integrations.fastapi.problems import ServiceProblem, listed, unknown
from odibi_async.integrations.fastapi.service import Service
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.integrations.fastapi.stories import story_of_entry, story_of_recorded
from odibi_async.integrations.fastapi.tables import MEDIA, PIECES, json_of_value, table_of
from odibi_async.integrations.fastapi.values import Values

STORY_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_END: Final = object()


class ResultRoutes:
    """
    The routes about what runs made.

    Args:
        service: Finds the runs.
        values: Makes datasets into bytes.
        has_story: Whether runs have a story.
    """

    def __init__(self, service: Service, values: Values, *, has_story: bool) -> None:
        self._service = service
        self._values = values
        self._has_story = has_story
        self._downloads = 0

    def add_to(self, router: APIRouter, refusals: tuple[int, ...]) -> None:
        """Adds them."""
        contents: dict[str, Any] = {media.partition(";")[0]: {"schema": {}} for media in MEDIA.values()}
        found: Any = {
            200: {"description": "The dataset", "content": contents},
            **listed(*refusals, 404, 406, 410, 413, 422, 429, 503),
        }
        get = functools.partial(router.get, response_class=Response)
        place = "/runs/{run_id:odibi_name}/results/{dataset:odibi_name}"
        get(place, summary="A dataset that a run made", responses=found)(self.result)
        if self._has_story:
            page = {"description": "The story", "content": {"text/html": {"schema": {"type": "string"}}}}
            told: Any = {200: page, **listed(*refusals, 404, 409, 422, 503)}
            get("/runs/{run_id:odibi_name}/story", summary="The story of a run", responses=told)(self.story)

    async def result(
        self,
        request: Request,
        run_id: str,
        dataset: str,
        format: Annotated[str | None, Query(pattern="^(json|csv|parquet|arrow)$")] = None,  # noqa: A002
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    ) -> Response:
        """
        A dataset, in the form that `format` or `Accept` says. Rows are never left out in silence: where there are more
        than one answer may have, ask for parts with `offset` and `limit`. `X-Total-Rows` says how many there are.
        """
        # A dataset may be called "a/results/b": it is the first one that is the path's own.
        run_id, _, dataset = f"{run_id}/results/{dataset}".partition("/results/")
        form = format or _accepted(request.headers.get("accept", "*/*"))
        if self._downloads >= self._service.limits.downloads:
            raise ServiceProblem(429, "OA333", "Enough datasets are being sent.", headers={"Retry-After": "1"})
        self._downloads += 1
        try:
            value = await self._value(await self._service.find(named_in(run_id)), dataset)
            pieces, first, headers = await self._values.ask(self._begun, value, dataset, form, offset, limit)
        except BaseException:
            self._downloads -= 1
            raise
        return _Download(self._sent(first, pieces), media_type=MEDIA[form], headers=headers, on_end=self._ended)

    def _ended(self) -> None:
        self._downloads -= 1

    async def _value(self, found: Entry | Recorded, dataset: str) -> Any:
        shared = await self._service.shared()
        if isinstance(found, Entry):
            if found.outputs is not None and dataset in found.outputs:
                return found.outputs[dataset]
            if shared is None:
                unknown(_why_not(found, dataset))
            recorded = await shared.recorded(found.id)
            if recorded is None:
                unknown(_why_not(found, dataset))
            found = recorded
        assert shared is not None
        offer = self._service.offers[found.record.pipeline]
        return await self._values.ask(recorded_value, shared.journal, found, offer, dataset)

    def _begun(
        self, value: Any, dataset: str, form: str, offset: int, limit: int | None
    ) -> tuple[Iterator[bytes], bytes, Mapping[str, str]]:
        """The first piece of an answer, which may fail, those that follow, and the headers. Blocks."""
        table, headers = table_of(value), {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        rows = table.num_rows if table is not None else len(value) if isinstance(value, list | tuple) else None
        if rows is not None:
            headers["X-Total-Rows"] = str(rows)
            count = max(0, min(rows - offset, rows if limit is None else limit))
            if count > self._service.limits.rows:
                most = self._service.limits.rows
                raise ServiceProblem(
                    413,
                    "OA336",
                    f"Dataset {dataset!r} has {rows} rows; at most {most} are sent at a time: ?offset=0&limit={most}.",
                )
            value = value[offset : offset + count] if table is None else value
            table = None if table is None else table.slice(offset, count)
        if table is None and form != "json":
            raise ServiceProblem(406, "OA336", f"Dataset {dataset!r} is no frame: only JSON can say it.")
        pieces = json_of_value(value) if table is None else PIECES[form](table)
        try:
            return pieces, next(pieces, b""), headers
        except ServiceProblem:
            raise
        except Exception as error:  # a writer raises what it likes when it cannot write a type
            raise ServiceProblem(406, "OA336", f"Dataset {dataset!r} cannot be {form}: {str(error)[:200]}") from error

    async def _sent(self, first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        yield first
        while (piece := await self._values.ask(next, pieces, _END)) is not _END:
            yield piece

    async def story(self, request: Request, run_id: RunId) -> Response:
        """The story of a run: a page that loads nothing, in a sandbox of its own."""
        found = await self._service.find(run_id)
        shared = await self._service.shared()
        if shared is not None:
            offer = found.offer if isinstance(found, Entry) else self._service.offers[found.record.pipeline]
            page = await self._values.ask(story_of_recorded, shared.journal, run_id, offer)
        elif isinstance(found, Entry) and found.result is not None:
            page = await self._values.ask(story_of_entry, found)
        else:
            raise ServiceProblem(
                409, "OA334", f"The story of run {run_id!r} is told when it is over, and not for ever."
            )
        headers = {
            "Content-Security-Policy": STORY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return Response(page.encode(errors="backslashreplace"), media_type="text/html", headers=headers)


class _Download(StreamingResponse):
    """An answer in pieces that says when it is over, however it ends."""

    def __init__(
        self, content: AsyncIterator[bytes], *, on_end: Any, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _why_not(found: Entry, dataset: str) -> str:
    if found.ended is None:
        return f"Run {found.id!r} is not over."
    if dataset not in found.wanted:
        return f"Run {found.id!r} does not keep {dataset!r}: name it among the targets, or give the runner a journal."
    return f"Run {found.id!r} did not make {dataset!r}, or it is not kept any more."


def _accepted(accept: str) -> str:
    """
    The form that a client wants.

    Raises:
        ServiceProblem: It is none of ours.
    """
    known = {media.partition(";")[0]: form for form, media in MEDIA.items()}
    wanted: list[tuple[float, int, str]] = []
    for place, each in enumerate(accept.split(",")):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        said = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            quality = float(said)
        except ValueError:
            continue
        if quality > 0:
            wanted.append((-quality, place, kind))
    for _, _, kind in sorted(wanted):
        if kind in ("*/*", "application/*", ""):
            return "json"
        if kind == "text/*":
            return "csv"
        if kind in known:
            return known[kind]
    raise ServiceProblem(406, "OA336", f"Datasets are sent as {', '.join(known)}.")
