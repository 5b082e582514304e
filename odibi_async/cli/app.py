"""
The commands and their flags.

What a command needs is imported where it is called: `--help` loads no pydantic, `validate` no pandas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError, ValidationError
from cyclopts.validators import Number

from odibi_async.cli.answer import Answer, Problem, Refused
from odibi_async.cli.groups import caches, runs, schedules
from odibi_async.cli.output import table
from odibi_async.cli.parameters import Choice, Engine, Given, InJournal, Talk, planned_from, slots_of
from odibi_async.cli.signals import Signals


def _version() -> str:
    from odibi_async.cli.doctor import version_of

    return version_of("odibi_async") or "not installed"


app = App(
    name="odibi-async",
    help="Runs and checks data pipelines that are written down in configuration files.",
    version=_version,
    default_parameter=Parameter(negative="", show_default=False),
    help_format="plaintext",
    help_epilogue="A configuration that is not named is looked for: ODIBI_ASYNC_CONFIG, odibi.yaml, .yml, .toml or "
    ".json, then [tool.odibi_async] in pyproject.toml, here and up to the root of the repository.",
)


for group in (caches, runs, schedules):
    app.command(group)


@app.command
def run(
    config: str | None = None,
    /,
    *,
    choice: Choice = Choice(),
    given: Given = Given(),
    max_concurrency: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    pool: tuple[str, ...] = (),
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    cache: str | None = None,
    no_cache: bool = False,
    journal: str | None = None,
    resume: str | None = None,
    engine: Engine | None = None,
    keep_going: bool = False,
    dry_run: bool = False,
    estimate: bool = False,
    events: str | None = None,
    story: str | None = None,
    open_story: Annotated[bool, Parameter(name="--open", negative=())] = False,
    traceback: bool = False,
    talk: Talk = Talk(),
    signals: Annotated[Signals, Parameter(parse=False)],
) -> Answer:
    """
    Run a pipeline.

    Args:
        config: The configuration.
        max_concurrency: Steps that may run at a time.
        threads: Blocking steps that may run at a time.
        pool: NAME=SLOTS says how many steps of a pool may run at a time. May be repeated.
        timeout: Seconds that the run may take.
        cache: A directory; what was computed before from the same content is taken from there.
        no_cache: Compute everything, also where the configuration names a cache.
        journal: A directory, or a postgresql:// URL, where the run is recorded, so that it can be resumed.
        resume: The id of a run in the journal that goes on where it was; last for the one that began last.
        engine: What the datasets of steps are that name no engine; pandas without it.
        keep_going: Do whatever does not need what failed, instead of cancelling the rest.
        dry_run: Say which steps would run, and run none.
        estimate: With --dry-run, say how long they would take with how many workers, by what the journal knows.
        events: A file that gets each event as a line of JSON.
        story: A page that tells what happened: graph, timeline, steps and their data. Without a file, story.html.
        open_story: Show the story in the browser.
        traceback: Show where a step raised its error.
    """
    from odibi_async.cli.lookup import configuration
    from odibi_async.cli.plan import assigned, check_given
    from odibi_async.cli.running import STORY, HowToRun, executed
    from odibi_async.cli.runs import VARIABLE, place_of, resumption

    if no_cache and cache is not None:
        raise Refused(Problem(code="OA505", message="--cache and --no-cache exclude each other."))
    if estimate and not dry_run:
        raise Refused(Problem(code="OA505", message="--estimate runs nothing: it goes with --dry-run."))
    if story is not None and not story.lower().endswith((".html", ".htm")):
        raise Refused(Problem(code="OA505", message=f"--story {story!r}: the name of a page ends in .html."))
    recalled: Mapping[str, Any] = {}
    if resume is not None:
        resume, recalled = resumption(place_of(journal), resume, configuration(config).name)
    plan = planned_from(config, given, choice, recalled=recalled)
    check_given(plan)
    if estimate:
        from odibi_async.cli.estimate import estimated

        return estimated(plan, place_of(journal))
    if dry_run:
        order = plan.pipeline.order()
        return Answer(text="\n".join(order), data={"steps": order, "given": sorted(plan.given)})
    how = HowToRun(
        concurrency=max_concurrency,
        threads=threads,
        pools={name: slots_of(name, text) for name, text in assigned("--pool", pool).items()},
        timeout=timeout,
        cache=False if no_cache else cache or plan.document.cache,
        journal=place_of(journal) if resume else journal or os.environ.get(VARIABLE) or None,
        resume=resume,
        chosen=_chosen(given, choice, pool, engine),
        engine=engine,
        keep_going=keep_going,
        events=events,
        story=story or (STORY if open_story else None),
        open_story=open_story,
        quiet=talk.quiet,
        verbose=talk.verbose,
    )
    return executed(plan, how, signals)


def _chosen(given: Given, choice: Choice, pools: Sequence[str], engine: str | None) -> list[str]:
    """The flags without which a run that is resumed would be another one."""
    said = {
        "--functions": given.functions,
        "--project": (given.project,) if given.project else (),
        "--select": choice.select,
        "--exclude": choice.exclude,
        "--pool": pools,
        "--engine": (engine,) if engine else (),
    }
    return [word for flag, texts in said.items() for text in texts for word in (flag, text)]


@runs.command(name="resume")
def runs_resume(
    run_id: str,
    /,
    *,
    where: InJournal = InJournal(),
    talk: Talk = Talk(),
    signals: Annotated[Signals, Parameter(parse=False)],
) -> Answer:
    """
    Go on with a run of a configuration where it was. odibi-async run --resume takes further options.

    Args:
        run_id: Its id; last for the one that began last.
    """
    from odibi_async.cli.runs import known, opened

    with opened(where.journal) as journal:
        found = known(journal, run_id)
        source = journal.run(found).source
    if not source:
        message = f"run {found!r} was not read from a configuration: resume it from Python, Runner.resume."
        raise Refused(Problem(code="OA505", message=message))
    return run(source, journal=where.journal, resume=found, talk=talk, signals=signals)


@app.command
def validate(
    config: str | None = None, /, *, engine: Engine | None = None, given: Given = Given(), talk: Talk = Talk()
) -> Answer:
    """
    Check a pipeline without running it, and tell everything that is wrong.

    Args:
        config: The configuration.
        engine: That of steps that name none. Queries for pandas are parsed; those for Spark when they run.
    """
    plan = planned_from(config, given, closely=True, engine=engine)
    name, count = plan.document.source.name, len(plan.pipeline.steps)
    text = f"{name}: {count:,} step{'' if count == 1 else 's'}, no fault"
    return Answer(text=text, data={"configuration": name, "steps": count})


@app.command
def graph(
    config: str | None = None,
    /,
    *,
    format: Literal["text", "svg", "mermaid", "dot", "json"] = "text",
    choice: Choice = Choice(),
    given: Given = Given(),
    talk: Talk = Talk(),
) -> Answer:
    """
    Show which step waits for which.

    Args:
        config: The configuration.
        format: How it is shown.
    """
    import json

    from odibi_async.graph.drawing import tree

    pipeline = planned_from(config, given, choice).pipeline
    upstream = pipeline.upstream()
    data = {
        "steps": [{"name": step.name, "layer": step.layer} for step in pipeline.steps],
        "edges": [[other, name] for name, others in upstream.items() for other in others],
    }
    match format:
        case "mermaid":
            text = pipeline.to_mermaid()
        case "dot":
            text = pipeline.to_dot()
        case "svg":
            text = pipeline.to_svg()
        case "json":
            text = json.dumps(data)
        case _:
            text = tree(pipeline.order(), upstream)
    return Answer(text=text, data=data)


@app.command(name="ls")
def list_steps(
    config: str | None = None,
    /,
    *,
    choice: Choice = Choice(),
    given: Given = Given(),
    talk: Talk = Talk(),
) -> Answer:
    """
    List the steps.

    Args:
        config: The configuration.
    """
    plan = planned_from(config, given, choice)
    chosen = {step.name for step in plan.pipeline.steps}
    steps = [step for step in plan.document.steps if step.name in chosen]
    rows = [("NAME", "LAYER", "TYPE", "TAGS")]
    rows += [(step.name, step.layer, step.type, ", ".join(step.tags)) for step in steps]
    data = [
        {
            "name": step.name,
            "layer": step.layer,
            "type": step.type,
            "inputs": step.inputs,
            "datasets": step.datasets,
            "tags": step.tags,
        }
        for step in steps
    ]
    return Answer(text=table(rows), data={"steps": data})


@app.command
def schema(*, talk: Talk = Talk()) -> Answer:
    """Print the JSON Schema of configurations, for editors that complete and check."""
    import json

    from odibi_async.config import json_schema

    found = json_schema()
    return Answer(text=json.dumps(found, indent=2), data={"schema": found})


@app.command
def init(folder: str = ".", /, *, talk: Talk = Talk()) -> Answer:
    """
    Write a small pipeline with its data, which run then runs. Nothing is overwritten.

    Args:
        folder: Where to.
    """
    from odibi_async.cli.starter import write_starter

    written = [str(path) for path in write_starter(Path(folder))]
    there = "" if Path(folder) == Path() else f"cd {folder} && "
    return Answer(text="\n".join((*written, f"Now: {there}odibi-async run")), data={"written": written})


@app.command
def doctor(*, talk: Talk = Talk()) -> Answer:
    """Show versions, usable CPUs, the extras that are installed, and the configuration that is found."""
    from odibi_async.cli.doctor import as_text, findings

    found = findings()
    return Answer(text=as_text(found), data=found)


@app.command
def explain(*codes: str, talk: Talk = Talk()) -> Answer:
    """
    Tell what is behind a code of a fault, with a wrong and a right example.

    Args:
        codes: Which ones; without any, all are listed.
    """
    from odibi_async.cli.codes import CODES
    from odibi_async.errors import did_you_mean

    if not codes:
        titles = {code: entry.title for code, entry in CODES.items()}
        return Answer(text=table([*titles.items()]), data={"codes": titles})
    wanted = [code.upper() for code in codes]
    unknown = [
        Problem(code="OA407", message=f"there is no code {code!r}.{did_you_mean(_in_digits(code), CODES)}")
        for code in wanted
        if code not in CODES
    ]
    if unknown:
        raise Refused(*unknown)
    entries = {code: CODES[code] for code in wanted}
    text = "\n\n".join(entry.explained(code) for code, entry in entries.items())
    return Answer(text=text, data={"codes": {code: entry.as_data() for code, entry in entries.items()}})


def _in_digits(code: str) -> str:
    """A code with digits in place of the letters that look like them."""
    return code[:2] + code[2:].translate(str.maketrans("OIL", "011"))


@app.command
def serve(
    *configs: str,
    given: Given = Given(),
    journal: str | None = None,
    drain: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0,
    takeover: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0,
    max_concurrency: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    pool: tuple[str, ...] = (),
    talk: Talk = Talk(),
    signals: Annotated[Signals, Parameter(parse=False)],
) -> Answer:
    """
    Run pipelines when it is time, until SIGTERM or Ctrl-C: then those that run may end, and none begins.

    Args:
        configs: Configurations that have a schedule, or file.py:NAME for schedules by name in Python.
        journal: A directory, or a postgresql:// URL, where runs and firings are recorded. Servers that share it fire
            once, and one takes over when another is gone.
        drain: Seconds that runs have to end by themselves.
        takeover: Seconds after which a server that does not fire looks whether the one that does is gone.
        max_concurrency: Steps that may run at a time.
        threads: Blocking steps that may run at a time.
        pool: NAME=SLOTS says how many steps of a pool may run at a time. May be repeated.
    """
    from odibi_async.cli.plan import assigned
    from odibi_async.cli.runs import VARIABLE
    from odibi_async.cli.serving import HowToServe, served

    how = HowToServe(
        journal=journal or os.environ.get(VARIABLE) or None,
        drain=drain,
        takeover=takeover,
        concurrency=max_concurrency,
        threads=threads,
        pools={name: slots_of(name, text) for name, text in assigned("--pool", pool).items()},
        quiet=talk.quiet,
    )
    return served(configs, lambda config: planned_from(config, given), how, signals)


@app.command
def story(
    run: str,
    path: str | None = None,
    /,
    *,
    open_story: Annotated[bool, Parameter(name="--open", negative=())] = False,
    where: InJournal = InJournal(),
    talk: Talk = Talk(),
) -> Answer:
    """
    Write the story of a run in a journal.

    Args:
        run: Its id; last for the one that began last.
        path: The page; story_<id>.html without it.
        open_story: Show it in the browser.
    """
    from odibi_async.cli.runs import story as told

    return told(where.journal, run, path, open_story)


def misunderstood(error: CycloptsError, arguments: Sequence[str]) -> Problem:
    """What is wrong with a command line, in words that know nothing of parsers."""
    message, first = str(error), arguments[0] if arguments else ""
    match error:
        case ValidationError():
            return Problem(code="OA502", message=message)
        case UnusedCliTokensError():
            message = f"{', '.join(map(repr, error.unused_tokens or ()))}: that is more than this command takes."
        case UnknownCommandError() if first.startswith("-"):
            message = f"{first!r} stands before the command: flags come behind it, as in odibi-async run {first}."
        case UnknownCommandError() if Path(first).is_file():
            message += f" Did you mean 'odibi-async run {first}'?"
    return Problem(code="OA501", message=message)
