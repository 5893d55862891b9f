"""What makes pods is found: Kubernetes' own kinds by name, all others by shape; what can't be judged is named."""

from __future__ import annotations

import pytest

from webhook.admission.target import names_plane
from webhook.manifest import ManifestError, read
from webhook.preview.templates import Unjudged, Workload, workloads

BAD = {
    "kind: Deployment\n": "f: document 1 (line 1): Deployment: spec.template is missing or holds no keys",
    "kind: CronJob\nspec: {jobTemplate: {spec: [1]}}": "CronJob: spec.jobTemplate.spec.template is missing or holds no",
    "kind: List\nitems: [{kind: A}, 1]": "f: document 1 (line 1): an item of the list has no `kind`",
    "kind: List\nitems: {a: b}": "f: document 1 (line 1): List: items is no list",
}  # fmt: skip


IMAGE = "makeplane/plane-backend"


def found(text: str) -> list[Workload | Unjudged]:
    return [
        each for document in read(text, "f") for each in workloads(document, lambda text: names_plane(text, [IMAGE]))
    ]


@pytest.mark.parametrize(("text", "said"), BAD.items())
def test_bad_input_names_document_and_line(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        found(text)
    assert said in str(caught.value)


TEMPLATE = "template: {metadata: {name: t}, spec: {containers: []}}"
MIXED = "{kind: Secret}, {kind: PodList, items: [{kind: Pod, metadata: {name: b}}]}"
PLANE = "template: {spec: {containers: [{name: c, command: [./bin/docker-entrypoint-api.sh]}]}}"
NAMED = "metadata: {name: x, namespace: ns}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"{{kind: Deployment, metadata: {{name: d, namespace: ns}}, spec: {{{TEMPLATE}}}}}", ["Deployment ns/d"]),
        (f"{{kind: Job, metadata: {{generateName: j-}}, spec: {{{TEMPLATE}}}}}", ["Job j-"]),
        (f"{{kind: CronJob, spec: {{jobTemplate: {{spec: {{{TEMPLATE}}}}}}}}}", ["CronJob ?"]),
        (f"{{kind: PodTemplate, metadata: {{name: p}}, {TEMPLATE}}}", ["PodTemplate p"]),
        ("{kind: Pod, metadata: {name: p}, spec: {containers: []}}", ["Pod p"]),
        ("{kind: Pod, metadata: [1]}", ["Pod ?"]),
        ("{kind: ConfigMap, data: {a: 'kind: Pod'}}", []),
        ("{kind: List, items: null}", []),
        ("{kind: BlockList}", []),
        (f"{{kind: List, items: [{{kind: Pod, metadata: {{name: a}}}}, {MIXED}]}}", ["Pod a", "Pod b"]),
        # --- by their shape
        (f"{{apiVersion: argoproj.io/v1alpha1, kind: Rollout, {NAMED}, spec: {{{PLANE}}}}}", ["Rollout ns/x"]),
        (f"{{apiVersion: apps.kruise.io/v1alpha1, kind: CloneSet, {NAMED}, spec: {{{PLANE}}}}}", ["CloneSet ns/x"]),
        (f"{{apiVersion: apps.example/v1, kind: Deployment, {NAMED}, spec: {{{PLANE}}}}}", ["Deployment ns/x"]),
        (
            f"{{apiVersion: batch.volcano.sh/v1, kind: Job, {NAMED}, spec: {{tasks: [{{{PLANE}}}, {{{PLANE}}}]}}}}",
            ["Job ns/x (spec.tasks[0].template)", "Job ns/x (spec.tasks[1].template)"],
        ),
        (
            f"{{kind: Template, {NAMED}, objects: [{{kind: Rollout, metadata: {{name: r}}, spec: {{{PLANE}}}}}]}}",
            ["Rollout r (objects[0].spec.template)"],
        ),
        (
            f"{{kind: List, items: [{{kind: RolloutList, items: [{{kind: Rollout, {NAMED}, spec: {{{PLANE}}}}}]}}]}}",
            ["Rollout ns/x"],
        ),
        (
            "{kind: HorizontalPodAutoscaler, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: x}}}",
            [],
        ),
        # A schema speaks of containers and has none.
        ("{kind: CustomResourceDefinition, spec: {schema: {properties: {spec: {containers: {type: array}}}}}}", []),
    ],
)
def test_what_makes_pods_is_found(text: str, names: list[str]) -> None:
    assert [str(each) for each in found(text)] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{{kind: Workflow, {NAMED}, spec: {{templates: [{{container: {{image: r.io/{IMAGE}:v1}}}}]}}}}",
            "Workflow ns/x: can't be judged: spec.templates[0].container.image speaks of Plane and is part of no pod",
        ),
        (
            f"{{kind: ConfigMap, {NAMED}, data: {{start.sh: 'exec ./bin/docker-entrypoint-beat.sh'}}}}",
            "ConfigMap ns/x: can't be judged: data.start.sh speaks of Plane",
        ),
        (
            f"{{kind: HelmRelease, {NAMED}, spec: {{values: {{image: {IMAGE}}}}}}}",
            "HelmRelease ns/x: can't be judged: spec.values.image speaks of Plane",
        ),
        # Containers that an operator puts into pods of its own making.
        (
            f"{{kind: Mixed, {NAMED}, spec: {{containers: [{{args: [docker-entrypoint-api.sh]}}]}}}}",
            "Mixed ns/x: can't be judged: spec.containers[0].args[0] speaks of Plane",
        ),
    ],
)
def test_what_speaks_of_plane_and_can_not_be_judged_is_named(text: str, said: str) -> None:
    (only,) = found(text)
    assert isinstance(only, Unjudged)
    assert only.where == "f: document 1 (line 1)"
    assert str(only).startswith(said)


def test_what_kubectl_and_controllers_note_is_not_taken_for_a_wish() -> None:
    note = '{"kubectl.kubernetes.io/last-applied-configuration": "docker-entrypoint-api.sh"}'
    assert found(f"{{kind: X, metadata: {{annotations: {note}}}, status: {{image: {IMAGE}}}}}") == []
