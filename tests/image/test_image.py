"""The image, as the Dockerfile makes it: what is in it, and that this is enough to answer an API server."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from lab import ourimage
from lab.oci import Layout
from lab.process import wait_for
from tests.admission.test_wheel import FILES
from tests.edges.webhook import post, review
from tests.image.container import Container, run
from webhook.admission import answer
from webhook.settings import Settings

pytestmark = pytest.mark.lab

UID = 65532
SITE = "venv/lib/python3*/site-packages"
TLS, CONFIGURATION = "/var/run/plane-webhook/tls", "/etc/plane-webhook"  # where the manifests mount them

# In bytes, unpacked, above the base: 84 MB now; docs/how-to/build-the-image.md says what takes them. Some room for new
# versions; what is more than that is a package that nobody meant to ship.
SIZE = 95_000_000
# What would let somebody build or fetch a program in it.
TOOLS = re.compile(r"(pip|ensurepip|setuptools|hatchling|uv|apt|dpkg|gcc|cc|ld|make|git|curl|wget|perl)[\d.-]*|.*\.whl")
SHELLS = {"sh", "ash", "bash", "dash", "busybox"}


def test_the_package_is_the_wheel_and_nothing_else(root: Path) -> None:
    (site,) = root.glob(SITE)
    there = [path for name in ("certs", "webhook") for path in (site / name).rglob("*") if path.is_file()]
    sources = sorted(path for path in there if "__pycache__" not in path.parts)
    assert [str(path.relative_to(site)) for path in sources] == FILES.splitlines()
    for path in sources:
        assert path.read_bytes() == (ourimage.REPOSITORY / path.relative_to(site)).read_bytes()


def test_what_is_above_the_base_is_one_folder(ours: Path) -> None:
    assert [path.name for path in ours.iterdir()] == ["venv"]


def test_every_module_of_the_package_is_compiled(root: Path) -> None:
    (site,) = root.glob(SITE)
    modules = [site / name for name in FILES.splitlines() if name.endswith(".py")]
    assert [path for path in modules if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))] == []


def test_no_tool_that_builds_or_fetches_and_no_shell(root: Path) -> None:
    names = {path.name: path for path in root.rglob("*")}
    assert "python3" in names
    assert {name: path for name, path in names.items() if TOOLS.fullmatch(name)} == {}
    assert SHELLS & set(names) == set()


def test_nobody_but_root_may_write_to_it(root: Path) -> None:
    writable = [
        path
        for path in root.rglob("*")
        if not path.is_symlink() and (path.stat().st_uid or path.stat().st_mode & 0o022)
    ]
    assert writable == [root / "tmp", root / "var/tmp"]


def test_its_size_above_the_base(ours: Path) -> None:
    files = {path: path.lstat().st_size for path in ours.rglob("*") if not path.is_dir() or path.is_symlink()}
    largest = sorted(files.items(), key=lambda item: -item[1])[:20]
    shown = "\n".join(f"{size:>12,} {path.relative_to(ours)}" for path, size in largest)
    assert sum(files.values()) < SIZE, f"{sum(files.values()):,} bytes, of which\n{shown}"


def test_another_build_has_the_same_digest(built: Layout, tmp_path: Path) -> None:
    assert ourimage.build(tmp_path / "again").digest == built.digest


def test_without_arguments_it_explains_itself(built: Layout) -> None:
    code, out, err = run(built)
    assert (code, err) == (0, "")
    assert out.startswith("usage: plane-webhook")


def test_what_operate_and_doctor_import_is_there(built: Layout) -> None:
    """Much of the kubernetes client is left out of the image."""
    code, _, err = run(built, "operate", "--namespace", "plane-webhook")
    assert code != 0
    assert "Traceback" not in err
    assert "cluster" in err


def test_so_is_what_any_command_imports(built: Layout) -> None:
    """All modules of ours, and what some of them import only when they need it."""
    walk = "import importlib, pkgutil, certs, webhook; "
    walk += "names = [each.name for top in (certs, webhook) "
    walk += "for each in pkgutil.walk_packages(top.__path__, top.__name__ + '.')]; "
    walk += "names += ['websocket', 'kubernetes.stream.ws_client', 'kubernetes.config.kube_config']; "
    walk += "print(len([importlib.import_module(each) for each in names]))"
    code, out, err = run(built, "-I", "-c", walk, program="/venv/bin/python3")
    assert (code, err) == (0, "")
    assert int(out) > 50


@pytest.fixture
def tls(built: Layout, tmp_path: Path) -> Path:
    """A certificate made by the image, as the README does it: in a folder and by the uid of whoever asks for it."""
    folder = tmp_path / "here"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    issue = ["certs", "issue", "--dir", "tls", "--host", "localhost", "--host", "127.0.0.1"]
    code, _, err = run(built, *issue, mounts={"/here": folder}, user="1000:1000", workdir="/here")
    assert code == 0, err
    made = folder / "tls"
    assert made.stat().st_uid == 1000
    for path in (made, *made.iterdir()):  # a Secret's files are the pod's
        os.chown(path, UID, UID)
    return made


def test_it_answers_an_api_server(built: Layout, tls: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    shutil.copy(ourimage.REPOSITORY / "manifests/base/configuration.yaml", configuration)
    serve = ["serve", f"--config={CONFIGURATION}/configuration.yaml", f"--cert-dir={TLS}"]
    serve += ["--host=127.0.0.1", "--port=0", "--metrics-port=0"]
    with Container(built, *serve, mounts={CONFIGURATION: configuration, TLS: tls}) as container:

        def port() -> int | None:
            container.process.check()
            lines = [json.loads(line) for line in container.out.read_text().splitlines() if line.endswith("}")]
            return next((line["port"] for line in lines if line["message"] == "listening"), None)

        number = wait_for(port, 30, "the webhook listens")
        trust = ssl.create_default_context(cafile=tls / "ca.crt")
        connection = HTTPSConnection("127.0.0.1", number, timeout=20, context=trust)
        status, content, _ = post(connection, review())
        connection.close()
        own = container.status()
    assert status == 200
    assert content == json.loads(answer(review(), Settings()).body)  # Python in the image is another than here
    assert content["response"]["patch"]
    assert own["Uid"].split() == own["Gid"].split() == [str(UID)] * 4
    assert own["Groups"] == ""
    assert {own[name] for name in ("CapEff", "CapPrm", "CapAmb")} == {"0" * 16}
    assert own["NoNewPrivs"] == "1"
