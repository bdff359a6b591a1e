"""The checks of `prichal doctor` that are about Docker: whether it answers, limits what it should, and keeps containers
from where they must not go. Called by `daemon.doctor`; each returns what it found, or raises `Finding`."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection, has_init
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.error_rules import translated
from controller.adapters.docker.listed import listed_images
from controller.adapters.docker.networks import Networks
from controller.config import Settings
from controller.domain.apps.kept_images import ImageKind
from controller.domain.errors import Transient
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.domain.units import about_size

OLDEST_DOCKER = (20, 10)
_LATE = 6 * 3600.0  # seconds; nothing is removed while something is built


def _engine(settings: Settings) -> str:
    with _docker(settings) as client:
        version = client.version()
    found = tuple(int(part) for part in version["Version"].split(".")[:2] if part.isdigit())
    if found < OLDEST_DOCKER:
        raise Finding(
            Localizable("Docker {version} is too old", version=version["Version"]),
            Localizable("install Docker 20.10 or newer"),
        )
    return Localizable("Docker {version}, API {api}", version=version["Version"], api=version["ApiVersion"])


def _limits(settings: Settings) -> str:
    with _docker(settings) as client:
        info = client.info()
    wanted = {"memory": "MemoryLimit", "cpu": "CpuCfsQuota", "pids": "PidsLimit"}
    missing = [name for name, key in wanted.items() if not info.get(key)]
    if missing:
        advice = Localizable(
            "enable these cgroup controllers (kernel option cgroup_enable=memory) and restart Docker"
        )
        raise Finding(
            Localizable("the kernel does not enforce limits for: {missing}", missing=", ".join(missing)),
            advice,
        )
    return Localizable("memory, cpu and pids (cgroup v{version})", version=info.get("CgroupVersion", "1"))


def _init(settings: Settings) -> str:
    with _docker(settings) as client:
        version = client.version()
    if not has_init(version):
        return Localizable(
            "no docker-init: containers run without an init process (apt install tini gives them one)"
        )
    return Localizable("docker-init is installed")


def _build_cache(settings: Settings) -> str:
    most = settings.docker.build_cache
    if settings.docker.builder == "classic":
        return Localizable("not looked at: BuildKit builds nothing (docker.builder)")
    _check_socket(settings.docker.host)
    with (
        closing(EngineConnection(settings.docker.host, settings.docker.timeout)) as connection,
        translated(Localizable("the Docker engine at {host} does not answer", host=settings.docker.host)),
    ):
        size = BuildCache(connection, settings.docker).size()
    if size > 2 * most:
        raise Finding(
            Localizable(
                "the cache of BuildKit has {size}, and may have {most} (docker.buildCache)",
                size=about_size(size),
                most=about_size(most),
            ),
            Localizable(
                "the daemon removes the rest every ten minutes once it has built something by BuildKit: see "
                "its log; docker builder prune"
            ),
        )
    return Localizable(
        "{size} of {most} (docker.buildCache), of all builds by the engine's BuildKit",
        size=about_size(size),
        most=about_size(most),
    )


def _images(settings: Settings) -> str:
    _check_socket(settings.docker.host)
    found = listed_images(replace(settings.docker, builder="classic"), settings.instance)
    kinds = (ImageKind.BUILT, ImageKind.PULLED, ImageKind.UNFINISHED)
    told = [f"{sum(each.kind is kind for each in found)} {kind}" for kind in kinds]
    late = [each for each in found if each.due is not None and each.due < time.time() - _LATE]
    if late:
        raise Finding(
            Localizable(
                "{late} images that unfinished builds have left should have been removed before now",
                late=len(late),
            ),
            Localizable("the daemon removes them while nothing is built: see its log; prichal image ls"),
        )
    return Localizable("{told}; see: prichal image ls", told=", ".join(told))


def _egress(settings: Settings) -> str:
    policy = settings.docker.egress
    if policy == "open":
        return Localizable(
            "open: containers reach what this host reaches, and its own services (docker.egress)"
        )
    _check_socket(settings.docker.host)
    with closing(EngineConnection(settings.docker.host, settings.docker.timeout)) as connection:
        egress = Egress(connection, settings.docker, settings.instance)
        networks = Networks(connection, settings.instance, egress)
        stale = networks.stale()
        if not networks.all():
            return Localizable("{policy}: rules are made with the first network of an app", policy=policy)
        try:
            egress.check()
        except Transient as error:
            advice = Localizable(
                "the daemon brings rules in by a container with iptables of the host: see the daemon's log; "
                "apt install iptables"
            )
            raise Finding(
                Localizable("containers reach services of this host: {message}", message=error.message),
                advice,
            ) from error
    if stale:
        advice = Localizable(
            "their networks are made again once their containers are away: docs/reference/containers.md, Network"
        )
        raise Finding(
            Localizable(
                "{policy} does not hold yet for {stale}", policy=policy, stale=", ".join(sorted(stale))
            ),
            advice,
        )
    return Localizable("{policy}, without this host's own and link-local addresses", policy=policy)


def _gpu_runtime(settings: Settings) -> str:
    """Check that the engine can give GPUs to containers, which it does by programs of NVIDIA."""
    if not settings.runs.gpus:
        return Localizable("not needed: no GPUs are lent (runs.gpus)")
    with _docker(settings) as client:
        info = client.info()
    found = sorted(name for name in info.get("Runtimes") or {} if "nvidia" in name)
    devices = [entry.get("ID", "") for entry in info.get("DiscoveredDevices") or ()]
    found += [f"CDI device {id}" for id in devices if "nvidia.com/gpu" in id][:1]
    if not found and settings.docker.is_here and shutil.which("nvidia-container-runtime-hook"):
        found = ["nvidia-container-runtime-hook"]
    if not found:
        advice = Localizable(
            "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker; "
            "systemctl restart docker"
        )
        raise Finding(
            Localizable("GPUs are lent (runs.gpus), and Docker has no runtime that gives them to containers"),
            advice,
        )
    return Localizable("Docker gives GPUs to containers: {found}", found=", ".join(found))


@contextmanager
def _docker(settings: Settings) -> Iterator[Any]:
    host = settings.docker.host
    _check_socket(host)
    connection = EngineConnection(host, settings.docker.timeout)
    try:
        with translated(Localizable("the Docker engine at {host} does not answer", host=host)):
            yield connection.client
    finally:
        connection.close()


def _check_socket(host: str) -> None:
    path = Path(urlsplit(host).path)
    if not host.startswith("unix://"):
        return
    if not path.exists():
        advice = Localizable("install and start Docker: apt install docker.io; systemctl start docker")
        raise Finding(Localizable("there is no socket at {path}", path=path), advice)
    if not os.access(path, os.R_OK | os.W_OK):
        raise Finding(
            Localizable("{user} may not use {path}", user=_user(), path=path),
            Localizable("usermod -aG docker {user}, then restart the daemon", user=_user()),
        )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return Localizable("user {uid}", uid=os.geteuid())


DOCKER_CHECKS: Final[Mapping[str, Callable[[Settings], str]]] = {
    "engine": _engine,
    "engine limits": _limits,
    "engine init": _init,
    "engine build cache": _build_cache,
    "engine images": _images,
    "egress": _egress,
    "engine gpus": _gpu_runtime,
}
