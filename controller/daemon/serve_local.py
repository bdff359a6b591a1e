"""One component without the platform: its image with the serving library mounted, as the daemon would run it, with
its port published on the loopback interface and a folder in place of a box.

Called by `prichal serve-local`. Uses the `docker` command, because its terminal handling (log, Ctrl-C) is what a
person in front of it expects; what the container gets comes from the adapter that the daemon uses, too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from controller.adapters.docker import stage_serving
from controller.adapters.docker.mapping import LIBRARY, MODEL_MOUNT, Policy, environment
from controller.adapters.docker.serving import package_folder
from controller.config import Settings
from controller.domain.desired import ModelMount, Workload
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName, RepositoryName
from controller.domain.secret import Secret
from controller.domain.spec import Kind, MLComponentSpec, PlatformAppSpec, PlatformServer
from controller.manifests.build import examine
from controller.manifests.components import ml_component
from controller.manifests.reader import read
from controller.manifests.validate import read_folder
from controller.ports import SourceFile

FILES = "/prichal/files"
APP = AppName("local")


@dataclass(frozen=True)
class Local:
    """What was asked for. `manifest` is a file or a folder, `env` what the platform's Secrets would hold."""

    image: str
    manifest: Path
    component: str | None = None
    port: int = 8002
    files: Path | None = None
    model: Path | None = None
    env: tuple[tuple[str, str], ...] = ()


def serve_local(settings: Settings, local: Local) -> int:
    """Runs until Ctrl-C or the container's end; the container's exit code. Nothing is left behind."""
    spec = choose(components(settings, local.manifest), local.component)
    local = replace(local, port=local.port or _free_port())
    with tempfile.TemporaryDirectory(prefix="prichal-serve-") as folder:
        library = stage_serving(package_folder(), Path(folder))
        Path(folder).chmod(0o755)  # processes in the container have users of their own
        sys.stderr.write(f"serving {local.image} on http://127.0.0.1:{local.port} (Ctrl-C ends)\n")
        name = f"prichal-local-{os.getpid()}"
        return _run(command(settings, local, spec, library, name), variables(settings, local, spec), name)


def components(settings: Settings, manifest: Path) -> tuple[MLComponentSpec, ...]:
    """The MLComponents of a manifest file or folder. ManifestInvalid. Secrets that are named need not be there:
    their values come with `--env`."""
    files = (
        tuple(read_folder(manifest))
        if manifest.is_dir()
        else (SourceFile(manifest.name, manifest.read_bytes()),)
    )
    found = examine(files, PlatformAppSpec(_namespace(files), RepositoryName("")), None, settings.limits)
    if found.problems:
        raise ManifestInvalid(found.problems)
    return tuple(ml_component(document, settings.limits) for document in found.commit.of(Kind.ML_COMPONENT))


def _namespace(files: tuple[SourceFile, ...]) -> AppName:
    """What the manifests call the app, if they do."""
    named = (document.get("metadata", "namespace") for document in read(files).documents)
    return AppName(next((name for name in named if isinstance(name, str)), APP))


def choose(specs: tuple[MLComponentSpec, ...], name: str | None) -> MLComponentSpec:
    names = ", ".join(spec.name for spec in specs)
    if name is None and len(specs) == 1:
        return specs[0]
    if name is None:
        what = f"several MLComponents ({names}): choose one with --component" if specs else "no MLComponent"
        raise Stalled("UnknownComponent", f"the manifest has {what}")
    found = next((spec for spec in specs if spec.name == name), None)
    if found is None:
        raise Stalled(
            "UnknownComponent", f"the manifest has no MLComponent {name!r}, only: {names or 'none'}"
        )
    return found


def variables(settings: Settings, local: Local, spec: MLComponentSpec) -> dict[str, str]:
    """The container's environment, as the platform sets it."""
    given = (*((v.name, Secret(v.value)) for v in spec.env), *((name, Secret(v)) for name, v in local.env))
    model = ModelMount(local.model.resolve().parent, local.model.resolve().name) if local.model else None
    workload = Workload(APP, spec.name, 0, "", "", local.image, spec, given, model)
    policy = Policy(settings.instance, max_body=settings.web.max_body)
    env = environment(workload, policy, {})
    if isinstance(spec.server, PlatformServer):
        serving = json.loads(env["PRICHAL_SERVING"])
        serving["files_root"] = FILES if local.files else None
        env["PRICHAL_SERVING"] = json.dumps(serving)
    return env


def command(settings: Settings, local: Local, spec: MLComponentSpec, library: Path, name: str) -> list[str]:
    """The `docker run` command line. Values of variables are not in it: other users can read it."""
    own = [
        *("docker", "--host", settings.docker.host, "run", "--rm", "--name", name),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--memory", str(spec.resources.memory), "--pids-limit", str(spec.resources.pids)),
        *("--publish", f"127.0.0.1:{local.port}:{spec.port}"),
    ]
    for variable in variables(settings, local, spec):
        own += ["--env", variable]
    if local.files:
        own += ["--mount", f"type=bind,source={local.files.resolve()},target={FILES}"]
    if local.model:
        model = local.model.resolve()
        own += ["--mount", f"type=bind,source={model},target={MODEL_MOUNT}/{model.name},readonly"]
    if not isinstance(spec.server, PlatformServer):
        return [*own, local.image]
    own += ["--mount", f"type=bind,source={library},target={LIBRARY}/prichal_serving,readonly"]
    return [*own, "--entrypoint", "python3", local.image, "-m", "prichal_serving"]


def _run(command: list[str], env: dict[str, str], name: str) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end is asked to end, also by `kill`
    try:
        process = subprocess.Popen(command, env={**os.environ, **env})
    except FileNotFoundError:
        advice = "serve-local needs the docker command: install the package docker.io"
        raise Stalled("NoDockerCommand", advice) from None
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        if process.poll() is None:
            stop = [*command[: command.index("run")], "stop", "--time", "5", name]
            subprocess.run(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
