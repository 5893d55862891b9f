"""Issue a certificate authority and one leaf, as the three files of a `kubernetes.io/tls` Secret.

For development and for people without cert-manager. The authority's private key is never written anywhere: it
signs one leaf and is forgotten, so nobody can ever mint a second certificate that clients of the first would
believe. The price is a new authority at each issue; that is why ca.crt keeps the one before as well: hand the new
ca.crt to the clients first, the new pair to the server afterwards, and no call fails in between.
"""

import os
import re
import tempfile
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.checking import CertificateError

# A day is the least that makes sense. Beyond 825 days some TLS clients turn a leaf down, whoever signed it.
DAYS = range(1, 825 + 1)

# Clients whose clock is a little behind must be able to use a certificate at once.
BACKDATED = timedelta(minutes=5)

# The longest commonName (RFC 5280, ub-common-name). A longer host is still a subjectAltName, which is what counts.
LONGEST_COMMON_NAME = 64

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LONGEST_DNS_NAME = 253


def issue(directory: Path, hosts: list[str], *, days: int, force: bool, now: datetime) -> bool:
    """Write ca.crt and tls.crt (mode 0644) and tls.key (0600) into the directory, all of them or none.

    Returns whether ca.crt keeps the authority of before, too.

    `hosts`, `days`, `now` and errors: see `generate`. Files that exist are replaced only with `force`.
    """
    files = generate(hosts, days=days, now=now)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        existing = [name for name in ("ca.crt", "tls.crt", "tls.key") if (directory / name).exists()]
        if existing and not force:
            raise CertificateError(
                f"{directory} already holds {', '.join(existing)}: choose another directory, or replace them "
                "with --force"
            )
        previous = _previous_authority(directory, now)
        files["ca.crt"] += previous
        _write(directory, files)
    except OSError as error:
        raise CertificateError(
            f"{error.filename2 or directory} can't be written ({error.strerror}): choose a directory that has room and "
            "that you may write to"
        ) from error
    return bool(previous)


def _alternatives(hosts: list[str]) -> list[x509.GeneralName]:
    if not hosts:
        raise CertificateError("no host to issue for: name at least one, for example webhook.example.svc or 127.0.0.1")
    return [_general_name(host) for host in dict.fromkeys(host.strip().lower().removesuffix(".") for host in hosts)]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        labels = host.removeprefix("*.").split(".")
    if len(host) > _LONGEST_DNS_NAME or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise CertificateError(
            f"{host!r} is neither a DNS name nor an IP address: leave out scheme, port and path, and write names "
            "beyond ASCII in their xn-- form"
        )
    return x509.DNSName(host)


def _previous_authority(directory: Path, now: datetime) -> bytes:
    """Read, as PEM, the authority of the pair that is about to be replaced, if clients could still trust it."""
    try:
        newest = x509.load_pem_x509_certificates((directory / "ca.crt").read_bytes())[0]
    except (FileNotFoundError, ValueError):  # nothing there, or nothing that anyone could have trusted
        return b""
    except OSError as error:
        raise CertificateError(
            f"{error.filename} can't be read ({error.strerror}), and clients may trust the authority in it: make it "
            "readable, or move it away"
        ) from error
    return newest.public_bytes(Encoding.PEM) if newest.not_valid_after_utc > now else b""


def generate(hosts: list[str], *, days: int, now: datetime) -> dict[str, bytes]:
    """Make an authority and a leaf for these hosts: the PEM content of ca.crt, tls.crt and tls.key by file name.

    `hosts`: DNS names (a leading `*.` is allowed) and IP addresses; all become subjectAltNames. `days`: 1 to 825,
    for both. `now` has a time zone. Raises CertificateError with what is wrong and what would do.
    """
    alternatives = _alternatives(hosts)
    if days not in DAYS:
        raise CertificateError(f"{days} days can't be issued: give {DAYS[0]} to {DAYS[-1]}")
    ca_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    serial = x509.random_serial_number()
    # Two authorities may stand side by side in ca.crt: by their names clients pick the right one.
    ca_name = _name(f"issued {now:%Y-%m-%d}, {serial:x}"[:LONGEST_COMMON_NAME])
    ca_identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    begin, end = now - BACKDATED, now + timedelta(days=days)
    ca = (
        x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), serial, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(ca_identifier, critical=False)
        .sign(ca_key, SHA256())
    )
    host = str(alternatives[0].value)
    leaf_name = _name(host) if len(host) <= LONGEST_COMMON_NAME else x509.Name([])
    leaf = (
        x509.CertificateBuilder(ca_name, leaf_name, leaf_key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # RFC 5280, 4.2.1.6: critical where there is no subject to read instead.
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=not leaf_name.rdns)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identifier), critical=False)
        .sign(ca_key, SHA256())
    )
    return {
        "tls.key": leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "tls.crt": leaf.public_bytes(Encoding.PEM),
        "ca.crt": ca.public_bytes(Encoding.PEM),
    }


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(directory: Path, files: dict[str, bytes]) -> None:
    """Do first all that can fail for want of room or rights; the renames behind it take microseconds.

    A server that reads between two of them finds a pair that doesn't match, and has to look again anyway.
    """
    written: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            descriptor, path = tempfile.mkstemp(dir=directory, prefix=f".{name}.")  # mode 0600 from the start
            written[Path(path)] = directory / name
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if name != "tls.key":
                    os.fchmod(descriptor, 0o644)
        for temporary, final in written.items():
            temporary.replace(final)
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
