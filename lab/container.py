"""A container of a stored pod, run for real: what kubelet.py made of the pod, started by bubblewrap.

Real are: the exact command and args as PID 1 of its own pid namespace, its user, groups and capabilities, a read-only
root, volumes with their modes and limits (they survive a restart, as a pod's do), signals, exit codes, `exec`. Unlike a
real one, a container shares the host's network, sees the host's /usr and /etc read-only in place of the image's, has no
terminal, has a variable PWD, and never gains privileges (bubblewrap sets no_new_privs). Without root its user is one of
a user namespace. tests/e2e/node/test_twins.py holds it to a real kubelet and container engine.

It is there beside lab/node because it starts at once and needs no root: the faults of tests/effect and bench/effect
start containers by the hundred.

Nothing is left behind: see sandbox.py. A container's folder is removed when it is closed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Self

from lab import cache
from lab.cache import LabError
from lab.kubelet import Json, Mount, Objects, Spec, materialise
from lab.packages import program
from lab.process import Startable, wait_for
from lab.sandbox import Inhabitant, Sandboxed, starter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.images import Image

Shell = Literal["dash", "bash", "busybox"]

# The runtime's default; a kubelet doesn't change it.
SHM_SIZE = 64 << 20
# A generous bound for "it is up": two loaded cores need a few seconds for what takes one alone.
READY = 60.0


def answers(port: int, path: str = "/") -> bool:
    """Whether something on loopback answers HTTP 200, as a readiness probe would ask."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return bool(response.status == 200)
    return False


class Container(Startable):
    """One container of a pod. `with` starts and removes it; `restart()` makes a fresh process on the same volumes."""

    def __init__(
        self, spec: Spec, image: Image, *, shell: Shell, folders: Mapping[str, Path], binds: Mapping[str, Path]
    ) -> None:
        """Prepare it; see `from_pod`."""
        self.spec, self.image, self.shell, self.binds = spec, image, shell, dict(binds)
        self.state = Path(tempfile.mkdtemp(prefix="plane-webhook-container-"))
        self.folders = {**{name: self.state / "volumes" / name for name in spec.volumes}, **folders}
        self.starts = 0
        self._process: Sandboxed | None = None
        self._pod = self._start_pod()

    @classmethod
    def from_pod(
        cls,
        pod: Json,
        *,
        image: Image,
        container: str | None = None,
        config_maps: Objects | None = None,
        secrets: Objects | None = None,
        volumes: Mapping[str, Path] | None = None,
        shell: Shell = "dash",
        binds: Mapping[str, Path] | None = None,
    ) -> Self:
        """Return container `container` (the first one by default) of a pod as the API server has it.

        `config_maps` and `secrets` hold what envFrom, valueFrom and volumes name (plain text, by name); `volumes`
        folders for volumes of any other type; `shell` is what /bin/sh is; `binds` puts further host files or folders,
        writable, at paths of the container (a database to share, another /etc/resolv.conf).
        """
        folders = volumes or {}
        spec = materialise(
            pod,
            container or pod["spec"]["containers"][0]["name"],
            image,
            config_maps=config_maps or {},
            secrets=secrets or {},
            volumes=list(folders),
        )
        return cls(spec, image, shell=shell, folders=folders, binds=binds or {})

    def start(self) -> None:
        """Start it. The volumes are what the container left in them when it ran before."""
        self.starts += 1
        self._process = Sandboxed(
            self.spec.name,
            self._options(),
            [*self._identity(), *self.spec.argv],
            stdout=self.state / f"stdout.{self.starts}",
            stderr=self.state / f"stderr.{self.starts}",
            enter=self._enter(self._pod.pid, "--mount"),
        )

    def restart(self, *, kill: bool = False) -> int:
        """Restart it as after a failed probe, or a crash (`kill`); return the exit code of the run that ended."""
        if kill:
            self.signal(9)
        code = self.terminate()
        self.start()
        return code

    def close(self) -> None:
        """End it without grace and remove its folder."""
        if self._process is not None:
            self._process.stop(0)
        self._pod.kill()
        self._pod.communicate()
        shutil.rmtree(self.state, ignore_errors=True)

    def exec(self, argv: Sequence[str], *, timeout: float = 60, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it as `kubectl exec` does: the container's namespaces, user, environment and folder."""
        self.process.check()
        enter = self._enter(self.process.pid, "--mount", "--pid", f"--wdns={self.spec.cwd}")
        if os.geteuid() != 0:  # first where the namespaces' owner is privileged
            enter = [*self._enter(self._pod.pid), *enter]
        command = [*enter, *self._identity(), *argv]
        env = dict(self.spec.env)
        return subprocess.run(
            command, env=env, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    @property
    def process(self) -> Sandboxed:
        """The present run. LabError before the first."""
        if self._process is None:
            raise LabError(f"container {self.spec.name} has not been started")
        return self._process

    def signal(self, number: int) -> None:
        """Send PID 1 a signal."""
        self.process.signal(number)

    def wait(self, timeout: float = READY) -> int:
        """Return the exit code once it has ended: 128 + N after signal N."""
        return self.process.wait(timeout)

    def terminate(self, grace: float | None = None) -> int:
        """End it as a kubelet does (the pod's own grace period by default) and return its exit code."""
        return self.process.stop(self.spec.grace if grace is None else grace)

    def processes(self) -> list[Inhabitant]:
        """Return its processes, PID 1 first, with their pids outside of it."""
        return self.process.inhabitants()

    @property
    def stdout(self) -> str:
        """What the present run has written."""
        return self.process.stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What the present run has written."""
        return self.process.stderr.read_text(errors="replace")

    def wait_for_log(self, text: str, timeout: float = READY) -> None:
        """Return when the present run has written `text`. LabError with the end of its log if it doesn't."""
        wait_for(lambda: text in self._log() or not self.process.alive(), timeout, f"{text!r} in the log")
        if text not in self._log():
            self.process.check()

    def wait_ready(self, port: int, path: str = "/", timeout: float = READY) -> None:
        """Return when it answers HTTP 200 on loopback, as a readiness probe would ask."""
        what = f"container {self.spec.name} answers on port {port}"
        wait_for(lambda: answers(port, path), timeout, what, need=[self.process])

    def _log(self) -> str:
        return self.stdout + self.stderr

    def _start_pod(self) -> subprocess.Popen[str]:
        """Start what the pause container is to a pod: the owner of the mount namespace with memory-backed volumes.

        The mounts end with it, so a killed lab leaves none behind.
        """
        script = ["set -e"]
        for name, volume in self.spec.volumes.items():
            folder = self.folders[name]
            folder.mkdir(parents=True)
            if volume.files is None:
                folder.chmod(0o777)
            for path, (content, mode) in (volume.files or {}).items():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                file.chmod(mode)
                if self.spec.fs_group is not None and os.geteuid() == 0:
                    os.chown(file, -1, self.spec.fs_group)
                    file.chmod(mode | 0o440)  # pkg/volume/volume_linux.go: its group can read all of it
            if volume.memory:
                size = f"size={volume.size}," if volume.size is not None else ""
                script.append(f"mount -t tmpfs -o {size}mode=0777 tmpfs '{folder}'")
        made = (self._source(each) for each in self.spec.mounts if each.sub_path)
        script += [f"[ -e '{path}' ] || mkdir -p '{path}'" for path in made]
        script += ["echo ready", "exec sleep infinity"]
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        die = [program("setpriv"), "--pdeathsig", "KILL", "/bin/sh", "-c", "\n".join(script)]
        pod = starter.submit(
            subprocess.Popen,
            [program("unshare"), *own, "--mount", "--propagation", "private", *die],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ).result()
        if pod.stdout.readline() != "ready\n":
            raise LabError(f"could not make the pod's mount namespace (user namespaces off?):\n{pod.stderr.read()}")
        return pod

    def _source(self, mount: Mount) -> Path:
        return self.folders[mount.volume] / mount.sub_path

    def _enter(self, pid: int, *namespaces: str) -> list[str]:
        own = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return [program("nsenter"), "--target", str(pid), *own, *namespaces, "--"]

    def _identity(self) -> list[str]:
        """Return the command prefix that becomes the container's user; without root the user namespace does it."""
        if os.geteuid() != 0:
            return []
        groups = ",".join(str(group) for group in self.spec.groups)
        bounding = ",".join(["-all", *(f"+{name}" for name in sorted(self.spec.capabilities))])
        return [
            program("setpriv"),
            *("--reuid", str(self.spec.uid), "--regid", str(self.spec.gid)),
            *(("--groups", groups) if groups else ("--clear-groups",)),
            *("--inh-caps", "-all", "--ambient-caps", "-all", "--bounding-set", bounding),
            *("--no-new-privs", "--pdeathsig", "keep", "--"),
        ]

    def _options(self) -> list[str]:
        """Return bwrap's options: a root of our own with the host's programs in it, and the pod's volumes on top."""
        spec, image = self.spec, self.image
        options = ["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--proc", "/proc", "--dev", "/dev"]
        # A pod's host name is its own: two Celery workers of the same one would be in each other's way.
        options += ["--unshare-uts", "--hostname", spec.env["HOSTNAME"][:63]]
        options += ["--ro-bind", str(_userland(self.shell)), "/bin", "--symlink", "usr/sbin", "/sbin"]
        for name in ("lib", "lib32", "lib64", "libx32"):
            host = Path("/", name)
            if host.is_symlink():
                options += ["--symlink", str(host.readlink()), str(host)]
            elif host.exists():
                options += ["--ro-bind", str(host), str(host)]
        for folder in ("/tmp", "/var/tmp"):
            options += ["--perms", "1777", "--dir", folder]
        options += [
            "--perms",
            "1777",
            "--size",
            str(SHM_SIZE),
            "--tmpfs",
            "/dev/shm",
            "--dir",
            "/run",
            "--dir",
            "/root",
        ]
        if not image.interpreter.prefix.is_relative_to("/usr"):
            options += _bind("--ro-bind", image.interpreter.prefix, str(image.interpreter.prefix))
        options += _bind("--ro-bind", image.root, image.prefix) + _bind("--ro-bind", image.code, image.workdir)
        for path, source in self.binds.items():
            options += _bind("--bind", source, path)
        for mount in sorted(spec.mounts, key=lambda each: len(PurePosixPath(each.path).parts)):  # outer before inner
            options += _bind("--ro-bind" if mount.read_only else "--bind", self._source(mount), mount.path)
        options += ["--remount-ro", "/"] if spec.read_only_root else ["--dir", spec.cwd]
        if os.geteuid() != 0:
            options += ["--unshare-user", "--uid", str(spec.uid), "--gid", str(spec.gid)]
        options.append("--clearenv")
        for name, value in spec.env.items():
            options += ["--setenv", name, value]
        return [*options, "--chdir", spec.cwd]


def _bind(how: str, source: Path, path: str) -> list[str]:
    """Mount at a path of the container whose parents anyone may enter: bubblewrap would make them for root only."""
    parents = [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]
    return [word for parent in parents for word in ("--dir", parent)] + [how, str(source), path]


def _userland(shell: Shell) -> Path:
    """Return a /bin: the host's programs, with the shell that was asked for as sh; busybox brings all its applets."""
    links = {name: f"/usr/bin/{name}" for name in os.listdir("/usr/bin")}  # noqa: PTH208 - names only, 1,000 of them
    if shell == "busybox":
        listed = subprocess.run([program("busybox"), "--list"], capture_output=True, text=True, check=True)
        links.update(dict.fromkeys(listed.stdout.split(), "/usr/bin/busybox"))
    links["sh"] = str(Path(program(shell)).resolve())

    def make(folder: Path) -> None:
        folder.mkdir()
        for name, target in links.items():
            (folder / name).symlink_to(target)

    digest = hashlib.sha256(repr(sorted(links.items())).encode()).hexdigest()[:12]
    path = cache.folder("userland", shell) / digest
    return cache.made(path, make, what=f"/bin with {shell} as sh", takes="a moment")
