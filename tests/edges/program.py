"""The server as a process of its own, with limits that fit into a test: `python -m tests.edges.program JSON`."""

import functools
import json
import sys
from pathlib import Path

from webhook.admission import Answer, answer
from webhook.server import Limits, run
from webhook.settings import Settings


def broken(body: bytes) -> Answer:
    """What a bug in the decision looks like from outside: nothing else can be sent to make one happen."""
    raise LookupError(f"a bug, made for this test, that quotes {body!r}")


def main(options: dict[str, object]) -> int:
    return run(
        broken if options["broken"] else functools.partial(answer, settings=Settings()),
        cert_dir=Path(str(options["cert_dir"])),
        host="127.0.0.1",
        port=0,
        metrics_port=0,
        limits=Limits(**options["limits"]),  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
