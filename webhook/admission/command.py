"""What a container's own command line says, ours left out: words and scripts as a shell reads them."""

from __future__ import annotations

import re

from webhook.admission.guard import theirs
from webhook.admission.review import Container

# A comment goes to the end of its line whatever stands there, and a backslash may itself be escaped.
_COMMENT_OR_ESCAPED = re.compile(r"(?<![^\s;&|()`])#[^\n]*|\\.", re.DOTALL)
_CONTINUATION = "\\\n"


def command_line(container: Container) -> list[str]:
    """The words of command and args without our texts; lines that go on in the next one are one line."""
    return [_joined(word) if _CONTINUATION in word else word for word in theirs(container)]


def _joined(script: str) -> str:
    # A shell puts nothing in their place. A space keeps apart what the match condition can't see as one either.
    return _COMMENT_OR_ESCAPED.sub(lambda match: " " if match[0] == _CONTINUATION else match[0], script)
