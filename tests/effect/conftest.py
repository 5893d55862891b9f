"""What the tests of the payload share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import images

VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    """An interpreter of each version; the tests of one that isn't here are skipped."""
    found = images.find_python(request.param)
    if not found.version.startswith(request.param + "."):
        pytest.skip(f"there is no python{request.param} here")
    return found.executable
