"""Listing the branches of a repository for previews, from real servers: many refs, slow servers and failing ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.adapters.git import GitSources
from controller.adapters.git.sources import MOST_REFS
from controller.domain.apps.spec import GitRef, RefKind
from controller.domain.errors import ControllerError, Stalled, Transient
from tests.support.git_servers import Author, HttpServer, git, git_daemon
from tests.support.git_specs import Access, repository

MakeSources = Callable[..., GitSources]
MANY = 10_000


def branches_of(remote: Path, commit: str, count: int) -> None:
    """Make branches as a server has them that has packed its refs."""
    lines = "".join(f"{commit} refs/heads/b/{number:06}\n" for number in range(count))
    (remote / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{lines}")


def failure(action: Callable[[], object]) -> ControllerError:
    with pytest.raises(ControllerError) as caught:
        action()
    return caught.value


def test_branches_and_pull_requests_over_each_transport(
    sources: GitSources, author: Author, access: Access
) -> None:
    first = author.commit({"a.yaml": "1"})
    git(author.tree, "checkout", "--quiet", "-b", "feature/правка")
    second = author.commit({"a.yaml": "2"})
    author.tag("v1", "-a", "-m", "one")
    author.push("HEAD:refs/pull/7/head", "HEAD:refs/merge-requests/8/head", "HEAD:refs/notes/commits")
    found = sources.refs(repository(access.url), access.credentials)
    assert found == {
        "refs/heads/main": first,
        "refs/heads/feature/правка": second,
        "refs/pull/7/head": second,
        "refs/merge-requests/8/head": second,
    }


def test_a_repository_without_branches(sources: GitSources, author: Author, daemon: str) -> None:
    assert sources.refs(repository(f"{daemon}/{author.remote.name}"), None) == {}


@pytest.mark.parametrize("transport", ["http", "git"])
def test_ten_thousand_branches_cost_one_round_trip_and_no_objects(
    sources: GitSources, author: Author, web: HttpServer, daemon: str, tmp_path: Path, transport: str
) -> None:
    commit = author.commit({"a.yaml": "1"})
    branches_of(author.remote, commit, MANY)
    url = web.url if transport == "http" else daemon
    found = sources.refs(repository(f"{url}/{author.remote.name}"), None)
    assert len(found) == MANY + 1
    assert set(found.values()) == {commit}
    if transport == "http":
        assert len(web.requests) == 1
    assert not list((tmp_path / "clones").rglob("*.pack")), "nothing is fetched to list branches"


def test_more_refs_than_are_looked_at_are_told(sources: GitSources, author: Author, daemon: str) -> None:
    commit = author.commit({"a.yaml": "1"})
    branches_of(author.remote, commit, MOST_REFS)
    found = failure(lambda: sources.refs(repository(f"{daemon}/{author.remote.name}"), None))
    assert (type(found), found.reason) == (Stalled, "TooManyRefs")
    assert (
        f"the server has {MOST_REFS + 1} branches and pull requests, and at most {MOST_REFS}" in found.message
    )


def test_a_preview_is_fetched_where_it_was_seen(sources: GitSources, author: Author, web: HttpServer) -> None:
    """What the listing has said is not asked for again, and the clone of a preview has one commit of many."""
    author.commit({"a.yaml": "1"})
    git(author.tree, "checkout", "--quiet", "-b", "feature/x")
    author.commit({"a.yaml": "2"})
    url = f"{web.url}/{author.remote.name}"
    heads = sources.refs(repository(url), None)
    head = heads["refs/heads/feature/x"]
    spec = repository(url, "feature/x", name="@demo-feature-x-00000000", head=head)
    web.requests.clear()
    assert sources.head(spec, None) == head
    assert web.requests == []
    assert sources.fetch(spec, None, None).commit == head
    web.requests.clear()
    assert sources.fetch(spec, None, None).commit == head
    assert web.requests == [], "a clone that has the commit asks no server"


def test_a_pull_request_is_fetched_by_its_own_ref(sources: GitSources, author: Author, daemon: str) -> None:
    author.commit({"a.yaml": "1"})
    git(author.tree, "checkout", "--quiet", "--detach")
    git(author.tree, "commit", "--quiet", "--allow-empty", "-m", "from a fork")
    head = author.push("HEAD:refs/pull/7/head")
    url = f"{daemon}/{author.remote.name}"
    spec = repository(url, "refs/pull/7/head", RefKind.PULL, name="@demo-pull-7-00000000", head=head)
    assert spec.ref == GitRef(RefKind.PULL, "refs/pull/7/head")
    assert sources.fetch(spec, None, None).commit == head


# --- servers that are slow, and that fail -----------------------------------------------------------------------


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A Git server that says these bytes on each connection, and then nothing more; it stays open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"git://127.0.0.1:{listener.getsockname()[1]}/demo.git"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
    thread.join(10)


def packet(text: str) -> bytes:
    return f"{len(text) + 4:04x}{text}".encode()


LINES = packet(f"{'1' * 40} HEAD\0symref=HEAD:refs/heads/main\n") + packet(f"{'1' * 40} refs/heads/main\n")


@pytest.mark.parametrize("said", [(), (LINES,), (LINES, b"00")], ids=["nothing", "no end", "half a line"])
def test_a_server_that_stops_in_the_middle_of_the_list(
    make_sources: MakeSources, said: tuple[bytes, ...]
) -> None:
    """Half a list is none: branches that were not said would look deleted, and their previews with them."""
    with answering(*said) as url:
        error = failure(lambda: make_sources(fetch_timeout=0.5).refs(repository(url), None))
    assert (type(error), error.reason) == (Transient, "FetchFailed")


@pytest.mark.parametrize(
    ("said", "kind"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", ControllerError), (packet("ERR access denied\n"), ControllerError)],
    ids=["another protocol", "an error"],
)
def test_a_server_that_says_something_else(
    make_sources: MakeSources, said: bytes, kind: type[ControllerError]
) -> None:
    with answering(said) as url:
        error = failure(lambda: make_sources(fetch_timeout=0.5).refs(repository(url), None))
    assert isinstance(error, kind)


def test_a_list_that_breaks_off_over_http(make_sources: MakeSources, author: Author, web: HttpServer) -> None:
    commit = author.commit({"a.yaml": "1"})
    branches_of(author.remote, commit, MANY)
    web.stall_after = 2**16
    spec = repository(f"{web.url}/{author.remote.name}")
    error = failure(lambda: make_sources(fetch_timeout=0.5).refs(spec, None))
    assert isinstance(error, Transient)
    web.stall_after = None
    assert len(make_sources().refs(spec, None)) == MANY + 1


def test_a_server_that_comes_back(sources: GitSources, author: Author, served: Path) -> None:
    author.commit({"a.yaml": "1"})
    with git_daemon(served) as url:
        spec = repository(f"{url}/{author.remote.name}")
        known = sources.refs(spec, None)
    assert failure(lambda: sources.refs(spec, None)).reason == "FetchFailed"
    with git_daemon(served, int(url.rpartition(":")[2])):
        assert sources.refs(spec, None) == known
