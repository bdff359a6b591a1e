"""What goes wrong between here and a Git server, provoked for real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import FileMode

from controller.adapters.git import GitSources
from controller.adapters.git.clones import MAX_PACKS
from controller.adapters.git.faults import CloneDamaged
from controller.domain.apps.spec import BuildImage, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.ports import Revision
from tests.support.git_servers import (
    Author,
    HttpServer,
    SshServer,
    git,
    git_daemon,
    http_backend,
    make_certificate,
    make_key,
)
from tests.support.git_specs import repository, secret
from tests.support.ports import free_port
from tests.support.specs import make

MakeSources = Callable[..., GitSources]


def noise(megabytes: int) -> bytes:
    """Does not compress."""
    return os.urandom(megabytes * 2**20)


def failure(action: Callable[[], object]) -> ControllerError:
    with pytest.raises(ControllerError) as caught:
        action()
    return caught.value


def fetch(sources: GitSources, spec: RepositorySpec, credentials: SecretSpec | None = None) -> Revision:
    return sources.fetch(spec, credentials, None)


def content(sources: GitSources, revision: Revision) -> bytes:
    return sources.files(revision, ".", (".yaml",))[0].content


# --- nothing is transferred for nothing ---


def test_an_unchanged_remote_costs_one_round_trip(
    sources: GitSources, author: Author, web: HttpServer
) -> None:
    author.commit({"a.yaml": "1"})
    spec = repository(f"{web.url}/{author.remote.name}")
    first = fetch(sources, spec)
    web.requests.clear()
    assert fetch(sources, spec) == first
    assert [r.partition("?")[0] for r in web.requests] == [f"GET /{author.remote.name}/info/refs"]


def test_a_commit_that_is_here_needs_no_server(sources: GitSources, author: Author, web: HttpServer) -> None:
    commit = author.commit({"a.yaml": "1"})
    spec = repository(f"{web.url}/{author.remote.name}", commit, RefKind.COMMIT)
    first = fetch(sources, spec)
    web.requests.clear()
    assert fetch(sources, spec) == first
    assert web.requests == []


def test_other_branches_are_left_where_they_are(
    sources: GitSources, author: Author, daemon: str, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1"})
    git(author.tree, "checkout", "--quiet", "-b", "large")
    other = author.commit({"large": noise(1)})
    fetch(sources, repository(f"{daemon}/{author.remote.name}"))
    found = subprocess.run(
        ["git", f"--git-dir={tmp_path}/clones/demo.git", "cat-file", "-e", other],
        check=False,
        capture_output=True,
    )
    assert found.returncode != 0


# --- servers that are away, slow or wrong ---


@pytest.mark.parametrize("scheme", ["git", "http", "https", "ssh"])
def test_nobody_answers(sources: GitSources, scheme: str) -> None:
    credentials = secret(sshPrivateKey="x", knownHosts=f"h {PUBLIC_KEY}") if scheme == "ssh" else None
    spec = repository(f"{scheme}://127.0.0.1:{free_port()}/demo.git")
    error = failure(lambda: sources.head(spec, credentials))
    assert (type(error), error.reason) == (Transient, "FetchFailed")
    assert "Connection refused" in error.message


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHeY3sHm6A8CUNMEBRvWUNMEBRvWUNMEBRvWUNMEBRvW"


def test_a_server_that_goes_and_comes_back(sources: GitSources, author: Author, served: Path) -> None:
    port = free_port()
    spec = repository(f"git://127.0.0.1:{port}/{author.remote.name}")
    with git_daemon(served, port):
        author.commit({"a.yaml": "1"})
        first = fetch(sources, spec)
    assert failure(lambda: fetch(sources, spec)).reason == "FetchFailed"
    assert content(sources, first) == b"1"  # what was fetched stays usable
    with git_daemon(served, port):
        author.commit({"a.yaml": "2"})
        assert content(sources, fetch(sources, spec)) == b"2"


@pytest.mark.parametrize("scheme", ["git", "http", "https", "ssh"])
def test_a_server_that_says_nothing(make_sources: MakeSources, scheme: str) -> None:
    credentials = secret(sshPrivateKey="x", knownHosts=f"h {PUBLIC_KEY}") if scheme == "ssh" else None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spec = repository(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/demo.git")
        error = failure(lambda: make_sources(fetch_timeout=0.3).head(spec, credentials))
    assert (type(error), error.reason) == (Transient, "FetchFailed")


def test_a_fetch_that_takes_too_long(make_sources: MakeSources, author: Author, web: HttpServer) -> None:
    author.commit({"a.yaml": "1", "large": noise(2)})
    spec = repository(f"{web.url}/{author.remote.name}")
    web.stall_after = 2**20
    error = failure(lambda: fetch(make_sources(fetch_timeout=0.3), spec))
    assert isinstance(error, Transient)
    assert error.reason in ("FetchFailed", "FetchTimeout")
    web.stall_after = None
    assert content(make_sources(), fetch(make_sources(), spec)) == b"1"


@pytest.mark.parametrize("ask", [GitSources.head, GitSources.refs])
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (403, Stalled, "AuthenticationFailed"),
        (404, Stalled, "RepositoryNotFound"),
        (429, Transient, "FetchFailed"),
        (503, Transient, "FetchFailed"),
        (200, Stalled, "NotAGitServer"),
    ],
)
def test_http_answers(
    sources: GitSources,
    web: HttpServer,
    ask: Callable[[GitSources, RepositorySpec, None], object],
    status: int,
    kind: type[Exception],
    reason: str,
) -> None:
    web.status = status
    error = failure(lambda: ask(sources, repository(f"{web.url}/demo.git"), None))
    assert (type(error), error.reason) == (kind, reason)


def test_a_redirect_to_another_host_gets_no_password(
    sources: GitSources, author: Author, web: HttpServer, private_web: HttpServer
) -> None:
    web.redirect = ("/", private_web.url.replace("127.0.0.1", "localhost") + "/")
    credentials = secret(username="ivanov", password="correct horse")
    error = failure(lambda: sources.head(repository(f"{web.url}/{author.remote.name}"), credentials))
    assert (type(error), error.reason) == (Stalled, "RepositoryMoved")
    assert private_web.requests == []


def test_a_redirect_within_the_host_is_followed(sources: GitSources, author: Author, web: HttpServer) -> None:
    commit = author.commit({"a.yaml": "1"})
    web.redirect = ("/moved/", f"{web.url}/")
    assert fetch(sources, repository(f"{web.url}/moved/{author.remote.name}")).commit == commit


def test_a_name_that_nobody_knows(sources: GitSources) -> None:
    error = failure(lambda: sources.head(repository("https://nowhere.invalid/demo.git"), None))
    assert (type(error), error.reason) == (Transient, "FetchFailed")


def test_a_certificate_of_an_unknown_authority(
    sources: GitSources, author: Author, served: Path, tmp_path: Path
) -> None:
    commit = author.commit({"a.yaml": "1"})
    key, authority = make_certificate(tmp_path)
    with http_backend(served, tls=key) as server:
        url = f"{server.url}/{author.remote.name}"
        error = failure(lambda: sources.head(repository(url), None))
        assert (type(error), error.reason) == (Stalled, "CertificateInvalid")
        known = run_child(HEAD, tmp_path, url, {"SSL_CERT_FILE": str(authority)})
        assert known.communicate(timeout=60)[0].decode().strip() == commit


# --- credentials ---


@pytest.mark.parametrize(
    "values", [{}, {"username": "ivanov", "password": "geheimnis"}, {"token": "geheimnis"}]
)
def test_wrong_or_missing_credentials(
    sources: GitSources, author: Author, private_web: HttpServer, values: dict[str, str]
) -> None:
    spec = repository(f"{private_web.url}/{author.remote.name}")
    error = failure(lambda: sources.head(spec, secret(**values) if values else None))
    assert (type(error), error.reason) == (Stalled, "AuthenticationFailed")
    assert "spec.credentials" in error.message
    assert "geheimnis" not in error.message
    assert len(private_web.requests) <= 2  # a wrong password is tried once: accounts get locked


def test_a_password_in_the_address_is_used_and_hidden(
    sources: GitSources, author: Author, private_web: HttpServer, tmp_path: Path
) -> None:
    commit = author.commit({"a.yaml": "1"})
    right = f"{private_web.url_with('ivanov', 'correct%20horse')}/{author.remote.name}"
    assert fetch(sources, repository(right)).commit == commit
    wrong = f"{private_web.url_with('ivanov', 'geheimnis')}/{author.remote.name}"
    error = failure(lambda: sources.head(repository(wrong), None))
    assert "geheimnis" not in error.message
    files = [f.read_bytes() for f in (tmp_path / "clones").rglob("*") if f.is_file()]
    assert not any(b"correct" in f or b"geheimnis" in f for f in files)


def test_a_secret_that_is_named_but_missing(sources: GitSources, author: Author, web: HttpServer) -> None:
    author.commit({"a.yaml": "1"})
    url = f"{web.url}/{author.remote.name}"
    for more in ({"credentials": "gone"}, {"signers": "gone"}):
        error = failure(lambda more=more: fetch(sources, repository(url, **more)))  # type: ignore[misc]
        assert (type(error), error.reason) == (Stalled, "SecretMissing")


def ssh_failure(sources: GitSources, author: Author, ssh: SshServer, **values: str) -> ControllerError:
    return failure(lambda: sources.head(repository(f"{ssh.url}/{author.remote.name}"), secret(**values)))


def test_an_ssh_server_is_not_trusted_without_its_key(
    sources: GitSources, author: Author, ssh: SshServer
) -> None:
    error = ssh_failure(sources, author, ssh, sshPrivateKey=ssh.private_key)
    assert (type(error), error.reason) == (Stalled, "HostKeyUnknown")
    assert f"ssh-keyscan -p {ssh.port} 127.0.0.1" in error.message


def test_the_message_about_an_unknown_host_key_holds_the_line_to_add(
    sources: GitSources, author: Author, ssh: SshServer
) -> None:
    commit = author.commit({"a.yaml": "1"})
    other_host = f"[127.0.0.1]:1 {PUBLIC_KEY}"
    error = ssh_failure(sources, author, ssh, sshPrivateKey=ssh.private_key, knownHosts=other_host)
    assert (type(error), error.reason) == (Stalled, "HostKeyUnknown")
    line = error.message.rpartition("add the line: ")[2]
    assert line in ssh.known_hosts
    spec = repository(f"{ssh.url}/{author.remote.name}")
    assert sources.head(spec, secret(sshPrivateKey=ssh.private_key, knownHosts=line)) == commit


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_one_kind_of_host_key_is_enough(
    sources: GitSources, author: Author, ssh: SshServer, kind: str
) -> None:
    commit = author.commit({"a.yaml": "1"})
    line = next(line for line in ssh.known_hosts.splitlines() if kind in line)
    spec = repository(f"{ssh.url}/{author.remote.name}")
    assert sources.head(spec, secret(sshPrivateKey=ssh.private_key, knownHosts=line)) == commit


def test_a_changed_host_key_is_refused(
    sources: GitSources, author: Author, ssh: SshServer, tmp_path: Path
) -> None:
    impostor = " ".join(make_key(tmp_path / "impostor").split()[:2])
    known = f"[127.0.0.1]:{ssh.port} {impostor}"
    error = ssh_failure(sources, author, ssh, sshPrivateKey=ssh.private_key, knownHosts=known)
    assert (type(error), error.reason) == (Stalled, "HostKeyMismatch")


def test_ssh_keys_that_the_server_does_not_take(
    sources: GitSources, author: Author, ssh: SshServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger")
    for key in ((tmp_path / "stranger").read_text(), "no key at all"):
        error = ssh_failure(sources, author, ssh, sshPrivateKey=key, knownHosts=ssh.known_hosts)
        assert (type(error), error.reason) == (Stalled, "AuthenticationFailed")
        assert key.splitlines()[0] not in error.message


def test_an_ssh_key_with_a_passphrase(
    sources: GitSources, author: Author, ssh: SshServer, tmp_path: Path
) -> None:
    commit = author.commit({"a.yaml": "1"})
    public = make_key(tmp_path / "locked", passphrase="open sesame")
    with (ssh.folder / "authorized").open("a") as authorized:
        authorized.write(f"{public}\n")
    key = (tmp_path / "locked").read_text()
    values = {"sshPrivateKey": key, "knownHosts": ssh.known_hosts}
    spec = repository(f"{ssh.url}/{author.remote.name}")
    assert sources.head(spec, secret(**values, passphrase="open sesame")) == commit
    error = ssh_failure(sources, author, ssh, **values, passphrase="wrong words")
    assert error.reason == "AuthenticationFailed"
    assert "wrong words" not in error.message


# --- repositories that are too much ---


def test_a_repository_over_the_limit(
    make_sources: MakeSources, author: Author, daemon: str, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1", "large": noise(3)})
    spec = repository(f"{daemon}/{author.remote.name}")
    error = failure(lambda: fetch(make_sources(max_repository=2**20), spec))
    assert (type(error), error.reason) == (Stalled, "RepositoryTooLarge")
    assert "1 MiB" in error.message
    assert sum(f.stat().st_size for f in (tmp_path / "clones").rglob("*") if f.is_file()) < 2**20
    assert content(make_sources(), fetch(make_sources(), spec)) == b"1"


def test_a_clone_that_outgrew_the_limit_is_made_afresh(
    make_sources: MakeSources, author: Author, daemon: str
) -> None:
    """Commits that were pushed away do not count for ever."""
    sources = make_sources(max_repository=5 * 2**20)
    spec = repository(f"{daemon}/{author.remote.name}")
    author.commit({"a.yaml": "0"})
    fetch(sources, spec)
    for number in range(1, 4):
        git(author.tree, "checkout", "--quiet", "--orphan", f"fresh{number}")
        author.commit({"a.yaml": str(number), "large": noise(2)})
        author.push("HEAD:main")
        assert content(sources, fetch(sources, spec)) == str(number).encode()


def test_many_fetches_leave_few_packs(sources: GitSources, author: Author, tmp_path: Path) -> None:
    packs = tmp_path / "clones" / "demo.git" / "objects" / "pack"
    spec = repository(str(author.remote))
    revisions = []
    for number in range(MAX_PACKS + 2):
        commit_in_place(author.remote, {"a.yaml": str(number)})
        revisions.append(fetch(sources, spec))
        assert len(list(packs.glob("*.pack"))) <= MAX_PACKS
    assert content(sources, revisions[0]) == b"0"
    assert content(sources, revisions[-1]) == str(MAX_PACKS + 1).encode()


def commit_in_place(bare: Path, files: dict[str, str]) -> None:
    """Onto main, without a work tree: ten times as fast as git's commands."""
    repo = pygit2.Repository(str(bare))
    tree = repo.TreeBuilder()
    for name, text in files.items():
        tree.insert(name, repo.create_blob(text.encode()), FileMode.BLOB)
    parents = [] if repo.head_is_unborn else [repo.head.target]
    who = pygit2.Signature("Ada", "ada@example.org")
    repo.create_commit("refs/heads/main", who, who, "change", tree.write(), parents)
    repo.free()


# --- deaths and damage ---

FETCH = "s.fetch(spec, None, None)"
HEAD = "print(s.head(spec, None))"


def run_child(
    action: str, place: Path, url: str, env: dict[str, str] | None = None, hosted: str = "/nonexistent"
) -> subprocess.Popen[bytes]:
    """`action` in a process of its own, which can be killed."""
    program = f"""
from pathlib import Path
from controller.adapters.git import GitSources
from controller.config import GitSettings
from tests.support.git_specs import repository
s = GitSources(Path({str(place / "clones")!r}), GitSettings(), Path({hosted!r}))
spec = repository({url!r})
{action}
"""
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("before", [False, True], ids=["first clone", "later fetch"])
def test_a_fetch_that_is_killed_is_made_up_for(
    sources: GitSources, author: Author, web: HttpServer, tmp_path: Path, before: bool
) -> None:
    spec = repository(f"{web.url}/{author.remote.name}")
    author.commit({"a.yaml": "1"})
    if before:
        fetch(sources, spec)
    author.commit({"a.yaml": "2", "large": noise(2)})
    web.stall_after = 2**20
    child = run_child(FETCH, tmp_path, spec.url)
    assert web.stalled.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stdout
    child.stdout.close()
    web.stall_after = None
    web.resume.set()
    assert content(sources, fetch(sources, spec)) == b"2"
    left = [p.name for p in (tmp_path / "clones").rglob("*") if p.name.startswith((".new-", "pack_git2_"))]
    assert left == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_repository_of_this_host_takes_no_memory(
    author: Author, tmp_path: Path, packed: bool
) -> None:
    """libgit2 packs it itself, and kept all that it had compressed."""
    count, size = 12, 8
    author.commit({"a.yaml": "1", **{f"large-{number}": noise(size) for number in range(count)}})
    if packed:
        git(author.remote, "-c", "pack.compression=0", "gc", "-q")
    peak = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    child = run_child(
        f"import resource; before = {peak}; {FETCH}; print({peak} - before)",
        tmp_path,
        str(author.remote),
        hosted=str(author.remote.parent),
    )
    grown, _ = child.communicate()
    assert child.returncode == 0
    assert int(grown) < count * size * 1024 * 2 / 3  # KiB


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_large_files_of_this_host_are_copied_as_they_are(
    sources: GitSources, author: Author, tmp_path: Path, packed: bool
) -> None:
    """A push of models must not take the daemon a minute of compressing what is compressed."""
    spec = repository(str(author.remote))
    author.commit({"a.yaml": "1", "large": noise(4)})
    if packed:
        git(author.remote, "gc", "-q")
    assert content(sources, fetch(sources, spec)) == b"1"
    there, here = author.remote / "objects", tmp_path / "clones" / "demo.git" / "objects"
    assert large_files(here) == large_files(there)
    for number in range(2, 4):  # a pack that it has already is not copied for a small change in a new one
        author.commit({"a.yaml": str(number), "large": noise(4), "small": str(number)})
        assert content(sources, fetch(sources, spec)) == str(number).encode()
    assert large_files(here) >= large_files(there)
    assert list(here.rglob("tmp_*")) == []


def large_files(objects: Path) -> set[tuple[str, bytes]]:
    """Return the names and contents of large files of objects."""
    files = (path for path in objects.rglob("*") if path.is_file() and path.stat().st_size > 2**20)
    return {(path.name, path.read_bytes()) for path in files}


def test_two_processes_do_not_write_one_clone_at_once(
    sources: GitSources, author: Author, web: HttpServer, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1", "large": noise(2)})
    spec = repository(f"{web.url}/{author.remote.name}")
    web.stall_after = 2**20
    child = run_child(FETCH, tmp_path, spec.url)
    assert web.stalled.wait(60)
    results: list[Revision] = []
    waiting = threading.Thread(target=lambda: results.append(fetch(sources, spec)))
    waiting.start()
    assert results == []
    web.stall_after = None
    web.resume.set()
    waiting.join()
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert content(sources, results[0]) == b"1"


def test_threads_that_fetch_one_repository_at_once(sources: GitSources, author: Author, daemon: str) -> None:
    author.commit({"a.yaml": "1", "large": noise(1)})
    spec = repository(f"{daemon}/{author.remote.name}")
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(content(sources, fetch(sources, spec))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"1"] * 8


def spoil(file: Path) -> None:
    """Other bytes in the middle, which a reader must notice."""
    file.chmod(0o600)
    data = bytearray(file.read_bytes())
    for position in range(len(data) // 4, len(data) - 32):
        data[position] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize("what", ["pack", "index", "HEAD", "all objects", "config", "reference", "folder"])
def test_a_damaged_clone_is_made_again(
    make_sources: MakeSources, author: Author, daemon: str, tmp_path: Path, what: str
) -> None:
    author.commit({"a.yaml": "content " * 200, "b": "x" * 5000})
    spec = repository(f"{daemon}/{author.remote.name}")
    fetch(make_sources(), spec)
    clone = tmp_path / "clones" / "demo.git"
    packs = list((clone / "objects" / "pack").glob("*"))
    match what:
        case "pack":
            spoil(next(p for p in packs if p.suffix == ".pack"))
        case "index":
            spoil(next(p for p in packs if p.suffix == ".idx"))
        case "all objects":
            for pack in packs:
                pack.unlink()
        case "HEAD" | "config":
            (clone / what).write_text("[nonsense")
        case "reference":
            (clone / "refs" / "prichal" / "fetched").write_text("nonsense")
        case "folder":
            (clone / "refs").rename(clone / "lost")
    sources = make_sources()
    with contextlib.suppress(
        CloneDamaged
    ):  # a spoilt file is only noticed by who reads it; the next pass is right
        content(sources, fetch(sources, spec))
    assert content(sources, fetch(sources, spec)) == b"content " * 200


def test_stale_locks_are_in_nobodys_way(
    sources: GitSources, author: Author, daemon: str, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1"})
    spec = repository(f"{daemon}/{author.remote.name}")
    fetch(sources, spec)
    refs = tmp_path / "clones" / "demo.git" / "refs" / "prichal"
    for name in ("incoming.lock", "fetched.lock"):
        (refs / name).touch()
    (refs.parents[1] / "objects" / "pack" / "tmp_left" / "pack").mkdir(parents=True)
    author.commit({"a.yaml": "2"})
    assert content(sources, fetch(sources, spec)) == b"2"


def test_what_is_forgotten_is_gone_and_can_be_fetched_again(
    sources: GitSources, author: Author, daemon: str, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1"})
    spec = repository(f"{daemon}/{author.remote.name}")
    revision = fetch(sources, spec)
    sources.forget(["demo", "never-there"])
    assert not (tmp_path / "clones" / "demo.git").exists()
    assert failure(lambda: content(sources, revision)).reason == "CloneDamaged"
    assert content(sources, fetch(sources, spec)) == b"1"


def test_a_commit_that_is_no_longer_here_does_not_cost_the_clone(
    sources: GitSources, author: Author, daemon: str, tmp_path: Path
) -> None:
    author.commit({"a.yaml": "1"})
    revision = fetch(sources, repository(f"{daemon}/{author.remote.name}"))
    gone = Revision(revision.repository, "1" * 40, revision.ref)
    assert failure(lambda: content(sources, gone)).reason == "RevisionGone"
    assert content(sources, revision) == b"1"


# --- what lies in a repository ---


def test_contents_that_are_refused_by_name(sources: GitSources, author: Author, daemon: str) -> None:
    author.commit(
        {
            "app.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
            "ctx/Dockerfile": "1",
        }
    )
    (author.tree / "ctx" / "link").symlink_to("/etc/passwd")
    author.commit({})
    revision = fetch(sources, repository(f"{daemon}/{author.remote.name}"))
    assert failure(lambda: content(sources, revision)).reason == "LfsPointer"
    error = failure(lambda: sources.build_context(revision, make(BuildImage, "ctx")))
    assert (error.reason, "link" in error.message) == ("SymlinkRefused", True)


def test_a_submodule_is_left_out(sources: GitSources, author: Author, daemon: str) -> None:
    author.commit({"a.yaml": "1", "Dockerfile": "FROM scratch"})
    git(
        author.tree,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "add",
        "--quiet",
        str(author.remote),
        "sub",
    )
    author.commit({})
    revision = fetch(sources, repository(f"{daemon}/{author.remote.name}"))
    assert content(sources, revision) == b"1"
    assert b"sub/" not in b"".join(sources.build_context(revision, make(BuildImage, ".")).files)


def test_local_paths_only_where_they_are_allowed(make_sources: MakeSources, tmp_path: Path) -> None:
    elsewhere = Author(tmp_path / "elsewhere" / "demo.git")
    commit = elsewhere.commit({"a.yaml": "1"})
    spec = repository(str(elsewhere.remote))
    error = failure(lambda: fetch(make_sources(), spec))
    assert (type(error), error.reason) == (Stalled, "PathNotAllowed")
    assert fetch(make_sources(allowed_paths=(elsewhere.remote.parent,)), spec).commit == commit


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_of_somebody_else_can_be_read(sources: GitSources, author: Author) -> None:
    commit = author.commit({"a.yaml": "1"})
    for item in (author.remote, *author.remote.rglob("*")):
        os.chown(item, 65534, 65534)
    assert fetch(sources, repository(str(author.remote))).commit == commit
