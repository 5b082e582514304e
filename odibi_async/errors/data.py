"""What is wrong with data: where they are read from and written to, and with what is kept of them."""

from __future__ import annotations

from odibi_async.errors.base import OdibiError


class PathError(OdibiError):
    """
    A dataset cannot be read from, or written to, the place that was named.

    Attributes:
        path: The place, as it was given.
        reason: Why not.
    """

    code = "OA307"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path!r} cannot be used: {self.reason}"


class SqlError(OdibiError):
    """A query that is refused, or that does not fit the frames it reads."""

    code = "OA308"


class CrossingError(OdibiError):
    """
    A frame cannot go from one engine to another as it is.

    Attributes:
        what: The frame: `the input 'orders' of step 'clean'`.
        where: Where it was to go.
        reason: Why it cannot, in a sentence.
    """

    code = "OA313"

    def __init__(self, what: str, where: str, reason: str) -> None:
        super().__init__(what, where, reason)
        self.what = what
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what[:1].upper()}{self.what[1:]} cannot go to {self.where} as it is: {self.reason}"


class EngineError(OdibiError):
    """An engine cannot be started, or what it works with is gone; the text says why."""

    code = "OA314"


class Unstorable(OdibiError):
    """A value is not kept, because it would not come back from the disk as it is; the text says why, in a sentence."""

    code = "OA311"


class Damaged(OdibiError):
    """What was kept on the disk is missing, or no longer what was written; the text says which, in a sentence."""

    code = "OA311"


class CacheUnavailable(OdibiError):
    """The cache's index cannot be read or written now; the text says why."""

    code = "OA311"
