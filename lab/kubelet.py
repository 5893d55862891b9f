"""What the kubelet would hand to the container runtime for one container of a stored pod: a pure function.

The rules are those of Kubernetes 1.36: pkg/kubelet/kubelet_pods.go (environment), pkg/kubelet/container/helpers.go
(command and args), third_party/forked/golang/expansion, pkg/volume (files and modes). What isn't emulated is refused,
never guessed: a test that passes here must not rest on something that a kubelet would do otherwise.

It is there beside lab/node because what a kubelet makes of a pod is to be had at once, without root and without
cgroup v1: the faults of tests/effect and bench/effect ask for it by the hundred, and so does CI, which has no node.
tests/e2e/node/test_twins.py holds it to a real kubelet.

Not here: init containers, probes, lifecycle hooks, stdin and tty, the variables of Services.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lab.cache import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Json = dict[str, Any]
Data = "Mapping[str, str | bytes]"
Objects = "Mapping[str, Mapping[str, str | bytes]]"  # name -> key -> value, as in a ConfigMap's data

# What containerd and CRI-O give a container that asks for nothing else.
DEFAULT_CAPABILITIES = frozenset(
    (
        *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
        *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
    )
)
# Every pod's token volume names this ConfigMap, which a controller makes in every namespace.
ROOT_CA = "kube-root-ca.crt"
ADDRESS = "127.0.0.1"


class CannotMaterialise(LabError):  # noqa: N818 - it reads as a sentence where it is raised
    """A kubelet would refuse this container too, or the lab doesn't emulate what it asks for."""


class ImageConfig(Protocol):
    """The part of an image's configuration that the kubelet and the runtime read."""

    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def entrypoint(self) -> Sequence[str]: ...
    @property
    def cmd(self) -> Sequence[str]: ...
    @property
    def workdir(self) -> str: ...


@dataclass(frozen=True)
class Volume:
    """A directory of the pod: with files in it, or empty and then the containers' to fill."""

    files: Mapping[str, tuple[bytes, int]] | None  # path -> (content, mode); None for an emptyDir
    memory: bool = False
    size: int | None = None  # bytes, for a memory-backed one


@dataclass(frozen=True)
class Mount:
    """Where a volume, or a path in it, appears in the container."""

    volume: str
    path: str
    sub_path: str
    read_only: bool


@dataclass(frozen=True)
class Spec:
    """A container, ready to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: frozenset[str]
    read_only_root: bool
    mounts: tuple[Mount, ...]
    volumes: Mapping[str, Volume]
    grace: float  # seconds between SIGTERM and SIGKILL
    fs_group: int | None = None  # whose the files of volumes are


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as the kubelet does.

    `$$` is one dollar sign and starts nothing; an unknown name and a reference without its end stay as they are.
    (1.31 still corrupted a character beyond ASCII that follows a lone `$`; 1.36 doesn't, nor does this.)
    """

    def piece(match: re.Match[str]) -> str:
        token = match[0]
        if token == "$$":
            return "$"
        return variables.get(token[2:-1], token)

    return re.sub(r"\$\$|\$\([^)]*\)", piece, text)


def materialise(
    pod: Json, name: str, image: ImageConfig, *, config_maps: Objects, secrets: Objects, volumes: Sequence[str] = ()
) -> Spec:
    """Return container `name` of `pod` as the kubelet would have it run in `image`.

    `volumes` names volumes whose content the caller provides, whatever their type.
    """
    return _Kubelet(pod, name, image, {ROOT_CA: {"ca.crt": ""}, **config_maps}, secrets).spec(volumes)


class _Kubelet:
    def __init__(self, pod: Json, name: str, image: ImageConfig, config_maps: Objects, secrets: Objects) -> None:
        containers = {container["name"]: container for container in pod["spec"]["containers"]}
        if name not in containers:
            raise CannotMaterialise(f"the pod has no container {name!r}: it has {', '.join(containers)}")
        self.pod, self.container, self.image = pod, containers[name], image
        self.objects = {"configMap": config_maps, "secret": secrets}

    def spec(self, provided: Sequence[str]) -> Spec:
        env = self.environment()
        own, of_pod = self.container.get("securityContext", {}), self.pod["spec"].get("securityContext", {})
        if own.get("privileged"):
            raise CannotMaterialise(f"container {self.container['name']}: privileged isn't emulated")
        uid = own.get("runAsUser", of_pod.get("runAsUser", 0))
        if uid == 0 and own.get("runAsNonRoot", of_pod.get("runAsNonRoot", False)):
            raise CannotMaterialise(
                f"container {self.container['name']}: runAsNonRoot, but it would run as root: set runAsUser"
            )
        groups = [*of_pod.get("supplementalGroups", []), *([of_pod["fsGroup"]] if "fsGroup" in of_pod else [])]
        used = {mount["name"] for mount in self.container.get("volumeMounts", [])}
        declared = {volume["name"]: volume for volume in self.pod["spec"].get("volumes", [])}
        if missing := used - declared.keys():
            raise CannotMaterialise(
                f"container {self.container['name']} mounts what the pod doesn't declare: {missing}"
            )
        found = {each: self.volume(declared[each]) for each in used if each not in provided}
        return Spec(
            name=self.container["name"],
            argv=self.argv(env),
            # The runtime sets the first two; the image's variables come below the pod's.
            env={
                "HOME": "/root" if uid == 0 else "/",
                "HOSTNAME": self.field("metadata.name"),
                **self.image.env,
                **env,
            },
            cwd=self.container.get("workingDir") or self.image.workdir,
            uid=uid,
            gid=own.get("runAsGroup", of_pod.get("runAsGroup", 0)),
            groups=tuple(groups),
            capabilities=_capabilities(own.get("capabilities", {})),
            read_only_root=bool(own.get("readOnlyRootFilesystem")),
            mounts=tuple(self.mount(mount, env, found) for mount in self.container.get("volumeMounts", [])),
            volumes=found,
            grace=float(self.pod["spec"].get("terminationGracePeriodSeconds", 30)),
            fs_group=of_pod.get("fsGroup"),
        )

    def environment(self) -> dict[str, str]:
        """EnvFrom in its order, then env in its order: a value sees what came before it, and itself from envFrom."""
        env: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            for kind, reference in (("configMap", source.get("configMapRef")), ("secret", source.get("secretRef"))):
                if reference is not None:
                    data = self.data(kind, reference["name"], optional=reference.get("optional", False)) or {}
                    env.update({source.get("prefix", "") + key: _text(value) for key, value in data.items()})
        for variable in self.container.get("env", []):
            if variable.get("value"):
                env[variable["name"]] = expand(variable["value"], env)
            elif (value := self.value_from(variable.get("valueFrom"))) is not None:
                env[variable["name"]] = value
        return env

    def value_from(self, source: Json | None) -> str | None:
        match source:
            case None:
                return ""
            case {"fieldRef": {"fieldPath": path}}:
                return self.field(path)
            case {"configMapKeyRef": reference}:
                return self.key("configMap", reference)
            case {"secretKeyRef": reference}:
                return self.key("secret", reference)
        raise CannotMaterialise(f"valueFrom {', '.join(source)} isn't emulated")

    def key(self, kind: str, reference: Json) -> str | None:
        optional = reference.get("optional", False)
        data = self.data(kind, reference["name"], optional=optional)
        if data is not None and reference["key"] in data:
            return _text(data[reference["key"]])
        if optional:
            return None
        raise CannotMaterialise(f"couldn't find key {reference['key']} in {kind} {reference['name']}")

    def data(self, kind: str, name: str, *, optional: bool) -> Data | None:
        if name in self.objects[kind]:
            return self.objects[kind][name]
        if optional:
            return None
        raise CannotMaterialise(f"{kind} {name!r} not found, and it isn't optional: pass its data")

    def field(self, path: str) -> str:
        """Return a field as the downward API gives it; a missing label or annotation is an empty string."""
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.*)'\]", path):
            return metadata.get(match[1], {}).get(match[2], "")
        match path.split("."):
            case "metadata", ("labels" | "annotations") as field:
                items = sorted(metadata.get(field, {}).items())
                return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in items)
            case "metadata", ("name" | "namespace" | "uid") as field:
                return metadata.get(field, "")
            case "spec", ("nodeName" | "serviceAccountName") as field:
                return spec.get(field, "")
            case "status", ("podIP" | "podIPs" | "hostIP" | "hostIPs"):
                return ADDRESS
        raise CannotMaterialise(f"fieldPath {path!r} isn't emulated")

    def argv(self, env: Mapping[str, str]) -> tuple[str, ...]:
        command = [expand(word, env) for word in self.container.get("command", [])]
        args = [expand(word, env) for word in self.container.get("args", [])]
        argv = [*command, *args] if command else [*self.image.entrypoint, *(args or self.image.cmd)]
        if not argv:
            raise CannotMaterialise(f"container {self.container['name']}: no command, and the image has none either")
        return tuple(argv)

    def mount(self, mount: Json, env: Mapping[str, str], volumes: Mapping[str, Volume]) -> Mount:
        volume = volumes.get(mount["name"])
        return Mount(
            volume=mount["name"],
            path=mount["mountPath"],
            sub_path=mount.get("subPath") or expand(mount.get("subPathExpr", ""), env),
            # Whatever is projected from the API is mounted read-only.
            read_only=bool(mount.get("readOnly")) or bool(volume and volume.files is not None),
        )

    def volume(self, volume: Json) -> Volume:
        match volume:
            case {"emptyDir": source}:
                memory, size = (source or {}).get("medium") == "Memory", (source or {}).get("sizeLimit")
                return Volume(None, memory=memory, size=quantity(size) if size is not None else None)
            case {"projected": source}:
                mode = source.get("defaultMode", 0o644)
                return Volume({k: v for each in source["sources"] for k, v in self.files(each, mode)})
            case {"configMap": source} | {"secret": source} | {"downwardAPI": source}:
                kind = next(kind for kind in ("configMap", "secret", "downwardAPI") if kind in volume)
                return Volume(dict(self.files({kind: source}, source.get("defaultMode", 0o644))))
        kinds = ", ".join(volume.keys() - {"name"}) or "nothing"
        raise CannotMaterialise(f"volume {volume['name']}: {kinds} isn't emulated: provide its content")

    def files(self, source: Json, mode: int) -> Iterator[tuple[str, tuple[bytes, int]]]:
        match source:
            case {"serviceAccountToken": token}:
                yield token["path"], (b"a token that no API server takes", mode)
            case {"downwardAPI": {"items": items}}:
                for item in items:
                    yield item["path"], (self.field(item["fieldRef"]["fieldPath"]).encode(), item.get("mode", mode))
            case {"configMap": reference} | {"secret": reference}:
                kind = "configMap" if "configMap" in source else "secret"
                name = reference.get("name") or reference.get("secretName", "")
                data = self.data(kind, name, optional=reference.get("optional", False)) or {}
                everything = [{"key": key, "path": key} for key in data]
                for item in reference.get("items", everything):
                    yield item["path"], (_bytes(data[item["key"]]), item.get("mode", mode))
            case _:
                raise CannotMaterialise(f"a projected {', '.join(source)} isn't emulated")


def quantity(text: str) -> int:
    """Return a Kubernetes quantity of bytes."""
    match = re.fullmatch(r"(\d+)(|k|M|G|Ki|Mi|Gi)", text)
    if match is None:
        raise CannotMaterialise(f"{text!r} is no whole quantity of bytes")
    scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(match[1]) * scale[match[2]]


def _capabilities(asked: Json) -> frozenset[str]:
    drop = {name.lower().removeprefix("cap_") for name in asked.get("drop", [])}
    add = {name.lower().removeprefix("cap_") for name in asked.get("add", [])}
    return frozenset((frozenset() if "all" in drop else DEFAULT_CAPABILITIES - drop) | add)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
