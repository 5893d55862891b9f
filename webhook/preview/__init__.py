"""What the webhook would do to the workloads in manifests, without a cluster: the same decision as values.

Reads texts; opens and prints nothing. webhook.preview.shown makes texts of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jsonpatch
import msgspec

from webhook.admission import Decision, Reason, decide, injection
from webhook.admission.review import Pod
from webhook.admission.target import FOREIGN_IMAGES
from webhook.manifest import Document, ManifestError, read
from webhook.preview import mentions
from webhook.preview.brought import Sources
from webhook.preview.templates import Unjudged, Workload, workloads
from webhook.settings import Settings

_REACHED = (Reason.INJECTED, Reason.ALREADY_INJECTED)


@dataclass(frozen=True, slots=True)
class Source:
    """A text of manifests. One that a folder brought along need not be any: then it is told as not judged."""

    name: str
    text: str
    from_folder: bool = False
    no_text: str = ""  # why it is not even a text


@dataclass(frozen=True, slots=True)
class Change:
    """One workload: what was decided, and its pod template before and after."""

    workload: Workload
    namespace: str
    decision: Decision
    before: dict[str, Any]
    operations: list[injection.Operation]
    notes: list[str]  # what the decision can't have: values of envFrom, a namespace


@dataclass(frozen=True, slots=True)
class Preview:
    """The documents as the webhook would leave their pods, a change for each workload, and what can't be judged."""

    documents: list[Document]
    changes: list[Change]
    unjudged: list[Unjudged]

    @property
    def reached(self) -> bool:
        """Whether any workload has the injection, by us now or before."""
        return any(change.decision.reason in _REACHED for change in self.changes)


def preview(sources: Iterable[Source], settings: Settings, *, namespace: str = "") -> Preview:
    """Decide for all workloads; `namespace` is that of manifests which name none. Raises ManifestError."""
    made = Preview([], [], [])
    images = {*FOREIGN_IMAGES, *(image for profile in settings.profiles() for image in profile.images)}
    speaks_of_plane = mentions.of_plane(images)
    for source in sources:
        if source.no_text:
            made.unjudged.append(Unjudged(source.name, "", source.no_text))
            continue
        try:
            documents = list(read(source.text, source.name))
        except ManifestError as error:
            if not source.from_folder:
                raise
            made.unjudged.append(Unjudged(source.name, "", str(error).removeprefix(f"{source.name}: ")))
            continue
        made.documents.extend(documents)
    brought = Sources(made.documents, namespace)
    for document in made.documents:
        for found in workloads(document, speaks_of_plane):
            if isinstance(found, Workload):
                _decide(made, found, settings, namespace, brought)
            else:
                made.unjudged.append(found)
    return made


def _decide(made: Preview, workload: Workload, settings: Settings, namespace: str, brought: Sources) -> None:
    before = copy.deepcopy(workload.template)
    namespace = workload.namespace or namespace
    try:
        pod = msgspec.convert(before, Pod)
    except msgspec.ValidationError as error:
        if not workload.place:
            raise ManifestError(f"{workload.document}: {workload}: not a pod template: {error}") from error
        made.unjudged.append(Unjudged(str(workload.document), str(workload), f"not a pod template: {error}"))
        return
    decision = decide(pod, settings.profile(namespace))
    operations = injection.operations(decision.injection) if decision.injection else []
    notes = list(brought.said(before, decision.injection, namespace)) if decision.injection else []
    if decision.container and settings.namespaces and not namespace:
        notes.append(
            "no namespace is named (see --namespace): `namespaces` in the configuration was left out of account"
        )
    patched = jsonpatch.apply_patch(before, operations)
    workload.template.clear()
    workload.template.update(patched)
    made.changes.append(Change(workload, namespace, decision, before, operations, notes))
