"""What code reads of the world outside, or writes to it: files, the clock, chance, environment, network, databases."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

FILES, CLOCK, CHANCE, ENVIRONMENT = "reads files", "reads the clock", "reads chance", "reads the environment"
NETWORK, DATABASE, PROGRAM = "reads the network", "reads a database", "reads another program"
ANY_NAME, WRITES = "reads names in a text", "writes files"

_MODULES = {
    FILES: """
        bz2 configparser dbm filecmp fileinput fsspec gcsfs glob gzip h5py linecache lzma mmap openpyxl pyarrow.csv
        pyarrow.dataset pyarrow.feather pyarrow.fs pyarrow.json pyarrow.orc pyarrow.parquet s3fs shelve shutil tarfile
        tempfile zipfile
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
    PROGRAM: "multiprocessing subprocess",
    ENVIRONMENT: "getpass locale platform",
}
MODULES: Final[Mapping[str, str]] = {name: kind for kind, names in _MODULES.items() for name in names.split()}
"""Modules (submodules included) whose every use has the effect given."""
NAMES: Final[Sequence[tuple[re.Pattern[str], str]]] = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"(builtins|io|_io|codecs|os)\.(open|open_code|fdopen)", FILES),
        (r"builtins\.input", "reads what is typed"),
        (r"builtins\.(hash|id)", "reads what differs between processes"),
        (r"threading\.(current_thread|get_ident|get_native_id|active_count|enumerate)", ENVIRONMENT),
        (r"(os|posix|nt)\.(environ|environb|getenv|getenvb|get_exec_path|getlogin)", ENVIRONMENT),
        (r"(os|posix|nt)\.(getpid|getppid|uname|cpu_count|getcwd|times|getloadavg)", ENVIRONMENT),
        (r"(os|posix|nt)\.urandom", CHANCE),
        (r"(os|posix|nt)\.(listdir|scandir|walk|fwalk|stat|lstat|access|readlink|read|pread|statvfs)", FILES),
        (r"(os\.path|posixpath|ntpath|genericpath)\.(exists|lexists|is\w+|get\w+|realpath|same\w+|expand\w+)", FILES),
        (r"(os|posix|nt)\.(mkdir|makedirs|remove|removedirs|rename|renames|replace|rmdir|unlink|link|symlink)", WRITES),
        (r"(os|posix|nt)\.(write|truncate|chmod|chown|utime|mkfifo|putenv|unsetenv|chdir|umask)", WRITES),
        (r"(os|posix|nt)\.(system|popen|spawn\w+|exec\w+|fork\w*|posix_spawn\w*)", PROGRAM),
        (r"sys\.(argv|stdin|platform|version\w*|path|modules|executable)", ENVIRONMENT),
        (r"time\.(time|time_ns|monotonic\w*|perf_counter\w*|process_time\w*|thread_time\w*|clock_\w+)", CLOCK),
        (r"time\.(localtime|gmtime|ctime|asctime|strftime|tzname|timezone)", CLOCK),
        (r"(datetime|_datetime|_pydatetime)\.(datetime|date)\.(now|utcnow|today|astimezone)", CLOCK),
        (r"pandas(\.\w+)*\.Timestamp\.(now|utcnow|today)", CLOCK),
        (r"pandas(\.\w+)*\.Period\.now", CLOCK),
        (r"uuid\.(uuid1|uuid4|uuid6|uuid7|getnode)", CHANCE),
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
        (r"(xml|lxml|defusedxml)(\.\w+)*\.(parse|iterparse)", FILES),
        (r"(pathlib|pathlib\.\w+)\.\w*Path\.(cwd|home)", ENVIRONMENT),
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
        mkdir rmdir savefig symlink_to to_excel to_feather to_gbq to_hdf to_iceberg to_orc to_parquet to_pickle to_sql
        to_stata touch unlink write_bytes write_csv write_parquet write_text
    """,
    CLOCK: "now utcnow",
    ENVIRONMENT: "cwd home",
}
ATTRIBUTES: Final[Mapping[str, str]] = {name: kind for kind, names in _ATTRIBUTES.items() for name in names.split()}
"""What is taken of values that are not known, and reads or writes the same of whatever has it."""
METHODS: Final = {"open": FILES, "exists": FILES, "stat": FILES, "expanduser": ENVIRONMENT}
"""The same, but only when it is called: others have columns of these names."""
_NOW: Final = frozenset({"now", "today"})
_DATES: Final = re.compile(
    r"(pandas|numpy|polars)(\.\w+)*\.(\w*[Tt]imestamp|to_datetime|date\w*|\w*_range|Datetime\w*|Period\w*)"
)
ZONED: Final = frozenset({"astimezone", "fromtimestamp", "timestamp", "mktime"})
"""Attributes that use the process's time zone unless they are given another."""


def read_outside(
    uses: Iterable[Sequence[str]], attributes: frozenset[str], methods: frozenset[str], texts: frozenset[str]
) -> list[str]:
    """
    What code does with the world outside, in words, such as `reads files (pandas.read_csv)`.

    Args:
        uses: What it uses of libraries, with the attributes that it takes of that: each by the name that it has in
            the code, and by the others that it goes by.
        attributes: The names of all attributes that it takes, of whatever.
        methods: Those of them that it calls.
        texts: The string constants in it, names of arguments included.
    """
    found: dict[str, None] = {}
    for names in uses:
        kind = next((kind for name in names if (kind := _kind_of(name)) is not None), None)
        if kind is not None:
            found[f"{kind} ({names[0].removeprefix('builtins.')})"] = None
        elif _NOW & set(map(str.lower, texts)) and any(map(_DATES.fullmatch, names)):
            found[f"{CLOCK} ({names[0]} of a text)"] = None
    known = " ".join(found)
    for names_of, taken in ((ATTRIBUTES, attributes), (METHODS, methods)):
        for attribute in sorted(names_of.keys() & taken):
            if attribute not in known:
                found[f"{names_of[attribute]} (.{attribute})"] = None
    if "sample" in attributes and not {"random_state", "seed"} & texts:
        found[f"{CHANCE} (.sample)"] = None
    if {"query", "eval"} & attributes and (not texts or any("@" in each for each in texts)):
        found[f"{ANY_NAME} (.query)"] = None
    return list(found)


def local_zone() -> str:
    """What tells the process's time zone from others: its names, and its offsets month by month until 2038."""
    offsets = [time.localtime(moment).tm_gmtoff for moment in range(0, 2**31, 30 * 86_400)]
    return repr((time.tzname, offsets))


def _kind_of(name: str) -> str | None:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        kind = MODULES.get(".".join(parts[:count]))
        if kind is not None and (count < len(parts) or kind != ENVIRONMENT):
            return kind
    return next((kind for pattern, kind in NAMES if pattern.fullmatch(name)), None)
