"""What `doctor` can find: one table of codes, which the documentation repeats, and how findings are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

# Of each finding what is looked at. Notes are at the end: they are so, and can't be helped from here.
PROBLEMS: dict[str, str] = {
    "operate-not-ready": "a replica of `plane-webhook-operate` is ready, where it is installed: it makes the "
    "certificate, unless you or cert-manager do",
    "operate-scaled-to-zero": "replicas of it are wanted",
    "not-registered": "the MutatingWebhookConfiguration is there, with our webhook in it",
    "registration-differs": "it leads to the webhook's Service; its rules, selectors and conditions are those of the "
    "configuration in the cluster",
    "not-trusted": "its caBundle has the authority that signed the Secret's certificate",
    "webhook-scaled-to-zero": "replicas of the webhook are wanted",
    "no-endpoint": "one of them is ready",
    "certificate": "the Secret's files belong together, are for the Service, and hold for 29 days more",
    "pods-refused": "pods of Plane's Deployments and ours are taken, and so is the one that is tried: Pod Security, a "
    "quota, a policy may refuse them",
    "not-opted-in": "the namespace carries the label",
    "left-out": "it is neither the webhook's own nor `kube-system`, which the registration leaves out",
    "not-called": "a pod of Plane's that the API server makes by a server-side dry run comes out injected",
    "port-blocked": "where it doesn't: the API server reaches the port of the webhook's pods, 8443 by default",
    "old-settings-served": "that pod gets the settings of the configuration in the cluster",
    "undone": "what that pod gets is still there when all other webhooks have been called",
    "not-injected": "each pod that would be injected now is",
    "other-settings": "each has the settings that it would get now",
    "not-in-effect": "no injected container's log says NOT IN EFFECT; with `--exec`: `/plane-webhook/proof` in each "
    "finds what was asked for",
}
NOTES: dict[str, str] = {
    "not-covered": "a pod of Plane's that can't be injected, and [why](reasons.md)",
    "condition-added": "a matchCondition in the registration that is not ours: it may keep pods from being asked about",
    "opted-out": "a pod that the label `plane-webhook/inject: disabled` keeps out",
    "chart-sets": "a variable of ours that the chart sets too, in a ConfigMap, and whose value wins",
}

_LONGEST = 300


def harmless(text: str, longest: int = _LONGEST) -> str:
    """Text that somebody else chose, as one line of at most `longest` characters, none of which moves a cursor."""
    line = " ".join(_printable(text).split())
    return line if len(line) <= longest else line[:longest] + "..."


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


class _Shown:
    """Each field is text for a terminal, and much of it comes from the cluster: what moves a cursor is taken out here.

    Once and for all, so that no finding has to think of it. Nothing is cut: a command that ends early is another one.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type] # of the dataclasses below
            object.__setattr__(self, each.name, _printable(getattr(self, each.name)))


@dataclass(frozen=True, slots=True)
class Finding(_Shown):
    """One thing that is wrong, or (a note) that is so and can't be helped from here.

    `fix` is a command, after which a comment may stand; what it prints or changes is the remedy, or says what that is.
    Whoever makes one quotes each name in it that comes from the cluster: people paste it into their shell.
    """

    code: str
    where: str
    wrong: str
    causes: str
    fix: str

    @property
    def kind(self) -> Literal["problem", "note"]:
        """Only problems count for the exit code."""
        return "problem" if self.code in PROBLEMS else "note"


@dataclass(frozen=True, slots=True)
class Row(_Shown):
    """How one of Plane's pods stands; `version` and `settings` are what was injected, empty where nothing is."""

    namespace: str
    pod: str
    owner: str
    state: str
    reason: str
    workload: str
    version: str
    settings: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found."""

    findings: Sequence[Finding]
    pods: Sequence[Row]

    @property
    def problems(self) -> bool:
        """Whether anything is wrong."""
        return any(each.kind == "problem" for each in self.findings)


def as_json(report: Report) -> str:
    """For programs."""
    findings = [{"kind": each.kind, **asdict(each)} for each in report.findings]
    return json.dumps({"findings": findings, "pods": [asdict(each) for each in report.pods]}, indent=2)


def shown(report: Report) -> str:
    """For people: Plane's pods as a table, then what was found."""
    blocks = [_table(report.pods)] if report.pods else []
    blocks += [
        f"{each.kind.upper():8} {each.code}  {each.where}\n  wrong:   {each.wrong}\n  causes:  {each.causes}\n"
        f"  fix:     {each.fix}"
        for each in report.findings
    ]
    return "\n\n".join([*blocks, *([] if report.problems else ["nothing is wrong"])])


def _table(pods: Sequence[Row]) -> str:
    lines = [("POD", "STATE", "BY", "SETTINGS")]
    lines += [
        (
            f"{each.namespace}/{each.pod}",
            f"{each.state} ({each.workload or each.reason})",
            each.version or "-",
            each.settings[:12] or "-",
        )
        for each in pods
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(4)]
    return "\n".join(
        "  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
