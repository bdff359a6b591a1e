"""Measures a rebuild of an image that installs ten wheels, after a change of the file that names them: by the classic
builder, which installs all of them again, and by BuildKit with a warm cache mount (`RUN --mount=type=cache`).

The wheels are made here, two hundred modules each, and lie in the context: what is measured is unpacking and compiling,
no download. Both builders have no network, so that they do the same.
"""

from __future__ import annotations

import io
import tarfile
import time
import zipfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

import docker.errors

from benchmarks.environment import Environment
from benchmarks.figures import Section, in_turns
from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage
from controller.ports import BuildContext
from tests.support.engines import BASE_IMAGE

WHEELS, MODULES, ROUNDS = 10, 200, 5
CLASSIC, BUILDKIT = "classic builder", "BuildKit with a warm cache mount"
_INSTALL = """\
import compileall, pathlib, shutil, sys, zipfile
store, target = map(pathlib.Path, sys.argv[1:])
for name in pathlib.Path("/src/wheels.txt").read_text().split("\\n")[1:]:
    if not (store / name).exists():
        zipfile.ZipFile(f"/src/{name}").extractall(store / f"{name}.new")
        compileall.compile_dir(store / f"{name}.new", quiet=1)
        (store / f"{name}.new").rename(store / name)
    shutil.copytree(store / name, target, dirs_exist_ok=True)
"""
_STEP = "RUN {} python3 /src/install.py /store /site"


def measure(ground: Environment) -> Section:
    section = Section("builds", "a rebuild that installs ten wheels, after a change of their list")
    instance = f"bench-{token_hex(4)}"
    files = {f"{n}.whl": _wheel(n) for n in range(WHEELS)} | {"install.py": _INSTALL.encode()}
    settings = {
        CLASSIC: DockerSettings(builder="classic", build_network="none"),
        BUILDKIT: DockerSettings(builder="buildkit", build_network="none"),
    }
    try:
        ways = {
            name: partial(_seconds, ground.home / name.split()[0], instance, each, files)
            for name, each in settings.items()
        }
        for way in ways.values():  # both find their base image and the wheels
            way()
        found = in_turns(ways, 1 if ground.quick else ROUNDS)
    finally:
        for image in ground.docker.images(filters={"label": f"{labels.BUILT_BY}={instance}"}, all=True):
            with suppress(docker.errors.NotFound):  # with one that was made from it
                ground.docker.remove_image(image["Id"], force=True)
    for name, values in found.items():
        section.add(name, "ms", [value * 1000 for value in values])
    section.compare("BuildKit / classic builder", found[BUILDKIT], found[CLASSIC], "≤ 0.3")
    return section


def _seconds(folder: Path, instance: str, settings: DockerSettings, files: dict[str, bytes]) -> float:
    """Build with a new list of the same wheels."""
    names = "\n".join(name for name in files if name.endswith(".whl"))
    mount = "--mount=type=cache,target=/store" if settings.builder == "buildkit" else "mkdir /store &&"
    step = _STEP.format(mount)
    dockerfile = f"FROM {BASE_IMAGE}\nCOPY . /src\n{step}\n".encode()
    listed = {**files, "wheels.txt": f"# {token_hex(8)}\n{names}".encode()}
    context = BuildContext(dockerfile, None, [_tar(listed)])
    with closing(DockerEngine(settings, instance, folder)) as engine:
        begun = time.perf_counter()
        order = BuildInput("c0ffee", BuildImage(".", "Dockerfile"))
        engine.build(f"{instance}.local/wheels/web:1", order, context, lambda line: None)
        return time.perf_counter() - begun


def _wheel(number: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for module in range(MODULES):
            lines = [f"def f{n}(a, b=({n}, {module})):\n    return [a, *b, {n}]\n" for n in range(60)]
            wheel.writestr(f"package{number}/module{module}.py", "\n".join(lines))
    return buffer.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
