"""The route table: written by the daemon, read by the gateways: where the traffic of components goes, and the services
that the platform answers itself. Its version grows with every change, so that a gateway knows when to load it again
and the daemon knows who has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from controller.domain.names import AppName, ComponentName
from controller.domain.routes import Route, Service
from controller.store.codec import decode, encode
from controller.store.facts import Facts
from controller.store.sqlite import Database, damaged

VERSION = "routes_version"
UPSERT = "INSERT INTO routes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET route = excluded.route"
CURRENT = "SELECT route FROM routes WHERE app = ? AND component = ?"
DELETE = "DELETE FROM routes WHERE app = ? AND component = ?"


class RouteTable:
    def __init__(self, database: Database, facts: Facts) -> None:
        self._database = database
        self._facts = facts

    def all(self) -> tuple[Route, ...]:
        """Sorted by app and component. Ask for `version()` first: what is loaded is then at least as new as it."""
        with self._database.read() as db:
            return self._routes(db.execute("SELECT * FROM routes ORDER BY app, component").fetchall())

    def of(self, app: AppName) -> tuple[Route, ...]:
        with self._database.read() as db:
            return self._routes(
                db.execute("SELECT * FROM routes WHERE app = ? ORDER BY component", (app,)).fetchall()
            )

    def switch(self, route: Route) -> int:
        """A route that is in force already changes nothing."""
        key, text = (route.app, route.component), encode(route)
        with self._database.write() as db:
            current = db.execute(CURRENT, key).fetchone()
            if current and current["route"] == text:
                return self.version()
            db.execute(UPSERT, (*key, text))
            return self._facts.increase(VERSION)

    def withdraw(self, app: AppName, component: ComponentName) -> int:
        with self._database.write() as db:
            gone = db.execute(DELETE, (app, component)).rowcount
            return self._facts.increase(VERSION) if gone else self.version()

    def services(self, app: AppName | None = None) -> tuple[Service, ...]:
        query = "SELECT service FROM services WHERE :app IS NULL OR app = :app ORDER BY app, path"
        with self._database.read() as db:
            rows = db.execute(query, {"app": app}).fetchall()
        try:
            return tuple(decode(Service, row["service"]) for row in rows)
        except ValueError as error:
            raise damaged(self._database.path, "service", error) from error

    def publish(self, app: AppName, services: tuple[Service, ...]) -> int:
        """The same ones again change nothing and take no write lock."""
        wanted = {service.api.path: encode(service) for service in services}
        with self._database.read() as db:
            stored = dict(db.execute("SELECT path, service FROM services WHERE app = ?", (app,)).fetchall())
        if wanted == stored:
            return self.version()
        with self._database.write() as db:
            db.execute("DELETE FROM services WHERE app = ?", (app,))
            rows = [(app, path, text) for path, text in sorted(wanted.items())]
            db.executemany("INSERT INTO services VALUES (?, ?, ?)", rows)
            return self._facts.increase(VERSION)

    def version(self) -> int:
        return int(self._facts.get(VERSION) or 0)

    def _routes(self, rows: Iterable[sqlite3.Row]) -> tuple[Route, ...]:
        try:
            return tuple(decode(Route, row["route"]) for row in rows)
        except ValueError as error:
            raise damaged(self._database.path, "route", error) from error
