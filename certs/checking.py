"""Would a TLS client accept this certificate with this key? Judged as Go's crypto/tls judges it, offline.

Reads bytes and returns a value or a sentence; never touches a file and never looks at the clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID


class CertificateError(Exception):
    """A sentence for a person: which file is wrong, how, and what would put it right."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a client meets: the names that it may call, and from when to when it may."""

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def problem(self, now: datetime) -> str | None:
        """Why a client would turn it down at this time, or None."""
        return _validity_problem("the certificate in tls.crt", self.not_before, self.not_after, now)


def check(certificate: bytes, key: bytes, authorities: bytes | None, *, now: datetime) -> Leaf:
    """Return the leaf of tls.crt, or raise CertificateError with what a client would have against it.

    `certificate`: PEM, the leaf first, intermediates behind it. `key`: PEM, unencrypted. `authorities`: PEM,
    the certificates that clients trust; None or nothing leaves out the question who signed the leaf. `now` has a
    time zone.
    """
    try:
        return _checked(certificate, key, authorities, now)
    except CertificateError:
        raise
    except Exception as error:  # extensions are parsed when they are asked for; cryptography raises many kinds
        raise CertificateError(f"tls.crt or ca.crt holds a certificate that can't be read: {error}") from error


def _checked(certificate: bytes, key: bytes, authorities: bytes | None, now: datetime) -> Leaf:
    leaf, *intermediates = _certificates(certificate, "tls.crt")
    described = _describe(leaf)
    if _public_bytes_of_key(key) != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise CertificateError(
            "tls.key does not belong to the certificate in tls.crt: they come from two different issues; put a pair "
            "there that was issued together"
        )
    if problem := described.problem(now):
        raise CertificateError(problem)
    if authorities and authorities.strip():
        _check_chain(leaf, intermediates, _certificates(authorities, "ca.crt"), now)
    return described


def _certificates(pem: bytes, file: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception as error:
        raise CertificateError(f"{file} holds no PEM certificate that can be read: {error}") from error


def _public_bytes_of_key(pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CertificateError("tls.key is encrypted: nobody is there to type its password; decrypt it") from error
    except Exception as error:
        raise CertificateError("tls.key holds no PEM private key that can be read") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _describe(leaf: x509.Certificate) -> Leaf:
    """Refuse what Go refuses in any leaf: no subjectAltName (it reads no CN), or usages without serverAuth."""
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise CertificateError(
            "the certificate in tls.crt has no subjectAltName and clients read nothing else: issue one with the "
            "DNS names that clients call"
        ) from None
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages):
        raise CertificateError(
            "the certificate in tls.crt is not meant for servers: its extendedKeyUsage lacks serverAuth"
        )
    dns = alternatives.get_values_for_type(x509.DNSName)
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return Leaf((*dns, *map(str, addresses)), leaf.not_valid_before_utc, leaf.not_valid_after_utc)


def _check_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    if not _reaches(leaf, intermediates, anchors):
        raise CertificateError(
            "the certificate in tls.crt is not signed by any certificate in ca.crt: put the one of the authority "
            "that signed it into ca.crt, and intermediates into tls.crt behind the leaf"
        )
    if not _reaches(leaf, _valid(intermediates, now), _valid(anchors, now)):
        problems = (
            _validity_problem(
                f"the authority {authority.subject.rfc4514_string()!r}",
                authority.not_valid_before_utc,
                authority.not_valid_after_utc,
                now,
            )
            for authority in (*intermediates, *anchors)
        )
        raise CertificateError("; ".join(filter(None, problems)))


def _reaches(
    certificate: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> bool:
    """Is there a chain of signatures to an anchor? Each step uses up an intermediate, so it ends."""
    if certificate in anchors or any(_signed_by(certificate, anchor) for anchor in anchors):
        return True
    return any(
        _signed_by(certificate, issuer)
        and _reaches(issuer, [other for other in intermediates if other != issuer], anchors)
        for issuer in intermediates
    )


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):  # other issuer's name, unknown kind of key, other key
        return False
    return True


def _valid(certificates: Iterable[x509.Certificate], now: datetime) -> list[x509.Certificate]:
    return [one for one in certificates if one.not_valid_before_utc <= now <= one.not_valid_after_utc]


def _validity_problem(what: str, not_before: datetime, not_after: datetime, now: datetime) -> str | None:
    if now > not_after:
        return f"{what} expired on {not_after:%Y-%m-%d %H:%M} UTC, {_span(now - not_after)} ago: issue a new one"
    if now < not_before:
        return (
            f"{what} is not valid before {not_before:%Y-%m-%d %H:%M} UTC, in {_span(not_before - now)}: "
            "wait, or look whether the clocks agree"
        )
    return None


def _span(delta: timedelta) -> str:
    if delta.days:
        return f"{delta.days} day{'s' * (delta.days > 1)}"
    return f"{delta.seconds // 3600} h {delta.seconds % 3600 // 60} min"
