"""SIGTERM loses no call, whatever connection an API server uses and whenever; SIGINT and impatience end at once."""

import signal
import time
from pathlib import Path

from lab.process import wait_for
from tests.edges.webhook import ApiServer, Webhook, post, review
from webhook.server import Limits

QUICK = {"quiet_seconds": 0.7, "drain_seconds": 6, "farewell_seconds": 0.5}


def test_sigterm_under_load_loses_no_call(cert_dir: Path, log: Path) -> None:
    with Webhook(cert_dir, log, **QUICK) as webhook:
        pool = [webhook.connect() for _ in range(20)]  # as an API server pools them
        for connection in pool:
            assert post(connection, review())[2]
        dialled_ahead = webhook.connect()
        with ApiServer(webhook) as one, ApiServer(webhook) as other:
            one.call_for(0.3)
            webhook.process.signal(signal.SIGTERM)
            (line,) = wait_for(lambda: webhook.lines("draining"), 15, "the webhook drains")
            assert line["connections"] >= len(pool), "it says what it waits for"
            assert line["at_most_seconds"] == QUICK["drain_seconds"]
            assert webhook.get("/readyz") == (503, "draining: this replica is about to end\n")
            assert webhook.get("/livez")[0] == 200
            one.call_for(0.6)
            for connection in pool[:10]:
                assert post(connection, review())[::2] == (200, False)
            one.call_for(0.3)
        assert [*one.failures, *other.failures] == []
        assert one.dials > 10, "each answer closes its connection"
        # Out of rotation now; but the idle connections are used whenever the API server likes, and nobody says when.
        time.sleep(QUICK["quiet_seconds"] + 0.5)
        for connection in [*pool[10:], dialled_ahead]:
            assert post(connection, review())[::2] == (200, False)
        began = time.monotonic()
        assert webhook.ended(15) == 0
        assert time.monotonic() - began > QUICK["quiet_seconds"] / 2
        assert webhook.lines("drained")


def test_a_quiet_webhook_leaves_soon(cert_dir: Path, log: Path) -> None:
    with Webhook(cert_dir, log, **QUICK) as webhook:
        began = time.monotonic()
        webhook.process.signal(signal.SIGTERM)
        assert webhook.ended(15) == 0
        assert QUICK["quiet_seconds"] < time.monotonic() - began < QUICK["quiet_seconds"] + 5


def test_it_leaves_when_the_last_idle_connection_does_and_says_what_it_waited_for(cert_dir: Path, log: Path) -> None:
    quiet = 3
    with Webhook(cert_dir, log, **(QUICK | {"quiet_seconds": quiet, "drain_seconds": 30})) as webhook:
        held = webhook.connect()
        assert post(held, review())[2]
        webhook.process.signal(signal.SIGTERM)
        (line,) = wait_for(lambda: webhook.lines("still draining"), 15, "nobody else is waited for")
        assert line["connections"] == 1
        held.close()
        began = time.monotonic()
        assert webhook.ended(15) == 0
        assert time.monotonic() - began < quiet - 1, "no review could come any more"


def test_a_connection_that_is_never_given_back_is_waited_for_only_so_long(cert_dir: Path, log: Path) -> None:
    with Webhook(cert_dir, log, **(QUICK | {"drain_seconds": 1.2})) as webhook:
        held = webhook.connect()
        assert post(held, review())[2]
        began = time.monotonic()
        webhook.process.signal(signal.SIGTERM)
        assert webhook.ended(15) == 0
        assert 1.2 < time.monotonic() - began < 10
        assert [line["connections"] for line in webhook.lines("drained")] == [1], "and what it waited for in vain"


def test_a_drain_outlasts_the_last_idle_connection_of_an_api_server() -> None:
    limits = Limits()
    assert limits.keep_alive_seconds > limits.drain_seconds > 90  # kube-apiserver's IdleConnTimeout
    assert limits.request_seconds < 10  # the API server's own timeout, unless a registration says otherwise


def test_a_second_signal_ends_it_at_once(cert_dir: Path, log: Path) -> None:
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)):
        with Webhook(cert_dir, log) as webhook:
            held = webhook.connect()
            assert post(held, review())[2]
            webhook.process.signal(first)
            wait_for(lambda: webhook.lines("draining"), 15, "the webhook drains")
            webhook.process.signal(second)
            assert webhook.ended(4) == 0
        log.unlink()


def test_ctrl_c_ends_it_quickly_and_answers_what_is_on_its_way(cert_dir: Path, log: Path) -> None:
    with Webhook(cert_dir, log) as webhook:
        held, halfway = webhook.connect(), webhook.raw()
        assert post(held, review())[2]
        head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        halfway.sendall(head % len(review()) + review()[:100])
        time.sleep(0.2)
        began = time.monotonic()
        webhook.process.signal(signal.SIGINT)
        time.sleep(0.3)
        halfway.sendall(review()[100:])
        assert halfway.recv(12) == b"HTTP/1.1 200"
        assert webhook.ended(15) == 0
        assert time.monotonic() - began < 3
        assert webhook.lines(level="error") == []
