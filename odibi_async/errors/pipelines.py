"""What is wrong with a configuration, or with a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from odibi_async.errors.base import OdibiError
from odibi_async.errors.wording import listed, located


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that is wrong in a configuration.

    Attributes:
        source: The file, as it was named; `<rows>` for what is no file.
        place: Where in it: `12:9` (line and column), `12: steps[0].engine` (line and key path), or `row 3,
            column Params`. Empty where the file as a whole is meant.
        message: What is wrong, and what would be right.
        code: What kind of fault it is.
    """

    source: str
    place: str
    message: str
    code: str

    def __str__(self) -> str:
        return f"{located(self.source, self.place)}: {self.message}"


class ConfigError(OdibiError):
    """
    A configuration cannot be read, or says what cannot be.

    Attributes:
        faults: Every fault that was found, each with its place.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return listed("configuration", list(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class GraphFault:
    """
    One thing that is wrong in a pipeline.

    Attributes:
        code: What kind of fault it is.
        message: What is wrong, and what would be right, in a sentence or two.
        step: The step that it is about, where it is about one.
        keys: What leads to the entry of this step that is at fault: `("inputs", "data")`.
        of_key: Whether it is the last of these keys that is wrong, not what stands behind it.
    """

    code: str
    message: str
    step: str | None = None
    keys: tuple[str | int, ...] = ()
    of_key: bool = False

    def __str__(self) -> str:
        return self.message


class GraphError(OdibiError):
    """
    The steps do not make a pipeline.

    Attributes:
        faults: Every fault that was found.
    """

    def __init__(self, faults: Sequence[GraphFault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return listed("pipeline", list(map(str, self.faults)))


class CycleError(GraphError):
    """
    Steps wait for each other in a circle.

    Attributes:
        cycle: The names of the steps along the circle; the first stands again at the end.
    """

    def __init__(self, faults: Sequence[GraphFault], cycle: Sequence[str]) -> None:
        super().__init__(faults)
        self.args = (faults, cycle)
        self.cycle = tuple(cycle)
