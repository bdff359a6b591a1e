"""Transfers files of calls: sends the FILE inputs of a call from the storage into the component, and the FILE
outputs of its reply from the component into the storage, over the connection that carries the call. Called by
the gateway for every call of a component that has boxes; the bytes stream through and are never kept.
Promises: a component gets no access to the storage; once bytes of a file were sent the call reaches no other
replica; space for outputs is reserved before they are stored, and freed if they are not; the caller gets the
reply once the outputs are stored; a problem names the side that was slow or failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable, sentences
from controller.domain.reasons import Reason
from controller.tracing import OFF, Tracer
from controller.web import isolated_json
from controller.web.call_files import variables
from controller.web.call_files.locations import FileCall, FileLocations, OutputSlot
from controller.web.call_files.presigned import PresignedClient, PresignedDownload, TransferFailed
from controller.web.call_files.variables import FileFault, FileInput, WantedOutputs
from controller.web.gateway import coding
from controller.web.gateway.body import HeldBodies, RequestBody, Send
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState, headers_for, respond
from controller.web.gateway.traces import storage_span
from controller.web.gateway.upstream import ProtocolError, UpstreamConnection
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import storage_problem

log = logging.getLogger(__name__)

THREADS = 4  # for what blocks
#: Bytes of requests that one worker buffers, since files are known only at the end of a request.
HELD = 256 * 2**20

T = TypeVar("T")


class CallFileStaging:
    """Staging in one gateway worker. `max_json`: bytes that the JSON of a reply with files may have."""

    def __init__(
        self,
        places: FileLocations,
        links: PresignedClient,
        forwarder: Forwarder,
        max_json: int,
        tracer: Tracer = OFF,
    ) -> None:
        self._places = places
        self._links = links
        self._forwarder = forwarder
        self._max_json = max_json
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-staging")
        self._held = HeldBodies(HELD, Localizable("requests to components with boxes"))

    def sweep(self) -> None:
        """Close unused connections. Called periodically."""
        self._links.sweep()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._links.close()

    async def forward(
        self, call: ForwardedCall, user: str, body: RequestBody, send: Send, answered: ResponseState
    ) -> None:
        """Forward a call like the forwarder, with the same exceptions. `user` is empty for a caller without a
        name."""
        pieces: list[bytes] = []
        try:
            coded = await self._held.whole(body, pieces)
            content, lines = await self._decoded(coded, call.lines, body.limit)
            if content is not coded:
                self._held.hold(content, pieces)
            wanted = await self._read(content, call)
            job = FileCall(call.target.route, user, call.request_id.decode(), wanted)
            if wanted:
                await self._forwarder.awake(call.target)  # before the storage begins to send
            with ExitStack() as stack:
                staged = StagedBody(content, job, await self._open(job, stack) if wanted else [])
                lines += variables.write_header(len(content), staged.files())
                reply = replace(call, lines=lines, respond=_Reply(self, job).respond)
                await self._forwarder.forward(reply, staged, send, answered)
        finally:
            self._held.release(pieces)

    async def _decoded(self, coded: bytes, lines: bytes, limit: int) -> tuple[bytes, bytes]:
        """Decode a body; the result is limited like a body, since some kilobytes may expand."""
        if not coding.is_coded(lines):
            return coded, lines
        return await asyncio.to_thread(coding.decoded, coded, lines, limit)

    async def _read(self, content: bytes, call: ForwardedCall) -> WantedOutputs:
        """Parse a large request in another process, since the event loop serves other callers. Raises
        RequestRefused."""
        content = variables.json_part(content, call.lines)
        if not variables.may_name_files(content):
            return WantedOutputs()
        return await isolated_json.read(
            len(content), variables.read_request, content, call.target.route.boxes
        )

    # --- inputs ------------------------------------------------------------------------------------------------

    async def _open(self, job: FileCall, stack: ExitStack) -> list[PresignedDownload]:
        """Return the opened inputs, in their order. Raises RequestRefused that names all missing ones."""
        urls = await self._in_thread(
            Localizable("The call's files cannot be looked up"), self._places.find, job
        )
        wishes = zip(job.wanted.inputs, urls, strict=True)
        # Wait for all, so that none is left open when another one fails.
        opened = await asyncio.gather(
            *(self._download(wish, url, stack) for wish, url in wishes), return_exceptions=True
        )
        failed = next((result for result in opened if isinstance(result, BaseException)), None)
        if failed is not None:
            raise failed
        faults = [result for result in opened if isinstance(result, FileFault)]
        if faults:
            raise variables.refused(faults)
        return [result for result in opened if isinstance(result, PresignedDownload)]

    async def _download(self, wish: FileInput, url: str, stack: ExitStack) -> PresignedDownload | FileFault:
        with _told(_unread(wish)):
            try:
                with storage_span(self._tracer, "GET", url):
                    return stack.enter_context(await self._links.download(url))
            except TransferFailed as answer:
                error = self._places.explain(answer.status, answer.body, _unread(wish))
                if error.reason == Reason.OBJECT_MISSING:
                    return FileFault(
                        wish.pointer,
                        Localizable(
                            "there is no file {wish_path!r} in box {box}",
                            wish_path=wish.path.text,
                            box=wish.box,
                        ),
                    )
                raise error from answer

    # --- outputs -----------------------------------------------------------------------------------------------

    async def take(self, job: FileCall, connection: UpstreamConnection, ends: bytes) -> bytes:
        """Return the reply's JSON for the caller, once its files are stored. `ends` are their ends according
        to the header. Raises RequestRefused, UpstreamError."""
        try:
            length, files = variables.read_header(ends)
            if length > self._max_json:
                raise ValueError(
                    Localizable(
                        "its JSON has {length} bytes; beside files it may have {max_json}",
                        length=length,
                        max_json=self._max_json,
                    )
                )
            content = await _exactly(connection, length)
            outputs = await isolated_json.read(length, variables.read_reply, content, files)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(str(error)) from error
        connection.pause_timeout(True)
        doing = Localizable("The call's outputs cannot be stored")
        places = await self._in_thread(doing, self._places.reserve, job, outputs)
        stored = 0
        try:
            for place in places:
                await self._store(job, place, connection)
                stored += 1
        finally:
            if stored < len(places):  # not waited for: the call may have been cancelled
                self._threads.submit(self._places.release, places[stored:])
        paths = [place.path for place in places]
        return await isolated_json.read(length, variables.with_paths, content, outputs, paths)

    async def _store(self, job: FileCall, place: OutputSlot, connection: UpstreamConnection) -> None:
        output = place.output
        doing = Localizable("Output {variable!r} cannot be stored", variable=output.variable)

        async def allowed() -> None:
            await self._in_thread(doing, self._places.require_settled, job, place.path)

        with _told(doing):
            try:
                with storage_span(self._tracer, "PUT", place.url):
                    await self._upload(place, connection, allowed)
            except TransferFailed as answer:
                raise self._places.explain(answer.status, answer.body, doing) from answer

    async def _upload(
        self, place: OutputSlot, connection: UpstreamConnection, allowed: Callable[[], Awaitable[None]]
    ) -> None:
        output = place.output
        with await self._links.upload(place.url, output.size, output.content_type) as upload:
            await upload.take(connection, output.size, allowed)
            await upload.finish()

    async def _in_thread(self, doing: str, work: Callable[..., T], *args: object) -> T:
        with _told(doing):
            return await self._loop.run_in_executor(self._threads, work, *args)


class StagedBody:
    """A request's JSON followed by its files, as they arrive from the storage. Implements `OutgoingBody`."""

    def __init__(self, content: bytes, job: FileCall, downloads: list[PresignedDownload]) -> None:
        self.head = content
        self._inputs = tuple(zip(job.wanted.inputs, downloads, strict=True))
        self._length = len(content) + sum(download.size for download in downloads)
        self._begun = False

    def files(self) -> list[tuple[int, int]]:
        """Return index and size of each file."""
        return [(wish.index, download.size) for wish, download in self._inputs]

    def more(self) -> bool:
        return self._length > len(self.head)

    def is_buffered(self) -> bool:
        return not self._begun

    def framing(self) -> bytes:
        return b"content-length: %d\r\n" % self._length

    def frame(self, data: bytes) -> bytes:
        return data

    async def send(self, connection: UpstreamConnection) -> None:
        self._begun = True
        for wish, download in self._inputs:
            with _told(Localizable("{wish} to its end", wish=_unread(wish))):
                await download.send_to(connection)


async def _exactly(connection: UpstreamConnection, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        piece = await connection.read(size)
        if not piece:
            raise ProtocolError(Localizable("it is shorter than its X-Prichal-Files says"))
        size -= len(piece)
        pieces.append(piece)
    return b"".join(pieces)


class _Reply:
    """The state of one call's response."""

    def __init__(self, staging: CallFileStaging, job: FileCall) -> None:
        self._staging = staging
        self._job = job

    async def respond(
        self, connection: UpstreamConnection, call: ForwardedCall, send: Send, answered: ResponseState
    ) -> bytes:
        """Respond to the caller; a response without files is passed on unchanged."""
        ends = _field(connection.headers, variables.FIELD)
        if ends is None:
            return await respond(connection, call, send, answered)
        content = await self._staging.take(self._job, connection, ends)
        headers: Any = [
            header for header in headers_for(connection, call) if header[0].lower() != b"content-length"
        ]
        headers.append((b"content-length", b"%d" % len(content)))
        answered.status = connection.status
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        return content


def _field(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for field, value in headers if field.lower() == name), None)


def _unread(wish: FileInput) -> str:
    return Localizable(
        "File {wish_path!r} of box {box} cannot be read", wish_path=wish.path.text, box=wish.box
    )


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Translate errors of the storage and the database into problems."""
    try:
        yield
    except ControllerError as error:
        log.warning("a call's files: %s", error, extra={"reason": error.reason})
        problem = storage_problem(error)
        if problem is None:
            raise RequestRefused(
                HttpProblem(ProblemKind.STORE_BUSY, Localizable("Try again in a moment."), retry_after=2)
            ) from error
        raise RequestRefused(replace(problem, detail=sentences(doing, problem.detail))) from error
