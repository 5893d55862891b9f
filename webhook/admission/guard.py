"""Our guard in a container's command line: how it is told, and which of the words are not ours.

It is looked for in command and args alike and at any offset: a later webhook may have put its own launcher in front,
and many that do move everything else into `args`. A word alone proves nothing; the guard's text before its ARGV0 does.
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

import msgspec

from webhook.admission.review import Container

ARGV0 = "plane-webhook"
_SIGNATURE = re.compile(r"# plane-webhook guard ([0-9]+)\n")
# The words behind ARGV0 that are still ours (the variables, the settings, the files), by the guard's own number: a pod
# may be a copy of one that an earlier version made.
_TEXTS = {"1": 5, "2": 3}


class Told(TypedDict, total=False):
    """What our guard in a container was told, as far as it is looked at. Whoever may create pods can write another."""

    version: str
    digest: str
    workload: str
    precedence: str
    env: dict[str, str]
    kept: list[str]
    publish: dict[str, Any]


def told(container: Container) -> Told | None:
    """What our guard in the container's command line was told; None where there is none, {} where it can't be read."""
    words = _words(container)
    ours = _ours(words)
    if ours is None:
        return None
    for word in words[ours.start + 2 : ours.stop]:
        if word.startswith("{"):
            try:
                return msgspec.json.decode(word.replace("$$", "$"), type=Told)
            except (msgspec.MsgspecError, RecursionError):
                return {}
    return {}


def theirs(container: Container) -> list[str]:
    """The words of command and args without our texts."""
    words = _words(container)
    ours = _ours(words)
    return words[: ours.start] + words[ours.stop :] if ours else words


def _words(container: Container) -> list[str]:
    return (container.command or []) + (container.args or [])


def _ours(words: list[str]) -> range | None:
    """Where our texts stand: the guard, its ARGV0 and what belongs to it."""
    for at, word in enumerate(words):
        if word == ARGV0 and at and (signature := _SIGNATURE.match(words[at - 1])):
            return range(at - 1, at + 1 + _TEXTS.get(signature[1], 0))
    return None
