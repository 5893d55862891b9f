"""The lab's Redis keeps and forgets what Plane's would."""

from __future__ import annotations

import socket
import subprocess

import pytest

from lab.fixtures import need
from lab.redis import Redis

pytestmark = pytest.mark.lab


def ask(redis: Redis, *words: str) -> str:
    """Say something to it with its own client and return the answer."""
    client = ["redis-cli", "-u", redis.url, *words]
    return subprocess.run(client, capture_output=True, text=True, check=True).stdout.strip()


def test_a_stop_keeps_what_it_has_and_a_crash_what_it_had_saved() -> None:
    need("redis-server", "bubblewrap")
    with Redis() as redis:
        ask(redis, "set", "kept", "1")
        redis.stop()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", redis.port)) != 0
        redis.start()
        assert ask(redis, "get", "kept") == "1"
        ask(redis, "set", "forgotten", "1")
        redis.kill()
        redis.start()
        assert (ask(redis, "get", "kept"), ask(redis, "get", "forgotten")) == ("1", "")
    assert not redis.folder.exists()


def test_it_saves_when_redis_would_by_default(redis: Redis) -> None:
    assert ask(redis, "config", "get", "save").splitlines() == ["save", "3600 1 300 100 60 10000"]
    assert ask(redis, "config", "get", "appendonly").splitlines() == ["appendonly", "no"]
