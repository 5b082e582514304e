"""Digests of functions: they change with whatever the function's result depends on, and with nothing else."""

from __future__ import annotations

import contextlib
import fractions
import functools
import importlib
import json
import os
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import step
from odibi_async.fingerprint import Undigestible, code_of, combined, digest_of

Read = Callable[..., dict[str, str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Writes a package `sales` of the modules given, each time afresh, and gives `code_of` its `steps.clean`."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path, count = list(sys.path), 0

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "sales"]:
            del sys.modules[name]

    def load(name: str = "clean", **modules: str) -> Any:
        nonlocal count
        count += 1
        folder = tmp_path / str(count) / "sales"
        folder.mkdir(parents=True)
        for module, source in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
        forget()
        sys.path[:] = [str(folder.parent), *path]
        importlib.invalidate_caches()
        return code_of(getattr(importlib.import_module("sales.steps"), name))

    yield load
    forget()
    sys.path[:] = path


def changed(ours: dict[str, str], theirs: dict[str, str]) -> set[str]:
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


HELPERS = """
LIMIT = 10
UNUSED = 1
def tidy(x):
    return deeper(x)
def deeper(x):
    return x + LIMIT
def unused(x):
    return x
"""
STEPS = """
from sales.helpers import tidy
def clean(x):
    return tidy(x)
"""


def test_the_components_are_named_for_people(read: Read):
    found = read(
        helpers=HELPERS,
        steps="""
        import pandas as pd, re
        from sales import helpers
        FACTOR = {"a": 1}
        def clean(orders, limit=3, *, tax=0.2):
            return helpers.tidy(orders) * FACTOR["a"] + len(pd.DataFrame())
        """,
    )
    versions = {name: value for name, value in found.items() if name == "Python" or name.startswith("the library")}
    assert list(found)[: len(found) - len(versions)] == [
        "the code of clean",
        "the helper sales.helpers.tidy",
        "the constant sales.steps.FACTOR",
        "the default of 'limit' of clean",
        "the default of 'tax' of clean",
        "the helper sales.helpers.deeper",
        "the constant sales.helpers.LIMIT",
    ]
    import pandas

    assert versions["the library pandas"] == pandas.__version__
    assert "the library numpy" in versions
    assert versions["Python"].endswith(".".join(map(str, sys.version_info[:3])))


def test_comments_line_numbers_docstrings_and_what_is_not_read_do_not_count(read: Read):
    ours = read(helpers=HELPERS, steps=STEPS)
    theirs = read(
        helpers=HELPERS.replace("UNUSED = 1", "UNUSED = 2").replace(
            "unused(x):\n    return x", "unused(x):\n    return 2"
        ),
        steps="# a comment\n\n" + STEPS.replace("    return", "    # why\n\n    return"),
    )
    assert changed(ours, theirs) == set()
    documented = 'def clean(x):\n    """{}"""\n    return x\n'
    assert not changed(read(steps=documented.format("One.")), read(steps=documented.format("Two.")))
    told = 'def clean(x):\n    """{0}"""\n    return "{0}"\n'
    assert changed(read(steps=told.format("One.")), read(steps=told.format("Two.")))


CHANGES: dict[str, tuple[dict[str, str], str, str, set[str]]] = {
    "the code": (
        {"steps": "def clean(x): return x + 1"},
        "1",
        "2",
        {"the code of clean"},
    ),
    "an operator": (
        {"steps": "def clean(x): return x + 1"},
        "+",
        "-",
        {"the code of clean"},
    ),
    "the type of a constant": (
        {"steps": "def clean(x): return x + 1"},
        "1",
        "1.0",
        {"the code of clean"},
    ),
    "the sign of a zero": (
        {"steps": "def clean(x): return 0.0"},
        "return ",
        "return -",
        {"the code of clean"},
    ),
    "an attribute": (
        {"steps": "def clean(x): return x.min()"},
        "x.min",
        "x.max",
        {"the code of clean"},
    ),
    "a default": (
        {"steps": "def clean(x, limit=1): return x"},
        "1",
        "2",
        {"the default of 'limit' of clean"},
    ),
    "a default by keyword": (
        {"steps": "def clean(x, *, limit=1): return x"},
        "1",
        "2",
        {"the default of 'limit' of clean"},
    ),
    "a helper": (
        {"helpers": HELPERS, "steps": STEPS},
        "+",
        "-",
        {"the helper sales.helpers.deeper"},
    ),
    "a constant of a helper": (
        {"helpers": HELPERS, "steps": STEPS},
        "10",
        "11",
        {"the constant sales.helpers.LIMIT"},
    ),
    "a constant read through a module": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        from sales import settings
        def clean(x): return settings.LIMIT
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a constant read through packages": (
        {
            "settings": "LIMIT = [1]",
            "steps": """
        import sales.settings
        def clean(x): return sales.settings.LIMIT[0]
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a name imported in the body": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def clean(x):
            from sales.settings import LIMIT as most
            return most
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a module imported in the body": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def clean(x):
            import sales.settings as s
            return s.LIMIT
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a module imported in the body by its whole name": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def clean(x):
            import sales.settings
            return sales.settings.LIMIT
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a module imported in the body and used in a nested function": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def clean(x):
            from . import settings
            return [lambda: settings.LIMIT]
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "one of two modules that one name may stand for": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def clean(x):
            try:
                import json as s
            except ImportError:
                import sales.settings as s
            return s.LIMIT
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "a module in a closure": (
        {
            "settings": "LIMIT = 1",
            "steps": """
        def make():
            from sales import settings
            return lambda x: settings.LIMIT
        clean = make()
        """,
        },
        "1",
        "2",
        {"the constant sales.settings.LIMIT"},
    ),
    "the order of a dict that code may go through": (
        {
            "steps": """
        NAMES = {'a': 1, 'b': 2}
        def clean(x): return list(NAMES)
        """
        },
        "'a': 1, 'b': 2",
        "'b': 2, 'a': 1",
        {"the constant sales.steps.NAMES"},
    ),
    "a builtin that is shadowed": (
        {"steps": "def clean(x): return len(x)"},
        "def",
        "len = str\ndef",
        {"the code of clean"},
    ),
    "a name that was missing": (
        {"steps": "def clean(x): return later"},
        "def",
        "later = 1\ndef",
        {"the code of clean", "the constant sales.steps.later"},
    ),
    "a nested function": (
        {
            "steps": """
        def clean(x):
            def inner(y): return y + 1
            return inner(x)
        """
        },
        "1",
        "2",
        {"the code of clean"},
    ),
    "a lambda": (
        {"steps": "def clean(x): return map(lambda y: y + 1, x)"},
        "1",
        "2",
        {"the code of clean"},
    ),
    "a comprehension": (
        {"steps": "def clean(x): return [y + 1 for y in x]"},
        "1",
        "2",
        {"the code of clean"},
    ),
    "a constant that only a comprehension reads": (
        {
            "steps": """
        LIMIT = 1
        def clean(x): return [y + LIMIT for y in x]
        """
        },
        "1",
        "2",
        {"the constant sales.steps.LIMIT"},
    ),
    "a set among the constants": (
        {"steps": "def clean(x): return x in {'a', 'b'}"},
        "'b",
        "'c",
        {"the code of clean"},
    ),
    "how an exception is handled": (
        {
            "steps": """
        def clean(x):
            try:
                return x()
            except KeyError:
                return 1
        """
        },
        "KeyError",
        "ValueError",
        {"the code of clean"},
    ),
    "a keyword of a call": (
        {"steps": "def clean(x): return x.sum(axis=0)"},
        "axis",
        "skipna",
        {"the code of clean"},
    ),
    "a function among values": (
        {
            "steps": """
        def a(x): return 1
        STEPS = {'a': [a]}
        def clean(x): return STEPS['a'][0](x)
        """
        },
        "1",
        "2",
        {"the helper sales.steps.a"},
    ),
    "a default that is a function": (
        {
            "steps": """
        def a(x): return 1
        def clean(x, how=a): return how(x)
        """
        },
        "1",
        "2",
        {"the helper sales.steps.a"},
    ),
    "a partial's argument": (
        {
            "steps": """
        import functools
        def add(x, y): return x
        clean = functools.partial(add, y=1)
        """
        },
        "1",
        "2",
        {"how add is called"},
    ),
    "a partial's function": (
        {
            "steps": """
        import functools
        def add(x, y): return x
        clean = functools.partial(add, y=1)
        """
        },
        " x",
        " y",
        {"the code of add"},
    ),
    "the state of a callable object": (
        {
            "steps": """
        class Clean:
            def __init__(s, n): s.n = n
            def __call__(s, x): return x * s.n
        clean = Clean(1)
        """
        },
        "1",
        "2",
        {"how Clean.__call__ is called"},
    ),
    "the code of a callable object": (
        {
            "steps": """
        class Clean:
            def __call__(s, x): return x * 1
        clean = Clean()
        """
        },
        "1",
        "2",
        {"the code of Clean.__call__"},
    ),
    "the object of a bound method": (
        {
            "steps": """
        class C:
            def __init__(s, n): s.n = n
            def go(s, x): return x * s.n
        clean = C(1).go
        """
        },
        "1",
        "2",
        {"how C.go is called"},
    ),
    "an attribute of a function": (
        {
            "steps": """
        def clean(x): return clean.limit
        clean.limit = 1
        """
        },
        "1",
        "2",
        {"the attributes of clean"},
    ),
    "what is cached": (
        {
            "steps": """
        import functools
        @functools.lru_cache
        def price(x): return 1
        def clean(x): return price(x)
        """
        },
        "1",
        "2",
        {"the helper sales.steps.price"},
    ),
    "what a library's decorator wraps": (
        {
            "steps": """
        import contextlib
        @contextlib.contextmanager
        def on():
            yield 1
        def clean(x):
            with on() as y: return y
        """
        },
        "1",
        "2",
        {"the helper sales.steps.on"},
    ),
    "one implementation of many": (
        {
            "steps": """
        import functools
        @functools.singledispatch
        def price(x): return 1
        @price.register
        def of_text(x: str): return 5
        def clean(x): return price(x)
        """
        },
        "5",
        "6",
        {"the helper sales.steps.of_text"},
    ),
    "what is registered with an abstract class": (
        {
            "steps": """
        import abc
        class Known(abc.ABC): pass
        Known.register(int)
        def clean(x): return isinstance(x, Known)
        """
        },
        "int",
        "str",
        {"the class sales.steps.Known"},
    ),
    "the order of the members of a class": (
        {
            "steps": """
        class Names:
            a = 1; b = 2
        def clean(x): return list(vars(Names))
        """
        },
        "a = 1; b = 2",
        "b = 2; a = 1",
        {"the class sales.steps.Names"},
    ),
    "a pattern": (
        {
            "steps": """
        import re
        P = re.compile('a')
        def clean(x): return P.match(x)
        """
        },
        "'a'",
        "'a', re.I",
        {"the constant sales.steps.P"},
    ),
    "another step": (
        {
            "steps": """
        from odibi_async import step
        @step
        def other(x): return 1
        @step
        def clean(x): return other(x)
        """
        },
        "1",
        "2",
        {"the helper sales.steps.other"},
    ),
    "a frame among the constants": (
        {
            "steps": """
        import pandas as pd
        RATES = pd.DataFrame({'a': [1]})
        def clean(x): return RATES
        """
        },
        "1",
        "2",
        {"the constant sales.steps.RATES"},
    ),
}
"""What is changed -> the modules, what is replaced in them by what, and the components that differ then."""

CLASSES = """
import dataclasses, enum, abc, typing, functools
def half(x): return x / 2
class Base(abc.ABC):
    rate = 1
    def inherited(self): return "inherited"
    @abc.abstractmethod
    def needed(self): ...
class Order(Base):
    items: list[int] = []
    def needed(self): return "needed"
    def total(self): return "total"
    @property
    def tax(self): return "tax"
    @staticmethod
    def parse(x): return "parse"
    @classmethod
    def make(cls): return "make"
    @functools.cached_property
    def later(self): return "later"
    def helped(self, x): return half(x)
@dataclasses.dataclass(frozen=True)
class Line:
    n: int = 1
    some: "typing.ClassVar[typing.List]" = None
    other: typing.Optional[typing.List] = None
    tags: list[str] = dataclasses.field(default_factory=list, metadata={"unit": "EUR"})
class Kind(enum.Enum):
    A = "kind"
class Pair(typing.NamedTuple):
    a: int = 5
"""
USES = {
    "by name": "from sales.orders import Order, Line, Kind, Pair\ndef clean(x): return Order, Line, Kind, Pair",
    "through the module": "from sales import orders as o\ndef clean(x): return o.Order, o.Line, o.Kind, o.Pair",
    "by an object": "from sales.orders import Order, Line, Kind, Pair\n"
    "IT = [Order(), Line(), Kind.A, Pair()]\ndef clean(x): return IT",
}
MEMBERS = (
    *('"inherited"', '"needed"', '"total"', '"tax"', '"parse"', '"make"', '"later"', "x / 2", "rate = 1", "= []"),
    *("n: int", "int = 1", '"EUR"', '"kind"', "int = 5", "frozen=True"),
)


@pytest.mark.parametrize("title", CHANGES)
def test_a_change_of_what_a_function_depends_on_shows_and_is_named(read: Read, title: str):
    modules, old, new, expected = CHANGES[title]
    ours = read(**modules)
    assert changed(ours, read(**{name: source.replace(old, new) for name, source in modules.items()})) == expected
    assert read(**modules) == ours


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_of_a_class_that_is_used_counts(read: Read, use: str, member: str):
    new = {"n: int": "n: float", "= []": "= [1]", "frozen=True": "frozen=True, order=True"}.get(member)
    new = new or (member.replace('"', '"new ', 1) if '"' in member else member.replace("1", "2").replace("5", "6"))
    new = new.replace("x / 2", "x / 3")
    ours = read(orders=CLASSES, steps=USES[use])
    theirs = read(orders=CLASSES.replace(member, new), steps=USES[use])
    assert changed(ours, theirs)
    assert read(orders=CLASSES, steps=USES[use]) == ours


def make(factor: Any) -> Any:
    def clean(x: Any) -> Any:
        return x * factor

    return clean


def timed(seconds: Any) -> Any:
    def decorate(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args), seconds

        return wrapper

    return decorate


def test_closure_values_count():
    assert changed(code_of(make(2)), code_of(make(3))) == {"the closure value 'factor' of clean"}
    assert code_of(make(2)) == code_of(make(2))
    assert changed(code_of(make(make(2))), code_of(make(make(3))))


def test_the_decorator_and_what_it_wraps_count():
    def plain(x: int) -> int:
        return x

    def other(x: int) -> int:
        return x + 1

    other.__name__ = other.__qualname__ = plain.__name__
    assert changed(code_of(timed(1)(plain)), code_of(timed(2)(plain))) == {"the closure value 'seconds' of wrapper"}
    assert "the code of plain" in code_of(timed(1)(plain))
    assert "the helper tests.test_fingerprint_code.timed.decorate.wrapper" in code_of(timed(1)(plain))
    assert changed(code_of(timed(1)(plain)), code_of(plain))
    assert changed(code_of(timed(1)(plain)), code_of(timed(1)(other)))


def test_functions_of_one_name_are_told_apart_by_where_they_stand():
    two, three = make(2), make(3)

    def both(one: Any, other: Any) -> Any:
        return lambda x: one(x) - other(x)

    assert combined(code_of(both(two, three))) != combined(code_of(both(three, two)))
    assert combined(code_of(both(two, three))) == combined(code_of(both(make(2), make(3))))
    assert digest_of([two, three]) != digest_of([three, two])
    with pytest.raises(Undigestible, match="beside another one of its name"):
        digest_of({two, three})


def test_bare_objects_are_told_apart_by_which_they_are():
    missing, other = object(), object()

    def asks(default: Any) -> Any:
        return lambda x: (x is missing, x is other, default)

    assert combined(code_of(asks(missing))) == combined(code_of(asks(missing)))
    assert combined(code_of(asks(missing))) != combined(code_of(asks(other)))


def test_steps_and_bound_methods_go_by_their_function():
    def clean(x: int) -> int:
        return x

    assert digest_of(step(clean)) == digest_of(step(clean))
    assert "the code of clean" in code_of(step(clean))
    assert "the code of clean" in code_of(functools.partial(step(clean), 1))


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def test_functions_may_call_each_other_in_circles():
    ours, theirs = code_of(even), code_of(odd)
    assert "the helper tests.test_fingerprint_code.odd" in ours
    assert "the helper tests.test_fingerprint_code.even" in theirs

    def countdown(n: int) -> Any:
        return countdown(n - 1) if n else 0

    assert "the code of countdown" in code_of(countdown)


def test_values_are_looked_at_afresh():
    limit, rates = [1], pd.DataFrame({"a": [1]})

    def clean(x: Any) -> Any:
        return limit[0] + x, rates

    first = code_of(clean)
    limit[0] = 2
    rates.loc[0, "a"] = 2
    assert changed(first, code_of(clean)) == {
        "the closure value 'limit' of clean",
        "the closure value 'rates' of clean",
    }


def test_running_tracing_and_specialisation_do_not_count():
    def clean(x: int) -> int:
        total = 0
        for value in range(x):
            total += value
        return total

    before = code_of(clean)
    for _ in range(100):
        clean(100)
    assert code_of(clean) == before
    old = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        clean(100)
    finally:
        sys.settrace(old)
    assert code_of(clean) == before


def test_code_that_python_calls_equal_is_told_apart_by_its_name():
    ours, theirs = (
        next(const for const in compile(source, "m", "exec").co_consts if hasattr(const, "co_consts")).co_consts
        for source in ("class A:\n    def clean(x): return x", "class B:\n    def clean(x): return x")
    )
    one, other = (next(const for const in consts if hasattr(const, "co_code")) for consts in (ours, theirs))
    digests = [digest_of(types.FunctionType(code, {"__name__": "m"})) for code in (one, other, one)]
    assert digests[0] == digests[2] != digests[1]


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[1])
from sales.steps import clean
from odibi_async.fingerprint import code_of
print(json.dumps(code_of(clean)))
"""


def test_every_process_and_hash_seed_agrees(read: Read, tmp_path: Path):
    read(
        orders=CLASSES,
        steps=USES["by an object"] + " in {'a', 'b', 'c', None}\nIT.append({'x', 'y', 'z', Order, Line, Kind, Pair})",
    )
    printed = []
    for seed in "012":
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "1")]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        printed.append(json.loads(done.stdout))
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import threading\nclient = threading.Event()\ndef clean(x): return client.x",
            "the constant sales.steps.client is a threading.Event, which has no content to identify it by",
        ),
        (
            "import threading\ndef clean(x, a=[threading.Event()]): return a",
            r"the default of 'a' of clean\[0\] is a threading.Event, which has no content to identify it by",
        ),
        ("def clean(x): return globals()[x]", "the helper sales.steps.clean uses globals, which can reach anything"),
        ("def clean(x): return clean.__globals__[x]", "uses __globals__, which can reach anything"),
        ("def clean(x): return eval(x)", "the helper sales.steps.clean uses eval, which can reach anything"),
        ("import sys\ndef clean(x): return sys.modules[x]", "uses modules, which can reach anything"),
        ("import importlib as i\ndef clean(x): return i.import_module(x)", "uses import_module, which can reach"),
        (
            "from sales import helpers\ndef clean(x): return getattr(helpers, x)",
            "uses the module sales.helpers as a whole",
        ),
        (
            "def clean(x):\n    from sales import helpers as h\n    return vars(h)",
            "uses the module sales.helpers as a whole",
        ),
        (
            "from sales import helpers\nALL = [helpers]\ndef clean(x): return ALL",
            r"ALL\[0\] is the module sales.helpers",
        ),
        (
            "from sales import lazy\ndef clean(x): return lazy.LIMIT",
            "reads sales.lazy.LIMIT, which the module makes up",
        ),
        (
            "def clean(x):\n    class C:\n        from sales import helpers\n    return C.helpers.LIMIT",
            "uses the module sales.helpers as a whole",
        ),
        ("def clean(x):\n    import sales.broken", "imports sales.broken, which fails: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_told_is_undigestible(read: Read, source: str, message: str):
    with pytest.raises(Undigestible, match=message):
        read(helpers=HELPERS, lazy="def __getattr__(name): return 1", broken="1 / 0", steps=source)


@pytest.mark.parametrize(
    "source",
    [
        "import logging\nlog = logging.getLogger(__name__)\ndef clean(x): log.info(x)",
        "import threading\nlock = threading.Lock()\ndef clean(x):\n    with lock: return x",
        "from typing import TypeVar, cast, List\nT = TypeVar('T')\nIds = List[int]\n"
        "def clean(x): return cast(T, cast(Ids, x))",
        "import operator\nfirst = operator.itemgetter(0)\ndef clean(x): return first(x)",
        "from os import environ\ndef clean(x): return environ.get(x)",
        "import contextlib\n@contextlib.contextmanager\ndef on():\n    yield\ndef clean(x):\n    with on(): return x",
        "def clean(x):\n    import no_such_module\n    return no_such_module.y",
        "def clean(x):\n    import xml.dom.minidom as d\n    return d.parse(x)",
        "import numpy as np\nimport pandas as pd\n"
        "def clean(x): return np.nan_to_num(x).astype(np.int64), pd.NA, np.pi, pd.Timestamp",
        "class E(ValueError):\n    pass\ndef clean(x): raise E(x)",
        "from typing import Generic, TypeVar, Protocol\nT = TypeVar('T')\nclass P(Protocol):\n    def f(self): ...\n"
        "class C(Generic[T]):\n    def g(self: 'C[T]') -> T: ...\ndef clean(x): return C(), P",
        "class M(type):\n    pass\nclass C(metaclass=M):\n    __slots__ = ('a', 'b')\n"
        "    def g(self): return super().g()\n"
        "def clean(x): return C()",
    ],
)
def test_what_can_be_named_or_does_not_matter_is_no_hindrance(read: Read, source: str):
    assert read(steps=source) == read(steps=source)


def test_a_library_counts_by_its_version_and_is_not_followed(read: Read):
    found = read(steps="import anyio, yaml\ndef clean(x): return anyio.run, yaml.safe_load")
    import anyio
    import yaml

    assert found["the library pyyaml"] == yaml.__version__
    assert "the library anyio" in found
    assert "the library idna" in found  # which anyio needs
    assert not [name for name in found if "helper" in name]
    assert anyio


def test_the_package_of_the_function_is_followed_even_where_libraries_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "site-packages" / "installed_steps"
    folder.mkdir(parents=True)
    info = tmp_path / "site-packages" / "installed_steps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-steps\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("installed_steps\n")
    (info / "RECORD").write_text("installed_steps/__init__.py,,\n")
    (folder / "__init__.py").write_text("def helper(x): return x\ndef clean(x): return helper(x)\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    from odibi_async.fingerprint import libraries

    for each in (libraries._providers, libraries._distributions, libraries._versions, libraries._library_at):
        each.cache_clear()
    module = importlib.import_module("installed_steps")

    def ours(x: Any) -> Any:
        return module.clean(x)

    assert code_of(ours)["the library installed-steps"] == "1.0"
    assert "the helper installed_steps.helper" in code_of(module.clean)
    del sys.modules["installed_steps"]
    for each in (libraries._providers, libraries._distributions, libraries._versions, libraries._library_at):
        each.cache_clear()


def test_threads_agree():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(code_of, [even, odd, make(3)] * 50))
    assert len(set(map(combined, found))) == 3


def test_what_local_code_adds_to_pandas_is_followed(monkeypatch: pytest.MonkeyPatch):
    def add(text: str) -> None:
        def shout(frame: Any) -> str:
            return text

        monkeypatch.setattr(pd.DataFrame, "shout", shout, raising=False)

    def clean(frame: Any) -> Any:
        return frame.shout()

    add("a")
    ours = code_of(clean)
    add("b")
    assert changed(ours, code_of(clean)) == {"the closure value 'text' of shout"}


@pytest.mark.parametrize(
    ("owner", "made_of"),
    [
        (pd.DataFrame, property),
        (pd.DataFrame, staticmethod),
        (pd.DataFrame, classmethod),
        (pd.DataFrame, functools.cached_property),
        (pd.DataFrame.__mro__[-2], lambda fn: fn),
        (pd.RangeIndex, lambda fn: fn),
        (type(pd.Series(["a"]).str), lambda fn: fn),
        (type(pd.DataFrame().loc), property),
        (pd.api.typing.Rolling, functools.partialmethod),
    ],
)
def test_members_of_any_kind_that_local_code_adds_to_any_class_of_pandas_are_followed(
    owner: type, made_of: Any, monkeypatch: pytest.MonkeyPatch
):
    def add(text: str) -> None:
        def shout(*_: Any) -> str:
            return text

        monkeypatch.setattr(owner, "shout", made_of(shout), raising=False)

    def clean(data: Any) -> Any:
        return data.shout

    def named(data: Any) -> Any:
        return getattr(data, "shout")  # noqa: B009

    for reader in (clean, named):
        before = code_of(reader)
        add("a")
        ours = code_of(reader)
        add("b")
        assert changed(ours, code_of(reader)) == {"the closure value 'text' of shout"}
        monkeypatch.undo()
        assert code_of(reader) == before


def test_what_local_code_adds_to_a_class_that_is_named_is_followed(monkeypatch: pytest.MonkeyPatch):
    def shouting(mark: str) -> Callable[..., str]:
        def shout(self: Path) -> str:
            return str(self) + mark

        return shout

    def use(path: str) -> str:
        return Path(path).shout() + str(fractions.Fraction(1) + 1)  # type: ignore[attr-defined]

    seen = {combined(code_of(use))}
    for mark in ("!", "?"):
        monkeypatch.setattr(Path, "shout", shouting(mark), raising=False)
        seen.add(combined(code_of(use)))
    monkeypatch.undo()
    monkeypatch.setattr(fractions.Fraction, "__add__", shouting("+"))
    seen.add(combined(code_of(use)))
    assert len(seen) == 4


def test_what_local_code_puts_in_the_place_of_a_library_function_is_followed(monkeypatch: pytest.MonkeyPatch):
    def clean(frame: Any) -> Any:
        return json.dumps(frame)

    ours = code_of(clean)
    monkeypatch.setattr(json, "dumps", timed(1)(json.dumps))
    theirs = code_of(clean)
    assert changed(ours, theirs)
    monkeypatch.undo()
    monkeypatch.setattr(json, "dumps", timed(2)(json.dumps))
    assert changed(theirs, code_of(clean)) == {"the closure value 'seconds' of wrapper"}


def test_a_context_manager_function_of_ours_is_followed():
    @contextlib.contextmanager
    def opened() -> Iterator[int]:
        yield LIMIT

    def clean(x: Any) -> Any:
        with opened() as limit:
            return limit

    assert "the constant tests.test_fingerprint_code.LIMIT" in code_of(clean)


LIMIT = 5


def test_the_time_zone_belongs_to_code_that_looks_at_it(monkeypatch: pytest.MonkeyPatch):
    def looks(x: Any) -> Any:
        return x.astimezone()

    def does_not(x: Any) -> Any:
        return x.isoformat()

    seen = []
    for zone in ("Europe/Berlin", "America/Costa_Rica", "America/Mexico_City"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        seen.append((code_of(looks), code_of(does_not)))
    monkeypatch.undo()
    time.tzset()
    assert len({combined(looking) for looking, _ in seen}) == 3
    assert len({combined(blind) for _, blind in seen}) == 1


def test_code_of_no_module_is_local_code():
    names: dict[str, Any] = {}
    exec("def one(): return 1", names)
    other: dict[str, Any] = {}
    exec("def one(): return 2", other)
    assert code_of(names["one"]) != code_of(other["one"])
