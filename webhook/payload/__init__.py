"""The files that run inside Plane's container, as texts. They run on busybox, dash and bash and on Python 3.8 and newer."""

from importlib.resources import files


def _text(name: str) -> str:
    # Without the last newline: the guard compares with what $(...) gives, which drops it.
    return files(__name__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


GUARD = _text("guard.sh")
OVERLAY = _text("plane_webhook_settings.py")
SHIM = _text("shim.sh")
PROOF = _text("proof.py")
