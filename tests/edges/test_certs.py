"""What `certs` issues is what strict clients accept, and what it turns down is what they would turn down."""

import base64
import contextlib
import os
import re
import resource
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

import certs
from webhook.cli import main

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
FILES = ("ca.crt", "tls.crt", "tls.key")


def read(directory: Path) -> tuple[bytes, bytes, bytes]:
    return tuple((directory / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt"))  # type: ignore[return-value]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def handshake(directory: Path, name: str, trust: bytes | None = None) -> None:
    """A strict client calls a server with these files by this name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    client = ssl.create_default_context(cadata=(trust or (directory / "ca.crt").read_bytes()).decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(ssl.SSLError):
            server.wrap_socket(theirs, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join(10)


def test_a_strict_client_accepts_each_name_that_was_asked_for_and_no_other(tmp_path: Path) -> None:
    long = ".".join(["a" * 60] * 4)
    hosts = [long, "webhook.plane-system.svc", "LOCALHOST", "127.0.0.1", "::1", "*.example.com", "localhost"]
    certs.issue(tmp_path, hosts, days=1, force=False, now=datetime.now(UTC))
    for name in (long, "webhook.plane-system.svc", "localhost", "127.0.0.1", "::1", "any.example.com"):
        handshake(tmp_path, name)
    for name in ("example.com", "webhook.plane-system.svc.cluster.local", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(tmp_path, name)


def test_the_leaf_has_what_rfc_5280_asks_for(tmp_path: Path) -> None:
    certs.issue(tmp_path, ["a.example"], days=30, force=False, now=NOW)
    leaf = x509.load_pem_x509_certificate((tmp_path / "tls.crt").read_bytes())
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (
        NOW - timedelta(minutes=5),
        NOW + timedelta(days=30),
    )
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert leaf.serial_number != ca.serial_number


def test_only_the_owner_may_read_the_key_whatever_the_umask(tmp_path: Path) -> None:
    for mask in (0o000, 0o077):
        before = os.umask(mask)
        try:
            certs.issue(tmp_path / str(mask), ["a.example"], days=1, force=False, now=NOW)
        finally:
            os.umask(before)
        modes = {name: stat.S_IMODE((tmp_path / str(mask) / name).stat().st_mode) for name in FILES}
        assert modes == {"tls.key": 0o600, "tls.crt": 0o644, "ca.crt": 0o644}
        assert names(tmp_path / str(mask)) == sorted(FILES), "and there is no authority's key"


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_text("precious")
    with pytest.raises(certs.CertificateError, match=r"already holds tls\.key: choose another .* --force"):
        certs.issue(tmp_path, ["a.example"], days=1, force=False, now=NOW)
    assert names(tmp_path) == ["tls.key"]
    assert (tmp_path / "tls.key").read_text() == "precious"
    certs.issue(tmp_path, ["a.example"], days=1, force=True, now=NOW)
    certs.check(*read(tmp_path), now=NOW)


def test_whether_the_authority_of_before_is_kept_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty ca.crt is what is left where kubectl could not read the Secret that it was to come from."""
    command = ["certs", "issue", "--force", "--dir", str(tmp_path), "--host", "a.example"]
    (tmp_path / "ca.crt").touch()
    assert main(command) == 0
    assert "ca.crt has no authority of before" in capsys.readouterr().err
    assert main(command) == 0
    assert "ca.crt keeps the authority of before" in capsys.readouterr().err


def test_all_files_are_written_or_none(tmp_path: Path) -> None:
    certs.issue(tmp_path, ["a.example"], days=1, force=False, now=NOW)
    before = read(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))  # a key has room, a certificate has not
    try:
        with pytest.raises(certs.CertificateError, match=r"can't be written \(File too large\): choose a directory"):
            certs.issue(tmp_path, ["a.example"], days=1, force=True, now=NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read(tmp_path) == before
    assert names(tmp_path) == sorted(FILES)


def test_an_authority_that_can_not_be_read_is_not_called_unwritable(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").mkdir()
    with pytest.raises(certs.CertificateError, match=r"ca\.crt can't be read \(Is a directory\)"):
        certs.issue(tmp_path, ["a.example"], days=1, force=True, now=NOW)
    assert names(tmp_path) == ["ca.crt"]


def test_a_directory_that_can_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(certs.CertificateError, match=r"file.* can't be written .*: choose a directory"):
        certs.issue(tmp_path / "file" / "tls", ["a.example"], days=1, force=False, now=NOW)


def test_a_renewal_keeps_the_last_authority_in_the_bundle_and_no_more(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    bundles, leaves = [], []
    for days in (10, 10, 10):
        certs.issue(tmp_path, ["localhost"], days=days, force=True, now=now)
        bundles.append((tmp_path / "ca.crt").read_bytes())
        leaves.append((tmp_path / "tls.crt").read_bytes())
    assert [bundle.count(b"BEGIN") for bundle in bundles] == [1, 2, 2]
    handshake(tmp_path, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "localhost", trust=bundles[1])
    certs.issue(tmp_path, ["localhost"], days=10, force=True, now=now + timedelta(days=20))
    assert (tmp_path / "ca.crt").read_bytes().count(b"BEGIN") == 1, "an expired authority is of no use"


def test_a_client_that_learned_the_new_authority_first_accepts_the_old_leaf_too(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    certs.issue(tmp_path / "served", ["localhost"], days=1, force=False, now=now)
    (tmp_path / "kept").mkdir()
    for name in FILES:
        (tmp_path / "kept" / name).write_bytes((tmp_path / "served" / name).read_bytes())
    certs.issue(tmp_path / "kept", ["localhost"], days=1, force=True, now=now)
    new_bundle = (tmp_path / "kept" / "ca.crt").read_bytes()
    handshake(tmp_path / "served", "localhost", trust=new_bundle)
    handshake(tmp_path / "kept", "localhost", trust=new_bundle)


BAD_HOSTS = [
    "https://a",
    "a:8443",
    "a/b",
    "a b",
    "",
    ".",
    "a..b",
    "-a",
    "a-",
    "é.example",
    "1.2.3",
    "256.1.1.1",
    "*",
    "a.*",
]


@pytest.mark.parametrize("host", [*BAD_HOSTS, "a" * 64, ".".join(["a" * 63] * 5)])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(certs.CertificateError, match="neither a DNS name nor an IP address"):
        certs.generate([host], days=1, now=NOW)


def test_hosts_and_days_have_bounds() -> None:
    with pytest.raises(certs.CertificateError, match="name at least one"):
        certs.generate([], days=1, now=NOW)
    for days in (0, -1, 826, 10**9):
        with pytest.raises(certs.CertificateError, match=f"{days} days can't be issued: give 1 to 825"):
            certs.generate(["a.example"], days=days, now=NOW)


PAIR = certs.generate(["a.example", "127.0.0.1"], days=30, now=NOW)
OTHER = certs.generate(["a.example"], days=30, now=NOW)


def test_a_good_pair_is_described() -> None:
    leaf = certs.check(PAIR["tls.crt"], PAIR["tls.key"], PAIR["ca.crt"], now=NOW)
    assert leaf.names == ("a.example", "127.0.0.1")
    assert leaf.not_after == NOW + timedelta(days=30)
    for no_authority in (None, b"", b"\n"):
        assert certs.check(PAIR["tls.crt"], PAIR["tls.key"], no_authority, now=NOW) == leaf
    assert certs.check(PAIR["tls.crt"], PAIR["tls.key"], OTHER["ca.crt"] + PAIR["ca.crt"], now=NOW) == leaf


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"tls.key": OTHER["tls.key"]}, "tls.key does not belong to the certificate in tls.crt"),
        ({"tls.crt": OTHER["tls.crt"]}, "tls.key does not belong to the certificate in tls.crt"),
        ({"ca.crt": OTHER["ca.crt"]}, "not signed by any certificate in ca.crt"),
        ({"tls.crt": b""}, "tls.crt holds no PEM certificate"),
        ({"tls.crt": PAIR["tls.key"]}, "tls.crt holds no PEM certificate"),
        ({"tls.key": PAIR["tls.crt"]}, "tls.key holds no PEM private key"),
        ({"tls.key": b""}, "tls.key holds no PEM private key"),
        ({"ca.crt": b"nonsense"}, "ca.crt holds no PEM certificate"),
    ],
)
def test_a_bad_file_is_named(files: dict[str, bytes], complaint: str) -> None:
    given = PAIR | files
    with pytest.raises(certs.CertificateError, match=complaint):
        certs.check(given["tls.crt"], given["tls.key"], given["ca.crt"], now=NOW)


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        (NOW + timedelta(days=30, seconds=1), "expired on 2026-06-03 03:02 UTC, 0 h 0 min ago: issue a new one"),
        (NOW + timedelta(days=31, hours=2), "expired on 2026-06-03 03:02 UTC, 1 day ago"),
        (NOW + timedelta(days=33), "expired on 2026-06-03 03:02 UTC, 3 days ago"),
        (NOW - timedelta(hours=2), "not valid before 2026-05-04 02:57 UTC, in 1 h 55 min"),
    ],
)
def test_validity_is_judged_at_the_time_that_is_passed_in(when: datetime, complaint: str) -> None:
    with pytest.raises(certs.CertificateError, match=re.escape(complaint)):
        certs.check(PAIR["tls.crt"], PAIR["tls.key"], PAIR["ca.crt"], now=when)
    leaf = certs.check(PAIR["tls.crt"], PAIR["tls.key"], None, now=NOW)
    assert complaint in (leaf.problem(when) or "")
    assert leaf.problem(NOW) is None


def test_an_encrypted_key_is_no_use() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(certs.CertificateError, match=r"tls\.key is encrypted"):
        certs.check(PAIR["tls.crt"], encrypted, None, now=NOW)


NAMES = x509.SubjectAlternativeName([x509.DNSName("a.example")])


def made(*extensions: x509.ExtensionType, by: bytes | None = None, days: int = 1) -> tuple[bytes, bytes]:
    """A certificate with these extensions only, signed with the key `by` or with its own, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_pem_private_key(by, None) if by else key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=days))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_what_go_turns_down_is_turned_down() -> None:
    with pytest.raises(certs.CertificateError, match="no subjectAltName"):
        certs.check(*made(), None, now=NOW)
    with pytest.raises(certs.CertificateError, match="lacks serverAuth"):
        certs.check(*made(NAMES, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])), None, now=NOW)
    for usages in ([], [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])]):
        certificate, key = made(NAMES, *usages)
        assert certs.check(certificate, key, None, now=NOW).names == ("a.example",)
        assert certs.check(certificate, key, certificate, now=NOW)  # trusted by itself


def test_intermediates_stand_behind_the_leaf() -> None:
    now = datetime.now(UTC)
    root = trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("a.example", key_type=trustme.KeyType.RSA)
    chain, key = b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    assert certs.check(chain, key, root.cert_pem.bytes(), now=now).names == ("a.example",)
    assert certs.check(chain, key, middle.cert_pem.bytes(), now=now)
    with pytest.raises(certs.CertificateError, match=r"intermediates into tls\.crt behind the leaf"):
        certs.check(leaf.cert_chain_pems[0].bytes(), key, root.cert_pem.bytes(), now=now)


def test_an_authority_that_expires_before_its_leaf_is_named() -> None:
    authority, authority_key = made(days=1)
    leaf, key = made(NAMES, by=authority_key, days=10)
    assert certs.check(leaf, key, authority, now=NOW)
    complaint = re.escape("the authority 'CN=a.example' expired on 2026-05-05 03:02 UTC, 2 days ago")
    with pytest.raises(certs.CertificateError, match=complaint):
        certs.check(leaf, key, authority, now=NOW + timedelta(days=3))


@settings(deadline=None)  # a loaded machine takes its time
@given(st.sampled_from(FILES), st.data())
def test_damaged_files_are_a_sentence_and_never_a_crash(name: str, data: st.DataObject) -> None:
    def damaged(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 5))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed[: data.draw(st.integers(len(changed) // 2, len(changed)))])

    if data.draw(st.booleans(), label="inside the armour"):
        first, *middle, last, end = PAIR[name].split(b"\n")
        middle = [base64.b64encode(damaged(base64.b64decode(b"".join(middle))))]
        content = b"\n".join([first, *middle, last, end])
    else:
        content = damaged(PAIR[name])
    files = PAIR | {name: content}
    with contextlib.suppress(certs.CertificateError):
        certs.check(files["tls.crt"], files["tls.key"], files["ca.crt"], now=NOW)
