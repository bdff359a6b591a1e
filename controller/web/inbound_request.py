"""A request in progress in the gateway, and what is noted of its response: its status and its size."""

from __future__ import annotations

from dataclasses import dataclass

from controller.web.gateway.body import IncomingBody, Message, Send
from controller.web.gateway.forward import ResponseState
from controller.web.gateway.headers import Header
from controller.web.gateway.traces import RequestTrace


@dataclass(slots=True)
class InboundRequest:
    """A request in progress: the ASGI scope, and its parsed header."""

    scope: Message
    special: dict[bytes, bytes]  # fields that the gateway acts on
    lines: list[bytes]  # header lines for the component
    identity: bytes  # the request id
    incoming: IncomingBody
    send: Send
    answered: ResponseState
    label: str = "-"  # for the counts
    began: float = 0.0
    counted: bool = False  # the counts have its end
    trace: RequestTrace | None = None  # while tracing is on
    user: str = ""  # as an API has authenticated them
    size: int = 0  # bytes of the response's body, while there is an access log


def measure_size(send: Send, request: InboundRequest) -> Send:
    """Return `send` so that it counts the bytes of the response's body."""

    async def measured(message: Message) -> None:
        request.size += len(message.get("body", b""))
        await send(message)

    return measured


def gateway_headers(request: InboundRequest) -> list[Header]:
    """Return the fields that the gateway adds to each response."""
    return [(b"x-request-id", request.identity), (b"server", b"prichal")]


def scope_of(request: InboundRequest) -> Message:
    """Return the ASGI scope for an application of our own, with the chosen request id."""
    others = [header for header in request.scope["headers"] if header[0] != b"x-request-id"]
    return {**request.scope, "headers": [*others, (b"x-request-id", request.identity)]}


def track_status(request: InboundRequest) -> Send:
    """Return the request's `send` for an application of our own: it notes the status and adds the gateway's fields."""

    async def tracked(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.answered.status = message["status"]
            message = {**message, "headers": [*message["headers"], *gateway_headers(request)]}
        await request.send(message)

    return tracked
