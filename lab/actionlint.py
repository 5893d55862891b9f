"""actionlint, built from Go modules: it reads a workflow as GitHub would, and has shellcheck read its commands.

`python -m lab.actionlint --lock` pins the version below in modules/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lab.cache import LabError
from lab.controlplane.programs import Module, build, pin
from lab.packages import ensure_packages

_PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"
MODULE = Module(
    "actionlint", "github.com/rhysd/actionlint", "1.7.12", (_PACKAGE,), locked=Path(__file__).parent / "modules"
)


def program() -> Path:
    """Return it, built if need be. LabError says what is missing for that."""
    ensure_packages("shellcheck")
    return build("actionlint", _PACKAGE, MODULE, takes="about 10 seconds")


if __name__ == "__main__":
    try:
        if "--lock" in sys.argv:
            pin(MODULE)
        else:
            print(program())
    except LabError as error:
        sys.exit(str(error))
