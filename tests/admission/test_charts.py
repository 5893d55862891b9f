"""Over the rendered charts of Plane's releases: `preview` finds the workloads asked for, all of them and no other.

The charts are no part of this repository; tests/cases has each of their shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.admission import oracle
from webhook.admission import Reason
from webhook.manifest import read, workloads
from webhook.preview import preview
from webhook.settings import Settings, parse

REPOSITORY = Path(__file__).parent.parent.parent
CHARTS = sorted((REPOSITORY.parent / "shared" / "charts").glob("*.yaml"))
NO_COMMAND = ("plane-enterprise-1.2.8",)  # their API is told by its image, and can't be made to take effect

API = "-api-wl"
CELERY = ("-worker-wl", "-worker-importers-wl")  # beat is called beat-worker

pytestmark = pytest.mark.skipif(not CHARTS, reason="the folder shared/charts is not beside the repository")
each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.stem)


def names(chart: Path, *ends: str) -> set[str]:
    """Names of the Deployments by an independent sign: how Plane's charts name them."""
    documents = yaml.safe_load_all(chart.read_text(encoding="utf-8"))
    found = {each["metadata"]["name"] for each in documents if each and each["kind"] == "Deployment"}
    return {name for name in found if name.endswith(ends) and "-pi-" not in name}


def changed(chart: Path, settings: Settings) -> dict[str, str]:
    result = preview([(chart.name, chart.read_text(encoding="utf-8"))], settings)
    assert result.reached
    return {
        change.workload.tree["metadata"]["name"]: change.decision.reason
        for change in result.changes
        if change.operations
    }


def expected_api(chart: Path) -> dict[str, str]:
    reason = Reason.NOT_EFFECTIVE if chart.stem in NO_COMMAND else Reason.INJECTED
    found = dict.fromkeys(names(chart, API), reason)
    assert found
    return found


def expected_celery(chart: Path) -> dict[str, str]:
    found = dict.fromkeys(names(chart, *CELERY), Reason.INJECTED)
    assert len(found) >= 2
    return found


@each_chart
def test_by_default_the_api_the_workers_and_beat_and_no_other(chart: Path) -> None:
    assert changed(chart, Settings()) == {**expected_api(chart), **expected_celery(chart)}


@each_chart
def test_the_api_workloads_and_no_other_where_they_alone_are_asked_for(chart: Path) -> None:
    assert changed(chart, parse("workloads: [api]")) == expected_api(chart)


@each_chart
def test_workers_and_beat_where_they_alone_are_asked_for(chart: Path) -> None:
    assert changed(chart, parse("workloads: [worker, beat]")) == expected_celery(chart)


@each_chart
def test_nothing_else_of_a_chart_is_touched(chart: Path) -> None:
    text = chart.read_text(encoding="utf-8")
    result = preview([(chart.name, text)], Settings())
    for before, after in zip(read(text, chart.name), read(result.yaml(), "written"), strict=True):
        for old, new in zip(workloads(before), workloads(after), strict=True):
            restored: dict[str, Any] = oracle.without_injection(new.template, old.template)
            new.template.clear()
            new.template.update(restored)
        assert oracle.same(after.tree, before.tree)


def test_the_variants_are_all_there() -> None:
    assert {chart.stem.partition("+")[2] for chart in CHARTS} >= {
        "", "external-api", "external-secret", "extra-env", "otel", "restricted", "s3-ca",
    }  # fmt: skip
    (external,) = [chart for chart in CHARTS if "external-api" in chart.stem]
    assert changed(external, parse("workloads: [api]")).keys() == {"prod-api-wl", "prod-external-api-wl"}
