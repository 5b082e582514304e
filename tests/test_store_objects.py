"""Values of classes that hold data, and frames and arrays within containers, on disk and in a run's cache."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import sys
import types
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from odibi_async import CachePolicy, Status, run_pipeline, step
from odibi_async.errors import Damaged, Unstorable
from odibi_async.fingerprint import digest_of
from odibi_async.store import Kept, Store
from odibi_async.store.blobs import digest_of_bytes

DIGEST = "d" * 64
T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any = None


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Report:
    name: str
    frame: Any = None
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = pydantic.Field(1, ge=0)
    b: list[int] = []
    _hidden: int = pydantic.PrivateAttr(3)

    @pydantic.field_validator("a")
    @classmethod
    def checked(cls, value: int) -> int:
        return value

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.a


class Root(pydantic.RootModel[list[int]]):
    pass


class Refuses:
    def __new__(cls) -> Refuses:
        raise AssertionError("user code ran")


@dataclasses.dataclass
class Built:
    x: int

    def __post_init__(self) -> None:
        assert self.x == 1


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2], "b": ["x", None]})


VALUES: dict[str, Any] = {
    "enum": Colour.BLUE,
    "int enum": [Level.LOW, 1],
    "flags": Right.READ | Right.WRITE,
    "no flags": Right(0),
    "named tuple": Point(1, [2]),
    "named tuple of collections": Pair((1,), {"a": Colour.RED}),
    "data class": Report("n", frame(), ["t"]),
    "frozen, twice": [Frozen(1), Frozen((1, 2))],
    "generic data class": Box(Box({1: 2})),
    "many": [Report(str(number)) for number in range(3000)],
    "model": Model(a=2, b=[1], more="x"),  # type: ignore[call-arg]
    "root model": Root([1, 2]),
    "frames": {"a": frame(), "b": (frame()["a"], frame().index)},
    "arrays": [np.arange(3), np.zeros((2, 3), order="F"), np.array(["a"]), np.array([], "f4")],
    "table": (pa.table({"a": [[1], None]}),),
    "list column": pd.DataFrame({"a": [np.array([1, 2]), np.array([], "i8"), None], "b": [{"x": 1}, {}, {"y": None}]}),
    "deep list column": pd.DataFrame({"a": [np.array([np.array([1]), np.array([2, 3])], dtype=object)]}),
    "collections": [
        collections.OrderedDict(b=1, a=2),
        collections.Counter("abca"),
        collections.defaultdict(list, {1: [2]}),
        collections.defaultdict(None, {1: 2}),
        collections.deque([1, 2], 3),
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def there_and_back(store: Store, value: Any) -> Any:
    return store.load(Kept.from_json(store.keep(value, DIGEST).to_json()))


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_with_the_same_digest_and_types(store: Store, name: str):
    value = VALUES[name]
    back = there_and_back(store, value)
    assert digest_of(back, ordered=True) == digest_of(value, ordered=True)
    assert type(back) is type(value)


def test_enums_come_back_as_themselves_and_data_classes_equal(store: Store):
    assert there_and_back(store, [Colour.RED])[0] is Colour.RED
    assert there_and_back(store, Report("n", None, ["t"])) == Report("n", None, ["t"])
    back = there_and_back(store, Model(a=2, more="x"))  # type: ignore[call-arg]
    assert back == Model(a=2, more="x")  # type: ignore[call-arg]
    assert (back.model_fields_set, back._hidden, back.twice) == ({"a", "more"}, 3, 4)


def test_what_comes_back_is_put_together_without_the_classs_own_code(store: Store):
    made = Built(1)
    made.x = 2  # its __post_init__ would not take that
    assert there_and_back(store, made).x == 2


def test_read_only_arrays_come_back_read_only_also_within_others(store: Store):
    array = np.arange(3)
    array.flags.writeable = False
    assert not there_and_back(store, array).flags.writeable
    assert not there_and_back(store, (array,))[0].flags.writeable
    assert not there_and_back(store, pd.DataFrame({"a": [array]}))["a"][0].flags.writeable
    assert there_and_back(store, np.arange(3)).flags.writeable
    assert digest_of(array) != digest_of(np.arange(3))


def local_class() -> Any:
    @dataclasses.dataclass
    class Local:
        x: int

    return Local(1)


ARRAY = np.arange(10)
FRAME = frame()


@pytest.mark.parametrize(
    ("value", "because"),
    [
        (local_class(), "is not found by this name"),
        ([ARRAY, ARRAY], "the same ndarray appears in it twice"),
        ([ARRAY[:6], ARRAY[5:]], "share their memory"),
        ((FRAME, FRAME), "the same DataFrame appears in it twice"),
        (pd.DataFrame({"a": [ARRAY[:6], ARRAY[5:]]}), "share their memory"),
        ([report := Report("x"), report], "the same Report appears in it twice"),
        (collections.defaultdict(lambda: 1), "factory"),
        ({"a": np.array([object()])}, "object"),
        (types.SimpleNamespace(a=1), "SimpleNamespace"),
    ],
)
def test_what_would_not_come_back_as_it_is_is_refused(store: Store, value: Any, because: str):
    with pytest.raises(Unstorable, match=because):
        store.keep(value, DIGEST)


def test_neighbours_in_one_memory_are_no_overlap(store: Store):
    value = [ARRAY[:5], ARRAY[5:]]
    assert [each.tolist() for each in there_and_back(store, value)] == [each.tolist() for each in value]


def test_a_class_that_is_another_by_now_or_is_not_loaded_is_damage(store: Store, monkeypatch: pytest.MonkeyPatch):
    kept = store.keep(Point(1), DIGEST)

    class Point2(NamedTuple):
        x: int
        y: Any = 5

    Point2.__qualname__, Point2.__name__ = "Point", "Point"
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "Point", Point2)
    with pytest.raises(Damaged, match="is not the one that it was"):
        store.load(kept)
    monkeypatch.delattr(module, "Point")
    with pytest.raises(Damaged, match="is not the one that it was"):
        store.load(kept)
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(Damaged, match="is not the one that it was"):
        store.load(kept)


def test_what_names_a_class_of_another_kind_is_put_together_as_nothing(store: Store):
    kept = store.keep(Frozen(1), DIGEST)
    assert kept.inline is not None
    for name in ("Refuses", "Colour", "ARRAY", "there_and_back"):
        forged = kept.inline.replace(b'"Frozen"', f'"{name}"'.encode())
        changed = dataclasses.replace(kept, inline=forged, size=len(forged), blob=digest_of_bytes([forged]))
        with pytest.raises(Damaged):
            store.load(changed)


# In a run's cache


async def twice(tmp_path: Path, *steps: Any, **given: Any) -> tuple[Any, Any]:
    made = [await run_pipeline(list(steps), given, cache=tmp_path / "cache") for _ in range(2)]
    return made[0], made[1]


def plus_one(read: Any) -> Any:
    read += 1
    return int(read.sum())


def total(read: Any) -> int:
    return int(read.sum())


def fresh(x: int) -> Any:
    return np.arange(x)


def handed_on(array: Any) -> Any:
    return array


def both(x: int) -> Any:
    array = np.arange(x)
    return array, array


async def test_an_array_that_a_later_reader_changes_is_nobody_elses(tmp_path: Path):
    steps = [
        step(fresh, name="array"),
        step(handed_on, name="same"),
        step(plus_one, name="changed", inputs={"read": "same"}),
        step(total, name="first", inputs={"read": "array"}, after=("changed",)),
        step(total, name="second", inputs={"read": "same"}, after=("changed",)),
    ]
    plain = await run_pipeline(steps, {"x": 4})
    assert (plain["changed"], plain["first"], plain["second"]) == (10, 6, 6)
    for result in await twice(tmp_path, *steps, x=4):
        assert {name: result[name] for name in ("changed", "first", "second")} == {
            "changed": 10,
            "first": 6,
            "second": 6,
        }
    assert result.steps["second"].status is Status.CACHED


async def test_two_outputs_that_are_one_array_are_two_for_their_readers(tmp_path: Path):
    steps = [
        step(both, outputs=("a", "b")),
        step(plus_one, name="changed", inputs={"read": "a"}),
        step(total, name="other", inputs={"read": "b"}, after=("changed",)),
    ]
    for result in (await run_pipeline(steps, {"x": 4}), *(await twice(tmp_path, *steps, x=4))):
        assert (result["changed"], result["other"]) == (10, 6)


def rows_of(x: int) -> list[dict[str, int]]:
    return [{"n": x}, {"n": 0}]


def some(rows: list[dict[str, int]]) -> list[dict[str, int]]:
    return [row for row in rows if row["n"]]


def count_up(some: list[dict[str, int]]) -> int:
    some[0]["n"] += 1
    return some[0]["n"]


def last(rows: list[dict[str, int]]) -> int:
    return rows[0]["n"]


async def test_what_shares_parts_with_what_it_read_gives_the_same_made_anew_and_found(tmp_path: Path):
    steps = [
        step(rows_of, name="rows"),
        some,
        step(count_up, cache=False),
        step(last, after=("count_up",), cache=False),
    ]
    first, second = await twice(tmp_path, *steps, x=1)
    assert second.steps["some"].status is Status.CACHED
    assert (first["count_up"], first["last"]) == (second["count_up"], second["last"]) == (2, 1)


@pytest.mark.parametrize("name", VALUES)
async def test_steps_with_such_results_are_cached(tmp_path: Path, name: str):
    made = step(lambda x: VALUES[x], name="made", cache=CachePolicy(version=1))
    first, second = await twice(tmp_path, made, x=name)
    assert second.steps["made"].status is Status.CACHED, second.steps["made"].cache
    assert await asyncio.to_thread(digest_of, first["made"]) == await asyncio.to_thread(digest_of, second["made"])


NESTED = st.recursive(
    st.sampled_from([1, "x", None, Colour.RED, Right.READ, Point(1), Frozen(2.5)])
    | st.builds(lambda n: np.arange(n), st.integers(0, 3))
    | st.builds(lambda n: pd.DataFrame({"a": range(n)}), st.integers(0, 2)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Report, st.text(max_size=2), inner)
        | st.builds(Point, st.integers(), inner)
        | st.builds(Frozen, inner)
        | st.builds(lambda items: collections.deque(items), st.lists(inner, max_size=2))
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("nested"))


@settings(max_examples=150, deadline=None)
@given(value=NESTED)
def test_nested_values_come_back_equal_or_are_refused(shared_store: Store, value: Any):
    try:
        kept = shared_store.keep(value, DIGEST)
    except Unstorable:  # hypothesis drew something once and put it in two places
        reject()
    assert digest_of(shared_store.load(kept), ordered=True) == digest_of(value, ordered=True)
