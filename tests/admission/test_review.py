"""What can't be decoded is MalformedReview and nothing else; and no review is expensive."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.admission import oracle
from webhook.admission import MalformedReview, Reason, answer
from webhook.settings import Settings, parse

API = {"spec": {"containers": [{"name": "api", "command": ["./bin/docker-entrypoint-api.sh"]}]}}


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(oracle.review(API)), **fields}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "truncated"),
        (b"\x00\xff", "not an AdmissionReview"),
        (b"null", "got `null`"),
        (b"[]", "got `array`"),
        (b"{}", "missing required field `apiVersion`"),
        (oracle.review(API)[:-2], "not an AdmissionReview"),
        (oracle.review(API) + b"{}", "not an AdmissionReview"),
        (b'{"kind": "\xff"}', "not an AdmissionReview"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not an AdmissionReview"),
        (b"[" * 1_000_000, "not an AdmissionReview"),
        (oracle.review(None).replace(b"null", b"[" * 9000 + b"]" * 9000), "recursion"),  # no pod nests so deeply
        (changed(apiVersion="admission.k8s.io/v1beta1"), "of 'admission.k8s.io/v1beta1'"),
        (changed(kind="Pod"), "found 'Pod'"),
        (changed(request=None), "$.request"),
        (oracle.review(API, uid=""), "no uid"),
        (oracle.review(API, uid=None), "$.request.uid"),
        (oracle.review(API, uid=1), "$.request.uid"),
        (oracle.review(API, operation=[]), "$.request.operation"),
    ],
)
def test_malformed(body: bytes, said: str) -> None:
    with pytest.raises(MalformedReview) as caught:
        answer(body, Settings())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "body", [changed(response={"uid": "x", "allowed": False}), changed(zeta=[1]), oracle.review(API)]
)
def test_what_else_a_review_holds_does_not_matter(body: bytes) -> None:
    assert answer(body, Settings()).reason is Reason.INJECTED


def test_the_answer_names_the_pod() -> None:
    told = answer(oracle.review({**API, "metadata": {"generateName": "plane-api-"}}, dryRun=True), Settings())
    assert (told.namespace, told.name, told.dry_run) == ("plane", "plane-api-", True)
    told = answer(oracle.review({**API, "metadata": {"name": "of-pod"}}, name="of-request", namespace=None), Settings())
    assert (told.namespace, told.name, told.dry_run) == ("", "of-request", False)


def test_what_an_injection_adds_to_a_container_is_within_its_bound() -> None:
    settings = parse(
        "env: {gunicorn_max_requests: 999999999, gunicorn_max_requests_jitter: 999999999, "
        "celery_task_publish_retry: false, celery_broker_pool_limit: 999999999}\n"
        "publish: {confirm: false, mandatory: false, patience: 59.99999999999999, timeout: 599.9999999999999, "
        "spool_tasks: 10000000, spool_bytes: 1099511627776}"
    )
    pod = {"spec": {"containers": [{"name": "x" * 63, "command": ["./bin/docker-entrypoint-api.sh"]}]}}
    assert len(json.dumps(oracle.admit(pod, settings).pod)) - len(json.dumps(pod)) < 48 * 1024


LARGE = 1_400_000
HOSTILE = {
    "one line": [{"name": "a", "command": ["docker-entrypoint-worker.sh " * (LARGE // 28)]}],
    "comments": [{"name": "a", "command": ["#docker-entrypoint-api.sh\n" * (LARGE // 27)]}],
    "long comments": [{"name": "a", "command": [("#" + "x" * 399 + "docker-entrypoint-api.sh\n") * (LARGE // 426)]}],
    "echoes": [{"name": "a", "command": ["echo /docker-entrypoint-api.sh\n" * (LARGE // 32)]}],
    "flows": [{"name": "a", "command": [("cat docker-entrypoint-api.sh" + "x " * 200 + "\n") * (LARGE // 430)]}],
    "containers": [{"name": "a", "command": ["docker-entrypoint-api.sh"]}] * (LARGE // 56),
    "guards": [{"name": "a", "command": ["plane-webhook"] * (LARGE // 18) + ["docker-entrypoint-api.sh"]}],
    "mounts": [
        {
            "name": "a",
            "command": ["docker-entrypoint-api.sh"],
            "volumeMounts": [{"name": "a", "mountPath": "/./" * 20}] * (LARGE // 94),
        }
    ],
}


@pytest.mark.parametrize("containers", HOSTILE.values(), ids=HOSTILE)
def test_the_largest_pods_cost_little(containers: list[Any]) -> None:
    body = oracle.review({"spec": {"containers": containers}})
    assert 1_300_000 < len(body) < 1_600_000
    began = time.process_time()
    told = answer(body, Settings())
    assert time.process_time() - began < 1.5  # seconds; each of these once took longer, or gave 23 MB of answer
    assert len(told.body) < 2_000_000
