"""What code reads of the world outside, or writes to it: files, the clock, chance, environment, network, databases."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final

from odibi_async.fingerprint.bytecode import Reading

FILES, CLOCK, CHANCE, ENVIRONMENT = "reads files", "reads the clock", "reads chance", "reads the environment"
NETWORK, DATABASE, PROGRAM = "reads the network", "reads a database", "reads another program"
ANY_NAME, WRITES = "reads names in a text", "writes files"
LEFT_OUT, DIFFERS = "reads what keys leave out", "reads what differs between processes"

_MODULES = {
    FILES: """
        bz2 configparser dbm filecmp fileinput fsspec gcsfs glob gzip h5py importlib.machinery importlib.util linecache
        lzma mmap openpyxl pkgutil pyarrow.csv pyarrow.dataset pyarrow.feather pyarrow.fs pyarrow.json pyarrow.orc
        pyarrow.parquet runpy s3fs shelve shutil tarfile tempfile zipfile
    """,
    CHANCE: "numpy.random random secrets",
    NETWORK: """
        aiohttp boto3 botocore ftplib google.cloud grpc http.client httpx imaplib poplib pyarrow.flight requests
        smtplib socket ssl telnetlib urllib.request urllib3 websockets xmlrpc.client
    """,
    DATABASE: """
        adbc_driver_manager aiosqlite asyncpg clickhouse_connect connectorx cx_Oracle duckdb MySQLdb mysql oracledb
        psycopg psycopg2 pymongo pymysql pyodbc redis snowflake sqlalchemy sqlite3 sqlmodel
    """,
    PROGRAM: "cffi ctypes multiprocessing subprocess",
    ENVIRONMENT: "decouple dotenv environs getpass grp locale platform pwd pydantic_settings resource tzlocal",
}
MODULES: Final[Mapping[str, str]] = {name: kind for kind, names in _MODULES.items() for name in names.split()}
"""Modules (submodules included) whose every use has the effect given."""
NAMES: Final[Sequence[tuple[re.Pattern[str], str]]] = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"(builtins|io|_io|codecs|os)\.(open|open_code|fdopen|FileIO)", FILES),
        (r"(builtins\.(globals|eval|exec|compile|__import__)|importlib\.import_module)", ANY_NAME),
        (r"inspect\.(get\w+|signature|stack|trace|current\w+)|(typing|typing_extensions)\.get_type_hints", LEFT_OUT),
        (r"gc\.(get_\w+|is_\w+)", "reads what else there is in memory"),
        (r"builtins\.input", "reads what is typed"),
        (r"builtins\.(hash|id|object\.__hash__)", DIFFERS),
        (r"threading\.(current_thread|get_ident|get_native_id|active_count|enumerate)", ENVIRONMENT),
        (r"(os|posix|nt)\.(environ|environb|get\w+|uname|cpu_count|times|sched_get\w+)", ENVIRONMENT),
        (r"(os|posix|nt)\.urandom", CHANCE),
        (r"(os|posix|nt)\.(listdir|scandir|walk|fwalk|stat|lstat|access|readlink|read|pread|statvfs)", FILES),
        (r"(os\.path|posixpath|ntpath|genericpath)\.(exists|lexists|is\w+|get\w+|realpath|same\w+|expand\w+)", FILES),
        (r"(os\.path|posixpath|ntpath)\.(abspath|relpath)", ENVIRONMENT),
        (r"(os|posix|nt)\.(mkdir|makedirs|remove|removedirs|rename|renames|replace|rmdir|unlink|link|symlink)", WRITES),
        (r"(os|posix|nt)\.(write|truncate|chmod|chown|utime|mkfifo|putenv|unsetenv|chdir|umask)", WRITES),
        (r"(os|posix|nt)\.(system|popen|spawn\w+|exec\w+|fork\w*|posix_spawn\w*)", PROGRAM),
        (r"sys\.(argv|stdin|platform|version\w*|path|modules|executable|flags|get\w+|_getframe)", ENVIRONMENT),
        (r"time\.(time|time_ns|monotonic\w*|perf_counter\w*|process_time\w*|thread_time\w*|clock_\w+)", CLOCK),
        (r"time\.(localtime|gmtime|ctime|asctime|strftime|tzname|timezone)", CLOCK),
        (r"(datetime|_datetime|_pydatetime)\.(datetime|date)\.(now|utcnow|today|astimezone)", CLOCK),
        (r"email\.utils\.(formatdate|localtime|make_msgid)", CLOCK),
        (r"dateutil\.parser(\.\w+)?\.parse", f"{CLOCK} for what a text leaves out"),
        (r"dateutil\.tz(\.\w+)?\.tzlocal", ENVIRONMENT),
        (r"pandas(\.\w+)*\.Timestamp\.(now|utcnow|today)", CLOCK),
        (r"pandas(\.\w+)*\.Period\.now", CLOCK),
        (r"uuid\.(uuid1|uuid4|uuid6|uuid7|getnode)", CHANCE),
        (r"(pyarrow|polars|scipy|sklearn|torch|tensorflow|jax)(\.\w+)*\.random", CHANCE),
        (r"pandas(\.\w+)*\.(read_\w+|HDFStore|ExcelFile)", FILES),
        (r"pandas(\.\w+)*\.eval", ANY_NAME),
        (r"pyarrow(\.\w+)*\.(memory_map|OSFile|input_stream|open_\w+|read_\w+)", FILES),
        (r"polars(\.\w+)*\.(read_\w+|scan_\w+)", FILES),
        (r"polars(\.\w+)*\.(sql|SQLContext)", ANY_NAME),
        (r"numpy(\.\w+)*\.(load|loadtxt|genfromtxt|fromfile|memmap|DataSource)", FILES),
        (r"numpy(\.\w+)*\.(save|savetxt|savez\w*)", WRITES),
        (r"(pyarrow|polars)(\.\w+)*\.(write_\w+|sink_\w+)", WRITES),
        (r"(?!json\b)\w+(\.\w+)*\.(open|open_\w+|read_\w+|load|load_\w+|imread|loadmat|fromfile)", FILES),
        (r"(?!json\b)\w+(\.\w+)*\.(imwrite|savemat|dump|dump_\w+|tofile)", WRITES),
        (r"(xml|lxml|defusedxml)(\.\w+)*\.(parse|iterparse|ElementTree)", FILES),
        (r"(pathlib|pathlib\.\w+)\.\w*Path\.(cwd|home|absolute|expanduser)", ENVIRONMENT),
        (r"(pathlib|pathlib\.\w+)\.\w*Path\.(resolve|glob|walk|owner|group|exists|stat|is_mount)", FILES),
        (r"importlib\.(metadata|resources)(\.\w+)*", ENVIRONMENT),
    )
]
"""Functions, classes with what is taken of them, and variables, each by its full name."""
_ATTRIBUTES = {
    FILES: """
        is_dir is_file is_symlink iterdir lstat read_bytes read_csv read_parquet read_sql read_text readlink rglob
        samefile
    """,
    WRITES: """
        mkdir rmdir savefig symlink_to to_clipboard to_excel to_feather to_gbq to_hdf to_iceberg to_orc to_parquet
        to_pickle to_sql to_stata tofile touch unlink write_bytes write_csv write_parquet write_text
    """,
    CLOCK: "now utcnow",
    ENVIRONMENT: "cwd home",
    ANY_NAME: "__builtins__ __globals__ f_globals",
}
ATTRIBUTES: Final[Mapping[str, str]] = {name: kind for kind, names in _ATTRIBUTES.items() for name in names.split()}
"""What is taken of values that are not known, and reads or writes the same of whatever has it."""
_METHODS = {
    FILES: "exists glob open resolve stat walk",
    CLOCK: "today",
    ENVIRONMENT: "absolute expanduser",
    DIFFERS: "__hash__",
}
METHODS: Final[Mapping[str, str]] = {name: kind for kind, names in _METHODS.items() for name in names.split()}
"""The same, but only when it is called: others have columns of these names, and libraries functions."""
TEXTS: Final = frozenset({"to_csv", "to_html", "to_json", "to_latex", "to_markdown", "to_string", "to_xml"})
"""Methods that give a text unless they are told where to write it."""
DRAWS: Final = frozenset({"sample", "shuffle", "rvs", "train_test_split"})
"""What draws, and always the same when it is given a seed."""
_NOW: Final = frozenset({"now", "today"})
_DATES: Final = re.compile(
    r"(pandas|numpy|polars)(\.\w+)*\.(\w*[Tt]imestamp|to_datetime|date\w*|\w*_range|Datetime\w*|Period\w*)"
)
ZONED: Final = frozenset({"astimezone", "fromtimestamp", "timestamp", "mktime"})
"""Attributes that use the process's time zone unless they are given another."""


def read_outside(
    uses: Iterable[Sequence[str]], code: Reading | None = None, attributes: Set[str] = frozenset()
) -> list[str]:
    """
    What code does with the world outside, in words, such as `reads files (pandas.read_csv)`.

    Args:
        uses: What it uses of libraries, with the attributes that it takes of that: each by the name that it has in
            the code, and by the others that it goes by.
        code: The code itself, if it is a function.
        attributes: The names of all attributes that it takes, of whatever.
    """
    texts = frozenset[str]() if code is None else code.texts
    methods = frozenset[str]() if code is None else code.methods
    found: dict[str, None] = {}
    taken: set[str] = set()
    for names in uses:
        taken.update(name.rpartition(".")[2] for name in names)
        kind = next((kind for name in names if (kind := _kind_of(name)) is not None), None)
        if kind is not None:
            found[f"{kind} ({names[0].removeprefix('builtins.')})"] = None
        elif _NOW & set(map(str.lower, texts)) and any(map(_DATES.fullmatch, names)):
            found[f"{CLOCK} ({names[0]} of a text)"] = None
    known = " ".join(found)
    for names_of, used in ((ATTRIBUTES, attributes), (METHODS, methods - taken)):
        for attribute in sorted(names_of.keys() & used):
            if attribute not in known:
                found[f"{names_of[attribute]} (.{attribute})"] = None
    if code is not None:
        found |= dict.fromkeys(_by_arguments(code, attributes))
    return list(found)


def _by_arguments(code: Reading, attributes: Set[str]) -> Iterator[str]:
    """What depends on how methods are called."""
    if not {"random_state", "seed"} & code.texts:
        yield from (f"{CHANCE} (.{name})" for name in sorted(DRAWS & attributes))
    if {"query", "eval"} & attributes and (not code.texts or any("@" in each for each in code.texts)):
        yield f"{ANY_NAME} (.query)"
    is_named = not {"path_or_buf", "path_or_buffer", "buf"}.isdisjoint(code.texts)
    told = TEXTS & (attributes if is_named else code.given | (attributes - code.attributes))
    yield from (f"{WRITES} (.{name})" for name in sorted(told))


def local_zone() -> str:
    """What tells the process's time zone from others: its names, and its offsets month by month until 2038."""
    offsets = [time.localtime(moment).tm_gmtoff for moment in range(0, 2**31, 30 * 86_400)]
    return repr((time.tzname, offsets))


@functools.lru_cache(maxsize=16_384)
def _kind_of(name: str) -> str | None:
    """What the use of a name does, or that of what it is taken from: `os.environ.get`."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        start = ".".join(parts[:count])
        kind = MODULES.get(start)
        if kind is not None and (count < len(parts) or kind != ENVIRONMENT):
            return kind
        for pattern, kind in NAMES:
            if pattern.fullmatch(start):
                return kind
    return None
