"""The largest review fits into what the server reads. How large that is has been measured with Kubernetes 1.36.3.

The API server reads requests of up to 3 MiB, and sends the object as JSON in which `<` and control characters take six
bytes; managedFields repeat the keys of lists, where they take seven.

| what fills the request | request | review |
|-|-|-|
| one value of a variable, all `<` | 1.5 MiB, as much as etcd stores | 9 MiB |
| the same | 3 MiB | 18 MiB |
| a variable's name, all `<` | 3 MiB | 39 MiB |
| 390,000 variables, each name of four control characters | 3 MiB | 39.4 MiB, after 34 s, when the API server gives up |
| 10,000 ports and a variable's name, all `<` | 3 MiB | 39.7 MiB |

More ports, or items that are all default, make more than 40 MiB. Such a review is a call that failed (HTTP 413); its
object is far beyond what etcd stores, so it is only in a dry run that anybody could see a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.pods import INJECT, api_pod, create, injected, registered, unharmed
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane
    from lab.webhook import Webhook

pytestmark = pytest.mark.lab

MIB = 1 << 20
REQUEST = 3 * MIB - 1000
STORED = 1536 * 1024 - 2000


@pytest.fixture(scope="module", autouse=True)
def _registered(controlplane: ControlPlane, webhook: Webhook) -> Iterator[None]:
    controlplane.namespace("size", INJECT)
    with registered(controlplane, webhook), unharmed(controlplane):
        # What is looked at here is length, and not how long a busy machine takes for so much JSON.
        patient = yaml.safe_load(webhook.registration())
        patient["webhooks"][0]["timeoutSeconds"] = 30
        controlplane.apply(patient)
        yield


@pytest.mark.parametrize(
    ("name", "variable", "size"),
    [
        pytest.param("stored", {"name": "A", "value": "<" * STORED}, 8.9, id="all that etcd stores"),
        pytest.param("tried", {"name": "A", "value": "<" * REQUEST}, 17.9, id="a value as long as a request can be"),
        pytest.param("tried", {"name": "<" * REQUEST}, 38.9, id="a name as long as a request can be"),
    ],
)
def test_the_largest_review_is_read_and_answered(
    controlplane: ControlPlane, webhook: Webhook, name: str, variable: dict[str, Any], size: float
) -> None:
    """`tried` in a dry run only: etcd would not take it."""
    before = webhook.metric("received_bytes_total")
    answer = create(controlplane, "size", api_pod(name, env=[variable]), dry_run=name == "tried")
    assert answer.status_code == 201, answer.text[:500]
    assert not injected(answer.json())
    wait_for(lambda: webhook.metric("received_bytes_total") - before > size * MIB, 5, f"a review of {size} MiB")
    assert webhook.log_lines(namespace="size", name=name)[-1]["reason"] == "pod-too-large"
