"""Pods, reviews and settings: as Plane's charts have them, as a hostile user might, and as nobody would."""

from __future__ import annotations

import copy
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from webhook.settings import Env, Profile, Publish, Settings, Workload

Json = Any
Trees = SearchStrategy[Any]

NAMES = (
    "GUNICORN_MAX_REQUESTS",
    "GUNICORN_MAX_REQUESTS_JITTER",
    "CELERY_TASK_PUBLISH_RETRY",
    "CELERY_BROKER_POOL_LIMIT",
)

# JSON has no lone surrogates; anything else may stand in a pod.
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_trees: SearchStrategy[Json] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
# Fields that no Kubernetes of today knows.
unknown = st.dictionaries(texts.map("x{}".format), json_trees, max_size=2)


def fields(known: dict[str, Trees], **required: Trees) -> SearchStrategy[dict[str, Json]]:
    """All of `required` and any of `known`, some of them null, in any order, with unknown fields between them."""

    def mixed(parts: tuple[dict[str, Json], dict[str, Json]]) -> SearchStrategy[dict[str, Json]]:
        together = {**parts[0], **parts[1]}
        return st.permutations(list(together)).map(lambda order: {key: together[key] for key in order})

    optional = {key: value | st.none() for key, value in known.items() if key not in required}
    return st.tuples(st.fixed_dictionaries(required, optional=optional), unknown).flatmap(mixed)


ENTRYPOINTS = tuple(
    f"{before}docker-entrypoint-{name}{after}"
    for name in ("api", "worker", "beat", "migrator", "agent-consumer", "outbox-poller", "new")
    for before in ("./bin/", "", "x-", "/code/bin/")
    for after in (".sh", "-ee.sh", ".sh.bak", "")
)
WORDS = (
    "/bin/sh",
    "/bin/bash",
    "-c",
    "--",
    "exec",
    "/sbin/tini",
    "cat",
    "echo",
    "plane-webhook",
    "# plane-webhook guard 1\n",
)
REFERENCES = ("$(PORT)", "$$(PORT)", "$", "$$", "$(", "$$$(A)", "$()", "$PORT", "a$(A)b$(B)", "é$", "$é", ")")
pieces = (
    st.sampled_from((*ENTRYPOINTS, *WORDS, *REFERENCES, " ", "\n", "\\\n", ";", "&&", "|", ">", "#", "'", '"', "`"))
    | texts
)
scripts = st.lists(pieces, max_size=6).map("".join) | st.lists(pieces, max_size=6).map(" ".join)
words = pieces | scripts
executed = st.sampled_from([each for each in ENTRYPOINTS if each.endswith(".sh") and "x-" not in each])
direct = st.sampled_from(
    (
        ("gunicorn", "plane.asgi:application"),
        ("gunicorn", "--max-requests", "5", "plane.asgi:application"),
        ("celery", "-A", "plane", "worker"),
        ("celery", "-A", "plane", "beat"),
        ("python", "manage.py", "migrate"),
        ("python3", "./manage.py", "sync"),
        ("sh", "-c", "exec gunicorn x"),
        ("bash", "-lc", "exec gunicorn x"),
        ("python3", "-m", "gunicorn", "x"),
    )
).map(list)
plane_commands = (
    direct
    | executed.map(lambda entrypoint: [entrypoint])
    | st.tuples(st.lists(words, max_size=2), executed).map(lambda parts: [*parts[0], parts[1]])
    | st.tuples(scripts, executed, scripts).map(
        lambda parts: ["/bin/bash", "-c", f"{parts[0]}\nexec {parts[1]}\n{parts[2]}"]
    )
)
commands = st.lists(words, max_size=4) | plane_commands

labels = st.dictionaries(
    st.just("plane-webhook/inject") | texts, st.sampled_from(("disabled", "enabled", None)) | texts, max_size=2
)
forged = st.sampled_from(("", "{}", '{"version":"0.1.0","containers":[]}')) | texts
annotations = st.dictionaries(texts, st.none() | texts, max_size=2) | st.fixed_dictionaries(
    {}, optional={"plane-webhook/provenance": forged, "a": texts, "big": st.integers(261_400, 262_200).map("x".__mul__)}
)
metadata = fields({"name": texts, "generateName": texts, "labels": labels, "annotations": annotations})

volume_names = st.sampled_from(("plane-webhook", "plane-webhook-2", "plane-webhook-3", "data")) | texts
paths = st.sampled_from(
    (
        *("/plane-webhook", "/plane-webhook/", "/plane-webhook/bin", "//plane-webhook", "plane-webhook"),
        *("/plane-webhooks", "/x/../plane-webhook", "/", "", "/data"),
    )
)
env = st.lists(
    fields({"name": st.sampled_from((*NAMES, "PATH", "PORT")) | texts, "value": words, "valueFrom": json_trees}),
    max_size=4,
)
mounts = st.lists(
    fields(
        {"name": volume_names, "mountPath": paths, "readOnly": st.booleans(), "subPath": texts, "subPathExpr": texts}
    ),
    max_size=2,
)
devices = st.lists(fields({"name": volume_names, "devicePath": paths}), max_size=1)
volumes = st.lists(
    fields({"name": volume_names, "emptyDir": st.dictionaries(texts, json_trees, max_size=1)}), max_size=3
)
resources = fields({"limits": st.dictionaries(st.sampled_from(("memory", "cpu")), json_trees), "requests": json_trees})
IMAGES = (
    "mirror/silo-commercial:v1",
    *("makeplane/plane-backend", "makeplane/backend-commercial:v1"),
    *("r.local:5000/makeplane/plane-backend@sha256:0", "web", "notmakeplane/plane-backend"),
)
images = st.sampled_from(IMAGES) | texts

CONTAINER = {
    "name": st.sampled_from(("api", "plane-app-api", "web")) | texts,
    "image": images,
    "restartPolicy": st.sampled_from(("Always", "Never")),
    "command": commands,
    "args": st.lists(words, max_size=2),
    "env": env,
    "volumeMounts": mounts,
    "volumeDevices": devices,
    "resources": resources,
}
containers = fields(CONTAINER)
# What a chart makes, more or less.
plane_containers = fields(
    CONTAINER,
    name=st.sampled_from(("api", "worker")),
    image=st.sampled_from(IMAGES),
    command=plane_commands,
    env=env,
)
SPEC = {
    "containers": st.lists(containers, max_size=2),
    "initContainers": st.lists(containers | plane_containers, max_size=1),
    "volumes": volumes,
    "resources": resources,
}
POD = {"metadata": metadata, "spec": fields(SPEC), "status": json_trees}
neighbours = st.lists(containers | plane_containers, max_size=1)
around = st.tuples(neighbours, plane_containers, neighbours).map(lambda parts: [*parts[0], parts[1], *parts[2]])
plane_pods = fields(POD, spec=fields(SPEC, containers=around))
pods = plane_pods | plane_pods | fields(POD)


@st.composite
def damaged(draw: st.DrawFn, trees: SearchStrategy[Json]) -> Json:
    """One of `trees` in which any JSON stands in the place of something."""
    tree = copy.deepcopy(draw(trees))
    holder = {"": tree}
    place: Any = holder
    key: Any = ""
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(json_trees)
    return holder[""]


workload_lists = st.lists(st.sampled_from(get_args(Workload)), min_size=1, unique=True).map(tuple)
counts = st.sampled_from((0, 1, 999_999_999))
profiles = st.builds(
    Profile,
    env=st.builds(
        Env,
        gunicorn_max_requests=counts,
        gunicorn_max_requests_jitter=counts,
        celery_task_publish_retry=st.booleans(),
        celery_broker_pool_limit=counts,
    ),
    publish=st.builds(
        Publish,
        confirm=st.booleans(),
        mandatory=st.booleans(),
        patience=st.floats(0.05, 60),
        timeout=st.floats(0.05, 600),
        spool=st.sampled_from(("redis", "none")),
        spool_tasks=st.integers(1, 10_000_000),
        spool_bytes=st.integers(1024, 1 << 40),
    ),
    precedence=st.sampled_from(("webhook", "chart")),
    workloads=workload_lists,
    images=st.sampled_from((("makeplane/backend-commercial", "makeplane/plane-backend"), (), ("web",))),
)
settings = st.builds(Settings, default=profiles, namespaces=st.dictionaries(st.just("plane"), profiles, max_size=1))


@st.composite
def changed_since(draw: st.DrawFn, patched: Json) -> Json:  # noqa: C901 - a list of ways
    """A pod that came out of the webhook, after others had their hands on it."""
    pod = copy.deepcopy(patched)
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
        command = container.get("command")
        match draw(st.integers(0, 7)):
            case 0 if command:
                command[:0] = draw(st.lists(words, min_size=1, max_size=2))
            case 5 if command:
                container["args"] = command + (container.get("args") or [])
                container["command"] = draw(st.lists(words, min_size=1, max_size=2))
            case 1 if command:
                container["command"] = draw(plane_commands)
            case 2:
                container.pop("volumeMounts", None)
            case 3 if container.get("env"):
                del container["env"][draw(st.integers(0, len(container["env"]) - 1))]
            case 4 if container.get("volumeMounts"):
                container["volumeMounts"][-1]["readOnly"] = True
    match draw(st.integers(0, 5)):
        case 0:
            pod["spec"].pop("volumes", None)
        case 1:
            pod["metadata"].pop("annotations")
        case 2:
            pod["metadata"]["annotations"]["plane-webhook/provenance"] = draw(forged)
        case 3:
            pod["metadata"]["annotations"].pop("plane-webhook/injected", None)
        case 4:
            pod["spec"]["containers"].insert(0, draw(plane_containers))
    return pod
