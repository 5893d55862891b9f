"""The kubelet's rules, as its own sources and tests have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lab.kubelet import CannotMaterialise, Spec, expand, materialise, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = {"A": "1", "EMPTY": "", "REF": "$(A)", "": "nameless", "$(A": "odd"}


@dataclass(frozen=True)
class Image:
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/bin", "FROM_IMAGE": "image"})
    entrypoint: tuple[str, ...] = ("entry",)
    cmd: tuple[str, ...] = ("cmd",)
    workdir: str = "/code"


def pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {
        "name": "api-0",
        "namespace": "plane",
        "labels": {"app": "api"},
        "annotations": {"b": 'say "x"', "a": ""},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "api", **container}], **spec}}


def made(container: dict[str, Any], image: Image | None = None, **spec: Any) -> Spec:
    objects = {"vars": {"A": "from vars", "B": "vars"}}
    return materialise(
        pod(container, **spec),
        "api",
        image or Image(),
        config_maps=objects,
        secrets={"keys": {"B": b"secret", "C": "3"}},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("_$(A)_$(A)_", "_1_1_"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("a$$b", "a$b"),
        ("$A ${A} $? $", "$A ${A} $? $"),
        ("$$", "$"),
        ("\\$(A)", "\\1"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$(UNKNOWN", "$(UNKNOWN"),
        ("$(UNKNOWN$$", "$(UNKNOWN$"),
        ("$(EMPTY)", ""),
        ("$(REF)", "$(A)"),
        ("$()", "nameless"),
        ("$($(A))", "odd)"),
        ("$é$(A)", "$é1"),
        ("$(A\n)$(A)\n", "$(A\n)1\n"),
    ],
)
def test_references_are_expanded_once_and_by_the_kubelets_rules(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


def test_env_wins_over_env_from_and_sees_what_came_before_it() -> None:
    spec = made(
        {
            "command": ["x"],
            "envFrom": [
                {"configMapRef": {"name": "vars"}},
                {"secretRef": {"name": "keys"}, "prefix": "P_"},
                {"secretRef": {"name": "keys"}},
                {"configMapRef": {"name": "absent", "optional": True}},
            ],
            "env": [
                {"name": "EARLY", "value": "$(LATE) $(B) $(FROM_IMAGE)"},
                {"name": "LATE", "value": "$(P_B)-$$(B)"},
                {"name": "A", "value": "$(A), again"},
                {"name": "FROM_IMAGE"},
            ],
        }
    )
    assert spec.env["B"] == "secret"  # the last envFrom
    assert spec.env["P_C"] == "3"
    assert spec.env["EARLY"] == "$(LATE) secret $(FROM_IMAGE)"  # later ones and the image's aren't known
    assert spec.env["LATE"] == "secret-$(B)"
    assert spec.env["A"] == "from vars, again"
    assert spec.env["FROM_IMAGE"] == ""
    assert spec.env["PATH"] == "/bin"


def test_values_come_from_fields_and_keys() -> None:
    def env(**source: Any) -> str | None:
        return made({"command": ["x"], "env": [{"name": "V", "valueFrom": source}]}).env.get("V")

    assert env(fieldRef={"fieldPath": "metadata.name"}) == "api-0"
    assert env(fieldRef={"fieldPath": "metadata.labels['app']"}) == "api"
    assert env(fieldRef={"fieldPath": "metadata.annotations['none']"}) == ""
    assert env(configMapKeyRef={"name": "vars", "key": "B"}) == "vars"
    assert env(secretKeyRef={"name": "keys", "key": "B"}) == "secret"
    assert env(secretKeyRef={"name": "keys", "key": "none", "optional": True}) is None
    with pytest.raises(CannotMaterialise, match="key none in configMap vars"):
        env(configMapKeyRef={"name": "vars", "key": "none"})
    with pytest.raises(CannotMaterialise, match="'absent' not found"):
        env(secretKeyRef={"name": "absent", "key": "x"})


def test_command_and_args_are_expanded_and_replace_the_images() -> None:
    env = [{"name": "N", "value": "1 2"}]
    assert made({"command": ["a$(N)"], "args": ["$$(N)", "$(N)"], "env": env}).argv == ("a1 2", "$(N)", "1 2")
    assert made({"command": ["only"]}).argv == ("only",)
    assert made({"args": ["x"]}).argv == ("entry", "x")
    assert made({}).argv == ("entry", "cmd")
    with pytest.raises(CannotMaterialise, match="no command"):
        made({}, Image(entrypoint=(), cmd=()))


def test_the_containers_security_context_wins_over_the_pods() -> None:
    whole = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 7, "runAsNonRoot": True}
    spec = made(
        {
            "command": ["x"],
            "securityContext": {"runAsUser": 65534, "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}},
        },
        securityContext=whole,
    )
    assert (spec.uid, spec.gid, spec.groups, spec.capabilities) == (65534, 1000, (7,), {"net_raw"})
    assert "chown" in made({"command": ["x"]}).capabilities
    with pytest.raises(CannotMaterialise, match="runAsNonRoot"):
        made({"command": ["x"], "securityContext": {"runAsNonRoot": True}})


def test_volumes_have_their_files_with_their_modes() -> None:
    names = ["scratch", "down", "vars", "token"]
    spec = made(
        {"command": ["x"], "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in names]},
        volumes=[
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {
                "name": "down",
                "downwardAPI": {
                    "defaultMode": 0o555,
                    "items": [
                        {"path": "all", "fieldRef": {"fieldPath": "metadata.annotations"}},
                        {"path": "gone", "fieldRef": {"fieldPath": "metadata.annotations['gone']"}, "mode": 0o400},
                    ],
                },
            },
            {"name": "vars", "configMap": {"name": "vars", "items": [{"key": "B", "path": "sub/b"}]}},
            {
                "name": "token",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ]
                },
            },
            {"name": "unused", "persistentVolumeClaim": {"claimName": "x"}},
        ],
    )
    assert spec.volumes["scratch"].size == 1 << 20
    assert spec.volumes["down"].files == {"all": (b'a=""\nb="say \\"x\\""', 0o555), "gone": (b"", 0o400)}
    assert spec.volumes["vars"].files == {"sub/b": (b"vars", 0o644)}
    assert spec.volumes["token"].files.keys() == {"token", "ca.crt"}
    assert [mount.read_only for mount in spec.mounts] == [False, True, True, True]


def test_what_is_not_emulated_is_refused() -> None:
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "x"}}
    mounts = {"command": ["x"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    with pytest.raises(CannotMaterialise, match="volume data: persistentVolumeClaim"):
        made(mounts, volumes=[claim])
    with pytest.raises(CannotMaterialise, match="doesn't declare"):
        made(mounts)
    with pytest.raises(CannotMaterialise, match="privileged"):
        made({"command": ["x"], "securityContext": {"privileged": True}})
    with pytest.raises(CannotMaterialise, match="resourceFieldRef"):
        made({"command": ["x"], "env": [{"name": "V", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]})
    with pytest.raises(CannotMaterialise, match="it has api"):
        materialise(pod({}), "worker", Image(), config_maps={}, secrets={})
    with pytest.raises(CannotMaterialise, match=r"0\.5Gi"):
        quantity("0.5Gi")
