"""Every error this service can answer, as data, and how one looks on the wire (RFC 9457,
``application/problem+json``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Optional

from .plain_json import dumps
from .texts import Text, as_document, joined

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds: a slot usually becomes free within one


@dataclasses.dataclass(frozen=True)
class ServingProblemKind:
    """A kind of problem: its HTTP status, the last part of its type URI, and its title."""

    status: int
    slug: str
    title: str


BAD_HTTP = ServingProblemKind(400, "bad-http", "The request is not well-formed HTTP")
MALFORMED_CODING = ServingProblemKind(
    400, "malformed-coding", "The body is not coded as its Content-Encoding says"
)
MALFORMED_JSON = ServingProblemKind(400, "malformed-json", "The body is not JSON")
INVALID_VALUE = ServingProblemKind(
    400, "invalid-value", "The chat request is not as the API of OpenAI has it"
)
UNSUPPORTED = ServingProblemKind(
    400, "unsupported-parameter", "The component does not support a parameter of the chat request"
)
BAD_TENSORS = ServingProblemKind(400, "malformed-tensors", "The tensors are not where the header says")
NOT_FOUND = ServingProblemKind(404, "not-found", "There is nothing at this path")
MODEL_NOT_FOUND = ServingProblemKind(404, "model-not-found", "There is no such model here")
METHOD = ServingProblemKind(405, "method-not-allowed", "This path does not take this method")
SLOW_REQUEST = ServingProblemKind(408, "request-timeout", "The request did not arrive in time")
TOO_LARGE = ServingProblemKind(413, "body-too-large", "The body is larger than this component takes")
LONG_TARGET = ServingProblemKind(414, "target-too-long", "The request target is too long")
MEDIA_TYPE = ServingProblemKind(415, "unsupported-media-type", "The body must be JSON")
CONTENT_CODING = ServingProblemKind(415, "content-coding", "The content coding of the body is not known")
EXPECTATION = ServingProblemKind(417, "expectation-failed", "The expectation cannot be met")
INVALID = ServingProblemKind(422, "invalid-request", "The request does not fit the component's description")
LARGE_HEAD = ServingProblemKind(431, "headers-too-large", "The header fields are too large")
CLIENT_GONE = ServingProblemKind(499, "client-gone", "The caller closed the connection")
#: Its status and title are those that the exception names.
FUNCTION_REFUSED = ServingProblemKind(400, "function-refused", "The inference function refused the call")
FUNCTION_FAILED = ServingProblemKind(500, "function-failed", "The inference function failed")
BAD_OUTPUT = ServingProblemKind(500, "bad-output", "The inference function's result cannot be answered")
INTERNAL = ServingProblemKind(500, "internal", "The serving library failed")
TRANSFER_CODING = ServingProblemKind(501, "transfer-coding", "The transfer coding is not known")
QUEUE_FULL = ServingProblemKind(503, "queue-full", "The component cannot take another call")
NOT_READY = ServingProblemKind(503, "not-ready", "The component is not ready")
TIMEOUT = ServingProblemKind(504, "function-timeout", "The inference function did not answer in time")
DISK_FULL = ServingProblemKind(507, "disk-full", "The container has no space for the call's files")
HTTP_VERSION = ServingProblemKind(505, "http-version", "The HTTP version is not supported")


@dataclasses.dataclass(frozen=True)
class RequestFault:
    """One thing wrong in a request: JSON pointer (RFC 6901) and what is wrong there, for people."""

    pointer: str
    detail: str


class ServingProblem(Exception):
    """An answer that is an error. ``retry_after`` in whole seconds; ``headers`` are sent with it; ``extra``
    are more members.
    """

    def __init__(
        self,
        kind: ServingProblemKind,
        detail: str,
        faults: Sequence[RequestFault] = (),
        retry_after: int = 0,
        headers: Sequence[tuple[str, str]] = (),
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = (*headers, ("Retry-After", str(retry_after))) if retry_after else tuple(headers)
        self.extra = {**extra, "retryAfter": retry_after} if retry_after else extra

    def body(self, request_id: str, path: Optional[str] = None, messages: bool = False) -> bytes:
        """The problem document, with this occurrence's request id as its instance. Below ``/v2``, and where the path
        is not known, the detail is the member ``error``, too: there the Open Inference Protocol's clients look. Below
        ``/v1`` that member is what clients of OpenAI's API read. ``messages``: with what the texts were made of.
        """
        document: dict[str, Any] = {
            "type": f"urn:prichal:problem:{self.kind.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": f"urn:prichal:request:{request_id}",
            **self.extra,
        }
        if path is None or path == "/v2" or path.startswith("/v2/"):
            document["error"] = self.detail
        elif is_openai(path):
            document["error"] = self._openai_error()
        if self.faults:
            document["errors"] = [dataclasses.asdict(fault) for fault in self.faults]
        if messages:
            document["messages"] = [
                as_document(text) for text in (self.detail, *(f.detail for f in self.faults))
            ]
        return dumps(document).encode()

    def _openai_error(self) -> dict[str, Any]:
        return {
            "message": self.detail,
            "type": "server_error" if self.kind.status >= 500 else "invalid_request_error",
            "param": _parameter(self.faults[0].pointer) if self.faults else None,
            "code": self.kind.slug.replace("-", "_"),
        }


def is_openai(path: str) -> bool:
    """Is it a path of OpenAI's API?"""
    return path == "/v1" or path.startswith("/v1/")


_INDEX = re.compile(r"\.(\d+)(?=\.|$)")


def _parameter(pointer: str) -> Optional[str]:
    """``/messages/0/role`` as OpenAI's errors write it, ``messages[0].role``; None for the whole body."""
    return _INDEX.sub(r"[\1]", pointer[1:].replace("/", ".")) or None


def exhausted(component: str, function: str) -> str:
    """Why a component is not ready although it is set up."""
    return Text(
        "component {component}: calls of {function} past their timeout hold every slot",
        component=component,
        function=function,
    )


STILL_BUSY = Text("was still busy with earlier calls")


def timed_out(function: str, component: str, what: str, seconds: float) -> ServingProblem:
    """A call was not answered within its time; ``what`` the function did instead."""
    detail = Text(
        "function {function} in component {component} {what} after {seconds} s",
        function=function,
        component=component,
        what=what,
        seconds=format(seconds, "g"),
    )
    return ServingProblem(TIMEOUT, detail, limit=seconds)


def invalid(faults: Sequence[RequestFault], kind: ServingProblemKind = INVALID) -> ServingProblem:
    """A request that does not fit the description: the first fault in words, all of them as data."""
    first = joined(": ", faults[0].pointer or Text("the body"), faults[0].detail)
    more = Text(" (and {count} more)", count=len(faults) - 1) if len(faults) > 1 else ""
    return ServingProblem(kind, joined("", first, more), faults)
