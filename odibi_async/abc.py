"""What others may implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from odibi_async.events import Event
from odibi_async.steps import Step

Observer = Callable[[Event], object]
"""Anything that takes an event. Called on the loop's thread, in order; it must not block."""

NodeType = Callable[[Step[..., Any, Any]], Callable[..., Any]]
"""
What a layer of configured steps means: takes a step, when the pipeline is made, and gives what is to be called.
Its parameters are bound like any function's, by the step's inputs and params; `engine` gets the engine's context.
"""
