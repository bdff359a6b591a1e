"""Answers Git's requests: authenticates the caller, judges by the apps that follow the repository, and passes bytes on
between the caller and the Git service, which runs Git. Called by the ASGI application for all below `/-/git/`.

Promises: no more than a piece of a body or an answer is in memory; a caller who sends or reads too slowly is dropped,
and Git with them; a person and a repository have a share of what one worker does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from controller.config import Settings
from controller.domain.git_http import TOKEN_HOLDER, GitExchange, known_protocol, write_exchange
from controller.domain.people.pushes import PushUnderWay, digest_of_push, new_push
from controller.domain.people.roles import Act, Principal, Verdict, decide
from controller.ports import Store
from controller.store.people import PeopleStore
from controller.unix_socket import connected
from controller.web.auth.admin import ClientInfo
from controller.web.auth.audit import pushed, write_down
from controller.web.auth.rules import rule_of
from controller.web.gateway.body import CallerGone, IncomingBody, Message, RequestBody, Send, too_large
from controller.web.gateway.shares import WorkerShares
from controller.web.git.callers import GitCallers
from controller.web.git.cgi import CgiHeader, CgiInvalid, split_header
from controller.web.git.requests import BELOW, ROUTES, GitTarget, GunzippedBody, PushCommands, read_git_target
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

PIECE: Final = 256 * 2**10  # bytes that are read at once
HELD: Final = 64 * 2**10  # bytes of an answer that wait until the body has been sent
UNWANTED: Final = 2  # times the limit of a body that are read at most
SMALL: Final = 2**20  # bytes of a push whose objects become files of their own
NEGOTIATION: Final = 32 * 2**20  # bytes of a fetch's request: its commits, not their content
ABOVE: Final = 2**20  # bytes of a push beside its objects
SILENT: Final = 720.0  # seconds without a byte from Git; the hook shows the progress for ten minutes
# Git writes its header before it reads. systemd takes connections, too, while it cannot start the service.
BEGINNING: Final = 60.0  # seconds for that header
UNREAD: Final = 120.0  # seconds for the caller to take a piece of the answer
MOST, EACH_PERSON, EACH_REPOSITORY = 32, 12, 12  # exchanges in one worker
RETRY: Final = 5  # seconds
STARTING: Final = 10.0  # seconds that an exchange waits for a service that does not take connections yet
LOOK: Final = 0.1  # seconds between two tries
NOT_YET: Final = (FileNotFoundError, ConnectionRefusedError, BlockingIOError)
_ROUTES: Final = {"git-receive-pack": ROUTES[2], "git-upload-pack": ROUTES[1]}


class GitBody:
    """The body of a request as it arrived with its header: how long it says it is, and a way to read it."""

    def __init__(self, incoming: IncomingBody, special: dict[bytes, bytes]) -> None:
        self._incoming = incoming
        self._special = special
        self.length = int(special.get(b"content-length", b"0"))  # gunicorn has checked the digits
        # Git announces the length of what it has in memory, http.postBuffer, and sends more in chunks.
        self.is_large = b"transfer-encoding" in special or self.length > SMALL

    def read(self, limit: int) -> RequestBody:
        return RequestBody(self._incoming, self._special, limit)


class GitEndpoint:
    """Used only on the event loop of one worker."""

    def __init__(self, store: Store, settings: Settings, callers: GitCallers, people: PeopleStore) -> None:
        self._store = store
        self._settings = settings
        self._callers = callers
        self._people = people
        self._persons = WorkerShares("Git exchanges", MOST, EACH_PERSON)
        self._repositories = WorkerShares("Git exchanges", MOST, EACH_REPOSITORY)

    async def answer(
        self, method: str, path: bytes, query: bytes, client: ClientInfo, body: GitBody, send: Send
    ) -> None:
        """Answer a request below `/-/git/`. Raises RequestRefused."""
        if not self._settings.git.http:
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "Git over HTTP is turned off here."))
        target = read_git_target(method, path, query)
        who = await self._callers.identify(client, target.repository)
        await asyncio.to_thread(self._judge, who, target)
        limit = self._limit(target)
        coded = _is_gzip(client, target)
        if body.length > limit:
            raise too_large(limit)
        with (
            self._persons.take(who.name or who.via, who.name or who.via),
            self._repositories.take(target.repository, f"repository {target.repository}"),
        ):
            push = new_push() if target.service.writes and not target.advertises else ""
            exchange = _CarriedExchange(
                target, await self._connect(), limit, GunzippedBody(limit) if coded else None
            )
            try:
                await self._begin(push, who, target, client)
                await exchange.begin(self._request(who, target, client, push, body))
                ended = partial(self._end, push, exchange.commands)
                await exchange.carry(body.read(UNWANTED * limit), send, ended)
            finally:
                exchange.close()
                await asyncio.shield(self._leave(push))

    def _limit(self, target: GitTarget) -> int:
        return self._settings.git.max_repository + ABOVE if target.service.writes else NEGOTIATION

    def _judge(self, who: Principal, target: GitTarget) -> None:
        """A repository belongs to the apps that follow it; without one, it is for administrators. Raises
        RequestRefused."""
        apps = {
            app
            for record in self._store.repositories.all()
            if record.hosted == target.repository
            for app in record.apps
        }
        rule = rule_of(*_ROUTES[target.service])
        assert rule is not None
        verdicts = {decide(who, rule.act, app) for app in apps}
        if not apps:
            verdicts = {decide(who, Act.ADMINISTER)}
            if not who.is_admin:
                verdicts = {Verdict.UNKNOWN}
        if Verdict.UNKNOWN in verdicts:
            detail = f"No repository is called {target.repository}."
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
        if Verdict.FORBIDDEN in verdicts:
            raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, _forbidden(who, target, rule.act)))

    def _request(
        self, who: Principal, target: GitTarget, client: ClientInfo, push: str, body: GitBody
    ) -> bytes:
        protocol = known_protocol(client.headers.get("git-protocol", ""))
        user = who.name or TOKEN_HOLDER
        return write_exchange(
            GitExchange(
                target.repository, target.service, target.advertises, user, protocol, push, body.is_large
            )
        )

    async def _connect(self) -> socket.socket:
        """Return a connection to the service. One that is starting gets a moment. Raises RequestRefused."""
        deadline = time.monotonic() + STARTING
        while True:
            try:
                return connected(self._settings.git_socket)
            except OSError as error:
                if not isinstance(error, NOT_YET) or time.monotonic() > deadline:
                    log.warning(
                        "the Git service cannot be reached at %s: %s", self._settings.git_socket, error
                    )
                    raise _unavailable() from error
            await asyncio.sleep(LOOK)

    # --- pushes: who it is, this process knows; what Git accepts, its hook tells (api/platform/pushes) ---

    async def _begin(self, push: str, who: Principal, target: GitTarget, client: ClientInfo) -> None:
        if not push:
            return
        address = self._callers.address(client)
        by, via = who.name or TOKEN_HOLDER, who.via
        begun = PushUnderWay(digest_of_push(push), target.repository, by, via, address, time.time())
        await asyncio.to_thread(self._store.repositories.save_push, begun)

    async def _end(self, push: str, commands: PushCommands) -> None:
        """Write down what Git has accepted. It has ended, and so has its hook."""
        if push and commands.number:
            await asyncio.to_thread(self._write_down, digest_of_push(push), commands.number)

    def _write_down(self, digest: str, sent: int) -> None:
        found = self._store.repositories.push(digest)
        if found is None:
            return
        self._store.repositories.forget_push(digest)
        write_down(self._people, pushed(found, found.detail(sent), time.time()))

    async def _leave(self, push: str) -> None:
        """The connection has ended before Git has, maybe: what it accepts from now on, the hook's report writes down.
        What it has accepted so far is written down here."""
        if push:
            await asyncio.to_thread(self._left, digest_of_push(push))

    def _left(self, digest: str) -> None:
        with self._store.transaction():
            found = self._store.repositories.push(digest)
            if found is None:
                return
            self._store.repositories.save_push(replace(found, left=True))
        if found.accepted:
            write_down(self._people, pushed(found, found.detail(found.accepted), time.time()))


class _CarriedExchange:
    """One exchange with the service, over a connection that Git itself reads and writes."""

    def __init__(
        self, target: GitTarget, connection: socket.socket, limit: int, decoder: GunzippedBody | None
    ) -> None:
        self.commands = PushCommands()
        self._target = target
        self._connection = connection
        self._limit = limit
        self._decoder = decoder
        self._sent = 0
        self._loop = asyncio.get_running_loop()
        self._is_read = True  # Git may end before it has read all

    def close(self) -> None:
        self._connection.close()

    async def begin(self, request: bytes) -> None:
        with suppress(OSError):  # a service that is busy answers without reading
            await self._loop.sock_sendall(self._connection, request)

    async def carry(
        self,
        body: RequestBody,
        send: Send,
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        """Pass the body on, and the answer back. `ended` is called once Git has ended, before the caller sees the end.
        Raises RequestRefused before the answer has begun."""
        feeding = asyncio.ensure_future(self._feed(body))
        try:
            header, held = await self._header()
            if header.status != 200:
                raise _refusal(header.status, self._target)
            held = await self._hold(held, feeding)
            await self._answer(held, send, feeding, ended)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, body: RequestBody) -> None:
        """A body that Git does not want any more, because it is too large, say, is read to its end: a caller who is
        still sending would not see the answer."""
        while body.more():
            data = await body.next()
            for piece in self._decoder.pieces(data) if self._decoder else (data,):
                if self._target.service.writes:
                    self.commands.feed(piece)
                await self._write(piece)
        if self._decoder is not None:
            self._decoder.finish()
        if self._is_read:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)

    async def _write(self, piece: bytes) -> None:
        if self._is_read and piece:
            self._sent += len(piece)
            if self._sent > self._limit:
                raise too_large(self._limit)
            try:
                await self._loop.sock_sendall(self._connection, piece)
            except OSError:
                self._is_read = False

    async def _read(self, seconds: float = SILENT) -> bytes:
        """Return what comes next; empty at the end. Git that ended before it has read all resets the connection."""
        try:
            async with asyncio.timeout(seconds):
                return await self._loop.sock_recv(self._connection, PIECE)
        except TimeoutError:
            raise _unavailable() from None
        except OSError:
            return b""

    async def _header(self) -> tuple[CgiHeader, bytes]:
        data = b""
        try:
            while (found := split_header(data)) is None:
                piece = await self._read(BEGINNING)
                if not piece:
                    raise _unavailable()
                data += piece
        except CgiInvalid as error:
            log.error("the answer of the Git service is not understood: %s", error)
            raise _unavailable() from error
        return found

    async def _hold(self, held: bytes, feeding: asyncio.Future[None]) -> bytes:
        """Return the beginning of the answer once the body has been sent, so that a refusal of the body can still be
        told, or once it has become long."""
        while not feeding.done() and len(held) < HELD:
            piece = await self._read_unless(feeding)
            if piece == b"":
                break
            held += piece or b""
        if len(held) < HELD or feeding.done():
            await feeding
        return held

    async def _read_unless(self, feeding: asyncio.Future[None]) -> bytes | None:
        """Return what comes next, or None if the body has been sent before."""
        reading = asyncio.ensure_future(self._read())
        both: set[asyncio.Future[Any]] = {reading, feeding}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():  # it would keep the connection open
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        return None if reading.cancelled() else reading.result()

    async def _answer(
        self, held: bytes, send: Send, feeding: asyncio.Future[None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        headers = [(b"content-type", self._target.content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = held or await self._read()
        while piece:
            try:
                async with asyncio.timeout(UNREAD):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                raise CallerGone from None
            piece = await self._read()
        await feeding
        await asyncio.shield(asyncio.ensure_future(ended()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def is_git(scope: Message) -> bool:
    path: bytes = scope["raw_path"]
    return path.startswith(BELOW)


def _is_gzip(client: ClientInfo, target: GitTarget) -> bool:
    """Return True if the body is coded. Raises RequestRefused for other types and codings than Git's."""
    if target.advertises:
        return False
    if client.headers.get("content-type", "") != target.request_type:
        detail = f"The content type must be {target.request_type}."
        raise RequestRefused(HttpProblem(ProblemKind.MEDIA_TYPE, detail, title="The body must be Git's"))
    coding = client.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        detail = f"Content-Encoding must be gzip or left out, not {coding[:100]!r}."
        raise RequestRefused(HttpProblem(ProblemKind.CONTENT_CODING, detail, accept_encoding="gzip"))
    return coding != "identity"


def _forbidden(who: Principal, target: GitTarget, act: Act) -> str:
    if act.scope is not None and not who.scope.covers(act.scope):
        return f"This token may not push to {target.repository}: it needs the scope {act.scope}."
    return (
        f"You ({who.name}) may fetch {target.repository}, but not push to it: that needs the role developer."
    )


def _refusal(status: int, target: GitTarget) -> RequestRefused:
    """Return the problem for an answer of the service or of Git that is not 200."""
    if status == 404:
        detail = f"The repository {target.repository} is not there."
        return RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
    if status == 503:
        return RequestRefused(
            HttpProblem(ProblemKind.OVERLOADED, "Too many clones and pushes at once.", retry_after=RETRY)
        )
    log.error("Git answered %s", status, extra={"repository": target.repository})
    return _unavailable()


def _unavailable() -> RequestRefused:
    detail = "The Git service does not answer; it may be restarting. Try again in a moment."
    return RequestRefused(HttpProblem(ProblemKind.GIT_SERVICE, detail, retry_after=RETRY))
