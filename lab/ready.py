"""What every use of the lab needs: system packages, the small Plane's image, the control plane's programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import images
from lab.controlplane.programs import DEMO, binary
from lab.packages import ensure_packages

if TYPE_CHECKING:
    from collections.abc import Iterable


def ensure(programs: Iterable[str] = DEMO) -> None:
    """Set it up; what is there already costs nothing. LabError says what is missing."""
    ensure_packages()
    images.build()
    for name in programs:
        binary(name)
