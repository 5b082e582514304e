"""A kind of fault, and what is to be said of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from textwrap import fill, indent
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """
    A kind of fault.

    Attributes:
        title: What is wrong, in a few words.
        text: Why it is wrong, and what to do.
        wrong: An example with this fault and no other.
        right: The same without it.
        form: What the examples are: a configuration, Python, or commands in a shell.
    """

    title: str
    text: str
    wrong: str
    right: str
    form: Literal["yaml", "csv", "toml", "python", "console"] = "yaml"

    def explained(self, code: str) -> str:
        """All of it, for reading."""
        parts = (
            f"{code}  {self.title}",
            fill(self.text, 100),
            "Wrong:",
            _set_in(self.wrong),
            "Right:",
            _set_in(self.right),
        )
        return "\n\n".join(parts)

    def as_data(self) -> dict[str, str]:
        """All of it, for JSON."""
        return asdict(self)


def _set_in(example: str) -> str:
    return indent(example.strip("\n"), "    ")
