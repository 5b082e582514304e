"""What a step registers with its engine for the length of one call, under names that nobody else has."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import uuid
from typing import Any, Final, Protocol

from odibi_async.errors import OptionError

LONGEST: Final = 40
"""Letters that a part of a view's name has at most, its digest not counted."""


class ViewEngine(Protocol):
    """What a `NodeContext` asks of an engine."""

    def register_temp(self, name: str, frame: Any, /) -> None: ...
    def drop_temp(self, name: str, /) -> None: ...


class NodeContext:
    """
    The views of one call of one step: registered under names of its own, dropped at the end.

        with NodeContext(engine, "clean") as views:
            orders = views.register_view("orders", frame)
            engine.execute_sql(f"SELECT * FROM {orders}", temps=[orders])

    A view is called `{node}_{session}_{thread}_{logical}`, in letters, digits and underscores that SQL
    needs no quotes for. Drop views only after lazy results that read them have been materialised.

    Args:
        engine: Where the views are registered.
        node: The name of the step, any text.
        session: What sets this call apart from all others of the step; `None` for a fresh one. Each run,
            attempt and element needs its own, since async elements share a thread.
    """

    def __init__(self, engine: ViewEngine, node: str, session: str | None = None) -> None:
        self.node = node
        self.session = uuid.uuid4().hex[:12] if session is None else session
        self._engine = engine
        self._prefix = f"{_safe(node, first=True)}_{_safe(self.session)}_{threading.get_ident()}"
        self._views: dict[str, str] = {}
        self._made = 0

    def __enter__(self) -> NodeContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def get_view_name(self, logical: str) -> str:
        """What the view of that logical name is called, or would be."""
        return f"{self._prefix}_{_safe(logical)}"

    def register_view(self, logical: str, frame: Any) -> str:
        """
        Registers a frame; a second one of the same name takes the place of the first.

        Returns:
            The name of the view, for SQL.

        Raises:
            OptionError: A view is registered whose name differs from this one by case only.
        """
        other = next((name for name in self._views if name.casefold() == logical.casefold()), logical)
        if other != logical:
            raise OptionError(f"The views {other!r} and {logical!r} are the same to SQL: rename one of them.")
        name = self.get_view_name(logical)
        self._engine.register_temp(name, frame)
        self._views[logical] = name
        self._made += 1
        return name

    def unregister_view(self, logical: str) -> None:
        """Drops a view, if it is there."""
        name = self._views.pop(logical, None)
        if name is not None:
            self._engine.drop_temp(name)

    def cleanup(self) -> None:
        """Drops all views. If dropping one fails, the others are dropped before that is raised."""
        with contextlib.ExitStack() as stack:
            for logical in list(self._views):
                stack.callback(self.unregister_view, logical)

    def get_stats(self) -> dict[str, Any]:
        """`node`, `session`, `views` (logical name -> view) and `registered` (how many there were in all)."""
        return {"node": self.node, "session": self.session, "views": dict(self._views), "registered": self._made}


def _safe(text: str, first: bool = False) -> str:
    """
    The text as part of an identifier. Texts that had to be changed get a digest, so they stay apart.

    Args:
        text: Any text.
        first: Whether the identifier begins with it, which it cannot do with a digit.
    """
    safe = re.sub(r"[^A-Za-z0-9_]", "_", text)[:LONGEST]
    if safe != text:
        safe = f"{safe}_{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
    return f"_{safe}" if first and not re.match("[A-Za-z_]", safe) else safe
