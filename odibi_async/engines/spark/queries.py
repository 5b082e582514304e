"""SQL on Spark: one query whose logical names are its own, and what Spark itself says of a query."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from odibi_async.engines.spark.failures import first_lines
from odibi_async.engines.spark.session import is_connect
from odibi_async.errors import SqlError

_LEXEME: Final = re.compile(
    r"(?P<text>(?<!\w)[rR]'[^']*'|'(?:[^'\\]|\\.)*')"
    r"|(?<!\w)[rR]\"[^\"]*\"|\"(?:[^\"\\]|\\.)*\"|`[^`]*`"
    r"|(?P<comment>--(?:\\\n|[^\r\n])*|/\*(?!\+))",
    re.DOTALL,
)
"""What Spark's lexer takes as a whole: texts, quoted names, and comments, of which hints are none."""
_BRACKET: Final = re.compile(r"/\*(?!\+)|\*/")
_RELATION: Final = re.compile(r"'UnresolvedRelation \[(.*?)\]")
_OF_A_SCHEMA: Final = re.compile(r"([^\W\d]\w*)\s*\.\s*(\w+)\s*\(")
CLOCKS: Final = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_timezone")
    + ("current_user", "session_user", "current_catalog", "current_database", "current_schema", "current_path")
    + ("tablesample",)
)
"""Words that ask for something outside of the frames, with or without parentheses."""
KLL: Final = ("bigint", "double", "float")
CALLED: Final = frozenset(
    ("now", "curdate", "unix_timestamp", "user", "version", "rand", "randn", "random", "randstr", "uniform", "uuid")
    + ("shuffle", "monotonically_increasing_id", "spark_partition_id", "input_file_name", "input_file_block_start")
    + ("input_file_block_length", "java_method", "reflect", "try_reflect", "from_utc_now", "read_files")
    + ("aes_encrypt", "python_worker_logs", "identifier")
    + tuple(f"kll_{how}_{kind}" for how in ("sketch_agg", "merge_agg", "sketch_merge") for kind in KLL)
)
"""
Functions whose results do not follow from their arguments: encryption and KLL sketches draw numbers, `IDENTIFIER`
may stand for any function or table. Spark's own registry adds to them.
"""
_SPECIAL: Final = re.compile(r"['\"]\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)


def run(
    session: Any,
    sql: str,
    frames: Mapping[str, Any],
    params: Mapping[str, Any] | None,
    *,
    is_confined: bool = False,
) -> Any:
    """
    The lazy frame of one query over frames, known in it by their names here.

    Names are bound as common table expressions over arguments, so that nothing is registered that another step could
    see or replace.

    Args:
        session: The Spark session.
        sql: One query, in Spark's dialect.
        frames: What it may read; with them, tables of the session's catalogue.
        params: The value of each `:name` in it.
        is_confined: Whether it must not read files by their paths.

    Raises:
        SqlError: It is not one query, or does not fit the frames or the params.
    """
    check_names(frames)
    check_one_query(session, sql)
    if is_confined:
        check_no_files(session, sql, frames)
    places = {name: f"odibi_{i}" for i, name in enumerate(frames)}
    text = _alone(sql)
    if frames:
        text = text.replace("{", "{{").replace("}", "}}")
    text = _bound({name: f"SELECT * FROM {{{place}}}" for name, place in places.items()}, text)
    arguments = {place: frames[name] for name, place in places.items()}
    try:
        return session.sql(text, dict(params) if params else None, **arguments)
    except Exception as error:
        if is_about_the_query(error):
            raise SqlError(first_lines(error)) from error
        raise


def _bound(queries: Mapping[str, str], sql: str) -> str:
    """A query that knows others by names of its own."""
    bound = ", ".join(f"{_quoted(name)} AS ({query})" for name, query in queries.items())
    return f"{f'WITH {bound} ' if bound else ''}SELECT * FROM (\n{sql}\n)"


def _alone(sql: str) -> str:
    """The query without the comments and semicolons that end it."""
    return sql[: len(_without_comments(sql).rstrip("; \t\r\n\f"))]


def _without_comments(sql: str, texts: bool = True) -> str:
    """The query with blanks in place of its comments and, if asked, of its texts."""
    pieces, at = [], 0
    while found := _LEXEME.search(sql, at):
        end = _end_of_comment(sql, found.start()) if found["comment"] == "/*" else found.end()
        is_blank = found["comment"] is not None or (found["text"] is not None and not texts)
        pieces += [sql[at : found.start()], " " * (end - found.start()) if is_blank else sql[found.start() : end]]
        at = end
    return "".join(pieces) + sql[at:]


def _end_of_comment(sql: str, start: int) -> int:
    """Where a comment ends that may have others in it; that of one without an end is where the query ends."""
    depth = 0
    for bracket in _BRACKET.finditer(sql, start):
        depth += 1 if bracket[0] == "/*" else -1
        if not depth:
            return bracket.end()
    return len(sql)


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
    if not _alone(sql):
        raise SqlError("One query is needed, not none.")
    plan = parsed(session, sql)
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


def changes_by_itself(session: Any, sql: str, frames: Collection[str], doubtful: Mapping[str, str]) -> str:
    """
    What makes a query give something else another time, in words: the clock, chance, a table; empty for nothing.

    Spark's parser tells which tables it reads, and its registry which functions are not deterministic. Over Spark
    Connect neither can be asked.

    Args:
        session: The Spark session.
        sql: The query.
        frames: The names of its frames.
        doubtful: What `not_deterministic` found.
    """
    if special := _SPECIAL.search(_without_comments(sql)):
        return repr(special[1])
    text = _without_comments(sql, texts=False)
    bare = text.replace("`", "")
    words = {word.lower() for word in re.findall(r"\w+", bare)}
    called = {word.lower() for word in re.findall(r"(\w+)\s*\(", bare)}
    asked = sorted((words & CLOCKS) | (called & CALLED.union(doubtful)))
    if asked:
        return doubtful.get(asked[0], asked[0])
    of_users = sorted(words & {name.lower() for name in _functions_of_users(session)})
    of_users += [name for schema, name in _OF_A_SCHEMA.findall(bare) if schema.lower() != "builtin"]
    if of_users:
        return f"the function {of_users[0]}, which is not Spark's own"
    if variable := _variable_among(session, {*re.findall(r"\w+", bare), *re.findall("`([^`]*)`", text)}):
        return f"the variable {variable} of the session"
    return _read_besides(session, sql, frames)


def _variable_among(session: Any, names: Collection[str]) -> str:
    """The first of these names that is one of a variable of the session; empty for none."""
    variables = session._jsparkSession.sessionState().catalogManager().tempVariableManager()
    if variables.isEmpty():
        return ""
    sequence = session._jvm.PythonUtils.toSeq
    known = ((name, each) for name in sorted(names) for each in {name, name.lower()})
    return next((name for name, each in known if variables.get(sequence([each])).isDefined()), "")


def check_no_files(session: Any, sql: str, frames: Collection[str]) -> None:
    """
    Raises:
        SqlError: A query reads files by their paths, as in "SELECT * FROM csv.`x.csv`".
    """
    for found in _RELATION.findall(_plan_with(session, sql, frames)):
        parts = found.replace("`", "").split(", ")
        if len(parts) > 1 and not _is_table(session, parts):
            raise SqlError(f"There is no table {'.'.join(parts)}; files are read by steps of their own.")


def _is_table(session: Any, parts: Collection[str]) -> bool:
    try:
        return bool(session.catalog.tableExists(".".join(map(_quoted, parts))))
    except Exception as error:
        if is_about_the_query(error):  # it cannot be the name of one
            return False
        raise


def _plan_with(session: Any, sql: str, frames: Collection[str]) -> str:
    """The syntax tree of a query in words, in which the tables are those that are none of its frames."""
    plan = parsed(session, _bound(dict.fromkeys(frames, "VALUES (1)"), _alone(sql)))
    return str(session._jvm.org.apache.spark.sql.catalyst.analysis.CTESubstitution.apply(plan).toString())


def _read_besides(session: Any, sql: str, frames: Collection[str]) -> str:
    """What a query reads that is none of its frames, in words; empty for nothing."""
    try:
        shown = _plan_with(session, sql, frames)
    except Exception as error:
        if isinstance(error, SqlError) or is_about_the_query(error):
            return "something that cannot be told"
        raise
    if "ScriptTransformation" in shown:
        return "what a script gives"
    if shown.endswith(" more characters"):  # spark.sql.maxPlanStringLength
        return "something that cannot be told"
    outside = sorted(_RELATION.findall(shown))
    return f"the table {outside[0].replace('`', '')}, which is none of its inputs" if outside else ""


def not_deterministic(session: Any) -> dict[str, str]:
    """
    The functions of this Spark whose results do not follow from their arguments, and what to say of each.

    One whose class cannot be asked may be one of them.
    """
    jvm = session._jvm
    registry = jvm.org.apache.spark.sql.catalyst.analysis.FunctionRegistry.builtin()
    chance = jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.expressions.Nondeterministic")
    found = {}
    for each in _names_of(registry):
        name = str(each.funcName()).lower()
        info = registry.lookupFunction(each)
        try:
            cls = jvm.java.lang.Class.forName(info.get().getClassName())
        except Exception:
            found[name] = f"the function {name}, of which it is not known whether it is deterministic"
            continue
        if chance.isAssignableFrom(cls):
            found[name] = name
    return found


def _names_of(registry: Any) -> list[Any]:
    names = registry.listFunction()
    return [names.apply(i) for i in range(names.size())]


def _functions_of_users(session: Any) -> list[str]:
    """The functions that somebody registered with the session, or keeps in its catalogue."""
    return [str(row[0]).rpartition(".")[2] for row in session.sql("SHOW USER FUNCTIONS").collect()]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
