"""One inference call: decode, check, wait for a slot, call the developer's function, encode. Runs on the
connection's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Optional

from . import log, problems
from .config import Settings
from .connection import Abandoned
from .docstring import Datatype
from .files import Files
from .gate import Call, Closed, Expired, Gate, QueueFull
from .http1 import Request, Response, problem_response
from .loading import Inference
from .metrics import Row
from .outputs import BadOutput, Outputs, encode
from .problems import Fault, Problem
from .scratch import Folder, Scratch
from .staging import Staged
from .validate import compile_check

RETRY_AFTER = 1  # seconds: a slot usually becomes free within one
JSON_TYPES = (b"application/json",)


class Context:
    """What the function may know about its call, as argument ``context``.

    ``user``: the caller's name if the API passes it on, else None; ``request_id``; ``traceparent`` (W3C) as
    sent; ``parameters`` and ``model_key`` of the request; ``deadline``: time.monotonic() at which the caller
    is told that the call timed out.
    """

    __slots__ = ("_folder", "deadline", "model_key", "parameters", "request_id", "traceparent", "user")

    def __init__(
        self, request: Request, user: Optional[str], body: dict[str, Any], deadline: float, folder: Folder
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; there is no way to send NaN or an infinity")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def decode(request: Request) -> Any:
    """The body as JSON. Raises Problem 415 or 400."""
    content_type = request.headers.get(b"content-type", b"")
    if content_type not in JSON_TYPES and not _is_json(content_type):
        given = f"not {content_type.decode('latin-1')!r}" if content_type else "but no Content-Type is given"
        raise Problem(problems.MEDIA_TYPE, f"Content-Type must be application/json, {given}")
    try:
        return _decoder.decode(request.body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Problem(problems.MALFORMED_JSON, f"the body is not UTF-8 (byte {error.start})") from error
    except ValueError as error:
        detail = str(error) if request.body.strip() else "the body is empty"
        raise Problem(problems.MALFORMED_JSON, detail) from error
    except RecursionError as error:
        raise Problem(problems.MALFORMED_JSON, "the body is nested too deeply") from error


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.partition(b"charset=")[2].strip(b' "')
    kind = kind.strip()
    return (kind == b"application/json" or kind.endswith(b"+json")) and charset in (
        b"",
        b"utf-8",
        b"utf8",
        b"us-ascii",
    )


class Inferring(NamedTuple):
    """One call on its way through. ``started``: time.monotonic() at which its files were there."""

    request: Request
    body: dict[str, Any]
    files: Files
    folder: Folder
    started: float


class Predictor:
    """Answers inference requests with one loaded function."""

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        gate: Gate,
        row: Row,
        files: Files,
        scratch: Scratch,
        run_async: Callable[[Any, Call], Any],
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._gate = gate
        self._row = row
        self._files = files
        self._run_async = run_async
        self._scratch = scratch
        self._outputs = Outputs(inference.signature)
        self.check = compile_check(inference.signature)
        self._has_files = any(Datatype.FILE in variable.datatypes for variable in inference.signature.inputs)

    def predict(self, request: Request, answer: Callable[[Response], None]) -> Response:
        """POST /predict. ``answer`` sends a response from another thread should the call be overdue. Raises
        Problem, Abandoned.
        """
        return self.answer(request, decode, self.check, encode, answer)

    def answer(
        self,
        request: Request,
        read: Callable[[Request], Any],
        check: Callable[[Any], list[Fault]],
        write: Callable[[dict[str, Any]], bytes],
        answer: Callable[[Response], None],
    ) -> Response:
        """The whole of a call, whichever protocol ``read`` and ``write`` speak."""
        started = time.monotonic()
        folder = Folder(self._scratch)
        staged = None if request.files is None else Staged(request, folder)
        files = staged or self._files
        try:
            body = read(request)
            self._raise_if(check(body))
            if self._has_files:
                self._fetch_files(request, body, files)
                started = time.monotonic()  # how long the files took is no fault of the function
            payload = self._call(Inferring(request, body, files, folder, started), write, answer)
        except BaseException as error:
            if isinstance(error, Problem):
                self._row.inferred(error.kind.status, time.monotonic() - started)
            folder.remove()
            raise
        self._row.inferred(200, time.monotonic() - started)
        response = Response(200, payload, sent=folder.remove)
        if staged is not None:
            response.headers, response.files = staged.headers(len(payload)), staged.outgoing
        return response

    def _call(
        self,
        inferring: Inferring,
        write: Callable[[dict[str, Any]], bytes],
        answer: Callable[[Response], None],
    ) -> bytes:
        """Wait for a slot, then call the function and encode its result within the slot: both count against
        the timeout.
        """
        request_id, started = inferring.request.id, inferring.started

        def overdue() -> None:
            answer(problem_response(self._timed_out("did not return"), request_id))
            self._row.inferred(504, time.monotonic() - started)
            log.tell(f"{self._name} did not return within {self._settings.timeout:g} s", request=request_id)

        call = Call(request_id, started + self._settings.timeout, overdue)
        self._enter(call)
        payload, failure = b"", None
        try:
            self._row.load(*self._gate.counts())
            payload = self._run(inferring, call, write)
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: their code must not end our thread
            failure = error
        owned = self._gate.leave(call)
        self._row.load(*self._gate.counts())
        if not owned:
            log.tell(
                f"{self._name} ended {time.monotonic() - call.deadline:.1f} s after its timeout",
                request=request_id,
            )
            raise Abandoned
        if failure is not None:
            raise self._failed(failure, request_id) from failure
        return payload

    def _run(self, inferring: Inferring, call: Call, write: Callable[[dict[str, Any]], bytes]) -> bytes:
        body = inferring.body
        wanted = body.get("output_fields") or []
        arguments = self._arguments(inferring, wanted, call)
        result = self._inference.function(**arguments)
        if self._inference.is_async:
            result = self._run_async(result, call)
        outputs = self._outputs.collect(result, wanted, inferring.files, call.id)
        call_id = body.get("id")
        return write({"outputs": outputs} if call_id is None else {"id": call_id, "outputs": outputs})

    def _arguments(self, inferring: Inferring, wanted: Any, call: Call) -> dict[str, Any]:
        request, body = inferring.request, inferring.body
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
                arguments[name] = Context(request, user, body, call.deadline, inferring.folder)
        return arguments

    def _enter(self, call: Call) -> None:
        try:
            self._gate.enter(call)
        except QueueFull:
            raise self._queue_full() from None
        except Closed:
            detail = (
                f"component {self._component}: calls that timed out hold every slot, it is being replaced"
            )
            raise Problem(problems.NOT_READY, detail, retry_after=RETRY_AFTER) from None
        except Expired:
            log.tell(f"a call waited {self._settings.timeout:g} s for {self._name}", request=call.id)
            raise self._timed_out("was still busy with earlier calls") from None

    def _fetch_files(self, request: Request, body: dict[str, Any], files: Files) -> None:
        """Replace the key of every FILE input by a local path. Raises Problem."""
        if request.unread and self._gate.is_full():
            raise self._queue_full()  # told before they are received, and again when they are there
        faults = []
        for index, item in enumerate(body.get("inputs", ())):
            if item["datatype"] != "FILE":
                continue
            try:
                item["data"] = files.fetch(index, item["data"])
            except (ValueError, OSError) as error:
                faults.append(Fault(f"/inputs/{index}/data", str(error)))
        self._raise_if(faults)

    @staticmethod
    def _raise_if(faults: list[Fault]) -> None:
        if faults:
            raise Problem(problems.INVALID, _summary(faults), faults)

    def _queue_full(self) -> Problem:
        limits = f"{self._gate.capacity} calls run and {self._gate.queue} wait"
        detail = f"component {self._component}: {limits}"
        return Problem(problems.QUEUE_FULL, detail, retry_after=RETRY_AFTER)

    def _failed(self, error: BaseException, request_id: str) -> Problem:
        """What the caller is told; the traceback is the developer's alone."""
        if isinstance(error, BadOutput):
            log.tell(f"the result of {self._name} cannot be answered: {error}", request=request_id)
            return Problem(
                problems.BAD_OUTPUT, f"function {self._name} in component {self._component}: {error}"
            )
        log.tell(f"{self._name} raised {type(error).__name__}", request=request_id)
        log.tell_traceback(error)
        kind, message = type(error).__name__, _message(error)
        detail = f"function {self._name} in component {self._component} raised {kind}" + (
            f": {message}" if message else ""
        )
        return Problem(problems.FUNCTION_FAILED, detail, exception={"type": kind, "message": message})

    def _timed_out(self, what: str) -> Problem:
        seconds = self._settings.timeout
        detail = f"function {self._name} in component {self._component} {what} after {seconds:g} s"
        return Problem(problems.TIMEOUT, detail, limit=seconds)

    @property
    def _name(self) -> str:
        return self._inference.name

    @property
    def _component(self) -> str:
        return self._settings.component


def _message(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # noqa: BLE001 -- a __str__ of theirs may fail in any way
        return "(its message cannot be shown)"


def _summary(faults: list[Fault]) -> str:
    first = f"{faults[0].pointer or 'the body'}: {faults[0].detail}"
    return first if len(faults) == 1 else f"{first} (and {len(faults) - 1} more)"
