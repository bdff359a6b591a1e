"""One component without the platform. Its image runs with the serving library mounted, as the daemon would
run it, but with its port published on the loopback interface and a folder instead of a box.

Called by `prichal serve-local`. The container is created by the code that the daemon uses. It is started with
the `docker` command, whose handling of the terminal (log, Ctrl-C) is what people expect.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TextIO

from controller.adapters.docker import HostFolders, LocalServing, stage_serving
from controller.adapters.docker.serving import package_folder
from controller.config import Settings
from controller.domain.apps.desired import ModelMount, Workload
from controller.domain.apps.health import cannot_write
from controller.domain.apps.smoke import SmokeCase, SmokeTestInvalid
from controller.domain.apps.spec import ComponentKind, MLComponentSpec, SmokeTest, undeclared_app
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.text import Shown
from controller.domain.volumes import StagingArea, Volume
from controller.local.selection import choose, namespace_of
from controller.local.smoke import SmokeWatch
from controller.manifests.build import examine
from controller.manifests.components import ml_component
from controller.manifests.encrypted import folder_access
from controller.manifests.smoke_files import FileMissing, read_case
from controller.manifests.validate import read_folder
from controller.ports import SourceFile

_WRITES = (
    "it does not start with a read-only root file system, and is started once more with one that it can write, as the "
    "platform does: let it write below /tmp, or say `readOnlyRootFilesystem: false`"
)


@dataclass(frozen=True)
class LocalServeOptions:
    """The options of the command. `manifest` is a file or a folder; `env` replaces the platform's Secrets."""

    image: str
    manifest: Path
    component: str | None = None
    port: int = 8002
    files: Path | None = None
    model: Path | None = None
    env: tuple[tuple[str, str], ...] = ()


def serve_local(settings: Settings, local: LocalServeOptions) -> int:
    """Run until Ctrl-C or the end of the container, and return its exit code. The container is removed."""
    spec = choose(components(settings, local.manifest), local.component, "MLComponent", "--component")
    model = local.model.resolve().parent if local.model else None
    place = HostFolders(local.port or _free_port(), local.files, model)
    name = f"prichal-local-{os.getpid()}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends the command like Ctrl-C
    with (
        tempfile.TemporaryDirectory(prefix="prichal-serve-") as folder,
        closing(LocalServing(settings.docker)) as engine,
    ):
        library = stage_serving(package_folder(), Path(folder))
        Path(folder).chmod(0o755)  # processes in the container have other users
        try:
            made = workload(local, spec)
            engine.create(made, name, place, library, settings.web.max_body, _print)
            _print(f"serving {local.image} on http://127.0.0.1:{place.port} (Ctrl-C ends)")
            if spec.smoke_test:
                SmokeWatch(spec, _case(local.manifest, spec.smoke_test), place.port, _print).begin()
            code, complains = _run(settings, name)
            if code and complains and spec.read_only_root is None:
                _print(_WRITES)
                made = replace(made, spec=replace(spec, read_only_root=False))
                engine.remove(name)
                engine.create(made, name, place, library, settings.web.max_body, _print)
                code, _ = _run(settings, name)
            return code
        except KeyboardInterrupt:  # before the container ran
            return 0
        finally:
            engine.remove(name)


def components(settings: Settings, manifest: Path) -> tuple[MLComponentSpec, ...]:
    """Return the MLComponents of a manifest file or folder. Raises ManifestInvalid. Secrets that are named
    may be missing: `--env` passes their values.
    """
    files = _files(manifest)
    folder = manifest if manifest.is_dir() else manifest.parent
    found = examine(files, undeclared_app(namespace_of(files)), False, settings.limits, folder_access(folder))
    if found.problems:
        raise ManifestInvalid(found.problems)
    return tuple(
        ml_component(document, settings.limits) for document in found.commit.of(ComponentKind.ML_COMPONENT)
    )


def _files(manifest: Path) -> tuple[SourceFile, ...]:
    if manifest.is_dir():
        return tuple(read_folder(manifest))
    return (SourceFile(manifest.name, manifest.read_bytes()),)


def _case(manifest: Path, test: SmokeTest) -> SmokeCase:
    """Return the smoke test with its files. Raises Stalled `SmokeTestInvalid`."""
    try:
        return read_case(manifest if manifest.is_dir() else manifest.parent, test)
    except (FileMissing, SmokeTestInvalid, OSError) as error:
        raise Stalled(Reason.SMOKE_TEST_INVALID, f"its smoke test cannot be run: {error}") from error


def workload(local: LocalServeOptions, spec: MLComponentSpec) -> Workload:
    """Return what the platform would start, with `--env` instead of its Secrets and `--model` instead of its
    boxes.
    """
    given = (*((v.name, Secret(v.value)) for v in spec.env), *((name, Secret(v)) for name, v in local.env))
    model = ModelMount(Volume(StagingArea.MODELS), local.model.resolve().name) if local.model else None
    return Workload(app_of(local.manifest), spec.name, 0, "", "", local.image, spec, given, model)


def app_of(manifest: Path) -> AppName:
    """Return the app's name, which the container knows as UNIP_APP."""
    return namespace_of(_files(manifest))


def _run(settings: Settings, name: str) -> tuple[int, bool]:
    """Start the container and stay with it: its log and its exit code are the command's. And whether it has
    complained of a file system that it cannot write."""
    docker = ["docker", "--host", settings.docker.host]
    try:
        process = subprocess.Popen(
            [*docker, "start", "--attach", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        advice = "serve-local needs the docker command: install the package docker.io"
        raise Stalled(Reason.NO_DOCKER_COMMAND, advice) from None
    complaints: list[str] = []
    pumps = [
        threading.Thread(target=_show, args=(*pair, complaints), daemon=True)
        for pair in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    ]
    try:
        for pump in pumps:
            pump.start()
        code = process.wait()
        for pump in pumps:
            pump.join()
        return code, bool(complaints)
    except KeyboardInterrupt:
        return 0, False
    finally:
        if process.poll() is None:
            stop = [*docker, "stop", "--time", "5", name]
            subprocess.run(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            process.wait()


def _show(stream: IO[bytes], out: TextIO, complaints: list[str]) -> None:
    """Copy the container's output, without characters that a terminal would obey."""
    text, before = Shown(), ""
    while piece := os.read(stream.fileno(), 65536):
        shown = text.take(piece)
        if cannot_write(before + shown):
            complaints.append(shown)
        before = shown[-100:]
        out.write(shown)
        out.flush()
    out.write(text.take(b"", last=True))
    out.flush()
    stream.close()


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
