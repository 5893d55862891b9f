"""What of a pod decides: the pods of one workload differ in much, and in nothing of this.

What is left out here (names that are drawn for each pod, volumes of tokens, variables of the user's own) is not seen by
a decision, which is made from the facts alone. So a cache that is keyed by them can't be wrong.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from webhook.admission.command import CMD_ARGS
from webhook.admission.injection import INJECTED, MOUNT_PATH, PROVENANCE, VOLUME
from webhook.admission.review import Container, Device, EnvVar, Metadata, Mount, Pod, Resources, Spec, Volume
from webhook.settings import Env

INJECT = "plane-webhook/inject"  # label: `enabled` on a namespace, `disabled` on a pod

_VARIABLES = frozenset((*Env().variables(), CMD_ARGS))
_ANNOTATIONS = (PROVENANCE, INJECTED)
# However a path at or below ours is written (`//x/../plane-webhook/.`), this is a part of it.
_PART = MOUNT_PATH.strip("/")

as_json = msgspec.json.Encoder().encode


def facts(pod: Pod) -> Pod:
    """Return the pod without what decides nothing."""
    metadata, spec = pod.metadata, pod.spec
    return Pod(
        metadata=metadata
        and Metadata(labels=_only(metadata.labels, (INJECT,)), annotations=_only(metadata.annotations, _ANNOTATIONS)),
        spec=spec
        and Spec(
            containers=_containers(spec.containers),
            init_containers=_containers(spec.init_containers),
            volumes=_volumes(spec.volumes),
            resources=_memory(spec.resources),
        ),
    )


def _containers(containers: list[Container] | None) -> list[Container] | None:
    return containers and [
        Container(
            name=each.name,
            image=each.image,
            restart_policy=each.restart_policy,
            command=each.command,
            args=each.args,
            env=_variables(each.env),
            volume_mounts=_mounts(each.volume_mounts),
            volume_devices=_devices(each.volume_devices),
            resources=_memory(each.resources),
        )
        for each in containers
    ]


def _variables(variables: list[EnvVar] | None) -> list[EnvVar] | None:
    return variables and [each for each in variables if each.name in _VARIABLES]


def _mounts(mounts: list[Mount] | None) -> list[Mount] | None:
    return mounts and [each for each in mounts if _PART in (each.mount_path or "")]


def _devices(devices: list[Device] | None) -> list[Device] | None:
    return devices and [each for each in devices if _PART in (each.device_path or "")]


def _volumes(volumes: list[Volume] | None) -> list[Volume] | None:
    return volumes and [
        Volume(each.name, None if each.empty_dir is None else {})
        for each in volumes
        if (each.name or "").startswith(VOLUME)
    ]


def _memory(resources: Resources | None) -> Resources | None:
    """Whether memory is limited, and not how much."""
    limits = resources and resources.limits
    return Resources({"memory": None}) if limits and "memory" in limits else None


def _only(texts: dict[str, str | None] | None, names: Collection[str]) -> dict[str, str | None] | None:
    return texts and {name: texts[name] for name in names if name in texts}
