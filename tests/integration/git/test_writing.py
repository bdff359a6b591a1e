"""Commits by prichal, onto branches of real servers over each transport, and of repositories on this host."""

from __future__ import annotations

import os
import stat

import pytest

from controller.adapters.git import GitSources
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.ports import CommitDraft
from tests.support.git_servers import Author, HttpServer, git
from tests.support.git_specs import Access, repository

BEFORE = {"app/m.yaml": "image: demo:1  # the image\n", "app/other.yaml": "x: 1\n", "README.md": "Read me\n"}
DRAFT = CommitDraft(
    "app/m.yaml", b"image: demo:2  # the image\n", "Follow demo to 2\n\nWhy: because\n", 1_700_000_000
)


@pytest.fixture
def open_to_pushes(author: Author) -> None:
    """Anonymous pushes over HTTP and the protocol of Git need the consent of the repository."""
    author.commit(BEFORE)
    author.push("main")
    for key in ("http.receivepack", "daemon.receivepack"):
        git(author.remote, "config", key, "true")


@pytest.mark.usefixtures("open_to_pushes")
def test_one_file_changes_and_the_rest_stays(sources: GitSources, author: Author, access: Access) -> None:
    spec = repository(access.url)
    head = sources.fetch(spec, access.credentials, None)
    commit = sources.commit(spec, access.credentials, head, DRAFT)
    assert git(author.remote, "rev-parse", "refs/heads/main").strip() == commit
    assert git(author.remote, "rev-parse", f"{commit}^").strip() == head.commit
    assert git(author.remote, "diff-tree", "-r", "--name-only", head.commit, commit).split() == ["app/m.yaml"]
    assert git(author.remote, "show", f"{commit}:app/m.yaml") == DRAFT.content.decode().strip()
    told = git(author.remote, "log", "-1", "--format=%an <%ae> %at%n%B", commit)
    assert told.strip() == f"prichal <prichal@prichal.invalid> 1700000000\n{DRAFT.message}".strip()
    assert git(author.remote, "for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]
    git(author.remote, "fsck", "--strict")
    assert sources.fetch(spec, access.credentials, None).commit == commit


@pytest.mark.usefixtures("open_to_pushes")
def test_a_branch_that_has_moved_is_not_overwritten(
    sources: GitSources, author: Author, access: Access
) -> None:
    spec = repository(access.url)
    head = sources.fetch(spec, access.credentials, None)
    author.commit({"README.md": "Read on\n"})
    author.push("main")
    theirs = git(author.remote, "rev-parse", "refs/heads/main")
    with pytest.raises(Transient) as caught:
        sources.commit(spec, access.credentials, head, DRAFT)
    assert caught.value.reason == Reason.BRANCH_MOVED
    assert git(author.remote, "rev-parse", "refs/heads/main") == theirs
    again = sources.fetch(spec, access.credentials, None)
    commit = sources.commit(spec, access.credentials, again, DRAFT)
    assert git(author.remote, "show", f"{commit}:README.md") == "Read on"


def test_a_hook_that_refuses(sources: GitSources, author: Author, web: HttpServer) -> None:
    author.commit(BEFORE)
    author.push("main")
    git(author.remote, "config", "http.receivepack", "true")
    hook = author.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    spec = repository(f"{web.url}/{author.remote.name}")
    head = sources.fetch(spec, None, None)
    with pytest.raises(Stalled) as caught:
        sources.commit(spec, None, head, DRAFT)
    assert caught.value.reason == Reason.IMAGE_WRITE_FAILED
    assert "hook declined" in caught.value.message
    assert git(author.remote, "rev-parse", "refs/heads/main").strip() == head.commit


def test_credentials_that_may_not_push(sources: GitSources, author: Author, web: HttpServer) -> None:
    """`git http-backend` refuses pushes of people without a name by itself."""
    author.commit(BEFORE)
    author.push("main")
    spec = repository(f"{web.url}/{author.remote.name}")
    head = sources.fetch(spec, None, None)
    with pytest.raises((Stalled, Transient)):
        sources.commit(spec, None, head, DRAFT)
    assert git(author.remote, "rev-parse", "refs/heads/main").strip() == head.commit


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("app/gone.yaml", "there is no gone.yaml"),
        ("README.md/m.yaml", "no folder"),
        ("link.yaml", "is a link"),
    ],
)
def test_what_is_not_a_file_any_more(sources: GitSources, author: Author, path: str, words: str) -> None:
    author.commit(BEFORE)
    (author.tree / "link.yaml").symlink_to("app/m.yaml")
    git(author.tree, "add", "link.yaml")
    git(author.tree, "commit", "-q", "-m", "a link")
    author.push("main")
    spec = repository(str(author.remote))
    head = sources.fetch(spec, None, None)
    with pytest.raises(Stalled, match=words):
        sources.commit(spec, None, head, CommitDraft(path, b"", "no", 0))


def test_the_group_of_a_shared_repository_can_push_afterwards(sources: GitSources, author: Author) -> None:
    author.commit(BEFORE)
    author.push("main")
    git(author.remote, "config", "core.sharedRepository", "group")
    spec = repository(str(author.remote))
    head = sources.fetch(spec, None, None)
    old = os.umask(0o077)
    try:
        sources.commit(spec, None, head, DRAFT)
    finally:
        os.umask(old)
    for folder in (author.remote / "objects").iterdir():
        assert folder.stat().st_mode & stat.S_IWGRP, folder
