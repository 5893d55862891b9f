"""Our guard in a container's command line: how it is told, and which of the words are not ours.

It is looked for in command and args alike and at any offset: a later webhook may have put its own launcher in front,
and many that do move everything else into `args`. A word alone proves nothing; the guard's text before its ARGV0 does.
"""

from __future__ import annotations

from webhook import payload
from webhook.admission.review import Container

ARGV0 = "plane-webhook"
# The words behind ARGV0 that are still ours: the variables, the settings and the files.
TEXTS = 5
_SIGNATURE = payload.GUARD.split("\n", 1)[0].rstrip("0123456789")


def guarded(container: Container) -> bool:
    """Whether our guard stands in the container's command line."""
    return _argv0(_words(container)) is not None


def theirs(container: Container) -> list[str]:
    """The words of command and args without our texts."""
    words = _words(container)
    at = _argv0(words)
    if at is None:
        return words
    return words[: at - 1] + words[at + 1 + TEXTS :]


def _words(container: Container) -> list[str]:
    return (container.command or []) + (container.args or [])


def _argv0(words: list[str]) -> int | None:
    """Where our ARGV0 stands, behind the guard."""
    found = (at for at, word in enumerate(words) if word == ARGV0 and at and words[at - 1].startswith(_SIGNATURE))
    return next(found, None)
