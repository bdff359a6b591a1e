"""An image registry on loopback with basic authentication: Debian's `docker-registry`, started by tests.

Docker allows registries on 127.0.0.0/8 without TLS.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import docker

from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.secret import Secret
from tests.support.engines import unique
from tests.support.waiting import wait_for

USER = "ivanov"
PASSWORD = "open-sesame-4711"  # of a registry that lives as long as a test


@dataclass
class LocalRegistry:
    """`host` is `127.0.0.1:PORT`. May be stopped and started again."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def registries(self, password: str = PASSWORD) -> tuple[tuple[Registry, SecretSpec | None], ...]:
        """As the platform hands them to an engine."""
        secret = SecretSpec("hub-cred", (("username", Secret(USER)), ("password", Secret(password))))
        return ((Registry("hub", self.host, "hub-cred"), secret),)

    def start(self) -> None:
        with (self.folder / "registry.log").open("ab") as log:
            command = [_binary(), "serve", str(self.folder / "config.yml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError:
            return False
        return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def push(self, client: docker.APIClient, image: str, tag: str) -> str:
        """Put a local image there as `HOST/team/demo:TAG`; the name. The local tag is gone afterwards."""
        repository = f"{self.host}/team/demo"
        client.tag(image, repository, tag)
        auth = {"username": USER, "password": PASSWORD}
        for message in client.push(repository, tag, stream=True, decode=True, auth_config=auth):
            assert "error" not in message, message
        client.remove_image(f"{repository}:{tag}")
        return f"{repository}:{tag}"


@contextmanager
def local_registry(folder: Path) -> Iterator[LocalRegistry]:
    """A running registry whose only user is USER; its data lie in `folder`."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        registry = LocalRegistry(folder, free.getsockname()[1])
    password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{USER}:{password}\n")
    (folder / "config.yml").write_text(
        f"""version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{registry.host}", secret: {unique()}}}
auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}
"""
    )
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


@contextmanager
def hanging_server() -> Iterator[str]:
    """`127.0.0.1:PORT` of a listener that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield "127.0.0.1:{1}".format(*listener.getsockname())


def _binary() -> str:
    found = shutil.which("docker-registry")
    assert found, "docker-registry is not installed: run scripts/test-tools"
    return found
