"""Which containers of a pod run Plane, told by what they execute.

Names and labels mislead (a release may be called `api`); the entrypoint in command and args is the honest sign. A miss
would be a pod that loses tasks unnoticed, a false hit a launcher that never meets a gunicorn: in doubt, it is a hit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from webhook.admission.review import Container, Pod

# What the entrypoints of Plane's images are called; the API's has a second name in the enterprise image.
_ENTRYPOINT = re.compile(r"(?:^|[\s;&|(){}\"'=`/])docker-entrypoint-(api|worker|beat)(?:-ee)?\.sh(?![\w.-])")
# Every form that the expression takes contains this; the registration's match conditions look for it too.
ENTRYPOINT_MARKS = {workload: f"docker-entrypoint-{workload}" for workload in ("api", "worker", "beat")}

# Commands that look at a file rather than run it. Not cp and ln: what they make is likely to be run.
_READERS = {"echo", "printf", "true", ":", "test", "[", "[[", "which", "type", "ls", "stat", "file", "wc", "touch"}
_READERS |= {"chmod", "chown", "cat", "head", "tail", "grep", "sed", "awk"}
# What they read goes on to another program or file, and may be run: `sed s/1200/0/ docker-entrypoint-api.sh | sh`.
_FLOWS_ON = re.compile(r"[^\n;&|>]{0,400}(?:\|(?!\|)|>(?!&|\s*/dev/null))")
_SEPARATOR = re.compile(r"[;&|(){}`]|\b(?:then|do|else|if|while|until)\b|!")
# A simple command that reaches further back than this on its line is not looked at to its start.
_LEAD = 400


@dataclass(frozen=True, slots=True)
class Target:
    """A container that runs Plane: its place in spec.containers, and the workload that it is."""

    index: int
    container: Container
    workload: str

    @property
    def wrappable(self) -> bool:
        """Whether there is a command. Args alone go to the image's ENTRYPOINT, which a command would replace."""
        return bool(self.container.command)


def targets(pod: Pod, images: Iterable[str]) -> Iterator[Target]:
    """Yield the containers that run Plane; `images` are repositories whose own ENTRYPOINT is Plane's API."""
    for index, container in enumerate((pod.spec.containers if pod.spec else None) or ()):
        workload = _runs(container.command or [], container.args or [])
        if workload is None and not container.command and not container.args and _is_one_of(container.image, images):
            workload = "api"
        if workload is not None:
            yield Target(index, container, workload)


def _runs(command: list[str], args: list[str]) -> str | None:
    found: set[str] = set()
    words = command + args
    if words and words[0].rpartition("/")[2] in _READERS:
        return None
    for word in words:
        if "docker-entrypoint-" in word:
            for match in _ENTRYPOINT.finditer(word):
                if match[1] not in found and _is_run(match):
                    found.add(match[1])
    # A script that starts several is the API's if it starts that one: the strictest treatment of the three.
    return next((workload for workload in ENTRYPOINT_MARKS if workload in found), None)


def _is_run(match: re.Match[str]) -> bool:
    """Whether the entrypoint is executed there, and not only read or spoken of."""
    lead = match.string[max(0, match.start(1) - _LEAD) : match.start(1)].rpartition("\n")[2]
    simple = _SEPARATOR.split(lead)[-1].split(maxsplit=1)
    only_read = bool(simple) and simple[0] in _READERS and not _FLOWS_ON.match(match.string, match.end())
    return not only_read and not lead.lstrip().startswith("#")


def _is_one_of(image: str | None, repositories: Iterable[str]) -> bool:
    repository = (image or "").partition("@")[0]
    head, slash, tail = repository.rpartition("/")
    repository = head + slash + tail.partition(":")[0]
    return any(repository == each or repository.endswith("/" + each) for each in repositories)
