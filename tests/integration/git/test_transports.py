"""The same promises over every transport: local path, git daemon, HTTP open and with credentials, SSH."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import ObjectType

from controller.adapters.git import GitSources
from controller.domain.apps.spec import BuildImage, RefKind, RepositorySpec
from controller.domain.errors import Stalled, Waiting
from controller.ports import Revision
from tests.support.git_servers import Author, git
from tests.support.git_specs import Access, repository
from tests.support.specs import make


def fetch(sources: GitSources, spec: RepositorySpec, access: Access) -> Revision:
    return sources.fetch(spec, access.credentials, None)


def test_head_then_fetch_then_read(sources: GitSources, author: Author, access: Access) -> None:
    commit = author.commit(
        {"manifests/app.yaml": "kind: X\n", "Dockerfile": "FROM scratch\n"}, "First\n\nbody"
    )
    spec = repository(access.url)
    assert sources.head(spec, access.credentials) == commit
    revision = fetch(sources, spec, access)
    assert (revision.commit, revision.ref, revision.repository) == (commit, "refs/heads/main", "demo")
    assert (revision.author, revision.subject) == ("Ada <ada@example.org>", "First")
    assert revision.committed > 0
    (file,) = sources.files(revision, "manifests", (".yaml",))
    assert (file.path, file.content) == ("manifests/app.yaml", b"kind: X\n")
    context = sources.build_context(revision, make(BuildImage, "."))
    assert context.dockerfile == b"FROM scratch\n"
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.files))) as archive:
        assert archive.getnames() == ["Dockerfile", "manifests", "manifests/app.yaml"]


def test_what_is_pushed_arrives_forced_or_not(sources: GitSources, author: Author, access: Access) -> None:
    spec = repository(access.url)
    author.commit({"a.yaml": "1"})
    first = fetch(sources, spec, access)
    author.commit({"a.yaml": "2"})
    second = fetch(sources, spec, access)
    git(author.tree, "reset", "--quiet", "--hard", "HEAD~1")
    rewritten = author.commit({"a.yaml": "3"}, "history rewritten")
    assert sources.head(spec, access.credentials) == rewritten
    third = fetch(sources, spec, access)
    contents = [sources.files(r, ".", (".yaml",))[0].content for r in (first, second, third)]
    assert contents == [b"1", b"2", b"3"]


@pytest.mark.parametrize("access", ["local", "git", "http"], indirect=True)
def test_tags_and_versions(sources: GitSources, author: Author, access: Access) -> None:
    commits = {}
    for version, options in (("v1.0.0", ()), ("v1.2.0", ("-a", "-m", "annotated")), ("v2.0.0", ())):
        commits[version] = author.commit({"a.yaml": version})
        author.tag(version, *options)
    author.commit({"a.yaml": "untagged"})
    annotated = repository(access.url, "v1.2.0", RefKind.TAG)
    assert sources.head(annotated, access.credentials) == commits["v1.2.0"]
    for kind, ref, expected in (
        (RefKind.TAG, "v1.0.0", "v1.0.0"),
        (RefKind.SEMVER, "^1", "v1.2.0"),
        (RefKind.SEMVER, "*", "v2.0.0"),
    ):
        spec = repository(access.url, ref, kind)
        revision = fetch(sources, spec, access)
        assert (revision.commit, revision.ref) == (commits[expected], f"refs/tags/{expected}")
        assert sources.files(revision, ".", (".yaml",))[0].content == expected.encode()


@pytest.mark.parametrize("access", ["local", "git", "http"], indirect=True)
def test_a_tag_that_is_moved(sources: GitSources, author: Author, access: Access) -> None:
    spec, branch = repository(access.url, "stable", RefKind.TAG), repository(access.url)
    for number in ("1", "2"):
        commit = author.commit({"a.yaml": number})
        author.tag("stable", "--force")
        assert [fetch(sources, s, access).commit for s in (branch, spec)] == [commit, commit]


def test_a_commit_by_its_id(sources: GitSources, author: Author, access: Access) -> None:
    old = author.commit({"a.yaml": "old"})
    author.commit({"a.yaml": "new"})
    spec = repository(access.url, old, RefKind.COMMIT)
    assert sources.head(spec, access.credentials) == old
    revision = fetch(sources, spec, access)
    assert (revision.commit, revision.ref) == (old, old)
    assert sources.files(revision, ".", (".yaml",))[0].content == b"old"
    with pytest.raises(Stalled, match="contains the commit") as caught:
        fetch(sources, repository(access.url, "1" * 40, RefKind.COMMIT), access)
    assert caught.value.reason == "RefNotFound"


def test_commits_that_libgit2_cannot_parse(
    sources: GitSources, author: Author, access: Access, tmp_path: Path
) -> None:
    """Git takes them and hands them out. In the history of later ones, too, and without the clone being made again."""
    spec = repository(access.url)
    author.commit({"a.yaml": "0"})
    fetch(sources, spec, access)
    clone = (tmp_path / "clones" / "demo.git").stat().st_ino
    tree = git(author.remote, "rev-parse", "main^{tree}")
    remote, odd = pygit2.Repository(str(author.remote)), ""
    for who in (b"Ada 1 +0000", b"Ada <a@b> 18446744073709551999 +0000", b"Ada <a@b> yesterday +0000"):
        parent = git(author.remote, "rev-parse", "main")
        raw = f"tree {tree}\nparent {parent}\n".encode() + b"author %b\ncommitter %b\n\nodd\n" % (
            who,
            who,
        )
        odd = str(remote.odb.write(ObjectType.COMMIT, raw))
        (author.remote / "refs/heads/main").write_text(f"{odd}\n")
        revision = fetch(sources, spec, access)
        assert (revision.commit, revision.subject) == (odd, "odd")
        assert sources.files(revision, ".", (".yaml",))[0].content == b"0"
    after = git(author.remote, "commit-tree", tree, "-p", odd, "-m", "after")
    git(author.remote, "update-ref", "refs/heads/main", after)
    assert fetch(sources, spec, access).subject == "after"
    assert (tmp_path / "clones" / "demo.git").stat().st_ino == clone


def test_a_branch_that_is_deleted_or_renamed(sources: GitSources, author: Author, access: Access) -> None:
    author.commit({"a.yaml": "1"})
    spec = repository(access.url)
    revision = fetch(sources, spec, access)
    git(author.remote, "branch", "--move", "main", "trunk")
    for ask in (lambda: sources.head(spec, access.credentials), lambda: fetch(sources, spec, access)):
        with pytest.raises(Stalled, match="there is trunk") as caught:
            ask()
        assert caught.value.reason == "RefNotFound"
    assert (
        sources.files(revision, ".", (".yaml",))[0].content == b"1"
    )  # what ran goes on: its commit stays readable


def test_a_repository_that_is_empty_is_waited_for(sources: GitSources, access: Access) -> None:
    with pytest.raises(Waiting) as caught:
        sources.head(repository(access.url), access.credentials)
    assert caught.value.reason == "RepositoryEmpty"


def test_a_repository_that_is_not_there(sources: GitSources, access: Access) -> None:
    spec = repository(access.url.replace(".git", "-gone.git"))
    with pytest.raises(Stalled) as caught:
        sources.head(spec, access.credentials)
    assert caught.value.reason == "RepositoryNotFound"
