"""The chart's schema: what the program says of its configuration, and every value of values.yaml and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from webhook.settings import _NAMESPACE, Profile

CHART = Path(__file__).parents[2] / "manifests" / "chart"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def bare(tree: Any) -> Any:
    """A schema without what checks nothing."""
    if isinstance(tree, dict):
        return {key: bare(value) for key, value in tree.items() if key not in ("title", "description", "default")}
    return [bare(each) for each in tree] if isinstance(tree, list) else tree


def test_the_configuration_is_checked_as_the_program_checks_it() -> None:
    profile = bare(Profile.model_json_schema())
    definitions = {**profile.pop("$defs"), "Profile": profile}
    namespaces = {
        "type": "object",
        "patternProperties": {f"^{_NAMESPACE.pattern}$": {"$ref": "#/$defs/Profile"}},
        "additionalProperties": False,
    }
    whole = {**profile, "properties": {**profile["properties"], "namespaces": namespaces}}
    assert SCHEMA["$defs"] == {"Configuration": whole, **definitions}


def test_each_value_is_in_the_schema_and_no_other() -> None:
    def names(schema: dict[str, Any], prefix: str = "") -> set[str]:
        inner = schema.get("properties") or {}
        return {prefix} if not inner else {each for key in inner for each in names(inner[key], f"{prefix}.{key}")}

    def used(values: Any, prefix: str = "") -> set[str]:
        if isinstance(values, dict) and values and prefix not in (".resources", ".operate.resources"):
            return {each for key in values for each in used(values[key], f"{prefix}.{key}")}
        return {prefix}

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert names(SCHEMA) == used(values) | {".global", ".enabled"}  # those are Helm's own


def test_the_charts_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["version"]}"\n' in project
    assert chart["appVersion"] == chart["version"]
