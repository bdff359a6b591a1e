"""Every error this service can answer, as data, and how one looks on the wire (RFC 9457,
``application/problem+json``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

CONTENT_TYPE = "application/problem+json"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of problem: its HTTP status, the last part of its type URI, and its title."""

    status: int
    slug: str
    title: str


BAD_HTTP = Kind(400, "bad-http", "The request is not well-formed HTTP")
MALFORMED_JSON = Kind(400, "malformed-json", "The body is not JSON")
NOT_FOUND = Kind(404, "not-found", "There is nothing at this path")
METHOD = Kind(405, "method-not-allowed", "This path does not take this method")
SLOW_REQUEST = Kind(408, "request-timeout", "The request did not arrive in time")
TOO_LARGE = Kind(413, "body-too-large", "The body is larger than this component takes")
LONG_TARGET = Kind(414, "target-too-long", "The request target is too long")
MEDIA_TYPE = Kind(415, "unsupported-media-type", "The body must be JSON")
EXPECTATION = Kind(417, "expectation-failed", "The expectation cannot be met")
INVALID = Kind(422, "invalid-request", "The request does not fit the component's description")
LARGE_HEAD = Kind(431, "headers-too-large", "The header fields are too large")
FUNCTION_FAILED = Kind(500, "function-failed", "The inference function failed")
BAD_OUTPUT = Kind(500, "bad-output", "The inference function's result cannot be answered")
INTERNAL = Kind(500, "internal", "The serving library failed")
TRANSFER_CODING = Kind(501, "transfer-coding", "The transfer coding is not known")
QUEUE_FULL = Kind(503, "queue-full", "The component has no room for one more call")
NOT_READY = Kind(503, "not-ready", "The component is not ready")
TIMEOUT = Kind(504, "function-timeout", "The inference function did not answer in time")
NO_ROOM = Kind(507, "no-room", "The container has no room for the call's files")
HTTP_VERSION = Kind(505, "http-version", "The HTTP version is not supported")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong in a request: JSON pointer (RFC 6901) and what is wrong there, for people."""

    pointer: str
    detail: str


class Problem(Exception):
    """An answer that is an error. ``retry_after`` in whole seconds; ``headers`` are sent with it; ``extra``
    are more members.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        faults: Sequence[Fault] = (),
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

    def body(self, request_id: str) -> bytes:
        """The problem document, with this occurrence's request id as its instance."""
        document: dict[str, Any] = {
            "type": f"urn:prichal:problem:{self.kind.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": f"urn:prichal:request:{request_id}",
            **self.extra,
        }
        if self.faults:
            document["errors"] = [dataclasses.asdict(fault) for fault in self.faults]
        return json.dumps(document).encode()
