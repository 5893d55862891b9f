"""What a container's own command line says, ours left out: words and scripts as a shell reads them."""

from __future__ import annotations

import re

from webhook.admission.guard import theirs
from webhook.admission.review import Container

CMD_ARGS = "GUNICORN_CMD_ARGS"  # what gunicorn reads before its command line
# A comment goes to the end of its line whatever stands there, and a backslash may itself be escaped.
_COMMENT_OR_ESCAPED = re.compile(r"(?<![^\s;&|()`])#[^\n]*|\\.", re.DOTALL)
_CONTINUATION = "\\\n"
# Linux takes no longer argument; a command line that says something only behind this much says it to nobody.
_LOOKED_AT = 128 * 1024
# gunicorn's options for its limits, as argparse takes them (`--max-requests-j`). What passes our variable on is none.
_LIMIT = re.compile(r"(?<![\w-])--max-requests(-j[a-z]*)?[=\s](?![\s\"']*\$[({]?GUNICORN_MAX_REQUESTS)[\s\"']*([0-9]*)")
_COMMENT_LINE = re.compile(r"^[ \t]*#.*", re.MULTILINE)


def command_line(container: Container) -> list[str]:
    """The words of command and args without our texts; lines that go on in the next one are one line."""
    return [_joined(word) if _CONTINUATION in word else word for word in theirs(container)]


def _joined(script: str) -> str:
    # A shell puts nothing in their place. A space keeps apart what the match condition can't see as one either.
    return _COMMENT_OR_ESCAPED.sub(lambda match: " " if match[0] == _CONTINUATION else match[0], script)


def text(words: list[str]) -> str:
    """Words that belong together as one line, each script as one or more."""
    return " ".join(f"\n{word}\n" if re.search(r"\s", word) else word for word in words)[:_LOOKED_AT]


def max_requests(container: Container, words: list[str]) -> str | None:
    """The limit that the container's `words`, or its GUNICORN_CMD_ARGS, give gunicorn; None where they give none.

    The last one counts. It is "" where there is no number, or none but the jitter's.
    """
    words = [variable.value or "" for variable in container.env or () if variable.name == CMD_ARGS] + words
    if "--max-requests" not in " ".join(words):
        return None
    found = _LIMIT.findall(_COMMENT_LINE.sub("", text(words)))
    return next((number for jitter, number in reversed(found) if not jitter), "") if found else None
