"""What the Flask application's views work with, and how they find it."""

from __future__ import annotations

from typing import NamedTuple, cast

from flask import Flask, request

from controller.config import Settings
from controller.ports import Store
from controller.web.admin import Visitor

_KEY = "prichal"


class Context(NamedTuple):
    store: Store
    settings: Settings


def bind(app: Flask, store: Store, settings: Settings) -> None:
    app.extensions[_KEY] = Context(store, settings)


def context(app: Flask) -> Context:
    return cast(Context, app.extensions[_KEY])


def visitor() -> Visitor:
    """The facts about the present request that the admin rule looks at."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Visitor(request.method, request.remote_addr or "", headers)
