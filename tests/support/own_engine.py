"""A Docker engine of a test's own, which may be stopped, killed and started again: the machine's is never touched.

It has its folders, its socket and its network namespace for itself: in the machine's it would remove the bridge of the
machine's engine. Needs root; without it, `available` says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import docker.errors
import requests

from tests.support.waiting import wait_for

#: User ids of the machine that containers have where the engine shifts them.
SHIFTED = range(200_000, 265_536)


def available() -> bool:
    return os.geteuid() == 0 and all(shutil.which(command) for command in ("dockerd", "nsenter", "unshare"))


@dataclass
class OwnEngine:
    """`folder` has a short path: sockets lie in it. `live_restore`: its containers outlive it. `firewall`: it makes its
    rules, for containers that reach others. `users`: root of its containers is the first of `SHIFTED`."""

    folder: Path
    live_restore: bool = False
    firewall: bool = False
    users: bool = False
    options: tuple[str, ...] = ()  # more of them for dockerd
    _network: subprocess.Popen[bytes] = field(default_factory=lambda: _new_network())
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.folder / 'socket'}"

    def client(self) -> docker.APIClient:
        return docker.APIClient(base_url=self.host, version="auto")

    def start(self) -> None:
        """Returns when it answers."""
        for stale in ("pid", "exec/containerd/containerd.pid"):  # a zombie would be taken for the living
            (self.folder / stale).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, limit=60.0)

    def _command(self) -> list[str]:
        folders = [f"--{name}-root={self.folder / name}" for name in ("data", "exec")]
        return [
            "nsenter",
            f"--net={_namespace(self._network.pid)}",
            *(self._shifting() if self.users else []),
            "dockerd",
            *folders,
            f"--pidfile={self.folder / 'pid'}",
            f"--host={self.host}",
            *([] if self.firewall else ["--iptables=false", "--ip-forward=false", "--ip-masq=false"]),
            *(["--userns-remap=nobody:nogroup"] if self.users else []),
            *(["--live-restore"] if self.live_restore else []),
            *self.options,
        ]

    def _shifting(self) -> list[str]:
        """Who is whose subordinate is in two files of the machine: it sees others there."""
        self.folder.chmod(0o711)  # the shifted root has to come by
        binds = []
        for name in ("subuid", "subgid"):
            (self.folder / name).write_text(f"nobody:{SHIFTED[0]}:{len(SHIFTED)}\n")
            binds.append(f"mount --bind {self.folder / name} /etc/{name}")
        return ["unshare", "--mount", "sh", "-c", f'{" && ".join(binds)} && exec "$@"', "sh"]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its network."""
        entered = ["nsenter", f"--net={_namespace(self._network.pid)}", *command]
        return subprocess.run(entered, capture_output=True, text=True, check=False)

    @property
    def network(self) -> int:
        """A process that is in its network."""
        return self._network.pid

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            with closing(self.client()) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def stop(self) -> None:
        """As by `systemctl stop docker`."""
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def load(self, image: str) -> None:
        """From the machine's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            command = ["docker", "--host", self.host, "load"]
            subprocess.run(command, stdin=saved.stdout, check=True, capture_output=True)

    def clear(self) -> None:
        """Nothing of it is left."""
        self.kill()
        self.live_restore = False
        self.start()  # which ends what had outlived it
        with closing(self.client()) as client:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], v=True, force=True)
            for network in client.networks():
                with suppress(docker.errors.APIError):  # some are its own
                    client.remove_network(network["Id"])
        self.stop()
        self._network.kill()
        self._network.wait()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=True)


def _new_network() -> subprocess.Popen[bytes]:
    """A network namespace, there as long as the process is."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    wait_for(lambda: os.readlink(_namespace(process.pid)) != os.readlink(_namespace(os.getpid())))
    subprocess.run(
        ["nsenter", f"--net={_namespace(process.pid)}", "ip", "link", "set", "lo", "up"], check=False
    )
    return process


def _namespace(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


@contextmanager
def own_engine(
    firewall: bool = False, users: bool = False, options: tuple[str, ...] = ()
) -> Iterator[OwnEngine]:
    """Running."""
    with TemporaryDirectory(prefix="engine-", dir="/tmp") as folder:
        engine = OwnEngine(Path(folder), firewall=firewall, users=users, options=options)
        try:
            engine.start()
            yield engine
        finally:
            engine.clear()
