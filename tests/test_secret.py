"""Secrets: kept, passed on, never shown."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from odibi_async.secret import Secret


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
