"""What the webhook would do to the workloads in manifests, without a cluster: the same decision, shown to people.

Reads texts and returns texts; opens and prints nothing.
"""

from __future__ import annotations

import copy
import difflib
import json
from dataclasses import dataclass
from typing import Any

import jsonpatch
import msgspec

from webhook.admission import Decision, Reason, decide, injection
from webhook.admission.review import Pod
from webhook.manifest import Document, ManifestError, Workload, dump, read, workloads
from webhook.settings import Publish, Settings

_REACHED = (Reason.INJECTED, Reason.ALREADY_INJECTED)


@dataclass(frozen=True, slots=True)
class Change:
    """One workload: what was decided, and its pod template before and after."""

    workload: Workload
    decision: Decision
    before: dict[str, Any]
    operations: list[injection.Operation]

    @property
    def reached(self) -> bool:
        """Whether the workload has the injection, by us now or before."""
        return self.decision.reason in _REACHED


@dataclass(frozen=True, slots=True)
class Preview:
    """The documents as the webhook would leave their pods, and a change for each workload among them."""

    documents: list[Document]
    changes: list[Change]

    @property
    def reached(self) -> bool:
        """Whether any workload has the injection."""
        return any(change.reached for change in self.changes)

    def diff(self) -> str:
        """Unified diffs, then a line for each workload that stays as it is."""
        changed = [change for change in self.changes if change.operations]
        same = [change for change in self.changes if not change.operations]
        return "\n".join(
            [
                *(_diff(change) for change in changed),
                *(_headline(change) for change in same),
                f"{len(changed)} of {len(self.changes)} workloads would change.",
                *dict.fromkeys(_worst_case(change) for change in changed if change.decision.reason is Reason.INJECTED),
            ]
        )

    def yaml(self) -> str:
        """Every document, changed or not; it can be applied."""
        return "---\n".join(dump(document.tree) for document in self.documents)

    def json(self) -> str:
        """A report for programs: one object a workload, with the JSON Patch of its pod template."""
        return json.dumps({"workloads": [_row(change) for change in self.changes]}, indent=2)


def preview(texts: list[tuple[str, str]], settings: Settings) -> Preview:
    """Decide for all workloads in `texts`, pairs of source name and YAML. Raises ManifestError."""
    documents = [document for source, text in texts for document in read(text, source)]
    return Preview(documents, [_change(each, settings) for document in documents for each in workloads(document)])


def _change(workload: Workload, settings: Settings) -> Change:
    before = copy.deepcopy(workload.template)
    try:
        pod = msgspec.convert(before, Pod)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{workload.document}: {workload}: not a pod template: {error}") from error
    decision = decide(pod, settings.profile(workload.namespace))
    operations = injection.operations(decision.injection) if decision.injection else []
    patched = jsonpatch.apply_patch(before, operations)
    workload.template.clear()
    workload.template.update(patched)
    return Change(workload, decision, before, operations)


def _row(change: Change) -> dict[str, Any]:
    return {
        "source": change.workload.document.source,
        "document": change.workload.document.number,
        "line": change.workload.document.line,
        "workload": str(change.workload),
        "container": change.decision.container,
        "reason": change.decision.reason,
        "meaning": change.decision.reason.sentence,
        "risks": list(change.decision.risks),
        "patch": change.operations,
    }


def _headline(change: Change) -> str:
    return f"{change.workload}: {change.decision.reason}: {change.decision.reason.sentence}"


def _worst_case(change: Change) -> str:
    publish = change.decision.injection.profile.publish if change.decision.injection else Publish()
    return (
        f"A publish to the broker takes at most {publish.worst_case:g} s and is an error then: twice the deadline of "
        f"{publish.deadline:g} s, to wait for a free connection of the pool and for all its tries, and the longest "
        f"pause between two of them."
    )


def _diff(change: Change) -> str:
    before, after = (dump(_shortened(template)) for template in (change.before, change.workload.template))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    body = list(lines)[2:]  # its own file names say nothing here
    risks = [f"! {risk.sentence} ({risk})" for risk in change.decision.risks]
    return "\n".join([_headline(change), *risks, *body, ""])


def _shortened(template: dict[str, Any]) -> dict[str, Any]:
    """The template with our own files, hundreds of lines, as one line each."""
    template = copy.deepcopy(template)
    for container in (template.get("spec") or {}).get("containers") or []:
        command = container.get("command") or []
        for index, word in enumerate(command):
            name = injection.payload_name(word)
            if name:
                command[index] = f"<plane-webhook's {name}, {len(word.encode()):,} bytes; --output yaml shows it>"
    return template
