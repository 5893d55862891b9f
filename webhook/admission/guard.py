"""Our guard in a container's command line: how it is told, and which of the words are not ours.

It is looked for in command and args alike and at any offset: a later webhook may have put its own launcher in front,
and many that do move everything else into `args`. A word alone proves nothing; the guard's text before its ARGV0 does.
"""

from __future__ import annotations

import re

from webhook.admission.review import Container

ARGV0 = "plane-webhook"
_SIGNATURE = re.compile(r"# plane-webhook guard ([0-9]+)\n")
# The words behind ARGV0 that are still ours (the variables, the settings, the files), by the guard's own number: a pod
# may be a copy of one that an earlier version made.
_TEXTS = {"1": 5, "2": 3}


def guarded(container: Container) -> bool:
    """Whether our guard stands in the container's command line."""
    return _ours(_words(container)) is not None


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
