"""A small pipeline to begin with."""

from __future__ import annotations

from pathlib import Path

from odibi_async.cli.answer import Problem, Refused

FILES = {
    "odibi.yaml": """\
# odibi-async run        runs it; paths begin in the directory that it is run from
# odibi-async explain    lists every code that a fault can have
version: 1
name: sales

steps:
  - name: orders
    layer: ingest
    value: data/orders.csv

  - name: totals
    type: sql
    inputs: {data: orders} # what the query calls it -> whose dataset it is
    value: |
      SELECT customer, count(*) AS orders, sum(amount) AS amount
      FROM data
      GROUP BY customer
      ORDER BY amount DESC

  - name: save
    layer: store
    inputs: {data: totals}
    value: out/totals.csv
""",
    "data/orders.csv": """\
order,customer,amount
1,Ada,30
2,Grace,20
3,Ada,12
4,Edsger,25
""",
}


def write_starter(folder: Path) -> list[Path]:
    """
    Writes the pipeline and its data into a folder.

    Raises:
        Refused: A file of it is there already, or cannot be written.
    """
    paths = {folder / name: text for name, text in FILES.items()}
    there = [path for path in paths if path.exists()]
    if there:
        names = f"{' and '.join(map(str, there))} {'is' if len(there) == 1 else 'are'}"
        raise Refused(Problem(code="OA507", message=f"{names} there already, and nothing is overwritten."))
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        message = f"the files cannot be written to {str(folder)!r}: {error.strerror}."
        raise Refused(Problem(code="OA507", message=message)) from error
    return list(paths)
