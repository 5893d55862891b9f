"""The reference in docs/ says what the code says."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

from webhook import payload
from webhook.admission.reasons import SENTENCES
from webhook.cluster.doctor import NOTES, PROBLEMS
from webhook.cluster.pods import State
from webhook.settings import Settings, parse

DOCS = Path(__file__).parents[2] / "docs" / "reference"
README = DOCS.parents[1] / "README.md"


@pytest.mark.parametrize("code", SENTENCES, ids=str)
def test_each_code_is_explained_with_its_sentence(code: str) -> None:
    assert f"| `{code}` | {SENTENCES[code]} |" in (DOCS / "reasons.md").read_text()


def test_the_configuration_that_is_applied_is_the_default() -> None:
    text = (DOCS.parents[1] / "manifests" / "base" / "configuration.yaml").read_text()
    assert parse(text) == Settings()


def test_each_key_is_explained_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text()
    default = Settings().default.model_dump(mode="json")

    def shown_as(value: object) -> str:
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).split("\n...")[0].strip()

    for group in ("env", "publish"):
        for name, value in default[group].items():
            shown = shown_as(value)
            row = next(line for line in text.splitlines() if line.startswith(f"| `{group}.{name}` |"))
            assert f"`{shown}`" in row.replace("`5`", "`5.0`").replace("`1`", "`1.0`")
    for name, value in {**default, "namespaces": {}}.items():
        assert name in ("env", "publish") or f"| `{name}` | `{shown_as(value)}` |" in text


def test_each_name_that_is_replaced_is_explained_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(payload.__file__).parent / "lib"))
    said = " ".join(str(importlib.import_module("plane_webhook.patches").__doc__).split())
    (row,) = [line for line in (DOCS / "patches.md").read_text().splitlines() if line.startswith("| `")]
    module, name, ours, missing = row.strip("| ").split(" | ")
    assert f"{module}, {name}: {ours}. Where that name is missing {missing}." in said


def test_the_size_of_the_command_is_as_it_is_said() -> None:
    text = (DOCS.parent / "explanation" / "delivery.md").read_text()
    said = re.search(r"The guard is text, ([\d.]+) kB; the packed word .* has ([\d.]+) kB and holds (\d+) files", text)
    assert said
    sizes = len(payload.GUARD) / 1000, len(payload.PACKED) / 1000
    assert [float(said[1]), float(said[2])] == pytest.approx(sizes, abs=0.5)
    assert int(said[3]) == len(payload.FILES)
    assert f"some {sum(sizes):.0f} kB in the command" in text
    more = re.search(r"Some (\d+) kB more in each pod object", text)
    assert more
    assert f"the stored pod has {more[1]} kB more" in README.read_text(), "two pages say the same"
    assert 0 < int(more[1]) - sum(sizes) < 2.5, "settings, variables, volume and annotations come on top"


def test_the_matrix_is_as_it_is_counted() -> None:
    text = (DOCS.parent / "explanation" / "why-tasks-are-lost.md").read_text()
    matrix = text.split("<!-- matrix -->")[1].split("<!-- /matrix -->")[0].split("```")[1]
    rows = [re.split(r"\s{2,}", line) for line in matrix.strip().splitlines()[1:]]
    ours = [[int(number) for number in row[4].split("/")] for row in rows]
    lost, published = (sum(column) for column in zip(*ours, strict=True))
    both = [row for row in rows if row[1] != "."]
    loses = [row for row in both if not row[1].startswith("0/")]
    assert f"Ours lost {lost} of {published:,} publishes. In {len(loses)} of the {len(both)} rows" in text
    assert f"all of its {len(rows)} rows and one more" in text
    readme = README.read_text()
    assert f"{len(rows) + 1} kinds of fault and load, up to {max(each for _, each in ours):,} publishes each" in readme
    assert f"none of\n{published:,} publishes was lost when {len(rows)} of them ran" in readme


def test_what_the_publisher_says_and_calls_a_cause_is_explained() -> None:
    text = (DOCS.parent / "how-to" / "broker-in-trouble.md").read_text()
    modules = (Path(payload.__file__).parent / "lib" / "plane_webhook").glob("*.py")
    found = [
        each for module in modules for each in re.findall(r'\b(?:say|_troubled|_lose)\("([^"%]+)', module.read_text())
    ]
    assert len(found) > 10
    assert [each for each in found if f"`{each.rstrip(' :')}" not in text] == []


def test_each_state_of_a_pod_is_explained_and_no_other() -> None:
    _, table = (DOCS / "operate.md").read_text().split("| state | |\n|-|-|\n")
    rows = table.split("\n\n")[0].splitlines()
    assert [row.split("`")[1] for row in rows] == [*State]


def test_each_finding_of_doctor_is_explained_and_no_other() -> None:
    rows = [line for line in (DOCS / "doctor.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [f"| `{code}` | {looks_at} |" for code, looks_at in {**PROBLEMS, **NOTES}.items()]
