"""What `doctor --exec` makes of what a container prints: data from a stranger."""

from __future__ import annotations

import json
from typing import Any

import pytest

from webhook.cluster.api import Ended
from webhook.cluster.doctor.finding import harmless
from webhook.cluster.doctor.proof import amiss

GOOD = {"what": "GUNICORN_MAX_REQUESTS", "asked": "0", "found": "0", "agrees": True, "how": "read"}
BAD = {"what": "Celery task_publish_retry", "asked": True, "found": False, "agrees": False, "how": "inferred"}


def ended(said: Any, code: int = 0, **more: Any) -> Ended:
    return Ended(code, said if isinstance(said, bytes) else json.dumps(said).encode(), b"", **more)


def test_nothing_is_said_of_what_is_in_effect() -> None:
    assert amiss(ended({"in_effect": True, "checks": [GOOD], "spool": {}, "version": "1"})) == ""


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (ended({"in_effect": False, "checks": [GOOD, BAD]}, 1), "Celery task_publish_retry: asked true, found false"),
        (ended({"in_effect": False, "error": "no gunicorn runs here"}, 1), "no gunicorn runs here"),
        (ended({"in_effect": True, "checks": [BAD]}), "Celery task_publish_retry: asked true, found false"),
        (ended({"in_effect": True, "checks": []}, 1), "proof says that it is not in effect, and not why"),
        (ended({"in_effect": "yes"}), "proof said nothing that can be read: {"),
        (ended(b""), "proof said nothing that can be read: nothing at all"),
        (Ended(-1, b"", b"exec: /plane-webhook/proof: no such file"), "no such file"),
        (ended(b"[" * 60_000), "proof said nothing that can be read"),
        (ended({"in_effect": True, "checks": [GOOD] * 10_000}), "proof said nothing that can be read"),
        (ended(b"y\n" * 40_000, cut=True), "proof printed more than 65536 bytes"),
        (ended(b"\xff\x1b]0;owned\x07\x9b2J\xe2\x80\xaeevil"), "]0;owned"),
        (ended({"in_effect": False, "checks": [{**BAD, "what": "\x1b[2Jx", "found": "\u202e"}]}, 1), "[2Jx: asked"),
    ],
)  # fmt: skip
def test_what_it_says_is_one_short_line_without_control_characters(said: Ended, sentence: str) -> None:
    text = amiss(said)
    assert sentence in text
    assert len(text) < 600
    assert text.isprintable()


def test_of_many_differences_some_are_named() -> None:
    text = amiss(ended({"in_effect": False, "checks": [{**BAD, "what": f"check {at}"} for at in range(9)]}, 1))
    assert text.count("asked") == 3
    assert text.endswith(" and 6 more")


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\ufeff"])
def test_no_character_reaches_a_terminal_that_is_not_for_reading(character: str) -> None:
    assert harmless(f"a{character}b") == "a b"
