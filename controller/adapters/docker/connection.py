"""Clients of one Docker engine, created when first needed, so that a daemon starts even if Docker does not
run.

Shared by all modules of this package; decides nothing about containers.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import docker.errors
from docker import APIClient
from docker.types.daemon import CancellableStream
from requests import Response

from controller.threads import running_beside

#: Connections kept open: reconcile workers, watcher and log readers together stay below this.
POOL_SIZE = 32
#: Seconds between checks of `stop()` while a stream is silent.
STOP_PAUSE = 0.25
#: Links that are followed, one after the other, before a loop is assumed.
_LINKS = 40
#: Bits of `mode` as returned by the engine: https://pkg.go.dev/io/fs#FileMode
_FOLDER, _LINK = 1 << 31, 1 << 27


class CachedClient(Enum):
    """The kind of an entry at a path; everything except a folder counts as a file."""

    NOTHING = "nothing"
    FILE = "a file"
    FOLDER = "a folder"


class BoundedClient(APIClient):
    """The SDK calls pulls, builds and events with `timeout=None`: a silent engine would block the caller
    forever. Here None means the client's own timeout (which is None where silence is normal).
    """

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().request(method, url, *args, **kwargs)


class EngineConnection:
    """Thread-safe. Raises what the SDK raises: callers use `errors.translated`."""

    def __init__(self, host: str, timeout: float) -> None:
        self.host = host
        self.timeout = timeout
        self._lock = threading.Lock()
        self._clients: dict[float | None, APIClient] = {}
        self._init: bool | None = None

    @property
    def client(self) -> APIClient:
        """The client for calls that answer at once."""
        return self.client_with(self.timeout)

    def client_with(self, timeout: float | None) -> APIClient:
        """Return a client whose sockets may be silent for `timeout` seconds; None means forever, for logs and
        events.

        The API version is the engine's own: old engines do not know a new one, and new engines drop old ones.
        """
        client = self._clients.get(timeout)
        if client is not None:
            return client
        with self._lock:
            if timeout not in self._clients:
                self._clients[timeout] = self._connect(timeout)
            return self._clients[timeout]

    @contextmanager
    def operation(self, timeout: float) -> Iterator[APIClient]:
        """Yield a client for one pull or build. Leaving the block closes the connection, which makes the
        engine stop; the SDK's streams cannot be closed, and would continue until the last reference to them
        is gone.
        """
        client = self._connect(timeout, self.client.api_version)
        answers: list[Response] = []
        client.hooks["response"].append(lambda answer, **_: answers.append(answer))
        try:
            yield client
        finally:
            for answer in answers:
                answer.close()
            client.close()

    def _connect(self, timeout: float | None, version: str = "auto") -> APIClient:
        return BoundedClient(
            base_url=self.host,
            version=version,
            timeout=timeout,  # type: ignore[arg-type]  # the SDK hands it to requests: None and floats are fine
            max_pool_size=POOL_SIZE,
        )

    def create(self, config: dict[str, Any], name: str) -> str | None:
        """Create a container from the body of `POST /containers/create`, and return its id; None if the name
        is taken. Creating comes before checking: a name is taken only after a crash.
        """
        try:
            created = self.client.create_container_from_config(config, name=name)  # type: ignore[no-untyped-call]
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            return None
        return str(created["Id"])

    def has_file(self, container: str, path: str) -> bool:
        """Return whether the container has a file. The SDK can only fetch it; requesting its headers is 30
        times faster.
        """
        client = self.client
        url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
        answer = client.head(url, params={"path": path}, timeout=self.timeout)
        if answer.status_code not in (200, 404):
            answer.raise_for_status()
        return answer.status_code == 200

    def kind_of(self, container: str, path: str) -> CachedClient:
        """Return what is at the path in the container's own file system, with links followed."""
        client = self.client
        url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
        for _ in range(_LINKS):
            answer = client.head(url, params={"path": path}, timeout=self.timeout)
            if answer.status_code == 404:
                return CachedClient.NOTHING
            answer.raise_for_status()
            found = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
            if not found["mode"] & _LINK:
                return CachedClient.FOLDER if found["mode"] & _FOLDER else CachedClient.FILE
            path = found["linkTarget"]
        return CachedClient.FILE

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    @property
    def has_init(self) -> bool:
        """Return whether the engine found its init binary; asked once, since it does not change while the
        engine runs.
        """
        if self._init is None:
            self._init = has_init(self.client.version())
        return self._init


def has_init(version: dict[str, Any]) -> bool:
    """Return whether `GET /version` names an init binary. Debian separates docker-init (tini) from the
    engine; without it a container with an init process cannot start, so it is used only where it exists.
    """
    components = version.get("Components") or []
    found = next((c.get("Version") for c in components if c.get("Name") == "docker-init"), None)
    return bool(found) and found != "N/A"


@contextmanager
def closing_on_stop(stream: CancellableStream[Any], stop: Callable[[], bool]) -> Iterator[None]:
    """End the stream soon after `stop()` returns true, and with the block at the latest. A quiet stream
    blocks in `read`; closing it from another thread is the SDK's own way to end it.
    """

    def close(ended: threading.Event) -> None:
        while not ended.is_set() and not stop():
            ended.wait(STOP_PAUSE)
        with suppress(OSError, AttributeError):  # already closed by the engine
            stream.close()

    with running_beside(close, "docker-stream"):
        yield
