"""The pages that change while they are open, by their routes in Flask's notation (live.py). Given to the event loop by
the ASGI application, so that no page's module is known there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.web.pages.app import AppLive
from controller.web.pages.apps import AppsLive
from controller.web.pages.component import ComponentLive
from controller.web.pages.live import MakeLivePage
from controller.web.pages.new_app import OrderLive
from controller.web.pages.notifications import NotificationsLive
from controller.web.pages.runs import PipelineLive, RunLive
from controller.web.pages.secrets import SecretsLive

LIVE: Final[Mapping[str, MakeLivePage]] = {
    "/-/": AppsLive.of,
    "/-/apps/<name>": AppLive.of,
    "/-/apps/<name>/secrets": SecretsLive.of,
    "/-/apps/<name>/notifications": NotificationsLive.of,
    "/-/apps/<name>/pipelines/<pipeline>": PipelineLive.of,
    "/-/apps/<name>/pipelines/<pipeline>/runs/<id>": RunLive.of,
    "/-/apps/<name>/components/<component>": ComponentLive.of,
    "/-/orders/<id>": OrderLive.of,
}
