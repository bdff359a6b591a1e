"""A host on which apps are made and deleted: real folders and databases, the daemon's worker, and what the web process
does for a person. Everything that the platform folder declares is read as the daemon reads it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pygit2

from controller.config import Settings
from controller.config.settings import AppSettings, PlatformSource
from controller.daemon.orders import OrderWorker
from controller.daemon.templates import TemplateShelf
from controller.domain.apps.orders import AppOrder, OrderRecord
from controller.domain.apps.spec import PlatformSpec
from controller.domain.people.quotas import Quota
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from controller.ports import Store
from controller.store.people import PeopleStore
from controller.templates.asking import NewApp, creation, deletion
from controller.web.auth.promises import settle
from tests.support.clock import FakeClock

QUOTA = Quota(3, 4.0, 2**32, 10**10, 0)


def settings_in(folder: Path, **apps: object) -> Settings:
    """The settings of a host below a folder, whose platform folder is there."""
    (folder / "platform").mkdir(exist_ok=True)
    (folder / "state" / "web").mkdir(parents=True, exist_ok=True)
    return Settings(
        state=folder / "state",
        platform=PlatformSource(str(folder / "platform")),
        apps=AppSettings(**apps),  # type: ignore[arg-type]
    )


@dataclass
class Host:
    settings: Settings
    store: Store

    @property
    def people(self) -> PeopleStore:
        return PeopleStore(self.settings.people)

    def worker(self) -> OrderWorker:
        shelf = TemplateShelf(self.settings, self.store)
        return OrderWorker(self.settings, self.store, FakeClock(time.time()), shelf.get)

    def work(self) -> None:
        """What a pass over the platform folder does for orders."""
        self.worker().work()
        self.store.requests.claim(time.time() + 1e6)  # takes in what others have asked for

    def order(self, name: str, number: int, by: str = "anna", **more: object) -> AppOrder:
        wanted = NewApp(name, "function", {"path": "count"}, {"cpus": 1, "memory": "1Gi"})
        found = creation(self.store, self.settings, wanted, f"{number:032x}", by, QUOTA)
        return replace(found, **more)  # type: ignore[arg-type]

    def removal(self, name: str, number: int, by: str = "anna") -> AppOrder:
        return deletion(self.store, self.settings, name, name, f"{number:032x}", by)

    def place(self, order: AppOrder, developer: str = "") -> None:
        """What the web process does with it."""
        self.people.promise(order.id, developer, order.app, time.time())
        self.store.orders.ask(order)

    def settle(self) -> None:
        settle(self.people, self.store, time.time())

    def found(self, number: int) -> OrderRecord:
        record = self.store.orders.get(f"{number:032x}")
        assert record is not None
        return record

    def spec(self) -> PlatformSpec:
        return load_platform(read_folder(Path(self.settings.platform.path)), self.settings)

    def left(self) -> set[str]:
        """All files of the platform folder and all that lies beside the hosted repositories, hidden ones included."""
        platform = Path(self.settings.platform.path)
        repositories = self.settings.repositories
        return {path.name for path in platform.iterdir()} | {
            path.name
            for path in (repositories.iterdir() if repositories.exists() else ())
            if path.name != "deleted"
        }

    def commit(self, name: str) -> dict[str, bytes]:
        """The files of the first commit of a hosted repository."""
        repository = pygit2.Repository(str(self.settings.repositories / f"{name}.git"))
        head = repository.references["refs/heads/main"].peel(pygit2.Commit)
        assert head.parents == []
        return dict(_files(repository, head.tree))

    def mark(self, name: str) -> str:
        content = json.loads((self.settings.repositories / f"{name}.git" / "prichal.json").read_text())
        return str(content["mark"])


def _files(repository: pygit2.Repository, tree: pygit2.Tree, prefix: str = "") -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in tree:
        if isinstance(item, pygit2.Tree):
            found += _files(repository, item, f"{prefix}{item.name}/")
        else:
            found.append((f"{prefix}{item.name}", item.peel(pygit2.Blob).data))
    return found
