"""plane-webhook: a mutating admission webhook that makes Plane's pods publish every background task."""

from importlib.metadata import version

__version__ = version("plane-webhook")
