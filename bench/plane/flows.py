"""A walk through Plane's API as its clients use it: nearly every step publishes, and none may be answered otherwise."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from bench.plane.arrivals import Arrivals
from bench.plane.together import each
from bench.plane.traffic import PATIENCE, sign_in
from lab.realplane.release import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.realplane.release import Release

SETTLE = 3.0  # seconds for the last tasks to arrive
ISSUES = 6
HTML = {"description_html": "<p>text</p>"}


@dataclass
class Walk:
    """One walk: what was answered to each step, and which tasks came of it."""

    release: Release
    steps: list[tuple[str, int]] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._session = sign_in(self.release)
        key = {"X-Api-Key": self.release.seed.token}
        self._program = httpx.Client(base_url=self._session.base_url, headers=key, timeout=PATIENCE)
        self._workspace = f"/api/workspaces/{WORKSPACE}"
        self._project = f"{self._workspace}/projects/{self.release.seed.project}"

    def run(self) -> None:
        """Take all the steps, and count what they published."""
        with Arrivals(self.release) as arrivals:
            self._settings()
            issues = [self._id(self._ask("POST", "issues/", {"name": f"issue {n}", **HTML})) for n in range(ISSUES)]
            self._issues(issues)
            self._collections(issues)
            self._pages()
            self._exports()
            self._programs()
            time.sleep(SETTLE)
            self.tasks = arrivals.tasks()

    def _settings(self) -> None:
        hook = {
            "url": f"{self.release.storage.url}/walk",
            "project": True,
            "issue": True,
            "cycle": True,
            "module": True,
        }
        self._ask("POST", f"{self._workspace}/webhooks/", hook)
        self._ask("POST", f"{self._workspace}/projects/", {"name": "Other", "identifier": "OTH", "network": 2})
        invited = [{"email": "invited@example.com", "role": 15}]
        self._ask("POST", f"{self._workspace}/invitations/", {"emails": invited})
        self._ask("POST", f"{self._workspace}/projects/", {"name": "", "identifier": ""})

    def _issues(self, issues: Sequence[str]) -> None:
        member = self.release.seed.member
        for number, issue in enumerate(issues):
            self._ask("PATCH", f"issues/{issue}/", {"name": f"renamed {number}", "assignee_ids": [member]})
        first = f"issues/{issues[0]}"
        self._ask("GET", f"{first}/")
        comment = self._id(self._ask("POST", f"{first}/comments/", {"comment_html": "<p>hello</p>"}))
        self._ask("PATCH", f"{first}/comments/{comment}/", {"comment_html": "<p>hello again</p>"})
        self._ask("POST", f"comments/{comment}/reactions/", {"reaction": "128077"})
        self._ask("DELETE", f"{first}/comments/{comment}/")
        self._ask("POST", f"{first}/reactions/", {"reaction": "128077"})
        self._ask("POST", f"{first}/issue-links/", {"url": "https://example.com/", "title": "a link"})
        self._ask("POST", f"{first}/sub-issues/", {"sub_issue_ids": issues[1:3]})
        self._ask("POST", f"{first}/issue-relation/", {"relation_type": "blocked_by", "issues": issues[3:4]})
        self._ask("DELETE", f"issues/{issues[-1]}/")
        self._ask("POST", "issues/", {"name": ""})

    def _collections(self, issues: Sequence[str]) -> None:
        dates = {"start_date": "2030-01-01T00:00:00Z", "end_date": "2030-02-01T00:00:00Z"}
        cycle = self._id(self._ask("POST", "cycles/", {"name": "cycle", **dates}))
        self._ask("POST", f"cycles/{cycle}/cycle-issues/", {"issues": issues[:3]})
        self._ask("PATCH", f"cycles/{cycle}/", {"name": "cycle, renamed"})
        self._ask("DELETE", f"cycles/{cycle}/cycle-issues/{issues[0]}/")
        module = self._id(self._ask("POST", "modules/", {"name": "module"}))
        self._ask("POST", f"modules/{module}/issues/", {"issues": issues[:3]})
        self._ask("PATCH", f"modules/{module}/", {"name": "module, renamed"})
        self._ask("DELETE", f"modules/{module}/issues/{issues[0]}/")

    def _pages(self) -> None:
        page = self._id(self._ask("POST", "pages/", {"name": "page", **HTML}))
        self._ask("PATCH", f"pages/{page}/", {"name": "page, renamed"})
        content = {"description_binary": "AAAA", "description_json": {}, **HTML}
        self._ask("PATCH", f"pages/{page}/description/", content)
        self._ask("POST", f"pages/{page}/duplicate/", {})

    def _exports(self) -> None:
        for provider in ("csv", "xlsx", "json", "none"):
            body = {"provider": provider, "project": [self.release.seed.project], "multiple": True}
            self._ask("POST", f"{self._workspace}/export-issues/", body)
        self._ask("POST", f"{self._workspace}/export-analytics/", {"x_axis": "priority", "y_axis": "issue_count"})

    def _programs(self) -> None:
        project = f"/api/v1/workspaces/{WORKSPACE}/projects/{self.release.seed.project}"
        issue = self._id(self._ask("POST", f"{project}/issues/", {"name": "by a program"}))
        self._ask("GET", f"{project}/issues/")
        self._ask("PATCH", f"{project}/issues/{issue}/", {"name": "by a program, renamed"})
        self._ask("POST", f"{project}/issues/{issue}/comments/", {"comment_html": "<p>hello</p>"})
        self._ask("DELETE", f"{project}/issues/{issue}/")
        self._ask("GET", f"{project}/issues/{issue}/")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Take a step. `path` is one of the project's, if it doesn't start with a slash."""
        client = self._program if path.startswith("/api/v1/") else self._session
        whole = path if path.startswith("/") else f"{self._project}/{path}"
        answer = client.request(method, whole, json=body)
        step = "/".join("ID" if len(word) == 36 else word for word in whole.split("/"))
        self.steps.append((f"{method} {step}", answer.status_code))
        return answer.json() if answer.is_success and answer.content else {}

    def _id(self, answer: Any) -> str:
        return str(answer.get("id", "none"))


def measure(releases: Sequence[Release]) -> dict[str, Walk]:
    """Walk through all the releases, side by side; the walks, by the releases' names."""
    walks = [Walk(release) for release in releases]
    each(walks, lambda walk: walk.run())
    return {walk.release.name: walk for walk in walks}


def differences(one: Walk, other: Walk) -> list[str]:
    """What was answered, or published, another way; empty if nothing was."""
    answered = [
        f"{step}: {status} by {one.release.name}, {its} by {other.release.name}"
        for (step, status), (_, its) in zip(one.steps, other.steps, strict=True)
        if status != its
    ]
    published = [
        f"{task}: {one.tasks[task]} by {one.release.name}, {other.tasks[task]} by {other.release.name}"
        for task in sorted(one.tasks.keys() | other.tasks.keys())
        if one.tasks[task] != other.tasks[task]
    ]
    return answered + published
