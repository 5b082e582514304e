"""How one run treats its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError, did_you_mean
from odibi_async.graph.node import Node
from odibi_async.retry import Retry

OnError = Literal["raise", "continue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """
    How one run treats its steps.

    Attributes:
        retry: For steps that bring no policy of their own; `None` for one attempt.
        timeout: Seconds that the whole run may take; `None` for no limit.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: what can be done is done.
    """

    retry: Retry | None = None
    timeout: float | None = None
    on_error: OnError = "raise"

    @classmethod
    def of(cls, retry: Retry | None, timeout: float | None, on_error: OnError) -> Policies:
        """
        The policies that a caller asks for.

        Raises:
            OptionError: One of them has a value that it cannot have.
        """
        if on_error not in (known := get_args(OnError)):
            raise OptionError(f"on_error={on_error!r} is none of {', '.join(known)}.{did_you_mean(on_error, known)}")
        timeout = seconds_of("timeout", timeout, above_zero=True)
        if retry is not None and not isinstance(retry, Retry):
            raise OptionError(f"retry={retry!r}: a policy is needed, such as Retry(attempts=3).")
        return cls(retry=retry, timeout=timeout, on_error=on_error)

    def retry_of(self, node: Node) -> Retry | None:
        """How a step is called again: as it says itself, else as the run says, but for steps that publish."""
        if node.step.retry is not None or node.step.layer == "publish":
            return node.step.retry
        return self.retry
