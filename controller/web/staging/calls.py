"""Calls with files: brings the FILE inputs of a call from the storage into the component, and the FILE outputs of its
reply from the component into the storage, over the connection that carries the call. Called by the gateway for every
call of a component that has boxes; the bytes stream through and are never held.

Promises: a component gets no way to the storage; once a file's bytes flow the call reaches no other replica; room for
outputs is reserved before they are stored, and given back if they are not; the caller hears of outputs once they are
stored; whoever was slow or failed is named in the problem.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from controller.domain.errors import ControllerError
from controller.web.gateway.body import RequestBody, Send
from controller.web.gateway.forward import Answered, Call, Forwarder, respond
from controller.web.gateway.headers import response_headers
from controller.web.gateway.upstream import Garbage, UpstreamConnection
from controller.web.problems import Kind, Problem, Refused
from controller.web.staging import variables
from controller.web.staging.links import Download, Links, NotDone
from controller.web.staging.places import Job, Place, Places
from controller.web.staging.variables import Fault, FileInput
from controller.web.storage import storage_problem

log = logging.getLogger(__name__)

THREADS = 4  # for what blocks
HELD = (
    256 * 2**20
)  # bytes of requests that one worker keeps: what a request says of files is known at its end

T = TypeVar("T")


class Staging:
    """One per gateway worker. `max_json`: bytes that the JSON of a reply with files may have."""

    def __init__(self, places: Places, links: Links, forwarder: Forwarder, max_json: int) -> None:
        self._places = places
        self._links = links
        self._forwarder = forwarder
        self._max_json = max_json
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-staging")
        self._held = 0

    def sweep(self) -> None:
        """Now and then: let go of connections that nobody uses."""
        self._links.sweep()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._links.close()

    async def forward(self, call: Call, user: str, body: RequestBody, send: Send, answered: Answered) -> None:
        """As the forwarder does, and raising what it raises. `user` is empty for a caller without a name."""
        pieces: list[bytes] = []
        try:
            content = await self._whole(body, pieces)
            wanted = variables.read_request(content, call.target.route.boxes)
            job = Job(call.target.route, user, call.request_id.decode(), wanted)
            if wanted:
                await self._forwarder.awake(call.target)  # before the storage begins to send
            with ExitStack() as stack:
                staged = StagedBody(content, job, await self._open(job, stack) if wanted else [])
                lines = call.lines + variables.write_header(len(content), staged.files())
                reply = replace(call, lines=lines, respond=_Reply(self, job).respond)
                await self._forwarder.forward(reply, staged, send, answered)
        finally:
            self._held -= sum(map(len, pieces))

    async def _whole(self, body: RequestBody, pieces: list[bytes]) -> bytes:
        pieces.append(body.head)
        self._held += len(body.head)
        while body.more():
            pieces.append(await body.next())
            self._held += len(pieces[-1])
            if self._held > HELD:
                detail = f"This gateway worker holds {HELD} bytes of requests to components with boxes."
                raise Refused(Problem(Kind.OVERLOADED, detail, retry_after=1))
        return b"".join(pieces)

    # --- inputs ------------------------------------------------------------------------------------------------

    async def _open(self, job: Job, stack: ExitStack) -> list[Download]:
        """The inputs, ready to be read, in their order. Raises Refused that names all that are not there."""
        urls = await self._in_thread("The call's files cannot be looked up", self._places.find, job)
        wishes = zip(job.wanted.inputs, urls, strict=True)
        # All are waited for, so that none is left open when another one fails.
        opened = await asyncio.gather(
            *(self._download(wish, url, stack) for wish, url in wishes), return_exceptions=True
        )
        failed = next((result for result in opened if isinstance(result, BaseException)), None)
        if failed is not None:
            raise failed
        faults = [result for result in opened if isinstance(result, Fault)]
        if faults:
            raise variables.refused(faults)
        return [result for result in opened if isinstance(result, Download)]

    async def _download(self, wish: FileInput, url: str, stack: ExitStack) -> Download | Fault:
        with _told(_unread(wish)):
            try:
                return stack.enter_context(await self._links.download(url))
            except NotDone as answer:
                error = self._places.explain(answer.status, answer.body, _unread(wish))
                if error.reason == "ObjectMissing":
                    return Fault(wish.pointer, f"there is no file {wish.path.text!r} in box {wish.box}")
                raise error from answer

    # --- outputs -----------------------------------------------------------------------------------------------

    async def take(self, job: Job, connection: UpstreamConnection, ends: bytes) -> bytes:
        """The reply's JSON for the caller, once its files are stored. `ends` is what its header says of them. Raises
        Refused, UpstreamError."""
        try:
            length, files = variables.read_header(ends)
            if length > self._max_json:
                raise ValueError(f"its JSON has {length} bytes; beside files it may have {self._max_json}")
            document = json.loads(await _exactly(connection, length))
            outputs = variables.read_outputs(document, files)
        except ValueError as error:
            raise Garbage(str(error)) from error
        connection.hold_clock(True)
        doing = "The call's outputs cannot be stored"
        places = await self._in_thread(doing, self._places.reserve, job, outputs)
        stored = 0
        try:
            for place in places:
                await self._store(place, connection)
                stored += 1
        finally:
            if stored < len(places):  # not waited for: the call may have been cancelled
                self._threads.submit(self._places.release, places[stored:])
        return variables.tell_places(document, outputs, [place.path for place in places])

    async def _store(self, place: Place, connection: UpstreamConnection) -> None:
        output = place.output
        doing = f"Output {output.variable!r} cannot be stored"
        with _told(doing):
            try:
                with await self._links.upload(place.url, output.size, output.content_type) as upload:
                    await upload.take(connection, output.size)
                    await upload.finish()
            except NotDone as answer:
                raise self._places.explain(answer.status, answer.body, doing) from answer

    async def _in_thread(self, doing: str, work: Callable[..., T], *args: object) -> T:
        with _told(doing):
            return await self._loop.run_in_executor(self._threads, work, *args)


class StagedBody:
    """A request's JSON with its files behind it, as they come from the storage. Implements `Body`."""

    def __init__(self, content: bytes, job: Job, downloads: list[Download]) -> None:
        self.head = content
        self._inputs = tuple(zip(job.wanted.inputs, downloads, strict=True))
        self._length = len(content) + sum(download.size for download in downloads)
        self._begun = False

    def files(self) -> list[tuple[int, int]]:
        """Place and size of each."""
        return [(wish.index, download.size) for wish, download in self._inputs]

    def more(self) -> bool:
        return self._length > len(self.head)

    def at_hand(self) -> bool:
        return not self._begun

    def framing(self) -> bytes:
        return b"content-length: %d\r\n" % self._length

    def frame(self, data: bytes) -> bytes:
        return data

    async def send(self, connection: UpstreamConnection) -> None:
        self._begun = True
        for wish, download in self._inputs:
            with _told(f"{_unread(wish)} to its end"):
                await download.send_to(connection)


async def _exactly(connection: UpstreamConnection, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        piece = await connection.read(size)
        if not piece:
            raise Garbage("it is shorter than its X-Prichal-Files says")
        size -= len(piece)
        pieces.append(piece)
    return b"".join(pieces)


class _Reply:
    """What becomes of one call's response."""

    def __init__(self, staging: Staging, job: Job) -> None:
        self._staging = staging
        self._job = job

    async def respond(
        self, connection: UpstreamConnection, call: Call, send: Send, answered: Answered
    ) -> bytes:
        """A response without files passes as it comes."""
        ends = _field(connection.headers, variables.FIELD)
        if ends is None:
            return await respond(connection, call, send, answered)
        content = await self._staging.take(self._job, connection, ends)
        headers: Any = [
            header
            for header in response_headers(connection.headers, call.request_id)
            if header[0].lower() != b"content-length"
        ]
        headers.append((b"content-length", b"%d" % len(content)))
        answered.status = connection.status
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        return content


def _field(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for field, value in headers if field.lower() == name), None)


def _unread(wish: FileInput) -> str:
    return f"File {wish.path.text!r} of box {wish.box} cannot be read"


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Errors of the storage and the database as problems that say what could not be done."""
    try:
        yield
    except ControllerError as error:
        log.warning("a call's files: %s", error, extra={"reason": error.reason})
        problem = storage_problem(error)
        if problem is None:
            raise Refused(Problem(Kind.STORE_BUSY, "Try again in a moment.", retry_after=2)) from error
        raise Refused(replace(problem, detail=f"{doing}. {problem.detail}")) from error
