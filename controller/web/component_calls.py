"""Calls of components that the gateway has routed: forwarded with their files, kept as async calls, or taken over as
WebSockets.
"""

from __future__ import annotations

from dataclasses import replace

from controller.tracing import span
from controller.web.api.platform.live import client_info_of
from controller.web.api_admission import ApiAdmission
from controller.web.async_calls.api import CallCaller
from controller.web.async_calls.calls import AsyncCalls
from controller.web.auth.authenticate import AuthenticatedCaller
from controller.web.auth.call_passes import HEADER, is_by_pass
from controller.web.auth.schemes import header_value
from controller.web.call_files.calls import CallFileStaging
from controller.web.gateway.activator import Activator
from controller.web.gateway.body import RequestBody, Send
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.headers import host_for, lines_for
from controller.web.gateway.router import CallLookup, Decision, ForwardCall, UpstreamTarget, may_be_async
from controller.web.gateway.shares import WorkerShares
from controller.web.gateway.sockets import TAKE_OVER, OpenSockets, SocketCall
from controller.web.gateway.traces import context_of_lines
from controller.web.gateway.upgrade import (
    LINES,
    SocketRequest,
    judge_handshake,
    judge_origin,
    without_credentials,
)
from controller.web.inbound_request import InboundRequest, track_status
from controller.web.preferences import Preferences
from controller.web.problems import HttpProblem, RequestRefused
from controller.web.refusals import store_problem
from controller.web.worker_context import WorkerContext, trace_context
from controller.web.worker_counts import WorkerCounts

DESCRIBED = (b"/openapi.json", b"/docs")  # paths for which a platform server gets the security schemes


class CallForwarding:
    """Forwards calls to components, those that name files together with these."""

    def __init__(self, context: WorkerContext, forwarder: Forwarder, staging: CallFileStaging) -> None:
        self._context = context
        self._forwarder = forwarder
        self._staging = staging

    async def forward(
        self, call: ForwardedCall, user: str, body: RequestBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward a call to the component, with the files that it names."""
        if call.method == "POST" and call.target.route.boxes and not call.target.route.any_path:
            await self._staging.forward(call, user, body, send, answered)
        else:
            await self._forwarder.forward(call, body, send, answered)

    async def forward_later(
        self, call: ForwardedCall, user: str, body: RequestBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward an async call, below the request that has brought it."""
        parent = context_of_lines(call.lines) if self._context.tracer.is_on else None
        with span(self._context.tracer, "async call", {"prichal.app": call.target.route.app}, parent=parent):
            await self.forward(call, user, body, send, answered)


class ComponentCalls:
    """`calls` bounds how many calls are in progress, together with those of services."""

    def __init__(
        self,
        context: WorkerContext,
        admission: ApiAdmission,
        counts: WorkerCounts,
        calls: WorkerShares,
        activator: Activator,
        forwarder: Forwarder,
        forwarding: CallForwarding,
        async_calls: AsyncCalls,
        sockets: OpenSockets,
    ) -> None:
        web = context.settings.web
        self._context = context
        self._admission = admission
        self._counts = counts
        self._calls = calls
        self._activator = activator
        self._forwarder = forwarder
        self._forwarding = forwarding
        self._async = async_calls
        self._sockets = sockets
        self.open_sockets = WorkerShares("WebSockets", web.sockets, web.sockets_per_app)
        self._max_body = web.max_body

    async def forward(self, decision: ForwardCall, request: InboundRequest) -> None:
        app = decision.target.route.app
        with self._calls.take(app, f"app {app}"):
            caller = await self._admission.admit(decision.target, request)
            self._activator.called(decision.target)
            headers = request.scope["headers"]
            is_async = self._async.wants(headers) and may_be_async(decision, request.scope["method"])
            if request.incoming.more() and not is_async:
                await self._forwarder.ready(decision.target)
            body = RequestBody(request.incoming, request.special, self._max_body)
            await body.begin()
            call = self._call(decision, request, caller)
            if is_async:
                with store_problem(request):
                    await self._async.accept(call, caller.user, body, headers, track_status(request))
            else:
                await self._forwarding.forward(call, caller.user, body, request.send, request.answered)

    async def open_socket(self, decision: Decision, request: InboundRequest) -> None:
        """Open a WebSocket to a component with a server of its own, and return when it has ended. Raises
        RequestRefused."""
        wanted = judge_handshake(request.scope["method"], request.scope["headers"], decision)
        if isinstance(wanted, HttpProblem):
            raise RequestRefused(wanted)
        assert isinstance(decision, ForwardCall)
        self._judge_page(request)
        app = decision.target.route.app
        with self.open_sockets.take(app, f"app {app}"):
            caller = await self._admission.admit(decision.target, request)
            self._activator.called(decision.target)
            call = self._call(decision, request, caller)
            opening = self._opening(wanted, request, caller.user, expires=bool(call.target.api.oidc_issuer))
            call = replace(call, lines=call.lines + LINES, respond=opening.respond, upgrade=True)
            body = RequestBody(request.incoming, request.special, self._max_body)
            await self._forwarder.forward(call, body, opening.sending(request.send), request.answered)

    def _judge_page(self, request: InboundRequest) -> None:
        """Refuse pages of other origins, or take what a browser sends along by itself for them. A sandboxed page of the
        platform's own shows its pass. Raises RequestRefused."""
        headers = request.scope["headers"]
        if is_by_pass(headers):
            return
        cors = self._context.watch.table.cors_of(request.scope["raw_path"])
        page = judge_origin(headers, self._context.origin(request).host, cors)
        if isinstance(page, HttpProblem):
            raise RequestRefused(page)
        if not page.credentials:
            request.lines = without_credentials(request.lines)
            if request.special.get(b"authorization", b"")[:6].lower() == b"basic ":
                request.special = {
                    name: value for name, value in request.special.items() if name != b"authorization"
                }

    def _opening(
        self, wanted: SocketRequest, request: InboundRequest, user: str, expires: bool
    ) -> SocketCall:
        async def admit(target: UpstreamTarget) -> str:
            return (await self._admission.admit(target, request)).user

        return SocketCall(
            wanted,
            self._sockets,
            lambda: self._context.watch.table,
            request.scope[TAKE_OVER],
            admit,
            user,
            expires=expires or HEADER in request.special,
            opened=lambda: self._counts.end(request),
        )

    async def look_up(self, decision: CallLookup, request: InboundRequest) -> None:
        app, scope = decision.target.route.app, request.scope
        with self._calls.take(app, f"app {app}"), store_problem(request):
            caller = await self._admission.admit(decision.target, request)
            asked = CallCaller(
                decision,
                caller.user,
                scope["method"],
                scope["query_string"],
                Preferences.of(scope["headers"]),
                client_info_of(scope).headers.get("last-event-id"),
            )
            await self._async.answer(asked, track_status(request))

    def _call(
        self, decision: ForwardCall, request: InboundRequest, caller: AuthenticatedCaller
    ) -> ForwardedCall:
        """Return the caller's header lines, with the gateway's identity headers in place of the caller's."""
        scope, target = request.scope, decision.target
        origin = self._context.origin(request)
        ours = (
            b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n"
            b"x-forwarded-prefix: %b\r\n"
            % (request.identity, origin.address, origin.scheme, origin.host, target.prefix)
        )
        if target.api.pass_identity and caller.user:
            ours += b"x-forwarded-user: %b\r\n" % header_text(caller.user)
        if decision.path in DESCRIBED and not target.route.any_path:
            ours += b"x-prichal-security: %b\r\n" % header_value(target.api)
        if (context := trace_context(request)) is not None:
            ours += context.lines
        query = scope["query_string"]
        path = b"%b?%b" % (decision.path, query) if query else decision.path
        lines = lines_for(target.prefix, request.lines) + ours
        return ForwardedCall(target, scope["method"], path, lines, request.identity, host_for(origin.host))


def header_text(user: str) -> bytes:
    """Return a user's name as a header value: UTF-8, with unsafe characters percent-encoded."""
    if user.isascii() and user.isalnum():
        return user.encode()
    return b"".join(
        b"%c" % byte if 0x21 <= byte not in (0x7F, 0x25) else b"%%%02X" % byte for byte in user.encode()
    )
