"""Webhooks of all forges: signature, delivery id and refs. Pure; used by `hooks`. The payload only triggers a
fetch, so only the ref is read from it, to ignore pushes to other branches, and of pull requests which branch they are
about and whether they are open. Header names and formats are those
of each provider's documentation on webhooks."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from controller.domain.apps.branch_previews import BRANCHES, OpenPull, is_branch_name
from controller.domain.apps.spec import HookProvider
from controller.domain.apps.status import PreviewWatch
from controller.domain.names import AppName
from controller.web.bodies import read_json

TOLERANCE = 300.0  # seconds that a signed timestamp may be off (Standard Webhooks)

Headers = Mapping[str, str]  # names in lower case


@dataclass(frozen=True)
class SignatureScheme:
    """`signatures`: headers with the HMAC-SHA256 of the body, in hex behind `prefix`; the first one there counts.
    `delivery`: headers with the delivery id. `event`: header with the event's name; `pushes` are those of interest,
    empty for all."""

    signatures: tuple[tuple[str, str], ...]
    delivery: tuple[str, ...]
    event: str = ""
    pushes: frozenset[str] = frozenset()
    pings: frozenset[str] = frozenset()
    pulls: frozenset[str] = frozenset()


#: What Bitbucket Cloud calls the two kinds of tags.
_TAGS = ("tag", "annotated_tag")
_COMMIT = re.compile("[0-9a-f]{40}")
_PUSHES = frozenset(("push", "create", "delete"))
_PULLS = frozenset(("pull_request", "pull_request_sync"))
_GITEA = SignatureScheme(
    (("x-gitea-signature", ""), ("x-hub-signature-256", "sha256=")),
    ("x-gitea-delivery",),
    "x-gitea-event",
    _PUSHES,
    pulls=_PULLS,
)

SCHEMES: Mapping[HookProvider, SignatureScheme] = {
    HookProvider.GITHUB: SignatureScheme(
        (("x-hub-signature-256", "sha256="),),
        ("x-github-delivery",),
        "x-github-event",
        _PUSHES,
        frozenset(("ping",)),
        _PULLS,
    ),
    HookProvider.GITLAB: SignatureScheme(
        (),
        # The UUID of an event is the same for all events that one of our other hooks has led to.
        ("webhook-id", "idempotency-key", "x-gitlab-event-uuid"),
        "x-gitlab-event",
        frozenset(("Push Hook", "Tag Push Hook")),
        pulls=frozenset(("Merge Request Hook",)),
    ),
    HookProvider.GITEA: _GITEA,
    HookProvider.FORGEJO: SignatureScheme(
        (("x-forgejo-signature", ""), *_GITEA.signatures),
        ("x-forgejo-delivery", "x-gitea-delivery"),
        "x-forgejo-event",
        _PUSHES,
        pulls=_PULLS,
    ),
    HookProvider.GOGS: SignatureScheme(
        (("x-gogs-signature", ""),), ("x-gogs-delivery",), "x-gogs-event", _PUSHES
    ),
    HookProvider.BITBUCKET: SignatureScheme(
        (("x-hub-signature", "sha256="),),
        ("x-request-uuid", "x-request-id"),
        "x-event-key",
        frozenset(("repo:push", "repo:refs_changed")),
        frozenset(("diagnostics:ping",)),
    ),
    HookProvider.GENERIC: SignatureScheme((("x-signature", "sha256="),), ("x-delivery",)),
}


def is_genuine(provider: HookProvider, secret: str, headers: Headers, body: bytes, now: float) -> bool:
    """Return True if someone who knows `secret` sent exactly this body. An empty secret never matches."""
    if not secret:
        return False
    if provider is HookProvider.GITLAB:
        return _is_genuine_gitlab(secret, headers, body, now)
    for name, prefix in SCHEMES[provider].signatures:
        if name in headers:
            return _equal(headers[name], prefix + hmac.new(secret.encode(), body, "sha256").hexdigest())
    return False


def bears_signature(provider: HookProvider, headers: Headers) -> bool:
    """Return True if the request has a signature."""
    return any(name in headers for name, _ in SCHEMES[provider].signatures)


def sign(secret: str, data: bytes) -> str:
    """Return the generic scheme's `X-Signature`."""
    return "sha256=" + hmac.new(secret.encode(), data, "sha256").hexdigest()


def is_signed(secret: str, data: bytes, signature: str) -> bool:
    return bool(secret) and _equal(signature, sign(secret, data))


def _is_genuine_gitlab(secret: str, headers: Headers, body: bytes, now: float) -> bool:
    """Check GitLab's signature if the secret is a signing key (`whsec_…`), else its token."""
    if not secret.startswith("whsec_"):
        return _equal(headers.get("x-gitlab-token", ""), secret)
    identity, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        fresh = abs(int(timestamp) - now) <= TOLERANCE
    except (binascii.Error, ValueError):
        return False
    data = b".".join((identity.encode(), timestamp.encode(), body))
    expected = "v1," + base64.b64encode(hmac.digest(key, data, "sha256")).decode()
    sent = headers.get("webhook-signature", "").split()
    return bool(identity) and fresh and any(_equal(one, expected) for one in sent)


def _equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), expected.encode())


def delivery_id(provider: HookProvider, headers: Headers) -> str:
    """Return the provider's id of this delivery; empty if there is none that is valid in a URL."""
    for name in SCHEMES[provider].delivery:
        sent = headers.get(name, "").strip("{}")
        if sent and len(sent) <= 128 and all(c.isascii() and (c.isalnum() or c in "-_.:") for c in sent):
            return sent
    return ""


def is_ping(provider: HookProvider, headers: Headers) -> bool:
    scheme = SCHEMES[provider]
    return headers.get(scheme.event, "") in scheme.pings if scheme.event else False


def is_of_server(provider: HookProvider, headers: Headers) -> bool:
    """Return True for a hook that GitLab's administrator has set up for all projects of the server. Its header does not
    tell what an event is about: `server_event` reads it in the body."""
    return provider is HookProvider.GITLAB and headers.get("x-gitlab-event") == "System Hook"


class ServerEvent(NamedTuple):
    """What a hook of the whole server tells: the kind of the event."""

    kind: str

    @property
    def is_push(self) -> bool:
        return self.kind in ("push", "tag_push", "repository_update", "")

    @property
    def is_pull(self) -> bool:
        return self.kind == "merge_request"


def is_about(project: str, path: str) -> bool:
    """Return True if `path` is that of the project's repository; a forge may be served below a path of its own."""
    return bool(project) and f"/{path}".lower().endswith(f"/{project}".lower())


def server_event(body: bytes) -> ServerEvent:
    """Return the event of a body. Raises RequestRefused."""
    payload = read_json(body)
    kind = _at(payload, "event_name") or _at(payload, "object_kind")
    return ServerEvent(kind if isinstance(kind, str) else "")


def is_push(provider: HookProvider, headers: Headers) -> bool:
    """Return True for a push; requests of providers without an event's name count as pushes."""
    scheme = SCHEMES[provider]
    event = headers.get(scheme.event, "") if scheme.event else ""
    return not event or event in scheme.pushes


def is_pull(provider: HookProvider, headers: Headers) -> bool:
    """Return True for an event about a pull or merge request."""
    scheme = SCHEMES[provider]
    return bool(scheme.event) and headers.get(scheme.event, "") in scheme.pulls


@dataclass(frozen=True)
class PullEvent:
    """What a forge says about a pull request: the request, whether it is open, and the path of the project that has
    numbered it, "" if the body does not tell."""

    pull: OpenPull
    is_open: bool
    project: str = ""


def pull_of(body: bytes) -> PullEvent | None:
    """Return the pull request that the body is about; None if it names none. Raises RequestRefused."""
    return pull_event(read_json(body))


def pull_event(payload: Any) -> PullEvent | None:
    """GitHub, Gitea, Forgejo: `pull_request.{number,state,head.{ref,repo.id},base.repo.id}` and `repository.full_name`;
    GitLab: `object_attributes.{iid,state,source_branch,source_project_id,target_project_id}` and
    `project.path_with_namespace`. Where a request comes from is compared by ids, which a fork cannot choose; one
    without them counts as a fork's."""
    pull, merge = _at(payload, "pull_request"), _at(payload, "object_attributes")
    if isinstance(pull, dict):
        number, state, branch = _at(pull, "number"), _at(pull, "state"), _at(pull, "head", "ref")
        source, target = _at(pull, "head", "repo", "id"), _at(pull, "base", "repo", "id")
        project = _at(payload, "repository", "full_name")
    else:
        number, state, branch = (_at(merge, name) for name in ("iid", "state", "source_branch"))
        source, target = _at(merge, "source_project_id"), _at(merge, "target_project_id")
        project = _at(payload, "project", "path_with_namespace")
    if type(number) is not int or not 0 < number < 10**10 or not isinstance(branch, str):
        return None
    branch = branch.removeprefix(BRANCHES)
    if not is_branch_name(branch):
        return None
    is_own = type(source) is int and source == target
    pull, is_open = OpenPull(number, branch, is_fork=not is_own), state in ("open", "opened", "reopened")
    return PullEvent(pull, is_open, project if isinstance(project, str) else "")


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def concerned_previews(refs: frozenset[str], watches: Iterable[PreviewWatch]) -> tuple[AppName, ...]:
    """Return the apps of which one of `refs` may have a preview; all of them if no ref is known."""
    branches = [ref.removeprefix(BRANCHES) for ref in refs if ref.startswith(BRANCHES)]
    return tuple(
        watch.app
        for watch in watches
        if not refs or any(fnmatchcase(name, each) for name in branches for each in watch.branches)
    )


def refs_of(body: bytes) -> frozenset[str]:
    """Return the refs that the body names. Raises RequestRefused."""
    return pushed_refs(read_json(body))


class OwnPush(NamedTuple):
    """What our own hook sends; "" for what it does not say. `push` is the id of a push over HTTPS."""

    after: str
    ref: str
    pusher: str
    push: str


def own_push(body: bytes) -> tuple[OwnPush, frozenset[str]]:
    """Return what our own hook says, and the refs that the body names. Raises RequestRefused."""
    payload = read_json(body)
    found = [payload.get(key) if isinstance(payload, dict) else None for key in OwnPush._fields]
    told = OwnPush(*(value if isinstance(value, str) else "" for value in found))
    return told if _COMMIT.fullmatch(told.after) else OwnPush("", "", "", ""), pushed_refs(payload)


def pushed_refs(payload: Any) -> frozenset[str]:
    """Return the full names of the refs in a payload."""
    if not isinstance(payload, dict):
        return frozenset()
    ref = payload.get("ref")
    found = [_full_name(ref, payload.get("ref_type")), *_changed_refs(payload)]
    return frozenset(ref for ref in found if isinstance(ref, str) and ref)


def _full_name(ref: Any, kind: Any) -> Any:
    """Return the full name; GitHub's and Gitea's `create` events send the short name and its type."""
    folder = {"tag": "refs/tags/", "branch": "refs/heads/"}.get(kind) if isinstance(kind, str) else None
    return f"{folder}{ref.removeprefix(folder)}" if folder and isinstance(ref, str) else ref


def _changed_refs(payload: dict[str, Any]) -> Iterator[Any]:
    """Cloud: `push.changes[].new|old.{type,name}`; Data Center: `changes[].ref.id`; a system hook of GitLab about all
    that a push has changed: `changes[].ref`."""
    push = payload.get("push")
    changes = push.get("changes") if isinstance(push, dict) else payload.get("changes")
    for change in changes if isinstance(changes, list) else []:
        if not isinstance(change, dict):
            continue
        for side in (change.get("new"), change.get("old")):
            if isinstance(side, dict):
                yield _full_name(side.get("name"), "tag" if side.get("type") in _TAGS else "branch")
        ref = change.get("ref")
        yield ref.get("id") if isinstance(ref, dict) else ref


def concerns(refs: frozenset[str], wanted: str) -> bool:
    """Return True if one of `refs` may be what a repository follows (`branch:main`, `tag:v1`, `semver:>=1`,
    `commit:…`)."""
    kind, _, name = wanted.partition(":")
    if not refs or kind == "commit":
        return True
    match kind:
        case "branch":
            return f"refs/heads/{name}" in refs
        case "tag":
            return f"refs/tags/{name}" in refs
        case _:
            return any(ref.startswith("refs/tags/") for ref in refs)
