"""The APIs by which forges take commit statuses, as one table: path, names of fields and states, and how a request
authenticates. Pure; the runner's dispatcher sends what `Forge.request` returns.

The forms are those of the forges' own references:
GitHub https://docs.github.com/rest/commits/statuses#create-a-commit-status,
GitLab https://docs.gitlab.com/api/commits/#set-commit-pipeline-status,
Gitea and Forgejo `POST /repos/{owner}/{repo}/statuses/{sha}` of their swagger (`CreateStatusOption`),
Bitbucket Cloud https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/,
Bitbucket Data Center https://developer.atlassian.com/server/bitbucket/how-tos/updating-build-status-for-commits.
Gogs has none: its routes (internal/route/api/v1/api.go) know no statuses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from controller.domain.apps.commit_status import CommitState, CommitStatus
from controller.domain.apps.spec import CommitStatusSpec, StatusProvider
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import (
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    MessageKind,
    ReceiverResponse,
    judge,
    retry_after,
)
from controller.domain.secret import Secret

_MAX_KEY: Final = 40  # characters of the key of a build at Bitbucket
#: Hosts that take SSH on the port of HTTPS, for those whose network lets nothing else out.
_SSH_HOSTS: Final = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}
_GITHUB_TENANT: Final = re.compile(r"[a-z0-9-]+\.ghe\.com")  # GitHub Enterprise Cloud with data residency


class NoForge(ValueError):
    """The URL of a repository does not tell where commit statuses go. The message says why."""


@dataclass(frozen=True)
class _Form:
    """`api` is the base of the API below a server of one's own, `clouds` the bases of public servers by host. `path`
    has `{owner}`, `{name}` and `{sha}`, or `{project}`, which is both as one segment. `fields` are the names of the
    JSON for the context, the link and the description; `token` is the header with a token, and its value.
    """

    path: str
    states: Mapping[CommitState, str]
    fields: tuple[str, str, str]
    token: tuple[str, str] = ("Authorization", "Bearer {}")
    headers: tuple[tuple[str, str], ...] = ()
    api: str = ""
    clouds: tuple[tuple[str, str], ...] = ()
    named: bool = False  # the context is a key of limited length, and there is a `name` besides
    basic: bool = True  # takes a user's name and password


def _states(pending: str, success: str, failure: str, canceled: str) -> Mapping[CommitState, str]:
    return dict(zip(CommitState, (pending, success, failure, canceled), strict=True))


_GITEA: Final = _Form(
    path="repos/{owner}/{name}/statuses/{sha}",
    states=_states("pending", "success", "failure", "error"),
    fields=("context", "target_url", "description"),
    token=("Authorization", "token {}"),
    api="/api/v1",
)

_FORMS: Final[Mapping[StatusProvider, _Form]] = {
    StatusProvider.GITHUB: _Form(
        path="repos/{owner}/{name}/statuses/{sha}",
        states=_states("pending", "success", "failure", "error"),
        fields=("context", "target_url", "description"),
        headers=(("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28")),
        api="/api/v3",
        clouds=(("github.com", "https://api.github.com"),),
    ),
    StatusProvider.GITLAB: _Form(
        path="projects/{project}/statuses/{sha}",
        states=_states("running", "success", "failed", "canceled"),
        fields=("name", "target_url", "description"),
        token=("PRIVATE-TOKEN", "{}"),
        api="/api/v4",
        basic=False,
    ),
    StatusProvider.GITEA: _GITEA,
    StatusProvider.FORGEJO: _GITEA,
    StatusProvider.BITBUCKET: _Form(
        path="repositories/{owner}/{name}/commit/{sha}/statuses/build",
        states=_states("INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"),
        fields=("key", "url", "description"),
        clouds=(("bitbucket.org", "https://api.bitbucket.org/2.0"),),
        named=True,
    ),
    StatusProvider.BITBUCKET_SERVER: _Form(
        path="projects/{owner}/repos/{name}/commits/{sha}/builds",
        states=_states("INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED"),
        fields=("key", "url", "description"),
        headers=(("X-Atlassian-Token", "no-check"),),
        api="/rest/api/latest",
        named=True,
    ),
}


# --- where to ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForgeAddress:
    """`api` is the base of the API, `owner` and `name` are the repository there."""

    api: str
    owner: str
    name: str


def address_of(spec: CommitStatusSpec, repository: str) -> ForgeAddress:
    """Return where statuses of the commits of a repository go, given its URL. Raises NoForge."""
    form = _FORMS[spec.provider]
    host, origin, segments = _location(repository)
    if spec.provider is StatusProvider.BITBUCKET_SERVER and "scm" in segments:
        at = segments.index("scm")  # /scm/ is in URLs over HTTP only
        prefix, segments = segments[:at], segments[at + 1 :]
    elif spec.provider is StatusProvider.GITLAB:  # its groups have groups
        prefix = ()
    else:
        prefix, segments = segments[:-2], segments[-2:]
    if len(segments) < 2:
        raise NoForge(
            "needs a repository's url with an owner and a name, such as https://HOST/OWNER/NAME.git"
        )
    own = f"{origin}{''.join(f'/{quote(each)}' for each in prefix)}{form.api}" if form.api else ""
    if spec.provider is StatusProvider.GITHUB and _GITHUB_TENANT.fullmatch(host):
        own = f"https://api.{host}"
    api = spec.url.rstrip("/") or dict(form.clouds).get(host, own)
    if not api:
        raise NoForge(f"the repository is not at {form.clouds[0][0]}: name the API under 'url'")
    return ForgeAddress(api, "/".join(segments[:-1]), segments[-1])


def path_of(repository: str) -> str:
    """Return the path of a repository on its server, as in `group/name`; "" for one of this host."""
    try:
        return "/".join(_location(repository)[2])
    except NoForge:
        return ""


def takes(provider: StatusProvider) -> tuple[frozenset[str], ...]:
    """Return which keys of a Secret log in at a forge; one of the sets is needed."""
    passwords = (frozenset({"username", "password"}),) if _FORMS[provider].basic else ()
    return (frozenset({"token"}), *passwords)


def _location(repository: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the host, the origin of its web server, and the segments of the path."""
    scheme, separator, _ = repository.partition("://")
    if repository.startswith("/") or scheme == "file":
        raise NoForge(
            "is of no use for a repository on this host: remove it, or give the repository's url at the forge"
        )
    if not separator:  # user@host:path
        where, _, path = repository.partition(":")
        authority = where.rpartition("@")[2].lower()
        host = authority
    else:
        parts = urlsplit(repository)
        host, path = parts.hostname or "", parts.path
        authority = parts.netloc.rpartition("@")[2]  # without the user, who is one for Git
    host = _SSH_HOSTS.get(host, host)
    origin = f"{scheme}://{authority}" if separator and scheme in ("http", "https") else f"https://{host}"
    named = path.strip("/").removesuffix(".git")
    return host, origin, tuple(unquote(segment) for segment in named.split("/") if segment)


# --- what is sent -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForgeRequest:
    """A POST request. The headers hold a credential."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True)
class Forge:
    """Where the commit statuses of one app go. `context` tells them from those of others, `page` is their link,
    `credentials` are the values of a Secret, None if it does not exist."""

    app: AppName
    provider: StatusProvider
    address: ForgeAddress
    context: str
    page: str
    credentials: Mapping[str, Secret] | None

    def message(self, status: CommitStatus, now: float) -> Message:
        """Return the status as a message for the outbox. It has no credential in it."""
        body = json.dumps([status.revision, status.state, status.reason, status.description, now])
        digest = hashlib.sha256(f"{now} {body}".encode()).hexdigest()[:16]
        return Message(
            id=f"{MessageKind.COMMIT_STATUS}_{status.revision[:12]}_{digest}",
            app=self.app,
            pipeline=ComponentName(""),
            revision=status.revision,
            run="",
            secret="",
            url=self.address.api,
            body=body,
            due=now,
        )

    def request(self, message: Message) -> ForgeRequest:
        """Return the request that tells the forge of the status in a message. Raises KeyError if the credentials
        lack a key."""
        revision, state, reason, description, *_ = json.loads(message.body)
        status = CommitStatus(revision, CommitState(state), Reason(reason), description)
        form, at = _FORMS[self.provider], self.address
        path = form.path.format(
            owner=quote(at.owner, safe="~"),
            name=quote(at.name, safe=""),
            project=quote(f"{at.owner}/{at.name}", safe=""),
            sha=status.revision,
        )
        headers = {"Accept": "application/json", "Content-Type": "application/json", **dict(form.headers)}
        return ForgeRequest(
            f"{at.api}/{path}",
            {**headers, **self._login(form)},
            json.dumps(self._fields(form, status)).encode(),
        )

    def _fields(self, form: _Form, status: CommitStatus) -> dict[str, str]:
        context, link, description = form.fields
        said = {"state": form.states[status.state], link: self.page, description: status.description}
        if not form.named:
            return {context: self.context, **said}
        long = len(self.context) > _MAX_KEY
        key = hashlib.sha256(self.context.encode()).hexdigest()[:_MAX_KEY] if long else self.context
        return {context: key, "name": self.context, **said}

    def _login(self, form: _Form) -> dict[str, str]:
        credentials = self.credentials or {}
        if "token" in credentials or not form.basic:
            name, value = form.token
            return {name: value.format(credentials["token"].reveal())}
        pair = f"{credentials['username'].reveal()}:{credentials['password'].reveal()}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


# --- what an answer means ---------------------------------------------------------------------------------------

_WHY: Final = {
    401: "it does not accept the credentials",
    403: "the credentials may not set commit statuses, or it has had enough requests",
    404: "it has no such repository, or hides it from the credentials",
}
#: What GitLab answers with 400 to a status that a commit has already. The first delivery arrived, its answer did not.
_REPEATED: Final = b"Cannot transition status via :run from :running"


def judge_status(answer: ReceiverResponse, now: float) -> DeliveryDecision:
    """Decide about a forge's response. Credentials are corrected by people, so a refusal of them is tried again."""
    if answer.status == 400 and _REPEATED in answer.body:
        return DeliveryDecision(DeliveryOutcome.DELIVERED)
    if answer.status in (400, 422):
        why = f"it answers {answer.status}: it does not take this status of this commit"
        return DeliveryDecision(DeliveryOutcome.REFUSED, why)
    if answer.status in _WHY:
        why = f"it answers {answer.status}: {_WHY[answer.status]}"
        return DeliveryDecision(DeliveryOutcome.FAILED, why, retry_after(answer.retry_after, now))
    return judge(answer, now)
