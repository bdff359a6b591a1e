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
from controller.adapters.embedded import root_objects
from controller.adapters.features import git_library, program
from controller.adapters.objects import S3Objects, S3Storage
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


# --- storage ----------------------------------------------------------------------------------------------------


def _storage(settings: Settings) -> str:
    with _objects(settings) as objects:
        if objects is None:
            return _UNUSED[settings.storage.backend]
        server = _asked(settings, objects)
    if settings.storage.backend == "embedded":
        return f"the embedded server answers at {settings.storage.listen}"
    return f"{server or 'the server'} answers at {settings.storage.endpoint}"


def _storage_accounts(settings: Settings) -> str:
    backend, admin = settings.storage.backend, settings.storage.admin
    if backend == "none":
        return _UNUSED[backend]
    if backend == "embedded":
        return "the web process and components have accounts of their own; quotas are kept by the platform"
    if admin == "none":
        return (
            "no admin API (storage.admin: none): boxes get no quota in the storage, only the platform's own "
            "accounting; components get no accounts; the web process has the platform's keys"
        )
    storage = S3Storage(settings.storage, settings.instance, _key(settings))
    try:
        administrator = storage.admin()
        accounts = administrator.accounts() if administrator else frozenset()
    except ControllerError as error:
        advice = "give storage.credentials the keys of an administrator, or set storage.admin to none"
        raise Finding(error.message, advice) from error
    finally:
        storage.close()
    ours = [name for name in accounts if name.startswith((f"{settings.instance}-", f"{settings.instance}."))]
    return f"these keys administrate the storage; {len(ours)} accounts there are ours"


def _storage_links(settings: Settings) -> str:
    """Follows a link as a user would. A signature covers the host: a proxy that changes it breaks every link."""
    with _objects(settings) as objects:
        if objects is None:
            return _UNUSED[settings.storage.backend]
        link = objects.sign("GET", f"{settings.instance}.doctor", "nothing", lifetime=60.0)
    public = urlsplit(link)
    address = f"{public.scheme}://{public.netloc}"
    if public.hostname in ("0.0.0.0", "::"):
        advice = "set storage.publicUrl to how users reach it"
        raise Finding(f"links would lead to {address}, which is no address", advice)
    status, body = _follow(link, address)
    if "SignatureDoesNotMatch" in body:
        advice = (
            "let the proxy in front pass on the Host header as it came: docs/guide/operations.md, Storage"
        )
        raise Finding(f"links to {address} are refused: they arrive under another name", advice)
    if status != http.client.NOT_FOUND:  # the bucket does not exist
        advice = "see what answers there; it should be the storage itself, or a proxy that changes nothing"
        raise Finding(f"{address} answers a link with {status}: {body.strip()[:200]}", advice)
    if public.hostname in ("127.0.0.1", "localhost", "::1"):
        return f"links lead to {address}, which only callers on this host can use (storage.publicUrl)"
    return f"links lead to {address}, and are accepted there"


def _follow(link: str, address: str) -> tuple[int, str]:
    parts = urlsplit(link)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=ANSWER)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        reply = connection.getresponse()
        return reply.status, reply.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = (
            "storage.publicUrl is in the links that users get: is the name right, and does the proxy run?"
        )
        raise Finding(f"no answer at {address} ({error})", advice) from error
    finally:
        connection.close()


def _storage_space(settings: Settings) -> str:
    folder = settings.embedded_storage
    if settings.storage.backend != "embedded" or not folder.exists():
        return "nothing is stored on this host"
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        advice = "make room there, or move the storage: docs/guide/operations.md, Storage"
        raise Finding(f"{free / 2**30:.1f} GiB free below {folder}: uploads will be refused", advice)
    return f"{free / 2**30:.0f} GiB free below {folder}"


@contextmanager
def _objects(settings: Settings) -> Iterator[S3Objects | None]:
    """The storage with all rights. None: there is none, or the embedded one has not been needed yet and rightly does
    not run."""
    if settings.storage.backend == "none" or (
        settings.storage.backend == "embedded" and not _has_boxes(settings)
    ):
        yield None
        return
    key = _key(settings)
    if settings.storage.backend == "embedded":
        objects = root_objects(settings.storage, settings.instance, key)
    else:
        objects = S3Storage(settings.storage, settings.instance, key).objects()
    try:
        yield objects
    finally:
        objects.close()


def _asked(settings: Settings, objects: S3Objects) -> str:
    try:
        return objects.ping()
    except ControllerError as error:
        log = settings.embedded_storage / "gateway.log"
        embedded = f"the daemon keeps it running: does it run? It says more, and so does {log}"
        server = "see to the server, and to storage.endpoint and storage.credentials"
        raise Finding(
            error.message, embedded if settings.storage.backend == "embedded" else server
        ) from error


def _has_boxes(settings: Settings) -> bool:
    if not settings.database.exists():
        return False
    store = open_store(settings.database)
    try:
        return bool(store.boxes.all())
    finally:
        store.close()


def _key(settings: Settings) -> bytes:
    try:
        return (settings.private / "instance.key").read_bytes()
    except FileNotFoundError:
        return b""  # before the first start; keys of a server elsewhere do not hang on it


_UNUSED = {
    "none": "none: boxes are refused (storage.backend)",
    "embedded": "the embedded server is started by the first box",
}


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
    "storage": _storage,
    "storage accounts": _storage_accounts,
    "storage links": _storage_links,
    "storage space": _storage_space,
    "daemon": _daemon,
    "web": _web,
}
