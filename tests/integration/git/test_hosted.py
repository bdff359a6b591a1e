"""`prichal repo create`: a real push, the real hook, and a platform played by a small HTTP server."""

from __future__ import annotations

import contextlib
import grp
import hmac
import http.server
import json
import os
import signal
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygit2
import pytest
from pygit2.enums import ObjectType

from controller.adapters import hosted, post_receive
from controller.adapters.git import GitSources
from controller.config import GitSettings
from controller.domain.errors import Stalled
from controller.domain.secret import Secret
from tests.support.git_servers import GIT_ENV, git, make_certificate
from tests.support.git_specs import repository
from tests.support.ports import free_port

SECRET = "hook secret"
NOTHING: dict[str, Any] = {"state": "running", "outcome": "", "message": "", "events": []}


def event(
    number: int, message: str, component: str | None = "classify", kind: str = "Normal"
) -> dict[str, Any]:
    return {"id": number, "type": kind, "reason": "R", "component": component, "message": message}


def done(outcome: str, message: str, *events: dict[str, Any]) -> dict[str, Any]:
    return {"state": "done", "outcome": outcome, "message": message, "events": list(events)}


@dataclass
class Platform:
    """Accepts what is signed rightly. `progress`: what the long polls answer in turn; an int is a bare status."""

    url: str
    progress: list[dict[str, Any] | int] = field(default_factory=list)
    announced: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answer: tuple[int, dict[str, Any]] | None = None  # to the announcement
    polled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(
        default_factory=threading.Event
    )  # long polls wait for it where `hold` is set
    hold: bool = False


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Silence."""

    @property
    def platform(self) -> Platform:
        return self.server.platform  # type: ignore[attr-defined, no-any-return]

    def reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def genuine(self, signed: bytes) -> bool:
        right = "sha256=" + hmac.new(SECRET.encode(), signed, "sha256").hexdigest()
        return self.headers["X-Signature"] == right

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.genuine(body):
            return self.reply(401, {"title": "Unauthorized", "detail": "the signature is wrong"})
        self.platform.announced.append(json.loads(body))
        self.platform.headers.append(dict(self.headers))
        delivery = self.headers["X-Delivery"]
        accepted = {"id": delivery, "links": {"self": f"/-/hooks/demo/{delivery}"}}
        return self.reply(*(self.platform.answer or (202, accepted)))

    def do_GET(self) -> None:
        self.platform.asked.append(self.path)
        self.platform.polled.set()
        if self.platform.hold:
            self.platform.release.wait()
        if not self.genuine(self.path.encode()):
            return self.reply(401, {"title": "Unauthorized"})
        step = self.platform.progress.pop(0)
        return self.reply(step, {}) if isinstance(step, int) else self.reply(200, step)


@contextlib.contextmanager
def running(certificate: Path | None = None) -> Iterator[Platform]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "https" if certificate else "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    platform = Platform(f"{scheme}://127.0.0.1:{server.server_port}")
    server.platform = platform  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # pushers who leave
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield platform
    finally:
        platform.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def platform() -> Iterator[Platform]:
    with running() as platform:
        yield platform


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work tree with one commit."""
    tree = tmp_path / "work"
    tree.mkdir()
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "one")
    return tree


def create(tmp_path: Path, platform: Platform, secret: str = SECRET) -> Path:
    return hosted.create(tmp_path / "git", "demo", platform.url, Secret(secret))


def push(work: Path, remote: Path, *refspecs: str) -> str:
    """What the pusher sees. The push itself must succeed."""
    command = ["git", "push", str(remote), *(refspecs or ("main",))]
    result = subprocess.run(
        command, cwd=work, env={**os.environ, **GIT_ENV}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return "\n".join(line.rstrip() for line in result.stderr.splitlines())


def test_the_pusher_sees_the_progress_until_it_is_ready(
    tmp_path: Path, work: Path, platform: Platform
) -> None:
    platform.progress = [
        {**NOTHING, "events": [event(4, "planned: 1 to start", None)]},
        NOTHING | {"events": [event(7, "started"), event(8, "is ready")]},
        done("Ready", "", event(9, "serves 1a2b3c4d")),
    ]
    remote = create(tmp_path, platform)
    seen = push(work, remote)
    commit = git(work, "rev-parse", "HEAD")
    assert platform.announced == [
        {"ref": "refs/heads/main", "before": "0" * 40, "after": commit, "pusher": ""}
    ]
    assert platform.headers[0]["X-Prichal-Push"] == "1"
    lines = [line.removeprefix("remote: prichal: ") for line in seen.splitlines() if "prichal:" in line]
    assert lines[:-1] == [
        f"refs/heads/main is at {commit[:12]}; reconciling",
        "planned: 1 to start",
        "classify: started",
        "classify: is ready",
        "classify: serves 1a2b3c4d",
    ]
    assert lines[-1].startswith("ready after ")
    assert [path.partition("?")[2] for path in platform.asked] == [
        f"after={n}&build=&wait=20&ref=refs%2Fheads%2Fmain" for n in (0, 4, 8)
    ]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("Degraded", "FAILED: the previous version keeps serving"),
        ("Failed", "FAILED"),
        ("Superseded", "superseded by a newer commit"),
        ("Suspended", "prichal resume"),
        ("Waiting", "continues automatically"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_other_outcomes_say_why(
    tmp_path: Path, work: Path, platform: Platform, outcome: str, words: str
) -> None:
    platform.progress = [
        done(outcome, "app.py:3: no such module", event(1, "did not become ready", kind="Warning"))
    ]
    seen = push(work, create(tmp_path, platform))
    assert "classify: did not become ready" in seen
    (last,) = [line for line in seen.splitlines() if words in line]
    assert last.endswith(" s: app.py:3: no such module")


def test_a_platform_that_is_restarted_meanwhile(tmp_path: Path, work: Path, platform: Platform) -> None:
    platform.progress = [503, done("Ready", "")]
    assert "ready after" in push(work, create(tmp_path, platform))
    assert len(platform.asked) == 2


def test_a_platform_that_is_away_does_not_hold_up_the_push(tmp_path: Path, work: Path) -> None:
    remote = hosted.create(tmp_path / "git", "demo", f"http://127.0.0.1:{free_port()}", Secret(SECRET))
    seen = push(work, remote)
    assert "does not answer" in seen
    assert "was received and will be picked up by polling" in seen


def test_a_platform_behind_tls(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, authority = make_certificate(tmp_path)
    with running(key) as platform:
        platform.progress = [done("Ready", "")]
        remote = create(tmp_path, platform)
        assert "certificate verify failed" in push(work, remote, "main:first")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert "ready after" in push(work, remote)
    assert len(platform.announced) == 1


def test_a_platform_that_refuses_says_why(tmp_path: Path, work: Path, platform: Platform) -> None:
    seen = push(work, create(tmp_path, platform, secret="another one"))
    assert "answers 401: the signature is wrong" in seen
    assert "picked up by polling" in seen
    assert platform.announced == []


def test_a_ref_that_nobody_follows(tmp_path: Path, work: Path, platform: Platform) -> None:
    platform.answer = (
        202,
        {"status": "skipped", "reason": "refs/heads/other is not what is followed, branch:main"},
    )
    seen = push(work, create(tmp_path, platform), "main:other")
    assert "nothing to do: refs/heads/other is not what is followed" in seen
    assert platform.asked == []


def test_several_refs_and_a_deletion(tmp_path: Path, work: Path, platform: Platform) -> None:
    remote = create(tmp_path, platform)
    platform.progress = [done("Ready", "")] * 2
    push(work, remote, "main", "main:other")
    assert {a["ref"] for a in platform.announced} == {"refs/heads/main", "refs/heads/other"}
    platform.progress = [done("Ready", "")]
    assert "refs/heads/other is deleted" in push(work, remote, ":other")
    assert platform.announced[-1]["after"] == "0" * 40


def test_a_pusher_who_leaves_loses_nothing(tmp_path: Path, work: Path, platform: Platform) -> None:
    platform.hold = True
    platform.progress = [NOTHING]
    remote = create(tmp_path, platform)
    command = ["git", "push", str(remote), "main"]
    pusher = subprocess.Popen(
        command, cwd=work, env={**os.environ, **GIT_ENV}, stderr=subprocess.PIPE, start_new_session=True
    )
    assert platform.polled.wait(60)
    os.killpg(pusher.pid, signal.SIGINT)  # Ctrl-C reaches every process of the terminal
    _, seen = pusher.communicate(timeout=60)
    assert b"Traceback" not in seen
    assert git(remote, "rev-parse", "main") == git(work, "rev-parse", "main")


@pytest.mark.parametrize("damage", ["no settings", "no script"])
def test_a_hook_that_lost_its_parts_does_not_hold_up_the_push(
    tmp_path: Path, work: Path, platform: Platform, damage: str
) -> None:
    remote = create(tmp_path, platform)
    if damage == "no settings":
        (remote / post_receive.CONFIG).unlink()
    else:
        hook = remote / "hooks" / "post-receive"
        hook.write_text(hook.read_text().replace("post_receive.py", "gone.py"))
    seen = push(work, remote)
    assert "prichal repo create" in seen
    assert "Traceback" not in seen


def test_the_secret_is_for_owner_and_group_alone(tmp_path: Path, platform: Platform) -> None:
    remote = create(tmp_path, platform)
    settings = remote / post_receive.CONFIG
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640
    assert stat.S_IMODE(remote.stat().st_mode) == 0o700
    assert SECRET not in (remote / "hooks" / "post-receive").read_text()


def test_creating_it_again_renews_hook_and_settings_and_keeps_the_commits(
    tmp_path: Path, work: Path, platform: Platform
) -> None:
    remote = hosted.create(tmp_path / "git", "demo", f"http://127.0.0.1:{free_port()}", Secret("old"))
    push(work, remote)
    git(remote, "config", "receive.fsckObjects", "true")
    platform.progress = [done("Ready", "")]
    assert create(tmp_path, platform) == remote
    assert git(remote, "config", "receive.fsckObjects") == "false"
    git(work, "commit", "--quiet", "--amend", "--allow-empty", "-m", "amended")
    assert "ready after" in push(work, remote, "+main")  # a force push is allowed
    assert git(remote, "rev-parse", "main") == git(work, "rev-parse", "main")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_a_group_may_push(tmp_path: Path, platform: Platform) -> None:
    group = grp.getgrgid(1)
    remote = hosted.create(tmp_path / "git", "demo", platform.url, Secret(SECRET), group=group.gr_name)
    for item in (remote, *remote.rglob("*")):
        assert item.stat().st_gid == group.gr_gid
        if item.is_dir():
            assert stat.S_IMODE(item.stat().st_mode) == 0o2770
    assert git(remote, "config", "core.sharedRepository") == "group"


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "..", "a.git", "x" * 64])
def test_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(Stalled) as caught:
        hosted.create(tmp_path / "git", name, "http://127.0.0.1", Secret(SECRET))
    assert caught.value.reason == "NameInvalid"
    assert not (tmp_path / "git").exists()


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "git").write_text("a file is in the way")
    with pytest.raises(Stalled) as caught:
        hosted.create(tmp_path / "git", "demo", "http://127.0.0.1", Secret(SECRET))
    assert caught.value.reason == "HostingFailed"


def test_the_daemon_reads_it_without_further_permission(
    tmp_path: Path, work: Path, platform: Platform
) -> None:
    remote = create(tmp_path, platform)
    platform.progress = [done("Ready", "")]
    push(work, remote)
    sources = GitSources(tmp_path / "clones", GitSettings(), hosted=tmp_path / "git")
    spec = repository(str(remote))
    assert sources.head(spec, None) == git(work, "rev-parse", "HEAD")


WHO = b"Ada <ada@example.org> 1700000000 +0000"
WRITTEN = b"author " + WHO + b"\ncommitter " + WHO + b"\n"
#: What follows the tree in a commit.
ODD_COMMITS = {
    **{
        f"{what}: {who.decode()}": b"author " + who + b"\ncommitter " + WHO + b"\n\nold\n"
        for what, who in (
            ("no blank before the e-mail", b"Ada<ada@example.org> 1700000000 +0000"),
            ("no e-mail", b"Ada 1700000000 +0000"),
            ("no name", b"<ada@example.org> 1700000000 +0000"),
            ("brackets in the name", b"A>d<a <ada@example.org> 1700000000 +0000"),
            ("a zone that is none", b"Ada <ada@example.org> 1700000000 +51800"),
            ("a padded date", b"Ada <ada@example.org> 01700000000 +0000"),
            ("a date that is none", b"Ada <ada@example.org> yesterday +0000"),
            ("a date beyond all integers", b"Ada <ada@example.org> 99999999999999999999999 +0000"),
            ("no date", b"Ada <ada@example.org>"),
        )
    },
    "no author": b"committer " + WHO + b"\n\nold\n",
    "no committer": b"author " + WHO + b"\n\nold\n",
    "two authors": b"author " + WHO + b"\n" + WRITTEN + b"\nold\n",
    "NUL in the message": WRITTEN + b"\nold\0er\n",
    "NUL in the author": WRITTEN.replace(b"Ada", b"A\0da", 1) + b"\nold\n",
    "a header without an end": WRITTEN + b"odd",
    "no message": WRITTEN,
}
#: Made from an empty file's id and the folder of the manifests.
ODD_TREES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "a zero-padded folder": lambda file, manifests: b"0" + manifests,
    "unsorted entries": lambda file, manifests: manifests + b"100644 a\0" + file,
    "one entry twice": lambda file, manifests: b"100644 a\0" + file + b"100644 a\0" + file + manifests,
    "a mode of old": lambda file, manifests: b"100664 a\0" + file + manifests,
    "a submodule at no commit": lambda file, manifests: b"160000 a\0" + bytes(20) + manifests,
    "a name that means .git on Windows": lambda file, manifests: b"100644 GIT~1\0" + file + manifests,
    "modules that are a link": lambda file, manifests: b"120000 .gitmodules\0" + file + manifests,
}
REFUSED_TREES: dict[str, Callable[[bytes, bytes], bytes]] = {
    f"an entry {name.decode()!r}": lambda file, manifests, name=name: (  # type: ignore[misc]
        b"100644 " + name + b"\0" + file + manifests
    )
    for name in (b".", b"..", b".git", b"a/b")
}


def files_of(tmp_path: Path, source: Path, allowed: Path) -> list[str] | str:
    """Of the branch main, or the reason why it is refused."""
    sources = GitSources(tmp_path / f"clones of {source.name}", GitSettings(), hosted=allowed)
    try:
        revision = sources.fetch(repository(str(source)), None, None)
        return [file.path for file in sources.files(revision, ".", (".yaml",))]
    except Stalled as refused:
        return refused.reason


@pytest.mark.parametrize(
    ("odd_tree", "odd_commit", "expected"),
    [
        *((None, odd, ["manifests/a.yaml"]) for odd in ODD_COMMITS),
        *((odd, None, ["manifests/a.yaml"]) for odd in ODD_TREES),
        *((odd, None, "TreeInvalid") for odd in REFUSED_TREES),
    ],
)
def test_what_can_be_fetched_from_elsewhere_can_be_pushed_here_and_is_read_alike(
    tmp_path: Path, odd_tree: str | None, odd_commit: str | None, expected: list[str] | str
) -> None:
    """Git itself has no say in what it pushes: the objects are written as old tools have done it."""
    elsewhere = tmp_path / "elsewhere"
    local = pygit2.init_repository(elsewhere / "old.git", bare=True, initial_head="main")
    file = local.create_blob(b"a: 1\n")
    below = local.odb.write(ObjectType.TREE, b"100644 a.yaml\0" + file.raw)
    plain: Callable[[bytes, bytes], bytes] = lambda file, manifests: manifests  # noqa: E731 - one among others
    entries = {**ODD_TREES, **REFUSED_TREES}.get(odd_tree or "", plain)
    root = local.odb.write(ObjectType.TREE, entries(file.raw, b"40000 manifests\0" + below.raw))
    rest = ODD_COMMITS[odd_commit] if odd_commit else WRITTEN + b"\nold\n"
    made = local.odb.write(ObjectType.COMMIT, b"tree " + str(root).encode() + b"\n" + rest)
    Path(local.path, "refs", "heads", "main").write_text(f"{made}\n")
    hosts = tmp_path / "git"
    hosts.mkdir()
    path = hosted.create(hosts, "demo", "http://127.0.0.1:1", Secret(SECRET))
    (path / "hooks" / "post-receive").unlink()  # no platform listens
    result = subprocess.run(
        ["git", "--git-dir", local.path, "push", str(path), f"{made}:refs/heads/main"],
        env=GIT_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    assert files_of(tmp_path, path, hosts) == expected
    assert files_of(tmp_path, Path(local.path), elsewhere) == expected
