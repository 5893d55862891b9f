"""Which room may import which: the contracts of pyproject.toml, and that each of them can be broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LINT = str(Path(sysconfig.get_path("scripts"), "lint-imports"))


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-cache"],
        cwd=directory,
        env={"PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_contracts_are_kept() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert "7 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("webhook/settings.py", "from webhook.admission import review", "The arrows between the rooms"),
        ("webhook/admission/target.py", "import webhook.manifest", "The arrows between the rooms"),
        ("webhook/server/limits.py", "import webhook.preview", "The arrows between the rooms"),
        ("webhook/new.py", "", "The arrows between the rooms"),
        ("certs/checking.py", "from webhook import settings", "certs knows nothing"),
        ("webhook/admission/reasons.py", "import time", "admission decides from values"),
        ("webhook/cluster/registration.py", "import fastapi", "Only server knows"),
        ("webhook/server/app.py", "import kubernetes", "Only cluster may know"),
        ("lab/load.py", "from tests import conftest", "lab and bench need no test"),
        ("bench/spool.py", "import tests.conftest", "lab and bench need no test"),
        ("webhook/cluster/certificates.py", "import kubernetes", "In cluster one module has the kubernetes client"),
    ],
)
def test_each_contract_can_be_broken(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in ("webhook", "certs", "lab", "bench"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [each for each in done.stdout.splitlines() if each.endswith(" BROKEN")]
    assert len(broken) == 1 or "Could not find" in done.stdout
    assert contract in done.stdout


def loaded_by(code: str) -> set[str]:
    program = f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import webhook.admission",
            {"fastapi", "uvicorn", "starlette", "kubernetes", "jsonpatch", "cryptography", "asyncio"},
        ),
        ("import webhook.cli", {"fastapi", "uvicorn", "kubernetes", "jsonpatch", "cryptography"}),
        ("import webhook.server", {"kubernetes", "jsonpatch"}),
        ("import certs", {"webhook", "yaml", "pydantic", "fastapi"}),
    ],
)
def test_what_is_loaded_in_fact(code: str, absent: set[str]) -> None:
    assert not loaded_by(code) & absent
