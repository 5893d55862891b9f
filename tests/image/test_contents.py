"""Which packages the image has and under which licences: a bill of materials by CycloneDX's own tool."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.ourimage import REPOSITORY

pytestmark = pytest.mark.lab

# Licences that let anybody ship the package unchanged beside our own code, by their SPDX names. Another one is to be
# read by a person first, and added here or its package left out.
ALLOWED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "Python-2.0"}
ALLOWED |= {"MPL-2.0"}  # certifi's: whoever changes its files gives the changes; nobody does here
# What classifiers say, which have no versions: uvloop's, beside MIT; requests-oauthlib's, beside ISC; certifi's.
ALLOWED |= {
    f"License :: OSI Approved :: {name}"
    for name in ("Apache Software License", "BSD License", "Mozilla Public License 2.0 (MPL 2.0)")
}


# What the kubernetes client's second client wants, which the image has not, and nothing else that it has.
LEFT_OUT = {"aiohttp", "aiohttp-retry", "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "multidict"}
LEFT_OUT |= {"propcache", "yarl"}


@pytest.fixture(scope="module")
def components(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The components of the image's environment."""
    folder = tmp_path_factory.mktemp("sbom")
    (site,) = root.glob("venv/lib/python3*/site-packages")
    asked = folder / "python"  # the tool asks a Python where its packages are; the image's knows only its own paths
    asked.write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps([str(site)])}'\n")
    asked.chmod(asked.stat().st_mode | stat.S_IXUSR)
    bill = folder / "sbom.json"
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--validate"]
    done = subprocess.run(
        [*tool, "--output-file", bill, asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(bill.read_text())["components"]
    return found


def test_it_has_the_locked_packages_and_our_own(components: list[dict[str, Any]]) -> None:
    locked = set(re.findall(r"^(\S+)==(\S+)", (REPOSITORY / "requirements/runtime.txt").read_text(), re.MULTILINE))
    found = {(re.sub(r"[-_.]+", "-", each["name"]).lower(), each["version"]) for each in components}
    assert found == {each for each in locked if each[0] not in LEFT_OUT} | {("plane-webhook", "0.1.0")}
    assert {name for name, _ in locked} > LEFT_OUT


def test_nothing_else_wants_what_was_left_out(root: Path) -> None:
    (site,) = root.glob("venv/lib/python3*/site-packages")
    wanted = {
        (each["Name"], name)
        for each in (package.metadata for package in importlib.metadata.distributions(path=[str(site)]))
        for name in re.findall(r"(?m)^([\w.-]+)(?!.*extra ==)", "\n".join(each.get_all("Requires-Dist", [])))
    }
    assert {each for each in wanted if each[1] in LEFT_OUT} == {
        ("kubernetes", "aiohttp"),
        ("kubernetes", "aiohttp-retry"),
    }


def test_every_licence_is_one_of_those_allowed(components: list[dict[str, Any]]) -> None:
    named = {each["name"]: _licences(each) for each in components}
    assert {name: licences for name, licences in named.items() if not licences or licences - ALLOWED} == {}


def _licences(component: dict[str, Any]) -> set[str]:
    """The SPDX names of an expression, or of each licence that is listed: its own words where it has none."""
    found: set[str] = set()
    for entry in component.get("licenses", []):
        if "expression" in entry:
            found |= set(re.findall(r"[^\s()]+", entry["expression"])) - {"AND", "OR"}
        else:
            licence = entry["license"]
            found.add(licence.get("id") or licence.get("name"))
    return found
