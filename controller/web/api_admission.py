"""Admits callers to the APIs of apps: by the credentials that an API asks for, or by the call pass of a page."""

from __future__ import annotations

import asyncio
import time

from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore
from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.auth.call_passes import HEADER, CallPasses
from controller.web.auth.caller_names import CallerNames
from controller.web.gateway.cors import CorsRequest
from controller.web.gateway.router import PublishedApi
from controller.web.gateway.shares import WorkerShares
from controller.web.inbound_request import InboundRequest
from controller.web.problems import HttpProblem, RequestRefused
from controller.web.refusals import store_problem
from controller.web.worker_context import WorkerContext

PASSES, PASSES_EACH = 32, 8  # passes that are checked at once, and of them for one API


class ApiAdmission:
    def __init__(self, context: WorkerContext, people: PeopleStore) -> None:
        settings = context.settings
        self._context = context
        self._auth = Authenticator(time.monotonic, owners=CallerNames(CallerNameTable(settings.names)))
        self._passes = CallPasses(people, settings.web)
        self._pass_checks = WorkerShares("calls by pass", PASSES, PASSES_EACH)

    @property
    def password_checks(self) -> WorkerShares:
        return self._auth.checks

    def close(self) -> None:
        self._auth.close()

    async def admit(self, target: PublishedApi, request: InboundRequest) -> AuthenticatedCaller:
        """Return who calls, and note it on the request. Raises RequestRefused."""
        if HEADER in request.special:
            caller = await self._admit_pass(target, request.special[HEADER], request)
        else:
            authorization = request.special.get(b"authorization")
            found = self._auth.recall(target, authorization)
            caller = found or await self._identified(target, authorization, request)
        request.user = caller.user
        if request.trace is not None:
            request.trace.start(bool(caller.user), api=target.label)
        return caller

    async def _identified(
        self, target: PublishedApi, authorization: bytes | None, request: InboundRequest
    ) -> AuthenticatedCaller:
        found = await self._auth.identify(target, authorization, self._context.origin(request).caller)
        if isinstance(found, HttpProblem):
            raise RequestRefused(found)
        return found

    async def _admit_pass(
        self, target: PublishedApi, text: bytes, request: InboundRequest
    ) -> AuthenticatedCaller:
        origin = CorsRequest.by(request.scope["headers"]).origin
        with self._pass_checks.take(target.label, f"API {target.label}"), store_problem(request):
            found = await asyncio.to_thread(self._passes.admit, target, text, origin)
        if isinstance(found, HttpProblem):
            raise RequestRefused(found)
        return found
