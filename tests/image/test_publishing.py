"""What .github/workflows/release.yml runs: read out of it and run by bash as a runner would, in a repository of git's.

git and helm are real, and so is a registry in ghcr.io's place. GitHub, docker and cosign aren't to be had here: the
actions and the step that builds the image are left out, and of docker and cosign it is only seen what they are asked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab import actionlint
from lab.cache import LabError
from lab.controlplane.programs import VERSIONS, binary
from lab.fixtures import need
from lab.ourimage import REPOSITORY
from tests.image.registry import PASSWORD, USER, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

WORKFLOW = REPOSITORY / ".github/workflows/release.yml"
CHECK, LOG_IN, IMAGE, CHART = (
    "The tag is the version that the tree has",
    "Log in",
    "Build, publish and sign the image",
    "Package, publish and sign the chart",
)
COMMITTED = 1_795_168_800
OWNER = "SomeBody"  # GitHub keeps capitals in a name, a registry takes none


def test_the_workflows_are_as_github_takes_them() -> None:
    try:
        program = actionlint.program()
    except LabError as error:
        pytest.skip(str(error))
    done = subprocess.run([program], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Runner:
    """A runner with the repository at a tag.

    `variables` is what a step finds in its environment; the file `asked` has the command lines of docker and cosign.
    """

    def __init__(self, folder: Path, registry: Registry, tag: str, helm: str = "helm") -> None:
        self.registry, self.work = registry, folder / "work"
        self.asked = folder / "asked"
        steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["publish"]["steps"]
        self._steps: dict[str, dict[str, Any]] = {step["name"]: step for step in steps if "run" in step}
        assert set(self._steps) == {CHECK, LOG_IN, IMAGE, CHART}
        programs = folder / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(binary(helm))
        for name in ("docker", "cosign"):
            (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {self.asked}\n')
            (programs / name).chmod(0o755)
        self.variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SSL_CERT_FILE": str(registry.trust),
            "GITHUB_REF_NAME": tag,
            "GITHUB_REPOSITORY_OWNER": OWNER,
            "GITHUB_ACTOR": USER,
            "GITHUB_ENV": str(folder / "env"),
        }
        self._commit(tag)

    def run(self, name: str, token: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        """Run a step as `shell: bash` does; what it writes to $GITHUB_ENV the next one finds."""
        step = self._steps[name]
        own = {name: value.replace("${{ github.token }}", token) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            [
                "bash",
                "--noprofile",
                "--norc",
                "-eo",
                "pipefail",
                "-c",
                step["run"].replace("ghcr.io", self.registry.host),
            ],
            cwd=self.work,
            env=self.variables | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        file = Path(self.variables["GITHUB_ENV"])
        written = file.read_text() if file.exists() else ""
        self.variables |= dict(line.split("=", 1) for line in written.splitlines())
        return done

    def helm(self, *words: str) -> str:
        done = subprocess.run(
            ["helm", *words], cwd=self.work, env=self.variables, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _commit(self, tag: str) -> None:
        shutil.copytree(REPOSITORY / "manifests", self.work / "manifests")
        shutil.copy(REPOSITORY / "pyproject.toml", self.work)
        git = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "init.defaultBranch=main"]
        when = {"GIT_COMMITTER_DATE": f"@{COMMITTED} +0000"}
        for words in (["init"], ["add", "."], ["commit", "--message=all"], ["tag", tag]):
            subprocess.run([*git, *words], cwd=self.work, env=self.variables | when, check=True, capture_output=True)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    need("docker-registry")
    with Registry() as running:
        yield running


def version() -> str:
    return re.search(r'^version = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_the_tree_s_version_is_what_is_published(registry: Registry, tmp_path: Path) -> None:
    runner = Runner(tmp_path, registry, f"v{version()}")
    done = runner.run(CHECK)
    assert done.returncode == 0, done.stderr
    assert {name: runner.variables[name] for name in ("VERSION", "IMAGE", "CHARTS", "SOURCE_DATE_EPOCH")} == {
        "VERSION": version(),
        "IMAGE": f"{registry.host}/somebody/plane-webhook",
        "CHARTS": f"{registry.host}/somebody/charts",
        "SOURCE_DATE_EPOCH": str(COMMITTED),
    }


@pytest.mark.parametrize("tag", ["v9.9.9", "v{}-rc.1", "v{}.0"])
def test_another_tag_ends_it(registry: Registry, tmp_path: Path, tag: str) -> None:
    runner = Runner(tmp_path, registry, tag.format(version()))
    assert runner.run(CHECK).returncode != 0
    assert "VERSION" not in runner.variables


@pytest.mark.parametrize("helm", ["helm", "helm4"])
def test_the_chart_that_is_published_is_signed_and_pulls_the_image(
    registry: Registry, tmp_path: Path, helm: str
) -> None:
    runner = Runner(tmp_path, registry, f"v{version()}", helm)
    for step in (CHECK, LOG_IN, CHART):
        done = runner.run(step)
        assert done.returncode == 0, done.stdout + done.stderr

    repository = "somebody/charts/plane-webhook"
    digest = registry.digest(repository, version())
    assert runner.asked.read_text().splitlines() == [
        f"docker login {registry.host} --username {USER} --password-stdin",
        f"cosign sign --yes {registry.host}/{repository}@{digest}",
    ]

    name = ["plane-webhook", f"oci://{registry.host}/{repository}", "--version", version()]
    made = list(yaml.safe_load_all(runner.helm("template", *name, "--kube-version", VERSIONS["kubernetes"])))
    pods = [each["spec"]["template"]["spec"] for each in made if each["kind"] == "Deployment"]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert images == {f"{registry.host}/somebody/plane-webhook:{version()}"}


def test_who_may_not_publish_signs_nothing(registry: Registry, tmp_path: Path) -> None:
    runner = Runner(tmp_path, registry, f"v{version()}")
    assert runner.run(CHECK).returncode == 0
    assert runner.run(LOG_IN, token="wrong").returncode != 0
    assert runner.run(CHART).returncode != 0
    assert "cosign" not in runner.asked.read_text()
