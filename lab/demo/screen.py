"""What the demo prints: plain text, and colours where somebody watches."""

from __future__ import annotations

import os
import sys
import time

BOLD, RED, GREEN = "1", "1;31", "1;32"
_STARTED = time.monotonic()


def tell(text: str) -> None:
    """Print the title of a step, with the seconds since the start."""
    print("\n" + paint(f"[{time.monotonic() - _STARTED:3.0f} s] {text}", BOLD), flush=True)


def show(text: str, colour: str = "") -> None:
    """Print what a step found."""
    print("\n".join(paint("    " + line, colour) for line in text.rstrip().splitlines()), flush=True)


def paint(text: str, colour: str) -> str:
    """Colour it on a terminal, unless nobody wants that (no-color.org)."""
    if not colour or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{colour}m{text}\033[0m"
