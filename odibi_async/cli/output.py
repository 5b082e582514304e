"""Results on stdout, all else on stderr, or everything as one JSON object."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from odibi_async.cli.answer import Answer, Problem
from odibi_async.errors import in_a_line, located
from odibi_async.secret import masked

MOST_LINES = 12
"""What failures may take of a screen before the rest of them is only counted."""
MOST_LINES_OF_FAULTS = 60
"""The same for what is wrong in a configuration, which people mend in one go."""


MOST_LETTERS = 1_000
"""What a line of a problem may hold before the rest is cut; errors of databases tend to tell all of their data."""


class Output:
    """
    Where a command's words go.

    Args:
        results: What was stdout when the process began.
        command: What was asked for, for `--json`.
        as_json: Whether all of it is to be one JSON object.

    Attributes:
        verbose: Whether nothing is to be shortened.
        traceback: Whether to tell where a step raised its error.
    """

    def __init__(self, results: TextIO, command: str, as_json: bool) -> None:
        self.results = results
        self.command = command
        self.as_json = as_json
        self.verbose = False
        self.traceback = False

    def say(self, answer: Answer, exit_code: int) -> None:
        """Says all of it."""
        if self.as_json:
            self._write_json(exit_code, [_record(problem) for problem in answer.problems], answer.data, answer.secrets)
            return
        if answer.problems:
            complain(masked("\n".join(_told(answer.problems, self.verbose, self.traceback)), answer.secrets))
        if answer.text:
            self.write(masked(answer.text, answer.secrets))

    def crashed(self, error: BaseException) -> None:
        """Keeps the promise of `--json` where an error of our own is on its way to stderr."""
        if self.as_json:
            self._write_json(1, [{"message": repr(error)}], {}, ())

    def _write_json(
        self, exit_code: int, errors: Sequence[Any], data: Mapping[str, Any], secrets: Collection[str]
    ) -> None:
        envelope = {"ok": exit_code == 0, "command": self.command, "exit_code": exit_code, "errors": errors}
        self.write(json.dumps(plain({**envelope, **data}, secrets)))

    def write(self, text: str) -> None:
        """
        Writes a result; a reader that is gone, as behind `| head`, is no error.

        Raises:
            SystemExit: It cannot be written, on a full disk say.
        """
        try:
            self.results.write(text.rstrip("\n") + "\n")
            self.results.flush()
        except OSError as error:
            _leave(self.results.fileno())
            if not isinstance(error, BrokenPipeError):
                complain(f"the results cannot be written: {error.strerror}")
                raise SystemExit(1) from error

    def abort(self, exit_code: int) -> None:
        """Ends the process now; callable wherever a signal may come."""
        if self.as_json:
            envelope = {"ok": False, "command": self.command, "exit_code": exit_code}
            errors = [{"code": "OA303", "message": "aborted"}]
            with contextlib.suppress(OSError):
                os.write(self.results.fileno(), json.dumps({**envelope, "errors": errors}).encode() + b"\n")
        os._exit(exit_code)


@contextlib.contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """
    What was stdout, for results alone.

    Meanwhile what others write to stdout, a step that prints say, goes to stderr.
    """
    _open_what_is_closed()
    sys.stdout.flush()
    with open(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as results:
        os.dup2(2, 1)  # for what knows no sys.stdout: libraries in C, other processes
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield results
        finally:
            os.dup2(results.fileno(), 1)


def _open_what_is_closed() -> None:
    """
    Has stdin, stdout and stderr lead nowhere where whoever started us closed them.

    Else the next file that anybody opens, an output of the pipeline say, would get the number of one of them, and with
    it whatever is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _leave(number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))


def complain(text: str, end: str = "\n") -> None:
    """Writes to stderr, unless nobody reads it any more."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _leave(2)


def without_passwords(text: str) -> str:
    """The text with stars for who logs in, and how, in each URL; everything stays in its column."""
    return re.sub(r"(?<=://)[^/?#\s]+(?=@)", lambda found: "*" * len(found[0]), text)


def harmless(text: str) -> str:
    """The text with its control characters spelled out: data in an error must not move anybody's cursor."""
    return text.translate(_controls)


_controls = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"}


def _leave(descriptor: int) -> None:
    """Points a descriptor at nothing, so that what is still buffered for it harms nobody when it is flushed."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def plain(value: Any, secrets: Collection[str] = ()) -> Any:
    """The same value as JSON knows it: what it does not know becomes text, and no text shows a secret."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): plain(each, secrets) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(each, secrets) for each in value]
        case BaseException():
            return masked(in_a_line(value), secrets)
        case datetime():
            return value.isoformat()
        case _:
            return masked(str(value), secrets)


def is_rich(stream: TextIO) -> bool:
    """Whether a stream takes colours and moves of the cursor."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _record(problem: Problem) -> dict[str, Any]:
    line, column = _line_and_column(problem.place)
    found = {
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
        "file": problem.file,
        "place": problem.place,
        "line": line,
        "column": column,
        "step": problem.step,
        "error": type(problem.error).__name__ if problem.error is not None else None,
    }
    return {key: value for key, value in found.items() if value not in (None, "")}


def _told(problems: Sequence[Problem], verbose: bool, traceback: bool) -> Iterator[str]:
    """The lines that report problems, no more than a screen holds."""
    room = MOST_LINES_OF_FAULTS if all(each.code < "OA3" for each in problems) else MOST_LINES
    lines_of: dict[str, list[str]] = {}
    told: list[Problem] = []
    for problem in problems:
        lines = list(_lines(problem, lines_of, None if verbose else 5))
        room -= len(lines)
        if room < 0 and told and not verbose:
            yield f"... and {len(problems) - len(told)} more, which -v shows"
            break
        told.append(problem)
        yield from lines
        if traceback and problem.error is not None:
            yield from _own_traceback(problem.error)
    yield from dict.fromkeys(each.hint for each in told if each.hint and "Did you mean" not in each.message)
    yield f"odibi-async explain {' '.join(dict.fromkeys(each.code for each in told))}"


def _lines(problem: Problem, lines_of: dict[str, list[str]], most: int | None) -> Iterator[str]:
    where = f" {located(problem.file, problem.place)}" if problem.file else ""
    first, *rest = [line for line in problem.message.splitlines() if line.strip()] or [""]
    yield f"{_painted(problem.code)}{where}  {_cut(first, most)}"
    yield from _underlined(problem, lines_of)
    yield from (f"  {_cut(line, most)}" for line in rest[:most])


def _cut(line: str, most: int | None) -> str:
    """A line as a screen takes it; whole where nothing is to be shortened."""
    return harmless(line if most is None or len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…")


def _underlined(problem: Problem, lines_of: dict[str, list[str]]) -> Iterator[str]:
    """The line of the file that is meant, and what is meant in it."""
    number, column = _line_and_column(problem.place)
    if problem.file is None or number is None or problem.file.endswith((".csv", ".db", ".sqlite")):
        return
    if problem.file not in lines_of:
        lines_of[problem.file] = _read(problem.file)
    line = without_passwords("".join(lines_of[problem.file][number - 1 : number]).expandtabs(1))
    if not line.strip():
        return
    start = (column or 1 + len(line) - len(line.lstrip())) - 1
    length = len(_word(line, start)) if column else len(line.strip())
    gutter = f"  {number} | "
    room = max(20, shutil.get_terminal_size().columns - len(gutter) - 1)
    cut = max(0, start + min(length, room) - room)
    shown, before = line[cut : cut + room], line[cut:start]
    yield gutter + harmless(shown)
    marks = "^" * min(_width(line[start : start + length]), room - _width(before))
    yield f"{' ' * (len(gutter) - 2)}| {' ' * _width(before)}{marks or '^'}"


def _read(file: str) -> list[str]:
    """The lines of a file; none when it went away meanwhile, or is no text."""
    try:
        return Path(file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        return []


_token = re.compile(
    r""" "(?:[^"\\]|\\.)*"? | '[^']*'? | [{\[] | [^\s,:\]}]+(?:[ ](?![#])[^\s,:\]}]+)* | . """, re.VERBOSE
)


def _word(line: str, start: int) -> str:
    """What begins at a place: a quoted text, a bracket, or words up to the next mark."""
    found = _token.match(line, start)
    return found[0] if found else ""


def _line_and_column(place: str) -> tuple[int | None, int | None]:
    found = re.match(r"(\d+)(?::(\d+))?", place)
    return (int(found[1]), int(found[2]) if found[2] else None) if found else (None, None)


def _width(text: str) -> int:
    """The columns that a text takes: wide letters take two, marks over letters none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _painted(code: str) -> str:
    return f"\x1b[1;31m{code}\x1b[0m" if is_rich(sys.stderr) else code


def _own_traceback(error: BaseException) -> Sequence[str]:
    """The traceback of what a step raised and of what led to it, without the frames that called the step."""
    import traceback

    told = traceback.TracebackException.from_exception(error)
    ahead: list[traceback.TracebackException | None] = [told]
    while ahead:
        if each := ahead.pop():
            own = [index for index, frame in enumerate(each.stack) if not frame.filename.startswith(_ours)]
            each.stack = traceback.StackSummary.from_list(each.stack[own[0] if own else 0 :])
            ahead += [each.__cause__, each.__context__]
    return "".join(told.format()).rstrip().splitlines()


_ours = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
