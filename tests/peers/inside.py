"""A plug-in for the pytest that runs a peer's tests: installs our patches, if asked to, and writes what became of each.

It runs in that Python and not in ours, so it must import nothing of this project but the payload.
"""

import json
import os
from pathlib import Path

import pytest

PATCHED, OUTCOMES = "PLANE_WEBHOOK_PATCHED", "PLANE_WEBHOOK_OUTCOMES"
outcomes: dict[str, str] = {}
file = Path(os.environ.get(OUTCOMES, os.devnull))  # read now: tests change the environment


def install() -> None:
    """Install our patches as Plane's settings do, but for the spool, which needs a Redis."""
    from plane_webhook import patches  # noqa: PLC0415 - not where the tests run as they are

    publish = {
        "mandatory": True,
        "patience": 1.0,
        "timeout": 5.0,
        "spool": "none",
        "spool_tasks": 1,
        "spool_bytes": 1024,
    }
    patches.install(publish, None, None)


def pytest_configure() -> None:
    """Before any test is imported, as before any of Plane's modules."""
    if os.environ.get(PATCHED):
        install()


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file whose tests can't be had is an outcome too."""
    if report.failed:
        outcomes[report.nodeid] = "not collected"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The last word on a test: a repeated one is judged by its last run, one that fails while tidying up has failed.

    What pytest reports for a part of a test has the test's own name and belongs to it.
    """
    before = outcomes.get(report.nodeid)
    if report.when == "setup":
        before = None
    if report.when == "call" or report.outcome != "passed":
        now = "expected to fail" if hasattr(report, "wasxfail") else report.outcome
        outcomes[report.nodeid] = before if before == "failed" else now


def pytest_sessionfinish(exitstatus: int) -> None:
    """Hand over what became of them, if all of them were run."""
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        file.write_text(json.dumps(outcomes), encoding="utf-8")
