"""One inference call: decode, check, wait for a slot, call the developer's function, encode. Runs on the
connection's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NoReturn, Optional

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
from .validate import compile_check

RETRY_AFTER = 1  # seconds: a slot usually becomes free within one
JSON_TYPES = (b"application/json",)


class Context:
    """What the function may know about its call, as argument ``context``.

    ``user``: the caller's name if the API passes it on, else None; ``request_id``; ``traceparent`` (W3C) as
    sent; ``parameters`` and ``model_key`` of the request; ``deadline``: time.monotonic() at which the caller
    is told that the call timed out.
    """

    __slots__ = ("deadline", "model_key", "parameters", "request_id", "traceparent", "user")

    def __init__(self, request: Request, user: Optional[str], body: dict[str, Any], deadline: float) -> None:
        self.user = user
        self.request_id = request.id
        self.traceparent = request.header(b"traceparent")
        self.parameters = body.get("parameters") or []
        self.model_key = body.get("model_key", "default")
        self.deadline = deadline

    def remaining(self) -> float:
        """Seconds left until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())


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


class Predictor:
    """Answers inference requests with one loaded function."""

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        gate: Gate,
        row: Row,
        files: Files,
        run_async: Callable[[Any, Call], Any],
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._gate = gate
        self._row = row
        self._files = files
        self._run_async = run_async
        self._outputs = Outputs(inference.signature, files)
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
        try:
            body = read(request)
            faults = check(body)
            if not faults and self._has_files:
                faults = self._fetch_files(body)
            if faults:
                raise Problem(problems.INVALID, _summary(faults), faults)
            payload = self._call(request, body, started, write, answer)
        except Problem as problem:
            self._row.inferred(problem.kind.status, time.monotonic() - started)
            raise
        self._row.inferred(200, time.monotonic() - started)
        return Response(200, payload)

    def _call(
        self,
        request: Request,
        body: dict[str, Any],
        started: float,
        write: Callable[[dict[str, Any]], bytes],
        answer: Callable[[Response], None],
    ) -> bytes:
        """Wait for a slot, then call the function and encode its result within the slot: both count against
        the timeout.
        """

        def overdue() -> None:
            answer(problem_response(self._timed_out("did not return"), request.id))
            self._row.inferred(504, time.monotonic() - started)
            log.tell(f"{self._name} did not return within {self._settings.timeout:g} s", request=request.id)

        call = Call(request.id, started + self._settings.timeout, overdue)
        self._enter(call)
        payload, failure = b"", None
        try:
            self._row.load(*self._gate.counts())
            payload = self._run(request, body, call, write)
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: their code must not end our thread
            failure = error
        owned = self._gate.leave(call)
        self._row.load(*self._gate.counts())
        if not owned:
            log.tell(
                f"{self._name} ended {time.monotonic() - call.deadline:.1f} s after its timeout",
                request=request.id,
            )
            raise Abandoned
        if failure is not None:
            raise self._failed(failure, request.id) from failure
        return payload

    def _run(
        self, request: Request, body: dict[str, Any], call: Call, write: Callable[[dict[str, Any]], bytes]
    ) -> bytes:
        wanted = body.get("output_fields") or []
        arguments = self._arguments(request, body, wanted, call)
        result = self._inference.function(**arguments)
        if self._inference.is_async:
            result = self._run_async(result, call)
        outputs = self._outputs.collect(result, wanted, request.id)
        call_id = body.get("id")
        return write({"outputs": outputs} if call_id is None else {"id": call_id, "outputs": outputs})

    def _arguments(self, request: Request, body: dict[str, Any], wanted: Any, call: Call) -> dict[str, Any]:
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
                arguments[name] = Context(request, user, body, call.deadline)
        return arguments

    def _enter(self, call: Call) -> None:
        try:
            self._gate.enter(call)
        except QueueFull:
            limits = f"{self._gate.capacity} calls run and {self._gate.queue} wait"
            raise Problem(
                problems.QUEUE_FULL, f"component {self._component}: {limits}", retry_after=RETRY_AFTER
            ) from None
        except Closed:
            detail = (
                f"component {self._component}: calls that timed out hold every slot, it is being replaced"
            )
            raise Problem(problems.NOT_READY, detail, retry_after=RETRY_AFTER) from None
        except Expired:
            log.tell(f"a call waited {self._settings.timeout:g} s for {self._name}", request=call.id)
            raise self._timed_out("was still busy with earlier calls") from None

    def _fetch_files(self, body: dict[str, Any]) -> list[Fault]:
        """Replace the key of every FILE input by a local path."""
        faults = []
        for index, item in enumerate(body.get("inputs", ())):
            if item["datatype"] != "FILE":
                continue
            try:
                item["data"] = self._files.fetch(item["data"])
            except (ValueError, OSError) as error:
                faults.append(Fault(f"/inputs/{index}/data", str(error)))
        return faults

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
