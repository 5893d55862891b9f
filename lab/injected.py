"""Injected pods and what runs in them: shared by the tests of what the launcher does in a container.

Pods are injected by the webhook's own decision and the jsonpatch library, as the API server would. The programs of
`code` say what they were started with, so a run with the injection can be compared with one without it.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonpatch
import msgspec

from lab.container import Container, Shell
from lab.packages import program
from webhook import payload
from webhook.admission import decide
from webhook.admission.injection import VOLUME, operations
from webhook.admission.review import Pod
from webhook.cluster.logs import Said, said
from webhook.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.images import Image

Json = dict[str, Any]

SHELLS: tuple[Shell, ...] = ("dash", "busybox", "bash")
DEFAULTS = {
    "GUNICORN_MAX_REQUESTS": "0",
    "GUNICORN_MAX_REQUESTS_JITTER": "0",
    "CELERY_TASK_PUBLISH_RETRY": "True",
    "CELERY_BROKER_POOL_LIMIT": "10",
}
UPSTREAM_LIMITS = ["--max-requests", "1200", "--max-requests-jitter", "1000"]
ASKED_LIMITS = ["--max-requests", "0", "--max-requests-jitter", "0"]
# What a shell sets for itself and exports: any script would.
SHELLS_OWN = {"PWD", "OLDPWD", "SHLVL", "_"}
# The words of the injected command, after /bin/sh and -c.
GUARD, EXPORTS, SETTINGS, PACKED = 2, 4, 5, 6
# Files of PACKED.
OVERLAY, SHIM, PROOF = "lib/plane_webhook_settings.py", "bin/gunicorn", "proof"
# The broker that the environment names: without one nothing is in effect. Where nothing is published nothing listens.
NO_BROKER = "amqp://plane:s3cret@127.0.0.1:9//"
RESTRICTED: Json = {
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

# Says what it is, in one line of JSON, and does what its first argument says.
SHOW = """
import json, os, signal, sys, time
umask = os.umask(0)
os.umask(umask)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print("SHOWN " + json.dumps({
    "pid": os.getpid(),
    "argv": [os.fsdecode(word) for word in open("/proc/self/cmdline", "rb").read().split(b"\\0")[:-1]],
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": umask,
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "descriptors": {each: os.readlink("/proc/self/fd/" + each).split("/")[-1] for each in ("0", "1", "2")},
    "open": sorted(each for each in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + each)),
}), flush=True)
doing = sys.argv[1] if len(sys.argv) > 1 else ""
if doing.startswith("exit "):
    sys.exit(int(doing[5:]))
if doing == "handle":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(8))
if doing in ("handle", "stay"):
    print("STAYS", flush=True)
    while True:
        time.sleep(0.05)
"""
# gunicorn's stand-in: it is found, checked and started in the same way, and its last line is what it was given.
ENTRYPOINT = """#!/bin/bash
set -e
exec gunicorn --max-requests 1200 --max-requests-jitter 1000
"""


@dataclass(frozen=True)
class Ran:
    """A container that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def shown(self) -> Json:
        """What the last program that says what it is has said."""
        lines = [line for line in self.stdout.splitlines() if line.startswith("SHOWN ")]
        assert lines, f"nothing ran: {self}"
        return json.loads(lines[-1].removeprefix("SHOWN "))

    @property
    def loud(self) -> list[str]:
        """The lines that say what is not in effect."""
        lines = [line for line in self.stderr.splitlines() if "NOT IN EFFECT" in line]
        found = said(self.stderr.encode(errors="surrogateescape"), "") is Said.NOT_IN_EFFECT
        assert found == bool(lines), "operate finds the same in the log"
        return lines

    @property
    def in_effect(self) -> list[str]:
        """The lines that say what is in effect."""
        return [line for line in self.stderr.splitlines() if line.startswith("plane-webhook: in effect for ")]


def code(folder: Path, *, entrypoint: str = ENTRYPOINT, gunicorn: str = "#!/usr/local/bin/python") -> Path:
    """Make a /code folder like Plane's in which the entrypoint starts a stand-in for gunicorn; return its path.

    `gunicorn` is how its program begins: its first line, or lines if it isn't Python.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "programs").mkdir()
    (folder / "plane/settings").mkdir(parents=True)
    (folder / "plane/settings/production.py").touch()
    (folder / "show.py").write_text(SHOW)
    script(folder / "bin/docker-entrypoint-api.sh", entrypoint)
    script(folder / "programs/gunicorn", f"{gunicorn}\n{SHOW}")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)


def with_code(image: Image, folder: Path) -> Image:
    """Return the image with another /code, whose programs come first on PATH, and with the address of a broker."""
    path = f"/code/programs:{image.env['PATH']}"
    return replace(image.with_env(PATH=path, AMQP_URL=NO_BROKER), code=folder)


def pod(
    *command: str,
    args: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    map_name: str = "",
    **container: Any,
) -> Json:
    """A pod with one API container, as the API server has it before our webhook."""
    only: Json = {"name": "api", "command": list(command or ("./bin/docker-entrypoint-api.sh",)), **container}
    if args:
        only["args"] = list(args)
    if env:
        only["env"] = [{"name": name, "value": value} for name, value in env.items()]
    if map_name:
        only["envFrom"] = [{"configMapRef": {"name": map_name}}]
    return {"metadata": {"name": "plane-api-wl-0", "namespace": "plane"}, "spec": {"containers": [only]}}


def inject(what: Json, configuration: str = "") -> Json:
    """Return the pod as the API server stores it after our webhook's answer."""
    decision = decide(msgspec.convert(what, Pod), parse(configuration).default)
    assert decision.injection is not None, decision
    return jsonpatch.apply_patch(copy.deepcopy(what), operations(decision.injection))


def word(what: Json, index: int, text: str) -> Json:
    """Return the injected pod with one word of its command replaced."""
    changed = copy.deepcopy(what)
    changed["spec"]["containers"][0]["command"][index] = text
    return changed


def with_files(what: Json, texts: Mapping[str, str | None]) -> Json:
    """Return the injected pod with other texts for some of the files that it brings; None: without that one."""
    changed = {path: text for path, text in {**payload.FILES, **texts}.items() if text is not None}
    return word(what, PACKED, payload._packed(changed))  # noqa: SLF001 - as the webhook packs them


def run(image: Image, what: Json, **options: Any) -> Ran:
    """Run a container until it ends."""
    with Container.from_pod(what, image=image, **options) as container:
        return Ran(container.wait(), container.stdout, container.stderr)


def remount(container: Container, option: str) -> None:
    """Mount the launcher's volume of a container that has not been started with another option (`noexec`)."""
    assert os.geteuid() == 0, "only root may"
    enter = [program("nsenter"), "--target", str(container._pod.pid), "--mount", "--"]  # noqa: SLF001 - the lab has no such kubelet
    subprocess.run([*enter, "mount", "-o", f"remount,{option}", str(container.folders[VOLUME])], check=True)
