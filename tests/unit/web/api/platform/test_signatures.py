"""Webhooks of all forges: the shapes of their headers and payloads, genuine and not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import HookProvider
from controller.web.api.platform.signatures import (
    SCHEMES,
    concerns,
    delivery_id,
    is_genuine,
    is_ping,
    is_push,
    is_signed,
    pushed_refs,
    refs_of,
    sign,
)
from tests.support.pages import ROOT, blocks
from tests.support.webhooks import CAPTURED, NOW, SECRET, SIGNING_KEY, Captured


@pytest.mark.parametrize("hook", CAPTURED, ids=lambda hook: hook.name)
def test_a_genuine_hook_is_understood(hook: Captured) -> None:
    assert is_genuine(hook.provider, hook.secret, hook.headers, hook.body, NOW)
    assert is_push(hook.provider, hook.headers)
    assert not is_ping(hook.provider, hook.headers)
    assert delivery_id(hook.provider, hook.headers) == hook.delivery
    assert pushed_refs(hook.payload) == {hook.ref}


@pytest.mark.parametrize("hook", CAPTURED, ids=lambda hook: hook.name)
def test_whatever_is_changed_is_noticed(hook: Captured) -> None:
    signature = hook.signature_header
    signatures = {signature, *(name for name, _ in SCHEMES[hook.provider].signatures)}
    without = {name: value for name, value in hook.headers.items() if name not in signatures}
    sent = hook.headers[signature]
    forged = [
        (without, hook.body),
        ({**without, signature: ""}, hook.body),
        ({**without, signature: sent[:-1]}, hook.body),
        ({**without, signature: sent[: len(sent) // 2]}, hook.body),
        ({**without, signature: "\xe9" + sent}, hook.body),
    ]
    if hook.signs_body:
        forged += [(dict(hook.headers), hook.body + b" "), (dict(hook.headers), hook.body[:-1])]
    for headers, body in forged:
        assert not is_genuine(hook.provider, hook.secret, headers, body, NOW)
    assert not is_genuine(hook.provider, hook.secret + "x", hook.headers, hook.body, NOW)


@pytest.mark.parametrize("provider", HookProvider)
def test_an_empty_secret_vouches_for_nothing(provider: HookProvider) -> None:
    body = b"{}"
    digest = hmac.new(b"", body, hashlib.sha256).hexdigest()
    headers = {"x-gitlab-token": ""}
    for name, prefix in SCHEMES[provider].signatures:
        headers[name] = prefix + digest
    assert not is_genuine(provider, "", headers, body, NOW)


@pytest.mark.parametrize("offset", [-301, 301, 10**9])
def test_an_old_signed_timestamp_is_refused(offset: int) -> None:
    hook = next(hook for hook in CAPTURED if hook.secret == SIGNING_KEY)
    assert not is_genuine(hook.provider, hook.secret, hook.headers, hook.body, NOW + offset)


def test_a_signing_key_is_not_also_a_token() -> None:
    assert not is_genuine(HookProvider.GITLAB, SIGNING_KEY, {"x-gitlab-token": SIGNING_KEY}, b"{}", NOW)


def test_one_of_several_signatures_suffices() -> None:
    """While a key is being changed the sender signs with both."""
    hook = next(hook for hook in CAPTURED if hook.secret == SIGNING_KEY)
    stale = "v1," + base64.b64encode(bytes(32)).decode()
    headers = {**hook.headers, "webhook-signature": f"{stale} {hook.headers['webhook-signature']}"}
    assert is_genuine(hook.provider, hook.secret, headers, hook.body, NOW)


@pytest.mark.parametrize(
    ("provider", "headers"),
    [
        (HookProvider.GITHUB, {"x-github-event": "ping"}),
        (HookProvider.BITBUCKET, {"x-event-key": "diagnostics:ping"}),
    ],
)
def test_pings(provider: HookProvider, headers: dict[str, str]) -> None:
    assert is_ping(provider, headers)


@pytest.mark.parametrize(
    ("provider", "headers"),
    [
        (HookProvider.GITHUB, {"x-github-event": "issues"}),
        (HookProvider.GITLAB, {"x-gitlab-event": "Pipeline Hook"}),
        (HookProvider.GITEA, {"x-gitea-event": "issue_comment"}),
        (HookProvider.BITBUCKET, {"x-event-key": "pullrequest:created"}),
    ],
)
def test_other_events_are_not_pushes(provider: HookProvider, headers: dict[str, str]) -> None:
    assert not is_push(provider, headers)


@pytest.mark.parametrize("identity", ["../../x", "a b", "é", "x" * 200, "a/b", "", "\r\n"])
def test_a_delivery_id_that_could_not_stand_in_a_url_is_none(identity: str) -> None:
    assert delivery_id(HookProvider.GENERIC, {"x-delivery": identity}) == ""


@pytest.mark.parametrize(
    ("refs", "wanted", "does"),
    [
        ({"refs/heads/main"}, "branch:main", True),
        ({"refs/heads/main-2"}, "branch:main", False),
        ({"refs/heads/x", "refs/heads/main"}, "branch:main", True),
        ({"refs/tags/main"}, "branch:main", False),
        ({"refs/tags/v1"}, "tag:v1", True),
        ({"refs/heads/v1"}, "tag:v1", False),
        ({"refs/tags/v1.2.3"}, "semver:>=1", True),
        ({"refs/heads/main"}, "semver:>=1", False),
        ({"refs/heads/main"}, "commit:c0ffee", True),
        (set(), "branch:main", True),
    ],
)
def test_which_refs_concern_a_repository(refs: set[str], wanted: str, does: bool) -> None:
    assert concerns(frozenset(refs), wanted) is does


@pytest.mark.parametrize(
    "payload",
    [None, 1, [], {"ref": []}, {"ref": {}}, {"push": 1}, {"changes": [1, {"new": 1, "ref": {"id": []}}]}],
)
def test_a_strange_payload_names_no_ref(payload: Any) -> None:
    assert pushed_refs(payload) == frozenset()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["ref", "ref_type", "push", "changes", "new", "name", "type", "id"]), inner
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_payload_breaks_the_reading(payload: Any) -> None:
    assert all(isinstance(ref, str) for ref in pushed_refs(payload))


def test_signing_and_checking_agree() -> None:
    assert is_signed(SECRET, b"/-/hooks/demo/1?wait=5", sign(SECRET, b"/-/hooks/demo/1?wait=5"))
    assert not is_signed(SECRET, b"/-/hooks/demo/1?wait=6", sign(SECRET, b"/-/hooks/demo/1?wait=5"))
    assert not is_signed("", b"x", sign("", b"x"))


TELLING_CURL = r"""
curl() {
  while [ $# -gt 0 ]; do
    case $1 in -H) echo "$2"; shift ;; -d) printf %s "$2"; shift ;; esac
    shift
  done
}
"""


def test_what_a_shell_sends_as_the_page_shows_it_is_genuine(tmp_path: Path) -> None:
    page = ROOT / "docs" / "guide" / "operations.md"
    (shown,) = (block for block in blocks(page, "sh") if "openssl" in block.text)
    (tmp_path / "hook-secret").write_text("the-secret-of-demo\n")
    script = f"{TELLING_CURL}\n{shown.text}"
    sent = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, check=True).stdout
    kind, signature, body = sent.split(b"\n")
    name, _, value = signature.decode().partition(": ")
    assert kind == b"Content-Type: application/json"
    assert is_genuine(HookProvider.GENERIC, "the-secret-of-demo", {name.lower(): value}, body, 0.0)
    assert refs_of(body) == {"refs/heads/main"}


def of_cloud(**sides: object) -> dict[str, object]:
    return {"push": {"changes": [sides]}}


@pytest.mark.parametrize(
    ("payload", "refs"),
    [
        (of_cloud(new={"type": "annotated_tag", "name": "v1"}, old=None), {"refs/tags/v1"}),
        (of_cloud(new=None, old={"type": "tag", "name": "v1"}), {"refs/tags/v1"}),
        (of_cloud(new=None, old={"type": "branch", "name": "main"}), {"refs/heads/main"}),
        (of_cloud(new={"type": ["tag"], "name": "v1"}), {"refs/heads/v1"}),
        ({"push": {"changes": []}}, set()),
        ({"changes": [{"ref": {"id": "refs/heads/dev"}, "type": "DELETE"}]}, {"refs/heads/dev"}),
        (
            {"event_name": "repository_update", "changes": [{"ref": "refs/heads/a"}, {"ref": "refs/tags/b"}]},
            {"refs/heads/a", "refs/tags/b"},
        ),
        ({"changes": [{"ref": None}, {"ref": ["x"]}, 7, {}]}, set()),
        ({"ref": "v1", "ref_type": "tag"}, {"refs/tags/v1"}),
        ({"ref": "refs/heads/main", "deleted": True}, {"refs/heads/main"}),
        ({"ref": None}, set()),
        ({"event_name": "user_create"}, set()),
    ],
)
def test_refs_of_unusual_events(payload: object, refs: set[str]) -> None:
    assert pushed_refs(payload) == refs
