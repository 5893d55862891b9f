"""Runs tests/cases: one case a file, each an expectation of the whole pod. The format: tests/cases/README.md."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from tests.admission import oracle
from webhook import __version__
from webhook.admission import Reason, Risk
from webhook.settings import Profile, Settings, parse

FOLDER = Path(__file__).parent.parent / "cases"
CASES = sorted(FOLDER.glob("*.yaml"))
KEYS = {
    "": {"about", "settings", "request", "pod", "injected_first", "annotations_in_all", "bytes_in_all", "expect"},
    "expect": {"reason", "workload", "container", "risks", "warns", "injected"},
    "injected": {"workload", "wrapped", "mount", "env", "set", "kept", "limits"},
}
NEVER_DECIDED = {
    Reason.INTERNAL_ERROR: "said by the server alone, where the decision itself failed: tests/edges",
}

Json = dict[str, Any]


def load(path: Path) -> Json:
    case: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert case.keys() <= KEYS[""]
    assert case["expect"].keys() <= KEYS["expect"]
    assert all(each.keys() <= KEYS["injected"] for each in case["expect"].get("injected", {}).values())
    assert case["about"].endswith(".")
    return case


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    settings = parse(yaml.safe_dump(case.get("settings", {})))
    request = {"namespace": "plane", **case.get("request", {})}
    profile = settings.profile(request["namespace"] or "")
    pod, expect = prepared(case, settings), case["expect"]

    outcome = oracle.admit(pod, settings, **request)

    told = outcome.answer
    assert (told.reason.value, told.workload, told.container) == (
        expect["reason"],
        expect.get("workload", ""),
        expect.get("container", ""),
    )
    assert list(told.risks) == expect.get("risks", [])
    spoken = [expect["reason"]] * expect.get("warns", False) + expect.get("risks", [])
    assert [text.rpartition("(")[2].removesuffix(")") for text in told.warnings] == spoken
    if "injected" not in expect:
        assert not outcome.patched
        return
    check_injection(pod, outcome.pod, expect["injected"], profile)
    assert oracle.same(oracle.without_injection(outcome.pod, pod), pod)
    again = oracle.admit(outcome.pod, settings, **request)
    assert not again.patched
    assert again.answer.reason.value == "already-injected"


def prepared(case: Json, settings: Settings) -> Any:
    """Return the case's pod with the history and the size that the case asks for."""
    pod = case["pod"]
    if "injected_first" in case:
        pod = jsonpatch.apply_patch(oracle.admit(pod, settings).pod, case["injected_first"])
    if "annotations_in_all" in case:
        annotations = pod["metadata"]["annotations"]
        ours = oracle.admit(pod, settings).pod["metadata"]["annotations"]
        annotations["filler"] = ""
        size = sum(len((key + value).encode()) for key, value in {**ours, **annotations}.items())
        annotations["filler"] = "x" * (case["annotations_in_all"] - size)
    if "bytes_in_all" in case:
        pod["spec"]["containers"][0]["env"] = [{"name": "FILLER", "value": ""}]
        text = "x" * (case["bytes_in_all"] - len(json.dumps(pod)))
        pod["spec"]["containers"][0]["env"][0]["value"] = text
    return pod


def check_injection(before: Json, after: Json, injected: Json, profile: Profile) -> None:
    """Build the pod that has to come out, and compare."""
    expected = copy.deepcopy(before)
    rows = []
    for container, now in oracle.containers(expected, after):
        name = container["name"]
        if name not in injected:
            continue
        wanted = injected[name]
        kept, env = wanted.get("kept", []), wanted.get("env", {})
        rows.append(
            {"name": name, "workload": wanted["workload"], "set": wanted.get("set", list(env)), "kept": kept},
        )
        if env:
            container["env"] = (container.get("env") or []) + [
                {"name": key, "value": value} for key, value in env.items()
            ]
        if "mount" in wanted:
            volume = {"name": wanted["mount"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
            mount = {"name": wanted["mount"], "mountPath": "/plane-webhook"}
            expected["spec"]["volumes"] = [*(expected["spec"].get("volumes") or []), volume]
            container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
        if wanted.get("wrapped"):
            words = now["command"][: oracle.PREFIX_WORDS]
            assert oracle.arrived(words) == oracle.prefix(
                profile, wanted["workload"], kept, limits=wanted.get("limits", True)
            )
            container["command"] = words + container["command"]
    provenance = {"version": __version__, "settings": f"sha256:{profile.digest}", "containers": rows}
    annotations = after["metadata"]["annotations"]
    assert json.loads(annotations[oracle.PROVENANCE]) == provenance
    assert annotations[oracle.INJECTED].split(",") == list(dict.fromkeys(row["workload"] for row in rows))
    expected["metadata"] = expected.get("metadata") or {}
    expected["metadata"]["annotations"] = {
        **(expected["metadata"].get("annotations") or {}),
        **{key: annotations[key] for key in (oracle.PROVENANCE, oracle.INJECTED)},
    }
    assert after == expected


def test_every_reason_and_risk_has_a_case() -> None:
    cases = [load(path)["expect"] for path in CASES]
    reasons = {case["reason"] for case in cases}
    risks = {risk for case in cases for risk in case.get("risks", [])}
    assert reasons == {reason.value for reason in Reason} - {reason.value for reason in NEVER_DECIDED}
    assert risks == {risk.value for risk in Risk}


@pytest.mark.parametrize("code", [*Reason, *Risk])
def test_every_code_has_a_sentence(code: Reason | Risk) -> None:
    assert len(code.sentence) > 20
    assert code.sentence[0].islower()
    assert not code.sentence.endswith(".")
