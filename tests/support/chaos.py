"""Misfortune for a whole platform, in an order that a seed decides, while callers call and runs are under way.

Two apps: to `steady` happens what a platform promises to survive without a lost call (pushes of all kinds, the death of
the daemon and of web workers); to the containers of `rough` is done what no platform can hide. Each act is printed
before it is done.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker.errors

from controller.config import Settings
from controller.domain import labels
from tests.support.engines import BASE_IMAGE
from tests.support.platform import ECHO, JSON, Module, Platform
from tests.support.waiting import wait_for

#: Seconds after the death of a web process or worker within which a connection may break.
AFTERMATH = 3.0
IGNORED = "docs\n**/*.bin\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SAY = """
import json, os, time
with open(os.environ["UNIP_PIPELINE_SECONDS"]) as file:
    time.sleep(json.load(file))
with open(os.environ["UNIP_PIPELINE_SAID"] + "/said.txt", "w") as out:
    out.write("done")
"""


class Caller:
    """Calls without a pause. `lost`: what went wrong and was promised not to."""

    def __init__(self, platform: Platform, app: str, excused: Callable[[float], bool]) -> None:
        self._platform, self._app, self._excused = platform, app, excused
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.version = ""
        self.lost: list[str] = []

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                reply = self._platform.predict(self._app)
            except (OSError, http.client.HTTPException) as error:
                if not self._excused(begun):
                    self.lost.append(f"{time.strftime('%H:%M:%S')} {error!r}")
                continue
            if reply.status == 200:
                self.answered += 1
                self.version = reply.json["outputs"][-1]["data"]
            else:
                self.lost.append(f"{time.strftime('%H:%M:%S')} {reply.status} {reply.body[:300]!r}")


class Chaos:
    def __init__(self, platform: Platform, seed: int) -> None:
        self.platform = platform
        self.random = random.Random(seed)
        self.acts: list[str] = []
        self.runs: list[str] = []  # ids of those that were accepted
        self._disturbed: list[float] = []  # when web processes were killed, or came back
        self._versions = 0
        self._begun = time.monotonic()
        self.steady = Module(platform.home / "steady")
        self.rough = Module(platform.home / "rough")

    # --- the scene ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        for app, module in (("steady", self.steady), ("rough", self.rough)):
            module.write(".dockerignore", IGNORED).write("docs/picture.bin", POINTER)
            self._good(module)
            if module is self.steady:
                self._declare_runs(module)
            revision = module.push()
            self.platform.connect(module, app)
            self.platform.until_ready(app, revision)

    def _declare_runs(self, module: Module) -> None:
        stage = {
            "name": "say",
            "image": {"existingImageName": BASE_IMAGE},
            "command": ["python3", "-c", SAY],
            "inputs": [{"name": "seconds"}],
            "outputs": [{"name": "said"}],
            "resources": {"cpus": 0.2, "memory": "64Mi"},
        }
        module.box("data").files_api()
        module.pipeline(
            connectedBoxes=[{"name": "data", "default": True}],
            vars=[{"name": "seconds"}, {"name": "said"}],
            stages=[stage],
            concurrency=2,
        )
        inputs = [{"name": "seconds", "type": {"datatypes": ["FP64"]}}]
        module.runs_api(apiSpec={"inputs": inputs, "outputs": [{"name": "said"}]})

    def _good(self, module: Module) -> str:
        """The next version; every other one changes the code, too, and takes a while to build."""
        self._versions += 1
        version = str(self._versions)
        module.served(ECHO, version=version, rollout={"drainTimeout": "2s"})
        slow = f"RUN sleep 0.5; echo {version} > /version\nRUN sleep 0.5; cp /version /again\n"
        slow = slow if self._versions > 2 and self._versions % 2 else ""
        code = f"FROM {BASE_IMAGE}\nWORKDIR /srv\n{slow}COPY app.py .\n"
        module.write("Dockerfile", code)
        return version

    # --- acts --------------------------------------------------------------------------------------------------

    def act(self) -> None:
        chosen = self.random.choices([act for act, _ in ACTS], [weight for _, weight in ACTS])[0]
        chosen(self)

    def tell(self, what: str) -> None:
        line = f"{time.monotonic() - self._begun:6.1f} s  {what}"
        self.acts.append(line)
        print(line, flush=True)

    def excused(self, begun: float) -> bool:
        """Whether a connection made then may have been to a web process that was killed."""
        return any(begun - AFTERMATH < at < time.monotonic() for at in self._disturbed)

    def push_good(self) -> None:
        app, module = self._some_app()
        self.tell(f"push to {app}: version {self._good(module)}")
        self._pushed(app, module)

    def push_broken(self) -> None:
        app, module = self._some_app()
        what = self.random.choice(["import", "dockerfile", "manifest", "yaml"])
        self.tell(f"push to {app}: broken {what}")
        self._good(module)
        match what:
            case "import":
                module.write("app.py", f"import nowhere_{self._versions}\n")
                module.write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n")
            case "dockerfile":
                module.write("Dockerfile", f"FROM {BASE_IMAGE}\nRUN echo {self._versions}\nRUN exit 3\n")
            case "manifest":
                module.served(ECHO, version="broken", replicas=-1)
            case _:
                module.write("manifests/model.yaml", "a: [\n")
        self._pushed(app, module)

    def push_odd(self) -> None:
        """What changes nothing that runs."""
        app, module = self._some_app()
        what = self.random.choice(["readme", "name", "ignored", "empty", "foreign"])
        self.tell(f"push to {app}: odd {what}")
        text = str(self.random.random())
        match what:
            case "readme":
                module.write("README.md", text)
            case "name":
                module.write(f"docs/\u00e9 \U0001f600\t{text[-3:]}", text)
            case "ignored":
                module.write("docs/deep/data.bin", f"{POINTER}{text}")
            case "foreign":
                module.write("manifests/compose.yaml", f"services: {{a: {{image: 'x:{text}'}}}}\n")
        self._pushed(app, module)

    def push_force(self) -> None:
        app, module = self._some_app()
        self.tell(f"force push to {app}: version {self._good(module)}")
        self._pushed(app, module, force=True)

    def rename(self) -> None:
        """The component gets another name, its API stays."""
        app, module = "rough", self.rough
        name = f"model-{self._versions}"
        self.tell(f"push to {app}: the component is called {name}")
        self._good(module)
        model = json.loads((module.tree / "manifests/model.yaml").read_text())
        model["metadata"]["name"] = name
        module.write("manifests/model.yaml", json.dumps(model)).api(name)
        (module.tree / f"manifests/api-{name}.yaml").replace(module.tree / "manifests/api-model.yaml")
        self._pushed(app, module)

    def _pushed(self, app: str, module: Module, force: bool = False) -> None:
        module.push(force=force)
        with suppress(OSError, http.client.HTTPException):  # the drift tick finds it as well
            self.platform.poke(app)

    def _some_app(self) -> tuple[str, Module]:
        return self.random.choice([("steady", self.steady), ("rough", self.rough)])

    def kill_daemon(self) -> None:
        away = self.random.random()
        self.tell(f"kill -9 the daemon, {away:.1f} s away")
        self.platform.kill("daemon")
        time.sleep(away)
        self.platform.start_process("daemon")

    def kill_worker(self) -> None:
        workers = self.platform.children("web")
        if not workers:
            return
        self.tell("kill -9 a web worker")
        self._disturbed.append(time.monotonic())
        self.platform.kill_child("web", self.random.choice(workers))

    def harm(self) -> None:
        """To a container of the rough app."""
        found = self.platform.containers("rough")
        if not found:
            return
        container = self.random.choice(found)["Id"]
        deed = self.random.choice(["kill", "remove", "stop", "pause", "restart", "cut off"])
        self.tell(f"{deed} {container[:12]} of rough")
        client = self.platform.docker
        with suppress(docker.errors.NotFound, docker.errors.APIError):  # gone by itself meanwhile
            match deed:
                case "kill":
                    client.kill(container)
                case "remove":
                    client.remove_container(container, force=True, v=True)
                case "stop":
                    client.stop(container, timeout=0)
                case "pause":
                    client.pause(container)
                case "restart":
                    client.restart(container, timeout=0)
                case _:
                    client.disconnect_container_from_network(container, f"{self.platform.instance}.rough")

    def submit(self) -> None:
        """Sent until it is answered, under one key: it is one run whatever breaks in between."""
        number = len(self.runs)
        seconds = self.random.choice([0.0, 0.5, 2.0])
        self.tell(f"start run {number} of {seconds} s")
        body = {"inputs": {"seconds": seconds}, "outputs": {"said": f"results/{number}"}}
        headers = {**JSON, "Idempotency-Key": f"run-{number}"}

        def accepted() -> str:
            try:
                reply = self.platform.request(
                    "POST", "/steady/train/runs", json.dumps(body).encode(), headers
                )
            except (OSError, http.client.HTTPException):
                return ""
            return str(reply.json["id"]) if reply.status == 202 else ""

        self.runs.append(wait_for(accepted))

    # --- the end -----------------------------------------------------------------------------------------------

    def calm(self) -> dict[str, str]:
        """The last push to each app, with nothing done to it any more; the version that is to answer."""
        revisions, versions = {}, {}
        for app, module in (("steady", self.steady), ("rough", self.rough)):
            versions[app] = self._good(module)
            self.tell(f"last push to {app}: version {versions[app]}")
            module.remove(*(p for p in ("manifests/compose.yaml",) if (module.tree / p).exists()))
            revisions[app] = module.push()
        self.platform.until(lambda: self.platform.get("/-/readyz").status == 200)
        for app, revision in revisions.items():
            self.platform.poke(app)
            self.platform.until_ready(app, revision)
        return versions

    def leftovers(self, apps: tuple[str, ...], kept_images: int) -> list[str]:
        """What is there beside what is declared: one container and one network of each of the apps."""
        client, instance = self.platform.docker, self.platform.instance
        ours = {"label": f"{labels.INSTANCE}={instance}"}
        containers = [c["Names"][0] for c in client.containers(all=True, filters=ours)]
        networks = [n["Name"] for n in client.networks(filters=ours)]
        found = [f"container {name}" for name in containers] if len(containers) > len(apps) else []
        found += [f"network {name}" for name in networks if name.partition(".")[2] not in apps]
        images = client.images(filters={"label": f"{labels.BUILT_BY}={instance}"})
        found += [f"untagged image {i['Id']}" for i in images if not _tags(i)]
        # Contents that differ in what no step reads give one image, which has a tag of each.
        tagged = [image for image in images if _tags(image)]
        found += [f"image {_tags(image)}" for image in tagged] if len(tagged) > kept_images else []
        state = Settings(state=self.platform.home / "state")
        clones = [path.name for path in state.clones.iterdir() if path.suffix == ".git"]
        clones = [name for name in clones if name.removesuffix(".git") not in (*apps, ".blank")]
        found += [f"clone {name}" for name in [*clones, *(path.name for path in state.clones.glob(".new-*"))]]
        folders = {path.name for path in state.run_files.iterdir()}
        found += [f"folder of run {name}" for name in folders - set(self.runs)]
        return found


def _tags(image: dict[str, Any]) -> list[str]:
    return [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]


ACTS: list[tuple[Callable[[Chaos], None], int]] = [
    (Chaos.push_good, 5),
    (Chaos.push_broken, 3),
    (Chaos.push_odd, 3),
    (Chaos.push_force, 1),
    (Chaos.rename, 2),
    (Chaos.kill_daemon, 4),
    (Chaos.kill_worker, 2),
    (Chaos.harm, 5),
    (Chaos.submit, 4),
]
