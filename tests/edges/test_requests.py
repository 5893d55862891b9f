"""What comes to the TLS port, well-formed or not: a review or a clean 4xx, never a 500, never an endless wait."""

import contextlib
import functools
import gc
import http.client
import json
import re
import secrets
import signal
import socket
import struct
import subprocess
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from lab.process import wait_for
from tests.edges.webhook import JSON, REPOSITORY, SECRET, Webhook, post, receive_all, review
from webhook.admission import answer
from webhook.server import Limits
from webhook.server.exchange import Exchange
from webhook.server.metrics import Metrics
from webhook.server.mutate import Mutate
from webhook.settings import Settings

ENVELOPE = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}


def test_a_review_is_answered_logged_and_counted(webhook: Webhook) -> None:
    before = webhook.metric('decisions_total{reason="injected",workload="api"}')
    received, observed = webhook.metric("received_bytes_total"), webhook.metric("request_duration_seconds_count")
    status, content, stays_open = post(webhook.connect(), review("a-uid-of-this-test"))
    assert (status, stays_open) == (200, True)
    assert content["response"]["uid"] == "a-uid-of-this-test"
    assert content["response"]["allowed"] is True
    assert content["response"]["patchType"] == "JSONPatch"

    (line,) = wait_for(lambda: webhook.lines(uid="a-uid-of-this-test"), 15, "the line that follows the answer")
    assert line.pop("time").endswith("Z")
    assert line.pop("milliseconds") > 0
    assert line.pop("message")
    assert line == {
        "level": "info",
        "reason": "injected",
        "uid": "a-uid-of-this-test",
        "namespace": "plane",
        "name": "plane-app-api-wl-",
        "workload": "api",
        "container": "plane-app-api",
        "dry_run": False,
        "risks": [],
    }
    assert webhook.metric('decisions_total{reason="injected",workload="api"}') == before + 1
    assert webhook.metric("received_bytes_total") == received + len(review("a-uid-of-this-test"))
    assert webhook.metric("request_duration_seconds_count") == observed + 1
    assert webhook.metric("requests_in_flight") == 0
    assert webhook.metric("bytes_in_flight") == 0


CHUNKED = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
MEASURED = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

GARBAGE = {
    "nothing": b"",
    "no JSON": b"hello",
    "binary": secrets.token_bytes(4096),
    "other encodings": json.dumps(ENVELOPE).encode("utf-16"),
    "bytes that are no text": b'{"kind": "\xff\xfe"}',
    "half a surrogate": b'{"apiVersion": "\\ud800"}',
    "a list": b"[]",
    "null": b"null",
    "depth": b"[" * 200_000,
    "depth in a field": b'{"request": ' + b'{"a":' * 200_000,
    "another kind": json.dumps({**ENVELOPE, "kind": "Pod", "request": {"uid": "u"}}).encode(),
    "another version": json.dumps({**ENVELOPE, "apiVersion": "v1beta1", "request": {"uid": "u"}}).encode(),
    "a kind of a megabyte": json.dumps({**ENVELOPE, "kind": "K" * 1_000_000, "request": {"uid": "u"}}).encode(),
    "no request": json.dumps(ENVELOPE).encode(),
    "request null": json.dumps({**ENVELOPE, "request": None}).encode(),
    "no uid": json.dumps({**ENVELOPE, "request": {}}).encode(),
    "a uid that is none": json.dumps({**ENVELOPE, "request": {"uid": 7}}).encode(),
    "half of a review": review()[:-100],
    "two reviews": review() * 2,
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_a_body_that_is_no_review_is_a_400_that_says_why(webhook: Webhook, body: bytes) -> None:
    before = webhook.metric('malformed_total{status="400"}')
    status, content, _ = post(webhook.connect(), body)
    assert status == 400
    assert (content["kind"], content["code"], content["reason"]) == ("Status", 400, "BadRequest")
    assert 10 < len(content["message"]) < 1000
    assert webhook.metric('malformed_total{status="400"}') == before + 1


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
def test_a_pod_of_any_depth_gets_an_answer(webhook: Webhook, depth: int) -> None:
    nested = b'{"deep":' * depth + b"0" + b"}" * depth
    body = review().replace(b'"filler": ""', b'"filler": "", "deep": ' + nested)
    assert len(body) > depth
    status, content, _ = post(webhook.connect(), body)
    assert status == 400 or content["response"]["allowed"] is True


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/jsonp", "application/x-www-form-urlencoded"])
def test_another_content_type_is_a_415(webhook: Webhook, content_type: str) -> None:
    status, content, _ = post(webhook.connect(), review(), **{"Content-Type": content_type})
    assert (status, content["message"]) == (415, "reviews come as application/json")


def test_a_content_type_may_have_parameters(webhook: Webhook) -> None:
    assert post(webhook.connect(), review(), **{"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_another_method_is_a_405(webhook: Webhook, method: str) -> None:
    connection = webhook.connect()
    connection.request(method, "/mutate", review(), JSON)
    response = connection.getresponse()
    assert (response.status, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/redoc", "/metrics", "/mutate/", "/livez/"])
def test_nothing_else_is_there(webhook: Webhook, path: str) -> None:
    assert webhook.get(path)[0] == 404


def test_the_probes_answer_with_a_sentence(webhook: Webhook) -> None:
    assert webhook.get("/livez") == (200, "alive\n")
    assert webhook.get("/readyz") == (200, "ready\n")


NO_HTTP = {
    "noise": secrets.token_bytes(10_000),
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad length": b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length beyond any": b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunks": b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a bad chunk": b"POST /mutate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a path beyond ASCII": "POST /mütate HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "an upgrade": b"GET /mutate HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_turned_away(webhook: Webhook, sent: bytes) -> None:
    with webhook.raw() as connection:
        connection.sendall(sent)
        received = receive_all(connection)
    assert received.startswith(b"HTTP/1.1 4"), received
    assert post(webhook.connect(), review())[0] == 200


def test_what_is_no_tls_is_turned_away(webhook: Webhook) -> None:
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=20) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not connection.recv(1024).startswith(b"HTTP")
    assert webhook.ready()


def test_a_client_that_asks_first_is_told_to_go_on(webhook: Webhook) -> None:
    head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with webhook.raw() as connection:
        connection.sendall(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(review()))
        assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(review())
        assert receive_all(connection).startswith(b"HTTP/1.1 200 OK")


def test_requests_that_are_sent_together_are_answered_in_their_order(webhook: Webhook) -> None:
    probe = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    uids = [f"together-{number}" for number in range(300)]
    reviews = [MEASURED % len(review(uid)) + review(uid) for uid in uids]
    sent = reviews[0] + probe + b"".join(reviews[1:]) + probe
    last = MEASURED.replace(b"Host: x", b"Host: x\r\nConnection: close") % len(review("last")) + review("last")
    for end, status in ((CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", b"400"), (last, b"200")):
        with webhook.raw() as connection:
            # 14 MB of answers, for a client that reads none of them before all is sent
            received = in_turn(connection, sent + end)
        assert re.findall(rb'"uid":"(together-\d+)"', received) == [uid.encode() for uid in uids]
        answers = re.findall(rb"HTTP/1\.1 (\d+)", received)
        assert answers == [b"200"] * 302 + [status]
        assert b"alive\n" in received.split(b"HTTP/1.1 ", 3)[2]
    assert webhook.metric("requests_in_flight") == 0
    assert webhook.metric("bytes_in_flight") == 0


def test_what_comes_at_the_same_time_is_answered_each_for_itself(webhook: Webhook) -> None:
    before = webhook.metric("request_duration_seconds_count")
    uids = [f"at-once-{number}" for number in range(6)]
    sent = {uid: MEASURED % len(review(uid)) + review(uid) for uid in uids}
    large = review("at-once-large", padding=300_000)
    sent |= {
        "large": MEASURED % len(large) + large,
        "malformed": MEASURED % 2 + b"{}",
        "get": b"GET /mutate HTTP/1.1\r\n\r\n",
    }
    sent |= {
        "probe": b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "half": sent[uids[0]][:-1],
        "garbage": sent[uids[1]] + sent[uids[2]] + b"x y z\r\n",
        "no more": sent[uids[1]],
    }
    connections = {name: webhook.raw() for name in sent}
    gone = webhook.raw()
    webhook.process.signal(signal.SIGSTOP)
    gone.sendall(sent[uids[2]])
    for name, connection in connections.items():
        connection.sendall(sent[name])
    socket.socket.shutdown(connections["no more"], socket.SHUT_WR)  # ssl's own would read what comes as plain text
    # Its client resets it: there is nobody to answer.
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    webhook.process.signal(signal.SIGCONT)
    for uid in uids:
        first = connections[uid].recv(1 << 20)
        assert first.startswith(b"HTTP/1.1 200 OK")
        assert f'"uid":"{uid}"'.encode() in first
    assert b'"uid":"at-once-large"' in connections["large"].recv(1 << 20)
    assert receive_all(connections["malformed"]).startswith(b"HTTP/1.1 400")
    assert receive_all(connections["get"]).startswith(b"HTTP/1.1 405")
    both = receive_all(connections["garbage"])
    assert re.findall(rb"HTTP/1.1 (\d+)", both) == [b"200", b"200", b"400"]
    assert receive_all(connections["no more"]).startswith(b"HTTP/1.1 200 OK")
    assert connections["probe"].recv(1 << 20).startswith(b"HTTP/1.1 200 OK")
    connections["half"].sendall(sent[uids[0]][-1:])
    assert b'"uid":"at-once-0"' in connections["half"].recv(1 << 20)
    wait_for(lambda: webhook.metric("requests_in_flight") == 0, 10, "what was read is given back")
    assert webhook.metric("bytes_in_flight") == 0
    assert webhook.metric("request_duration_seconds_count") - before >= len(uids) + 2
    for connection in connections.values():
        connection.close()


@pytest.mark.parametrize("body", [b"{}", b"x" * 11])
def test_what_is_refused_does_not_wait_for_the_cyclic_collector(body: bytes) -> None:
    """Which comes seldom: what it waits for took 250 MB where many connections came and went."""
    mutate = Mutate(functools.partial(answer, settings=Settings()), Metrics(), Limits(body=10))
    gc.disable()
    try:
        exchange = Exchange(mutate, method=b"POST", keep_alive=True)
        exchange.feed(body)
        exchange.decide()
        assert exchange.refused
        kept = weakref.ref(exchange)
        del exchange
        assert kept() is None
    finally:
        gc.enable()


def in_turn(connection: socket.socket, sent: bytes) -> bytes:
    """Send all of it while nothing is read, until the server takes no more; then read while the rest is sent."""
    with ThreadPoolExecutor(1) as beside:
        sending = beside.submit(connection.sendall, sent)
        with contextlib.suppress(TimeoutError):
            sending.result(1)
        received = receive_all(connection)
        sending.result(20)
    return received


def test_a_client_that_sends_and_never_reads_is_made_to_wait(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log") as webhook:
        post(webhook.connect(), review())
        at_rest = webhook.resident_mib()
        with webhook.raw() as connection:
            connection.settimeout(1)
            request = MEASURED % len(review()) + review()
            taken = 0
            with contextlib.suppress(TimeoutError):
                for _ in range(20_000):  # 900 MB of answers
                    connection.sendall(request)
                    taken += 1
            assert 0 < taken < 20_000
            assert webhook.resident_mib() - at_rest < 40
            assert post(webhook.connect(), review())[0] == 200
        wait_for(lambda: webhook.metric("requests_in_flight") == 0, 10, "what was read is given back")
        assert webhook.metric("bytes_in_flight") == 0


def test_a_body_as_long_as_the_limit_is_read_and_one_more_byte_is_not(webhook: Webhook) -> None:
    longest = Limits().body
    body = review(padding=longest - len(review()))
    assert len(body) == longest
    assert post(webhook.connect(), body)[1]["response"]["allowed"] is True

    with webhook.raw() as connection:  # turned away by its length alone, before any of it is sent
        connection.sendall(MEASURED % (longest + 1))
        assert receive_all(connection).startswith(b"HTTP/1.1 413")


def test_a_body_without_a_length_is_counted_while_it_comes(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log", body=100_000) as webhook:
        with webhook.raw() as connection:
            connection.sendall(CHUNKED + b"%x\r\n%s\r\n" % (99_000, b" " * 99_000))
            connection.sendall(b"%x\r\n%s\r\n" % (2_000, b" " * 2_000))
            assert receive_all(connection).startswith(b"HTTP/1.1 413")
        assert webhook.metric('malformed_total{status="413"}') == 1
        fitting = webhook.connect()
        fitting.request("POST", "/mutate", iter([review()[:100], review()[100:]]), JSON, encode_chunked=True)
        assert fitting.getresponse().status == 200


SLOW = {
    "empty lines": b"\r\n",
    "half a head": b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-",
    "half a body": MEASURED % 9 + b"{",
    "half of a body that nobody wants": b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
}


def test_a_request_that_trickles_is_cut_off(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log", request_seconds=0.3) as webhook:
        for name, sent in SLOW.items():
            with webhook.raw() as connection:
                began = time.monotonic()
                connection.sendall(sent)
                received = receive_all(connection)
                assert 0.2 < time.monotonic() - began < 5, name
                assert b"HTTP/1.1 408" in received, name
                assert b"within 0.3 seconds" in received, name
        # bytes that keep coming, each in time, don't help
        with webhook.raw() as connection:
            began = time.monotonic()
            connection.sendall(SLOW["half a head"])
            for _ in range(6):
                connection.sendall(b"x")
                time.sleep(0.1)
            assert receive_all(connection).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - began < 5
        # a connection that has been used is held to the same, and one that waits between requests is not
        connection = webhook.connect()
        assert post(connection, review())[0] == 200
        time.sleep(0.6)
        assert post(connection, review())[0] == 200


def test_a_head_that_does_not_end_is_cut_off(webhook: Webhook) -> None:
    endless = {
        "headers": (b"GET /livez HTTP/1.1\r\n", b"X-Header: %s\r\n" % (b"x" * 1000)),
        "one header": (b"GET /livez HTTP/1.1\r\nX-Header: ", b"x" * 1000),
        "target": (b"GET /", b"x" * 1000),
        "chunk extension": (CHUNKED + b"1;", b"x" * 1000),
        "trailers": (CHUNKED + b"0\r\n", b"X-Header: %s\r\n" % (b"x" * 1000)),
    }
    for name, (begin, more) in endless.items():
        with webhook.raw() as connection:
            connection.sendall(begin + more * (Limits().head // len(more) + 2))
            received = receive_all(connection)
            assert received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), name


def test_large_bodies_at_once_cost_bounded_memory_and_keep_nobody_else_waiting(tmp_path: Path, cert_dir: Path) -> None:
    limits = Limits()
    with Webhook(cert_dir, tmp_path / "log") as webhook:
        post(webhook.connect(), review())
        at_rest = webhook.resident_mib()
        strangers = []
        for _ in range(8):
            stranger = webhook.raw()
            stranger.sendall(MEASURED % limits.body)
            with contextlib.suppress(OSError):  # turned away while it sends
                stranger.sendall(b" " * (limits.body // 3))  # and then waits
            strangers.append(stranger)
        assert webhook.metric("bytes_in_flight") <= limits.bodies
        began = time.monotonic()
        assert post(webhook.connect(), review())[0] == 200
        assert time.monotonic() - began < 4
        assert webhook.metric('malformed_total{status="503"}') >= 2
        assert webhook.resident_mib() - at_rest < 2 * limits.bodies / 2**20
        for stranger in strangers:
            stranger.close()
        wait_for(lambda: webhook.metric("bytes_in_flight") == 0, 10, "what was read is given back")
        assert post(webhook.connect(), review(padding=limits.body // 2))[0] == 200


def test_a_connection_waits_longer_than_an_api_server_does(webhook: Webhook) -> None:
    assert Limits().keep_alive_seconds > 90  # kube-apiserver's IdleConnTimeout
    used, dialled_ahead = webhook.connect(), webhook.connect()
    assert post(used, review())[0] == 200
    time.sleep(6)  # uvicorn's own limit is 5
    assert post(used, review())[0] == 200
    assert post(dialled_ahead, review())[0] == 200


def test_a_connection_that_nobody_uses_is_closed_in_the_end(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log", keep_alive_seconds=1) as webhook:
        used = webhook.connect()
        for _ in range(6):  # for longer than it may rest
            assert post(used, review())[0] == 200
            time.sleep(0.3)
        assert post(used, review())[0] == 200
        began = time.monotonic()
        for connection in (used.sock, webhook.raw()):
            assert receive_all(connection) == b""
            assert 0.9 < time.monotonic() - began < 8


def test_there_are_only_so_many_connections(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log", connections=20) as webhook:
        kept = [socket.create_connection(("127.0.0.1", webhook.port), timeout=5) for _ in range(150)]
        time.sleep(0.5)
        assert len(list(Path(f"/proc/{webhook.process.pid}/fd").iterdir())) < 100
        for connection in kept:
            connection.close()

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return post(webhook.connect(), review())[0] == 200
            return False

        wait_for(answers, 10, "there is room again")


def test_a_bug_in_the_decision_lets_the_pod_through(tmp_path: Path, cert_dir: Path) -> None:
    with Webhook(cert_dir, tmp_path / "log", broken=True) as webhook:
        connection = webhook.connect()
        status, content, _ = post(connection, review("buggy"))
        assert status == 200
        response = content["response"]
        assert (response["uid"], response["allowed"], "patch" in response) == ("buggy", True, False)
        assert post(connection, b"{}")[0] == 400
        assert webhook.metric('decisions_total{reason="internal-error",workload=""}') == 1
        wait_for(lambda: webhook.lines(uid="buggy", reason="internal-error"), 15, "the line that follows the answer")
        line, other = webhook.lines(level="error")
        assert line["message"].endswith("the pod was let through unchanged; the log has the traceback")
        assert other["message"].endswith("the review was refused"), "and no pod was let through"
        assert (line["exception"], "in broken" in line["traceback"]) == ("LookupError", True)
        assert SECRET not in webhook.process.log.read_text()


def test_no_line_holds_what_stands_in_a_pod(webhook: Webhook) -> None:
    post(webhook.connect(), review())
    post(webhook.connect(), review()[:-1])
    post(webhook.connect(), review("u" * 100_000))
    wait_for(lambda: webhook.lines(uid="u" * 256), 15, "the line that follows the answer")
    text = webhook.process.log.read_text()
    assert SECRET not in text
    assert all(len(line) < 3000 for line in text.splitlines())
    assert len(webhook.lines()) == len(text.splitlines())


def test_a_log_that_nobody_reads_any_more_breaks_nothing(tmp_path: Path, cert_dir: Path) -> None:
    webhook = Webhook(cert_dir, tmp_path / "none")
    with subprocess.Popen(webhook.argv, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout
            lines = map(json.loads, process.stdout)
            webhook.port = next(line["port"] for line in lines if line["message"] == "listening")
            process.stdout.close()
            connection = webhook.connect()
            for _ in range(3):
                assert post(connection, review())[2]
        finally:
            process.kill()


def test_the_metrics_port_answers_nothing_else(webhook: Webhook) -> None:
    for path, status in (("/metrics", 200), ("/", 404), ("/mutate", 404), ("/docs", 404), ("/metrics/", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", webhook.metrics_port, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status == status, path


def test_the_metrics_are_in_the_format_that_was_asked_for(webhook: Webhook) -> None:
    for accept, content_type, parse in (
        ("", "text/plain", plain),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", openmetrics),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", webhook.metrics_port, timeout=20)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.headers["Content-Type"].startswith(content_type)
        names = {family.name for family in parse(response.read().decode())}
        assert {"plane_webhook_build_info", "plane_webhook_certificate_not_after_timestamp_seconds"} <= names
