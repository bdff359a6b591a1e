"""Git over HTTP as people use it: real Git clients, the real web process, daemon and Git service."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from controller.config import load
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.store import open_guest_store
from controller.store.people import PeopleStore
from tests.support.git_servers import GIT_ENV, git
from tests.support.people import PASSWORD, add_person, add_token, make_token
from tests.support.platform import Platform
from tests.support.waiting import wait_for

APP = AppName("demo")
MANIFEST = """\
apiVersion: unified-platform.cs.hse.ru/v1
kind: Secret
metadata: {name: nothing}
stringData: {a: b}
"""
#: Bytes of the largest push.
LARGE = int(os.environ.get("LARGE_PUSH", "64")) * 2**20
SECONDS = 100 + LARGE // 2**20
#: The client neither compresses what cannot be compressed nor compares it.
QUICK = ("-c", "core.compression=0", "-c", "core.bigFileThreshold=1m")
LIMIT = LARGE + 4 * 2**20


class Site:
    """The platform with two hosted repositories, each with an app of its own, and people."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.state = platform.home / "state"
        self.people = PeopleStore(load(platform.config).people)
        self._number = 0

    def repository(self, name: str) -> Path:
        return self.state / "git" / f"{name}.git"

    def url(self, name: str = "", secret: str = "", repository: str = "demo") -> str:
        whom = f"{name}:{secret}@" if name else ""
        return f"http://{whom}127.0.0.1:{self.platform.port}/-/git/{repository}.git"

    def tree(self, files: Mapping[str, bytes] | None = None) -> Path:
        """A work tree with one commit that no other has."""
        self._number += 1
        tree = self.platform.home / f"tree-{self._number}"
        tree.mkdir()
        git(tree, "init", "--quiet", "--initial-branch=main")
        for name, content in {
            "a.yaml": MANIFEST.encode(),
            "n": b"%d" % self._number,
            **(files or {}),
        }.items():
            (tree / name).write_bytes(content)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "-m", f"Commit {self._number}")
        return tree

    def processes(self) -> list[str]:
        """Git's processes that the service has started."""
        return [name for _, name in _descendants(self.service())]

    def service(self) -> int:
        (found,) = (process.pid for name, process in self.platform._processes.items() if name == "git-http")
        return found

    def leftovers(self, repository: str = "demo") -> list[str]:
        """Names of files and folders of unfinished pushes. Git may remove them while they are listed, which `os.walk`
        passes over and `Path.rglob` does not."""
        found = os.walk(self.repository(repository) / "objects")
        names = (name for _, folders, files in found for name in (*folders, *files))
        return [name for name in names if name.startswith(("tmp_objdir", "tmp_pack", "incoming"))]

    def packs(self, repository: str) -> int:
        return len(list((self.repository(repository) / "objects" / "pack").glob("*.pack")))

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            return reply.status, reply.read(), {name.lower(): value for name, value in reply.getheaders()}
        finally:
            connection.close()


def _descendants(pid: int) -> list[tuple[int, str]]:
    """Return process and name of each that lives, whichever thread has started it."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in map(int, thread.read_text().split()):
                name, _, rest = Path(f"/proc/{child}/stat").read_text().partition("(")[2].rpartition(")")
                if rest.split()[0] != "Z":
                    found += [(child, name), *_descendants(child)]
    return found


def run(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **GIT_ENV, **(env or {})}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("git-https")
    platform = Platform(
        home / "p", storage={"backend": "none"}, git={"maxRepository": LIMIT, "fetchTimeout": f"{SECONDS}s"}
    )
    try:
        platform.start()
        platform.start_process("git-http")
        site = Site(platform)
        for name in ("demo", "other"):
            platform.prichal("repo", "create", name, "--connect")
        for name, grants in {
            "viewer": (Grant("viewer", Role.VIEWER, APP),),
            "maker": (Grant("maker", Role.DEVELOPER, APP),),
            "foreign": (Grant("foreign", Role.DEVELOPER, AppName("other")),),
            "boss": (Grant("boss", Role.ADMIN),),
            "nobody": (),
        }.items():
            add_person(site.people, name, *grants)
        wait_for(lambda: (site.state / "git-http.sock").exists(), limit=30)
        platform.until(
            lambda: {"demo", "other"} <= {each["app"] for each in platform.get("/-/apps").json["apps"]}
        )
        yield site
    finally:
        platform.stop()


@pytest.fixture(scope="module")
def maker(site: Site) -> str:
    """The URL with a developer's token in it."""
    return site.url("maker", add_token(site.people, "maker", Scope.DEPLOY))


# --- who may do what --------------------------------------------------------------------------------------------

CLONE, PUSH = "clone", "push"
#: What Git is told for a clone and for a push; 0: it works.
TABLE = {
    "anonymous": (401, 401),
    "wrong password": (401, 401),
    "revoked token": (401, 401),
    "expired token": (401, 401),
    "somebody else's token": (401, 401),
    "without a role": (404, 404),
    "other app's developer": (404, 404),
    "viewer": (0, 403),
    "viewer, by password": (0, 403),
    "developer, read": (0, 403),
    "developer, deploy": (0, 0),
    "developer, admin": (0, 0),
    "developer, by password": (0, 0),
    "developer, token alone": (0, 0),
    "admin": (0, 0),
    "admin token": (0, 0),
}


def credentials(site: Site, who: str) -> tuple[str, str]:
    people = site.people
    match who:
        case "anonymous":
            return "", ""
        case "wrong password":
            return "maker", "not-the-password"
        case "revoked token":
            secret, id = make_token(people, "maker")
            people.revoke_token(id)
            return "maker", secret
        case "expired token":
            return "maker", add_token(people, "maker", days=-1)
        case "somebody else's token":
            return "viewer", add_token(people, "maker")
        case "without a role":
            return "nobody", add_token(people, "nobody")
        case "other app's developer":
            return "foreign", add_token(people, "foreign")
        case "viewer":
            return "viewer", add_token(people, "viewer")
        case "developer, token alone":
            return "git", add_token(people, "maker")
        case "admin":
            return "boss", add_token(people, "boss")
        case "admin token":
            return "whoever", (site.state / "web" / "admin.token").read_text().strip()
    name, _, scope = who.replace("developer", "maker").partition(", ")
    return name, PASSWORD if scope == "by password" else add_token(people, name, Scope(scope))


@pytest.mark.parametrize("who", TABLE)
def test_roles(site: Site, maker: str, who: str) -> None:
    tree, (name, secret) = site.tree(), credentials(site, who)
    if "base" not in git(site.repository("demo"), "branch"):
        run(tree, "push", maker, "HEAD:refs/heads/base").check_returncode()
    url = site.url(name, secret.replace(" ", "%20"))
    cloned = run(tree, "clone", "--quiet", "--branch", "base", url, "copy")
    pushed = run(tree, "push", url, "HEAD:refs/heads/topic", "--force")
    for done, expected in zip((cloned, pushed), TABLE[who], strict=True):
        assert (done.returncode == 0) == (expected == 0), done.stderr
        assert seen(done.stderr) == expected
    landed = (
        git(tree, "rev-parse", "HEAD") == git(site.repository("demo"), "rev-parse", "-q", "--verify", "topic")
        if TABLE[who][1] == 0
        else False
    )
    assert landed == (TABLE[who][1] == 0)


def seen(words: str) -> int:
    if "could not read Username" in words or "Authentication failed" in words:
        return 401
    if "not found" in words:
        return 404
    return 403 if "error: 403" in words else 0  # the number may be in a port, too


def test_where_to_clone_is_shown(site: Site) -> None:
    url = site.url()
    assert site.platform.status("demo")["cloneUrl"] == url
    assert f"clone URL   {url}\n" in site.platform.prichal("status", "demo").stdout
    assert site.platform.prichal("repo", "ls", "-o", "jsonpath={[0].url}").stdout.strip() == url
    checks = json.loads(site.platform.prichal("doctor", "-o", "json", check=False).stdout)
    check = next(check for check in checks if check["name"] == "git over https")
    assert (check["ok"], url.replace("demo", "NAME") in check["detail"]) == (True, True)


def test_what_git_shows(site: Site) -> None:
    """The reason reaches the person, not only the status."""
    viewer = site.url("viewer", add_token(site.people, "viewer"))
    refused = run(site.tree(), "push", viewer, "HEAD:refs/heads/x")
    assert "403" in refused.stderr
    status, body, headers = site.request(
        "GET",
        "/-/git/demo.git/info/refs?service=git-receive-pack",
        headers=basic("viewer", add_token(site.people, "viewer")),
    )
    assert (status, headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert body == b"You (viewer) may fetch demo, but not push to it: that needs the role developer.\n"


def test_a_hidden_repository_looks_like_one_that_is_not_there(site: Site) -> None:
    headers = {**basic("foreign", add_token(site.people, "foreign")), "X-Request-ID": "r"}
    answers = []
    for name in ("demo", "missing"):
        status, body, _ = site.request(
            "GET", f"/-/git/{name}.git/info/refs?service=git-upload-pack", headers=headers
        )
        answers.append((status, body.replace(name.encode(), b"NAME")))
    assert answers[0] == answers[1] == (404, b"No repository is called NAME.\n")
    for name in ("demo", "missing", "../x"):
        assert site.request("GET", f"/-/git/{name}.git/info/refs?service=git-upload-pack")[0] in (401, 404)


def test_browsers_are_not_served(site: Site) -> None:
    """A page of a module would send along what the browser remembers."""
    path = "/-/git/demo.git/info/refs?service=git-upload-pack"
    admin = basic("x", (site.state / "web" / "admin.token").read_text().strip())
    assert site.request("GET", path, headers=admin)[0] == 200
    for sent in ({"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Mode": "cors"}, {"Service-Worker": "script"}):
        assert site.request("GET", path, headers={**admin, **sent})[0] == 404
    status, body, _ = site.request("GET", path, headers={**admin, "Host": "models.example.org"})
    assert (status, b"HTTPS" in body) == (403, True)


def test_a_push_is_in_the_audit_with_its_refs(site: Site) -> None:
    secret, id = make_token(site.people, "maker", Scope.DEPLOY)
    tree = site.tree()
    run(
        tree, "push", site.url("maker", secret), "HEAD:refs/heads/ветка", "HEAD:refs/tags/v1"
    ).check_returncode()
    act = next(act for act in site.people.acts() if act.via == f"token {id}")
    head = git(tree, "rev-parse", "HEAD")[:12]
    assert (act.who, act.act, act.subject, act.address) == ("maker", "push", "repository demo", "127.0.0.1")
    assert sorted(act.detail.split(", ")) == [f"refs/heads/ветка at {head}", f"refs/tags/v1 at {head}"]


def test_who_pushed_is_known_for_what_git_accepts_and_nothing_else(site: Site, maker: str) -> None:
    """Two people at once, many refs, one of which the repository refuses."""
    hook = site.repository("demo") / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in *refused*) exit 1;; esac\n')
    hook.chmod(0o755)
    secret = add_token(site.people, "boss", Scope.ADMIN)
    pushes = []
    for who, url in (("maker", maker), ("boss", site.url("boss", secret))):
        tree = site.tree()
        git(tree, "tag", "good")
        for number in range(110):
            git(tree, "commit", "--quiet", "--allow-empty", "-m", f"{who} {number}")
            git(tree, "branch", f"{who}-{number}")
        refused = git(tree, "commit-tree", "-m", "refused", "HEAD^{tree}")
        git(tree, "branch", f"refused-{who}", refused)
        pushes.append((who, tree, url, refused))
    try:
        threads = [
            threading.Thread(
                target=run,
                args=(tree, "push", url, f"refs/heads/{who}-*", f"refused-{who}:refs/heads/refused-{who}"),
            )
            for who, tree, url, _ in pushes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        hook.unlink()
    with closing(open_guest_store(load(site.platform.config).database)) as store:
        for who, tree, _, refused in pushes:
            for number in (0, 100, 109):
                head = git(tree, "rev-parse", f"{who}-{number}")
                assert store.repositories.pusher("demo", head) == who
            assert store.repositories.pusher("demo", refused) == ""
    acts = [act for act in site.people.acts() if act.act == "push" and "107 more" in act.detail]
    assert sorted(act.who for act in acts) == ["boss", "maker"]
    assert all("refused" not in act.detail for act in acts)


# --- what clients do --------------------------------------------------------------------------------------------


def test_progress_until_the_end_is_shown(site: Site, maker: str) -> None:
    tree = site.tree()
    done = run(tree, "push", "--force", maker, "HEAD:main")
    assert done.returncode == 0, done.stderr
    head = git(tree, "rev-parse", "HEAD")
    assert f"remote: prichal: refs/heads/main is at {head[:12]}; reconciling" in done.stderr
    assert re.search(f"remote: prichal: {head[:12]} Commit [0-9]+, pushed by maker", done.stderr), done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("remote:")][-1]
    assert " after " in last, done.stderr


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_versions_of_the_protocol(site: Site, maker: str, version: str) -> None:
    tree = site.tree()
    for arguments in (
        ("push", maker, f"HEAD:refs/heads/proto-{version}"),
        ("fetch", maker, f"proto-{version}"),
    ):
        run(tree, "-c", f"protocol.version={version}", *arguments).check_returncode()
    assert git(tree, "rev-parse", "FETCH_HEAD") == git(tree, "rev-parse", "HEAD")


def test_shallow_and_partial_clones(site: Site, maker: str) -> None:
    tree = site.tree()
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "second")
    run(tree, "push", maker, "HEAD:refs/heads/deep").check_returncode()
    run(tree, "clone", "--quiet", "--depth", "1", "--branch", "deep", maker, "shallow").check_returncode()
    assert git(tree / "shallow", "rev-list", "--count", "HEAD") == "1"
    git(site.repository("demo"), "config", "uploadpack.allowFilter", "true")
    run(
        tree, "clone", "--quiet", "--filter=blob:none", "--no-checkout", "--branch", "deep", maker, "partial"
    ).check_returncode()
    missing = git(tree / "partial", "rev-list", "--objects", "--missing=print", "HEAD").splitlines()
    assert any(line.startswith("?") for line in missing)


def test_the_connection_is_used_again_and_large_pushes_are_chunked(site: Site, maker: str) -> None:
    tree = site.tree(
        {"large": os.urandom(3 * 2**20), "pointer": b"version https://git-lfs.github.com/spec/v1\n"}
    )
    done = run(tree, "push", maker, "HEAD:refs/heads/large", env={"GIT_CURL_VERBOSE": "1"})
    assert done.returncode == 0, done.stderr
    assert "Transfer-Encoding: chunked" in done.stderr
    assert "Re-using existing connection" in done.stderr
    copy = site.platform.home / "large-copy"
    run(tree, "clone", "--quiet", "--branch", "large", maker, str(copy)).check_returncode()
    assert (copy / "large").read_bytes() == (tree / "large").read_bytes()


def test_expect_continue(site: Site, maker: str) -> None:
    with_expect = ("-c", "http.extraHeader=Expect: 100-continue", "-c", "http.postBuffer=65536")
    tree = site.tree({"some": os.urandom(2**20)})
    done = run(tree, *with_expect, "push", maker, "HEAD:refs/heads/expect")
    assert done.returncode == 0, done.stderr


def test_a_thousand_refs_with_any_names(site: Site, maker: str) -> None:
    tree, number = site.tree(), 1200
    head = git(tree, "rev-parse", "HEAD")
    lines = "".join(f"create refs/heads/много/ветка-{n} {head}\n" for n in range(number))
    subprocess.run(["git", "-C", str(tree), "update-ref", "--stdin"], input=lines, text=True, check=True)
    run(tree, "push", "--quiet", maker, "refs/heads/много/*:refs/heads/много/*").check_returncode()
    found = git(site.repository("demo"), "for-each-ref", "refs/heads/много/").splitlines()
    assert len(found) == number


def test_two_pushes_at_once(site: Site, maker: str) -> None:
    trees = [site.tree({"large": os.urandom(2**20)}) for _ in range(2)]
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(
            target=lambda tree=tree, n=n: done.append(run(tree, "push", maker, f"HEAD:refs/heads/both-{n}"))
        )
        for n, tree in enumerate(trees)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.returncode for each in done] == [0, 0], done
    race = [run(tree, "push", maker, "HEAD:refs/heads/race") for tree in trees]
    assert sorted(each.returncode for each in race) == [0, 1]  # the second one is no fast-forward


def test_ctrl_c_ends_only_the_showing(site: Site, maker: str) -> None:
    tree = site.tree()
    slow = site.repository("demo") / "hooks" / "update"
    marker = site.platform.home / "hook-ended"
    hook = site.repository("demo") / "hooks" / "post-receive"
    kept = hook.read_text()
    hook.write_text(
        f"#!/bin/sh\necho showing >&2\nwhile [ ! -e {marker}.go ]; do sleep 0.05; done\ntouch {marker}\n"
    )
    assert not slow.exists()
    environment = {**os.environ, **GIT_ENV}
    command = ["git", "-C", str(tree), "push", maker, "HEAD:refs/heads/interrupted"]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as push:
        assert push.stderr is not None
        for line in push.stderr:
            if "showing" in line:
                break
        os.killpg(push.pid, signal.SIGINT)
        assert push.wait(30) != 0
    Path(f"{marker}.go").touch()
    try:
        wait_for(marker.exists, limit=30)
        wait_for(lambda: not site.processes(), limit=40)
        assert git(site.repository("demo"), "rev-parse", "interrupted") == git(tree, "rev-parse", "HEAD")
    finally:
        hook.write_text(kept)


# --- bad bodies -------------------------------------------------------------------------------------------------

RECEIVE = "/-/git/demo.git/git-receive-pack"
TYPE = {"Content-Type": "application/x-git-receive-pack-request"}


class Peak:
    """The largest anonymous memory of Git's processes, each by its name, and of the service that starts them."""

    def __init__(self, site: Site) -> None:
        self.bytes: dict[str, int] = {}
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> dict[str, int]:
        self._thread.start()
        return self.bytes

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        service = self._site.service()
        while not self._over.wait(0.02):
            for pid, name in ((service, "service"), *_descendants(service)):
                with suppress(OSError, AssertionError):  # it has ended
                    self.bytes[name] = max(self.bytes.get(name, 0), _memory(pid, "RssAnon"))


@pytest.mark.timeout(2 * SECONDS)
def test_a_large_push_costs_no_memory_and_what_is_beyond_the_limit_is_refused(site: Site) -> None:
    """Much that cannot be compressed goes through in pieces. It nearly fills a repository of its own, so that little
    more is too much. LARGE_PUSH=2048 pushes two gigabytes, as nobody should have to wait for in each run."""
    site.platform.prichal("repo", "create", "large", "--connect")
    url = site.url("boss", add_token(site.people, "boss", Scope.ADMIN), "large")
    tree = site.tree({f"part-{number}": os.urandom(LARGE // 8) for number in range(8)})
    workers = site.platform.children("web")
    before = {pid: _memory(pid, "VmRSS") for pid in workers}
    for pid in workers:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is measured from here on
    with Peak(site) as peaks:
        done = run(tree, *QUICK, "push", url, "HEAD:main")
    assert done.returncode == 0, done.stderr
    assert git(site.repository("large"), "rev-parse", "main") == git(tree, "rev-parse", "HEAD")
    grown = {pid: _memory(pid, "VmHWM") - before[pid] for pid in workers}
    assert max(grown.values()) < 14 * 2**20, grown
    assert peaks["git"] < LARGE // 8 + 80 * 2**20, peaks
    assert peaks["service"] < 80 * 2**20, peaks
    assert "remote: prichal: ready after" in done.stderr, "the daemon has fetched it"
    assert site.packs("large") == 1, "it is kept as it came, though it has few objects"
    (tree / "more").write_bytes(os.urandom(LIMIT - LARGE + 2**20))
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "-m", "More than there is room for")
    refused = run(tree, *QUICK, "push", url, "HEAD:main")
    assert refused.returncode != 0
    assert "exceeds maximum allowed size" in refused.stderr, refused.stderr
    assert git(site.repository("large"), "rev-parse", "main") == git(tree, "rev-parse", "HEAD~")
    assert site.leftovers("large") == []


def _memory(pid: int, name: str) -> int:
    """A line of /proc/PID/status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_a_body_that_announces_more_than_the_limit_is_not_read(site: Site) -> None:
    headers = {
        **basic("maker", add_token(site.people, "maker")),
        **TYPE,
        "Content-Length": str(2 * 10**9),
        "Expect": "100-continue",
    }
    status, body, _ = site.request("POST", RECEIVE, None, headers)
    assert (status, body) == (413, b"The body may have %d bytes.\n" % (LIMIT + 2**20))


def test_other_bodies(site: Site) -> None:
    maker = {**basic("maker", add_token(site.people, "maker")), **TYPE}
    bomb = gzip.compress(b"0000" + bytes(200 * 2**20))
    coded = {"Content-Encoding": "gzip"}
    for body, more, expected in (
        (bomb, coded, 413),
        (b"no gzip", coded, 415 - 15),
        (b"x", {"Content-Encoding": "br"}, 415),
        (b"PACK", {}, 400),
        (b"x", {"Content-Type": "text/plain"}, 415),
        (b"0000", {}, 200),
        (gzip.compress(b"0000"), coded, 200),
        (b"00a1lies", {}, 200),  # Git says so in its answer, or ends
    ):
        status, answer, _ = site.request("POST", RECEIVE, body, {**maker, **more})
        assert status == expected, (body[:20], answer)
    wait_for(lambda: not site.processes(), limit=40)
    assert site.leftovers() == []


@pytest.mark.parametrize(
    "path",
    [
        "/-/git/demo.git/HEAD",
        "/-/git/demo.git/info/refs",
        "/-/git/demo.git/objects/info/packs",
        "/-/git/demo.git/prichal.json",
        "/-/git/demo.git/../other.git/info/refs?service=git-upload-pack",
        "/-/git/demo.git/%2e%2e/other.git/info/refs?service=git-upload-pack",
        "/-/git/%64emo.git/info/refs?service=git-upload-pack",
        "/-/git/demo.git/info/refs?service=git-upload-archive",
        "/-/git/demo.git/info//refs?service=git-upload-pack",
    ],
)
def test_other_paths(site: Site, path: str) -> None:
    admin = basic("x", (site.state / "web" / "admin.token").read_text().strip())
    status, body, _ = site.request("GET", path, headers=admin)
    assert status in (400, 404), body
    assert b"secret" not in body


def open_push(site: Site, secret: str, *more: str) -> socket.socket:
    caller = socket.create_connection(("127.0.0.1", site.platform.port), timeout=60)
    token = basic("maker", secret)["Authorization"]
    lines = [
        f"POST {RECEIVE} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {token}",
        f"Content-Type: {TYPE['Content-Type']}",
        *more,
    ]
    caller.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return caller


def pack_of(tree: Path) -> bytes:
    """The body of a push of HEAD, as Git would send it."""
    head = git(tree, "rev-parse", "HEAD")
    command = f"{'0' * 40} {head} refs/heads/cut\0 report-status side-band-64k".encode()
    made = subprocess.run(
        ["git", "-C", str(tree), "pack-objects", "--stdout", "--revs", "-q"],
        input=b"HEAD\n",
        capture_output=True,
        check=True,
    )
    return b"%04x%b0000%b" % (len(command) + 4, command, made.stdout)


def test_a_push_that_is_cut_leaves_nothing(site: Site) -> None:
    body = pack_of(site.tree({"large": os.urandom(4 * 2**20)}))
    secret = add_token(site.people, "maker")
    with open_push(site, secret, f"Content-Length: {len(body)}") as caller:
        caller.sendall(body[: len(body) // 2])
        wait_for(lambda: site.leftovers() != [], limit=30)
        assert site.processes()
    wait_for(lambda: not site.processes(), limit=40)
    assert site.leftovers() == []
    assert "cut" not in git(site.repository("demo"), "branch")


def test_smuggled_chunks(site: Site) -> None:
    secret = add_token(site.people, "maker")
    for more, body in (
        (("Transfer-Encoding: chunked", "Content-Length: 4"), b"4\r\n0000\r\n0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"4\r\n0000XX0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"-4\r\n0000\r\n0\r\n\r\n"),
        (("Transfer-Encoding: xchunked",), b"4\r\n0000\r\n0\r\n\r\n"),
    ):
        with open_push(site, secret, *more) as caller:
            caller.sendall(body + b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
        assert b"HTTP/1.1 200" not in answer or answer.count(b"HTTP/1.1") == 1, answer
    wait_for(lambda: not site.processes(), limit=40)


# --- restarts ---------------------------------------------------------------------------------------------------


def test_the_service_is_down_and_comes_back(site: Site, maker: str) -> None:
    tree = site.tree()
    assert site.platform.kill("git-http", signal.SIGTERM) == 0
    status, body, headers = site.request(
        "GET",
        "/-/git/demo.git/info/refs?service=git-receive-pack",
        headers=basic("maker", add_token(site.people, "maker")),
    )
    assert (status, headers["retry-after"], b"restarting" in body) == (503, "5", True)
    with ThreadPoolExecutor() as pushing:
        pushed = pushing.submit(run, tree, "push", maker, "HEAD:refs/heads/again")
        site.platform.start_process("git-http")  # a push waits for a service that starts
        assert pushed.result().returncode == 0


def test_a_service_that_stops_lets_pushes_end(site: Site) -> None:
    body = pack_of(site.tree({"some": os.urandom(2**20)}))
    with open_push(site, add_token(site.people, "maker"), f"Content-Length: {len(body)}") as caller:
        caller.sendall(body[:1000])
        wait_for(site.processes, limit=30)
        service = site.platform._processes["git-http"]
        service.terminate()
        wait_for(
            lambda: (
                site.request(
                    "GET",
                    "/-/git/demo.git/info/refs?service=git-upload-pack",
                    headers=basic("maker", add_token(site.people, "maker")),
                )[0]
                == 503
            ),
            limit=30,
        )
        caller.sendall(body[1000:])
        answer = caller.recv(65536)
        while b"unpack ok" not in answer:
            answer += caller.recv(65536) or pytest.fail(repr(answer))
    assert service.wait(30) == 0
    assert "cut" in git(site.repository("demo"), "branch")
    site.platform.start_process("git-http")


def test_wrong_passwords_are_limited(site: Site) -> None:
    """The last test: from then on this host has to wait, for this name."""
    path = "/-/git/demo.git/info/refs?service=git-upload-pack"
    found = [site.request("GET", path, headers=basic("nobody", f"wrong-password-{n}"))[0] for n in range(12)]
    assert found[0] == 401
    assert 429 in found
    began = time.monotonic()
    token = add_token(site.people, "viewer")
    assert site.request("GET", path, headers=basic("viewer", token))[0] == 200
    assert time.monotonic() - began < 30
