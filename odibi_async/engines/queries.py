"""What DuckDB itself says of a query: whether it parses, and whether it may give something else another time."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import duckdb

CLOCKS: Final = frozenset(("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"))
"""Functions that SQL calls without parentheses."""
SAFE_TABLES: Final = frozenset(("generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"))
"""Table functions that give what their arguments say."""


class Overload(NamedTuple):
    """
    One way to call a function.

    Attributes:
        takes: The types of its parameters.
        gives: The type of its result.
        stability: As DuckDB says; `None` for table functions and macros.
        definition: The body of a macro.
    """

    takes: tuple[str, ...]
    gives: str
    stability: str | None
    definition: str | None

    @property
    def is_changeable(self) -> bool:
        """Whether it may give something else another time; the session's time zone, which is known, apart."""
        if self.stability in (None, "CONSISTENT"):
            return False
        zoned = any("TIME ZONE" in kind or "TZ" in kind for kind in (*self.takes, self.gives))
        return self.stability == "VOLATILE" or not (self.takes and zoned)


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    """A database with nothing in it, to be asked through cursors."""
    return duckdb.connect(config={"python_enable_replacements": "false"})


@functools.cache
def functions() -> dict[str, list[Overload]]:
    """The functions of this DuckDB, by name."""
    found: dict[str, list[Overload]] = {}
    with _database().cursor() as connection:
        rows = connection.execute(
            "SELECT lower(function_name), parameter_types, return_type, stability, macro_definition"
            " FROM duckdb_functions() WHERE function_type <> 'pragma'"
        ).fetchall()
    for name, takes, gives, stability, definition in rows:
        found.setdefault(name, []).append(Overload(tuple(map(str, takes or ())), str(gives), stability, definition))
    return found


@functools.cache
def views() -> frozenset[str]:
    """DuckDB's views of itself that need no schema before their names."""
    with _database().cursor() as connection:
        rows = connection.execute("SELECT lower(view_name) FROM duckdb_views() WHERE internal AND schema_name = 'main'")
        return frozenset(name for (name,) in rows.fetchall())


def parsed(sql: str) -> dict[str, Any]:
    """The syntax tree of a query, as DuckDB serialises it; with `error` and `error_message` where it is none."""
    with _database().cursor() as connection:
        row: Any = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    tree: dict[str, Any] = json.loads(row[0])
    return tree


def syntax_fault(sql: str) -> str:
    """What keeps a text from being one SELECT, with its line and column where that is known; empty for nothing."""
    tree = parsed(sql)
    if tree["error"]:
        message = str(tree["error_message"])
        if "SELECT statements can be serialized" in message:
            return "one SELECT statement is needed."
        at = tree.get("position")
        lines = [] if at is None else sql.encode()[: int(at)].decode(errors="ignore").split("\n")
        where = f" (line {len(lines)}, column {len(lines[-1]) + 1})" if lines else ""
        return f"{message}{where}."
    count = len(tree["statements"])
    return "" if count == 1 else f"one SELECT statement is needed, not {count or 'none'}."


@functools.lru_cache(1024)
def changes_by_itself(sql: str) -> str:
    """
    What makes a query give something else another time, in words: the clock, chance, a sample, the session.

    Empty when its rows follow from the frames that it reads, its params and the time zone. DuckDB's own parser and
    catalogue are asked, so that no spelling and no new function goes unseen.
    """
    tree = parsed(sql)
    if tree["error"]:
        return "something that cannot be told"  # it is no SELECT: running it will say so
    return next(_doubts(tree, frozenset()), "")


def _doubts(tree: Any, expanding: frozenset[str]) -> Iterator[str]:
    for entry in _entries(tree):
        if entry.get("sample"):
            yield "a sample"
        if "function_name" in entry:
            yield from _of_function(entry, expanding)
        kind = entry.get("type")
        if kind == "COLUMN_REF" and len(entry["column_names"]) == 1 and entry["column_names"][0].lower() in CLOCKS:
            yield entry["column_names"][0]
        elif kind == "BASE_TABLE" and (entry.get("schema_name") or entry["table_name"].lower() in views()):
            yield f"the table {entry['table_name']}, which is none of its inputs"
        elif kind == "TABLE_FUNCTION" and entry["function"].get("function_name", "").lower() not in SAFE_TABLES:
            yield f"{entry['function'].get('function_name')}()"


def _of_function(entry: dict[str, Any], expanding: frozenset[str]) -> Iterator[str]:
    name = str(entry["function_name"]).lower()
    count = len(entry.get("arguments", entry.get("children", ())))
    if name == "age" and count == 1:  # it counts from today
        yield "age() from today"
    for overload in functions().get(name, ()):
        if overload.is_changeable:
            yield f"{name}()"
        if overload.definition and name not in expanding:
            text = overload.definition
            tree = parsed(text if text.lstrip().upper().startswith(("SELECT", "WITH", "FROM")) else f"SELECT {text}")
            if not tree["error"]:
                yield from _doubts(tree, expanding | {name})


def _entries(tree: Any) -> Iterator[dict[str, Any]]:
    """All mappings within a tree, in order."""
    ahead = [tree]
    while ahead:
        each = ahead.pop()
        if isinstance(each, dict):
            yield each
            ahead.extend(reversed(list(each.values())))
        elif isinstance(each, list):
            ahead.extend(reversed(each))
