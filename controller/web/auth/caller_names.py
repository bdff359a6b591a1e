"""Checks that a caller's name belongs to their account: within an app it belongs to the account that used it
first, see domain/routing/caller_names.py. `authenticate` calls it once for each credential that it remembers from then
on, and nothing is remembered here: a name that is released is free as soon as the credential is forgotten, and callers
of one app cannot make those of another wait. The database query runs in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.routing.caller_names import PASSWORD, PERSON, TOKEN
from controller.web.gateway.router import PublishedApi
from controller.web.problems import HttpProblem, ProblemKind

log = logging.getLogger(__name__)


class NameClaims(Protocol):
    def claim(self, app: AppName, name: str, owner: str, now: float) -> str: ...


class CallerNames:
    """Checks names of callers; used only on one event loop."""

    def __init__(self, claims: NameClaims) -> None:
        self._claims = claims
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="names")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def admit(self, target: PublishedApi, name: str, owner: str) -> HttpProblem | None:
        """Return None if the account owns the name, or owns it from now on. Names in the app's Secrets never
        belong to an issuer's subject."""
        app = AppName(target.prefix.split(b"/")[1].decode())
        if name.startswith(PERSON):
            return _taken(app, name, Localizable("people with an account of the platform have such names"))
        is_declared = owner in (PASSWORD, TOKEN)
        if not is_declared and name in target.reserved:
            return _taken(app, name, Localizable("it is one of those in the app's credentials"))
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(
                self._thread, self._claims.claim, app, name, owner, time.time()
            )
        except ControllerError as error:
            log.error("whose a name is cannot be told: %s", error)
            if is_declared:
                return None  # nobody else has its password
            return HttpProblem(
                ProblemKind.STORE_BUSY, Localizable("Whose this name is cannot be told now."), retry_after=2
            )
        return None if found == owner else _taken(app, name, Localizable("the one that used it first"))


def _taken(app: str, name: str, whose: str) -> HttpProblem:
    detail = Localizable(
        "The name {name!r} belongs to another account in this app: {whose}. An administrator can release "
        "it: prichal name release {app} {name}",
        name=name,
        whose=whose,
        app=app,
    )
    return HttpProblem(ProblemKind.NAME_TAKEN, detail)
