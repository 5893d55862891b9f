"""plane-webhook on the node as an operator has it: an image, manifests/chart, `helm install`."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache
from lab import images as planes
from lab.node import images
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.node import Node

REPO = Path(__file__).parents[2]
CHART = REPO / "manifests/chart"
NAMESPACE = "plane-webhook"
REPOSITORY, TAG = "lab/plane-webhook", "0.1.0"
READY = 90.0  # seconds; about 20 alone on two cores: the certificate is made meanwhile


def image() -> images.Image:
    """Return an image like the Dockerfile's, of this machine's Python and this checkout's wheel. No builder runs."""
    interpreter = planes.find_python(planes.PYTHON)  # as Plane's image: its layer is pulled once
    pins = REPO / "requirements/runtime.txt"
    version = f"py{interpreter.version}-{images.stamp(pins)}"
    environment = cache.made(
        cache.folder("node-webhook", version) / "venv",
        lambda part: planes.venv(part, interpreter, "--require-hashes", "-r", pins),
        what="plane-webhook's environment",
        takes="about 20 s",
    )
    sources = [path for room in ("webhook", "certs") for path in images.files(REPO / room)]

    def fill(tree: images.Tree) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _install(Path(folder))
            tree.add(Path(folder, "site/bin/plane-webhook"), "venv/bin/plane-webhook")
            (packages,) = environment.glob("lib/python*/site-packages")
            for each in Path(folder, "site").iterdir():
                if each.name != "bin":
                    tree.add(each, f"venv/{packages.relative_to(environment)}/{each.name}")
            tree.add(environment, "venv")

    layer = images.layer("webhook", f"{version}-{images.stamp(REPO / 'pyproject.toml', *sources)}", fill)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return images.Image(
        [images.python(interpreter), layer], ("/venv/bin/plane-webhook",), ("--help",), env, user="65532:65532"
    )


@contextmanager
def installed(node: Node, *values: str) -> Iterator[None]:
    """Install it as README says, and uninstall it when the block ends: `operate` makes the certificate."""
    node.registry.add(f"{REPOSITORY}:{TAG}", image())
    node.helm(
        *("install", "plane-webhook", CHART, "--namespace", NAMESPACE, "--create-namespace"),
        *("--set", f"image.repository={REPOSITORY},image.tag={TAG}", *values),
    )
    for deployment in ("plane-webhook-operate", "plane-webhook"):
        node.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{deployment}", f"--timeout={READY:g}s")
    bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}"
    asked = ("get", "mutatingwebhookconfiguration", "plane-webhook", "-o", bundle)
    wait_for(lambda: node.kubectl(*asked), READY, "operate fills in the registration")
    yield
    node.helm("uninstall", "plane-webhook", "--namespace", NAMESPACE)
    node.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _install(folder: Path) -> None:
    """Make the wheel of this checkout and unpack it: site/ is for site-packages, bin/ has the command."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    planes.run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPO)
    (wheel,) = folder.glob("*.whl")
    planes.run(*pip, "install", "--no-deps", "--target", folder / "site", wheel)
    script = folder / "site/bin/plane-webhook"
    script.write_text(re.sub(r"^#!.*", "#!/venv/bin/python", script.read_text()))
