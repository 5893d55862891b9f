"""One JSON object a line on stdout, for decisions and for everything that uvicorn and asyncio have to say.

Never holds a pod's content: callers pass names and codes. A line that can't be written is lost, and the answer to the
API server is not.
"""

import contextlib
import logging
import os
from datetime import UTC, datetime
from typing import Any

import msgspec

# Names and uids come from whoever sends a review; real ones are at most 253 characters long.
LONGEST_VALUE = 256

_encode = msgspec.json.Encoder(enc_hook=str).encode
_stdout = 1


class Entry(msgspec.Struct, gc=False):
    """How a line begins that is written often: with fields that are known, it takes half of the time of others."""

    time: datetime
    level: str
    message: str


def line(level: str, message: str, /, **fields: Any) -> None:
    """Write one line. Values are JSON-like; strings beyond LONGEST_VALUE must have been cut."""
    write({"time": now(), "level": level, "message": message, **fields})


def now() -> datetime:
    """The time as all lines have it."""
    return datetime.now(UTC)


def write(entry: Entry | dict[str, Any]) -> None:
    """Write what stands in a line, as `line` does."""
    content = _encode(entry) + b"\n"
    with contextlib.suppress(OSError):  # nobody reads any more, or the disk behind it is full
        os.write(_stdout, content)


class _Lines(logging.Handler):
    """Sends what libraries log the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a traceback becomes one string."""
        fields = {"logger": record.name}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        try:
            line(record.levelname.lower(), record.getMessage(), **fields)
        except Exception:  # noqa: BLE001 - a record that can't be formatted; what logging itself does then
            self.handleError(record)


def configure() -> None:
    """Make this the only way to stdout for the whole process."""
    logging.basicConfig(handlers=[_Lines()], level=logging.INFO, force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what goes on as it should is said by the server itself
