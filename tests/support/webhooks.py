"""Webhooks as the forges send them: header names and payload shapes as captured from each, cut down to what matters,
and signed again with a secret of ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.domain.apps.spec import HookProvider

SECRET = "correct horse battery staple"
SIGNING_KEY = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NOW = 1_790_000_000.0  # when the signed timestamps were made
SHA = "c0ffee0123456789c0ffee0123456789c0ffee01"


@dataclass(frozen=True)
class Captured:
    """`headers` have lower-case names, as the server hands them on."""

    name: str
    provider: HookProvider
    headers: Mapping[str, str]
    payload: Any
    body: bytes
    ref: str
    delivery: str
    signature_header: str
    secret: str = SECRET

    @property
    def signs_body(self) -> bool:
        return self.signature_header != "x-gitlab-token"


def hmac_hex(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _capture(
    name: str,
    provider: HookProvider,
    headers: Mapping[str, str],
    payload: Any,
    delivery: str,
    signature: tuple[str, str],
    ref: str = "refs/heads/main",
    more_signatures: Mapping[str, str] | None = None,
) -> Captured:
    body = json.dumps(payload).encode()
    signed = {signature[0]: signature[1] + hmac_hex(body)}
    also = {header: prefix + hmac_hex(body) for header, prefix in (more_signatures or {}).items()}
    return Captured(
        name,
        provider,
        {"content-type": "application/json", **headers, **also, **signed},
        payload,
        body,
        ref,
        delivery,
        signature[0],
    )


def _push(**more: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": SHA,
        "repository": {"full_name": "team/demo"},
        "pusher": {"name": "ann"},
        "commits": [{"id": SHA, "message": "Second model"}],
        **more,
    }


def _github() -> list[Captured]:
    def headers(event: str) -> dict[str, str]:
        return {
            "user-agent": "GitHub-Hookshot/abc1234",
            "x-github-event": event,
            "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "x-github-hook-id": "292430182",
        }

    signature = ("x-hub-signature-256", "sha256=")
    delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    created = {
        "ref": "v1.2.0",
        "ref_type": "tag",
        "master_branch": "main",
        "repository": {"full_name": "team/demo"},
    }
    return [
        _capture(
            "github-push", HookProvider.GITHUB, headers("push"), _push(forced=False), delivery, signature
        ),
        _capture(
            "github-tag",
            HookProvider.GITHUB,
            headers("create"),
            created,
            delivery,
            signature,
            "refs/tags/v1.2.0",
        ),
    ]


def _gitlab() -> list[Captured]:
    payload = {
        "object_kind": "push",
        "event_name": "push",
        "ref": "refs/heads/main",
        "checkout_sha": SHA,
        "project": {"path_with_namespace": "team/demo"},
    }
    body = json.dumps(payload).encode()
    common = {
        "content-type": "application/json",
        "user-agent": "GitLab/18.2",
        "x-gitlab-event": "Push Hook",
        "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "idempotency-key": "f5e57fe4-4dd2-41b6-9c9f-d2c84b3a5c25",
    }
    identity, timestamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", str(int(NOW))
    key = base64.b64decode(SIGNING_KEY.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{identity}.{timestamp}.".encode() + body, "sha256")
    signature = {
        "webhook-id": identity,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
    ref, delivery = "refs/heads/main", common["idempotency-key"]
    return [
        Captured(
            "gitlab-token",
            HookProvider.GITLAB,
            {**common, "x-gitlab-token": SECRET},
            payload,
            body,
            ref,
            delivery,
            "x-gitlab-token",
        ),
        Captured(
            "gitlab-signature",
            HookProvider.GITLAB,
            {**common, **signature},
            payload,
            body,
            ref,
            identity,
            "webhook-signature",
            SIGNING_KEY,
        ),
    ]


def _gitea_family() -> list[Captured]:
    delivery = "f6266f16-1bf3-46a5-9ea4-602e06ead473"
    gogs = {"x-gogs-delivery": delivery, "x-gogs-event": "push"}
    gitea = {"x-gitea-delivery": delivery, "x-gitea-event": "push", "x-gitea-event-type": "push"}
    github = {"x-github-delivery": delivery, "x-github-event": "push"}
    also = {"x-hub-signature-256": "sha256=", "x-gogs-signature": ""}
    forgejo = {**gitea, **gogs, **github, "x-forgejo-delivery": delivery, "x-forgejo-event": "push"}
    return [
        _capture("gogs", HookProvider.GOGS, gogs, _push(), delivery, ("x-gogs-signature", "")),
        _capture(
            "gitea",
            HookProvider.GITEA,
            {**gitea, **gogs, **github},
            _push(),
            delivery,
            ("x-gitea-signature", ""),
            more_signatures=also,
        ),
        _capture(
            "forgejo",
            HookProvider.FORGEJO,
            forgejo,
            _push(),
            delivery,
            ("x-forgejo-signature", ""),
            more_signatures={**also, "x-gitea-signature": ""},
        ),
    ]


def _bitbucket() -> list[Captured]:
    cloud = {
        "push": {
            "changes": [
                {
                    "new": {"type": "branch", "name": "main", "target": {"hash": SHA}},
                    "old": {"type": "branch", "name": "main", "target": {"hash": "0" * 40}},
                }
            ]
        },
        "repository": {"full_name": "team/demo"},
    }
    server = {
        "eventKey": "repo:refs_changed",
        "changes": [
            {"ref": {"id": "refs/tags/v1", "displayId": "v1", "type": "TAG"}, "type": "ADD", "toHash": SHA}
        ],
    }
    signature = ("x-hub-signature", "sha256=")
    return [
        _capture(
            "bitbucket-cloud",
            HookProvider.BITBUCKET,
            {
                "x-event-key": "repo:push",
                "x-request-uuid": "9c6e7e2c-7a7e-4b8f-9f0e-6a4d7a3a2b1c",
                "x-attempt-number": "1",
            },
            cloud,
            "9c6e7e2c-7a7e-4b8f-9f0e-6a4d7a3a2b1c",
            signature,
        ),
        _capture(
            "bitbucket-server",
            HookProvider.BITBUCKET,
            {"x-event-key": "repo:refs_changed", "x-request-id": "1cf7a8a2-94f7-4f37-9ac3-0ca3d3a11fd1"},
            server,
            "1cf7a8a2-94f7-4f37-9ac3-0ca3d3a11fd1",
            signature,
            "refs/tags/v1",
        ),
    ]


def _generic() -> list[Captured]:
    return [
        _capture(
            "generic",
            HookProvider.GENERIC,
            {"x-delivery": "4711"},
            {"ref": "refs/heads/main"},
            "4711",
            ("x-signature", "sha256="),
        )
    ]


CAPTURED: tuple[Captured, ...] = (*_github(), *_gitlab(), *_gitea_family(), *_bitbucket(), *_generic())
