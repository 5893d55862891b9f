"""Where the lab's programs come from: the user's own, the cache, a build; and what happens when there is nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.cache import LabError, made, root
from lab.controlplane import envtest
from lab.controlplane.programs import VERSIONS, binary, installed, prebuilt
from lab.process import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES = VERSIONS["kubernetes"]
MINOR = KUBERNETES.rpartition(".")[0]


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing on PATH, nothing in the cache, and nothing remembered."""
    forget()
    monkeypatch.setenv("PLANE_WEBHOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    yield
    forget()


def forget() -> None:
    for remembered in (installed, prebuilt, envtest.programs):
        remembered.cache_clear()


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_without_go_the_error_says_what_to_install() -> None:
    with pytest.raises(LabError, match=r"`go` is not on PATH: .* Go 1\.\d+ or newer.*KUBEBUILDER_ASSETS"):
        binary("kube-apiserver")


def test_half_a_version_is_not_enough() -> None:
    with pytest.raises(LabError, match=r"kubernetes version '1\.36': give all three numbers, as in 1"):
        binary("kubectl", "1.36")


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    program(tmp_path / "path/go", "no such module' >&2; exit 1; '")
    with pytest.raises(LabError, match=r"(?s)`go build .* failed .* with exit code 1:.*no such module"):
        binary("etcd")
    assert [path.name for path in (root() / f"etcd-{VERSIONS['etcd']}").iterdir()] == [".etcd.lock"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("kube-apiserver", f"Kubernetes v{MINOR}.99"),
        ("kubectl", f"Client Version: v{MINOR}.0\nKustomize Version: v5.8.1"),
        ("kubectl", f"Client Version: v1.{int(MINOR.split('.')[1]) - 1}.0"),
        ("helm", "v3.1.2+gabcdef0"),
        ("etcd", f"etcd Version: {VERSIONS['etcd']}\nGit SHA: Not provided"),
    ],
)
@pytest.mark.parametrize("variable", ["KUBEBUILDER_ASSETS", "PATH"])
def test_the_users_own_program_is_used_when_its_version_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str, says: str
) -> None:
    own = program(tmp_path / "own" / name, says)
    monkeypatch.setenv(variable, str(own.parent))
    assert binary(name) == own


@pytest.mark.parametrize("variable", ["KUBEBUILDER_ASSETS", "PATH"])
def test_the_user_s_helm_is_the_one_of_the_two_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    third, fourth = (program(tmp_path / f"{major}/helm", f"v{major}.1.2+gabcdef0") for major in (3, 4))
    monkeypatch.setenv(variable, str(fourth.parent))
    assert binary("helm4") == fourth
    forget()
    monkeypatch.setenv(variable, str(third.parent))
    assert binary("helm") == third
    with pytest.raises(LabError, match="`go` is not on PATH"):
        binary("helm4")
    assert "not used" not in capsys.readouterr().err


def test_a_program_that_was_named_but_does_not_fit_is_not_ignored_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = program(tmp_path / "own/kube-apiserver", "Kubernetes v1.20.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(own.parent))
    with pytest.raises(LabError, match="`go` is not on PATH"):
        binary("kube-apiserver")
    assert f"{own} is 1.20.0, {KUBERNETES} is wanted: not used" in capsys.readouterr().err


def test_two_processes_at_once_make_a_thing_once(tmp_path: Path) -> None:
    text = (
        "import sys, time; from pathlib import Path; from lab.cache import made\n"
        "def make(part): time.sleep(1); part.write_text('whole'); print('made it')\n"
        "print(made(Path(sys.argv[1]), make, what='thing', takes='a second').read_text())"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "thing")]
    repository = Path(__file__).parents[2]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) for _ in range(2)]
    printed = "".join(process.communicate(timeout=30)[0] for process in both)
    assert sorted(printed.splitlines()) == ["made it", "whole", "whole"]


def test_what_was_half_made_is_made_again(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        part.mkdir()
        (part / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "thing", fail, what="thing", takes="no time")
    made(tmp_path / "thing", lambda part: part.mkdir(), what="thing", takes="no time")
    assert list((tmp_path / "thing").iterdir()) == []


def test_waiting_for_a_program_that_has_ended_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = Process(["/bin/sh", "-c", "echo the reason; exit 3"], log=tmp_path / "program.log")
    with pytest.raises(LabError, match=r"program ended with exit code 3:\nthe reason"):
        wait_for(lambda: False, 10, "never", need=[process])


def test_waiting_too_long_says_for_what() -> None:
    with pytest.raises(LabError, match=r"not within 0.1 s: the moon is green \(last seen: \[\]\)"):
        wait_for(list, 0.1, "the moon is green")
