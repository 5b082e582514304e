"""The base of all errors, and those that may come from anywhere."""

from __future__ import annotations


class OdibiError(Exception):
    """
    The base of all errors of this package.

    Attributes:
        code: What kind of fault it is.
    """

    code: str = "OA301"


class OptionError(OdibiError, ValueError):
    """An argument has a value that it cannot have."""

    code = "OA502"


class ExtraMissing(OdibiError, ImportError):
    """
    A library is not installed that only some pipelines need.

    Attributes:
        purpose: What it is needed for.
        extra: The extra of this package that brings it.
    """

    code = "OA309"

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(purpose, extra)
        self.purpose = purpose
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.purpose} needs a library that is not installed: pip install 'odibi_async[{self.extra}]'"


class OutsideStep(OdibiError):
    """`current_step()` was called by code that is not part of a step."""

    code = "OA502"

    def __str__(self) -> str:
        return "current_step() was called outside a step: only the code of a running step belongs to one."
