"""The route table, which the daemon writes and the gateways read: where the traffic of components goes, and
the services that the platform itself provides. Its version increases with every change, so that a gateway
knows when to load it again, and the daemon knows which ones have.

Hashes of passwords and tokens are not in the rows but in a separate file, which operators cannot read
(keys.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route, Service
from controller.store.codec import decode, encode
from controller.store.facts import FactTable
from controller.store.keys import Credentials
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

VERSION = "routes_version"
UPSERT = "INSERT INTO routes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET route = excluded.route"
CURRENT = "SELECT * FROM routes WHERE app = ? AND component = ?"
DELETE = "DELETE FROM routes WHERE app = ? AND component = ?"


def _route(row: sqlite3.Row) -> Route:
    return decode(Route, row["route"])


def _service(row: sqlite3.Row) -> Service:
    return decode(Service, row["service"])


ROUTES = RowKind("the route of", "routes", ("app", "component"), _route)
SERVICES = RowKind("the service at", "services", ("app", "path"), _service)


class RouteStore:
    def __init__(
        self, database: Database, rows: RowReader, facts: FactTable, credentials: Credentials
    ) -> None:
        self._database = database
        self._rows = rows
        self._facts = facts
        self._credentials = credentials
        value = credentials.value
        self._routes = replace(ROUTES, read=lambda row: _route_with(_route(row), value))
        self._services = replace(SERVICES, read=lambda row: _service_with(_service(row), value))

    def all(self) -> tuple[Route, ...]:
        """Return all routes, sorted by app and component. Call `version()` first: what is loaded is then at
        least as new.
        """
        return self._rows.found(self._routes, "SELECT * FROM routes ORDER BY app, component")

    def of(self, app: AppName) -> tuple[Route, ...]:
        return self._rows.found(self._routes, "SELECT * FROM routes WHERE app = ? ORDER BY component", (app,))

    def switch(self, route: Route, keeps: frozenset[str] = frozenset()) -> int:
        """Put a route in force. One that is in force already changes nothing."""
        key = (route.app, route.component)
        with self._database.write() as db:
            current = db.execute(CURRENT, key).fetchone()
            if keeps:
                route = _without(route, keeps - _paths(self._rows.readable(self._routes, current)))
            text = self._route_text(route)
            if current and current["route"] == text:
                return self.version()
            db.execute(UPSERT, (*key, text))
            taken = _paths(route) - keeps
            self._take_from_routes(db, route.app, taken, but=route.component)
            db.executemany(
                "DELETE FROM services WHERE app = ? AND path = ?", [(route.app, path) for path in taken]
            )
            return self._facts.increase(VERSION)

    def _take_from_routes(
        self, db: sqlite3.Connection, app: AppName, paths: frozenset[str], but: ComponentName | None = None
    ) -> None:
        rows = db.execute("SELECT * FROM routes WHERE app = ? ORDER BY component", (app,)).fetchall()
        for other in self._rows.all(self._routes, rows):
            if other.component != but and _paths(other) & paths:
                db.execute(UPSERT, (app, other.component, self._route_text(_without(other, paths))))

    def withdraw(self, app: AppName, component: ComponentName) -> int:
        with self._database.write() as db:
            gone = db.execute(DELETE, (app, component)).rowcount
            return self._facts.increase(VERSION) if gone else self.version()

    def services(self, app: AppName | None = None) -> tuple[Service, ...]:
        query = "SELECT * FROM services WHERE :app IS NULL OR app = :app ORDER BY app, path"
        return self._rows.found(self._services, query, {"app": app})

    def publish(
        self, app: AppName, services: tuple[Service, ...], keeps: frozenset[str] = frozenset()
    ) -> int:
        """Put services in force. Unchanged ones take no write lock."""
        wanted = {service.api.path: self._service_text(service) for service in services}
        query = "SELECT path, service FROM services WHERE app = ?"
        with self._database.read() as db:
            stored = dict(db.execute(query, (app,)).fetchall())
        if wanted == stored:
            return self.version()
        with self._database.write() as db:
            stored = dict(db.execute(query, (app,)).fetchall())
            wanted = {service.api.path: self._service_text(service) for service in services}
            for path in keeps - stored.keys():
                wanted.pop(path, None)
            self._take_from_routes(db, app, frozenset(wanted.keys() - keeps))
            db.execute("DELETE FROM services WHERE app = ?", (app,))
            rows = [(app, path, text) for path, text in sorted(wanted.items())]
            db.executemany("INSERT INTO services VALUES (?, ?, ?)", rows)
            return self._facts.increase(VERSION)

    def version(self) -> int:
        return int(self._facts.get(VERSION) or 0)

    def handles(self) -> frozenset[str]:
        """Return the handles of credentials in all rows."""
        apis = [api for route in self._rows.found(ROUTES, "SELECT * FROM routes") for api in route.apis]
        apis += [service.api for service in self._rows.found(SERVICES, "SELECT * FROM services")]
        return frozenset(handle for api in apis for _, handle in (*api.users, *api.tokens))

    def _route_text(self, route: Route) -> str:
        return encode(_route_with(route, self._credentials.handle))

    def _service_text(self, service: Service) -> str:
        return encode(_service_with(service, self._credentials.handle))


def _route_with(route: Route, translate: Callable[[str], str]) -> Route:
    return replace(route, apis=tuple(_api_with(api, translate) for api in route.apis))


def _service_with(service: Service, translate: Callable[[str], str]) -> Service:
    return replace(service, api=_api_with(service.api, translate))


def _api_with(api: Api, translate: Callable[[str], str]) -> Api:
    """Return the API with its hashes replaced by handles, or the reverse."""
    if not api.users and not api.tokens:
        return api
    users = tuple((name, translate(text)) for name, text in api.users)
    return replace(api, users=users, tokens=tuple((name, translate(text)) for name, text in api.tokens))


def _paths(route: Route | None) -> frozenset[str]:
    return frozenset(api.path for api in route.apis) if route else frozenset()


def _without(route: Route, paths: frozenset[str]) -> Route:
    return replace(route, apis=tuple(api for api in route.apis if api.path not in paths))
