"""Carries out the orders that apps be made from templates, or deleted.

Called before each pass over the platform folder, of which there is one at a time; so orders are carried out one after
the other, and the pass finds what they have changed. What was decided is saved before the first step, and each step
may be repeated: an order that was interrupted is finished after the restart. What cannot be finished is undone, and
the order is refused with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from controller.adapters.hosted import FirstCommit
from controller.config import Settings
from controller.daemon import hosted
from controller.daemon.connect import ConnectOptions, connect, withdraw
from controller.daemon.disconnect import plan_removal
from controller.domain.apps.orders import (
    AppOrder,
    OrderKind,
    OrderRecord,
    OrderState,
    PresentApps,
    refusal,
    shares_of,
)
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import GitRef, HookProvider, PlatformSpec, RefKind
from controller.domain.apps.status import Event, EventType
from controller.domain.errors import ControllerError, ManifestInvalid, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.templates import TemplateFile, render, values_of
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from controller.ports import Clock, Store
from controller.templates.description import LoadedTemplate

log = logging.getLogger(__name__)

RETRY = 15.0  # seconds before an order is tried again that could not be carried out for now
_BRANCH = GitRef(RefKind.BRANCH, "main")


@dataclass
class OrderWorker:
    """`template` returns a template by its name, or raises ControllerError."""

    settings: Settings
    store: Store
    clock: Clock
    template: Callable[[str], LoadedTemplate]

    def work(self) -> None:
        """Carry out what has been ordered. Never raises for an order that fails."""
        waiting = self.store.orders.unfinished()
        for record in waiting:
            self._carry_out(record)
        if waiting:
            making = {record.order.app for record in self.store.orders.unfinished()}
            hosted.remove_old(self.settings, self.clock.now(), making)

    def _carry_out(self, record: OrderRecord) -> None:
        order = record.order
        try:
            record = self._begun(record)
            if order.kind is OrderKind.CREATE:
                self._make(record)
            else:
                self._remove(record)
        except Transient as error:
            self._later(order, error.message)
        except OSError as error:
            self._later(order, f"{error.filename}: {error.strerror}")
        except ControllerError as error:
            self._refuse(record, error.reason, _told(error))
        except Exception as error:  # a bug must not block the orders of others
            log.exception("bug while carrying out an order")
            self._refuse(
                record,
                Reason.INTERNAL_ERROR,
                Localizable("internal error ({name})", name=type(error).__name__),
            )
        else:
            self._finish(record)

    def _begun(self, record: OrderRecord) -> OrderRecord:
        """Decide about an order, and save that it is carried out. Raises ControllerError if it is not."""
        if record.state is OrderState.WORKING:
            return record
        order, spec = record.order, self._declared()
        if order.kind is OrderKind.CREATE:
            if found := refusal(order, self._present(spec)):
                raise Stalled(*found)
            self._files(order)
            record = replace(record, state=OrderState.WORKING, repository=order.app)
        else:
            record = self._removal(record, spec)
        self.store.orders.save(record)
        return record

    def _later(self, order: AppOrder, message: str) -> None:
        log.warning("an order waits", extra={"app": order.app, "kind": order.kind, "problem": message})
        self.store.requests.enqueue(PLATFORM, Trigger.RETRY, self.clock.now() + RETRY)

    def _finish(self, record: OrderRecord) -> None:
        order, made = record.order, record.order.kind is OrderKind.CREATE
        reason = Reason.APP_CREATED if made else Reason.APP_DELETED
        who = order.by or Localizable("an operator")
        message = (
            Localizable("{who} made it from the template {template}", who=who, template=order.template)
            if made
            else Localizable("{who} deleted it", who=who)
        )
        ended = record.ended_as(OrderState.DONE, self.clock.now(), reason, message)
        with self.store.transaction():
            self.store.orders.save(ended)
            self.store.events.add([Event(order.app, EventType.NORMAL, reason, message)])

    def _refuse(self, record: OrderRecord, reason: Reason, message: str) -> None:
        order = record.order
        log.warning("an order was refused", extra={"app": order.app, "reason": reason, "problem": message})
        if order.kind is OrderKind.CREATE and record.state is OrderState.WORKING:
            self._undo(order)
        self.store.orders.save(record.ended_as(OrderState.REFUSED, self.clock.now(), reason, message))

    # --- making an app ------------------------------------------------------------------------------------------

    def _make(self, record: OrderRecord) -> None:
        order = record.order
        self._remove_drafts(order)
        if self._is_connected(order):
            return
        loaded, files = self._files(order)
        message = f"Begin from the template {order.template}"
        first = FirstCommit(files, order.by or "prichal", message, int(record.created), order.id)
        made, secret = hosted.create_filled(self.settings, order.app, first)
        path = loaded.template.manifests
        connect(self.settings, _connection(order, str(made.path), path, secret), resume=True)

    def _is_connected(self, order: AppOrder) -> bool:
        """Return whether all was done before a restart. Raises Transient while that is not known."""
        if not hosted.is_marked(self.settings, order.app, order.id):
            return False
        try:
            app = self._declared().app(order.app)
        except Stalled as error:
            raise Transient(error.reason, error.message) from error
        return app is not None and str(app.repository) == order.app

    def _undo(self, order: AppOrder) -> None:
        """Remove what was made of an app, of which nothing was connected yet."""
        self._remove_drafts(order)
        if secret := hosted.hook_secret(self.settings, order.app):
            url = str(self.settings.repositories / f"{order.app}.git")
            withdraw(self.settings, _connection(order, url, ".", secret))
        hosted.undo(self.settings, order.app, order.id)

    def _files(self, order: AppOrder) -> tuple[LoadedTemplate, tuple[TemplateFile, ...]]:
        """Return the template, and the files of the new app."""
        loaded = self.template(order.template)
        values, problems = values_of(loaded.template, dict(order.values))
        if problems:
            raise Stalled(Reason.TEMPLATE_VALUES, "; ".join(problems))
        return loaded, render(loaded.files, order.app, values)

    def _remove_drafts(self, order: AppOrder) -> None:
        """Remove what a daemon that was killed has left of the files that it was writing."""
        for name in (f"{order.app}.yaml", f"{order.app}.secret.yaml"):
            for left in Path(self.settings.platform.path).glob(f".{name}.*"):
                left.unlink(missing_ok=True)

    def _present(self, spec: PlatformSpec) -> PresentApps:
        return PresentApps(
            apps={app.name for app in spec.apps} | {status.app for status in self.store.apps.all()},
            repositories={r.name for r in spec.repositories}
            | {each.name for each in hosted.repositories(self.settings)},
            kept={box.app for box in self.store.boxes.all()},
            shares=shares_of(spec),
        )

    def _declared(self) -> PlatformSpec:
        """Return the content of the platform folder, which new files are added to."""
        source = self.settings.platform
        if source.url:
            advice = Localizable(
                "make the repository with `prichal new` and connect it there, or ask an admin"
            )
            raise Stalled(
                Reason.PLATFORM_IN_GIT,
                Localizable(
                    "the platform folder is the Git repository {url}: {advice}", url=source.url, advice=advice
                ),
            )
        folder = Path(source.path)
        if not folder.is_dir():
            raise Stalled(
                Reason.PLATFORM_FOLDER_MISSING,
                Localizable("the platform folder {folder} does not exist", folder=folder),
            )
        return load_platform(read_folder(folder), self.settings)

    # --- deleting an app ----------------------------------------------------------------------------------------

    def _removal(self, record: OrderRecord, spec: PlatformSpec) -> OrderRecord:
        removal = plan_removal(self.settings, record.order.app)
        root = Path(self.settings.platform.path)
        return replace(
            record,
            state=OrderState.WORKING,
            files=tuple(file.relative_to(root).as_posix() for file in removal.files),
            repository=self._own_repository(spec, removal.repository),
            leaves_none=removal.is_last,
        )

    def _remove(self, record: OrderRecord) -> None:
        folder = Path(self.settings.platform.path)
        if record.leaves_none:  # the daemon takes an empty folder for a lost mount otherwise
            self.store.apps.approve(PLATFORM, "confirmed")
        for name in record.files:
            (folder / name).unlink(missing_ok=True)
        if record.repository:
            hosted.set_aside(self.settings, record.repository, record.order.id)

    def _own_repository(self, spec: PlatformSpec, name: str) -> str:
        """Return the hosted repository that only this app follows; "" if there is none."""
        followers = [app for app in spec.apps if app.repository == name]
        declared = next((r for r in spec.repositories if r.name == name), None)
        url = declared.url.removeprefix("file://") if declared else ""
        here = {str(each.path): each.name for each in hosted.repositories(self.settings)}
        return here.get(url, "") if len(followers) == 1 else ""


def _connection(order: AppOrder, url: str, path: str, secret: Secret) -> ConnectOptions:
    return ConnectOptions(
        url=url,
        repository=order.app,
        app=order.app,
        ref=_BRANCH,
        path=path,
        hook=HookProvider.GENERIC,
        hook_secret=secret,
        owner=order.by,
        limits=order.limits,
    )


def _told(error: ControllerError) -> str:
    """What is wrong with the platform folder is nothing for the one who wants an app in it."""
    if isinstance(error, ManifestInvalid):
        return Localizable(
            "the platform folder has problems, so no app can be added: ask an admin (prichal status)"
        )
    return error.message
