"""Tells the story on a node where there can be one at once, and on a control plane alone elsewhere.

It says which before anything is built: that may take minutes.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from lab import ready
from lab.cache import LabError
from lab.demo import controlplane, node
from lab.demo.screen import show, tell
from lab.node import ensure_possible
from lab.node.programs import built
from lab.process import exit_on_sigterm

WANTED = "LAB_NODE"  # an environment variable: then the node's programs are built


def main() -> int:
    exit_on_sigterm()
    try:
        with ExitStack() as stack:
            without = _no_node()
            if without:
                show(f"No kubelet runs the pods here ({without}): the loss itself isn't shown.")
            ready.ensure()
            story = controlplane.story if without else node.story
            story(stack)
            tell("Cleaning up")
    except KeyboardInterrupt:
        tell("Stopped. Everything that was started is gone.")
        return 130
    except LabError as error:
        print(f"\nThe demo could not go on: {error}", file=sys.stderr)
        return 2
    tell("Done. README.md says how to install it on your cluster.")
    return 0


def _no_node() -> str:
    """Return why there is no node; nothing where there is one."""
    try:
        ensure_possible()
    except LabError as error:
        return str(error)
    if not built() and WANTED not in os.environ:
        return f"`make demo {WANTED}=1` builds it, once, in 5 to 8 minutes"
    return ""


if __name__ == "__main__":
    sys.exit(main())
