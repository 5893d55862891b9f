"""The commands of README and docs/, read out of their pages, for tests that run them as a reader would."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

REPOSITORY = Path(__file__).parents[1]


def section(page: str, heading: str) -> str:
    """Return what is below a heading of a page, up to the next one."""
    text = (REPOSITORY / page).read_text()
    found = re.search(rf"^##+ {heading}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return found[1]


def blocks(page: str, heading: str) -> list[str]:
    """Return the fenced blocks of a section that a shell takes: those that name no language."""
    return fenced(page, heading, "")


def fenced(page: str, heading: str, language: str) -> list[str]:
    """Return the fenced blocks of a section that name this language."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", section(page, heading), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, named, block in found if named == language]


def commands(page: str, heading: str) -> list[str]:
    """Return the lines of a section's fenced blocks, without comments: each is a command."""
    return [line for line in "".join(blocks(page, heading)).splitlines() if not line.startswith("#")]


def run(plane: ControlPlane, text: str, folder: Path, *, helm: Path | None = None) -> str:
    """Return what bash printed that was given this text in a folder. It must exit 0. `helm`: another one than usual."""
    other = f'helm() {{ "{helm}" "$@"; }}\n' if helm else ""
    words = ["bash", "-euo", "pipefail", "-c", other + text]
    done = subprocess.run(
        words, cwd=folder, env=plane.environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout
