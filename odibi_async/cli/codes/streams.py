"""OA34x: streaming steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.cli.codes.code import Code

STREAMS: Final[Mapping[str, Code]] = {
    "OA341": Code(
        title="a step that yields batches is to run in another process",
        text="Its readers get batches while it runs, so a generator function runs in this process: on the loop if it "
        "is async, else in a worker thread. A step that maps over the batches can run elsewhere.",
        wrong="""
from odibi_async import Pipeline, step

def rows():
    yield [1]

Pipeline([step(rows, run_on="process")])""",
        right="""
from odibi_async import Pipeline, step

def rows():
    yield [1]

Pipeline([rows, step(sum, name="sums", inputs={"iterable": "rows"}, map_over="iterable", run_on="process")])""",
        form="python",
    ),
    "OA342": Code(
        title="a step that yields batches has several outputs",
        text="What it yields are the batches of one dataset.",
        wrong="""
from odibi_async import Pipeline, step

def split():
    yield [1], [2]

Pipeline([step(split, outputs=("train", "test"))])""",
        right="""
from odibi_async import Pipeline, step

def split():
    yield [1], [2]

Pipeline([step(split, outputs=("pairs",))])""",
        form="python",
    ),
    "OA343": Code(
        title="a step that yields batches maps over something",
        text="A mapped step returns one result for each element. A generator function takes all of them, as an "
        "iterator of batches, and yields as many as it likes.",
        wrong="""
from odibi_async import Pipeline, step

def rows():
    yield [1]

def doubled(batch):
    yield [2 * each for each in batch]

Pipeline([rows, step(doubled, map_over="batch", inputs={"batch": "rows"})])""",
        right="""
from collections.abc import Iterator
from odibi_async import Pipeline

def rows():
    yield [1]

def doubled(rows: Iterator[list[int]]):
    for batch in rows:
        yield [2 * each for each in batch]

Pipeline([rows, doubled])""",
        form="python",
    ),
    "OA344": Code(
        title="a step takes batches by the wrong kind of iterator",
        text="An async step takes an AsyncIterator, a blocking step an Iterator. A step in another process takes the "
        "list of all batches, or maps over them.",
        wrong="""
from collections.abc import AsyncIterator
from odibi_async import Pipeline

def rows():
    yield [1]

def total(rows: AsyncIterator[list[int]]):
    return sum(map(sum, rows))

Pipeline([rows, total])""",
        right="""
from collections.abc import Iterator
from odibi_async import Pipeline

def rows():
    yield [1]

def total(rows: Iterator[list[int]]):
    return sum(map(sum, rows))

Pipeline([rows, total])""",
        form="python",
    ),
    "OA345": Code(
        title="a step that takes batches one by one is to be cached",
        text="What it makes is looked up by the content of what it reads, and that is not known before it has read it. "
        "A step that maps over batches is looked up for each of them.",
        wrong="""
from collections.abc import Iterator
from odibi_async import Pipeline, step

def rows():
    yield [1]

def total(rows: Iterator[list[int]]):
    return sum(map(sum, rows))

Pipeline([rows, step(total, cache=True)])""",
        right="""
from odibi_async import Pipeline, step

def rows():
    yield [1]

def total(batch):
    return sum(batch)

Pipeline([rows, step(total, map_over="batch", inputs={"batch": "rows"}, cache=True)])""",
        form="python",
    ),
    "OA346": Code(
        title="the frames of a step that yields batches are not alike",
        text="Who reads the dataset as a whole gets one frame of all batches, so they have the same columns, of the "
        "same types, in the same order. Batches that are only read one by one may differ.",
        wrong="""
import pandas as pd
from odibi_async import run_pipeline_sync

def rows():
    yield pd.DataFrame({"n": [1]})
    yield pd.DataFrame({"n": [0.5]})

run_pipeline_sync([rows])""",
        right="""
import pandas as pd
from odibi_async import run_pipeline_sync

def rows():
    yield pd.DataFrame({"n": [1.0]})
    yield pd.DataFrame({"n": [0.5]})

run_pipeline_sync([rows])""",
        form="python",
    ),
    "OA347": Code(
        title="batches are read that are not there any more",
        text="An iterator of batches can be read as long as the step runs that was given it, and the step that makes "
        "them has not failed. What others need later is returned.",
        wrong="""
from collections.abc import Iterator
from odibi_async import run_pipeline_sync

kept = []

def rows():
    yield [1]
    yield [2]

def keep(rows: Iterator[list[int]]):
    kept.append(rows)
    return next(rows)

def total(keep):
    return sum(keep) + sum(next(kept[0]))

run_pipeline_sync([rows, keep, total])""",
        right="""
from collections.abc import Iterator
from odibi_async import run_pipeline_sync

def rows():
    yield [1]
    yield [2]

def keep(rows: Iterator[list[int]]):
    return list(rows)

def total(keep):
    return sum(map(sum, keep))

run_pipeline_sync([rows, keep, total])""",
        form="python",
    ),
}
