from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.adapters.git import GitSources
from controller.config import GitSettings
from tests.support.git_servers import Author, HttpServer, SshServer, git_daemon, http_backend, sshd
from tests.support.git_specs import Access, secret

MakeSources = Callable[..., GitSources]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all servers serve."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture
def author(served: Path) -> Author:
    """Somebody with a repository of their own, in which nothing is yet."""
    return Author(served / f"{uuid.uuid4().hex}.git")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def make_sources(tmp_path: Path, served: Path) -> MakeSources:
    """A `GitSources` on this test's own clones; keywords change its settings."""

    def make(**settings: object) -> GitSources:
        return GitSources(tmp_path / "clones", GitSettings(**settings), hosted=served)  # type: ignore[arg-type]

    return make


@pytest.fixture
def sources(make_sources: MakeSources) -> GitSources:
    return make_sources()


@pytest.fixture(scope="session")
def daemon(served: Path) -> Iterator[str]:
    with git_daemon(served) as url:
        yield url


@pytest.fixture(scope="session")
def ssh(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd") / "etc", served) as server:
        yield server


@pytest.fixture
def web(served: Path) -> Iterator[HttpServer]:
    """Open to all."""
    with http_backend(served) as server:
        yield server


@pytest.fixture
def private_web(served: Path) -> Iterator[HttpServer]:
    with http_backend(served, password="correct horse") as server:
        yield server


@pytest.fixture(params=["local", "git", "http", "basic", "token", "ssh"])
def access(request: pytest.FixtureRequest, author: Author) -> Access:
    """The author's repository, over each transport."""
    name = author.remote.name
    if request.param == "local":
        return Access(str(author.remote))
    if request.param == "git":
        return Access(f"{request.getfixturevalue('daemon')}/{name}")
    if request.param == "http":
        return Access(f"{request.getfixturevalue('web').url}/{name}")
    if request.param == "ssh":
        ssh = request.getfixturevalue("ssh")
        return Access(f"{ssh.url}/{name}", secret(sshPrivateKey=ssh.private_key, knownHosts=ssh.known_hosts))
    server = request.getfixturevalue("private_web")
    key = "password" if request.param == "basic" else "token"
    return Access(f"{server.url}/{name}", secret(**{"username": server.user, key: "correct horse"}))
