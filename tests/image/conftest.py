"""The image of this tree, built and unpacked once for all tests of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import ourimage
from lab.cache import LabError
from lab.fixtures import need
from lab.oci import Layout, apply


@pytest.fixture(scope="session")
def built() -> Layout:
    """The image, as an OCI layout."""
    need("bubblewrap")
    if os.geteuid() != 0:
        pytest.skip("files with an owner of their own are unpacked by root only")
    try:
        ourimage.packages()
    except LabError as error:
        pytest.skip(str(error))
    return ourimage.image()  # one that can't be built is a failure


@pytest.fixture(scope="session")
def root(built: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a container of it has as /."""
    path = tmp_path_factory.mktemp("image") / "root"
    built.unpack(path)
    return path


@pytest.fixture(scope="session")
def ours(built: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it has above its base: the layers after the first."""
    path = tmp_path_factory.mktemp("image") / "ours"
    path.mkdir()
    for layer in built.layers()[1:]:
        apply(layer, path)
    return path
