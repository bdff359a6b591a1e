"""One inference call: decode, check, wait for a slot, call the developer's function, encode. Runs on the
connection's thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional, Union

from . import http1, log, number_lists, problems, processes, streams
from .batch_calls import BatchedFunction, CallFailed
from .batches import BatchLimiter
from .call_context import CallContext
from .call_files import CallFiles
from .call_states import CallStates, PredictCaller
from .config import ServingSettings
from .connection import CallerLeft
from .datatypes import Datatype
from .files import Files
from .forms import Form
from .http1 import ClientDisconnected, HttpRequest, HttpResponse, problem_response
from .json_body import decode
from .json_pieces import NumberSink
from .json_tensors import TAKEN, TensorSink
from .limiter import CallExpired, ClientGone, ConcurrencyLimiter, LimitedCall, LimiterClosed, QueueFull
from .loading import InferenceFunction
from .metrics import ProcessMetrics
from .outputs import BadOutput, CollectedOutputs, OutputEncoder, encode, respond
from .problems import RequestFault, ServingProblem
from .refusals import refusal_of
from .scratch import CallFolder, ScratchSpace
from .streams import Begin, EventWriter, NoFilesInStreams, PlainItems, ResultItems, items_of
from .tensors import NUMERIC, BinaryTensor, as_array
from .texts import Text
from .time_limit import time_limit
from .validate import compile_check
from .values import ClassFailed

Write = Callable[[dict[str, Any]], HttpResponse]


def _reply(body: dict[str, Any], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    call_id = body.get("id")
    return {"outputs": outputs} if call_id is None else {"id": call_id, "outputs": outputs}


class ReplyEvents:
    """Events that are replies of /predict."""

    takes_results = False

    def item(self, reply: dict[str, Any]) -> bytes:
        return streams.event(encode(reply))

    def end(self) -> bytes:
        return b""


_REPLIES = ReplyEvents()


def _no_events() -> None:
    pass


class InferringCall(NamedTuple):
    """One call in progress. ``body`` is None until ``read`` has read and checked it; ``started``: time.monotonic()
    at which its files were there; ``seconds``: how long it may take; ``events``, once it is read: how the caller takes
    results as events, if so."""

    request: HttpRequest
    body: Optional[dict[str, Any]]
    read: Callable[[], dict[str, Any]]
    files: Files
    folder: CallFolder
    started: float
    seconds: float
    caller: PredictCaller
    events: Callable[[], Optional[EventWriter]]


class Predictor:
    """Answers inference requests with one loaded function."""

    def __init__(
        self,
        settings: ServingSettings,
        inference: InferenceFunction,
        gate: ConcurrencyLimiter,
        row: ProcessMetrics,
        files: Files,
        scratch: ScratchSpace,
        begin: Begin,
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._gate = gate
        self._row = row
        self._files = files
        self._begin = begin
        self._batched = (
            BatchedFunction(inference, gate, row, begin) if isinstance(gate, BatchLimiter) else None
        )
        self._scratch = scratch
        self._outputs = OutputEncoder(inference.signature)
        self.check = compile_check(inference.signature)
        self._inputs = {variable.name: variable for variable in inference.signature.inputs}
        self._datatypes = {variable.name: variable.datatypes for variable in inference.signature.inputs}
        self._has_files = any(Datatype.FILE in variable.datatypes for variable in inference.signature.inputs)

    def predict(self, request: HttpRequest, caller: PredictCaller) -> HttpResponse:
        """POST /predict. Raises ServingProblem, Abandoned."""
        events = b"accept" in request.headers and streams.wants_events(request)
        writer = (lambda: _REPLIES) if events else _no_events
        return self.answer(request, decode, self.check, respond, caller, writer)

    def answer(
        self,
        request: HttpRequest,
        read: Callable[[HttpRequest], Any],
        check: Callable[[Any], list[RequestFault]],
        write: Write,
        caller: PredictCaller,
        events: Callable[[], Optional[EventWriter]] = _no_events,
    ) -> HttpResponse:
        """The whole of a call, whichever protocol ``read`` and ``write`` speak. The request is read and
        checked within the slot, too, unless it has files, which come before; within the timeout in any case.
        """
        started = time.monotonic() - request.waited
        seconds = time_limit(request, self._settings.timeout)
        folder = CallFolder(self._scratch)
        staged = None if request.files is None else CallFiles(request, folder)
        files = staged or self._files
        checked = functools.partial(self._checked, request, read, check)
        try:
            body = None
            if self._has_files:
                try:
                    body = checked()
                except ClassFailed as error:
                    raise self._failed(error, request.id) from error
                read_at = time.monotonic()
                if read_at - started > seconds:
                    raise self._timed_out(Text("was still waiting for the request to be read"), seconds)
                self._fetch_files(request, body, files)
                started += (
                    time.monotonic() - read_at
                )  # the time for files does not count against the function
            request.arrived()
            call = InferringCall(request, body, checked, files, folder, started, seconds, caller, events)
            response = self._call(call, write)
        except BaseException as error:
            if isinstance(error, ClientDisconnected):
                self._row.inferred(problems.CLIENT_GONE.status, time.monotonic() - started)
            if isinstance(error, ServingProblem):
                self._row.inferred(error.kind.status, time.monotonic() - started)
            folder.remove()
            raise
        self._row.inferred(response.status, time.monotonic() - started)
        response.sent = folder.remove
        if staged is not None and not response.streamed:
            response.headers = [*response.headers, *staged.headers(response.size)]
            response.files = staged.outgoing
        return response

    def _checked(
        self,
        request: HttpRequest,
        read: Callable[[HttpRequest], Any],
        check: Callable[[Any], list[RequestFault]],
    ) -> dict[str, Any]:
        """The body of a request that may be called with. Raises ServingProblem."""
        coding = request.headers.get(b"content-encoding")
        if coding is not None:
            request.body = http1.decoded(request.body, coding, self._settings.max_body)
        request.sinks = self._sinks if self._inference.numpy is not None else None
        with number_lists.remembering:
            body: dict[str, Any] = read(request)
            self._raise_if(check(body))
        self._deliver(body)
        return body

    def _deliver(self, body: dict[str, Any]) -> None:
        """Make what the function takes of numbers: lists, or arrays in their shape. Raises ServingProblem 422."""
        numpy = self._inference.numpy
        for index, item in enumerate(body.get("inputs", ())):
            data = item["data"]
            if numpy is not None and item["datatype"] in NUMERIC and self._as_array(item):
                try:
                    item["data"] = as_array(numpy, Datatype(item["datatype"]), data, item.get("shape"))
                except ValueError:  # an empty one: of others the shape is that of the data
                    fault = Text(
                        "{item} has dimensions beside 0 that no array of numpy can have", item=item["shape"]
                    )
                    raise problems.invalid([RequestFault(f"/inputs/{index}/shape", fault)]) from None
            elif type(data) is BinaryTensor:
                item["data"] = data.elements()

    def _sinks(self, body: Any) -> dict[int, NumberSink]:
        """Arrays of numbers that the function takes as such, and which need no list for it: by the lists that stand in
        their places in a request that has not been checked."""
        items = body.get("inputs") if type(body) is dict else None
        return {
            id(item["data"]): TensorSink(self._inference.numpy, item, datatype)
            for item in (items if type(items) is list else ())
            if type(item) is dict and type(item.get("data")) is list
            for datatype in self._datatypes.get(item["name"] if type(item.get("name")) is str else "", ())
            if datatype.value == item.get("datatype") and datatype in TAKEN and self._as_array(item)
        }

    def _as_array(self, item: dict[str, Any]) -> bool:
        """Does the function take these numbers as an array?"""
        form = self._form(item)
        return self._inference.signature.arrays if form is None else form.array

    def _form(self, item: dict[str, Any]) -> Optional[Form]:
        return self._inputs[item["name"]].form(Datatype(item["datatype"]))

    def _by_name(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The inputs as arguments."""
        found: dict[str, Any] = dict.fromkeys(self._inference.absent)
        for item in items:
            form = self._form(item)
            found[item["name"]] = item["data"] if form is None else form.python(item)
        return found

    def _call(self, inferring: InferringCall, write: Write) -> HttpResponse:
        """Wait for a slot, then read the request, call the function and encode its result within the slot: all of it
        counts against the timeout.
        """
        request_id, started, caller = inferring.request.id, inferring.started, inferring.caller
        seconds = inferring.seconds

        def overdue() -> None:
            problem = self._timed_out(problems.STILL_BUSY if call.queued else Text("did not return"), seconds)
            response = problem_response(
                problem, request_id, inferring.request.path, inferring.request.headers
            )
            caller.answer_overdue(response, request_id)
            self._row.inferred(504, time.monotonic() - started)
            if call.queued:
                self._log_waited(request_id, seconds)
                return
            log.write_line(f"{self._name} did not return within {seconds:g} s", request=request_id)

        call = LimitedCall(request_id, started + seconds, overdue, caller.gone)
        states = CallStates(caller, inferring.request)
        states.follow(call, self._batched is not None)
        self._enter(call, seconds)
        response, failure = HttpResponse(200, b""), None
        try:
            states.has_slot()
            self._row.load(*self._gate.counts())
            response = self._run(inferring, call, write)
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: their code must not end our thread
            failure = error
        processes.end_if_forked(self._name)
        processes.mend_standard()
        owned = self._gate.release(call)
        self._row.load(*self._gate.counts())
        if not owned:
            self._ended_late(call)
            raise CallerLeft
        if isinstance(failure, ClientDisconnected):
            raise failure  # in the middle of a stream, behind which nothing can be said
        if call.left:
            raise _gone()
        if isinstance(failure, ServingProblem):
            raise failure  # of the request, which was read within the slot
        if failure is not None:
            raise self._failed(failure, request_id) from failure
        return response

    def _ended_late(self, call: LimitedCall) -> None:
        """Say how long a function went on after its timeout. Returns when the caller has been answered."""
        if not call.queued:
            late = time.monotonic() - call.deadline
            log.write_line(f"{self._name} ended {late:.1f} s after its timeout", request=call.id)
        if call.answered is not None:
            call.answered.wait()

    def _run(self, inferring: InferringCall, call: LimitedCall, write: Write) -> HttpResponse:
        body = inferring.read() if inferring.body is None else inferring.body
        wanted = body.get("output_fields") or []
        arguments = self._arguments(inferring, body, wanted, call)
        result = self._result(arguments, call)
        events = inferring.events()
        is_stream = type(result) is not dict and streams.is_stream(result)
        if not is_stream and (events is None or not events.takes_results):
            outputs = self._outputs.collect(result, wanted, inferring.files, call.id)
            return write(_reply(body, outputs))
        items = items_of(result, self._begin, call) if is_stream else PlainItems(iter((result,)))
        try:
            if events is not None:
                return self._send_events(self._pieces(items, events, body, call), inferring, call)
            result = self._collected(items, call)
        finally:
            self._end(items, call)
        outputs = self._outputs.collect(result, wanted, NoFilesInStreams(), call.id)
        return write(_reply(body, outputs))

    def _result(self, arguments: dict[str, Any], call: LimitedCall) -> Any:
        """Return what the function gives for this call, alone or in a batch. Raises what it raises, ServingProblem."""
        if self._batched is not None:
            try:
                return self._batched.result(arguments, call)
            except (QueueFull, LimiterClosed) as refusal:
                raise self._refused(refusal) from None
        result = self._inference.function(**arguments)
        if type(result) is not dict:
            result = streams.awaited(result, self._begin, call)
        processes.end_if_forked(self._name)
        return result

    def _collected(self, items: ResultItems, call: LimitedCall) -> CollectedOutputs:
        """All that the function yields as one result."""
        collected = CollectedOutputs()
        while (found := self._next(items, call)) is not None:
            for given in self._outputs.yielded(found[0]):
                collected.add(given)
        return collected

    def _send_events(
        self, pieces: Iterator[bytes], inferring: InferringCall, call: LimitedCall
    ) -> HttpResponse:
        """Send each item as an event. What fails before the first one is answered as usual, later it is an event."""
        request, caller = inferring.request, inferring.caller
        response = HttpResponse(200, b"", streams.CONTENT_TYPE)
        piece = next(pieces, b"")
        while piece:
            self._send_piece(request, piece, caller, call)
            self._renew(call, inferring.seconds)
            try:
                piece = next(pieces, b"")
            except ClientDisconnected:
                raise
            except BaseException as error:  # whatever their code raises
                if call.left or call.expired:
                    raise ClientDisconnected from error
                problem = self._failed(error, call.id)
                response.status = problem.kind.status
                failure = streams.failure(problem.body(call.id, request.path), request.path)
                self._send_piece(request, failure, caller, call)
                break
        response.streamed = True
        return response

    def _send_piece(
        self, request: HttpRequest, piece: bytes, caller: PredictCaller, call: LimitedCall
    ) -> None:
        """Raises ClientDisconnected."""
        self._renew(call, self._settings.read_timeout)
        caller.stream(request, streams.CONTENT_TYPE, piece)

    def _renew(self, call: LimitedCall, seconds: float) -> None:
        """Give a call another deadline: one for what is sent, one for the next item. Raises ClientDisconnected if the
        clock has answered it meanwhile, or there is nobody to answer."""
        if not self._gate.renew(call, time.monotonic() + seconds):
            raise ClientDisconnected

    def _pieces(
        self, items: ResultItems, events: EventWriter, body: dict[str, Any], call: LimitedCall
    ) -> Iterator[bytes]:
        """Each item as an event, and what follows the last one. Raises what their code raises, and BadOutput."""
        wanted = body.get("output_fields") or []
        while (found := self._next(items, call)) is not None:
            outputs = self._outputs.collect(found[0], wanted, NoFilesInStreams(), call.id, whole=False)
            yield events.item(_reply(body, outputs))
        if last := events.end():
            yield last

    def _next(self, items: ResultItems, call: LimitedCall) -> Optional[tuple[Any]]:
        """Raises ClientDisconnected if there is nobody to answer, and what their code raises."""
        if call.left or call.expired or call.gone():
            raise ClientDisconnected
        found = items.next()
        processes.end_if_forked(self._name)
        return found

    def _end(self, items: ResultItems, call: LimitedCall) -> None:
        """Have the function's code end. What it raises then is for the developer's log alone."""
        try:
            items.close()
        except BaseException as error:  # noqa: BLE001 -- also SystemExit
            log.write_line(f"{self._name} raised {type(error).__name__} when it was closed", request=call.id)
            log.write_traceback(error)
        processes.end_if_forked(self._name)

    def _arguments(
        self, inferring: InferringCall, body: dict[str, Any], wanted: Any, call: LimitedCall
    ) -> dict[str, Any]:
        request = inferring.request
        arguments: dict[str, Any] = {}
        if self._inference.signature.by_name:
            arguments = self._by_name(body.get("inputs", []))
        for name in self._inference.arguments:
            if name == "inputs":
                arguments[name] = body.get("inputs", [])
            elif name == "parameters":
                arguments[name] = body.get("parameters") or []
            elif name == "output_fields":
                arguments[name] = wanted
            elif name == "model":
                arguments[name] = self._inference.model
            else:
                user = request.header(b"x-forwarded-user") if self._settings.pass_user else None
                arguments[name] = CallContext(request, user, body, call.deadline, inferring.folder)
        return arguments

    def _enter(self, call: LimitedCall, seconds: float) -> bool:
        try:
            return self._gate.acquire(call)
        except (QueueFull, LimiterClosed) as refusal:
            raise self._refused(refusal) from None
        except ClientGone:
            raise _gone() from None
        except CallExpired:
            self._log_waited(call.id, seconds)
            raise self._timed_out(problems.STILL_BUSY, seconds) from None

    def _fetch_files(self, request: HttpRequest, body: dict[str, Any], files: Files) -> None:
        """Replace the key of every FILE input by a local path. Raises ServingProblem."""
        if request.unread and self._gate.is_full():
            raise self._refused(QueueFull())  # reported before they are received, and again afterwards
        faults = []
        for index, item in enumerate(body.get("inputs", ())):
            if item["datatype"] != "FILE":
                continue
            try:
                item["data"] = files.fetch(index, item["data"])
            except (ValueError, OSError) as error:
                faults.append(RequestFault(f"/inputs/{index}/data", str(error)))
        self._raise_if(faults)

    @staticmethod
    def _raise_if(faults: list[RequestFault]) -> None:
        if faults:
            raise problems.invalid(faults)

    def _refused(self, refusal: Union[QueueFull, LimiterClosed]) -> ServingProblem:
        if isinstance(refusal, QueueFull):
            detail = Text(
                "component {component}: {limits}", component=self._component, limits=self._gate.limits()
            )
            return ServingProblem(problems.QUEUE_FULL, detail, retry_after=problems.RETRY_AFTER)
        detail = Text(
            "component {component}: calls that timed out hold every slot, it is being replaced",
            component=self._component,
        )
        return ServingProblem(problems.NOT_READY, detail, retry_after=problems.RETRY_AFTER)

    def _failed(self, error: BaseException, request_id: str) -> ServingProblem:
        """Return the problem for the caller; only the developer's log has the traceback."""
        if isinstance(error, (ClassFailed, CallFailed)) and error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, BadOutput):
            log.write_line(f"the result of {self._name} cannot be answered: {error}", request=request_id)
            return ServingProblem(
                problems.BAD_OUTPUT,
                Text(
                    "function {name} in component {component}: {error}",
                    name=self._name,
                    component=self._component,
                    error=error,
                ),
            )
        refusal = refusal_of(error)
        if refusal is not None:
            status, kind = refusal.kind.status, type(error).__name__
            log.write_line(f"{self._name} refused a call with {status} ({kind})", request=request_id)
            return refusal
        log.write_line(f"{self._name} raised {type(error).__name__}", request=request_id)
        log.write_traceback(error)
        kind, message = type(error).__name__, _message(error)
        detail = Text(
            "function {name} in component {component} raised {kind}{message}",
            name=self._name,
            component=self._component,
            kind=kind,
            message=": " + message if message else "",
        )
        return ServingProblem(problems.FUNCTION_FAILED, detail, exception={"type": kind, "message": message})

    def _log_waited(self, request_id: str, seconds: float) -> None:
        log.write_line(f"a call waited {seconds:g} s for {self._name}", request=request_id)

    def _timed_out(self, what: str, seconds: float) -> ServingProblem:
        return problems.timed_out(self._name, self._component, what, seconds)

    @property
    def _name(self) -> str:
        return self._inference.name

    @property
    def _component(self) -> str:
        return self._settings.component


def _gone() -> ServingProblem:
    return ServingProblem(
        problems.CLIENT_GONE, Text("the caller closed the connection before the call was answered")
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except BaseException:  # noqa: BLE001 -- a __str__ of theirs may fail in any way, and must not end our thread
        return Text("(its message cannot be shown)")
