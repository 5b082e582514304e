"""
Plain Python values as lines of JSON, exactly: what comes back has the same types, all the way down.

None, booleans, numbers, texts and lists stand as JSON does; everything else as an object of one member, whose name
says what it is: `{"tuple": [1, 2]}`. A long container is cut into lines of some 64 KB each and refers to them, so
that neither writing nor parsing is ever one long call that keeps other threads waiting. The last line is the value.
Dictionaries keep their order; the order in which a set is iterated is no part of it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import pathlib
import struct
import sys
import zoneinfo
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, SafeUUID

from odibi_async.errors import Unstorable
from odibi_async.secret import Secret
from odibi_async.store import objects

LINE: Final = 2**16
"""Characters of a container's content after which a line of its own is begun."""

DEEPEST: Final = 100
"""Containers within containers that are kept; parsing deeper ones could exhaust the stack."""

_MUTABLE: Final = (list, dict, set, bytearray, OrderedDict, Counter, defaultdict, deque)
_PATHS: Final = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def dump(value: Any, attach: Callable[[Any], int | None] = lambda _: None) -> list[bytes]:
    """
    The lines that stand for a value.

    Args:
        value: Any plain value, or a container of such.
        attach: Takes what has bytes of its own, such as a frame, and gives the number that stands for it here.

    Raises:
        Unstorable: The value, or something in it, would not come back unchanged: a class that is not among
            those above (a subclass of one is not the class), something mutable that appears in it twice, a `Secret`.
    """
    writer = _Writer(attach)
    text = writer.text(value, 0)
    writer.check_memory()
    return [line.encode() for line in (*writer.lines, text)]


def parse(lines: list[bytes], attached: Sequence[Any] = ()) -> Any:
    """The value that the lines stand for. What `dump` did not write raises whatever parsing it raises."""
    return _Reader(lines, attached).value(json.loads(lines[-1]))


class _Writer:
    """Writes one value; `lines` are the parts of it that had to have lines of their own."""

    def __init__(self, attach: Callable[[Any], int | None]) -> None:
        self.lines: list[str] = []
        self._attach = attach
        self._mutable: dict[int, Any] = {}
        self._spans: list[tuple[int, int]] = []
        self._classes: dict[type, int] = {}

    def text(self, value: Any, depth: int) -> str:
        """The JSON of a value `depth` containers down."""
        cls = type(value)
        if cls in _MUTABLE:
            self._once(value)
        if cls in _ITEMS:
            return self._container(cls, value, depth)
        if cls in _SCALARS:
            return _SCALARS[cls](value)
        if cls in _PARTS:
            return _tagged(cls.__name__, self._listed(_PARTS[cls](value), depth))
        for library, written in _LIBRARIES.items():
            if library in sys.modules and (found := written(value)) is not None:
                tag, parts = found
                return _tagged(tag, self._listed(parts, depth))
        if cls is Secret:
            raise Unstorable("it holds a secret, and secrets are never written to disk.")
        if cls.__module__.partition(".")[0] in ("numpy", "pandas", "pyarrow") and (part := self._part(value, depth)):
            return part
        if (kind := objects.kind_of(value)) is not None:
            return self._object(cls, kind, value, depth)
        raise Unstorable(
            f"it holds a value of type {cls.__module__}.{cls.__qualname__}, which would not come back unchanged."
        )

    def check_memory(self) -> None:
        """
        Checks that no two arrays share memory: what is written to one would show in the other.

        Raises:
            Unstorable: Two do.
        """
        for (_, end), (start, _) in itertools.pairwise(sorted(self._spans)):
            if start < end:
                raise Unstorable("two arrays in it share their memory.")

    def _part(self, value: Any, depth: int) -> str | None:
        """The text of a frame or an array; `None` for what is neither."""
        is_array = type(value).__name__ == "ndarray"
        if is_array:
            from odibi_async.store import arrays

            self._spans.append(arrays.span(value))
        number = self._attach(value)
        if number is None and not is_array:
            return None
        self._once(value)
        if number is not None:
            return _tagged("part", f"[{number}]")
        return _tagged("array", self._container(list, arrays.cell(value), depth))

    def _object(self, cls: type, kind: str, value: Any, depth: int) -> str:
        if not objects.is_shared_safely(value, kind):
            self._once(value)
        if cls not in self._classes:
            self.lines.append(json.dumps(objects.described(cls)))
            self._classes[cls] = len(self.lines) - 1
        parts = self._container(list, objects.taken_apart(value, kind), depth)
        return _tagged("object", f'["{kind}",{self._classes[cls]},{parts}]')

    def _container(self, cls: type, value: Any, depth: int) -> str:
        if depth == DEEPEST:
            raise Unstorable(f"more than {DEEPEST} containers are nested in one another.")
        if getattr(value, "__dict__", None):
            raise Unstorable(f"a {cls.__name__} in it has attributes.")
        items = self._items(_ITEMS[cls](value), depth + 1)
        if isinstance(items, list):
            return _tagged("far", json.dumps([cls.__name__, items]))
        return items if cls is list else _tagged(cls.__name__, items)

    def _items(self, values: Iterable[Any], depth: int) -> str | list[int]:
        """The items as a JSON array or, when that is long, the numbers of the lines that hold them."""
        waiting: list[str] = []
        numbers: list[int] = []
        size = 0
        for value in values:
            text = self.text(value, depth)
            waiting.append(text)
            size += len(text)
            if size > LINE:
                numbers.append(self._line(waiting))
                waiting, size = [], 0
        if not numbers:
            return _array(waiting)
        numbers.append(self._line(waiting))
        return numbers

    def _line(self, items: list[str]) -> int:
        self.lines.append(_array(items))
        return len(self.lines) - 1

    def _listed(self, parts: Iterable[Any], depth: int) -> str:
        return _array([self.text(part, depth) for part in parts])

    def _once(self, value: Any) -> None:
        """Two places that share a mutable value would come back as two values."""
        if id(value) in self._mutable:
            raise Unstorable(f"the same {type(value).__name__} appears in it twice.")
        self._mutable[id(value)] = value


class _Reader:
    """Makes values from parsed JSON."""

    def __init__(self, lines: list[bytes], attached: Sequence[Any]) -> None:
        self._lines = lines
        self._attached = attached
        self._classes: dict[int, type] = {}

    def value(self, node: Any) -> Any:
        if type(node) is list:
            return [self.value(item) for item in node]
        if type(node) is not dict:
            return node
        ((tag, payload),) = node.items()
        if tag == "part":
            return self._attached[payload[0]]
        if tag == "object":
            return self._object(*payload)
        if tag == "array":
            from odibi_async.store import arrays

            return arrays.of_cell(self.value(payload))
        if tag == "far":
            tag, numbers = payload
            items: Iterable[Any] = self._far(numbers)
        else:
            items = map(self.value, payload)
        return _MADE[tag](items)

    def _object(self, kind: str, line: int, parts: Any) -> Any:
        if line not in self._classes:
            self._classes[line] = objects.class_of(json.loads(self._lines[line]))
        return objects.put_together(self._classes[line], kind, self.value(parts))

    def _far(self, numbers: list[int]) -> Iterator[Any]:
        for number in numbers:
            yield from map(self.value, json.loads(self._lines[number]))


def _tagged(tag: str, payload: str) -> str:
    return f'{{"{tag}":{payload}}}'


def _array(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def _string(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON would join two lone surrogates to one character
        return _tagged("surrogates", json.dumps([value.encode("utf-8", "surrogatepass").hex()]))
    return json.dumps(value)


def _integer(value: int) -> str:
    return str(value) if abs(value) < 2**63 else _tagged("int", f'["{value:x}"]')  # decimal digits are limited


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else _tagged("float", f'["{struct.pack(">d", value).hex()}"]')


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _pairs(value: dict[Any, Any]) -> Iterator[Any]:
    for pair in value.items():
        yield from pair


def _paired(items: Iterable[Any]) -> dict[Any, Any]:
    remaining = iter(items)
    return dict(zip(remaining, remaining, strict=True))


def _factory(value: defaultdict[Any, Any]) -> str | None:
    factory = value.default_factory
    name = getattr(factory, "__name__", "")
    if factory is not None and _FACTORIES.get(name) is not factory:
        raise Unstorable("a defaultdict in it has a factory that is none of Python's own types.")
    return name or None


def _made_default(items: Iterable[Any]) -> defaultdict[Any, Any]:
    name, *pairs = items
    return defaultdict(None if name is None else _FACTORIES[name], _paired(pairs))


def _made_deque(items: Iterable[Any]) -> deque[Any]:
    longest, *held = items
    return deque(held, longest)


_FACTORIES: Final[dict[str, Any]] = {
    cls.__name__: cls for cls in (list, dict, set, tuple, frozenset, int, float, complex, str, bytes, bool)
}


def _moment(value: dt.datetime) -> tuple[Any, ...]:
    return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, value.tzinfo


def _clock(value: dt.time) -> tuple[Any, ...]:
    return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, value.tzinfo


def _offset(value: dt.timezone) -> tuple[Any, ...]:
    offset = value.utcoffset(None)
    if value.tzname(None) != dt.timezone(offset).tzname(None):
        raise Unstorable("it holds a time zone with a name of its own.")
    return (offset,)


def _zone(value: zoneinfo.ZoneInfo) -> tuple[Any, ...]:
    if value.key is None or zoneinfo.ZoneInfo(value.key) is not value:
        raise Unstorable("it holds a time zone that was read from a file of its own.")
    return (value.key,)


_SCALARS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "null",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _float,
    str: _string,
}

_ITEMS: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    list: iter,
    tuple: iter,
    set: iter,
    frozenset: iter,
    dict: _pairs,
    OrderedDict: _pairs,
    Counter: _pairs,
    defaultdict: lambda value: (_factory(value), *_pairs(value)),
    deque: lambda value: (value.maxlen, *value),
}

_PARTS: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    bytes: lambda value: (_base64(value),),
    bytearray: lambda value: (_base64(value),),
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
    dt.datetime: _moment,
    dt.time: _clock,
    dt.date: lambda value: (value.isoformat(),),
    dt.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    dt.timezone: _offset,
    zoneinfo.ZoneInfo: _zone,
    Decimal: lambda value: (str(value),),
    UUID: lambda value: (value.hex, value.is_safe.value),
    **{cls: lambda value: (str(value),) for name in _PATHS for cls in (getattr(pathlib, name),)},
}
"""Classes whose values are made of other plain values."""


def _numpy_parts(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    import numpy as np

    if not isinstance(value, np.generic) or type(value) is not value.dtype.type or value.dtype.kind not in "biufcmM":
        return None
    if np.dtype(value.dtype.str).type is not type(value) or value.dtype.char in "gG":
        return None
    return "numpy", (value.dtype.str, value.tobytes().hex())


def _pandas_parts(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    import pandas as pd

    if value is pd.NaT or value is pd.NA:
        return ("NaT" if value is pd.NaT else "NA"), ()
    if type(value) is pd.Timedelta:
        return "Timedelta", (value.asm8.view("i8").item(), value.unit)
    if type(value) is pd.Timestamp and (value.tz is not None or not value.fold):
        utc = value if value.tz is None else value.tz_convert(None)
        return "Timestamp", (utc.asm8.view("i8").item(), value.unit, value.tzinfo)
    return None


_LIBRARIES: Final = {"numpy": _numpy_parts, "pandas": _pandas_parts}
"""Library -> tag and parts of a value of it; asked only when the library is loaded anyway."""


def _made_moment(items: Iterable[Any]) -> dt.datetime:
    text, fold, zone = items
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _made_clock(items: Iterable[Any]) -> dt.time:
    text, fold, zone = items
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _made_uuid(items: Iterable[Any]) -> UUID:
    text, safe = items
    return UUID(text, is_safe=SafeUUID(safe))


def _made_numpy(items: Iterable[Any]) -> Any:
    import numpy as np

    dtype, data = items
    return np.frombuffer(bytes.fromhex(data), dtype=dtype)[0]


def _made_pandas(name: str) -> Any:
    import pandas as pd

    return getattr(pd, name)


def _made_timestamp(items: Iterable[Any]) -> Any:
    import numpy as np
    import pandas as pd

    count, unit, zone = items
    moment = pd.Timestamp(np.datetime64(count, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


def _made_timedelta(items: Iterable[Any]) -> Any:
    import numpy as np
    import pandas as pd

    count, unit = items
    return pd.Timedelta(np.timedelta64(count, unit))


def _of_one(make: Callable[[Any], Any]) -> Callable[[Iterable[Any]], Any]:
    def made(items: Iterable[Any]) -> Any:
        (item,) = items
        return make(item)

    return made


def _of_all(make: Callable[..., Any]) -> Callable[[Iterable[Any]], Any]:
    return lambda items: make(*items)


_MADE: Final[dict[str, Callable[[Iterable[Any]], Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": _paired,
    "OrderedDict": lambda items: OrderedDict(_paired(items)),
    "Counter": lambda items: Counter(_paired(items)),
    "defaultdict": _made_default,
    "deque": _made_deque,
    "int": _of_one(lambda text: int(text, 16)),
    "float": _of_one(lambda text: struct.unpack(">d", bytes.fromhex(text))[0]),
    "surrogates": _of_one(lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass")),
    "bytes": _of_one(b64decode),
    "bytearray": _of_one(lambda text: bytearray(b64decode(text))),
    "complex": _of_all(complex),
    "range": _of_all(range),
    "datetime": _made_moment,
    "time": _made_clock,
    "date": _of_one(dt.date.fromisoformat),
    "timedelta": _of_all(dt.timedelta),
    "timezone": _of_one(dt.timezone),
    "ZoneInfo": _of_one(zoneinfo.ZoneInfo),
    "Decimal": _of_one(Decimal),
    "UUID": _made_uuid,
    **{name: _of_one(getattr(pathlib, name)) for name in _PATHS},
    "numpy": _made_numpy,
    "NaT": lambda _: _made_pandas("NaT"),
    "NA": lambda _: _made_pandas("NA"),
    "Timestamp": _made_timestamp,
    "Timedelta": _made_timedelta,
}
"""Tag -> what makes the value from its parts."""
