"""Our words in a command line: told from everybody else's, wherever they stand."""

from __future__ import annotations

import msgspec
import pytest

from tests.admission import oracle
from webhook.admission.guard import ARGV0, guarded, theirs
from webhook.admission.review import Container
from webhook.settings import Settings

ENTRYPOINT = "./bin/docker-entrypoint-worker.sh"
(INJECTED,) = oracle.admit({"spec": {"containers": [{"name": "worker", "command": [ENTRYPOINT]}]}}, Settings()).pod[
    "spec"
]["containers"]
OURS = INJECTED["command"][:-1]


def container(command: list[str], args: list[str] | None = None) -> Container:
    return msgspec.convert({"command": command, "args": args}, Container)


@pytest.mark.parametrize("launcher", [[], ["run"], ["run", "--", "-c"]])
@pytest.mark.parametrize("split", range(len(OURS) + 1))
def test_ours_is_told_and_theirs_is_left_wherever_the_line_is_split(launcher: list[str], split: int) -> None:
    command, args = [*launcher, *OURS[:split]], [*OURS[split:], ENTRYPOINT, "a b"]
    assert guarded(container(command, args))
    assert theirs(container(command, args)) == [*launcher, "/bin/sh", "-c", ENTRYPOINT, "a b"]


@pytest.mark.parametrize(
    "words",
    [
        [ENTRYPOINT],
        [ARGV0, ENTRYPOINT],
        ["sh", "-c", "exec", ARGV0, ENTRYPOINT],
        [word for word in OURS if word != ARGV0],
        [*OURS[:3], "another", ARGV0],
        OURS[:3],
    ],
)
def test_a_word_alone_proves_nothing(words: list[str]) -> None:
    assert not guarded(container(words))
    assert theirs(container(words)) == words
