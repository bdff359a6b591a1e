"""What a release brings, installed and run: the wheel with the packages of a client alone, the Debian package under a
systemd of its own, the container image on the engine. Each is built by the scripts, from this checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engines import unique
from tests.support.pages import blocks
from tests.support.platform import send
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = "prichal-systemd:1"  # a small Debian that starts systemd
BUILD = 900.0  # seconds; a release is made of packages that are downloaded

pytestmark = pytest.mark.timeout(BUILD)


def run(*command: str | Path, cwd: Path = ROOT, fails: bool = False) -> str:
    """Return what the command prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILD, check=False)
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip() if not fails else done.stdout + done.stderr


def docker(*arguments: str | Path) -> str:
    return run("docker", *arguments)


@contextmanager
def container(*arguments: str | Path) -> Iterator[str]:
    name = unique("packages")
    docker("run", "--detach", "--name", name, *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which a user has installed the wheel, as `pip install prichal` does."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = run(ROOT / "scripts/wheel")
    (folder / "requirements.txt").write_text(f"prichal @ file://{wheel}\n")
    run(ROOT / "scripts/python-env", folder / "env", folder / "requirements.txt")
    return folder / "env/bin"


class TestWheel:
    def test_equal_sources_give_equal_wheels(self) -> None:
        first = Path(run(ROOT / "scripts/wheel")).read_bytes()
        assert Path(run(ROOT / "scripts/wheel")).read_bytes() == first

    def test_the_commands_of_a_client_run(self, client: Path, tmp_path: Path) -> None:
        assert run(client / "prichal", "--version", cwd=tmp_path).startswith("prichal, version ")
        run(client / "prichal", "validate", ROOT / "examples/colors/manifests", cwd=tmp_path)

    def test_nothing_of_the_server_is_installed(self, client: Path, tmp_path: Path) -> None:
        told = run(client / "prichal", "daemon", cwd=tmp_path, fails=True)
        assert "pip install 'prichal[" in told
        for module in ("docker", "flask", "uvloop", "pygit2"):
            run(client / "python", "-c", f"import {module}", cwd=tmp_path, fails=True)


@pytest.fixture(scope="module")
def package() -> Path:
    return Path(run(ROOT / "scripts/deb"))


def _state(host: str) -> str:
    command = ("docker", "exec", host, "systemctl", "is-system-running")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A host with systemd. Its units may do less there than on a real one: no user namespaces of their own."""
    run(
        *(ROOT / "scripts/debian-image", SYSTEMD, "systemd", "systemd-sysv", "python3", "git", "curl"),
        "ca-certificates",
    )
    options = (
        *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--tmpfs", "/run"),
        *("--security-opt", "apparmor=unconfined", "--tmpfs", "/run/lock", "--env", "container=docker"),
        *("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro", SYSTEMD, "/sbin/init"),
    )
    with container(*options) as name:
        wait_for(lambda: _state(name), lambda state: state in ("running", "degraded"), limit=120.0)
        docker("exec", name, "groupadd", "--force", "docker")
        for unit in ("prichal-web", "prichal-git"):
            folder, text = f"/etc/systemd/system/{unit}.service.d", "[Service]\\nPrivateUsers=no\\n"
            docker("exec", name, "sh", "-c", f"mkdir -p {folder} && printf '{text}' >{folder}/limits.conf")
        yield name


class TestDebianPackage:
    @staticmethod
    def is_ready(host: str) -> bool:
        command = ("docker", "exec", host, "curl", "-fsS", "-m", "5", "http://127.0.0.1:8000/-/readyz")
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @staticmethod
    def process(host: str, unit: str) -> str:
        return docker("exec", host, "systemctl", "show", "--property", "MainPID", "--value", unit)

    def test_install_serve_upgrade_remove(self, package: Path, host: str, tmp_path: Path) -> None:
        docker("cp", package, f"{host}:/root/first.deb")
        told = docker("exec", host, "dpkg", "--install", "/root/first.deb")
        assert "systemctl enable --now prichal.target" in told
        assert self.process(host, "prichal-daemon") == "0", "installing starts nothing"
        owners = docker(
            "exec", host, "stat", "-c", "%U:%G %a", "/etc/prichal/config.yaml", "/var/lib/prichal/db"
        )
        assert owners.splitlines() == ["root:prichal 640", "prichal:prichal 2750"]

        docker("exec", host, "systemctl", "enable", "--now", "prichal.target")
        wait_for(lambda: self.is_ready(host), limit=120.0)
        daemon, web = self.process(host, "prichal-daemon"), self.process(host, "prichal-web")

        docker("exec", host, "prichal", "repo", "create", "demo")
        script = (
            'url="http://x:$(cat /var/lib/prichal/web/admin.token)@127.0.0.1:8000/-/git/demo.git" && cd "$(mktemp -d)"'
            " && git init -q -b main && git -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m First"
            ' && git push -q "$url" main && git clone -q "$url" copy && git -C copy log --format=%s'
        )
        assert docker("exec", host, "sh", "-ec", script) == "First"

        docker("exec", host, "sh", "-c", "echo '# mine' >>/etc/prichal/config.yaml")
        docker("cp", self.newer(package, tmp_path), f"{host}:/root/second.deb")
        docker("exec", host, "dpkg", "--install", "/root/second.deb")
        wait_for(lambda: self.is_ready(host), limit=120.0)
        assert self.process(host, "prichal-daemon") not in ("0", daemon)
        assert self.process(host, "prichal-web") not in ("0", web)
        assert docker("exec", host, "tail", "-n", "1", "/etc/prichal/config.yaml") == "# mine"

        docker("exec", host, "dpkg", "--purge", "prichal")
        assert self.process(host, "prichal-daemon") == "0"
        docker("exec", host, "test", "!", "-e", "/opt/prichal/.venv")
        docker("exec", host, "test", "-e", "/var/lib/prichal/db/state.db")

    @staticmethod
    def newer(package: Path, folder: Path) -> Path:
        """The same content as a later version."""
        content = folder / "package"
        run("dpkg-deb", "--raw-extract", package, content)
        control = content / "DEBIAN/control"
        control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9."))
        run("dpkg-deb", "--root-owner-group", "-Znone", "--build", content, folder / "newer.deb")
        return folder / "newer.deb"


@pytest.fixture(scope="module")
def image() -> str:
    return run(ROOT / "scripts/image")


class TestImage:
    def test_a_module_deploys_on_a_platform_in_a_container(self, image: str, tmp_path: Path) -> None:
        """The state has the same path inside and outside, since the engine mounts files of it into other containers."""
        port, state = free_port(), tmp_path / "prichal"
        repository = tmp_path / "module"
        shutil.copytree(ROOT / "examples/colors", repository)
        (tmp_path / "platform").mkdir()
        for command in (("init", "-b", "main"), ("add", "-A"), ("commit", "-qm", "First")):
            run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *command, cwd=repository)
        config = tmp_path / "config.yaml"
        app = unique("packages")
        config.write_text(
            f"state: {state}\ninstance: {unique('image')}\nplatform: {{path: {tmp_path / 'platform'}}}\n"
            f"web: {{listen: '127.0.0.1:{port}'}}\nstorage: {{listen: '127.0.0.1:{free_port()}'}}\n"
            f"git: {{allowedPaths: [{tmp_path}]}}\n"
        )
        options = (
            *("--network", "host", "--volume", f"{tmp_path}:{tmp_path}"),
            *("--volume", "/var/run/docker.sock:/var/run/docker.sock"),
            *("--env", f"PRICHAL_CONFIG={config}", image, "up"),
        )
        with container(*options) as name:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(f"{url}/-/readyz"), limit=120.0)
            try:
                docker(
                    "exec",
                    name,
                    "prichal",
                    "connect",
                    repository,
                    "--app",
                    app,
                    "--path",
                    "manifests",
                    "--wait",
                )
                assert b"red" in _post(f"{url}/{app}/colors/predict", _RED)
                docker("exec", name, "prichal", "repo", "create", "demo")
                token = docker("exec", name, "cat", state / "web" / "admin.token")
                _push_and_clone(f"http://x:{token}@127.0.0.1:{port}/-/git/demo.git", tmp_path)
            finally:
                docker("exec", name, "prichal", "disconnect", app, "--yes", "--wait")

    def test_daemon_and_web_run_as_their_own_users(self, image: str, tmp_path: Path) -> None:
        """The commands of docs/install.md, with folders and names of this test."""
        etc, name = tmp_path / "etc", unique("packages")
        (etc / "platform").mkdir(parents=True)
        web = f"127.0.0.1:{free_port()}"
        text = f"web: {{listen: '{web}'}}\nstorage: {{backend: none}}\n"
        (etc / "config.yaml").write_text(text)
        os.chown(etc / "platform", 970, 970)
        script = next(block.text for block in blocks(ROOT / "docs/install.md") if "docker run" in block.text)
        for shown, ours in (
            ("-v /var/lib/prichal:", f"-v {tmp_path}/state:"),
            ("-v /etc/prichal", f"-v {etc}"),
            ("prichal-daemon", f"{name}-daemon"),
            ("--name prichal-web", f"--name {name}-web"),
            ("--name prichal-git", f"--name {name}-git"),
            ("prichal:0.1.0", image),
            ("$(getent group docker | cut -d: -f3)", str(Path("/var/run/docker.sock").stat().st_gid)),
            ("docker exec", f"until curl -fs http://{web}/-/readyz; do sleep 0.2; done; docker exec"),
        ):
            assert shown in script
            script = script.replace(shown, ours)
        try:
            report = run("timeout", "120", "bash", "-euc", script)
            docker("exec", f"{name}-daemon", "prichal", "repo", "create", "demo")
            token = docker("exec", f"{name}-web", "cat", "/var/lib/prichal/web/admin.token")
            _push_and_clone(f"http://x:{token}@{web}/-/git/demo.git", tmp_path)
            rights = docker("exec", f"{name}-git", "grep", "-E", "^(Uid|CapEff|CapPrm)", "/proc/1/status")
            assert rights.split() == ["Uid:", *["972"] * 4, "CapPrm:", "0" * 16, "CapEff:", "0" * 16]
            docker("exec", f"{name}-git", "test", "!", "-e", "/var/lib/prichal/db/state.db")
            assert docker("exec", f"{name}-web", "stat", "-c", "%U %a", "/var/lib/prichal/git-http.sock") == (
                "prichal-web 600"
            )
        finally:
            docker("rm", "--force", f"{name}-daemon", f"{name}-web", f"{name}-git")
        assert re.search(r"^web +ok +ready", report, re.MULTILINE), report
        assert re.search(r"^engine +ok", report, re.MULTILINE), report


def _push_and_clone(url: str, folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("content")
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    for command in (("init", "-b", "main"), ("add", "-A"), ("commit", "-qm", "First")):
        run("git", *who, *command, cwd=tree)
    run("git", "push", url, "main", cwd=tree)
    run("git", "clone", "-q", url, folder / "clone")
    assert (folder / "clone" / "a.txt").read_text() == "content"


_RED = b'{"inputs": [{"name": "rgb", "datatype": "INT32", "shape": [3], "data": [220, 20, 40]}]}'


def _post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: bytes = answer.read()
    return found


def _answers(url: str) -> bool:
    try:
        return send("GET", url).status == 200
    except OSError:
        return False


class TestRelease:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """A repository with the present files, in which a release may be made."""
        folder = tmp_path / "checkout"
        names = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        for name in names:
            if (source := ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name, follow_symlinks=False)
        kept = Path("controller/serving/orjson")  # which would be downloaded anew
        if (ROOT / kept).is_dir():
            shutil.copytree(ROOT / kept, folder / kept)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        run("git", "init", "--quiet", "-b", "main", cwd=folder)
        for key in ("user.name", "user.email"):
            run("git", "config", key, "release@localhost", cwd=folder)
        run("git", "add", "--all", cwd=folder)
        run("git", "commit", "--quiet", "--message", "First", cwd=folder)
        return folder

    def test_version_tag_changelog_wheel_and_checksums(self, checkout: Path) -> None:
        run(checkout / "scripts/release", "8.0.0rc1", "wheel", cwd=checkout)
        assert run("git", "describe", "--exact-match", cwd=checkout) == "v8.0.0rc1"
        assert "## [8.0.0rc1] - 20" in (checkout / "CHANGELOG.md").read_text()
        sums = (checkout / "dist/SHA256SUMS").read_text()
        assert "prichal-8.0.0rc1-py3-none-any.whl" in sums
        run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=checkout / "dist")
        run(checkout / "scripts/release", "8.0.0rc1", "wheel", cwd=checkout)  # builds again, tags nothing
        assert len(run("git", "tag", cwd=checkout).splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("1.x",), "usage"),
            ((), "usage"),
            (("0.0.1", "wheel"), "older"),
            (("9.0.0", "rpm"), "no package rpm"),
        ],
    )
    def test_what_is_no_release_is_refused(
        self, checkout: Path, arguments: tuple[str, ...], told: str
    ) -> None:
        assert told in run(checkout / "scripts/release", *arguments, cwd=checkout, fails=True)
        assert run("git", "tag", cwd=checkout) == ""

    def test_changes_are_committed_first(self, checkout: Path) -> None:
        (checkout / "README.md").write_text(os.urandom(4).hex())
        assert "not committed" in run(
            checkout / "scripts/release", "9.0.0", "wheel", cwd=checkout, fails=True
        )
