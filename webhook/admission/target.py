"""Which containers of a pod are Plane's, told by what they execute, and which of them publish with Celery.

Names and labels mislead (a release may be called `api`); the entrypoint in command and args is the honest sign, then a
program that is started directly in an image of Plane. A miss would be a pod that loses tasks unnoticed, a false hit a
launcher that never meets a program of Celery's: in doubt, it is a hit. What is Plane's and not covered has its reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain, islice
from typing import Literal, get_args

import msgspec

from webhook.admission.command import command_line, max_requests, text
from webhook.admission.reasons import Reason
from webhook.admission.review import Container, Pod
from webhook.settings import Workload

# The strictest treatment first: a script that starts several things is the API's if it starts that one.
WORKLOADS: tuple[str, ...] = get_args(Workload)
_ORDER = (*WORKLOADS, Reason.NOT_KNOWN, Reason.OTHER_MEANS, Reason.NOT_A_PUBLISHER)

_BOUNDARY = r"(?:^|[\s;&|(){}\"'=`/])"
# What the entrypoints of Plane's images are called. The registration's match condition looks for this beginning.
ENTRYPOINT_MARK = "docker-entrypoint-"
# What stands before it is looked at behind it: a pattern that begins with letters is searched for many times faster.
_ENTRYPOINT = re.compile(
    rf"{ENTRYPOINT_MARK}(?<![^\s;&|(){{}}\"'=`/]{ENTRYPOINT_MARK})([\w-]+?)(?:-ee|-cloud)?\.sh(?![\w.-])"
)
# Publishes with pika, over a connection of its own.
_OTHERWISE = {"outbox-poller"}
_NOTHING = {"migrator"}

# What an entrypoint ends in, and what an operator starts directly. In an image of Plane alone: others have them too.
_PROGRAM = re.compile(
    _BOUNDARY + r"(?:(gunicorn)|celery\s(?:[^\n;&|]{0,400}?\s)?(worker|beat)|manage\.py\s+([\w-]+))(?![\w.-])"
)
_IDLE_COMMANDS = {"migrate", "wait_for_db", "wait_for_migrations", "collectstatic", "check"}

# Images of Plane's charts that are given an AMQP_URL and run something else than its Django project: node, and the AI
# service's own Celery. By the last part of the name, which a mirror keeps.
FOREIGN_IMAGES = ("live-commercial", "plane-pi-commercial", "silo-commercial")
_IDLE_FOREIGN = re.compile(_BOUNDARY + r"entrypoint-migrator\.sh(?![\w.-])")

# Commands that look at a file rather than run it. Not cp and ln: what they make is likely to be run.
_READERS = {"echo", "printf", "true", ":", "test", "[", "[[", "which", "type", "ls", "stat", "file", "wc", "touch"}
_READERS |= {"chmod", "chown", "cat", "head", "tail", "grep", "sed", "awk"}
# What they read goes on to another program or file, and may be run: `sed s/1200/0/ docker-entrypoint-api.sh | sh`.
_FLOWS_ON = re.compile(r"[^\n;&|>]{0,400}(?:\|(?!\|)|>(?!&|\s*/dev/null))")
# The first characters first: at most places of a line there is none of them.
_SEPARATOR = re.compile(r"(?=[;&|(){}`!tdeiwu])(?:[;&|(){}`!]|\b(?:then|do|else|if|while|until)\b)")
# Ways past our folder on PATH, which the words before a program's name show: gunicorn and celery by a path that is no
# option's value, and these and manage.py by a Python with options (-m is one), or that is called by path or version.
_BY_PATH = re.compile(r"(?:^\s*|(?<!\S)(?:--|[^\s-]\S*|\S*sh\s+-\w*c)\s+)[\"']?(?:[^\s=\"'-][^\s=]*)?/$")
_OTHER_PYTHON = re.compile(r"(?:/python[\w.]*|\bpython3?\.\d+)\s|\bpython[\w.]*\s+-")
# And shells that have a PATH of their own: a login shell, and one that sets it without what it was. Short bounds, for
# whoever makes pods may write what takes long to look through.
_OTHER_PATH = re.compile(
    _BOUNDARY + r"(?:(?:ba|da|a|z|k)?sh(?:\s+[-+]\w*o\s+\w+|\s+-[\w-]+){0,8}?\s+"
    r"(?:-[a-zA-Z]{0,8}l[a-zA-Z]{0,8}|--login)(?![\w-])|PATH=(?![|)]|\S{0,400}?\$\{?PATH\b))"
)
_LOGIN_HINT = re.compile(r"\s--?[a-zA-Z]{0,8}l")
# So many are looked at one by one; no command starts more.
_STARTED = 100
# A simple command that reaches further back than this on its line is not looked at to its start.
_LEAD = 400

Place = Literal["containers", "initContainers"]


class Target(msgspec.Struct, frozen=True):
    """A container of Plane: its place in the pod's spec, and the workload that it is, or the reason why it is none.

    `workload`: one of WORKLOADS, or "" for what is not covered. `passed`: its command may pass the launcher by.
    `limit`: its own for gunicorn's requests, as `max_requests` has it. `limits`: whether gunicorn's are ours to set: in
    the API, unless its own command line has them. Nor are they where nothing else of ours may be in effect, for an
    entrypoint may read them: no rotation and no confirmation would lose tasks.
    """

    place: Place
    index: int
    container: Container
    role: str | Reason
    workload: str
    passed: bool
    limit: str | None
    limits: bool

    @classmethod
    def of(cls, place: Place, index: int, container: Container, role: str | Reason, words: list[str]) -> Target:
        """Make one of the container's `words`."""
        workload = "" if isinstance(role, Reason) else role
        passed = workload != "" and _past_launcher(words, workload)
        limit = max_requests(container, words) if workload == "api" else None
        limits = workload == "api" and limit is None and not passed
        return cls(place, index, container, role, workload, passed, limit, limits)

    @property
    def wrappable(self) -> bool:
        """Whether there is a command. Args alone go to the image's ENTRYPOINT, which a command would replace."""
        return bool(self.container.command)


def targets(pod: Pod, images: Collection[str]) -> Iterator[Target]:
    """Yield the containers of Plane, init containers last; `images` are repositories of Plane's backend."""
    spec = pod.spec
    places: tuple[tuple[Place, list[Container] | None], ...] = (
        ("containers", spec.containers if spec else None),
        ("initContainers", spec.init_containers if spec else None),
    )
    for place, containers in places:
        for index, container in enumerate(containers or ()):
            # An init container that ends may borrow Plane's image to wait for something; a sidecar stays.
            stays = place == "containers" or container.restart_policy == "Always"
            words = command_line(container)
            role = _role(container, words, images, stays=stays)
            if role is not None:
                yield Target.of(place, index, container, role, words)


def _past_launcher(words: list[str], workload: str) -> bool:
    """Whether the command line itself shows that our launcher, which stands first on PATH, may take no part."""
    line = " ".join(words)
    # Without one of these there is nothing to be found, and most pods have none.
    hinted = "gunicorn" in line or "celery" in line or "manage.py" in line or "PATH=" in line
    if not hinted and not _LOGIN_HINT.search(line):
        return False
    line = text(words)
    programs = (match for match in islice(_PROGRAM.finditer(line), _STARTED) if _is_past_launcher(match, workload))
    return any(map(_is_run, chain(islice(_OTHER_PATH.finditer(line), _STARTED), programs)))


def _role(container: Container, words: list[str], images: Collection[str], *, stays: bool) -> str | Reason | None:
    if words and words[0].rpartition("/")[2] in _READERS:
        return None
    roles = _entrypoints(words)
    # An entrypoint says it in whatever image.
    own = roles.isdisjoint(WORKLOADS) and _is_one_of(_repository(container.image), images)
    if own:
        roles |= _programs(words)
    if roles:
        return min(roles, key=_ORDER.index)
    if own and not words:
        return "api"  # the image's own entrypoint
    if own and stays:
        return Reason.NOT_KNOWN
    if _repository(container.image).rpartition("/")[2] in FOREIGN_IMAGES:
        return Reason.NOT_A_PUBLISHER if any(map(_IDLE_FOREIGN.search, words)) else Reason.OTHER_MEANS
    return None


def _entrypoints(words: list[str]) -> set[str | Reason]:
    roles: set[str | Reason] = set()
    for word in words:
        if ENTRYPOINT_MARK in word:
            for match in _ENTRYPOINT.finditer(word):
                role = _entrypoint(match[1])
                if role not in roles and _is_run(match):
                    roles.add(role)
    return roles


def _entrypoint(name: str) -> str | Reason:
    if name in WORKLOADS:
        return name
    if name.endswith("-consumer"):
        return "consumer"
    if name in _OTHERWISE:
        return Reason.OTHER_MEANS
    return Reason.NOT_A_PUBLISHER if name in _NOTHING else Reason.NOT_KNOWN


def _programs(words: list[str]) -> set[str | Reason]:
    roles: set[str | Reason] = set()
    for match in _PROGRAM.finditer(text(words)):
        gunicorn, celery, command = match.groups()
        idle = command in _IDLE_COMMANDS
        role = "api" if gunicorn else celery or (Reason.NOT_A_PUBLISHER if idle else "consumer")
        if role not in roles and _is_run(match):
            roles.add(role)
    return roles


def _is_past_launcher(match: re.Match[str], workload: str) -> bool:
    before = _SEPARATOR.split(_lead(match, match.start() + 1))[-1]
    _, _, command = match.groups()
    if command is None:
        started = match.string[match.end() : match.end() + 1] != "/"
        return started and bool(_BY_PATH.search(before) or _OTHER_PYTHON.search(before))
    return workload == "consumer" and command not in _IDLE_COMMANDS and bool(_OTHER_PYTHON.search(before))


def _lead(match: re.Match[str], end: int) -> str:
    """The line in which something was found, up to `end`."""
    return match.string[max(0, end - _LEAD) : end].rpartition("\n")[2]


def _is_run(match: re.Match[str]) -> bool:
    """Whether what is named is executed there, and not only read or spoken of."""
    lead = _lead(match, match.end())
    simple = _SEPARATOR.split(lead)[-1].split(maxsplit=1)
    only_read = bool(simple) and simple[0] in _READERS and not _FLOWS_ON.match(match.string, match.end())
    return not only_read and not lead.lstrip().startswith("#")


def _is_one_of(repository: str, images: Collection[str]) -> bool:
    return f"/{repository}".endswith(tuple([f"/{each}" for each in images]))


def _repository(image: str | None) -> str:
    """The image's name without tag and digest."""
    head, slash, tail = (image or "").partition("@")[0].rpartition("/")
    return head + slash + tail.partition(":")[0]
