"""`/plane-webhook/proof` in Plane's containers: run, and believed no more than a stranger.

What it prints comes out of a container that others may write to: it is bounded, read as data, and made harmless.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from webhook.cluster.api import Api, ApiError, Ended
from webhook.cluster.doctor.finding import harmless

# It prints some 3 kB; it gives its own second process two minutes.
_BYTES = 64 * 1024
_SECONDS = 150.0
_CHECKS = 200
_SAID = 3  # checks that a finding names


class _Check(msgspec.Struct):
    what: str
    agrees: bool
    asked: Any = None
    found: Any = None


class _Proof(msgspec.Struct):
    in_effect: bool
    checks: Annotated[list[_Check], msgspec.Meta(max_length=_CHECKS)] = []
    error: str = ""


def run(api: Api, namespace: str, pod: str, container: str) -> str:
    """What is not in effect in a container, as a sentence; empty where all is. Raises ApiError where we may not ask."""
    try:
        ended = api.execute(namespace, pod, container, ["/plane-webhook/proof"], limit=_BYTES, seconds=_SECONDS)
    except ApiError as error:
        if error.status in (0, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise
        return f"proof can't be run: {harmless(str(error))}"
    return amiss(ended)


def amiss(ended: Ended) -> str:
    """What `proof` says is not in effect, or what is wrong with what it says."""
    if ended.cut:
        return f"proof printed more than {_BYTES} bytes, or did not end within {_SECONDS:.0f} seconds"
    try:
        proof = msgspec.json.decode(ended.output, type=_Proof)
    except (msgspec.MsgspecError, RecursionError):
        said = harmless((ended.output or ended.failure).decode(errors="replace"))
        return f"proof said nothing that can be read: {said or 'nothing at all'}"
    differing = [
        f"{harmless(each.what, 80)}: asked {_value(each.asked)}, found {_value(each.found)}"
        for each in proof.checks
        if not each.agrees
    ]
    if proof.error:
        differing.insert(0, harmless(proof.error))
    if differing:
        more = f" and {len(differing) - _SAID} more" if len(differing) > _SAID else ""
        return "; ".join(differing[:_SAID]) + more
    return "" if proof.in_effect and ended.code == 0 else "proof says that it is not in effect, and not why"


def _value(value: Any) -> str:
    return harmless(msgspec.json.encode(value).decode(), 80)
