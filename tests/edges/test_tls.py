"""Clients meet the certificate in the directory: the newest good one, and no call is lost on the way."""

import os
import shutil
import socket
import ssl
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

import certs
from lab.process import wait_for
from tests.edges.webhook import ApiServer, Webhook, issue, post, review

QUICK = {"poll_seconds": 0.1}


def serial_met(webhook: Webhook) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", webhook.port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_in(directory: Path) -> int:
    return x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes()).serial_number


def mount(generation: Path, directory: Path) -> None:
    """Put a generation of a Secret into place as a kubelet does: one rename of one symlink moves all files."""
    directory.mkdir(exist_ok=True)
    old = os.path.realpath(directory / "..data")
    kept = directory / f"..{generation.name}"
    shutil.copytree(generation, kept)
    (directory / "..data_tmp").symlink_to(kept.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    if Path(old) != directory / "..data":
        shutil.rmtree(old)


def test_tls_1_3_is_preferred_and_1_2_is_the_floor(webhook: Webhook) -> None:
    def version(least: ssl.TLSVersion, most: ssl.TLSVersion) -> str | None:
        trust = webhook.trust()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            trust.minimum_version, trust.maximum_version = least, most
        trust.set_ciphers("DEFAULT:@SECLEVEL=0")  # the client would do anything
        with socket.create_connection(("127.0.0.1", webhook.port), timeout=10) as plain:
            return trust.wrap_socket(plain, server_hostname="127.0.0.1").version()

    assert version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("first", ["AES128", "AES256"])
def test_the_client_chooses_the_cipher(webhook: Webhook, first: str) -> None:
    trust = webhook.trust()
    trust.maximum_version = ssl.TLSVersion.TLSv1_2  # Python can't order those of 1.3; OpenSSL treats both alike
    trust.set_ciphers(f"ECDHE+{first}:ECDHE+AESGCM")
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=10) as plain:
        chosen = trust.wrap_socket(plain, server_hostname="127.0.0.1").cipher()
    assert chosen
    assert first in chosen[0]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "unknown.example", None])
def test_the_certificate_comes_whatever_name_the_client_asks_for(webhook: Webhook, name: str | None) -> None:
    trust = webhook.trust()
    trust.check_hostname = False
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=10) as plain:
        assert trust.wrap_socket(plain, server_hostname=name).getpeercert()


@pytest.mark.parametrize("kind", ["mounted Secret", "plain files"])
def test_a_new_certificate_is_taken_under_load_without_a_lost_call(tmp_path: Path, log: Path, kind: str) -> None:
    def renew(generation: int) -> None:
        if kind == "mounted Secret":
            source = tmp_path / str(generation)
            if generation:
                shutil.copytree(tmp_path / str(generation - 1), source)
            mount(issue(source, force=True), directory)
        else:
            issue(directory, force=True)

    directory = tmp_path / "tls"
    renew(0)
    with Webhook(directory, log, **QUICK) as webhook:
        kept = webhook.connect()
        assert post(kept, review())[0] == 200
        with ApiServer(webhook) as one, ApiServer(webhook) as other:
            for generation in range(1, 5):
                one.call_for(0.2)
                renew(generation)
                wait_for(lambda: serial_met(webhook) == serial_in(directory), 15, "the new certificate is met")
            one.call_for(0.2)
        assert [*one.failures, *other.failures] == []
        assert (one.dials, other.dials) == (1, 1), "connections were dropped"
        assert post(kept, review())[0] == 200
        assert webhook.metric("certificate_reloads_total") == 5
        assert webhook.metric("certificate_reload_errors_total") == 0
        assert len(webhook.lines("certificate in service")) == 5


def test_the_old_authority_stays_in_the_bundle_while_clients_learn_the_new_one(cert_dir: Path, log: Path) -> None:
    with Webhook(cert_dir, log, **QUICK) as webhook:
        issue(cert_dir, force=True)
        informed_first = webhook.trust()
        post(webhook.connect(informed_first), review())  # whichever certificate is being served at this moment
        wait_for(lambda: serial_met(webhook) == serial_in(cert_dir), 15, "the new certificate is met")
        post(webhook.connect(informed_first), review())


def break_key(directory: Path) -> None:
    (directory / "tls.key").write_bytes(certs.generate(["localhost"], days=1, now=datetime.now(UTC))["tls.key"])


def break_text(directory: Path) -> None:
    (directory / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")


def take_away(directory: Path) -> None:
    (directory / "tls.key").unlink()


def empty(directory: Path) -> None:
    (directory / "tls.crt").write_bytes(b"")


def expire(directory: Path) -> None:
    issue(directory, force=True, days=1, now=datetime.now(UTC) - timedelta(days=3))


def issue_for_tomorrow(directory: Path) -> None:
    issue(directory, force=True, days=1, now=datetime.now(UTC) + timedelta(days=1))


def change_authority(directory: Path) -> None:
    (directory / "ca.crt").write_bytes(certs.generate(["localhost"], days=1, now=datetime.now(UTC))["ca.crt"])


BREAKS = {
    break_key: "tls.key does not belong",
    break_text: "tls.crt holds no PEM certificate",
    take_away: "tls.key can't be read",
    empty: "tls.crt holds no PEM certificate",
    expire: "expired",
    issue_for_tomorrow: "not valid before",
    change_authority: "not signed by any certificate in ca.crt",
}


def test_files_that_will_not_do_are_reported_and_the_old_certificate_goes_on(tmp_path: Path, log: Path) -> None:
    directory = issue(tmp_path / "tls")
    with Webhook(directory, log, **QUICK) as webhook:
        trust, serial = webhook.trust(), serial_in(directory)
        for count, (spoil, complaint) in enumerate(BREAKS.items(), 1):
            spoil(directory)
            wait_for(lambda: webhook.metric("certificate_reload_errors_total") == count, 15, complaint)  # noqa: B023
            line = webhook.lines(complaint, level="error")[-1]
            assert str(directory) in line["message"]
            assert line["serving"] == "the one before"
            assert serial_met(webhook) == serial
            assert post(webhook.connect(trust), review())[0] == 200
            assert webhook.get("/readyz") == (200, "ready\n")  # what is being served is good
            time.sleep(0.25)
            assert webhook.metric("certificate_reload_errors_total") == count, "said once, counted once"

            issue(directory, force=True)
            wait_for(lambda: serial_met(webhook) == serial_in(directory), 15, "a good pair is taken again")
            trust, serial = webhook.trust(), serial_in(directory)


def test_half_of_a_pair_is_not_judged(cert_dir: Path, log: Path) -> None:
    new = certs.generate(["localhost", "127.0.0.1"], days=1, now=datetime.now(UTC))
    with Webhook(cert_dir, log, poll_seconds=0.3) as webhook:
        for name in ("ca.crt", "tls.crt", "tls.key"):  # slower than the server looks
            (cert_dir / name).write_bytes(new[name])
            time.sleep(0.2)
        wait_for(lambda: serial_met(webhook) == serial_in(cert_dir), 15, "the new certificate is met")
        assert webhook.metric("certificate_reload_errors_total") == 0


def test_a_certificate_may_come_after_the_server(tmp_path: Path, log: Path) -> None:
    directory = tmp_path / "tls"
    directory.mkdir()
    with Webhook(directory, log, **QUICK) as webhook:
        status, sentence = webhook.get("/readyz")
        assert (status, sentence) == (
            503,
            f"{directory}: tls.crt and tls.key can't be read: put a readable pair there\n",
        )
        assert webhook.get("/livez")[0] == 200  # a restart would not bring one
        assert webhook.metric("certificate_not_after_timestamp_seconds") == 0
        (line,) = webhook.lines("tls.crt and tls.key", level="error")
        assert line["serving"] == "nothing that clients trust"
        issue(directory)
        wait_for(webhook.ready, 15, "the webhook is ready")
        assert post(webhook.connect(), review())[0] == 200
        leaf = x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())
        assert webhook.metric("certificate_not_after_timestamp_seconds") == leaf.not_valid_after_utc.timestamp()


def test_without_a_certificate_no_client_is_fooled(tmp_path: Path, log: Path) -> None:
    (tmp_path / "tls").mkdir()
    with Webhook(tmp_path / "tls", log) as webhook, pytest.raises(ssl.SSLCertVerificationError):
        webhook.connect(ssl.create_default_context(cafile=issue(tmp_path / "other") / "ca.crt"))


def test_an_expired_certificate_is_not_ready(tmp_path: Path, log: Path) -> None:
    directory = tmp_path / "tls"
    issue(directory, days=1, now=datetime.now(UTC) - timedelta(days=3))
    with Webhook(directory, log, **QUICK) as webhook:
        status, sentence = webhook.get("/readyz")
        assert status == 503
        assert "the certificate in tls.crt expired on" in sentence
        assert "2 days ago: issue a new one" in sentence


def test_a_certificate_that_expires_while_it_serves_stops_being_ready(tmp_path: Path, log: Path) -> None:
    directory = tmp_path / "tls"
    issue(directory)
    with Webhook(directory, log, **QUICK) as webhook:
        issue(directory, force=True, days=1, now=datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=2))
        wait_for(lambda: serial_met(webhook) == serial_in(directory), 15, "the new certificate is met")
        assert webhook.ready()
        wait_for(lambda: not webhook.ready(), 15, "the certificate expires")
        (line,) = wait_for(lambda: webhook.lines("expired on", level="error"), 15, "the log says so")
        assert line["serving"] == "one that clients refuse"
        assert "expired on" in webhook.get("/readyz")[1]
        assert webhook.get("/livez")[0] == 200
        break_key(directory)
        (line,) = wait_for(lambda: webhook.lines("tls.key does not belong", level="error"), 15, "the log says so")
        assert line["serving"] == "one that clients refuse"
        issue(directory, force=True)
        wait_for(webhook.ready, 15, "a new one is taken")


def test_a_certificate_becomes_good_with_time(tmp_path: Path, log: Path) -> None:
    directory = tmp_path / "tls"
    directory.mkdir()
    with Webhook(directory, log, **QUICK) as webhook:
        issue(directory, days=1, now=datetime.now(UTC) + timedelta(minutes=5, seconds=2))  # issued 5 minutes backdated
        wait_for(lambda: "not valid before" in webhook.get("/readyz")[1], 15, "it is seen")
        wait_for(webhook.ready, 15, "its time comes")
