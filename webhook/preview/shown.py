"""A preview as texts: unified diffs, a table, YAML that can be applied, and JSON for programs.

Decides nothing and prints nothing; whether there are colours is the caller's to say.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Callable
from typing import Any

from webhook.admission import Reason, injection
from webhook.manifest import dump
from webhook.preview import Change, Preview
from webhook.settings import Profile

# ANSI's own names for them: a terminal shows its user's shades.
_RED, _GREEN, _YELLOW, _CYAN, _BOLD = "31", "32", "33", "36", "1"
_LINES = {"+": _GREEN, "-": _RED, "@": _CYAN, "!": _YELLOW}
_GOOD = (Reason.INJECTED, Reason.ALREADY_INJECTED)
_NEUTRAL = (Reason.NOT_PLANE, Reason.NOT_A_PUBLISHER)


def diff(preview: Preview, *, colour: bool = False) -> str:
    """Unified diffs, then a line for each workload that stays as it is."""
    changed = [change for change in preview.changes if change.operations]
    same = [change for change in preview.changes if not change.operations]
    return "\n".join(
        [
            *(_diff(change, colour=colour) for change in changed),
            *(_same(change, colour=colour) for change in same),
            *_conclusion(preview, colour=colour),
            *dict.fromkeys(_worst_case(change) for change in changed),
        ]
    )


def summary(preview: Preview, *, colour: bool = False) -> str:
    """A table with a line for each workload, and the meaning of each code in it."""
    head = ["SOURCE", "WORKLOAD", "CONTAINER", "RUNS", "DECISION", "RISKS"]
    rows = [_cells(change) for change in preview.changes]
    if len({change.workload.document.source for change in preview.changes}) < 2:  # noqa: PLR2004 - nothing to tell apart
        head, rows = head[1:], [row[1:] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    shades = [_BOLD, *(_shade(change.decision.reason) for change in preview.changes)]
    lines = ("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (head, *rows))
    table = [_painted(line, shade, colour=colour) for line, shade in zip(lines, shades, strict=True)]
    table = [*table, ""] if rows else []
    decisions = [change.decision for change in preview.changes]
    codes = dict.fromkeys([*(each.reason for each in decisions), *(risk for each in decisions for risk in each.risks)])
    meanings = [f"{code}: {code.sentence}" for code in codes]
    notes = [printable(f"{change.workload}: {note}") for change in preview.changes for note in change.notes]
    return "\n".join([*table, *meanings, *notes, *_conclusion(preview, colour=colour)])


def yaml(preview: Preview, *, colour: bool = False) -> str:  # noqa: ARG001 - one shape for all four
    """Every document, changed or not; it can be applied."""
    return "---\n".join(dump(document.tree) for document in preview.documents)


def json_report(preview: Preview, *, colour: bool = False) -> str:  # noqa: ARG001
    """A report for programs: one object a workload, with the JSON Patch of its pod template."""
    unjudged = [{"where": each.where, "object": each.name, "why": each.why} for each in preview.unjudged]
    return json.dumps({"workloads": [_row(change) for change in preview.changes], "unjudged": unjudged}, indent=2)


FORMS: dict[str, Callable[..., str]] = {"diff": diff, "summary": summary, "yaml": yaml, "json": json_report}


def _row(change: Change) -> dict[str, Any]:
    return {
        "source": change.workload.document.source,
        "document": change.workload.document.number,
        "line": change.workload.document.line,
        "workload": str(change.workload),
        "namespace": change.namespace,
        "container": change.decision.container,
        "runs": change.decision.workload,
        "reason": change.decision.reason,
        "meaning": change.decision.reason.sentence,
        "risks": list(change.decision.risks),
        "notes": change.notes,
        "patch": change.operations,
    }


def _cells(change: Change) -> list[str]:
    workload, decision = change.workload, change.decision
    risks = ", ".join(decision.risks)
    return [
        workload.document.source,
        str(workload),
        decision.container or "-",
        decision.workload or "-",
        decision.reason,
        risks,
    ]


def _conclusion(preview: Preview, *, colour: bool) -> list[str]:
    changed = sum(bool(change.operations) for change in preview.changes)
    return [
        *(_painted(str(each), _YELLOW, colour=colour) for each in preview.unjudged),
        f"{changed} of {len(preview.changes)} workloads would change.",
    ]


def _headline(change: Change) -> str:
    return f"{change.workload}: {change.decision.reason}: {change.decision.reason.sentence}"


def _worst_case(change: Change) -> str:
    profile = change.decision.injection.profile if change.decision.injection else Profile()
    publish = profile.publish
    if not publish.confirm:
        return "Tasks are published without confirmation, as Plane itself does: what the broker doesn't get is lost."
    takes = f"takes at most {publish.worst_case:g} s"
    if publish.spool == "none":
        return f"Publishing a task {takes} and is an error then, for there is no spool."
    if not profile.env.celery_task_publish_retry:
        return f"Publishing a task {takes} and is an error then, for celery_task_publish_retry is false: none is kept."
    return (
        f"A task that the broker does not confirm within {publish.patience:g} s is kept in Plane's Redis and delivered "
        f"later. Where it can't be kept: publishing a task {takes} (one more where Redis doesn't answer) and is an "
        "error then."
    )


def _diff(change: Change, *, colour: bool) -> str:
    before, after = (dump(_shortened(template)) for template in (change.before, change.workload.template))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    body = list(lines)[2:]  # its own file names say nothing here
    risks = [f"! {risk.sentence} ({risk})" for risk in change.decision.risks]
    notes = [f"! {note}" for note in change.notes]
    painted = (_painted(line, _LINES.get(line[:1], ""), colour=colour) for line in (*risks, *notes, *body))
    return "\n".join([_painted(_headline(change), _BOLD, colour=colour), *painted, ""])


def _same(change: Change, *, colour: bool) -> str:
    headline = _painted(_headline(change), _shade(change.decision.reason), colour=colour)
    return "\n".join([headline, *(_painted(f"! {note}", _YELLOW, colour=colour) for note in change.notes)])


def _shade(reason: Reason) -> str:
    return _GREEN if reason in _GOOD else "" if reason in _NEUTRAL else _YELLOW


def printable(text: str) -> str:
    """A line without what moves a cursor: names are as somebody wrote them, and no API server has seen them yet."""
    return "".join(each if each.isprintable() or each == "\t" else " " for each in text)


def _painted(text: str, shade: str, *, colour: bool) -> str:
    text = printable(text)
    return f"\x1b[{shade}m{text}\x1b[0m" if colour and shade else text


def _shortened(template: dict[str, Any]) -> dict[str, Any]:
    """The template with our own files, hundreds of lines, as one line each."""
    template = copy.deepcopy(template)
    spec = template.get("spec") or {}
    for container in (*(spec.get("containers") or []), *(spec.get("initContainers") or [])):
        for words in (container.get("command") or [], container.get("args") or []):
            for index, word in enumerate(words):
                said = injection.payload_said(word)
                if said:
                    words[index] = f"<{said}; --output yaml shows it>"
    return template
