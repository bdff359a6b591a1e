"""The whole platform for a test: daemon and web process as the real commands, on a state folder of its own.

Nothing inside is replaced. A `Module` is a module's repository; pushing to it is what its developer does.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors

from controller.domain import labels
from tests.support.engines import BASE_IMAGE, unique
from tests.support.ports import free_port
from tests.support.waiting import wait_for

API_VERSION = "unified-platform.cs.hse.ru/v1"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Platform:
    """Start with `start()`; `daemon` and `web` can be killed and started again one by one."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.instance = unique("e2e")
        self.port = free_port()
        self.storage_port = free_port()
        self.platform_folder = home / "platform"
        self.config = home / "config.yaml"
        self.log = home / "log.txt"
        self.docker = docker.APIClient()
        self.settings = settings
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # --- life --------------------------------------------------------------------------------------------------

    def start(self) -> Platform:
        self.home.mkdir(parents=True, exist_ok=True)
        self.platform_folder.mkdir(exist_ok=True)
        settings: dict[str, object] = {
            "state": str(self.home / "state"),
            "instance": self.instance,
            "platform": {"path": str(self.platform_folder)},
            "git": {"allowedPaths": [str(self.home)]},
            "reconcile": {"driftInterval": "5s", "backoffInitial": "200ms"},
            "web": {"listen": f"127.0.0.1:{self.port}"},
            "storage": {"listen": f"127.0.0.1:{self.storage_port}"},
            **self.settings,
        }
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self.start_process("daemon")
        self.start_process("web")
        self.until(lambda: self.get("/-/readyz").status == 200)
        return self

    def start_process(self, name: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(self._command(name), stdout=log, stderr=log)
        self._processes[name] = process
        return process

    def is_alive(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        process = self._processes[name]
        process.send_signal(number)
        return process.wait(60)

    def children(self, name: str) -> list[int]:
        """Processes that it has started: gunicorn's workers, say."""
        parent = self._processes[name].pid
        try:
            return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        except OSError:
            return []

    def kill_child(self, name: str, pid: int) -> None:
        if pid in self.children(name):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            process.wait(60)
        self._sweep()

    def _sweep(self) -> None:
        ours = {"label": f"{labels.INSTANCE}={self.instance}"}
        for container in self.docker.containers(all=True, filters=ours):
            self.docker.remove_container(container["Id"], force=True, v=True)
        for network in self.docker.networks(filters=ours):
            self.docker.remove_network(network["Id"])
        for image in self.docker.images(filters={"label": f"{labels.BUILT_BY}={self.instance}"}):
            with suppress(docker.errors.ImageNotFound):  # it went with one that was made from it
                self.docker.remove_image(image["Id"], force=True)
        self.docker.close()

    def prichal(
        self, *arguments: str, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = self._command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, input=input)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "controller", "--config", str(self.config), *arguments]

    # --- what is there -----------------------------------------------------------------------------------------

    def containers(self, app: str, running: bool = False) -> list[dict[str, Any]]:
        filters = {"label": [f"{labels.INSTANCE}={self.instance}", f"{labels.APP}={app}"]}
        found: list[dict[str, Any]] = self.docker.containers(all=not running, filters=filters)
        return found

    def status(self, app: str) -> dict[str, Any]:
        reply = self.get(f"/-/apps/{app}")
        document: dict[str, Any] = reply.json if reply.status == 200 else {}
        return document

    def condition(self, app: str, kind: str) -> dict[str, Any]:
        """The condition of that type, empty if it does not hold."""
        conditions = self.status(app).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def events(self, app: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.get(f"/-/apps/{app}/events?limit=1000").json["events"]
        return events

    def passes(self, app: str) -> int:
        """How many passes over the app have ended."""
        return self.log.read_text(errors="replace").count(f"pass ended app={app} ")

    def until(self, condition: Callable[[], object], limit: float = 60.0) -> None:
        try:
            wait_for(lambda: self._quietly(condition), limit=limit)
        except AssertionError as error:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])
            raise AssertionError(f"{error}\n{tail}") from None

    def until_ready(self, app: str, revision: str) -> None:
        self.until(lambda: self.is_ready(app, revision))

    def is_ready(self, app: str, revision: str) -> bool:
        status = self.status(app)
        ready = any(c["type"] == "Ready" and c["status"] for c in status.get("conditions", []))
        return ready and status["appliedRevision"] == revision

    @staticmethod
    def _quietly(condition: Callable[[], object]) -> object:
        try:
            return condition()
        except (OSError, http.client.HTTPException):
            return False  # not listening yet, or just killed

    # --- calls -------------------------------------------------------------------------------------------------

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("GET", path, headers=headers)

    def predict(
        self, app: str, inputs: object = None, path: str = "api", headers: Mapping[str, str] | None = None
    ) -> Reply:
        body = json.dumps({"inputs": inputs if inputs is not None else []}).encode()
        return self.request("POST", f"/{app}/{path}/predict", body, {**JSON, **(headers or {})})

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self._signed_in(path), **(headers or {})})
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def _signed_in(self, path: str) -> dict[str, str]:
        """Call as the administrator, with the token that the web process has made."""
        token = self.home / "state" / "web" / "admin.token"
        own = path.startswith("/-/") and not path.startswith("/-/hooks/") and token.exists()
        return {"Authorization": f"Bearer {token.read_text().strip()}"} if own else {}

    # --- files -------------------------------------------------------------------------------------------------

    def put_file(
        self, app: str, path: str, content: bytes, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """What a user does: ask for a link, send the bytes to the storage. The reply of the refusing side, else of the
        storage. `path` starts with the box."""
        asked = self.request("PUT", f"/{app}/files/{path}?size={len(content)}{query}", headers=headers)
        if asked.status != 200:
            return asked
        return send("PUT", asked.json["presigned_put_url"], content)

    def get_file(
        self, app: str, path: str, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        asked = self.get(f"/{app}/files/{path}{query}", headers)
        return asked if asked.status != 200 else send("GET", asked.json["presigned_get_url"])

    # --- modules -----------------------------------------------------------------------------------------------

    def connect(
        self, module: Module, app: str, secrets: Mapping[str, Mapping[str, str]] | None = None, **spec: object
    ) -> None:
        """What an operator writes into the platform folder."""
        documents: list[dict[str, object]] = [
            _manifest(
                "Repository", app, {"url": str(module.bare), "ref": {"branch": "main"}, "interval": "0s"}
            ),
            _manifest("PlatformApp", app, {"repository": app, "path": "manifests", **spec}),
        ]
        for name, values in (secrets or {}).items():
            secret = {
                "apiVersion": API_VERSION,
                "kind": "Secret",
                "metadata": {"name": name, "namespace": app},
            }
            documents.append({**secret, "stringData": dict(values)})
        draft = self.platform_folder / f".{app}"
        draft.write_text("\n---\n".join(json.dumps(d) for d in documents))
        draft.rename(self.platform_folder / f"{app}.yaml")
        self.poke("@platform")

    def disconnect(self, app: str) -> None:
        (self.platform_folder / f"{app}.yaml").unlink()
        self.poke("@platform")

    def poke(self, app: str) -> None:
        """Ask for a pass, as a webhook would."""
        assert (
            self.request("POST", f"/-/apps/{app}/reconcile", b"{}", {**JSON, "X-Prichal": "1"}).status == 202
        )


def send(method: str, url: str, body: bytes | None = None) -> Reply:
    """A request to anywhere, as a client without credentials makes it."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body)
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    finally:
        connection.close()


class Callers:
    """Clients that call without a pause and write down what they got: the last output of each answer."""

    def __init__(
        self, platform: Platform, app: str, count: int, inputs: object = None, path: str = "api"
    ) -> None:
        self._platform = platform
        self._app = app
        self._inputs = inputs
        self._path = path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        self.versions: list[str] = []
        self.failures: list[object] = []

    def answered(self, version: str) -> int:
        return self.versions.count(version)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self._platform.predict(self._app, self._inputs, self._path)
            except OSError as error:
                self.failures.append(error)
                continue
            if reply.status == 200:
                self.versions.append(reply.json["outputs"][-1]["data"])
            else:
                self.failures.append((reply.status, reply.body))


class Module:
    """A module's repository: a work tree and the bare repository it is pushed to."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.bare = home / "module.git"
        self.tree = home / "module"
        _git(home, "init", "-q", "--bare", "-b", "main", str(self.bare))
        _git(home, "clone", "-q", str(self.bare), str(self.tree))
        _git(self.tree, "checkout", "-q", "-B", "main")

    def write(self, path: str, content: str) -> Module:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return self

    def component(self, name: str = "model", **spec: object) -> Module:
        """An MLComponent from the image `spec['image']`, `app.predict` by default."""
        return self.write(f"manifests/{name}.yaml", json.dumps(_manifest("MLComponent", name, spec)))

    def api(self, component: str = "model", path: str = "api", **spec: object) -> Module:
        body = {"mlComponent": {"name": component}, "published": True, **spec}
        body["restfulApi"] = {"path": path, **spec.get("restfulApi", {})}  # type: ignore[dict-item]
        return self.write(
            f"manifests/api-{component}.yaml", json.dumps(_manifest("APIComponent", path, body))
        )

    def served(self, source: str, version: str = "1", **spec: object) -> Module:
        """A component built from the repository: the module `app` with `source`, and its API at `/api`."""
        self.write("app.py", source)
        self.write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n")
        env = [{"name": "VERSION", "value": version}]
        service = {"inference": "app:predict", **spec.pop("mlService", {})}  # type: ignore[dict-item]
        small = {"cpus": 0.5, "memory": "128Mi"}
        build = {"build": {"context": "."}}
        self.component(
            "model", **{"image": build, "env": env, "mlService": service, "resources": small, **spec}
        )
        return self.api()

    def box(self, name: str = "data", capacity: str | None = None, **spec: object) -> Module:
        storage = {"capacity": capacity} if capacity else {}
        body = {"s3DefaultStorage": storage, **spec}
        return self.write(f"manifests/box-{name}.yaml", json.dumps(_manifest("DataBox", name, body)))

    def files_api(self, developers: tuple[str, ...] = (), **restful: object) -> Module:
        body = {"published": True, "files": {"developers": list(developers)}, "restfulApi": restful}
        return self.write("manifests/files.yaml", json.dumps(_manifest("APIComponent", "files", body)))

    def pipeline(self, name: str = "train", **spec: object) -> Module:
        return self.write(f"manifests/{name}.yaml", json.dumps(_manifest("ExperimentPipeline", name, spec)))

    def runs_api(self, pipeline: str = "train", path: str = "train", **spec: object) -> Module:
        body = {"published": True, "experimentPipeline": {"name": pipeline}, **spec}
        body["restfulApi"] = {"path": path, **spec.get("restfulApi", {})}  # type: ignore[dict-item]
        return self.write(f"manifests/api-{pipeline}.yaml", json.dumps(_manifest("APIComponent", path, body)))

    def pipelines_api(self, **restful: object) -> Module:
        body = {"published": True, "pipelines": {}, "restfulApi": restful}
        return self.write(
            "manifests/pipelines.yaml", json.dumps(_manifest("APIComponent", "pipelines", body))
        )

    def remove(self, *paths: str) -> Module:
        for path in paths:
            (self.tree / path).unlink()
        return self

    def push(self, message: str = "change", force: bool = False) -> str:
        """Commit everything and push; the commit id."""
        _git(self.tree, "add", "-A")
        _git(self.tree, "commit", "-q", "--allow-empty", "-m", message)
        _git(self.tree, "push", "-q", *(["--force"] if force else []), "origin", "HEAD:main")
        return _git(self.tree, "rev-parse", "HEAD").strip()


ECHO = '''
import os


def predict(inputs):
    """Echo.

    :param inputs.text: anything
    :type inputs.text: str, optional
    :param outputs.version: of the code
    :type outputs.version: str
    """
    return {"version": os.environ["VERSION"]}
'''


def _manifest(kind: str, name: str, spec: Mapping[str, object]) -> dict[str, object]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=dev", "-c", "user.email=dev@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
