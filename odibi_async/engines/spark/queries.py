"""SQL on Spark: one query whose logical names are its own, and what Spark itself says of a query."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from odibi_async.engines.spark.failures import first_lines
from odibi_async.engines.spark.session import is_connect
from odibi_async.errors import SqlError

_END: Final = re.compile(r";\s*(?:--[^\n]*(?:\n|$)\s*|/\*.*?\*/\s*)*\Z", re.DOTALL)
_COMMENT: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(--[^\n]*|/\*.*?\*/)", re.DOTALL)
_RELATION: Final = re.compile(r"'UnresolvedRelation \[(.*?)\]")
CLOCKS: Final = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtimestamp", "current_timezone", "current_user")
    + ("session_user", "current_catalog", "current_database", "current_schema", "tablesample")
)
"""Words that ask for something outside of the frames, with or without parentheses."""
CALLED: Final = frozenset(
    ("now", "curdate", "unix_timestamp", "user", "version", "rand", "randn", "random", "randstr", "uniform", "uuid")
    + ("shuffle", "monotonically_increasing_id", "spark_partition_id", "input_file_name", "input_file_block_start")
    + ("input_file_block_length", "java_method", "reflect", "try_reflect", "from_utc_now", "read_files")
)
"""Functions whose results do not follow from their arguments. Spark's own registry adds to them."""
_SPECIAL: Final = re.compile(r"['\"]\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)


def run(session: Any, sql: str, frames: Mapping[str, Any], params: Mapping[str, Any] | None) -> Any:
    """
    The lazy frame of one query over frames, known in it by their names here.

    Names are bound as common table expressions over arguments, so that nothing is registered that another step could
    see or replace.

    Args:
        session: The Spark session.
        sql: One query, in Spark's dialect.
        frames: What it may read; with them, tables of the session's catalogue.
        params: The value of each `:name` in it.

    Raises:
        SqlError: It is not one query, or does not fit the frames or the params.
    """
    check_names(frames)
    check_one_query(session, sql)
    text = _END.sub("", sql)
    if frames:
        places = {f"odibi_{i}": name for i, name in enumerate(frames)}
        bound = ", ".join(f"{_quoted(name)} AS (SELECT * FROM {{{place}}})" for place, name in places.items())
        text = text.replace("{", "{{").replace("}", "}}")
        text = f"WITH {bound} SELECT * FROM (\n{text}\n)"
        arguments = {place: frames[name] for place, name in places.items()}
    else:
        text, arguments = f"SELECT * FROM (\n{text}\n)", {}
    try:
        return session.sql(text, dict(params) if params else None, **arguments)
    except Exception as error:
        if is_about_the_query(error):
            raise SqlError(first_lines(error)) from error
        raise


def is_about_the_query(error: BaseException) -> bool:
    """Whether Spark refuses a query: it cannot be parsed, or names what is not there."""
    from pyspark.errors import AnalysisException, IllegalArgumentException, ParseException

    return isinstance(error, AnalysisException | ParseException | IllegalArgumentException)


def check_names(names: Collection[str]) -> None:
    """
    Raises:
        SqlError: A name cannot be one of a frame, or two are the same to Spark.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name or "." in name:
            raise SqlError(f"A frame cannot be called {name!r} in Spark SQL: choose a name without dots.")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise SqlError(
                f"The names {other!r} and {name!r} are the same in SQL: call one of the frames something else."
            )


def check_one_query(session: Any, sql: str) -> None:
    """
    Raises:
        SqlError: A text is not one query by itself. Over Spark Connect, running it finds out.
    """
    text = _END.sub("", sql)
    if not _COMMENT.sub(lambda found: "" if found[1] else found[0], text).strip():
        raise SqlError("One query is needed, not none.")
    plan = parsed(session, text)
    if plan is None:
        return
    kind = plan.getClass().getSimpleName()
    if "command" in str(plan.getClass().getName()).lower() or _is_command(plan):
        raise SqlError(f"One query is needed, not {kind}.")


def _is_command(plan: Any) -> bool:
    kinds = [str(each.getName()) for each in _interfaces(plan.getClass())]
    return any(kind.endswith((".Command", ".ParsedStatement", ".SupervisingCommand")) for kind in kinds)


def _interfaces(cls: Any) -> Iterator[Any]:
    """A Java class, what it extends and what it implements."""
    while cls is not None:
        yield cls
        for each in cls.getInterfaces():
            yield each
            yield from _interfaces(each)
        cls = cls.getSuperclass()


def parsed(session: Any, sql: str) -> Any:
    """
    Spark's own syntax tree of a statement; `None` over Spark Connect, where it stays with the server.

    Raises:
        SqlError: It cannot be parsed.
    """
    if is_connect(session):
        return None
    try:
        return session._jsparkSession.sessionState().sqlParser().parsePlan(sql)
    except Exception as error:
        if is_about_the_query(error):
            raise SqlError(first_lines(error)) from error
        raise


def changes_by_itself(session: Any, sql: str, frames: Collection[str], chance: Collection[str]) -> str:
    """
    What makes a query give something else another time, in words: the clock, chance, a table; empty for nothing.

    Spark's parser tells which tables it reads, and its registry which functions are not deterministic. Over Spark
    Connect neither can be asked.

    Args:
        session: The Spark session.
        sql: The query.
        frames: The names of its frames.
        chance: The functions that `not_deterministic` found.
    """
    text = _COMMENT.sub(lambda found: " " if found[1] else found[0], sql).replace("`", "")
    words = {word.lower() for word in re.findall(r"\w+", text)}
    called = {word.lower() for word in re.findall(r"(\w+)\s*\(", text)}
    asked = sorted((words & CLOCKS) | (called & CALLED.union(chance)))
    if asked:
        return str(asked[0])
    if special := _SPECIAL.search(text):
        return repr(special[1])
    of_users = sorted(words & {name.lower() for name in _functions_of_users(session)})
    if of_users:
        return f"the function {of_users[0]}, which is not Spark's own"
    try:
        plan = str(parsed(session, _END.sub("", sql)).toString())
    except SqlError:
        return "something that cannot be told"
    names = {found.replace("`", "") for found in _RELATION.findall(plan)}
    known = {name.casefold() for name in frames} | {each.casefold() for each in _ctes(plan)}
    outside = sorted(name for name in names if name.casefold() not in known)
    return f"the table {outside[0]}, which is none of its inputs" if outside else ""


def _ctes(plan: str) -> list[str]:
    """The names that a query's own WITH clauses give."""
    return [name for head in re.findall(r"(?:'UnresolvedWith|CTE) \[(.*?)\]", plan) for name in head.split(", ")]


def not_deterministic(session: Any) -> frozenset[str]:
    """The functions of this Spark whose results do not follow from their arguments."""
    jvm = session._jvm
    registry = jvm.org.apache.spark.sql.catalyst.analysis.FunctionRegistry.builtin()
    chance = jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.expressions.Nondeterministic")
    found = set()
    for name in _names_of(registry):
        info = registry.lookupFunction(name)
        if info.isEmpty():
            continue
        try:
            cls = jvm.java.lang.Class.forName(info.get().getClassName())
        except Exception:
            continue
        if chance.isAssignableFrom(cls):
            found.add(str(name.funcName()).lower())
    return frozenset(found)


def _names_of(registry: Any) -> list[Any]:
    names = registry.listFunction()
    return [names.apply(i) for i in range(names.size())]


def _functions_of_users(session: Any) -> list[str]:
    """The functions that somebody registered with the session, or keeps in its catalogue."""
    return [str(row[0]).rpartition(".")[2] for row in session.sql("SHOW USER FUNCTIONS").collect()]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
