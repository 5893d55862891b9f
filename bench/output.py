"""Where a measurement leaves what it found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write(folder: Path, name: str, result: object, picture: Iterable[str]) -> None:
    """Write NAME.json and, of the lines of an SVG, NAME.svg into the folder, which is made where it isn't there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.svg").write_text("\n".join(picture) + "\n")
