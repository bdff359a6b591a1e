"""Routes, the APIs of the platform itself, and what each gateway worker has loaded of them."""

from __future__ import annotations

from typing import Protocol

from controller.domain.apps.usage import TakenShare
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Route, Service


class Routes(Protocol):
    def all(self) -> tuple[Route, ...]: ...

    def of(self, app: AppName) -> tuple[Route, ...]: ...

    def switch(self, route: Route, keeps: frozenset[str] = frozenset()) -> int:
        """Put the route in force in one transaction, which takes its paths from the other routes and services
        of the app, and return the version of the table. Paths in `keeps` are not taken from others; the route
        keeps them until something else takes them."""

    def withdraw(self, app: AppName, component: ComponentName) -> int: ...

    def services(self, app: AppName | None = None) -> tuple[Service, ...]:
        """Return the APIs of the platform itself, of one app or of all, sorted by app and path."""

    def publish(
        self, app: AppName, services: tuple[Service, ...], keeps: frozenset[str] = frozenset()
    ) -> int:
        """Put exactly these in force for the app, as `switch` does, and return the version of the table."""

    def version(self) -> int: ...


class Gateways(Protocol):
    """The table version that each gateway worker has loaded; it lets the daemon drain without guessing."""

    def report(
        self,
        worker: str,
        version: int,
        busy: frozenset[str],
        now: float,
        taken: tuple[TakenShare, ...] = (),
    ) -> None:
        """Store a worker's report. `busy`: retired endpoints (`IP:PORT`) that still have requests of this
        worker in progress; `taken`: what apps take of its shares."""

    def taken(self, now: float) -> tuple[TakenShare, ...]:
        """Return what apps take of the shares of each live worker."""

    def leave(self, worker: str) -> None: ...

    def drained(self, endpoint: str, version: int, now: float) -> bool:
        """Return True if every live worker (with a report within 3 s) has loaded `version` and is not busy
        with `endpoint`."""
