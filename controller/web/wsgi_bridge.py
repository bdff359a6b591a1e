"""Runs the Flask application for the gateway, in threads of its own. Each app, and each kind of page of the platform,
has a share of the requests that may wait for them.
"""

from __future__ import annotations

from typing import Any

from a2wsgi import WSGIMiddleware

from controller.domain.routing.shares import API_REQUESTS
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.body import Message, Receive, Send, once
from controller.web.gateway.shares import WorkerShares
from controller.web.inbound_request import InboundRequest, track_status
from controller.web.refusals import linger

THREADS = 8  # that run Flask in one worker, behind each bridge
WAITING = 64  # requests that may wait for a bridge's threads
WAITING_EACH = API_REQUESTS  # of them for one app, or for one kind of the platform's own
PAGES = frozenset(
    ("hooks", "healthz", "readyz", "metrics", "apps", "login", "static")
)  # that have a share of their own


class WsgiBridge:
    """Runs the Flask application in separate threads."""

    def __init__(self, application: Any) -> None:  # its types for WSGI differ from those of the bridge
        self._wsgi: Any = WSGIMiddleware(application, workers=THREADS)
        self.waiting = WorkerShares("requests to the platform itself", WAITING, WAITING_EACH)

    async def answer(self, scope: Message, request: InboundRequest, content: bytes, whose: str) -> None:
        """Answer a request. `content` is the body, `whose` the name of an app or a page. Raises
        RequestRefused if too many wait already."""
        await self._ask(whose, scope, once(content), track_status(request))
        if request.answered.status >= 400:
            await linger(request)

    async def ask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request for a service that has read the body itself. Raises RequestRefused."""
        call: ServiceCall = scope[CALL]
        await self._ask(call.service.app, scope, receive, send)

    async def _ask(self, whose: str, scope: Message, receive: Receive, send: Send) -> None:
        with self.waiting.take(whose, whose):
            await self._wsgi(scope, receive, send)


def page_of(path: str) -> str:
    """Return the page of the platform that a path names; no app has such a name."""
    page = path.split("/", 3)[2] if path.startswith("/-/") else ""
    return f"/-/{page}" if page in PAGES else "/-/"
