"""Answers to `HEAD` on the event loop: what answers `GET` there is asked, and ends with the header of its answer.
Used by the ASGI application; Flask does the same for its own routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controller.web.gateway.body import Message, Send


class _HeadSent(Exception):
    """The header is all that a `HEAD` gets, so whatever makes the body stops."""


async def answer_for(method: str, send: Send, answer: Callable[[Send], Awaitable[None]]) -> None:
    """Have `answer` send its response to a request of this method."""
    if method != "HEAD":
        await answer(send)
        return
    try:
        await answer(_head_of(send))
    except _HeadSent:
        return


def _head_of(send: Send) -> Send:
    async def head(message: Message) -> None:
        if message["type"] != "http.response.start":
            raise _HeadSent
        await send(message)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return head
