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
        return Check(name, False, error.message, "follow the message")
    except PermissionError as error:
        return Check(name, False, f"{_me()} may not read {error.filename}", "run doctor as the daemon's user")


# --- configuration ----------------------------------------------------------------------------------------------


def _config(settings: Settings) -> str:
    return f"read from {settings.source}" if settings.source else "defaults, since no file was given or found"


def _platform(settings: Settings) -> str:
    source, folder = settings.platform, Path(settings.platform.path)
    if source.url:
        return f"the Git repository {source.url}; its state is shown by: prichal status {PLATFORM}"
    if not folder.is_dir():
        raise Finding(f"the folder {folder} does not exist", f"mkdir -p -m 0700 {folder}")
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
        if path.is_file() and path.stat().st_mode & stat.S_IROTH and _has_plain_secret(path.read_bytes()):
            raise Finding(f"{path} contains a Secret and every user may read it", f"chmod 0600 {path}")
    return "other users cannot read the secrets"


def _has_plain_secret(content: bytes) -> bool:
    return b"kind: Secret" in content and b"ENC[AES256_GCM," not in content


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
        raise Finding("git is not installed, so pushes to repositories hosted here fail", "apt install git")
    return version


def _git_http(settings: Settings) -> str:
    """Check what stands between a `git clone` of a hosted repository and Git."""
    if not settings.git.http:
        return "hosted repositories are not served over HTTP (git.http: false)"
    exec_path = program("git", "--exec-path")
    if exec_path is None or not (Path(exec_path) / "git-http-backend").exists():
        raise Finding("git http-backend is not installed", "install the whole of Git: apt install git")
    path = settings.git_socket
    if not path.is_socket():
        advice = "start it with: prichal git-http, or: systemctl enable --now prichal-git.socket"
        raise Finding(f"the Git service does not listen at {path}, so pushes over HTTPS fail", advice)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Finding(f"more users than the web process may open {path}", f"chmod 0600 {path}")
    try:
        connected(path).close()
    except ConnectionRefusedError as error:
        advice = "start it with: prichal git-http, or: systemctl restart prichal-git.socket"
        raise Finding(f"nothing listens at {path} any more", advice) from error
    url = settings.clone_url("NAME")
    if not settings.web.public_url:
        return f"hosted repositories are at {url}, for this host alone (web.publicUrl)"
    return f"hosted repositories are at {url}"


# --- state ------------------------------------------------------------------------------------------------------


def _state(settings: Settings) -> str:
    if not settings.database.exists():
        raise Finding(
            f"there is no state at {settings.database} yet", "start with: prichal up (or prichal daemon)"
        )
    store = open_guest_store(settings.database)
    try:
        damage, unreadable, aside = store.damage(), store.unreadable(), store.aside()
    finally:
        store.close()
    if damage:
        advice = "stop prichal, move the database away and start prichal; it finds deployed containers again"
        raise Finding(f"{settings.database} is damaged: {damage[0]}", advice)
    if unreadable:
        row = unreadable[0]
        what = f"{row.kind} {row.name} cannot be read back ({row.problem})"
        more = f", and {len(unreadable) - 1} more" if unreadable[1:] else ""
        advice = "nothing: the daemon sets the row aside when it reads it, and reports an event of the app"
        raise Finding(f"{settings.database}: {what}{more}", advice)
    kept = ""
    if aside:
        rows = "1 unreadable row was" if not aside[1:] else f"{len(aside)} unreadable rows were"
        kept = f"; {rows} set aside: {', '.join(f'{row.kind} {row.name}' for row in aside[:3])}"
    return f"{settings.database} is intact and writable{kept}"


def _asking(settings: Settings) -> str:
    path = shared_path(settings.database)
    aside = asides(path)
    if aside:
        kept = aside[-1]
        raise Finding(
            f"what others ask for could not be used and was set aside: {kept} ({kept.lstat().st_size} bytes)",
            "the history of @platform says why; look who writes there, then remove the file",
        )
    return f"{path} can be used"


def _space(settings: Settings) -> str:
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        raise Finding(
            f"{free / 2**30:.1f} GiB free below {folder}",
            "free some space: docker image prune, or remove old clones and logs",
        )
    return f"{free / 2**30:.0f} GiB free below {folder}"


def _shares(settings: Settings) -> str:
    """Warn before something is refused. Only what fills up is checked, not what is declared."""
    if not settings.database.exists():
        return "no app uses anything"
    store = open_guest_store(settings.database)
    try:
        usage = store.usage()
    finally:
        store.close()
    full = sorted((each for each in usage if each.is_nearly_full), key=lambda each: -_share(each))
    if full:
        told = "; ".join(_told_use(each) for each in full[:3])
        more = f"; and {len(full) - 3} more" if full[3:] else ""
        raise Finding(
            f"{told}{more}",
            "see `prichal status APP`; free some space, or raise the bound: docs/guide/operations.md, Limits",
        )
    fullest = max((each for each in usage if each.fills), key=_share, default=None)
    if fullest is None or not fullest.used:
        return "no app is near a bound"
    return f"no app is near a bound; the nearest: {_told_use(fullest)}"


def _share(usage: Usage) -> float:
    return usage.used / usage.bound if usage.bound else 0.0


def _told_use(usage: Usage) -> str:
    return f"{usage.app}: {usage.resource} {usage.told(usage.used)} of {usage.told(usage.bound)}"


def _private(settings: Settings) -> str:
    if not settings.private.exists():
        return f"{settings.private} will be created at the first start"
    found = settings.private.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Finding(
            f"other users can access {settings.private} ({stat.filemode(found.st_mode)})",
            f"chmod 0700 {settings.private}",
        )
    return f"only {_user(found.st_uid)} can access {settings.private}"


def _database_folder(settings: Settings) -> str:
    folder = settings.database.parent
    if not folder.exists():
        return f"{folder} will be created at the first start"
    asked = folder / "asked"
    for path, wanted in ((folder, 0o2750), (asked, 0o3770)):
        mode = path.stat().st_mode if path.exists() else stat.S_IFDIR | wanted
        if stat.S_IMODE(mode) & ~wanted:
            raise Finding(
                f"more users than necessary can access {path} ({stat.filemode(mode)})",
                f"chmod {wanted:o} {path}",
            )
    if asked.exists() and not asked.stat().st_mode & stat.S_ISVTX:
        raise Finding(f"the web process may remove files of the daemon in {asked}", f"chmod 3770 {asked}")
    group = folder.stat().st_gid
    for file in (path for path in (*folder.glob("state.db*"), *asked.glob("asked.db*")) if path.is_file()):
        if file.name.endswith("-journal"):  # empty, and the daemon's alone
            continue
        found, shared = file.stat(), file.parent == asked
        if found.st_gid != group or not found.st_mode & (stat.S_IWGRP if shared else stat.S_IRGRP):
            rights = "g+rw" if shared else "g+r"
            raise Finding(
                f"the web process may not {'write' if shared else 'read'} {file}",
                f"chgrp --reference={folder} {file}; chmod {rights} {file}",
            )
        if not shared and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Finding(f"other users than the daemon can write {file}", f"chmod g-w,o-w {file}")
    _require_closed_keys(folder, keys_folder(settings.database))
    return f"the group of {folder} can read it, only the daemon can write it; both can write {asked}"


def _require_closed_keys(folder: Path, keys: Path) -> None:
    """Raise if operators, who are members of the group of `folder`, can read the keys."""
    if not keys.exists():
        return
    found = keys.stat()
    if stat.S_IMODE(found.st_mode) & ~0o2750:
        raise Finding(
            f"more users than necessary can access {keys} ({stat.filemode(found.st_mode)})",
            f"chmod 2750 {keys}",
        )
    if found.st_gid == folder.stat().st_gid and (members := _members(found.st_gid)):
        raise Finding(
            f"operators can read the keys of the web process: {', '.join(members)} are in the group of {keys}",
            f"give that folder to the group of the web process: chgrp -R prichal-web {keys}",
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
        return "the embedded server answers"
    return f"{server or 'the server'} answers at {settings.storage.endpoint}"


def _storage_accounts(settings: Settings) -> str:
    backend, admin = settings.storage.backend, settings.storage.admin
    if backend == "none":
        return _UNUSED[backend]
    if backend == "embedded":
        return "the web process and components have their own accounts; the platform enforces quotas"
    if admin == "none":
        return (
            "no admin API (storage.admin: none): the storage enforces no quotas, only the platform's own "
            "accounting does; components get no accounts; the web process uses the platform's keys"
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
    return f"the keys can administer the storage; {len(ours)} of its accounts are ours"


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
        advice = "set storage.publicUrl to the URL under which users reach it"
        raise Finding(f"links would lead to {base}, which users cannot reach", advice)
    nothing = ObjectLink("GET", f"{settings.instance}.doctor", "nothing", int(time.time()), lifetime=60)
    status, body = _follow(nothing.url(base, link_key(access.secret_key)), base)
    if "link-refused" in body:
        advice = "make the proxy pass on path and query unchanged: docs/guide/operations.md, Storage"
        raise Finding(f"links to {base} are refused, because they arrive changed", advice)
    if status != http.client.NOT_FOUND or _OURS not in body:  # the bucket does not exist
        advice = (
            "check what answers there; it must be the web process, or a proxy that changes nothing: stop what uses the "
            "address, or set storage.listen to another one, and restart the web process"
        )
        who = "" if _OURS in body else "another program "
        raise Finding(f"{who}at {base} answers a link with {status}: {body.strip()[:200]}", advice)
    if public.hostname in ("127.0.0.1", "localhost", "::1"):
        return f"links lead to {base}, which works only on this host (storage.publicUrl)"
    return f"links lead to {base} and are accepted"


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
        advice = (
            "the web process serves links at storage.listen, and they start with storage.publicUrl: check that "
            "it runs, that the address is free, and that the name is right"
        )
        raise Finding(f"{address} does not answer ({error})", advice) from error


def _storage_space(settings: Settings) -> str:
    folder = settings.embedded_storage
    if settings.storage.backend != "embedded" or not folder.exists():
        return "nothing is stored on this host"
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        advice = "free some space there, or move the storage: docs/guide/operations.md, Storage"
        raise Finding(f"{free / 2**30:.1f} GiB free below {folder}: uploads will be refused", advice)
    return f"{free / 2**30:.0f} GiB free below {folder}"


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
        embedded = f"the daemon keeps it running: check that the daemon runs; its log and {log} say more"
        server = "check the server, storage.endpoint and storage.credentials"
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
    "s3": "links are checked once there is a box",
    "none": "no storage; boxes are refused (storage.backend: none)",
    "embedded": "the embedded server starts with the first box",
}


def _secrets(settings: Settings) -> str:
    """Check that the Secrets that people have set can be read with the key that is there."""
    if not settings.database.exists():
        return "none"
    store = open_guest_store(settings.database)
    try:
        foreign = store.secrets.foreign(SecretKeys(_key(settings)))
        number = sum(len(store.secrets.listed(status.app)) for status in store.apps.all())
    finally:
        store.close()
    if foreign:
        raise Finding(
            foreign, f"restore {key_file(settings.private)} from the backup, then restart the daemon"
        )
    return f"{number} values, encrypted with the key of this instance"


def _notifications(settings: Settings) -> str:
    """Report receivers that do not take messages."""
    if not settings.database.exists():
        return "none"
    store = open_guest_store(settings.database)
    try:
        found = store.notifications.all()
    finally:
        store.close()
    failing = [each for each in found if (last := each.record.last) and last.fate is not Fate.DELIVERED]
    if failing:
        told = "; ".join(_told_failure(each) for each in failing[:3])
        more = f"; and {len(failing) - 3} more" if failing[3:] else ""
        raise Finding(f"{told}{more}", "correct the receiver, and try it with: prichal notify test APP NAME")
    return f"{len(found)} are declared, and their last messages arrived" if found else "none"


def _told_failure(stored: StoredNotification) -> str:
    last = stored.record.last
    return f"{stored.app}: {stored.spec.name}: {last.problem if last else ''}"


# --- GPUs -------------------------------------------------------------------------------------------------------


def _gpus(settings: Settings) -> str:
    """Compare the GPUs of the configuration with those that the driver shows, and say who has them."""
    lent = settings.runs.gpus
    if not settings.docker.is_here:
        return f"{len(lent)} lent (runs.gpus), on the engine's host, whose driver is not asked"
    report = GpuDriver().read()
    if not lent:
        shown = ", ".join(f"{device.index} ({device.name} {device.id})" for device in report.devices)
        return f"none are lent (runs.gpus); the driver shows {shown or 'none'}"
    states = gpu_states(lent, report, *_holders(settings), report.at)
    told = "; ".join(map(_told_gpu, states))
    if report.problem == NOT_INSTALLED:
        return f"{told}. What they do is unknown: {report.problem}"
    if report.problem:
        advice = (
            "check the driver: nvidia-smi; after an update of it, restart the host. The unit may hide devices: "
            "docs/guide/operations.md, GPUs. GPUs are lent all the same"
        )
        raise Finding(f"{told}. What they do is unknown: {report.problem}", advice)
    if any(state.blocked for state in states):
        advice = (
            "list in runs.gpus what `nvidia-smi -L` shows, each once, and restart the daemon; a GPU that is lost "
            "needs a reset (nvidia-smi --gpu-reset) or a restart of the host"
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
        facts.append(f"{about_size(device.memory_used)} of {about_size(device.memory_total)} in use")
    if device and device.utilization is not None:
        facts.append(f"{device.utilization:.0%} busy")
    if state.problem:
        facts.append(state.problem)
    if not state.lent:
        facts.append("not lent")
    owners = [f"{holder.app}/{holder.component or holder.stage}" for holder in state.holders]
    facts.append(f"held by {', '.join(owners)}" if owners else "free")
    return f"{state.id}: {', '.join(facts)}"


# --- backups ----------------------------------------------------------------------------------------------------


def _backup(settings: Settings) -> str:
    """Check that the last good backup is not too old, and that no restore was left half done."""
    if settings.restore_marker.exists():
        advice = "make it again with `prichal backup restore`"
        raise Finding(f"a restore into {settings.state} was interrupted", advice)
    chosen = settings.backup
    if not chosen.to:
        return "no backups are made: backup.to is not set"
    record, now = load_record(settings.backup_record), time.time()
    advice = "see what is wrong with: prichal backup create"
    if problem := problem_of(record, chosen.alert_after, now):
        raise Finding(problem, advice)
    if record.failure:
        raise Finding(f"no backup was made: {record.failure.message}", advice)
    assert record.good is not None  # else it is a problem
    return f"the last good backup is {record.good.name} ({about_size(record.good.size)}) in {chosen.to}"


# --- processes --------------------------------------------------------------------------------------------------


def _daemon(settings: Settings) -> str:
    process = holder(settings.private)
    if process is None:
        raise Finding(
            "no daemon uses this state folder",
            "start it with: prichal daemon, or: systemctl start prichal-daemon",
        )
    store = open_guest_store(settings.database)
    try:
        beat = store.last_heartbeat() or 0.0
    finally:
        store.close()
    age = time.time() - beat
    if age > FRESH:
        advice = f"check its log, then restart it (systemctl restart prichal-daemon, or kill {process})"
        raise Finding(f"process {process} holds the lock, but its last heartbeat was {age:.0f} s ago", advice)
    return f"process {process}, heartbeat {max(age, 0.0):.1f} s ago"


def _web(settings: Settings) -> str:
    address = settings.web.local_url
    try:
        with fetched_url(urlsplit(f"{address}/-/readyz"), within=ANSWER) as reply:
            status, body = reply.status, reply.read(SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = (
            "start it with: prichal web, or: systemctl start prichal-web.socket; web.listen sets the address"
        )
        raise Finding(f"{address} does not answer ({error})", advice) from error
    if status != http.client.OK:
        raise Finding(
            f"{address}/-/readyz answers {status}: {body.strip()}",
            "follow its message about what is not ready",
        )
    return f"ready at {address}"


def _people(settings: Settings) -> str:
    """Check the accounts of people, and show the first administrator's link."""
    path = settings.people
    if not path.exists():
        return "nobody has an account yet: the web process makes the first one when it starts"
    try:
        with as_owner_of(path.parent):
            people = PeopleStore(path)
            accounts, grants = people.accounts(), people.grants(time.time())
            link = first_login_url(settings)
    except (ControllerError, PermissionError):
        return f"only root and the user of the web process may read {path}"
    if link:
        return f"nobody has signed in yet; the first administrator chooses a password at {link}"
    if [account.has_password for account in accounts] == [False]:
        return (
            "nobody has signed in yet, and the first link has expired; another one: prichal user passwd admin"
        )
    admins = {grant.user for grant in grants if grant.role is Role.ADMIN}
    return f"{len(accounts)} accounts, {len(admins)} of administrators"


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
