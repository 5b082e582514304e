"""The command line: `odibi-async run pipeline.yaml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.output import Output, stdout_for_results
from odibi_async.cli.signals import Interrupted, Signals
from odibi_async.errors import OdibiError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Does what the arguments say, and says what came of it.

    Args:
        arguments: Those of the command line; `None` for the process's own.

    Returns:
        What the process is to end with; `docs/command_line.md` tells what that means.
    """
    is_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with stdout_for_results() as results:
        output = Output(
            results,
            command=next((each for each in arguments if not each.startswith("-")), ""),
            as_json="--json" in arguments,
        )
        signals = Signals(output.abort)
        with signals.handled():
            try:
                answer = _answer(arguments, signals, output)
            except BaseException as error:  # a fault of ours: its traceback is for whoever mends it
                output.crashed(error)
                raise
            exit_code = _exit_code(answer, signals)
            output.say(answer, exit_code)
            if answer.must_end:  # a thread that does not end would hold up the process
                os._exit(exit_code)
            if is_process:
                signals.only_hurry(exit_code)
    return exit_code


def _answer(arguments: Sequence[str], signals: Signals, output: Output) -> Answer:
    """What the command says, or what kept it from that; no signal changes it any more."""
    try:
        try:
            answer = _called(arguments, signals, output)
        except Refused as error:
            answer = Answer(problems=error.problems)
        except OdibiError as error:
            answer = Answer(problems=problems_of(error))
        signals.over()
    except Interrupted:  # at most once: another signal aborts
        signals.over()
        answer = Answer(problems=[Problem(code="OA303", message="interrupted")])
    return answer


def _called(arguments: Sequence[str], signals: Signals, output: Output) -> Answer:
    """
    Raises:
        Refused: The command did not do its work.
        OdibiError: Likewise.
        Interrupted: A signal came.
    """
    from cyclopts import CycloptsError  # 60 ms to import

    from odibi_async.cli.app import app, misunderstood

    try:
        os.getcwd()
    except FileNotFoundError:
        raise Refused(Problem(code="OA401", message="the current directory no longer exists.")) from None
    try:
        command, bound, unparsed = app.parse_args(_with_story(arguments), print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise Refused(misunderstood(error, arguments)) from error
    if "console" in bound.arguments:  # help, version
        from rich.console import Console

        bound.arguments["console"] = console = Console(file=output.results)
        with console.capture() as page:
            command(*bound.args, **bound.kwargs)
        return Answer(text=page.get(), data={"page": page.get()})
    talk = bound.arguments.get("talk")
    if talk is not None:
        output.as_json, output.verbose = talk.json, talk.verbose
    output.traceback = bool(bound.arguments.get("traceback"))
    answer: Answer = command(*bound.args, **bound.kwargs, **({"signals": signals} if "signals" in unparsed else {}))
    return answer


def _with_story(arguments: Sequence[str]) -> list[str]:
    """The arguments with a file behind each `--story` that names none: what follows it may be the configuration."""
    following = [*arguments[1:], ""]
    return [
        "--story=story.html" if each == "--story" and not other.lower().endswith((".html", ".htm")) else each
        for each, other in zip(arguments, following, strict=True)
    ]


def _exit_code(answer: Answer, signals: Signals) -> int:
    codes = [problem.exit_code for problem in answer.problems]
    if codes[:1] == [130]:  # which signal it was
        return signals.exit_code
    return codes[0] if codes else 0
