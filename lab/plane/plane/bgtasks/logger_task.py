"""Plane's task that keeps what an API token asked for."""

from celery import shared_task


@shared_task
def process_logs(log_data: dict) -> None:
    """Say that it ran. Plane's writes a row."""
    print(f"ran process_logs {log_data['token_identifier']}", flush=True)
