"""
What the command line costs: seconds from the shell's view, over a bare interpreter's.

    python benchmarks/cli.py [--rounds 11] [--steps 100]

Each command is a process of its own; the commands take turns. What counts is the median. `failing` is a first pipeline
whose query is wrong; beside it stands how many lines it prints in all. `libraries` is importing what it needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

# an installed package is compiled; so is this one, whatever the environment says about writing what is compiled
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "ODIBI_ASYNC_CONFIG")
}
FAILING = """
- {name: orders, layer: ingest, value: orders.csv}
- name: totals
  type: sql
  inputs: {data: orders}
  value: SELECT customer, sum(amnt) AS amount FROM data GROUP BY customer
- {name: save, layer: store, value: totals.csv, inputs: {data: totals}}
"""


def chain(steps: int) -> str:
    first = "- {name: s0, type: sql, value: SELECT 1 AS n}\n"
    rest = (
        f"- {{name: s{i}, type: sql, value: SELECT n + 1 AS n FROM data, inputs: {{data: s{i - 1}}}, tags: [chain]}}\n"
        for i in range(1, steps)
    )
    return first + "".join(rest)


def write(folder: Path, steps: int) -> None:
    (folder / "odibi.yaml").write_text(chain(steps))
    (folder / "failing.yaml").write_text(FAILING)
    (folder / "orders.csv").write_text("customer,amount\n1,30\n2,20\n1,12\n")


def measured(folder: Path, arguments: list[str]) -> tuple[float, int, str]:
    """Seconds, what the process ended with, and what it wrote."""
    began = perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return perf_counter() - began, done.returncode, done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    module = ["-m", "odibi_async"]
    commands = {
        "bare": (["-c", "pass"], 0, None),
        "--help": ([*module, "--help"], 0, 0.3),
        "run --help": ([*module, "run", "--help"], 0, 0.3),
        "validate": ([*module, "validate"], 0, 0.4),
        "graph": ([*module, "graph"], 0, 0.4),
        "libraries": (["-c", "import pandas, pyarrow, duckdb"], 0, None),
        "failing": ([*module, "run", "failing.yaml"], 1, 1.0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    lines: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.steps)
        for count in range(options.rounds + 1):
            for name, (arguments, expected, _) in commands.items():
                took, code, written = measured(Path(folder), arguments)
                assert code == expected, written
                lines[name] = written.count("\n")
                if count:  # the first round compiles what is not compiled
                    seconds[name].append(took)
    bare = statistics.median(seconds["bare"])
    for name, (_, _, most) in commands.items():
        median = statistics.median(seconds[name])
        target = "" if most is None else f"  (target: at most {most} s, {'met' if median <= most else 'missed'})"
        told = f"  {lines[name]} lines" if name == "failing" else ""
        print(f"{name:12s} {median:6.3f} s  {median / bare:5.1f} x a bare interpreter{target}{told}")


if __name__ == "__main__":
    main()
