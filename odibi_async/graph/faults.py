"""What was found wrong with the steps of a graph."""

from __future__ import annotations

from typing import Any

from odibi_async.errors import GraphFault
from odibi_async.steps import Step


class Faults(list[GraphFault]):
    """The faults found so far; all of them are reported together."""

    def add(
        self, code: str, message: str, step: Step[..., Any, Any] | None = None, *keys: str | int, of_key: bool = False
    ) -> None:
        """Notes one more; `GraphFault` says what the arguments are."""
        self.append(GraphFault(code, message, None if step is None else step.name, keys, of_key))
