"""The units: systemd itself says whether they are valid and how much they leave open. The services: what the units rely
on, which is that they tell when they are ready and take over systemd's socket. The installer: whether it can be trusted
with a host that is in use. No systemd has to be running: the tests play its part."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.config import Settings, load
from controller.store import open_store

ROOT = Path(__file__).resolve().parents[2]
UNITS = (
    *("prichal.target", "prichal-daemon.service", "prichal-web.socket", "prichal-web.service"),
    *("prichal-git.socket", "prichal-git.service", "prichal-backup.service"),
)
COMMAND = "/opt/prichal/.venv/bin/prichal"


def run(*command: str | Path, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )


def settings(unit: str) -> Mapping[str, Sequence[str]]:
    """All values of each key, in order: unlike in INI files, repeating a key adds to it."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / unit).read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies in which the command exists; all else is what gets installed."""
    command = tmp_path / "prichal"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for unit in UNITS:
        text = (ROOT / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(text.replace(COMMAND, str(command)))
    return tmp_path


class TestVerify:
    def test_systemd_has_nothing_to_say(self, units: Path) -> None:
        result = run("systemd-analyze", "verify", "--man=no", *(units / unit for unit in UNITS))

        about_ours = [line for line in result.stderr.splitlines() if "prichal" in line]
        assert about_ours == []
        assert result.returncode == 0, result.stderr

    def test_an_error_would_be_seen(self, units: Path) -> None:
        unit = units / "prichal-daemon.service"
        unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gentle"))

        result = run("systemd-analyze", "verify", "--man=no", unit)

        assert "gentle" in result.stderr


class TestExposure:
    @pytest.mark.parametrize(
        ("unit", "limit"),
        [
            ("prichal-web.service", 3.0),
            ("prichal-daemon.service", 5.0),
            ("prichal-git.service", 3.0),
            ("prichal-backup.service", 4.0),
        ],
    )
    def test_stays_below(self, units: Path, unit: str, limit: float) -> None:
        result = run("systemd-analyze", "security", "--offline=true", "--no-pager", units / unit)

        overall = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
        assert overall, result.stdout + result.stderr
        assert float(overall[1]) < limit

    def test_web_has_no_way_to_docker_and_to_the_secrets(self) -> None:
        web = settings("prichal-web.service")

        hidden = " ".join(web["InaccessiblePaths"])
        for path in (
            "/run/docker.sock",
            "/var/lib/prichal/private",
            "/var/lib/prichal/storage",
            "/etc/prichal/platform",
        ):
            assert f"-{path}" in hidden.split()
        assert web["User"] == ["prichal-web"]
        assert web["SupplementaryGroups"] == ["prichal"]
        assert web["ReadWritePaths"] == ["/var/lib/prichal/db/asked /var/lib/prichal/web"]

    def test_what_is_pushed_reaches_the_repositories_alone(self) -> None:
        git, socket = settings("prichal-git.service"), settings("prichal-git.socket")

        hidden = " ".join(git["InaccessiblePaths"]).split()
        for path in ("db", "private", "storage", "web", "runs"):
            assert f"-/var/lib/prichal/{path}" in hidden
        assert "-/run/docker.sock" in hidden
        assert git["ReadWritePaths"] == ["/var/lib/prichal/git"]
        assert (git["User"], git["CapabilityBoundingSet"]) == (["prichal-git"], [""])
        assert (socket["SocketUser"], socket["SocketMode"]) == (["prichal-web"], ["0600"])
        assert socket["ListenStream"] == [str(Settings().git_socket)]

    def test_backups_have_the_state_and_their_place(self) -> None:
        """systemd would give a StateDirectory to root."""
        backup = settings("prichal-backup.service")
        assert "StateDirectory" not in backup
        assert backup["ReadWritePaths"] == ["/var/lib/prichal -/var/backups/prichal"]
        assert set(backup["CapabilityBoundingSet"][0].split()) == {
            "CAP_DAC_OVERRIDE",
            "CAP_SETUID",
            "CAP_SETGID",
        }

    def test_the_embedded_storage_can_start(self) -> None:
        """It asks for the addresses of this host before it listens."""
        (families,) = settings("prichal-daemon.service")["RestrictAddressFamilies"]
        assert set(families.split()) == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}

    @pytest.mark.parametrize("unit", ["prichal-daemon.service", "prichal-web.service", "prichal-git.service"])
    def test_what_ends_unasked_is_started_again(self, unit: str) -> None:
        """Whatever its exit code, and however often; only what a restart cannot fix stays down."""
        found = settings(unit)
        assert found["Restart"] == ["always"]
        assert found["StartLimitIntervalSec"] == ["0"]
        codes = set(found["RestartPreventExitStatus"][0].split())
        assert codes == {str(int(code)) for code in (Exit.USAGE, Exit.INVALID, Exit.NOT_FOUND)}

    def test_the_platform_comes_before_containers_when_processors_are_busy(self) -> None:
        """Their weight is systemd's default, 100. Calls of all apps pass through the web process."""
        weights = [
            int(settings(unit)["CPUWeight"][0]) for unit in ("prichal-web.service", "prichal-daemon.service")
        ]
        assert weights[0] > weights[1] > 100

    def test_stopping_the_daemon_leaves_what_is_not_its_own(self) -> None:
        daemon = settings("prichal-daemon.service")

        assert daemon["KillMode"] == ["mixed"]
        assert "BindsTo" not in daemon
        assert "Requires" not in daemon  # a restart of Docker must not stop the daemon


class TestFilesOfTheHost:
    def test_users(self, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\n")

        result = run(
            "systemd-sysusers", "--dry-run", f"--root={tmp_path}", ROOT / "systemd" / "prichal.sysusers"
        )

        assert result.returncode == 0, result.stderr
        for line in ("group 'prichal'", "user 'prichal'", "user 'prichal-web'", "user 'prichal-git'"):
            assert f"Creating {line}" in result.stdout + result.stderr

    def test_folders(self) -> None:
        """What is private to whom, as a table; systemd-tmpfiles itself could only be run as root."""
        rules = {
            path: (mode, user, group)
            for line in (ROOT / "systemd" / "prichal.tmpfiles").read_text().splitlines()
            if line[0] in "dfz"
            for _, path, mode, user, group in [line.split()]
        }
        assert rules["/var/lib/prichal/private"] == ("0700", "prichal", "prichal")
        assert rules["/var/lib/prichal/storage"] == ("0700", "prichal", "prichal")
        assert rules["/etc/prichal/platform"] == ("0700", "prichal", "prichal")
        assert rules["/var/lib/prichal/db"] == ("2750", "prichal", "prichal")
        assert rules["/var/lib/prichal/db/state.db"] == ("0640", "prichal", "prichal")
        assert rules["/var/lib/prichal/db/asked"] == ("3770", "prichal", "prichal")
        assert rules["/var/lib/prichal/db/asked/asked.db"] == ("0660", "prichal", "prichal")
        assert rules["/var/lib/prichal/db/keys"] == ("2750", "prichal", "prichal-web")
        assert rules["/etc/prichal/config.yaml"] == ("0640", "root", "prichal")


class Supervisor:
    """systemd's side of a `Type=notify` service: listens to what it tells, and passes sockets on to it."""

    def __init__(self, folder: Path) -> None:
        self._address = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._socket.settimeout(60)
        self._log = folder / "service.log"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, *arguments: str | Path, listening: socket.socket | None = None
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._address), "WATCHDOG_USEC": "60000000"}
        command = [sys.executable, "-m", "controller", *map(str, arguments)]
        descriptors: tuple[int, ...] = ()
        if listening:
            # LISTEN_PID must be that of the service, and its first socket is number 3.
            environment["LISTEN_FDS"] = "1"
            descriptors = (listening.fileno(),)
            take = f'exec 3<&{listening.fileno()}; export LISTEN_PID=$$; exec "$@"'
            command = ["bash", "-c", take, "bash", *command]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def hears(self, state: str) -> None:
        """Returns when the service has said `state`; what else it says is passed over."""
        try:
            while state not in self._socket.recv(4096).decode().splitlines():
                pass
        except TimeoutError:
            pytest.fail(f"{state} was not told; the log of the service:\n{self._log.read_text()}")

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "platform").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state: {tmp_path}/state\ninstance: test-{os.getpid()}\nplatform: {{path: {tmp_path}/platform}}\n"
    )
    return config


class Client(threading.Thread):
    """Calls again and again, each time on a new connection, until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._enough = threading.Event()
        self.answers: list[int | Exception] = []
        self.answered = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("GET", "/-/healthz", headers={"Connection": "close"})
                self.answers.append(connection.getresponse().status)
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(error)
            finally:
                connection.close()
            self.answered.set()

    def hears_again(self) -> None:
        self.answered.clear()
        assert self.answered.wait(60), "no answer"

    def stop(self) -> None:
        self._enough.set()
        self.join()


class TestServices:
    def test_a_restart_of_web_drops_no_connection(self, supervisor: Supervisor, config: Path) -> None:
        open_store(load(config).database).close()  # as the daemon has left it
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            web = supervisor.start("web", "--config", config, listening=listening)
            supervisor.hears("READY=1")
            client = Client(listening.getsockname()[1])
            client.start()
            try:
                client.hears_again()
                web.terminate()
                assert web.wait(60) == 0
                supervisor.start("web", "--config", config, listening=listening)
                supervisor.hears("READY=1")
                client.hears_again()
            finally:
                client.stop()

        assert set(client.answers) == {200}

    def test_the_daemon_tells_that_it_is_ready_and_alive(self, supervisor: Supervisor, config: Path) -> None:
        daemon = supervisor.start("daemon", "--config", config)

        supervisor.hears("READY=1")
        supervisor.hears("WATCHDOG=1")
        supervisor.hears("WATCHDOG=1")
        daemon.terminate()
        supervisor.hears("STOPPING=1")
        assert daemon.wait(60) == 0

    @pytest.mark.parametrize("command", ["daemon", "web", "git-http"])
    def test_a_bad_configuration_is_not_tried_again(
        self, supervisor: Supervisor, config: Path, command: str
    ) -> None:
        config.write_text("stat: /nowhere\n")

        code = supervisor.start(command, "--config", config).wait(60)

        unit = settings(f"prichal-{command.removesuffix('-http')}.service")
        assert str(code) in unit["RestartPreventExitStatus"][0].split()


class TestInstall:
    """The installer, into a folder: it builds a release with pip, so one test goes through its whole life. Each of its
    commands has the time that a busy machine takes."""

    @pytest.mark.timeout(1200)
    def test_install_and_upgrade(self, tmp_path: Path) -> None:
        host = tmp_path / "host"
        checkout = tmp_path / "checkout"
        _copy_checkout(checkout)

        first = run(checkout / "systemd/install", "--destdir", host)
        assert first.returncode == 0, first.stderr

        link = host / "opt/prichal/.venv"
        release = link.resolve()
        assert release.parent == host / "opt/prichal/releases"
        version = run(link / "bin/python", "-I", "-c", "import controller; print(controller.__file__)")
        assert version.stdout.startswith(str(link.parent)), version.stderr
        launcher = (link / "bin/prichal").read_text()
        assert f"/opt/prichal/releases/{release.name}/bin/python" in launcher
        assert str(host) not in launcher
        for unit in UNITS:
            assert (host / "etc/systemd/system" / unit).read_text() == (ROOT / "systemd" / unit).read_text()

        config = host / "etc/prichal/config.yaml"
        config.write_text("# edited\n")
        again = run(checkout / "systemd/install", "--destdir", host)
        assert again.returncode == 0, again.stderr
        assert link.resolve() == release
        assert config.read_text() == "# edited\n"

        # An upgrade that fails, here for a package that is not the one locked, must leave what runs in place.
        lock = checkout / "requirements.lock"
        lock.write_text(re.sub("sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
        failed = run(checkout / "systemd/install", "--destdir", host)
        assert failed.returncode != 0
        assert link.resolve() == release

    def test_refuses_what_it_does_not_know(self) -> None:
        result = run(ROOT / "systemd/install", "--prefix", "/somewhere")

        assert result.returncode != 0
        assert "usage" in result.stderr


def _copy_checkout(target: Path) -> None:
    for folder in ("controller", "scripts", "systemd", "docs", "manifests-schema"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (
        "setup.cfg",
        "pyproject.toml",
        "requirements.lock",
        "requirements-serving.lock",
        "README.md",
        "LICENSE",
        "config.example.yaml",
    ):
        shutil.copy(ROOT / file, target / file)
