"""What is put into a container that runs Plane, as JSON Patch operations on the raw pod.

The command gets our guard and its files as a prefix (docs/explanation/delivery.md says why argv, and not annotations or
an image); nothing of the pod is read and written back. Whatever would make the API server refuse the result is decided
here, before there is a patch: a patch that can't be applied is an error to it even under `Ignore`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import count
from types import MappingProxyType
from typing import Any

import msgspec

from webhook import __version__, payload
from webhook.admission.guard import ARGV0, told
from webhook.admission.reasons import Reason, Risk
from webhook.admission.review import Container, Mount, Pod, Resources, ending
from webhook.admission.target import Place, Target
from webhook.settings import Profile

MOUNT_PATH = "/plane-webhook"
VOLUME = "plane-webhook"
PROVENANCE = "plane-webhook/provenance"
INJECTED = "plane-webhook/injected"

Operation = dict[str, Any]

# k8s.io/apimachinery pkg/api/validation: TotalAnnotationSizeLimitB, the bytes of all keys and values.
_ANNOTATIONS_LIMIT = 256 * 1024
# etcd takes requests of up to 1.5 MiB (--max-request-bytes); it stores protobuf, which is smaller than the JSON that is
# measured here. A container gets less than 48 KiB from us; so this also bounds what one review can cost.
_POD_LIMIT = 1536 * 1024
_ADDED = 48 * 1024


class Part(msgspec.Struct, frozen=True):
    """What one container still needs. Hashable: equal parts have equal patches."""

    place: Place
    index: int
    name: str
    workload: str
    limits: bool  # whether gunicorn's are ours to set
    wrap: bool
    kept: tuple[str, ...]  # the user's own
    set: tuple[str, ...]  # ours, in env or exported by the launcher
    variables: tuple[str, ...]  # to add to env
    env_exists: bool
    mount: str  # the volume to mount; "" when it is mounted already
    mounts_exist: bool


class Injection(msgspec.Struct, frozen=True):
    """What a pod needs. Hashable: equal injections have equal patches."""

    profile: Profile
    parts: tuple[Part, ...]
    new_volumes: tuple[str, ...]
    volumes_exist: bool
    metadata_exists: bool
    annotations_exist: bool


def plan(pod: Pod, found: list[Target], profile: Profile) -> Injection | Reason:
    """What to inject for `found` (at least one, all wrappable), or why nothing is."""
    if len(found) * _ADDED > _POD_LIMIT:  # before thousands of parts are made for a pod that can't have them
        return Reason.POD_TOO_LARGE
    spec, metadata = pod.spec, pod.metadata
    assert spec is not None  # noqa: S101 - `found` came out of it
    volumes = {volume.name or "": volume for volume in spec.volumes or ()}
    ours = {name for name, volume in volumes.items() if name.startswith(VOLUME) and volume.empty_dir is not None}
    names = _free_names(volumes)
    parts: list[Part] = []
    new_volumes: list[str] = []
    for target in found:
        mounted = _mounted(target.container, ours)
        if mounted is None:
            return Reason.MOUNT_TAKEN
        if not mounted:
            new_volumes.append(next(names))
        parts.append(_part(target, profile, mount="" if mounted else new_volumes[-1]))
    injection = Injection(
        profile=profile,
        parts=tuple(parts),
        new_volumes=tuple(new_volumes),
        volumes_exist=spec.volumes is not None,
        metadata_exists=metadata is not None,
        annotations_exist=metadata is not None and metadata.annotations is not None,
    )
    if not new_volumes and not any(part.wrap or part.variables for part in parts):
        annotations = (metadata.annotations if metadata else None) or {}
        if PROVENANCE in annotations and annotations.get(INJECTED) == workloads(injection):
            return Reason.ALREADY_INJECTED
    return injection


def excess(injection: Injection, pod: Pod, size: int) -> Reason | None:
    """Why the API server would refuse the pod, of `size` bytes as JSON, with the injection; None if it would not."""
    if size + len(injection.parts) * _ADDED > _POD_LIMIT:
        return Reason.POD_TOO_LARGE
    if 0 < size < _ANNOTATIONS_LIMIT - _ADDED:  # they are a part of it
        return None
    annotations = (pod.metadata and pod.metadata.annotations) or {}
    together = {**annotations, **_annotations(injection)}
    if sum(len(key.encode()) + len((value or "").encode()) for key, value in together.items()) > _ANNOTATIONS_LIMIT:
        return Reason.ANNOTATIONS_FULL
    return None


def _part(target: Target, profile: Profile, *, mount: str) -> Part:
    container = target.container
    present = {variable.name: variable.value for variable in container.env or ()}
    wanted = known = variables(profile, limits=target.limits)
    if target.workload == "api" and not target.limits:
        known = variables(profile, limits=True)
    webhook = profile.precedence == "webhook"
    # Of a container that we have seen, what has our value is ours, unless our guard was told that it is the user's.
    seen = told(container)
    ours = wanted.keys() - seen.get("kept", ()) if seen is not None and webhook else ()
    kept = [name for name, value in known.items() if name in present and (name not in ours or present[name] != value)]
    if target.limit is not None:
        kept = [name for name in known if name in kept or name not in wanted]
    return Part(
        place=target.place,
        index=target.index,
        name=container.name or "",
        workload=target.workload,
        limits=target.limits,
        wrap=seen is None,
        kept=tuple(kept),
        set=tuple([name for name in wanted if name not in kept]),
        variables=tuple([name for name in wanted if name not in present]) if webhook else (),
        env_exists=container.env is not None,
        mount=mount,
        mounts_exist=container.volume_mounts is not None,
    )


@lru_cache(maxsize=256)  # the same for each pod of a workload
def variables(profile: Profile, *, limits: bool) -> Mapping[str, str]:
    """The variables to set, with those of gunicorn's limits or without."""
    found = {
        name: value for name, value in profile.env.variables().items() if limits or not name.startswith("GUNICORN_")
    }
    return MappingProxyType(found)


def risks(target: Target, pod: Pod, profile: Profile) -> list[Risk]:
    """Ways of losing tasks, or of filling a node, that stay open in this container."""
    found = [Risk.PAST_LAUNCHER] if target.passed else []
    if target.workload == "api" and _rotation_is_off(target, profile):
        if not profile.publish.confirm:
            found.append(Risk.UNCONFIRMED)
        if not _limited(target.container.resources) and not _limited(pod.spec.resources if pod.spec else None):
            found.append(Risk.UNLIMITED)
    return found


def _rotation_is_off(target: Target, profile: Profile) -> bool:
    limit = target.limit
    if limit is None:
        limit = "" if target.passed else str(profile.env.gunicorn_max_requests)
        for variable in target.container.env or ():
            if variable.name == "GUNICORN_MAX_REQUESTS":
                limit = variable.value or ""
    return set(limit.strip()) == {"0"}  # as the settings overlay reads it; valueFrom can't be known here


def _limited(resources: Resources | None) -> bool:
    return resources is not None and resources.limits is not None and "memory" in resources.limits


@lru_cache(maxsize=256)  # pods of one workload differ in nothing that an injection knows of
def provenance(injection: Injection) -> str:
    """The annotation's text (JSON): who did it, by which settings, what was set and what was the user's."""
    return json.dumps(
        {
            "version": __version__,
            "settings": f"sha256:{injection.profile.digest}",
            "containers": [
                {
                    "name": part.name,
                    "workload": part.workload,
                    "set": part.set,
                    "kept": part.kept,
                }
                for part in injection.parts
            ],
        },
        separators=(",", ":"),
    )


def workloads(injection: Injection) -> str:
    """The short annotation's text: what is injected, in a word for each workload, as `kubectl get` can show it."""
    return ",".join(dict.fromkeys(part.workload for part in injection.parts))


def _annotations(injection: Injection) -> dict[str, str]:
    return {PROVENANCE: provenance(injection), INJECTED: workloads(injection)}


def prefix(part: Part, profile: Profile) -> list[str]:
    """The words in front of Plane's own command."""
    wanted = variables(profile, limits=part.limits)
    settings = {
        "version": __version__,
        "digest": profile.digest,
        "workload": part.workload,  # guard.sh and shim.sh look for it as json.dumps writes it
        "precedence": profile.precedence,
        "env": dict(wanted),
        "kept": list(part.kept),
        "publish": profile.publish.model_dump(mode="json"),
    }
    exports = " ".join(f"{name}={value}" for name, value in wanted.items())
    texts = (exports, json.dumps(settings), payload.PACKED)
    # The kubelet turns $$ into $ and expands $(NAME) in a command: doubled, each of our dollars comes out as one.
    return ["/bin/sh", "-c", *(text.replace("$", "$$") for text in (payload.GUARD, ARGV0, *texts))]


def payload_said(word: str) -> str:
    """What a word of a command is, for people, if it is one of our files; else ""."""
    for name, text in (("guard", payload.GUARD), ("files, packed", payload.PACKED)):
        if word == text.replace("$", "$$"):
            return f"plane-webhook's {name}, {len(word.encode()):,} bytes"
    return ""


def operations(injection: Injection) -> list[Operation]:
    """JSON Patch operations, in the order in which they apply."""
    patch: list[Operation] = []
    for part in injection.parts:
        container = f"/spec/{part.place}/{part.index}"
        wanted = variables(injection.profile, limits=part.limits)
        env = [{"name": name, "value": wanted[name]} for name in part.variables]
        patch += _append(f"{container}/env", env, exists=part.env_exists)
        mounts = [{"name": part.mount, "mountPath": MOUNT_PATH}] if part.mount else []
        patch += _append(f"{container}/volumeMounts", mounts, exists=part.mounts_exist)
        words = prefix(part, injection.profile) if part.wrap else []
        patch += [_add(f"{container}/command/0", word) for word in reversed(words)]
    # In memory: the cluster autoscaler does not drain nodes with disk-backed ones. 1 MiB: nine times our files.
    volumes = [{"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} for name in injection.new_volumes]
    patch += _append("/spec/volumes", volumes, exists=injection.volumes_exist)
    annotations = _annotations(injection)
    if injection.annotations_exist:
        patch += [_add(f"/metadata/annotations/{key.replace('/', '~1')}", text) for key, text in annotations.items()]
    elif injection.metadata_exists:
        patch.append(_add("/metadata/annotations", annotations))
    else:
        patch.append(_add("/metadata", {"annotations": annotations}))
    return patch


@lru_cache(maxsize=64)  # some 45 kB each
def encoded(injection: Injection) -> bytes:
    """The patch as it stands in the response, whose end it is."""
    return ending(operations(injection))


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _append(path: str, values: list[dict[str, Any]], *, exists: bool) -> list[Operation]:
    """Operations that append to a list which may not be there: then `path/-` would be an error."""
    if exists:
        return [_add(f"{path}/-", value) for value in values]
    return [_add(path, values)] if values else []


def _free_names(taken: Mapping[str, object]) -> Iterator[str]:
    for number in count(1):
        name = VOLUME if number == 1 else f"{VOLUME}-{number}"
        if name not in taken:
            yield name


def _mounted(container: Container, ours: Collection[str]) -> bool | None:
    """Whether one of the volumes `ours` is mounted where it belongs; None where there is anything else."""
    mounts = [mount for mount in container.volume_mounts or () if _at_or_below(mount.mount_path)]
    devices = [device for device in container.volume_devices or () if _at_or_below(device.device_path)]
    if not mounts and not devices:
        return False
    return True if [_is_ours(mount) and mount.name in ours for mount in mounts] == [True] and not devices else None


def _at_or_below(path: str | None) -> bool:
    # As the kubelet takes it: relative to the root, with dots and double slashes resolved.
    return (posixpath.normpath("/" + (path or "").lstrip("/")) + "/").startswith(MOUNT_PATH + "/")


def _is_ours(mount: Mount) -> bool:
    """Whether the guard can write there, if the volume is ours."""
    return mount.mount_path == MOUNT_PATH and not (mount.sub_path or mount.sub_path_expr or mount.read_only)
