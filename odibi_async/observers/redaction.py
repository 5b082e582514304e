"""What texts about a run may show: no secrets, no passwords in URLs, nothing that breaks a line."""

from __future__ import annotations

from collections.abc import Collection

from odibi_async.errors import in_a_line, one_line
from odibi_async.events import RunStarted
from odibi_async.secret import redacted


class Redaction:
    """
    Masks the secrets of one run: those among the params of its steps and among its inputs, and passwords in URLs.

    Args:
        started: The first event of the run.
    """

    def __init__(self, started: RunStarted) -> None:
        self._started = started
        self._secrets: Collection[str] | None = None

    def __call__(self, text: str) -> str:
        """A text as it may be shown."""
        if self._secrets is None:  # looked for only when there is something to show: graphs may be large
            self._secrets = _secrets_of(self._started)
        return in_utf8(redacted(text, self._secrets))

    def line(self, text: str) -> str:
        """The same on one line."""
        return one_line(self(text))

    def error(self, error: BaseException) -> str:
        """What an error says, on one line."""
        return self.line(in_a_line(error))


def in_utf8(text: str) -> str:
    """
    A text that can be sent: lone surrogates, as in names of files, are escaped. Else libraries refuse to send it, and
    all that goes along with it.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _secrets_of(started: RunStarted) -> Collection[str]:
    own = (secret for outline in started.graph.values() for secret in outline.secrets)
    return {secret.reveal() for secret in (*own, *started.secrets)}
