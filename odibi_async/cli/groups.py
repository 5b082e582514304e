"""The groups of commands: about caches, about the runs of a journal, about schedules."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from odibi_async.cli.answer import Answer
from odibi_async.cli.parameters import Given, InJournal, Talk, Where, planned_from

caches = App(name="cache", help="Show what is in a cache, and remove it.")


@caches.command(name="stats")
def cache_stats(*, where: Where = Where(), talk: Talk = Talk()) -> Answer:
    """Show how much is in it, and how often it was of use, by step."""
    from odibi_async.cli.caching import stats

    return stats(where.cache)


@caches.command(name="ls")
def cache_ls(*, where: Where = Where(), talk: Talk = Talk()) -> Answer:
    """List what is in it, the last used first."""
    from odibi_async.cli.caching import entries

    return entries(where.cache)


@caches.command(name="explain")
def cache_explain(step: str, /, *, where: Where = Where(), talk: Talk = Talk()) -> Answer:
    """
    Tell why a step was computed the last time, and what its result depends on.

    Args:
        step: Its name.
    """
    from odibi_async.cli.caching import explained

    return explained(where.cache, step)


@caches.command(name="prune")
def cache_prune(*, where: Where = Where(), talk: Talk = Talk()) -> Answer:
    """Remove what is too old, or too much: the least recently used first."""
    from odibi_async.cli.caching import removed

    return removed(where.cache, "prune")


@caches.command(name="verify")
def cache_verify(*, where: Where = Where(), talk: Talk = Talk()) -> Answer:
    """Read all of it, and remove what is damaged."""
    from odibi_async.cli.caching import removed

    return removed(where.cache, "verify")


@caches.command(name="clear")
def cache_clear(
    *, step: str | None = None, tag: str | None = None, where: Where = Where(), talk: Talk = Talk()
) -> Answer:
    """
    Forget everything, or what one step, or the steps of a tag, had made.

    Args:
        step: The name of a step.
        tag: A tag of steps.
    """
    from odibi_async.cli.caching import invalidated, removed

    if step is None and tag is None:
        return removed(where.cache, "clear")
    return invalidated(where.cache, step, tag)


runs = App(name="runs", help="Show the runs of a journal, go on with them, and remove them.")


@runs.command(name="ls")
def runs_ls(*, pipeline: str | None = None, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """
    List the runs, the newest first.

    Args:
        pipeline: The name of a pipeline, for its runs alone.
    """
    from odibi_async.cli.runs import listed

    return listed(where.journal, pipeline)


@runs.command(name="show")
def runs_show(run: str, /, *, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """
    Show what became of the steps of a run, and how long they usually take.

    Args:
        run: Its id; last for the one that began last.
    """
    from odibi_async.cli.runs import shown

    return shown(where.journal, run)


@runs.command(name="prune")
def runs_prune(*, keep_last: int, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """
    Remove the runs of each pipeline but the last ones, with what only they need.

    Args:
        keep_last: How many stay.
    """
    from odibi_async.cli.runs import pruned

    return pruned(where.journal, keep_last)


schedules = App(name="schedule", help="Show when pipelines run, and pause their schedules.")


@schedules.command(name="next")
def schedule_next(
    config: str | None = None,
    /,
    *,
    count: Annotated[int, Parameter(alias="-n", validator=Number(gte=1, lte=10_000))] = 10,
    after: str | None = None,
    given: Given = Given(),
    talk: Talk = Talk(),
) -> Answer:
    """
    List the next times at which a pipeline runs.

    Args:
        config: The configuration.
        count: How many.
        after: A time such as 2024-03-30T12:00, in UTC where it names no other offset; now without it.
    """
    from odibi_async.cli.serving import coming

    return coming(planned_from(config, given).document, count, after)


@schedules.command(name="ls")
def schedule_ls(*, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """List the schedules that a journal knows, what they did last, and which are paused."""
    from odibi_async.cli.scheduled import listed

    return listed(where.journal)


@schedules.command(name="pause")
def schedule_pause(name: str, /, *, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """
    Have a schedule fire no more, in no server, until it is resumed. Runs that are going go on.

    Args:
        name: Its name.
    """
    from odibi_async.cli.scheduled import set_paused

    return set_paused(where.journal, name, True)


@schedules.command(name="resume")
def schedule_resume(name: str, /, *, where: InJournal = InJournal(), talk: Talk = Talk()) -> Answer:
    """
    Have a schedule fire again that was paused. Times in between are not made up for.

    Args:
        name: Its name.
    """
    from odibi_async.cli.scheduled import set_paused

    return set_paused(where.journal, name, False)
