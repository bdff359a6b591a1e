"""What the platform answers itself: services of apps, the live endpoints, Git over HTTP and the Flask application,
behind WSGI bridges in threads: one for the files API, one for all else, so that a slow storage delays only files.
"""

from __future__ import annotations

from functools import partial

from controller.domain.routing.routes import ServiceKind
from controller.domain.traces import text_of
from controller.store.people import PeopleStore
from controller.web.api.platform.live import LiveEndpoints, client_info_of
from controller.web.api.runs.live import MAX_BODY, LiveRunApi
from controller.web.api_admission import ApiAdmission
from controller.web.app import create_app
from controller.web.auth import browsers
from controller.web.auth.authenticate import AuthenticatedCaller
from controller.web.auth.people import Callers
from controller.web.context import CALL, ServiceCall, people_context
from controller.web.gateway.body import RequestBody
from controller.web.gateway.coding import refuse_coded
from controller.web.gateway.router import ServeService
from controller.web.gateway.shares import WorkerShares
from controller.web.git.callers import GitCallers
from controller.web.git.endpoint import GitBody, GitEndpoint, is_git
from controller.web.inbound_request import InboundRequest, scope_of, track_status
from controller.web.methods import answer_for
from controller.web.pages.live import LivePages
from controller.web.pages.table import LIVE
from controller.web.platform_bodies import PlatformBodies
from controller.web.refusals import answer_empty, store_problem
from controller.web.storage import StorageClient
from controller.web.worker_context import WorkerContext, trace_context
from controller.web.wsgi_bridge import WsgiBridge, page_of


class PlatformEndpoints:
    """`calls` bounds how many calls of services are in progress, together with those of components."""

    def __init__(
        self,
        context: WorkerContext,
        admission: ApiAdmission,
        calls: WorkerShares,
        people: PeopleStore,
        callers: Callers,
        storage: StorageClient,
    ) -> None:
        store, settings, watch = context.store, context.settings, context.watch
        self._context = context
        self._admission = admission
        self._calls = calls
        self.live = LiveEndpoints(store, settings, watch, callers)
        self._live_pages = LivePages(store, watch, callers, LIVE)
        application = create_app(store, settings, storage)
        sign_in = people_context(application).sign_in
        self._git = GitEndpoint(store, settings, GitCallers(people, callers, sign_in, settings), people)
        self.flask = WsgiBridge(application)
        self.files = WsgiBridge(application)
        self.runs = LiveRunApi(store, settings.run_files, watch, self.flask.ask)
        self._bodies = PlatformBodies(store, callers, settings.web.hook_max_body, context.origin)
        self._max_body = settings.web.max_body

    def close(self) -> None:
        self.runs.close()

    async def serve(self, decision: ServeService, request: InboundRequest) -> None:
        """Pass the call of a service to the Flask application, which has it below its kind, not below its
        published path."""
        target = decision.target
        with self._calls.take(target.service.app, f"app {target.service.app}"):
            await self._answer_service(decision, await self._admission.admit(target, request), request)

    async def _answer_service(
        self, decision: ServeService, caller: AuthenticatedCaller, request: InboundRequest
    ) -> None:
        target = decision.target
        trace = text_of(trace_context(request))
        call = ServiceCall(target.service, caller.user, target.prefix.decode(), trace)
        scope = {**scope_of(request), "path": f"/{target.service.kind}/{decision.path}", CALL: call}
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        if target.service.kind is ServiceKind.FILES:
            await self.files.answer(scope, request, b"", call.service.app)  # none of them has a body
            return
        body = RequestBody(request.incoming, request.special, min(MAX_BODY, self._max_body))
        with store_problem(request):
            answered = await self.runs.answer(decision.path, scope, body, track_status(request))
        if not answered:
            await self.flask.answer(scope, request, b"", call.service.app)

    async def answer(self, request: InboundRequest) -> None:
        if (fields := browsers.preflight(request.scope)) is not None:
            await answer_empty(request, 204, list(fields))
            return
        if is_git(request.scope):
            await self._answer_git(request)
            return
        if request.incoming.more():
            refuse_coded(request.scope["headers"])
        scope = scope_of(request)
        with store_problem(request):
            for live in (self._live_pages, self.live):
                if live.takes(scope):
                    await answer_for(scope["method"], track_status(request), partial(live.answer, scope))
                    return
            content = await self._bodies.read(scope, request)
        await self.flask.answer(scope, request, content, page_of(scope["path"]))

    async def _answer_git(self, request: InboundRequest) -> None:
        scope, body = request.scope, GitBody(request.incoming, request.special)
        method, path, query, client = (
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            client_info_of(scope),
        )
        with store_problem(request):
            await answer_for(
                method,
                track_status(request),
                lambda send: self._git.answer(method, path, query, client, body, send),
            )
