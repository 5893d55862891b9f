"""Prometheus as a plain process on loopback: it scrapes what it is told each second, and evaluates rules as often.

This module must never touch a Prometheus that it did not start, nor the machine's configuration of one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from lab.packages import program
from lab.process import Process, Startable, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

START = 30.0  # seconds; one alone


class Prometheus(Startable):
    """A Prometheus. `with` starts it and removes it with its data."""

    def __init__(self, scrapes: Sequence[dict[str, Any]], rules: Sequence[Path] = ()) -> None:
        """`scrapes` are entries of scrape_configs; `rules` are files of rules."""
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-prometheus-"))
        self.url = f"http://127.0.0.1:{free_port()}"
        interval = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        told = {"global": interval, "scrape_configs": list(scrapes), "rule_files": [str(each) for each in rules]}
        self._configuration = self.folder / "prometheus.yaml"
        self._configuration.write_text(json.dumps(told))  # JSON is YAML
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        argv = [
            program("prometheus"),
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={self.folder}/data",
        ]
        argv.append(f"--web.listen-address={self.url.removeprefix('http://')}")
        self._process = Process(argv, log=self.folder / "prometheus.log", cwd=self.folder)
        wait_for(self._ready, START, "Prometheus is ready", need=[self._process])

    def close(self) -> None:
        """Kill it and remove its data."""
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, each with `metric` (its labels) and `value` (time, text)."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False
