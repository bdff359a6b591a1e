"""Answers that the gateway gives itself: refusals, as problem documents, pages or texts, and empty responses. The rest
of a refused body is read for a while, so that its sender sees the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from controller.domain.errors import ControllerError
from controller.logging_setup import SparseLog
from controller.web.api.platform.live import client_info_of
from controller.web.gateway.body import Message
from controller.web.gateway.headers import Header
from controller.web.gateway.router import dialect_of
from controller.web.gateway.shares import WorkerShares
from controller.web.git.endpoint import is_git
from controller.web.inbound_request import InboundRequest, gateway_headers
from controller.web.pages.problem_page import problem_page, wants_problem_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused, wants_messages

log = logging.getLogger(__name__)

LINGER = 5.0  # seconds for which the rest of a refused body is read and discarded
LINGER_BYTES = 32 * 2**20
LINGER_RATE = 8 * 2**20  # bytes a second of one of them: reading what nobody needs must not cost much
LINGERING = 1000  # requests of which that is done at once
PLAIN = "text/plain; charset=utf-8"  # which Git shows

_refusals = SparseLog(log)
_lingering = WorkerShares("refused bodies", LINGERING, LINGERING)


async def refuse(problem: HttpProblem, request: InboundRequest) -> None:
    if request.answered.status:
        return  # the response has begun; its end is missing, and the server closes the connection
    if problem.kind is ProblemKind.METHOD and request.scope["method"] == "OPTIONS":
        await answer_empty(request, 204, [(b"allow", problem.allow.encode())])
        return
    request.answered.status = problem.code
    identity = request.identity.decode()
    if problem.code >= 500:
        fields = {"request": identity, "path": request.scope["path"], "problem": problem.kind.slug}
        _refusals.warning(problem.kind.slug, "refused: %s", problem.detail, fields)
    told, document = _told(problem, request.scope, identity)
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in told]
    headers += [*gateway_headers(request), (b"content-length", b"%d" % len(document))]
    await request.send({"type": "http.response.start", "status": problem.code, "headers": headers})
    await request.send({"type": "http.response.body", "body": document, "more_body": False})
    await linger(request)


def _told(problem: HttpProblem, scope: Message, identity: str) -> tuple[list[tuple[str, str]], bytes]:
    """Return fields and body: a page for a person who has opened something of the platform, a text that Git shows, or
    a document."""
    if is_git(scope):
        return problem.headers(PLAIN), problem.text()
    client = client_info_of(scope)
    if wants_problem_page(client):
        return problem_page(problem, client, identity)
    return problem.headers(), problem.body(
        identity, dialect_of(scope["raw_path"]), messages=wants_messages(client.headers.get("accept", ""))
    )


async def answer_empty(request: InboundRequest, status: int, headers: list[Header]) -> None:
    request.answered.status = status
    await request.send(
        {"type": "http.response.start", "status": status, "headers": [*headers, *gateway_headers(request)]}
    )
    await request.send({"type": "http.response.body", "body": b"", "more_body": False})
    await linger(request)


async def linger(request: InboundRequest) -> None:
    """Read a refused request's body for a while and discard it: closing at once would reset the connection,
    and a caller who is still sending would not see the answer. A caller who waits for `100 Continue` sends
    nothing more."""
    incoming = request.incoming
    if b"expect" in request.special or not incoming.more():
        return
    left = LINGER_BYTES
    try:
        with _lingering.take("", "all"):
            async with asyncio.timeout(LINGER):
                while left > 0:
                    size = len((await incoming()).get("body", b""))
                    left -= size
                    if not incoming.more():
                        return
                    await asyncio.sleep(size / LINGER_RATE)
    except (TimeoutError, RequestRefused):
        return


@contextmanager
def store_problem(request: InboundRequest) -> Iterator[None]:
    """Return the problem for an error of the store on the event loop, where no error handler of Flask applies."""
    try:
        yield
    except ControllerError as error:
        log.warning("the store failed: %s", error, extra={"request": request.identity.decode()})
        raise RequestRefused(
            HttpProblem(ProblemKind.STORE_BUSY, "Try again in a moment.", retry_after=2)
        ) from error
