"""What others may implement."""

from __future__ import annotations

from collections.abc import Callable

from odibi_async.events import Event

Observer = Callable[[Event], object]
"""Anything that takes an event. Called on the loop's thread, in order; it must not block."""
