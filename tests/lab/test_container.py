"""A materialised container behaves as a pod's container does, in what an injected command depends on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.container import Container, Shell
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.images import Image

pytestmark = pytest.mark.lab

REPO = Path(__file__).parents[2]
SCRATCH: dict[str, Any] = {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
DISK: dict[str, Any] = {"name": "disk", "emptyDir": {}}
RESTRICTED = {
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod(*command: str, args: tuple[str, ...] = (), **container: Any) -> dict[str, Any]:
    mounts = [{"name": "scratch", "mountPath": "/scratch"}, {"name": "disk", "mountPath": "/scratch/disk"}]
    only = {"name": "c", "command": list(command), "args": list(args), "volumeMounts": mounts, **container}
    return {"metadata": {"name": "p", "namespace": "plane"}, "spec": {"containers": [only], "volumes": [DISK, SCRATCH]}}


def script(text: str, **container: Any) -> dict[str, Any]:
    return pod("/bin/sh", "-c", text, **container)


def ran(image: Image, what: dict[str, Any], **options: Any) -> tuple[int, str, str]:
    """Run a container to its end; return its exit code and what it wrote."""
    with Container.from_pod(what, image=image, **options) as container:
        return container.wait(), container.stdout, container.stderr


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_commands(image: Image, code: int) -> None:
    assert ran(image, script(f"echo out; echo err >&2; exit {code}")) == (code, "out\n", "err\n")


def test_a_command_that_is_not_there_ends_with_127(image: Image) -> None:
    code, _, stderr = ran(image, pod("./no/such"))
    assert code == 127
    assert "./no/such" in stderr


def test_arguments_arrive_as_they_are(image: Image) -> None:
    odd = ("", " two  words ", "'\"`\\", "line\nbreak\n", "$HOME *", "é€", "-c", "--", "$$(A) $(A) $(B)")
    code, stdout, _ = ran(
        image, pod("python", "-c", "import sys; print(sys.argv[1:])", args=odd, env=[{"name": "A", "value": "x y"}])
    )
    assert (code, eval(stdout)) == (0, [*odd[:-1], "$(A) x y $(B)"])  # noqa: S307 - a list that we just had printed


def test_the_command_is_pid_1_and_gets_signals(image: Image) -> None:
    text = "trap 'echo got; exit 3' TERM; echo pid $$$$; while :; do sleep 0.1; done"
    with Container.from_pod(script(text), image=image) as container:
        container.wait_for_log("pid 1\n")
        assert container.terminate() == 3
        assert container.stdout == "pid 1\ngot\n"


def test_pid_1_without_a_handler_is_killed_after_the_grace_period(image: Image) -> None:
    with Container.from_pod(pod("sleep", "100"), image=image) as container:
        before = time.monotonic()
        assert container.terminate(grace=0.5) == 137
        assert time.monotonic() - before >= 0.5


def test_only_its_own_environment_is_there(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_THE_LAB", "leaked")
    code, stdout, _ = ran(
        image, pod("env", env=[{"name": "ODD.NAME", "value": "a\nb"}, {"name": "PATH", "value": "/usr/bin"}])
    )
    assert code == 0
    assert "FROM_THE_LAB" not in stdout
    assert {"ODD.NAME=a", "b", "PATH=/usr/bin", "HOSTNAME=p", "HOME=/root"} <= set(stdout.splitlines())


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_sh_is_the_shell_that_was_asked_for(image: Image, shell: Shell) -> None:
    code, stdout, _ = ran(image, script("readlink -f /proc/1/exe; readlink -f /bin/mkdir"), shell=shell)
    first, mkdir = stdout.split()
    assert (code, Path(first).name) == (0, shell)
    assert Path(mkdir).name == ("busybox" if shell == "busybox" else "mkdir")


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_a_restricted_container_writes_to_its_volumes_only(image: Image, shell: Shell) -> None:
    text = """
        id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        for path in /scratch/x /scratch/disk/x /x /tmp/x /code/x /usr/local/x /etc/x; do
            if (: >"$path") 2>/dev/null; then echo "$path"; fi
        done
    """
    code, stdout, _ = ran(image, script(text, securityContext=RESTRICTED), shell=shell)
    *rest, first, second = stdout.split()
    assert code == 0
    assert rest == ["65534", "65534", "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    assert [first, second] == ["/scratch/x", "/scratch/disk/x"]


def test_a_writable_root_is_writable_and_gone_after_a_restart_but_volumes_stay(image: Image) -> None:
    text = """
        cat /tmp/runs /run/runs /scratch/runs /scratch/disk/runs 2>/dev/null
        echo ran | tee /tmp/runs /run/runs >/scratch/runs
        echo disk >/scratch/disk/runs
        echo up
        exec sleep 100
    """
    with Container.from_pod(script(text), image=image) as container:
        container.wait_for_log("up\n")
        assert container.stdout == "up\n"
        assert container.restart(kill=True) == 137
        container.wait_for_log("up\n")
        assert container.stdout == "ran\ndisk\nup\n"


def test_a_memory_volume_holds_what_its_limit_allows(image: Image) -> None:
    text = "stat -c %a /scratch; head -c 900K /dev/zero >/scratch/a && head -c 900K /dev/zero >/scratch/b"
    code, stdout, stderr = ran(image, script(text))
    assert (code, stdout) == (1, "777\n")
    assert "No space left" in stderr


def test_exec_is_inside_with_the_containers_user_environment_and_folder(image: Image) -> None:
    what = pod("sleep", "100", securityContext=RESTRICTED, env=[{"name": "OWN", "value": "yes"}], workingDir="/scratch")
    with Container.from_pod(what, image=image) as container:
        run = container.exec(
            ["sh", "-c", "id -u; pwd; echo $OWN; tr '\\0' ' ' </proc/1/cmdline; : >here; cat; exit 5"], stdin="in"
        )
        assert (run.returncode, run.stdout) == (5, "65534\n/scratch\nyes\nsleep 100 in")
        assert container.exec(["cat", "/scratch/here"]).returncode == 0
        assert "NoNewPrivs:\t1" in container.exec(["grep", "NoNewPrivs", "/proc/self/status"]).stdout


def test_its_processes_are_known_and_nothing_of_it_outlives_the_lab(image: Image, tmp_path: Path) -> None:
    """A Python that starts a container and is killed: its processes, the pod's included, go with it."""
    lab = """
import sys, time
from lab import images
from lab.container import Container
only = {"name": "c", "command": ["/bin/sh", "-c", "sleep 1000 & sleep 1001"]}
pod = {"metadata": {"name": "p"}, "spec": {"containers": [only]}}
with Container.from_pod(pod, image=images.build()) as container:
    while len(container.processes()) < 3:
        time.sleep(0.05)
    print(*(each.pid for each in container.processes()), container._pod.pid, flush=True)
    time.sleep(1000)
"""
    assert image.root.exists()  # made before, so that nothing else is
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # what a killed Python can't remove, pytest does
    with subprocess.Popen(
        [sys.executable, "-c", lab], cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True
    ) as python:
        assert python.stdout is not None
        pids = [int(word) for word in python.stdout.readline().split()]
        python.send_signal(signal.SIGKILL)
    assert len(pids) == 4
    wait_for(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids), 10, "all of it is gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may say where pids go on")
def test_its_first_process_comes_first_also_when_the_machines_pids_begin_anew(image: Image) -> None:
    with Container.from_pod(pod("/bin/sh", "-c", "while :; do sleep 0.3; done"), image=image) as container:
        (first, *_) = container.processes()
        Path("/proc/sys/kernel/ns_last_pid").write_text("300")
        wait_for(lambda: min(each.pid for each in container.processes()) < first.pid, 10, "a later one has a lower pid")
        assert container.processes()[0] == first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's tmpfs mounts could be left behind")
def test_no_mount_is_left_behind(image: Image) -> None:
    with Container.from_pod(pod("true"), image=image) as container:
        container.wait()
        assert str(container.state) not in Path("/proc/self/mountinfo").read_text()
    assert not container.state.exists()
