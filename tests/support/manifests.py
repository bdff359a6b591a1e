"""The settings and Secrets with which the example manifests of `tests/fixtures/manifests` are validated."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from controller.config import DefaultLimits, GitSettings, Settings
from controller.domain.apps.spec import AppSpec, Limits, PlatformAppSpec, PlatformSpec, Registry
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.names import AppName, RepositoryName
from controller.manifests import load_app, load_platform
from controller.ports import SourceFile
from tests.support.specs import make

EXAMPLES = Path(__file__).parent.parent / "fixtures" / "manifests"
VERSION = "apiVersion: unified-platform.cs.hse.ru/v1\n"

APP = make(
    PlatformAppSpec,
    name=AppName("demo"),
    repository=RepositoryName("demo"),
    limits=Limits(cpus=4, memory=8 * 2**30, storage=20 * 10**9, containers=8),
    package_registries=(Registry("pypi", "https://packages.example.org/simple"),),
)
SECRETS = frozenset({"keys", "users"})
LIMITS = DefaultLimits()
SETTINGS = Settings(git=GitSettings(allowed_paths=(Path("/srv/git"),)))

_HOST_FILES = {"/secrets/token": b"hunter2\n", "/secrets/binary": b"\xff\xfe"}


def read_file(path: str) -> bytes:
    """A host with a few files, without touching the real one."""
    if path == "/secrets/denied":
        raise PermissionError(13, "Permission denied")
    if path not in _HOST_FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return _HOST_FILES[path]


def app_of(*texts: str | bytes, app: PlatformAppSpec = APP) -> AppSpec:
    """The app that these files (f0.yaml, f1.yaml, …) declare."""
    return load_app(_files(texts), app, True, LIMITS)


def platform_of(*texts: str | bytes, settings: Settings = SETTINGS) -> PlatformSpec:
    return load_platform(_files(texts), settings, read_file)


def app_problems(*texts: str | bytes, app: PlatformAppSpec = APP) -> tuple[ManifestProblem, ...]:
    try:
        app_of(*texts, app=app)
    except ManifestInvalid as error:
        return error.problems
    return ()


def platform_problems(*texts: str | bytes) -> tuple[ManifestProblem, ...]:
    try:
        platform_of(*texts)
    except ManifestInvalid as error:
        return error.problems
    return ()


def _files(texts: Iterable[str | bytes]) -> tuple[SourceFile, ...]:
    encoded = (text.encode() if isinstance(text, str) else text for text in texts)
    return tuple(SourceFile(f"f{i}.yaml", content) for i, content in enumerate(encoded))
