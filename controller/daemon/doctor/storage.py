"""Checks of the object storage: its server, accounts, links and disk."""

from __future__ import annotations

import http.client
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from controller.adapters.embedded import root_objects
from controller.adapters.objects import S3Objects, S3Storage
from controller.config import Settings
from controller.daemon.doctor.processes import ANSWER, SHOWN
from controller.daemon.doctor.state import LEAST_SPACE
from controller.daemon.instance_key import present_key
from controller.domain.errors import ControllerError
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.domain.storage.box import StorageAccess
from controller.domain.storage.links import ObjectLink, link_key
from controller.fetch import fetched_url
from controller.store import open_guest_store

_OURS: Final = "urn:prichal:problem:"  # in each refusal of the web process
_UNUSED = {
    "s3": Localizable("links are checked once there is a box"),
    "none": Localizable("no storage; boxes are refused (storage.backend: none)"),
    "embedded": Localizable("the embedded server starts with the first box"),
}


def check_storage(settings: Settings) -> str:
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


def check_storage_accounts(settings: Settings) -> str:
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
    storage = S3Storage(settings.storage, settings.instance, present_key(settings.private))
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


def check_storage_links(settings: Settings) -> str:
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


def check_storage_space(settings: Settings) -> str:
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
    key = present_key(settings.private)  # other servers' keys do not depend on it
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
