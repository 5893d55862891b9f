"""The wheel holds the two packages and nothing else, and what it holds works without the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
FILES = """\
certs/__init__.py
certs/bundle.py
certs/checking.py
certs/issuing.py
webhook/__init__.py
webhook/admission/__init__.py
webhook/admission/command.py
webhook/admission/facts.py
webhook/admission/guard.py
webhook/admission/injection.py
webhook/admission/reasons.py
webhook/admission/review.py
webhook/admission/target.py
webhook/cli.py
webhook/cluster/__init__.py
webhook/cluster/api.py
webhook/cluster/census.py
webhook/cluster/certificates.py
webhook/cluster/doctor/__init__.py
webhook/cluster/doctor/creation.py
webhook/cluster/doctor/finding.py
webhook/cluster/doctor/installation.py
webhook/cluster/doctor/pods.py
webhook/cluster/doctor/proof.py
webhook/cluster/doctor/refused.py
webhook/cluster/endpoints.py
webhook/cluster/evictions.py
webhook/cluster/exporter.py
webhook/cluster/healing.py
webhook/cluster/installed.py
webhook/cluster/lease.py
webhook/cluster/logs.py
webhook/cluster/operate.py
webhook/cluster/pods.py
webhook/cluster/registration.py
webhook/cluster/report.py
webhook/listening.py
webhook/log.py
webhook/manifest.py
webhook/payload/__init__.py
webhook/payload/guard.sh
webhook/payload/lib/plane_webhook/__init__.py
webhook/payload/lib/plane_webhook/asked.py
webhook/payload/lib/plane_webhook/connector.py
webhook/payload/lib/plane_webhook/console.py
webhook/payload/lib/plane_webhook/delivery.py
webhook/payload/lib/plane_webhook/link.py
webhook/payload/lib/plane_webhook/message.py
webhook/payload/lib/plane_webhook/notes.py
webhook/payload/lib/plane_webhook/patches.py
webhook/payload/lib/plane_webhook/publisher.py
webhook/payload/lib/plane_webhook/spool.py
webhook/payload/lib/plane_webhook/state.py
webhook/payload/lib/plane_webhook_settings.py
webhook/payload/proof.py
webhook/payload/shim.sh
webhook/payload/spool.sh
webhook/preview/__init__.py
webhook/preview/brought.py
webhook/preview/mentions.py
webhook/preview/shown.py
webhook/preview/templates.py
webhook/server/__init__.py
webhook/server/app.py
webhook/server/certificate.py
webhook/server/exchange.py
webhook/server/lifecycle.py
webhook/server/limits.py
webhook/server/metrics.py
webhook/server/mutate.py
webhook/server/protocol.py
webhook/server/refusal.py
webhook/settings.py
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", folder, REPOSITORY],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_exact_set_of_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = {name.partition(".dist-info/")[2] for name in names if ".dist-info/" in name}
    assert sorted(name for name in names if ".dist-info/" not in name) == FILES.splitlines()
    assert info == DIST_INFO


def test_what_is_in_the_wheel_injects_by_itself(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import certs, webhook, webhook.cli\n"
        "assert webhook.__file__.startswith(sys.path[0]) and certs.__file__.startswith(sys.path[0])\n"
        "sys.exit(webhook.cli.main(['preview', '-']))"
    )
    manifest = "kind: Pod\nspec: {containers: [{name: api, command: [./bin/docker-entrypoint-api.sh]}]}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        input=manifest,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Pod ?: injected" in done.stdout
