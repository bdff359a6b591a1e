"""`prichal doctor`: is this machine fit, and if not, what is to be done? Looks only: nothing is changed or made.

Each check is a function from the settings to a sentence about what was found. It raises `Finding`, with advice, for
what is wrong; errors of the rooms that it calls become findings, too, so that one broken thing hides no other.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller.adapters.docker.connection import Connection, has_init
from controller.adapters.docker.errors import translated
from controller.adapters.features import git_library, program
from controller.config import Settings
from controller.daemon.hosted import local_url
from controller.daemon.lock import holder
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from controller.store import open_store

OLDEST_DOCKER = (20, 10)
LEAST_SPACE = 2 * 2**30  # bytes free
FRESH = 15.0  # seconds since the daemon's last heartbeat
ANSWER = 3.0  # seconds for the web process


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is empty where all is well."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


class Finding(Exception):
    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice


def doctor(settings: Settings) -> list[Check]:
    return [_check(name, look, settings) for name, look in CHECKS.items()]


def _check(name: str, look: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, True, look(settings))
    except Finding as finding:
        return Check(name, False, finding.detail, finding.advice)
    except ControllerError as error:
        return Check(name, False, error.message, "see the message")
    except PermissionError as error:
        return Check(
            name, False, f"{error.filename} may not be read by {_me()}", "run doctor as the daemon's user"
        )


# --- configuration ----------------------------------------------------------------------------------------------


def _config(settings: Settings) -> str:
    return f"read from {settings.source}" if settings.source else "defaults; no file was given or found"


def _platform(settings: Settings) -> str:
    source, folder = settings.platform, Path(settings.platform.path)
    if source.url:
        return f"the Git repository {source.url}; the daemon tells in the status of {PLATFORM} how it is"
    if not folder.is_dir():
        raise Finding(f"the folder {folder} is not there", f"mkdir -p -m 0700 {folder}")
    spec = load_platform(tuple(read_folder(folder)), settings)
    return f"{len(spec.apps)} apps, {len(spec.repositories)} repositories in {folder}"


def _platform_secrets(settings: Settings) -> str:
    if settings.platform.url:
        return "in a Git repository"
    folder = Path(settings.platform.path)
    if not folder.is_dir():
        return "none"
    closed = not folder.stat().st_mode & stat.S_IXOTH
    for path in sorted(folder.rglob("*")) if not closed else ():
        if path.is_file() and path.stat().st_mode & stat.S_IROTH and b"kind: Secret" in path.read_bytes():
            raise Finding(f"{path} holds a Secret and everybody may read it", f"chmod 0600 {path}")
    return "secrets are closed to others"


# --- Docker -----------------------------------------------------------------------------------------------------


def _engine(settings: Settings) -> str:
    with _docker(settings) as client:
        version = client.version()
    found = tuple(int(part) for part in version["Version"].split(".")[:2] if part.isdigit())
    if found < OLDEST_DOCKER:
        raise Finding(f"Docker {version['Version']} is too old", "install Docker 20.10 or newer")
    return f"Docker {version['Version']}, API {version['ApiVersion']}"


def _limits(settings: Settings) -> str:
    with _docker(settings) as client:
        info = client.info()
    wanted = {"memory": "MemoryLimit", "cpu": "CpuCfsQuota", "pids": "PidsLimit"}
    missing = [name for name, key in wanted.items() if not info.get(key)]
    if missing:
        advice = "enable these cgroup controllers (kernel option cgroup_enable=memory) and restart Docker"
        raise Finding(f"the kernel gives no limits for: {', '.join(missing)}", advice)
    return f"memory, cpu and pids (cgroup v{info.get('CgroupVersion', '1')})"


def _init(settings: Settings) -> str:
    with _docker(settings) as client:
        version = client.version()
    if not has_init(version):
        return "no docker-init: containers run without an init process (apt install tini gives them one)"
    return "docker-init is there"


@contextmanager
def _docker(settings: Settings) -> Iterator[Any]:
    host = settings.docker.host
    _check_socket(host)
    connection = Connection(host, settings.docker.timeout)
    try:
        with translated(f"no answer from the Docker engine at {host}"):
            yield connection.client
    finally:
        connection.close()


def _check_socket(host: str) -> None:
    path = Path(urlsplit(host).path)
    if not host.startswith("unix://"):
        return
    if not path.exists():
        advice = "install and start Docker: apt install docker.io; systemctl start docker"
        raise Finding(f"there is no socket at {path}", advice)
    if not os.access(path, os.R_OK | os.W_OK):
        raise Finding(
            f"{_me()} may not use {path}", f"usermod -aG docker {_me()}, then start the daemon anew"
        )


# --- Git --------------------------------------------------------------------------------------------------------


def _git_library(settings: Settings) -> str:
    version, missing = git_library()
    if missing:
        advice = "install pygit2 as a wheel from PyPI, which has all of them"
        raise Finding(f"libgit2 {version} was built without {', '.join(missing)}", advice)
    return f"libgit2 {version} with https and ssh"


def _git_program(settings: Settings) -> str:
    version = program("git", "--version")
    if version is None:
        raise Finding("git is not installed: nobody can push to repositories hosted here", "apt install git")
    return version


# --- state ------------------------------------------------------------------------------------------------------


def _state(settings: Settings) -> str:
    if not settings.database.exists():
        raise Finding(
            f"there is no state at {settings.database} yet", "start with: prichal up (or prichal daemon)"
        )
    store = open_store(settings.database)
    try:
        damage = store.damage()
    finally:
        store.close()
    if damage:
        advice = "stop prichal, move the database away and start again; what is deployed is found again"
        raise Finding(f"{settings.database} is damaged: {damage[0]}", advice)
    return f"{settings.database} is sound and writable"


def _space(settings: Settings) -> str:
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        raise Finding(
            f"{free / 2**30:.1f} GiB free below {folder}",
            "free some space: docker image prune, old clones, logs",
        )
    return f"{free / 2**30:.0f} GiB free below {folder}"


def _private(settings: Settings) -> str:
    if not settings.private.exists():
        return f"{settings.private} is made at the first start"
    found = settings.private.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Finding(
            f"{settings.private} is open to others ({stat.filemode(found.st_mode)})",
            f"chmod 0700 {settings.private}",
        )
    return f"{settings.private} is closed to all but {_user(found.st_uid)}"


def _database_folder(settings: Settings) -> str:
    folder = settings.database.parent
    if not folder.exists():
        return f"{folder} is made at the first start"
    mode = folder.stat().st_mode
    if mode & 0o007:
        raise Finding(f"{folder} is open to everybody ({stat.filemode(mode)})", f"chmod 2770 {folder}")
    for file in folder.iterdir():
        if file.stat().st_gid != folder.stat().st_gid or not file.stat().st_mode & stat.S_IWGRP:
            raise Finding(
                f"the web process may not write {file}",
                f"chgrp --reference={folder} {file}; chmod g+rw {file}",
            )
    return f"{folder} is shared with its group"


# --- processes --------------------------------------------------------------------------------------------------


def _daemon(settings: Settings) -> str:
    process = holder(settings.private)
    if process is None:
        raise Finding(
            "no daemon runs on this state folder", "prichal daemon, or: systemctl start prichal-daemon"
        )
    store = open_store(settings.database)
    try:
        beat = store.last_heartbeat() or 0.0
    finally:
        store.close()
    age = time.time() - beat
    if age > FRESH:
        advice = f"look into its log, then restart it (systemctl restart prichal-daemon, or kill {process})"
        raise Finding(f"process {process} holds the lock, but its last heartbeat was {age:.0f} s ago", advice)
    return f"process {process}, heartbeat {max(age, 0.0):.1f} s ago"


def _web(settings: Settings) -> str:
    address = local_url(settings)
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER)
    try:
        connection.request("GET", "/-/readyz")
        reply = connection.getresponse()
        body = reply.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = "prichal web, or: systemctl start prichal-web.socket; the address is web.listen in the configuration"
        raise Finding(f"no answer at {address} ({error})", advice) from error
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise Finding(
            f"{address}/-/readyz answers {reply.status}: {body.strip()}", "see what it says is not ready"
        )
    return f"ready at {address}"


def _me() -> str:
    return _user(os.geteuid())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "configuration": _config,
    "platform folder": _platform,
    "platform secrets": _platform_secrets,
    "docker": _engine,
    "docker limits": _limits,
    "docker init": _init,
    "git library": _git_library,
    "git program": _git_program,
    "state": _state,
    "disk space": _space,
    "private folder": _private,
    "database folder": _database_folder,
    "daemon": _daemon,
    "web": _web,
}
