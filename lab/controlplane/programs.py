"""The control plane's programs: the user's own, else what setup-envtest brings, else built from Go modules.

`modules/<name>/go.mod` and `go.sum` pin the default versions to the byte; for another version the same files are
generated in the cache, with sums from the Go client's checksum database. This module must never fetch anything but
through the `go` client, so that its proxy, its checksum database and its settings stay the user's, and through
setup-envtest (envtest.py), which it builds like the rest.

Other defaults for a whole run: LAB_KUBERNETES, LAB_ETCD, LAB_HELM, LAB_HELM4.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cache import LabError, folder, made, say
from lab.controlplane import envtest

if TYPE_CHECKING:
    from collections.abc import Callable

LOCKED = Path(__file__).parent / "modules"


@dataclass(frozen=True)
class Module:
    """A Go module at one version, and what makes its programs report that version."""

    name: str
    path: str
    version: str
    packages: tuple[str, ...]  # all that are built of it: its go.mod is made for these
    locked: Path = LOCKED  # where the folder is that has its go.mod and go.sum
    tags: str = ""

    @property
    def ldflags(self) -> str:
        """Return the linker's settings; clients can't parse the version of a server that was built without."""
        major, minor, _ = self.version.split(".")
        if self.path == "k8s.io/kubernetes":
            values = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
            packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
            stamps = [f"{package}.{name}={value}" for package in packages for name, value in values.items()]
        elif self.name.startswith("helm"):
            stamps = [f"{self.path}/internal/version.version=v{self.version}"]
        elif self.name == "containerd":
            stamps = [f"{self.path}/version.Version=v{self.version}"]
        else:
            stamps = []  # etcd's version is a constant in its source
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in stamps)])


@dataclass(frozen=True)
class Program:
    """One program: where its source is, how it says its version, and how long a cold build takes on 2 cores."""

    package: str
    module: str
    takes: str
    fits: Callable[[tuple[int, int], tuple[int, int]], bool]
    asks: tuple[str, ...] = ("--version",)
    also: str = ""  # another name that users have it by


def _same_minor(have: tuple[int, int], want: tuple[int, int]) -> bool:
    return have == want


def _skew_of_one(have: tuple[int, int], want: tuple[int, int]) -> bool:
    """Kubernetes supports kubectl one minor version either side of the server."""
    return have[0] == want[0] and abs(have[1] - want[1]) <= 1


def _same_major(have: tuple[int, int], want: tuple[int, int]) -> bool:
    return have[0] == want[0]


MODULES = {
    "kubernetes": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v3",
    "helm4": "helm.sh/helm/v4",
}
VERSIONS = {
    "kubernetes": os.environ.get("LAB_KUBERNETES", "1.36.3"),
    "etcd": os.environ.get("LAB_ETCD", "3.6.16"),
    "helm": os.environ.get("LAB_HELM", "3.22.0"),
    "helm4": os.environ.get("LAB_HELM4", "4.3.1"),
}
_CMD = "k8s.io/kubernetes/cmd"
_AFTER = "1 to 2 minutes (4 to 6 where kube-apiserver was not built before it)"
# How long each takes: on two cores with empty Go caches.
PROGRAMS = {
    "etcd": Program(MODULES["etcd"], "etcd", "1 to 2 minutes", _same_minor),
    "kube-apiserver": Program(f"{_CMD}/kube-apiserver", "kubernetes", "4 to 6 minutes", _same_minor),
    "kube-controller-manager": Program(f"{_CMD}/kube-controller-manager", "kubernetes", _AFTER, _same_minor),
    "kubectl": Program(f"{_CMD}/kubectl", "kubernetes", "about half a minute", _skew_of_one, ("version", "--client")),
    "helm": Program("helm.sh/helm/v3/cmd/helm", "helm", "about 2 minutes", _same_major, ("version", "--short")),
    "helm4": Program(
        "helm.sh/helm/v4/cmd/helm", "helm4", "about 2 minutes", _same_major, ("version", "--short"), "helm"
    ),
}
DEMO = [name for name in PROGRAMS if name != "helm4"]  # only tests need it: `make demo` should not wait for it
ENVTEST = Module("setup-envtest", envtest.PATH, envtest.VERSION, (envtest.PATH,))


def binary(name: str, version: str | None = None) -> Path:
    """Return the program: $KUBEBUILDER_ASSETS, PATH, the cache, setup-envtest, else it is built. Raises LabError."""
    program = PROGRAMS[name]
    version = version or VERSIONS[program.module]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise LabError(f"{program.module} version {version!r}: give all three numbers, as in 1.36.3")
    if own := installed(name, version):
        return own
    module = _module(program.module, version)
    if not (folder(module.name, version) / name).exists() and (brought := prebuilt(name, version)):
        return brought
    return build(name, program.package, module, takes=program.takes)


def build(name: str, package: str, module: Module, *, takes: str, limit: float | None = None) -> Path:
    """Return a program of a module from the cache, built if need be. LabError says what is missing for that.

    Or that it was not built within `limit` seconds.
    """
    target = folder(module.name, module.version) / name
    return made(target, lambda part: _build(package, module, part, limit), what=f"{name} {module.version}", takes=takes)


@cache
def installed(name: str, version: str) -> Path | None:
    """Return the user's own program if its version fits. One that was named on purpose is not ignored silently."""
    program = PROGRAMS[name]
    for variable in ("KUBEBUILDER_ASSETS", "PATH"):
        for called in filter(None, (name, program.also) if os.environ.get(variable) else ()):
            candidate = shutil.which(called, path=os.environ[variable])
            if candidate and _fits(candidate, program, version, aloud=variable != "PATH" and called == name):
                return Path(candidate)
    return None


@cache
def prebuilt(name: str, version: str) -> Path | None:
    """Return the program from setup-envtest, where it has it in a version that fits."""
    if name not in envtest.BRINGS:
        return None
    kubernetes = version if PROGRAMS[name].module == "kubernetes" else VERSIONS["kubernetes"]
    brought = envtest.programs(kubernetes, setup_envtest if shutil.which("go") else None)
    if not brought or not (candidate := brought / name).exists():
        return None
    return candidate if _fits(str(candidate), PROGRAMS[name], version, aloud=True) else None


def setup_envtest() -> Path:
    """Return setup-envtest from the cache, built if need be."""
    return build("setup-envtest", ENVTEST.path, ENVTEST, takes="20 to 80 seconds", limit=envtest.LIMIT)


def _fits(candidate: str, program: Program, version: str, *, aloud: bool) -> bool:
    """Tell whether it is of a version that serves in the place of `version`, and say it where it isn't."""
    major, minor, _ = version.split(".")
    shown = subprocess.run([candidate, *program.asks], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"(\d+)\.(\d+)\.\d+", shown.stdout)
    if found and program.fits((int(found[1]), int(found[2])), (int(major), int(minor))):
        return True
    if aloud:
        say(f"{candidate} is {found[0] if found else 'of an unknown version'}, {version} is wanted: not used")
    return False


def _module(name: str, version: str) -> Module:
    packages = tuple(program.package for program in PROGRAMS.values() if program.module == name)
    return Module(name, MODULES[name], version, packages)


def _build(package: str, module: Module, target: Path, limit: float | None) -> None:
    go(
        _pinned(module),
        *("build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", module.tags, "-ldflags", module.ldflags),
        *("-o", str(target), package),
        limit=limit,
    )


def _pinned(module: Module) -> Path:
    """Return a folder with the module's go.mod and go.sum: ours for the default version, else generated."""
    locked = module.locked / module.name
    if f"{module.path} v{module.version} " in (locked / "go.mod").read_text():  # "// indirect" follows
        return locked
    where = folder(module.name, module.version) / "module"
    takes = "about 30 seconds"
    return made(where, lambda part: _pin(module, part), what=f"{module.name} {module.version} go.mod", takes=takes)


def _pin(module: Module, target: Path) -> None:
    """Write go.mod and go.sum that build the module's programs as upstream's own tree would."""
    target.mkdir(exist_ok=True)
    upstream = json.loads(go(target, "mod", "download", "-json", f"{module.path}@v{module.version}"))["GoMod"]
    # The programs run with the language version and GODEBUG defaults of the main module: take upstream's.
    lines = ["module plane-webhook/lab/controlplane"]
    lines += re.findall(r"^(?:go|godebug) .*$", Path(upstream).read_text(), re.MULTILINE)
    lines += [f"require {module.path} v{module.version}"]
    # Kubernetes' go.mod points its staging modules into its own tree, which the module proxy does not serve: they
    # are published as modules of their own, v1.36.3 as v0.36.3.
    staging = re.findall(r"^\s+(\S+) => \./staging/", Path(upstream).read_text(), re.MULTILINE)
    lines += [f"replace {path} => {path} v0.{module.version.removeprefix('1.')}" for path in staging]
    lines += [f"tool {package}" for package in module.packages]
    (target / "go.mod").write_text("\n".join(lines) + "\n")
    go(target, "mod", "tidy")


def lock(name: str, version: str) -> None:
    """Write `modules/<name>/` for another default version."""
    pin(_module(name, version))


def pin(module: Module) -> None:
    """Write the module's go.mod and go.sum where its version is the default one."""
    _pin(module, module.locked / module.name)


def go(cwd: Path, *args: str, limit: float | None = None) -> str:
    """Run the go client, for `limit` seconds at most.

    CGO is off, as upstream has it: no C compiler is needed, no library of the machine is used.
    """
    if not (go := shutil.which("go")):
        wanted = re.search(r"^go (\d+\.\d+)", (LOCKED / "kubernetes/go.mod").read_text(), re.MULTILINE)
        raise LabError(
            f"`go` is not on PATH: the control plane's programs are built with Go {wanted and wanted[1]} or newer. "
            "Install Go (its own download page, or your distribution's package if it is new enough) and put its bin "
            f"folder on PATH; or set KUBEBUILDER_ASSETS to a folder that has {', '.join(PROGRAMS)} of fitting versions."
        )
    env = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    try:
        done = subprocess.run([go, *args], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        raise LabError(f"`go {args[0]}` was not done in {limit:.0f} s") from None
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise LabError(f"`go {' '.join(args)}` failed in {cwd} with exit code {done.returncode}:\n{tail}")
    return done.stdout
