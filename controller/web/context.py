"""What the Flask application's views work with, and how they find it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

from flask import Flask, request

from controller.config import Settings
from controller.domain.routes import Service
from controller.ports import Store
from controller.web.access.admin import Visitor
from controller.web.storage import StorageClient

_KEY, _STORAGE = "prichal", "prichal.storage"
#: In the ASGI scope, where no caller can put anything: header fields come to views under other names.
CALL = "prichal.call"


class Context(NamedTuple):
    store: Store
    settings: Settings


@dataclass(frozen=True)
class ServiceCall:
    """A call of a service, admitted by the gateway. `user` is empty where nobody need say who he is."""

    service: Service
    user: str
    prefix: str  # "/<app>/<path>"


def bind(app: Flask, store: Store, settings: Settings, storage: StorageClient) -> None:
    app.extensions[_KEY] = Context(store, settings)
    app.extensions[_STORAGE] = storage


def context(app: Flask) -> Context:
    return cast(Context, app.extensions[_KEY])


def storage_client(app: Flask) -> StorageClient:
    return cast(StorageClient, app.extensions[_STORAGE])


def service_call() -> ServiceCall:
    """The present request, as the gateway handed it over."""
    return cast(ServiceCall, request.environ["asgi.scope"][CALL])


def visitor() -> Visitor:
    """The facts about the present request that the admin rule looks at."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Visitor(request.method, request.remote_addr or "", headers)
