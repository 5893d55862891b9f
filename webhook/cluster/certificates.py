"""What to do next about the webhook's certificate: a value out of what is in the cluster and the time passed in.

Pure: it reads nothing, writes nothing and never looks at the clock. Each pass looks anew and does at most one thing,
so a crash between any two of them is followed by a pass that goes on from what it finds.

The rules that keep every call possible at every moment:

- Each pair has an authority of its own, whose key signs one leaf and is forgotten: no key of an authority is in the
  cluster, and renewing is always the same as changing the authority.
- A pair goes into the Secret only after its authority has been in the caBundle for a while (every API server knows it).
- An authority leaves the caBundle only after every endpoint has served the Secret's leaf for a while (every kubelet has
  brought it to its pods), and no other pair is on its way.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import certs

FILES = ("tls.crt", "tls.key", "ca.crt")
DAYS = 90
# Of its life: what is left, a month, is for whoever has to see that something keeps it from being renewed.
RENEW_AT = 2 / 3
# Whoever renews a certificate does so a month before its end at the latest: a day later something keeps it from that.
SOON = timedelta(days=29)
# API servers take up a changed registration within a second of its being stored.
SETTLE = timedelta(seconds=10)
# Kubelets bring a changed Secret to its pods within a minute or two, and the server looks at it each few seconds.
QUIET = timedelta(minutes=5)

Files = Mapping[str, bytes]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a pass has found, read in this order: Secret, caBundle, endpoints."""

    files: Files | None  # of the Secret; None if there is none
    bundle: bytes | None  # the caBundle as PEM; None if there is no registration
    served: Sequence[bytes | None]  # of each endpoint the leaf as DER; None where nobody answered
    pending: Files | None  # a pair that was made and is not in the Secret yet
    bundle_age: timedelta  # for how long the caBundle has been seen as it is
    quiet: timedelta  # for how long Secret and endpoints have been seen as they are


@dataclass(frozen=True, slots=True)
class Issue:
    """Make a pair, and keep it in memory as pending."""

    why: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Set the caBundle to these PEM certificates."""

    bundle: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Store:
    """Put these files into the Secret, and forget what was pending."""

    files: Files
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now; `why` is empty where nothing is on its way."""

    why: str


Action = Issue | Trust | Store | Wait


def plan(seen: Observed, *, host: str, now: datetime) -> Action:
    """What to do next so that the webhook at `host` is trusted now and for the next weeks."""
    if seen.bundle is None:
        return Wait("the MutatingWebhookConfiguration plane-webhook is missing: apply the manifests again")
    problem = amiss(seen.files, host=host, now=now)
    due = problem or _due(seen.files, now)
    if due is None:
        pending = None  # somebody else has renewed it
    elif seen.pending is None or amiss(seen.pending, host=host, now=now) or _due(seen.pending, now):
        return Issue(due)
    else:
        pending = seen.pending
    wanted = _wanted(seen, None if problem else seen.files, pending, now)
    if wanted is not None:
        return wanted
    if pending is None:
        return Wait("")
    if seen.served and seen.bundle_age < SETTLE:  # where nobody serves yet, as at first, no call can fail
        return Wait("every API server is to know the new authority first")
    return Store(pending, due or "")


def _wanted(seen: Observed, good: Files | None, pending: Files | None, now: datetime) -> Trust | None:
    """How the caBundle has to change first, if it has to."""
    current = _authorities(seen.bundle or b"")
    needed = [*_signer(good), *_signer(pending)]
    missing = [each for each in needed if each not in current]
    if missing:
        return Trust(_pem([*needed, *_valid(current, needed, now)]), "an authority is not trusted yet")
    if good is None or pending is not None:
        return None  # whom the endpoints believe in is not known, or is about to change
    leaf = _der(good["tls.crt"])
    if current == needed and _pem(current) == seen.bundle:
        return None
    if all(each == leaf for each in seen.served) and seen.quiet >= QUIET:
        return Trust(_pem(needed), "every endpoint serves the new certificate")
    return None


def amiss(files: Files | None, *, host: str, now: datetime) -> str | None:
    """What is wrong with a Secret's files, as a sentence; None where clients that call `host` would accept them."""
    if files is None:
        return "the Secret is missing"
    missing = [name for name in FILES if not files.get(name, b"").strip()]
    if missing:
        return f"the Secret has no {' and no '.join(missing)}"
    try:
        leaf = certs.check(files["tls.crt"], files["tls.key"], files["ca.crt"], now=now)
    except certs.CertificateError as error:
        return str(error)
    if host not in leaf.names:
        return f"the certificate in tls.crt is for {', '.join(leaf.names)} and not for {host}"
    return None


def _due(files: Files | None, now: datetime) -> str | None:
    """Why a pair that would do has to be replaced now, or None."""
    leaf = x509.load_pem_x509_certificate((files or {})["tls.crt"])
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if now < leaf.not_valid_before_utc + life * RENEW_AT:
        return None
    return f"two thirds of the certificate's life are over; it ends on {leaf.not_valid_after_utc:%Y-%m-%d}"


def _signer(files: Files | None) -> list[x509.Certificate]:
    """The certificates that a Secret's ca.crt has, which clients of its leaf need."""
    return _authorities(files["ca.crt"]) if files else []


def _authorities(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a bundle, each once, without those that can't be read: API servers trust the rest too."""
    found: dict[x509.Certificate, None] = {}
    for each in _PEM.findall(pem):
        with contextlib.suppress(Exception):  # cryptography raises many kinds
            found[x509.load_pem_x509_certificate(each)] = None
    return list(found)


def _valid(
    current: Sequence[x509.Certificate], needed: Sequence[x509.Certificate], now: datetime
) -> list[x509.Certificate]:
    return [each for each in current if each not in needed and now <= each.not_valid_after_utc]


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
