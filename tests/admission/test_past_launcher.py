"""Commands that show that our launcher may take no part, and those that only look like it."""

from __future__ import annotations

import json
import time

import pytest

from tests.admission import oracle
from webhook.admission import Risk, review
from webhook.cluster.pods import State, judge
from webhook.settings import Settings

ENTRYPOINT = "./bin/docker-entrypoint-api.sh"


def pod(*command: str) -> dict[str, object]:
    only = {"name": "c", "image": "r.io/makeplane/plane-backend:v1", "command": list(command)}
    return {"metadata": {"name": "x"}, "spec": {"containers": [only]}}


@pytest.mark.parametrize(
    "command",
    [
        ["/usr/local/bin/gunicorn", "plane.asgi:application"],
        ["sh", "-c", "exec ./venv/bin/celery -A plane worker"],
        ["sh", "-c", "/usr/local/bin/gunicorn"],
        ["sh", "-c", "exec ${VENV}/bin/gunicorn plane.asgi:application"],
        ["sh", "-c", 'exec "$VENV/bin/gunicorn" plane.asgi:application'],
        ["tini", "--", "/usr/local/bin/celery", "-A", "plane", "beat"],
        ["python", "-m", "celery", "-A", "plane", "worker"],
        ["python", "-um", "gunicorn", "plane.asgi:application"],
        ["sh", "-c", "python3 \\\n  -m \\\n  celery -A plane worker"],
        ["python", "-B", "/usr/local/bin/gunicorn", "plane.asgi:application"],
        ["python", "-u", "manage.py", "run_automation_consumer"],
        ["sh", "-c", "exec python -X dev /code/manage.py sync"],
        ["/usr/local/bin/python", "manage.py", "sync"],
        ["python3.12", "manage.py", "sync"],
        ["bash", "-lc", ENTRYPOINT],
        ["bash", "-l", "-c", ENTRYPOINT],
        ["/bin/bash", "--login", ENTRYPOINT],
        ["sh", "-c", f"exec bash -euo pipefail -l {ENTRYPOINT}"],
        ["sh", "-c", f"export PATH=/usr/local/bin:/bin\nexec {ENTRYPOINT}"],
        ["env", "PATH=/usr/local/bin", ENTRYPOINT],
    ],
    ids=" ".join,
)
def test_what_passes_the_launcher_by_is_said_and_no_limit_is_set(command: list[str]) -> None:
    outcome = oracle.admit(pod(*command), Settings())
    assert Risk.PAST_LAUNCHER in outcome.answer.risks
    assert len(outcome.answer.warnings[0]) <= 256  # the API server cuts off what is longer
    (container,) = outcome.pod["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == list(oracle.CELERY)
    made = review.parse_pod(json.dumps(outcome.pod).encode())
    assert made is not None
    assert judge(made, Settings().default).state is State.INJECTED


@pytest.mark.parametrize(
    "command",
    [
        ["gunicorn", "-c", "/etc/gunicorn", "plane.asgi:application"],
        ["gunicorn", "--log-file=/var/log/gunicorn", "--pid", "/run/gunicorn/pid", "plane.asgi:application"],
        ["gunicorn", "plane.asgi:application", "/run/gunicorn/pid"],
        ["sh", "-c", "ls /usr/local/bin/gunicorn && exec gunicorn plane.asgi:application"],
        ["sh", "-c", "ls -l; gunicorn plane.asgi:application"],
        ["sh", "-c", "cd /celery && celery -A plane worker"],
        ["python", "/code/manage.py", "sync"],
        ["./manage.py", "sync"],
        ["sh", "-c", f"python -u manage.py migrate && exec {ENTRYPOINT}"],
        ["sh", "-c", "python -u manage.py sync; exec celery -A plane worker"],
        ["sh", "-euc", ENTRYPOINT],
        ["sh", "-c", f"export PATH=/x:$PATH PYTHONPATH=/y; exec {ENTRYPOINT}"],
        ["sh", "-c", f'export PATH="${{PATH}}:/x"; exec {ENTRYPOINT}'],
        ["sh", "-c", f"echo PATH=/x; exec {ENTRYPOINT}"],
        ["sh", "-c", f"env | grep -vE 'PATH=|SHLVL='; exec {ENTRYPOINT}"],
        ["sh", "-c", f"# bash -l\nexec {ENTRYPOINT}"],
    ],
    ids=" ".join,
)
def test_what_goes_through_the_launcher_is_no_risk(command: list[str]) -> None:
    outcome = oracle.admit(pod(*command), Settings())
    assert outcome.patched
    assert Risk.PAST_LAUNCHER not in outcome.answer.risks


@pytest.mark.parametrize(
    "piece",
    [
        "sh -a",
        "/sh -",
        "sh -" + "l" * 400,
        "PATH=$",
        " /gunicorn",
        "/gunicorn",
        "a /x-",
        "echo PATH=/x ",
        "--max-requests ",
        "\n",
        "#",
    ],
)
def test_a_long_command_takes_no_long_time(piece: str) -> None:
    long = piece * (120_000 // len(piece))
    started = time.process_time()
    oracle.admit(pod("sh", "-c", f"{long} {ENTRYPOINT}\n{ENTRYPOINT}"), Settings())
    assert time.process_time() - started < 1
