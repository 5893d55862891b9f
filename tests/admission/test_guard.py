"""Our words in a command line: told from everybody else's, wherever they stand."""

from __future__ import annotations

import msgspec
import pytest

from tests.admission import oracle
from webhook.admission.guard import ARGV0, theirs, told
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
    assert (told(container(command, args)) or {}).get("workload") == "worker"
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
    assert told(container(words)) is None
    assert theirs(container(words)) == words


@pytest.mark.parametrize(("number", "texts"), [("1", 5), ("2", 3), ("99", 0)])
def test_a_guard_of_another_version_is_ours_with_the_words_that_it_had(number: str, texts: int) -> None:
    words = ["/bin/sh", "-c", f"# plane-webhook guard {number}\nexit\n", ARGV0, *["text"] * texts, ENTRYPOINT]
    assert told(container(words)) == {}
    assert theirs(container(words)) == ["/bin/sh", "-c", ENTRYPOINT]
