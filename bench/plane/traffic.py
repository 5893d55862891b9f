"""What people and programs ask of a Plane: three kinds of requests, each with a mark by which its task is known again.

An export publishes one task; so does a read with an API token, for Plane logs each of those; a read with a session
publishes nothing. The marks are UUIDs, for Plane takes them as ids of projects in an export.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import httpx

from lab.cache import LabError
from lab.realplane.release import EMAIL, PASSWORD, WORKSPACE

if TYPE_CHECKING:
    from lab.realplane.release import Release

Kind = Literal["export", "token", "session"]

PATIENCE = 120.0  # seconds that a client waits for an answer
EXPORT_PAUSE, SESSION_PAUSE = 0.3, 0.1  # seconds between one client's requests
NO_ANSWER = 0
_PREFIX = "1ab1ab1a"
MARK = re.compile(rf"{_PREFIX}-[0-9a-f-]{{27}}")


@dataclass(frozen=True)
class Request:
    """One request: when it was made (monotonic), how long it took and what was answered; NO_ANSWER if nothing was."""

    kind: Kind
    mark: str
    start: float
    seconds: float
    status: int

    @property
    def end(self) -> float:
        """When the answer was there."""
        return self.start + self.seconds


@dataclass
class Traffic:
    """Clients of one release, until told to stop: `exporters` in a closed loop, token reads at a steady rate."""

    release: Release
    exporters: int
    token_rate: float  # a second, whether or not the earlier ones were answered
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = asyncio.Event()
        session = sign_in(self.release)
        # None is kept: a request on one that the server is just about to close would be answered by nobody's fault.
        limits = httpx.Limits(max_connections=2000, max_keepalive_connections=0)
        self._people = httpx.AsyncClient(
            base_url=session.base_url, cookies=session.cookies, timeout=PATIENCE, limits=limits
        )
        self._program = httpx.AsyncClient(
            base_url=session.base_url,
            headers={"X-Api-Key": self.release.seed.token},
            timeout=PATIENCE,
            limits=limits,
        )

    async def run(self) -> None:
        """Ask until `stop`, and then wait for what is still to be answered."""
        async with self._people, self._program:
            await asyncio.gather(*(self._export() for _ in range(self.exporters)), self._read_tokens(), self._read())

    def stop(self) -> None:
        """Have `run` end."""
        self._over.set()

    async def _export(self) -> None:
        while not self._over.is_set():
            mark = new_mark()
            body = {"provider": "csv", "project": [self.release.seed.project, mark], "multiple": False}
            path = f"/api/workspaces/{WORKSPACE}/export-issues/"
            await self._ask("export", mark, self._people.build_request("POST", path, json=body), self._people)
            await asyncio.sleep(EXPORT_PAUSE)

    async def _read_tokens(self) -> None:
        asked: list[asyncio.Task[None]] = []
        while not self._over.is_set():
            mark = new_mark()
            path = f"/api/v1/workspaces/{WORKSPACE}/projects/?mark={mark}"
            request = self._program.build_request("GET", path)
            asked.append(asyncio.create_task(self._ask("token", mark, request, self._program)))
            await asyncio.sleep(1 / self.token_rate)
        await asyncio.gather(*asked)

    async def _read(self) -> None:
        while not self._over.is_set():
            request = self._people.build_request("GET", "/api/users/me/")
            await self._ask("session", "", request, self._people)
            await asyncio.sleep(SESSION_PAUSE)

    async def _ask(self, kind: Kind, mark: str, request: httpx.Request, client: httpx.AsyncClient) -> None:
        start = time.monotonic()
        try:
            status = (await client.send(request)).status_code
        except httpx.HTTPError:
            status = NO_ANSWER
        self.requests.append(Request(kind, mark, start, time.monotonic() - start, status))


def new_mark() -> str:
    """Return a mark that no other request has."""
    return _PREFIX + str(uuid.uuid4())[8:]


def sign_in(release: Release) -> httpx.Client:
    """Return a client with the session of the workspace's owner."""
    url = f"http://127.0.0.1:{release.port}"
    client = httpx.Client(base_url=url, timeout=PATIENCE)
    csrf = client.get("/auth/get-csrf-token/").json()["csrf_token"]
    form = {"email": EMAIL, "password": PASSWORD, "csrfmiddlewaretoken": csrf}
    answer = client.post("/auth/sign-in/", data=form, headers={"Referer": f"{url}/"})
    if "session-id" not in client.cookies:
        raise LabError(f"{release.name}: nobody can sign in: {answer.status_code} {answer.headers.get('location')}")
    return client
