"""Secrets: kept, passed on, never shown."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from odibi_async import RunError, Secret, Tracker, run_pipeline_sync, step
from odibi_async.observers.logs import JsonFormatter, Logs
from odibi_async.observers.progress import Progress
from odibi_async.secret import masked, secrets_in

KEY = "-----BEGIN KEY-----\nMIIhushhush/+1\n  hush'\"hush\\ü%==\n-----END KEY-----\n"


def test_a_secret_is_masked_wherever_it_is_shown():
    secret = Secret("hunter2")
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{secret!r}",
        repr({"key": [secret]}),
        "{}".format(*[secret]),
    ]
    assert not any("hunter2" in each for each in shown)
    assert str(secret) == "**********"
    assert secret.reveal() == "hunter2"


def test_secrets_are_equal_when_their_texts_are_and_never_equal_a_text():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("\udcff") == Secret("\udcff")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), "a"}) == 2


def test_pickles_and_copies_keep_the_text():
    secret = Secret("hunter2")
    for twin in (pickle.loads(pickle.dumps(secret)), copy.copy(secret), copy.deepcopy(secret)):
        assert twin == secret
        assert twin.reveal() == "hunter2"


def test_a_secret_is_not_written_as_json_by_accident():
    with pytest.raises(TypeError):
        json.dumps({"password": Secret("hunter2")})


# -- masked in what is told of a run ---------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["hush-hush", "hush/hush+%ü", "hush'\"hush\\", "hush\udc80hush", KEY])
def test_a_secret_is_masked_however_it_is_spelled(secret: str):
    spelled = [
        secret,
        repr({"token": [secret]}),
        repr(secret.encode("utf-8", "surrogatepass")),
        json.dumps({"token": secret}),
        json.dumps({"token": secret}, ensure_ascii=False),
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        *secret.splitlines(),
        "\n".join(f"  | {line}" for line in secret.splitlines()),
        secret[:-10] if "\n" in secret else secret,
    ]
    for each in spelled:
        assert "hush" not in masked(f"before {each} after", {secret}), each


def test_short_lines_of_a_secret_are_no_secrets():
    assert masked("a {b} c", {'{\n"private": "hush-hush"\n}'}) == "a {b} c"


def test_secrets_are_found_in_dicts_lists_and_tuples_also_in_those_that_contain_themselves():
    circle: list[Any] = [{"a": (Secret("one"), 1, "x")}, [[Secret("two")]]]
    circle.append(circle)
    assert sorted(secrets_in(circle)) == ["one", "two"]
    deep: list[Any] = [Secret("three")]
    for _ in range(10_000):
        deep = [deep]
    assert list(secrets_in(deep)) == ["three"]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"db": {"password": it}}, lambda it: [it]])
@pytest.mark.parametrize("place", ["inputs", "params"])
def test_what_is_told_of_a_run_shows_no_secret(tmp_path: Path, place: str, wrap: Any):
    def use(token: Any) -> None:
        while not isinstance(token, Secret):
            token = token[0] if isinstance(token, list) else next(iter(token.values()))
        said = token.reveal()
        raise ConnectionError(f"{said!r} at https://user:hush@host/{quote(said)} refused: {said}")

    given = {"token": wrap(Secret(KEY))}
    log, lines, tracker, progress = logging.getLogger("test_secret"), io.StringIO(), Tracker(), io.StringIO()
    log.propagate, handler = False, logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    observers = [tracker, Logs(log), Progress(progress)]
    steps = [step(use, params=given)] if place == "params" else [step(use), step(lambda: 1, name="other")]
    targets = ["use"] if place == "params" else ["use", "other"]
    inputs = given if place == "inputs" else {}
    with pytest.raises(RunError) as caught:
        run_pipeline_sync(steps, inputs, targets=targets, observers=observers, journal=tmp_path / "journal")
    log.removeHandler(handler)
    result: Any = caught.value.result
    result.to_story(tmp_path / "result.html")
    tracker.tell(tmp_path / "tracker.html")
    tracker.save(tmp_path / "lineage.json")
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    told = [(each.name, each.read_bytes().decode("utf-8", "replace")) for each in files]
    told += [("str(result)", str(result)), ("notebook", str(result._repr_mimebundle_()))]
    told += [("RunError", str(caught.value)), ("log", lines.getvalue()), ("progress", progress.getvalue())]
    assert len(told) > 7
    for name, text in told:
        assert "hush" not in text, name
