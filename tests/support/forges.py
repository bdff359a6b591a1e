"""Forges as far as they take commit statuses, over real HTTP: each accepts what its own reference describes, and
refuses the rest as the forge does. The forms were recorded from:

- GitHub: https://docs.github.com/en/rest/commits/statuses (fields, states), the limit of a description in its errors;
- GitLab: https://docs.gitlab.com/api/commits/#set-commit-pipeline-status;
- Gitea, Forgejo: `CreateStatusOption` and `CommitStatusState` of their swagger.v1.json;
- Bitbucket Cloud: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/;
- Bitbucket Data Center: https://developer.atlassian.com/server/bitbucket/how-tos/updating-build-status-for-commits.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controller.domain.apps.spec import StatusProvider
from tests.support.receivers import Received, Receiver, receiver

TOKEN = "s3cret-token-of-a-bot"
SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
BASIC = "Basic " + base64.b64encode(f"bot:{TOKEN}".encode()).decode()


@dataclass(frozen=True)
class RecordedForge:
    """`path` matches below the server's root, `logins` are the headers of which one is accepted, in lower case.
    `required` and `optional` are fields of the body; `lengths` are the longest values."""

    path: str
    logins: tuple[tuple[str, str], ...]
    states: frozenset[str]
    required: frozenset[str]
    optional: frozenset[str]
    lengths: tuple[tuple[str, int], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    repository: str = "team/demo.git"  # the path of its clone URL
    accepted: int = 201

    def answer(self, received: Received) -> tuple[int, dict[str, str]]:
        if not any(received.headers.get(name) == value for name, value in self.logins):
            return 401, {}
        if not re.fullmatch(self.path, received.path):
            return 404, {}
        body = received.json
        known = self.required <= body.keys() <= self.required | self.optional
        short = all(len(body.get(name, "")) <= most for name, most in self.lengths)
        asked = all(received.headers.get(name) == value for name, value in self.headers)
        typed = received.headers["content-type"] == "application/json"
        if not (known and short and asked and typed and body["state"] in self.states):
            return 422, {}
        return self.accepted, {}


def _bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


_GITEA = RecordedForge(
    path=rf"/api/v1/repos/team/demo/statuses/{SHA}",
    logins=(("authorization", f"token {TOKEN}"), ("authorization", BASIC)),
    states=frozenset({"pending", "success", "error", "failure", "warning"}),
    required=frozenset({"state"}),
    optional=frozenset({"context", "target_url", "description"}),
)

RECORDED: dict[StatusProvider, RecordedForge] = {
    StatusProvider.GITHUB: RecordedForge(
        path=rf"/api/v3/repos/team/demo/statuses/{SHA}",
        logins=(_bearer(TOKEN), ("authorization", BASIC)),
        states=frozenset({"error", "failure", "pending", "success"}),
        required=frozenset({"state"}),
        optional=frozenset({"target_url", "description", "context"}),
        lengths=(("description", 140),),
        headers=(("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")),
    ),
    StatusProvider.GITLAB: RecordedForge(
        path=rf"/api/v4/projects/team%2Fmodels%2Fdemo/statuses/{SHA}",
        logins=(("private-token", TOKEN),),
        states=frozenset({"pending", "running", "success", "failed", "canceled", "skipped"}),
        required=frozenset({"state"}),
        optional=frozenset(
            {"coverage", "description", "name", "context", "pipeline_id", "ref", "target_url"}
        ),
        lengths=(("name", 255), ("description", 255)),
        repository="team/models/demo.git",
    ),
    StatusProvider.GITEA: _GITEA,
    StatusProvider.FORGEJO: _GITEA,
    StatusProvider.BITBUCKET: RecordedForge(
        path=rf"/2\.0/repositories/team/demo/commit/{SHA}/statuses/build/?",
        logins=(_bearer(TOKEN), ("authorization", BASIC)),
        states=frozenset({"SUCCESSFUL", "FAILED", "INPROGRESS", "STOPPED"}),
        required=frozenset({"key", "state", "url"}),
        optional=frozenset({"name", "description", "refname", "type", "uuid"}),
        lengths=(("key", 40),),
    ),
    StatusProvider.BITBUCKET_SERVER: RecordedForge(
        path=rf"/rest/api/latest/projects/team/repos/demo/commits/{SHA}/builds",
        logins=(_bearer(TOKEN), ("authorization", BASIC)),
        states=frozenset({"INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED", "UNKNOWN"}),
        required=frozenset({"key", "state", "url"}),
        optional=frozenset(
            {"buildNumber", "description", "duration", "lastUpdated", "name", "parent", "ref", "testResults"}
        ),
        headers=(("x-atlassian-token", "no-check"),),
        repository="scm/team/demo.git",
        accepted=204,
    ),
}

Answer = Callable[[Received], tuple[int, dict[str, str]]]


@contextmanager
def forge_server(provider: StatusProvider) -> Iterator[Receiver]:
    with receiver() as there:
        there.answer = RECORDED[provider].answer
        yield there
