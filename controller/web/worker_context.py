"""What the parts of a gateway worker share."""

from __future__ import annotations

from dataclasses import dataclass

from controller.config import Settings
from controller.domain.traces import TraceContext, context_of_headers
from controller.ports import Store
from controller.tracing import Tracer
from controller.web.gateway.proxies import RequestOrigin, TrustedProxies
from controller.web.gateway.watch import RouteWatch
from controller.web.inbound_request import InboundRequest


@dataclass(frozen=True, slots=True)
class WorkerContext:
    store: Store
    settings: Settings
    tracer: Tracer
    watch: RouteWatch
    proxies: TrustedProxies

    def origin(self, request: InboundRequest) -> RequestOrigin:
        """Return who has sent the request, as trusted proxies say."""
        peer = request.scope["client"]
        return self.proxies.origin(peer[0] if peer else "", request.scope["scheme"], request.special)


def trace_context(request: InboundRequest) -> TraceContext | None:
    """Return the trace context for the one who answers the request: that of its span, else the caller's own."""
    if request.trace is not None:
        return request.trace.context
    return context_of_headers(request.scope["headers"]) if b"traceparent" in request.special else None
