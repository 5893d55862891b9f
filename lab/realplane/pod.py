"""The pods of a Plane release as data: what the community chart makes of its defaults, with the addresses of a lab.

Only what a container's start reads is here. The chart's names and shapes: `envFrom` of a ConfigMap and two Secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lab.kubelet import Json

Workload = Literal["api", "worker", "beat", "migrator"]

CONFIG_MAP, SECRET, STORE = "plane-app-app-vars", "plane-app-app-secrets", "plane-app-doc-store-secrets"
# Of the chart, but for the API's rate limit: 60 a minute would be the load's limit and not Plane's.
VARIABLES = {
    "SENTRY_DSN": "",
    "SENTRY_ENVIRONMENT": "",
    "DEBUG": "0",
    "DOCKERIZED": "1",
    "GUNICORN_WORKERS": "1",
    "MINIO_ENDPOINT_SSL": "0",
    "API_KEY_RATE_LIMIT": "1000000/minute",
}
BUCKET = "uploads"


def pod(workload: Workload, release: str) -> Json:
    """Return a workload's pod as the API server would store it without us."""
    sources = [{"configMapRef": {"name": CONFIG_MAP}}, {"secretRef": {"name": SECRET}}, {"secretRef": {"name": STORE}}]
    container = {
        "name": f"plane-app-{workload}",
        "image": "makeplane/plane-backend:stable",
        "command": [f"./bin/docker-entrypoint-{workload}.sh"],
        "envFrom": sources,
    }
    # Its name is its host name, and two Celery workers of one host name would be in each other's way.
    return {"metadata": {"name": f"{release}-{workload}", "namespace": "plane"}, "spec": {"containers": [container]}}


def config_maps(port: int) -> dict[str, dict[str, str]]:
    """Return the ConfigMap of a release whose API is at `port` of loopback."""
    url = f"http://127.0.0.1:{port}"
    # Webhooks to private addresses are refused by default, and the lab's receiver has one.
    own = {"PORT": str(port), "WEB_URL": url, "CORS_ALLOWED_ORIGINS": url, "WEBHOOK_ALLOWED_IPS": "127.0.0.0/8"}
    return {CONFIG_MAP: VARIABLES | own}


def secrets(*, database: str, redis: str, amqp: str, storage: str) -> dict[str, dict[str, str]]:
    """Return the Secrets of a release, from the addresses of what it stands on."""
    return {
        SECRET: {"SECRET_KEY": "for-the-lab-only" * 4, "DATABASE_URL": database, "REDIS_URL": redis, "AMQP_URL": amqp},
        STORE: {
            "USE_MINIO": "0",
            "AWS_S3_ENDPOINT_URL": storage,
            "AWS_S3_BUCKET_NAME": BUCKET,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_REGION": "us-east-1",
        },
    }
