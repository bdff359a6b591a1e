"""One inference call: decode, check, wait for a slot, call the developer's function, encode. Runs on the
connection's thread.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Protocol

from . import jsontext, log, problems, processes
from .call_files import CallFiles
from .config import ServingSettings
from .connection import CallerLeft
from .docstring import Datatype
from .files import Files
from .http1 import HttpRequest, HttpResponse, problem_response
from .limiter import CallExpired, ClientGone, ConcurrencyLimiter, LimitedCall, LimiterClosed, QueueFull
from .loading import InferenceFunction
from .metrics import ProcessMetrics
from .outputs import BadOutput, OutputEncoder, encode
from .problems import RequestFault, ServingProblem
from .scratch import CallFolder, ScratchSpace
from .validate import compile_check

RETRY_AFTER = 1  # seconds: a slot usually becomes free within one
JSON_TYPES = (b"application/json",)
_CHARSETS = (b"", b"utf-8", b"utf8", b"us-ascii")


class CallContext:
    """The function's argument ``context``: facts about the call.

    ``user``: the caller's name if the API passes it on, else None; ``request_id``; ``traceparent`` (W3C) as
    sent; ``parameters`` and ``model_key`` of the request; ``deadline``: time.monotonic() at which the caller
    is told that the call timed out.
    """

    __slots__ = ("_folder", "deadline", "model_key", "parameters", "request_id", "traceparent", "user")

    def __init__(
        self,
        request: HttpRequest,
        user: Optional[str],
        body: dict[str, Any],
        deadline: float,
        folder: CallFolder,
    ) -> None:
        self._folder = folder
        self.user = user
        self.request_id = request.id
        self.traceparent = request.header(b"traceparent")
        self.parameters = body.get("parameters") or []
        self.model_key = body.get("model_key", "default")
        self.deadline = deadline

    def remaining(self) -> float:
        """Seconds left until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def folder(self) -> str:
        """A folder for this call alone, say for its FILE outputs; it is removed when the call is over."""
        return self._folder.path()


def decode(request: HttpRequest, also: Sequence[bytes] = ()) -> Any:
    """The body as JSON. ``also``: content types that are taken for JSON beside its own, b"" for none at all. Raises
    ServingProblem 415, 400 or 422.
    """
    content_type = request.headers.get(b"content-type", b"")
    if content_type not in JSON_TYPES and not _is_json(content_type, also):
        given = f"not {content_type.decode('latin-1')!r}" if content_type else "but no Content-Type is given"
        raise ServingProblem(problems.MEDIA_TYPE, f"Content-Type must be application/json, {given}")
    try:
        return jsontext.read(request.body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ServingProblem(
            problems.MALFORMED_JSON, f"the body is not UTF-8 (byte {error.start})"
        ) from error
    except jsontext.TooDeep as error:
        raise problems.invalid([RequestFault("", str(error))]) from error
    except ValueError as error:
        detail = str(error) if request.body.strip() else "the body is empty"
        raise ServingProblem(problems.MALFORMED_JSON, detail) from error


def _is_json(content_type: bytes, also: Sequence[bytes]) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.partition(b"charset=")[2].strip(b' "')
    kind = kind.strip()
    return (kind == b"application/json" or kind.endswith(b"+json") or kind in also) and charset in _CHARSETS


class PredictCaller(Protocol):
    """The connection of a call, as other threads see it."""

    def answer_overdue(self, response: HttpResponse, call_id: str) -> None: ...

    def gone(self) -> bool: ...


class InferringCall(NamedTuple):
    """One call in progress. ``body`` is None until ``read`` has read and checked it; ``started``: time.monotonic()
    at which its files were there."""

    request: HttpRequest
    body: Optional[dict[str, Any]]
    read: Callable[[], dict[str, Any]]
    files: Files
    folder: CallFolder
    started: float


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
        run_async: Callable[[Any, LimitedCall], Any],
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._gate = gate
        self._row = row
        self._files = files
        self._run_async = run_async
        self._scratch = scratch
        self._outputs = OutputEncoder(inference.signature)
        self.check = compile_check(inference.signature)
        self._has_files = any(Datatype.FILE in variable.datatypes for variable in inference.signature.inputs)

    def predict(self, request: HttpRequest, caller: PredictCaller) -> HttpResponse:
        """POST /predict. Raises ServingProblem, Abandoned."""
        return self.answer(request, decode, self.check, encode, caller)

    def answer(
        self,
        request: HttpRequest,
        read: Callable[[HttpRequest], Any],
        check: Callable[[Any], list[RequestFault]],
        write: Callable[[dict[str, Any]], bytes],
        caller: PredictCaller,
    ) -> HttpResponse:
        """The whole of a call, whichever protocol ``read`` and ``write`` speak. The request is read and
        checked within the slot, too, unless it has files, which come before; within the timeout in any case.
        """
        started = time.monotonic()
        folder = CallFolder(self._scratch)
        staged = None if request.files is None else CallFiles(request, folder)
        files = staged or self._files

        def checked() -> dict[str, Any]:
            body: dict[str, Any] = read(request)
            self._raise_if(check(body))
            return body

        try:
            body = None
            if self._has_files:
                body = checked()
                read_at = time.monotonic()
                if read_at - started > self._settings.timeout:
                    raise self._timed_out("was still waiting for the request to be read")
                self._fetch_files(request, body, files)
                started += (
                    time.monotonic() - read_at
                )  # the time for files does not count against the function
            payload = self._call(InferringCall(request, body, checked, files, folder, started), write, caller)
        except BaseException as error:
            if isinstance(error, ServingProblem):
                self._row.inferred(error.kind.status, time.monotonic() - started)
            folder.remove()
            raise
        self._row.inferred(200, time.monotonic() - started)
        response = HttpResponse(200, payload, sent=folder.remove)
        if staged is not None:
            response.headers, response.files = staged.headers(len(payload)), staged.outgoing
        return response

    def _call(
        self,
        inferring: InferringCall,
        write: Callable[[dict[str, Any]], bytes],
        caller: PredictCaller,
    ) -> bytes:
        """Wait for a slot, then read the request, call the function and encode its result within the slot: all of it
        counts against the timeout.
        """
        request_id, started = inferring.request.id, inferring.started

        def overdue() -> None:
            problem = self._timed_out("did not return")
            response = problem_response(problem, request_id, inferring.request.path)
            caller.answer_overdue(response, request_id)
            self._row.inferred(504, time.monotonic() - started)
            log.write_line(
                f"{self._name} did not return within {self._settings.timeout:g} s", request=request_id
            )

        call = LimitedCall(request_id, started + self._settings.timeout, overdue, caller.gone)
        self._enter(call)
        payload, failure = b"", None
        try:
            self._row.load(*self._gate.counts())
            payload = self._run(inferring, call, write)
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: their code must not end our thread
            failure = error
        processes.end_if_forked(self._name)
        owned = self._gate.release(call)
        self._row.load(*self._gate.counts())
        if not owned:
            log.write_line(
                f"{self._name} ended {time.monotonic() - call.deadline:.1f} s after its timeout",
                request=request_id,
            )
            raise CallerLeft
        if call.left:
            raise _gone()
        if isinstance(failure, ServingProblem):
            raise failure  # of the request, which was read within the slot
        if failure is not None:
            raise self._failed(failure, request_id) from failure
        return payload

    def _run(
        self, inferring: InferringCall, call: LimitedCall, write: Callable[[dict[str, Any]], bytes]
    ) -> bytes:
        body = inferring.read() if inferring.body is None else inferring.body
        wanted = body.get("output_fields") or []
        arguments = self._arguments(inferring, body, wanted, call)
        result = self._inference.function(**arguments)
        if type(result) is not dict and inspect.isawaitable(
            result
        ):  # decided by the result, because decorators may hide it
            result = self._run_async(result, call)
        processes.end_if_forked(self._name)
        outputs = self._outputs.collect(result, wanted, inferring.files, call.id)
        call_id = body.get("id")
        return write({"outputs": outputs} if call_id is None else {"id": call_id, "outputs": outputs})

    def _arguments(
        self, inferring: InferringCall, body: dict[str, Any], wanted: Any, call: LimitedCall
    ) -> dict[str, Any]:
        request = inferring.request
        arguments: dict[str, Any] = {}
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

    def _enter(self, call: LimitedCall) -> None:
        try:
            self._gate.acquire(call)
        except QueueFull:
            raise self._queue_full() from None
        except LimiterClosed:
            detail = (
                f"component {self._component}: calls that timed out hold every slot, it is being replaced"
            )
            raise ServingProblem(problems.NOT_READY, detail, retry_after=RETRY_AFTER) from None
        except ClientGone:
            raise _gone() from None
        except CallExpired:
            log.write_line(f"a call waited {self._settings.timeout:g} s for {self._name}", request=call.id)
            raise self._timed_out("was still busy with earlier calls") from None

    def _fetch_files(self, request: HttpRequest, body: dict[str, Any], files: Files) -> None:
        """Replace the key of every FILE input by a local path. Raises ServingProblem."""
        if request.unread and self._gate.is_full():
            raise self._queue_full()  # reported before they are received, and again afterwards
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

    def _queue_full(self) -> ServingProblem:
        limits = f"{self._gate.capacity} calls run and {self._gate.queue} wait"
        detail = f"component {self._component}: {limits}"
        return ServingProblem(problems.QUEUE_FULL, detail, retry_after=RETRY_AFTER)

    def _failed(self, error: BaseException, request_id: str) -> ServingProblem:
        """Return the problem for the caller; only the developer's log has the traceback."""
        if isinstance(error, BadOutput):
            log.write_line(f"the result of {self._name} cannot be answered: {error}", request=request_id)
            return ServingProblem(
                problems.BAD_OUTPUT, f"function {self._name} in component {self._component}: {error}"
            )
        log.write_line(f"{self._name} raised {type(error).__name__}", request=request_id)
        log.write_traceback(error)
        kind, message = type(error).__name__, _message(error)
        detail = f"function {self._name} in component {self._component} raised {kind}" + (
            f": {message}" if message else ""
        )
        return ServingProblem(problems.FUNCTION_FAILED, detail, exception={"type": kind, "message": message})

    def _timed_out(self, what: str) -> ServingProblem:
        seconds = self._settings.timeout
        detail = f"function {self._name} in component {self._component} {what} after {seconds:g} s"
        return ServingProblem(problems.TIMEOUT, detail, limit=seconds)

    @property
    def _name(self) -> str:
        return self._inference.name

    @property
    def _component(self) -> str:
        return self._settings.component


def _gone() -> ServingProblem:
    return ServingProblem(
        problems.CLIENT_GONE, "the caller closed the connection before the call was answered"
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # noqa: BLE001 -- a __str__ of theirs may fail in any way
        return "(its message cannot be shown)"
