"""Whether a text that is part of no pod speaks of Plane: by an image, a program or a chart of it.

The text may be a manifest, values of a chart, a patch or a script: quotes, commas and brackets may stand around a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from webhook.admission.target import ENTRYPOINT_MARK

_START, _END = r"(?<![\w.-])", r"(?![\w/-]|\.\w)"
_PROGRAM = (
    _START + rf"(?:{ENTRYPOINT_MARK}[\w-]+\.sh{_END}|celery\W+(?:-A|--app)\W+plane(?![\w-])|plane\.[aw]sgi(?![\w-]))"
)
_CHART = re.compile(_START + r"(?:plane-enterprise|plane-ce|helm\.plane\.so)(?:-[0-9]|(?![\w-]))")


def of_plane(images: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells a text that names a program of Plane's, or one of `images` from whatever registry."""
    named = [_before(image) + re.escape(image) + _END for image in images]
    pattern = re.compile("|".join([_PROGRAM, *named]))
    return lambda text: bool(pattern.search(text))


def of_its_chart(text: str) -> bool:
    """Whether a text names one of Plane's charts, or where they come from."""
    return bool(_CHART.search(text))


def _before(image: str) -> str:
    # A name of one part may be any word: it counts behind a registry, where an image has to stand, and as a whole text.
    return _START if "/" in image else r"(?:/|\bimage\W{1,4}|\A(?=\S*\Z))"
