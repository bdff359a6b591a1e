"""Reads bodies of requests to the platform itself on the event loop, before Flask gets them: within limits by what the
request is, and only those that will be used.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from controller.ports import Store
from controller.web.api.platform.admission import FILE_FORM, FORM
from controller.web.api.platform.live import client_info_of
from controller.web.auth import page_tokens
from controller.web.auth.admin import SAFE, ClientInfo
from controller.web.auth.people import Callers
from controller.web.gateway.body import Message, RequestBody
from controller.web.gateway.proxies import RequestOrigin
from controller.web.gateway.shares import WorkerShares
from controller.web.inbound_request import InboundRequest

SMALL_BODY = 2**20  # bytes of a request to the platform itself; webhooks have a limit of their own
HOOKS, HOOKS_EACH = 64, 4  # webhooks that are read at once, and of them for one repository
SMALL_FORM = 2**14  # bytes of a form, which is read before its sender is known
LARGE_FORM = (
    2**18
)  # of one with a file or many names; Flask keeps so few in memory: no Secret gets onto a disk
TAKES_FILE = re.compile(r"/-/apps/[^/]+/secrets")  # paths of forms with a file
TAKES_NAMES = re.compile(r"/-/apps/[^/]+/files/.+")  # and of those with the names of all files on a page
FORMS, FORMS_EACH = 64, 8  # forms that are read at once, and of them from one address
HOOK = re.compile(r"/-/hooks/([^/]+)")


class PlatformBodies:
    """`origin` tells who has sent a request."""

    def __init__(
        self,
        store: Store,
        callers: Callers,
        hook_max_body: int,
        origin: Callable[[InboundRequest], RequestOrigin],
    ) -> None:
        self._store = store
        self._callers = callers
        self._hook_max_body = hook_max_body
        self._origin = origin
        self._hooks = WorkerShares("webhooks", HOOKS, HOOKS_EACH)
        self._forms = WorkerShares("forms", FORMS, FORMS_EACH)

    async def read(self, scope: Message, request: InboundRequest) -> bytes:
        """Read the body for the Flask application here, because a slow caller would hold one of its threads. A
        body that will not be used, because the caller may not do this or the hook does not exist, is not read.
        Raises RequestRefused."""
        if not request.incoming.more():
            return b""
        if found := HOOK.fullmatch(scope["path"]):
            repository = self._store.repositories.get(found[1])
            if scope["method"] != "POST" or repository is None or not repository.hook_secret:
                return b""
            with self._hooks.take(repository.name, f"repository {repository.name}"):
                return await self._whole(request, self._hook_max_body)
        if scope["method"] in SAFE:
            return b""
        caller = client_info_of(scope)
        if most := _form_limit(caller):  # it says itself whose it is
            whose = self._origin(request).caller
            with self._forms.take(whose, whose.decode("latin-1")):
                return await self._whole(request, most)
        if await asyncio.to_thread(self._callers.identify, caller) is None:
            return b""
        return await self._whole(request, SMALL_BODY)

    @staticmethod
    async def _whole(request: InboundRequest, limit: int) -> bytes:
        return await RequestBody(request.incoming, request.special, limit).whole()


def _form_limit(caller: ClientInfo) -> int:
    """Return how many bytes a form may have; 0 for what is none."""
    if caller.headers.keys() & {"authorization", page_tokens.HEADER}:
        return 0
    media_type = caller.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == FILE_FORM:
        return LARGE_FORM if TAKES_FILE.fullmatch(caller.path) else 0
    if media_type == FORM:
        return LARGE_FORM if TAKES_NAMES.fullmatch(caller.path) else SMALL_FORM
    return 0
