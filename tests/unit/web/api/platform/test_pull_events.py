"""What forges say about pull requests, and which requests a push or a pull request leads to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.branch_previews import OpenPull
from controller.domain.apps.spec import HookProvider
from controller.domain.apps.status import PreviewWatch, RepositoryRecord
from controller.domain.forges import path_of
from controller.domain.names import AppName, previews_key
from controller.web.api.platform.hooks import concerned
from controller.web.api.platform.signatures import (
    PullEvent,
    is_about,
    is_of_server,
    is_pull,
    is_push,
    pull_event,
    server_event,
)

DEMO, OTHER = AppName("demo"), AppName("other")


def github(state: str = "open", source: object = 7, branch: object = "feature/x", number: object = 3) -> Any:
    head = {"ref": branch, "repo": {"id": source} if source else None}
    return {
        "action": "any",
        "pull_request": {"number": number, "state": state, "head": head, "base": {"repo": {"id": 7}}},
    }


def gitlab(state: str = "opened", source: object = 7) -> Any:
    told = {"iid": 3, "state": state, "source_branch": "feature/x"}
    return {"object_attributes": {**told, "source_project_id": source, "target_project_id": 7}}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (github(), PullEvent(OpenPull(3, "feature/x"), True)),
        (github("closed"), PullEvent(OpenPull(3, "feature/x"), False)),
        (github(source=8), PullEvent(OpenPull(3, "feature/x", is_fork=True), True)),
        (
            github(source=None),
            PullEvent(OpenPull(3, "feature/x", is_fork=True), True),
        ),  # the fork was deleted
        (github(source="7"), PullEvent(OpenPull(3, "feature/x", is_fork=True), True)),
        (gitlab(), PullEvent(OpenPull(3, "feature/x"), True)),
        (gitlab("merged"), PullEvent(OpenPull(3, "feature/x"), False)),
        (gitlab("closed"), PullEvent(OpenPull(3, "feature/x"), False)),
        (gitlab(source=9), PullEvent(OpenPull(3, "feature/x", is_fork=True), True)),
        (
            {**github(), "repository": {"full_name": "team/demo"}},
            PullEvent(OpenPull(3, "feature/x"), True, "team/demo"),
        ),
        (
            {**gitlab(), "project": {"path_with_namespace": "team/demo"}},
            PullEvent(OpenPull(3, "feature/x"), True, "team/demo"),
        ),
        ({**github(), "repository": {"full_name": ["team/demo"]}}, PullEvent(OpenPull(3, "feature/x"), True)),
        (github(branch="../x"), None),
        (github(branch=["x"]), None),
        (github(number=True), None),
        (github(number=0), None),
        (github(number=10**12), None),
        ({"pull_request": []}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_pull_request_is_read_from_what_forges_send(payload: Any, expected: PullEvent | None) -> None:
    assert pull_event(payload) == expected


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(
                ["pull_request", "object_attributes", "head", "repo", "id", "ref", "number", "state", "iid"]
            ),
            inner,
        ),
    )
)
def test_nothing_that_a_forge_sends_breaks_it(payload: Any) -> None:
    pull_event(payload)


@pytest.mark.parametrize(
    ("provider", "header", "event"),
    [
        (HookProvider.GITHUB, "x-github-event", "pull_request"),
        (HookProvider.GITLAB, "x-gitlab-event", "Merge Request Hook"),
        (HookProvider.GITEA, "x-gitea-event", "pull_request"),
        (HookProvider.FORGEJO, "x-forgejo-event", "pull_request"),
    ],
)
def test_each_forge_names_the_event(provider: HookProvider, header: str, event: str) -> None:
    assert is_pull(provider, {header: event})
    assert not is_push(provider, {header: event})
    assert not is_pull(provider, {header: "push"})
    assert not is_pull(HookProvider.GENERIC, {header: event})


@pytest.mark.parametrize(
    ("ref", "keys"),
    [
        ("refs/heads/main", (DEMO, OTHER, previews_key(OTHER))),
        ("refs/heads/feature/x", (previews_key(DEMO), previews_key(OTHER))),
        ("refs/heads/fix", (previews_key(OTHER),)),
        ("refs/tags/feature/x", ()),
        ("", (DEMO, OTHER, previews_key(DEMO), previews_key(OTHER))),
    ],
)
def test_a_push_leads_to_the_apps_and_previews_that_it_concerns(ref: str, keys: tuple[AppName, ...]) -> None:
    watches = (PreviewWatch(DEMO, ("feature/*",)), PreviewWatch(OTHER, ("*",), pulls=True))
    record = RepositoryRecord("demo", (DEMO, OTHER), "branch:main", 60.0, previews=watches)
    assert concerned(record, frozenset({ref} if ref else ())) == keys


# --- hooks of a whole server of GitLab ----------------------------------------------------------------------------

SYSTEM = {"x-gitlab-event": "System Hook"}


@pytest.mark.parametrize(
    ("payload", "push", "pull"),
    [
        ({"event_name": "push", "object_kind": "push", "ref": "refs/heads/main"}, True, False),
        ({"event_name": "tag_push"}, True, False),
        ({"event_name": "repository_update", "changes": []}, True, False),
        ({"ref": "refs/heads/main"}, True, False),
        ({"object_kind": "merge_request", "event_type": "merge_request"}, False, True),
        ({"event_name": "project_create"}, False, False),
        ({"event_name": "user_add_to_team"}, False, False),
        ({"object_kind": ["push"]}, True, False),
        ([], True, False),
    ],
)
def test_an_event_of_a_server_is_what_its_body_says(payload: Any, push: bool, pull: bool) -> None:
    event = server_event(json.dumps(payload).encode())
    assert (event.is_push, event.is_pull) == (push, pull)
    assert is_of_server(HookProvider.GITLAB, SYSTEM)
    assert not is_of_server(HookProvider.GITLAB, {"x-gitlab-event": "Push Hook"})
    assert not is_of_server(HookProvider.GITHUB, SYSTEM)


@pytest.mark.parametrize(
    ("project", "url", "about"),
    [
        ("team/demo", "https://git.example.org/team/demo.git", True),
        ("Team/Demo", "git@git.example.org:team/demo.git", True),
        ("team/demo", "ssh://git@git.example.org:2222/gitlab/team/demo", True),
        ("team/demo", "https://git.example.org/a/team/demo.git", True),
        ("team/demo", "https://git.example.org/otherteam/demo.git", False),
        ("team/demo", "https://git.example.org/team/demo2.git", False),
        ("team/demo", "/srv/git/demo.git", False),
        ("", "https://git.example.org/team/demo.git", False),
    ],
)
def test_an_event_is_about_one_project(project: str, url: str, about: bool) -> None:
    assert is_about(project, path_of(url)) is about
