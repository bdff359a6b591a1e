"""The context of the Flask application's views, and how they find it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from flask import Flask, g, request

from controller.config import Settings
from controller.domain.people.roles import Principal
from controller.domain.routing.routes import Service
from controller.ports import Store
from controller.store.people import PeopleStore
from controller.web.auth.admin import ClientInfo
from controller.web.auth.call_passes import CallPasses
from controller.web.auth.openid_sign_in import ALL_SLOTS, OpenIdSignIn, back_from
from controller.web.auth.people import Callers
from controller.web.auth.sign_in import SignIn
from controller.web.query import QueryParameters
from controller.web.storage import StorageClient

_KEY, _STORAGE, _PEOPLE = "prichal", "prichal.storage", "prichal.people"
_PASSES = "prichal.passes"
#: A key of the ASGI scope, which callers cannot set: views see header fields under other names.
CALL = "prichal.call"


class WebContext(NamedTuple):
    store: Store
    settings: Settings


class PeopleContext(NamedTuple):
    """`issuers` of OpenID Connect by their names in the configuration."""

    store: PeopleStore
    callers: Callers
    sign_in: SignIn
    issuers: Mapping[str, OpenIdSignIn]


@dataclass(frozen=True)
class ServiceCall:
    """An admitted call of a service. `user` is empty if no authentication is required; `trace` is what spans of the
    call are below, "" for none."""

    service: Service
    user: str
    prefix: str  # "/<app>/<path>"
    trace: str = ""


def bind(app: Flask, store: Store, settings: Settings, storage: StorageClient) -> None:
    app.extensions[_KEY] = WebContext(store, settings)
    app.extensions[_STORAGE] = storage
    people = PeopleStore(settings.people)
    callers = Callers(people, settings.web, previews=store.branches.previews)
    app.extensions[_PASSES] = CallPasses(people, settings.web)
    allowed, slots = settings.sign_in, threading.BoundedSemaphore(ALL_SLOTS)
    issuers = {
        each.name: OpenIdSignIn(
            each, back_from(settings.web, each.name), people, allowed.group_lifetime, slots
        )
        for each in allowed.oidc
    }
    app.extensions[_PEOPLE] = PeopleContext(
        people, callers, SignIn(people, callers.limits, passwords=allowed.passwords), issuers
    )


def passes(app: Flask) -> CallPasses:
    return cast(CallPasses, app.extensions[_PASSES])


def context(app: Flask) -> WebContext:
    return cast(WebContext, app.extensions[_KEY])


def storage_client(app: Flask) -> StorageClient:
    return cast(StorageClient, app.extensions[_STORAGE])


def people_context(app: Flask) -> PeopleContext:
    return cast(PeopleContext, app.extensions[_PEOPLE])


def principal() -> Principal:
    """Return the principal of the present request; open routes have none."""
    return cast(Principal, g.principal)


def service_call() -> ServiceCall:
    """Return the current call, as the gateway passed it on."""
    return cast(ServiceCall, request.environ["asgi.scope"][CALL])


def query() -> QueryParameters:
    """Return the query of the current request. Raises RequestRefused."""
    return QueryParameters.of(request.query_string)


def client_info() -> ClientInfo:
    """Return the facts about the current request for the admin rule."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return ClientInfo(request.method, request.remote_addr or "", headers, request.scheme, request.path)
