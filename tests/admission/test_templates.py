"""What makes pods is found: Kubernetes' own kinds by name, all others by shape; what can't be judged is named."""

from __future__ import annotations

import pytest

from webhook.manifest import ManifestError, read
from webhook.preview import mentions
from webhook.preview.templates import Unjudged, Workload, workloads

BAD = {
    "kind: Deployment\n": "f: document 1 (line 1): Deployment: spec.template is missing or holds no keys",
    "kind: CronJob\nspec: {jobTemplate: {spec: [1]}}": "CronJob: spec.jobTemplate.spec.template is missing or holds no",
    "kind: List\nitems: [{kind: A}, 1]": "f: document 1 (line 1): an item of the list has no `kind`",
    "kind: List\nitems: {a: b}": "f: document 1 (line 1): List: items is no list",
}  # fmt: skip


IMAGE = "makeplane/plane-backend"


def found(text: str) -> list[Workload | Unjudged]:
    speaks_of_plane = mentions.of_plane([IMAGE, "silo-commercial"])
    return [each for document in read(text, "f") for each in workloads(document, speaks_of_plane)]


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
        # As the API server hands out a list of one kind.
        (
            f"{{apiVersion: apps/v1, kind: DeploymentList, items: [{{{NAMED}, spec: {{{PLANE}}}}}]}}",
            ["Deployment ns/x"],
        ),
        ("{kind: PodList, items: [{metadata: {name: a}, spec: {containers: []}}]}", ["Pod a"]),
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
        # "exec ./bin/docker-entrypoint-beat.sh" in base64, with and without line breaks
        (
            f"{{kind: Secret, {NAMED}, data: {{start.sh: ZXhlYyAuL2Jpbi9kb2NrZXItZW50cnlwb2ludC1iZWF0LnNo}}}}",
            "Secret ns/x: can't be judged: data.start.sh speaks of Plane",
        ),
        (
            f'{{kind: ConfigMap, {NAMED}, binaryData: {{a: "ZXhlYyAuL2Jpbi9kb2Nr\\nZXItZW50cnlwb2ludC1iZWF0LnNo"}}}}',
            "ConfigMap ns/x: can't be judged: binaryData.a speaks of Plane",
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


ARGO, FLUX, K3S = "argoproj.io/v1alpha1", "helm.toolkit.fluxcd.io/v2", "helm.cattle.io/v1"
KUSTOMIZE = "kustomize.config.k8s.io/v1beta1"


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        (f"{ARGO}, kind: Application", "spec: {source: {chart: plane-enterprise}}", "spec.source.chart"),
        (f"{ARGO}, kind: Application", "spec: {source: {path: charts/plane-ce}}", "spec.source.path"),
        (f"{ARGO}, kind: ApplicationSet", "spec: {source: {repoURL: 'https://helm.plane.so/'}}", "spec.source.repoURL"),
        (f"{ARGO}, kind: Application", f'spec: {{values: "a:\\n  image: r.io:5/x/{IMAGE}\\n"}}', "spec.values"),
        (
            f"{K3S}, kind: HelmChart",
            f"spec: {{valuesContent: 'api: {{image: {IMAGE}@sha256:0}}'}}",
            "spec.valuesContent",
        ),
        (f"{K3S}, kind: HelmChart", "spec: {chart: 'https://x/plane-enterprise-3.5.1.tgz'}", "spec.chart"),
        (f"{FLUX}, kind: HelmRelease", "spec: {chart: {spec: {chart: plane-enterprise}}}", "spec.chart.spec.chart"),
        ("source.toolkit.fluxcd.io/v1, kind: OCIRepository", "spec: {url: 'oci://r/plane-ce'}", "spec.url"),
        (f"{KUSTOMIZE}, kind: Kustomization", "helmCharts: [{name: plane-ce}]", "helmCharts[0].name"),
        (
            f"{KUSTOMIZE}, kind: Kustomization",
            f"patches: [{{patch: '[{{op: replace, path: /x, value: {IMAGE}:v1}}]'}}]",
            "patches[0].patch",
        ),
        ("v1, kind: ConfigMap", f"""data: {{p: '{{"image":"{IMAGE}:v1"}}'}}""", "data.p"),
        ("v1, kind: ConfigMap", """data: {p: '{"image":"mirror/silo-commercial:v1"}'}""", "data.p"),
        ("v1, kind: ConfigMap", """data: {p: 'image: "silo-commercial"'}""", "data.p"),
        ("v1, kind: ConfigMap", "data: {p: 'command: [docker-entrypoint-api.sh]'}", "data.p"),
        ("v1, kind: ConfigMap", "data: {p: 'exec celery -A plane worker'}", "data.p"),
        ("v1, kind: ConfigMap", """data: {p: 'command: ["celery", "-A", "plane", "beat"]'}""", "data.p"),
        ("v1, kind: ConfigMap", "data: {p: 'gunicorn -w 2 plane.asgi:application'}", "data.p"),
    ],
)
def test_plane_is_found_inside_of_texts_and_by_its_charts(kind: str, body: str, place: str) -> None:
    (only,) = found(f"{{apiVersion: {kind}, {NAMED}, {body}}}")
    assert isinstance(only, Unjudged)
    assert only.why == f"{place} speaks of Plane and is part of no pod template"


@pytest.mark.parametrize(
    "text",
    [
        f"{{apiVersion: {ARGO}, kind: Application, {NAMED}, spec: {{project: plane-ce-x, path: my-plane-ce}}}}",
        f"{{apiVersion: {ARGO}, kind: Application, {NAMED}, spec: {{image: {IMAGE}-proxy, other: not{IMAGE}}}}}",
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {host: plane-ce}}",
        "{apiVersion: v1, kind: ConfigMap, data: {a: 'https://helm.plane.so', b: plane-enterprise}}",
        f"{{apiVersion: v1, kind: ConfigMap, data: {{a: 'image: {IMAGE}/x', b: 'a silo-commercial thing'}}}}",
        "{apiVersion: v1, kind: ConfigMap, data: {a: 'docker-entrypoint-initdb.d', b: 'celery -A planes worker'}}",
        "{apiVersion: v1, kind: ConfigMap, data: {WEB_URL: 'https://plane.example.com', h: 'http://plane-api:8000'}}",
    ],
)
def test_what_only_looks_like_plane_is_not_named(text: str) -> None:
    assert found(text) == []


def test_what_kubectl_and_controllers_note_is_not_taken_for_a_wish() -> None:
    note = '{"kubectl.kubernetes.io/last-applied-configuration": "docker-entrypoint-api.sh"}'
    assert found(f"{{kind: X, metadata: {{annotations: {note}}}, status: {{image: {IMAGE}}}}}") == []
