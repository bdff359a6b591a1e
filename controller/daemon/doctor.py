"""`prichal doctor` checks whether this machine is fit, and says what to do if not. It changes nothing, and
removes the short-lived container of a check.

Each check is a function from the settings to a sentence about what was found. If something is wrong, it
raises `Finding` with advice. The engine's checks come from its adapter. Errors of the packages that a check calls
become findings, too, so that one problem does not hide others.
"""

from __future__ import annotations

import grp
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
from typing import Final
from urllib.parse import urlsplit

from controller.adapters.docker.checks import DOCKER_CHECKS
from controller.adapters.embedded import root_objects
from controller.adapters.features import git_library, program
from controller.adapters.gpu_driver import NOT_INSTALLED, GpuDriver
from controller.adapters.objects import S3Objects, S3Storage
from controller.config import Settings
from controller.daemon.certificate import certificate
from controller.daemon.instance_key import key_file
from controller.daemon.issuers import issuers
from controller.daemon.lock import holder
from controller.domain.apps.usage import Usage
from controller.domain.backups import problem_of
from controller.domain.errors import ControllerError
from controller.domain.findings import Finding
from controller.domain.gpu_devices import GpuState, gpu_states
from controller.domain.localizable import Localizable, joined
from controller.domain.names import PLATFORM
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import StoredNotification
from controller.domain.people.roles import Role
from controller.domain.runs.gpus import Lease
from controller.domain.runs.run import Run
from controller.domain.storage.box import StorageAccess
from controller.domain.storage.links import ObjectLink, link_key
from controller.domain.units import about_size
from controller.encryption import SecretKeys
from controller.fetch import fetched_url
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from controller.store import open_guest_store
from controller.store.backup_record import load_record
from controller.store.first_admin import first_login_url
from controller.store.keys import keys_folder
from controller.store.owners import as_owner_of
from controller.store.people import PeopleStore
from controller.store.shared_file import asides
from controller.store.sqlite import shared_path
from controller.unix_socket import connected

LEAST_SPACE = 2 * 2**30  # bytes free
SHOWN = 2000  # bytes of a response
FRESH = 15.0  # seconds since the daemon's last heartbeat
ANSWER = 3.0  # seconds for the web process


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is empty if there is no problem."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def doctor(settings: Settings, names: frozenset[str] | None = None) -> list[Check]:
    """Make all checks, or those with these names."""
    return [_check(name, look, settings) for name, look in CHECKS.items() if names is None or name in names]


def _check(name: str, look: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, True, look(settings))
    except Finding as finding:
        return Check(name, False, finding.detail, finding.advice)
    except ControllerError as error:
        return Check(name, False, error.message, Localizable("follow the message"))
    except PermissionError as error:
        return Check(
            name,
            False,
            Localizable("{me} may not read {filename}", me=_me(), filename=error.filename),
            Localizable("run doctor as the daemon's user"),
        )


# --- configuration ----------------------------------------------------------------------------------------------


def _config(settings: Settings) -> str:
    return (
        Localizable("read from {source}", source=settings.source)
        if settings.source
        else Localizable("defaults, since no file was given or found")
    )


def _platform(settings: Settings) -> str:
    source, folder = settings.platform, Path(settings.platform.path)
    if source.url:
        return Localizable(
            "the Git repository {url}; its state is shown by: prichal status {platform}",
            url=source.url,
            platform=PLATFORM,
        )
    if not folder.is_dir():
        raise Finding(
            Localizable("the folder {folder} does not exist", folder=folder), f"mkdir -p -m 0700 {folder}"
        )
    spec = load_platform(tuple(read_folder(folder)), settings)
    return Localizable(
        "{apps} apps, {repositories} repositories in {folder}",
        apps=len(spec.apps),
        repositories=len(spec.repositories),
        folder=folder,
    )


def _platform_secrets(settings: Settings) -> str:
    if settings.platform.url:
        return Localizable("in a Git repository")
    folder = Path(settings.platform.path)
    if not folder.is_dir():
        return Localizable("none")
    closed = not folder.stat().st_mode & stat.S_IXOTH
    for path in sorted(folder.rglob("*")) if not closed else ():
        if path.is_file() and path.stat().st_mode & stat.S_IROTH and _has_plain_secret(path.read_bytes()):
            raise Finding(
                Localizable("{path} contains a Secret and every user may read it", path=path),
                f"chmod 0600 {path}",
            )
    return Localizable("other users cannot read the secrets")


def _has_plain_secret(content: bytes) -> bool:
    return b"kind: Secret" in content and b"ENC[AES256_GCM," not in content


# --- Git --------------------------------------------------------------------------------------------------------


def _git_library(settings: Settings) -> str:
    version, missing = git_library()
    if missing:
        advice = Localizable("install pygit2 as a wheel from PyPI, which has all of them")
        raise Finding(
            Localizable(
                "libgit2 {version} was built without {missing}", version=version, missing=", ".join(missing)
            ),
            advice,
        )
    return Localizable("libgit2 {version} with https and ssh", version=version)


def _git_program(settings: Settings) -> str:
    version = program("git", "--version")
    if version is None:
        raise Finding(
            Localizable("git is not installed, so pushes to repositories hosted here fail"),
            "apt install git",
        )
    return version


def _git_http(settings: Settings) -> str:
    """Check what stands between a `git clone` of a hosted repository and Git."""
    if not settings.git.http:
        return Localizable("hosted repositories are not served over HTTP (git.http: false)")
    exec_path = program("git", "--exec-path")
    if exec_path is None or not (Path(exec_path) / "git-http-backend").exists():
        raise Finding(
            Localizable("git http-backend is not installed"),
            Localizable("install the whole of Git: apt install git"),
        )
    path = settings.git_socket
    if not path.is_socket():
        advice = Localizable("start it with: prichal git-http, or: systemctl enable --now prichal-git.socket")
        raise Finding(
            Localizable("the Git service does not listen at {path}, so pushes over HTTPS fail", path=path),
            advice,
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Finding(
            Localizable("more users than the web process may open {path}", path=path), f"chmod 0600 {path}"
        )
    try:
        connected(path).close()
    except ConnectionRefusedError as error:
        advice = Localizable("start it with: prichal git-http, or: systemctl restart prichal-git.socket")
        raise Finding(Localizable("nothing listens at {path} any more", path=path), advice) from error
    except (PermissionError, BlockingIOError):
        pass  # it belongs to the web process, or more than it takes at once are waiting
    url = settings.clone_url("NAME")
    if not settings.web.public_url:
        return Localizable("hosted repositories are at {url}, for this host alone (web.publicUrl)", url=url)
    return Localizable("hosted repositories are at {url}", url=url)


# --- state ------------------------------------------------------------------------------------------------------


def _state(settings: Settings) -> str:
    if not settings.database.exists():
        raise Finding(
            Localizable("there is no state at {database} yet", database=settings.database),
            Localizable("start with: prichal up (or prichal daemon)"),
        )
    store = open_guest_store(settings.database)
    try:
        damage, unreadable, aside = store.damage(), store.unreadable(), store.aside()
    finally:
        store.close()
    if damage:
        advice = Localizable(
            "stop prichal, move the database away and start prichal; it finds deployed containers again"
        )
        raise Finding(
            Localizable("{database} is damaged: {damage}", database=settings.database, damage=damage[0]),
            advice,
        )
    if unreadable:
        row = unreadable[0]
        what = Localizable(
            "{kind} {name} cannot be read back ({problem})", kind=row.kind, name=row.name, problem=row.problem
        )
        more = Localizable(", and {more} more", more=len(unreadable) - 1) if unreadable[1:] else ""
        advice = Localizable(
            "nothing: the daemon sets the row aside when it reads it, and reports an event of the app"
        )
        raise Finding(joined((f"{settings.database}: ", what, more), ""), advice)
    kept = ""
    if aside:
        names = ", ".join(f"{row.kind} {row.name}" for row in aside[:3])
        kept = (
            Localizable("; {number} unreadable rows were set aside: {names}", number=len(aside), names=names)
            if aside[1:]
            else Localizable("; 1 unreadable row was set aside: {names}", names=names)
        )
    return Localizable("{database} is intact and writable{kept}", database=settings.database, kept=kept)


def _asking(settings: Settings) -> str:
    path = shared_path(settings.database)
    aside = asides(path)
    if aside:
        kept = aside[-1]
        raise Finding(
            Localizable(
                "what others ask for could not be used and was set aside: {kept} ({size} bytes)",
                kept=kept,
                size=kept.lstat().st_size,
            ),
            Localizable("the history of @platform says why; look who writes there, then remove the file"),
        )
    return Localizable("{path} can be used", path=path)


def _space(settings: Settings) -> str:
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        raise Finding(
            Localizable("{free} GiB free below {folder}", free=round(free / 2**30, 1), folder=folder),
            Localizable("free some space: docker image prune, or remove old clones and logs"),
        )
    return Localizable("{free} GiB free below {folder}", free=round(free / 2**30), folder=folder)


def _shares(settings: Settings) -> str:
    """Warn before something is refused. Only what fills up is checked, not what is declared."""
    if not settings.database.exists():
        return Localizable("no app uses anything")
    store = open_guest_store(settings.database)
    try:
        usage = store.usage()
    finally:
        store.close()
    full = sorted((each for each in usage if each.is_nearly_full), key=lambda each: -_share(each))
    if full:
        told = joined(_told_use(each) for each in full[:3])
        more = Localizable("; and {more} more", more=len(full) - 3) if full[3:] else ""
        raise Finding(
            told + more,
            Localizable(
                "see `prichal status APP`; free some space, or raise the bound: docs/guide/operations.md, Limits"
            ),
        )
    fullest = max((each for each in usage if each.fills), key=_share, default=None)
    if fullest is None or not fullest.used:
        return Localizable("no app is near a bound")
    return Localizable("no app is near a bound; the nearest: {use}", use=_told_use(fullest))


def _share(usage: Usage) -> float:
    return usage.used / usage.bound if usage.bound else 0.0


def _told_use(usage: Usage) -> str:
    return Localizable(
        "{app}: {resource} {used} of {bound}",
        app=usage.app,
        resource=usage.resource,
        used=usage.told(usage.used),
        bound=usage.told(usage.bound),
    )


def _private(settings: Settings) -> str:
    if not settings.private.exists():
        return Localizable("{private} will be created at the first start", private=settings.private)
    found = settings.private.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Finding(
            Localizable(
                "other users can access {private} ({mode})",
                private=settings.private,
                mode=stat.filemode(found.st_mode),
            ),
            f"chmod 0700 {settings.private}",
        )
    return Localizable("only {user} can access {private}", user=_user(found.st_uid), private=settings.private)


def _database_folder(settings: Settings) -> str:
    folder = settings.database.parent
    if not folder.exists():
        return Localizable("{folder} will be created at the first start", folder=folder)
    asked = folder / "asked"
    for path, wanted in ((folder, 0o2750), (asked, 0o3770)):
        mode = path.stat().st_mode if path.exists() else stat.S_IFDIR | wanted
        if stat.S_IMODE(mode) & ~wanted:
            raise Finding(
                Localizable(
                    "more users than necessary can access {path} ({mode})",
                    path=path,
                    mode=stat.filemode(mode),
                ),
                f"chmod {wanted:o} {path}",
            )
    if asked.exists() and not asked.stat().st_mode & stat.S_ISVTX:
        raise Finding(
            Localizable("the web process may remove files of the daemon in {asked}", asked=asked),
            f"chmod 3770 {asked}",
        )
    group = folder.stat().st_gid
    for file in (path for path in (*folder.glob("state.db*"), *asked.glob("asked.db*")) if path.is_file()):
        if file.name.endswith("-journal"):  # empty, and the daemon's alone
            continue
        found, shared = file.stat(), file.parent == asked
        if found.st_gid != group or not found.st_mode & (stat.S_IWGRP if shared else stat.S_IRGRP):
            rights = "g+rw" if shared else "g+r"
            raise Finding(
                Localizable("the web process may not write {file}", file=file)
                if shared
                else Localizable("the web process may not read {file}", file=file),
                f"chgrp --reference={folder} {file}; chmod {rights} {file}",
            )
        if not shared and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Finding(
                Localizable("other users than the daemon can write {file}", file=file),
                f"chmod g-w,o-w {file}",
            )
    _require_closed_keys(folder, keys_folder(settings.database))
    return Localizable(
        "the group of {folder} can read it, only the daemon can write it; both can write {asked}",
        folder=folder,
        asked=asked,
    )


def _require_closed_keys(folder: Path, keys: Path) -> None:
    """Raise if operators, who are members of the group of `folder`, can read the keys."""
    if not keys.exists():
        return
    found = keys.stat()
    if stat.S_IMODE(found.st_mode) & ~0o2750:
        raise Finding(
            Localizable(
                "more users than necessary can access {keys} ({mode})",
                keys=keys,
                mode=stat.filemode(found.st_mode),
            ),
            f"chmod 2750 {keys}",
        )
    if found.st_gid == folder.stat().st_gid and (members := _members(found.st_gid)):
        raise Finding(
            Localizable(
                "operators can read the keys of the web process: {members} are in the group of {keys}",
                members=", ".join(members),
                keys=keys,
            ),
            Localizable(
                "give that folder to the group of the web process: chgrp -R prichal-web {keys}", keys=keys
            ),
        )


def _members(group: int) -> list[str]:
    try:
        return grp.getgrgid(group).gr_mem
    except KeyError:
        return []


# --- storage ----------------------------------------------------------------------------------------------------


def _storage(settings: Settings) -> str:
    with _objects(settings) as objects:
        if objects is None:
            return _UNUSED[settings.storage.backend]
        server = _asked(settings, objects)
    if settings.storage.backend == "embedded":
        return Localizable("the embedded server answers")
    return Localizable(
        "{server} answers at {endpoint}",
        server=server or Localizable("the server"),
        endpoint=settings.storage.endpoint,
    )


def _storage_accounts(settings: Settings) -> str:
    backend, admin = settings.storage.backend, settings.storage.admin
    if backend == "none":
        return _UNUSED[backend]
    if backend == "embedded":
        return Localizable(
            "the web process and components have their own accounts; the platform enforces quotas"
        )
    if admin == "none":
        return Localizable(
            "no admin API (storage.admin: none): the storage enforces no quotas, only the platform's own "
            "accounting does; components get no accounts; the web process uses the platform's keys"
        )
    storage = S3Storage(settings.storage, settings.instance, _key(settings))
    try:
        administrator = storage.admin()
        accounts = administrator.accounts() if administrator else frozenset()
    except ControllerError as error:
        advice = Localizable(
            "give storage.credentials the keys of an administrator, or set storage.admin to none"
        )
        raise Finding(error.message, advice) from error
    finally:
        storage.close()
    ours = [name for name in accounts if name.startswith((f"{settings.instance}-", f"{settings.instance}."))]
    return Localizable("the keys can administer the storage; {ours} of its accounts are ours", ours=len(ours))


_OURS: Final = "urn:prichal:problem:"  # in each refusal of the web process


def _storage_links(settings: Settings) -> str:
    """Follow a link as a user would, through any proxy in front."""
    storage = settings.storage
    access = _status_of_storage(settings)
    if storage.backend == "none" or access is None:
        return _UNUSED[storage.backend]
    base = storage.public_url or f"http://{storage.listen}"
    public = urlsplit(base)
    if public.hostname in ("0.0.0.0", "::"):  # noqa: S104 - what an address means, or is said to containers
        advice = Localizable("set storage.publicUrl to the URL under which users reach it")
        raise Finding(Localizable("links would lead to {base}, which users cannot reach", base=base), advice)
    nothing = ObjectLink("GET", f"{settings.instance}.doctor", "nothing", int(time.time()), lifetime=60)
    status, body = _follow(nothing.url(base, link_key(access.secret_key)), base)
    if "link-refused" in body:
        advice = Localizable(
            "make the proxy pass on path and query unchanged: docs/guide/operations.md, Storage"
        )
        raise Finding(
            Localizable("links to {base} are refused, because they arrive changed", base=base), advice
        )
    if status != http.client.NOT_FOUND or _OURS not in body:  # the bucket does not exist
        advice = Localizable(
            "check what answers there; it must be the web process, or a proxy that changes nothing: stop "
            "what uses the address, or set storage.listen to another one, and restart the web process"
        )
        told = f"{status}: {body.strip()[:200]}"
        raise Finding(
            Localizable("{base} answers a link with {told}", base=base, told=told)
            if _OURS in body
            else Localizable("another program at {base} answers a link with {told}", base=base, told=told),
            advice,
        )
    if public.hostname in ("127.0.0.1", "localhost", "::1"):
        return Localizable(
            "links lead to {base}, which works only on this host (storage.publicUrl)", base=base
        )
    return Localizable("links lead to {base} and are accepted", base=base)


def _status_of_storage(settings: Settings) -> StorageAccess | None:
    """Return the access to the storage that the daemon gave to the web process."""
    if not settings.database.exists():
        return None
    store = open_guest_store(settings.database)
    try:
        return store.boxes.access()
    finally:
        store.close()


def _follow(link: str, address: str) -> tuple[int, str]:
    try:
        with fetched_url(urlsplit(link), within=ANSWER) as reply:
            return reply.status, reply.read(SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = Localizable(
            "the web process serves links at storage.listen, and they start with storage.publicUrl: check "
            "that it runs, that the address is free, and that the name is right"
        )
        raise Finding(
            Localizable("{address} does not answer ({error})", address=address, error=error), advice
        ) from error


def _storage_space(settings: Settings) -> str:
    folder = settings.embedded_storage
    if settings.storage.backend != "embedded" or not folder.exists():
        return Localizable("nothing is stored on this host")
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        advice = Localizable("free some space there, or move the storage: docs/guide/operations.md, Storage")
        raise Finding(
            Localizable(
                "{free} GiB free below {folder}: uploads will be refused",
                free=round(free / 2**30, 1),
                folder=folder,
            ),
            advice,
        )
    return Localizable("{free} GiB free below {folder}", free=round(free / 2**30), folder=folder)


@contextmanager
def _objects(settings: Settings) -> Iterator[S3Objects | None]:
    """Yield the storage with all rights; None if there is none, or if no box has needed the embedded server
    yet, so that it need not run.
    """
    if settings.storage.backend == "none" or (
        settings.storage.backend == "embedded" and not _has_boxes(settings)
    ):
        yield None
        return
    key = _key(settings)
    if settings.storage.backend == "embedded":
        objects = root_objects(settings.storage, settings.embedded_storage, settings.instance, key)
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
        embedded = Localizable(
            "the daemon keeps it running: check that the daemon runs; its log and {log} say more", log=log
        )
        server = Localizable("check the server, storage.endpoint and storage.credentials")
        raise Finding(
            error.message, embedded if settings.storage.backend == "embedded" else server
        ) from error


def _has_boxes(settings: Settings) -> bool:
    if not settings.database.exists():
        return False
    store = open_guest_store(settings.database)
    try:
        return bool(store.boxes.all())
    finally:
        store.close()


def _key(settings: Settings) -> bytes:
    try:
        return key_file(settings.private).read_bytes()
    except FileNotFoundError:
        return b""  # before the first start; keys of other servers do not depend on it


_UNUSED = {
    "s3": Localizable("links are checked once there is a box"),
    "none": Localizable("no storage; boxes are refused (storage.backend: none)"),
    "embedded": Localizable("the embedded server starts with the first box"),
}


def _secrets(settings: Settings) -> str:
    """Check that the Secrets that people have set can be read with the key that is there."""
    if not settings.database.exists():
        return Localizable("none")
    store = open_guest_store(settings.database)
    try:
        foreign = store.secrets.foreign(SecretKeys(_key(settings)))
        number = sum(len(store.secrets.listed(status.app)) for status in store.apps.all())
    finally:
        store.close()
    if foreign:
        raise Finding(
            foreign,
            Localizable(
                "restore {path} from the backup, then restart the daemon",
                path=key_file(settings.private),
            ),
        )
    return Localizable("{number} values, encrypted with the key of this instance", number=number)


def _notifications(settings: Settings) -> str:
    """Report receivers that do not take messages."""
    if not settings.database.exists():
        return Localizable("none")
    store = open_guest_store(settings.database)
    try:
        found = store.notifications.all()
    finally:
        store.close()
    failing = [each for each in found if (last := each.record.last) and last.fate is not Fate.DELIVERED]
    if failing:
        told = joined(_told_failure(each) for each in failing[:3])
        more = Localizable("; and {more} more", more=len(failing) - 3) if failing[3:] else ""
        raise Finding(
            told + more,
            Localizable("correct the receiver, and try it with: prichal notify test APP NAME"),
        )
    return (
        Localizable("{number} are declared, and their last messages arrived", number=len(found))
        if found
        else "none"
    )


def _told_failure(stored: StoredNotification) -> str:
    last = stored.record.last
    return joined((stored.app, stored.spec.name, last.problem if last else ""), ": ")


# --- GPUs -------------------------------------------------------------------------------------------------------


def _gpus(settings: Settings) -> str:
    """Compare the GPUs of the configuration with those that the driver shows, and say who has them."""
    lent = settings.runs.gpus
    if not settings.docker.is_here:
        return Localizable(
            "{lent} lent (runs.gpus), on the engine's host, whose driver is not asked", lent=len(lent)
        )
    report = GpuDriver().read()
    if not lent:
        shown = ", ".join(f"{device.index} ({device.name} {device.id})" for device in report.devices)
        return Localizable(
            "none are lent (runs.gpus); the driver shows {shown}", shown=shown or Localizable("none")
        )
    states = gpu_states(lent, report, *_holders(settings), report.at)
    told = joined(map(_told_gpu, states))
    if report.problem == NOT_INSTALLED:
        return Localizable("{told}. What they do is unknown: {problem}", told=told, problem=report.problem)
    if report.problem:
        advice = Localizable(
            "check the driver: nvidia-smi; after an update of it, restart the host. The unit may hide "
            "devices: docs/guide/operations.md, GPUs. GPUs are lent all the same"
        )
        raise Finding(
            Localizable("{told}. What they do is unknown: {problem}", told=told, problem=report.problem),
            advice,
        )
    if any(state.blocked for state in states):
        advice = Localizable(
            "list in runs.gpus what `nvidia-smi -L` shows, each once, and restart the daemon; a GPU that is "
            "lost needs a reset (nvidia-smi --gpu-reset) or a restart of the host"
        )
        raise Finding(told, advice)
    return told


def _holders(settings: Settings) -> tuple[tuple[Lease, ...], tuple[Run, ...]]:
    if not settings.database.exists():
        return (), ()
    store = open_guest_store(settings.database)
    try:
        return store.gpus.leases(), store.runs.active()
    finally:
        store.close()


def _told_gpu(state: GpuState) -> str:
    device = state.device
    facts = [device.name] if device and device.name else []
    if device and device.memory_used is not None and device.memory_total is not None:
        facts.append(
            Localizable(
                "{memory_used} of {memory_total} in use",
                memory_used=about_size(device.memory_used),
                memory_total=about_size(device.memory_total),
            )
        )
    if device and device.utilization is not None:
        facts.append(Localizable("{share} busy", share=f"{device.utilization:.0%}"))
    if state.problem:
        facts.append(state.problem)
    if not state.lent:
        facts.append(Localizable("not lent"))
    owners = [f"{holder.app}/{holder.component or holder.stage}" for holder in state.holders]
    facts.append(Localizable("held by {owners}", owners=", ".join(owners)) if owners else Localizable("free"))
    return joined((state.id, joined(facts, ", ")), ": ")


# --- backups ----------------------------------------------------------------------------------------------------


def _backup(settings: Settings) -> str:
    """Check that the last good backup is not too old, and that no restore was left half done."""
    if settings.restore_marker.exists():
        advice = Localizable("make it again with `prichal backup restore`")
        raise Finding(Localizable("a restore into {state} was interrupted", state=settings.state), advice)
    chosen = settings.backup
    if not chosen.to:
        return Localizable("no backups are made: backup.to is not set")
    record, now = load_record(settings.backup_record), time.time()
    advice = Localizable("see what is wrong with: prichal backup create")
    if problem := problem_of(record, chosen.alert_after, now):
        raise Finding(problem, advice)
    if record.failure:
        raise Finding(Localizable("no backup was made: {message}", message=record.failure.message), advice)
    assert record.good is not None  # else it is a problem
    return Localizable(
        "the last good backup is {name} ({size}) in {to}",
        name=record.good.name,
        size=about_size(record.good.size),
        to=chosen.to,
    )


# --- processes --------------------------------------------------------------------------------------------------


def _daemon(settings: Settings) -> str:
    process = holder(settings.private)
    if process is None:
        raise Finding(
            Localizable("no daemon uses this state folder"),
            Localizable("start it with: prichal daemon, or: systemctl start prichal-daemon"),
        )
    store = open_guest_store(settings.database)
    try:
        beat = store.last_heartbeat() or 0.0
    finally:
        store.close()
    age = time.time() - beat
    if age > FRESH:
        advice = Localizable(
            "check its log, then restart it (systemctl restart prichal-daemon, or kill {process})",
            process=process,
        )
        raise Finding(
            Localizable(
                "process {process} holds the lock, but its last heartbeat was {age} s ago",
                process=process,
                age=round(age),
            ),
            advice,
        )
    return Localizable(
        "process {process}, heartbeat {age} s ago", process=process, age=round(max(age, 0.0), 1)
    )


def _web(settings: Settings) -> str:
    address = settings.web.local_url
    try:
        with fetched_url(urlsplit(f"{address}/-/readyz"), within=ANSWER) as reply:
            status, body = reply.status, reply.read(SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = Localizable(
            "start it with: prichal web, or: systemctl start prichal-web.socket; web.listen sets the address"
        )
        raise Finding(
            Localizable("{address} does not answer ({error})", address=address, error=error), advice
        ) from error
    if status != http.client.OK:
        raise Finding(
            Localizable(
                "{address}/-/readyz answers {status}: {text}",
                address=address,
                status=status,
                text=body.strip(),
            ),
            Localizable("follow its message about what is not ready"),
        )
    return Localizable("ready at {address}", address=address)


def _people(settings: Settings) -> str:
    """Check the accounts of people, and show the first administrator's link."""
    path = settings.people
    if not path.exists():
        return Localizable("nobody has an account yet: the web process makes the first one when it starts")
    try:
        with as_owner_of(path.parent):
            people = PeopleStore(path)
            accounts, grants = people.accounts(), people.grants(time.time())
            link = first_login_url(settings)
    except (ControllerError, PermissionError):
        return Localizable("only root and the user of the web process may read {path}", path=path)
    if link:
        return Localizable(
            "nobody has signed in yet; the first administrator chooses a password at {link}", link=link
        )
    if [account.has_password for account in accounts] == [False]:
        return Localizable(
            "nobody has signed in yet, and the first link has expired; another one: prichal user passwd admin"
        )
    admins = {grant.user for grant in grants if grant.role is Role.ADMIN}
    return Localizable(
        "{accounts} accounts, {admins} of administrators", accounts=len(accounts), admins=len(admins)
    )


def _me() -> str:
    return _user(os.geteuid())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return Localizable("user {uid}", uid=uid)


CHECKS: dict[str, Callable[[Settings], str]] = {
    "configuration": _config,
    "platform folder": _platform,
    "platform secrets": _platform_secrets,
    **DOCKER_CHECKS,
    "git library": _git_library,
    "git program": _git_program,
    "git over https": _git_http,
    "state": _state,
    "asked": _asking,
    "disk space": _space,
    "private folder": _private,
    "database folder": _database_folder,
    "shares": _shares,
    "storage": _storage,
    "storage accounts": _storage_accounts,
    "storage links": _storage_links,
    "storage space": _storage_space,
    "gpus": _gpus,
    "backup": _backup,
    "daemon": _daemon,
    "web": _web,
    "people": _people,
    "issuers": issuers,
    "certificate": certificate,
    "notifications": _notifications,
    "secrets": _secrets,
}
