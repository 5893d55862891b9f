"""The lab's PostgreSQL starts empty, keeps what was committed and says how many connections it has."""

from __future__ import annotations

import subprocess

import pytest

from lab.fixtures import need
from lab.postgres import Postgres
from lab.process import wait_for

pytestmark = pytest.mark.lab


def ask(postgres: Postgres, statement: str) -> subprocess.CompletedProcess[str]:
    """Say something to it with its own client."""
    client = ["psql", postgres.url, "--quiet", "--tuples-only", "--no-align", "--command", statement]
    return subprocess.run(client, capture_output=True, text=True, check=False)


def test_what_was_committed_survives_a_stop_and_a_crash(postgres: Postgres) -> None:
    assert ask(postgres, "create table seen (what text)").returncode == 0
    for end in (postgres.stop, postgres.kill):
        ask(postgres, "insert into seen values ('one')")
        end()
        postgres.start()
    assert ask(postgres, "select what from seen").stdout.split() == ["one", "one"]
    postgres.close()
    assert not postgres.folder.exists()


def test_it_has_the_limit_of_planes_chart_and_counts_what_it_has() -> None:
    need("postgresql", "bubblewrap", "util-linux")
    with Postgres(max_connections=10) as postgres:
        assert ask(postgres, "show max_connections").stdout.strip() == "10"
        sleepers = [subprocess.Popen(["psql", postgres.url, "-c", "select pg_sleep(3)"]) for _ in range(3)]
        wait_for(lambda: postgres.connections() == 3, 10, "three connections are counted")
        for sleeper in sleepers:
            sleeper.wait(30)
        wait_for(lambda: postgres.connections() == 0, 10, "and none when they have gone")
