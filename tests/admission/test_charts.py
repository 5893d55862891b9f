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
from webhook.manifest import read
from webhook.preview import Source, preview, shown
from webhook.preview.templates import workloads
from webhook.settings import Settings, parse

REPOSITORY = Path(__file__).parent.parent.parent
CHARTS = sorted((REPOSITORY.parent / "shared" / "charts").glob("*.yaml"))
NO_COMMAND = ("plane-enterprise-1.2.8",)  # their API is told by its image, and can't be made to take effect

API = "-api-wl"
CELERY = ("-worker-wl", "-worker-importers-wl")  # beat is called beat-worker

WANTED = "needs rendered charts of Plane's releases, which are not in this repository"
pytestmark = pytest.mark.skipif(not CHARTS, reason=WANTED)
each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.stem)


def names(chart: Path, *ends: str) -> set[str]:
    """Names of the Deployments by an independent sign: how Plane's charts name them."""
    documents = yaml.safe_load_all(chart.read_text(encoding="utf-8"))
    found = {each["metadata"]["name"] for each in documents if each and each["kind"] == "Deployment"}
    return {name for name in found if name.endswith(ends) and "-pi-" not in name}


def decided(chart: Path, settings: Settings) -> dict[str, str]:
    """Reasons by workload, without those that have nothing of Plane's that could publish."""
    result = preview([Source(chart.name, chart.read_text(encoding="utf-8"))], settings)
    assert result.unjudged == []
    assert not any(change.operations for change in result.changes if change.decision.reason is not Reason.INJECTED)
    return {
        change.workload.tree["metadata"]["name"]: change.decision.reason
        for change in result.changes
        if change.decision.reason not in (Reason.NOT_PLANE, Reason.NOT_A_PUBLISHER)
    }


def api(chart: Path) -> dict[str, str]:
    reason = Reason.NOT_EFFECTIVE if chart.stem in NO_COMMAND else Reason.INJECTED
    found = dict.fromkeys(names(chart, API), reason)
    assert found
    return found


def celery(chart: Path, reason: Reason = Reason.INJECTED) -> dict[str, str]:
    found = dict.fromkeys(names(chart, *CELERY), reason)
    assert len(found) >= 2
    return found


def otherwise(chart: Path) -> dict[str, str]:
    """What has an AMQP_URL in these charts and is not of the backend's image."""
    documents = yaml.safe_load_all(chart.read_text(encoding="utf-8"))
    found = {each["metadata"]["name"] for each in documents if each and each["kind"] == "Deployment"}
    ends = ("-silo-wl", "-live-wl", "-live-exporter-wl") if "enterprise" in chart.stem else ()
    return dict.fromkeys((name for name in found if name.endswith(ends) or "-pi-" in name), Reason.OTHER_MEANS)


@each_chart
def test_by_default_the_api_the_workers_and_beat_and_what_publishes_otherwise_is_said(chart: Path) -> None:
    assert decided(chart, Settings()) == {**api(chart), **celery(chart), **otherwise(chart)}


@each_chart
def test_the_api_workloads_and_no_other_where_they_alone_are_asked_for(chart: Path) -> None:
    expected = {**api(chart), **celery(chart, Reason.NOT_ASKED), **otherwise(chart)}
    assert decided(chart, parse("workloads: [api]")) == expected


@each_chart
def test_workers_and_beat_where_they_alone_are_asked_for(chart: Path) -> None:
    expected = {**dict.fromkeys(api(chart), Reason.NOT_ASKED), **celery(chart), **otherwise(chart)}
    assert decided(chart, parse("workloads: [worker, beat]")) == expected


@each_chart
def test_the_migrator_is_known_to_publish_nothing(chart: Path) -> None:
    result = preview([Source(chart.name, chart.read_text(encoding="utf-8"))], Settings())
    migrators = [change for change in result.changes if "-migrate-" in str(change.workload)]
    assert {change.decision.reason for change in migrators} == {Reason.NOT_A_PUBLISHER}


@each_chart
def test_nothing_else_of_a_chart_is_touched(chart: Path) -> None:
    text = chart.read_text(encoding="utf-8")
    result = preview([Source(chart.name, text)], Settings())
    never: dict[str, Any] = {"planes": lambda _: False}
    for before, after in zip(read(text, chart.name), read(shown.yaml(result), "written"), strict=True):
        for old, new in zip(workloads(before, **never), workloads(after, **never), strict=True):
            restored: dict[str, Any] = oracle.without_injection(new.template, old.template)
            new.template.clear()
            new.template.update(restored)
        assert oracle.same(after.tree, before.tree)


def test_the_variants_are_all_there() -> None:
    assert {chart.stem.partition("+")[2] for chart in CHARTS} >= {
        "", "external-api", "external-secret", "extra-env", "otel", "restricted", "s3-ca",
    }  # fmt: skip
    (external,) = [chart for chart in CHARTS if "external-api" in chart.stem]
    assert api(external).keys() == {"prod-api-wl", "prod-external-api-wl"}
