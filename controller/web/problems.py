"""Every error that the web process can answer, as data, and how one looks on the wire (RFC 9457,
`application/problem+json`). Used by the gateway and by the Flask application alike.

`docs/reference/http-api.md` lists every kind; a test keeps list and table the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from controller.domain.host_paths import without_host_paths
from controller.domain.localizable import as_document, changed
from controller.domain.text import printable

CONTENT_TYPE = "application/problem+json"

Member = str | int | float | list[str] | list[int] | list[dict[str, str]]


#: What pages of ours send in the field Accept, as to the serving library (serving/texts.py).
_MESSAGES = "messages=1"


def wants_messages(accept: str) -> bool:
    """Return True for a caller that can translate what the texts of a problem were made of."""
    return _MESSAGES in accept


class ProblemKind(Enum):
    """HTTP status, last part of the type URI, title."""

    BAD_REQUEST = (400, "bad-request", "The request is not well-formed")
    AMBIGUOUS_PATH = (400, "ambiguous-path", "The path can be read in more than one way")
    INVALID_PATH = (400, "invalid-path", "The path names no file or group")
    MALFORMED_JSON = (400, "malformed-json", "The body is not JSON")
    MALFORMED_CODING = (400, "malformed-coding", "The body is not coded as its Content-Encoding says")
    NO_SOCKETS = (400, "no-websockets", "There are no WebSockets at this path")
    HANDSHAKE = (400, "websocket-handshake", "The WebSocket handshake is not well-formed")
    UNAUTHORIZED = (401, "unauthorized", "Valid credentials are needed")
    INVALID_TOKEN = (401, "invalid-token", "The bearer token is not accepted")
    BAD_SIGNATURE = (401, "bad-signature", "The signature is missing or wrong")
    CLAIMS = (403, "claim-missing", "The bearer token does not permit this")
    NAME_TAKEN = (403, "name-taken", "The name belongs to another account")
    FORBIDDEN = (403, "not-a-developer", "Only developers may use this area")
    NOT_ALLOWED = (403, "not-allowed", "Your role does not allow this")
    LINK = (403, "link-refused", "The link does not allow this")
    ORIGIN = (403, "origin-refused", "Pages of this origin may not connect")
    NOT_FOUND = (404, "not-found", "There is nothing at this path")
    METHOD = (405, "method-not-allowed", "This path does not take this method")
    BODY_TIMEOUT = (408, "body-timeout", "The body did not arrive in time")
    CONFLICT = (409, "nothing-to-approve", "There is nothing to approve")
    REFUSED = (409, "refused", "The platform cannot do this now")
    NOT_WRITABLE = (409, "platform-in-git", "Apps are connected in a Git repository")
    APP_EXISTS = (409, "app-exists", "There is an app of this name")
    NOT_CONFIRMED = (409, "not-confirmed", "The name of the app must be repeated")
    QUOTA = (403, "quota-exceeded", "Your quota has no room for this")
    PATH_CONFLICT = (409, "path-conflict", "A file and a group cannot have the same name")
    UPLOAD_INCOMPLETE = (409, "upload-incomplete", "Parts of the upload are missing")
    PUBLISHING = (409, "group-publishing", "A run is publishing into the group")
    RUN_STATE = (409, "run-state", "The state of the run does not allow this")
    CALL_STATE = (409, "call-state", "The call ended without a result")
    CALL_GONE = (410, "call-gone", "The call has been removed")
    RUN_GONE = (410, "run-gone", "The run has been removed")
    TOO_LARGE = (413, "body-too-large", "The body is larger than allowed")
    MEDIA_TYPE = (415, "unsupported-media-type", "The body must be JSON")
    CONTENT_CODING = (415, "content-coding", "The content coding of the body is not known")
    RANGE = (416, "range-not-satisfiable", "There is nothing at this offset")
    INVALID = (422, "invalid-request", "The request does not fit the description")
    KEY_REUSED = (422, "idempotency-key-reused", "The Idempotency-Key stands for another request")
    SOCKET_VERSION = (426, "websocket-version", "Another version of the WebSocket protocol is needed")
    QUEUE_FULL = (429, "queue-full", "The queue is full")
    TOO_MANY_UPLOADS = (429, "too-many-uploads", "Too many uploads to this box are awaited")
    ATTEMPTS = (429, "too-many-attempts", "Too many sign-ins have failed")
    HTTP = (400, "http-error", "The request cannot be answered")
    INTERNAL = (500, "internal", "The platform failed")
    UPSTREAM_UNREACHABLE = (502, "component-unreachable", "The component cannot be reached")
    UPSTREAM_DIED = (502, "component-died", "The component ended in the middle of the call")
    UPSTREAM_GARBAGE = (502, "component-answer", "The component's answer is not well-formed HTTP")
    CALL_LOST = (502, "call-lost", "The call was lost")
    NOT_READY = (503, "not-ready", "No version of the component is ready")
    DISK_LOW = (503, "disk-low", "The platform's disk has too little space")
    OVERLOADED = (503, "gateway-overloaded", "The gateway cannot take another request")
    ISSUER = (503, "issuer-unreachable", "The issuer of the tokens cannot be asked for its keys")
    GIT_SERVICE = (503, "git-unavailable", "The Git service does not answer")
    STORE_BUSY = (503, "store-busy", "The platform's database cannot be used at the moment")
    STORAGE_UNREACHABLE = (503, "storage-unreachable", "The storage does not answer")
    STORAGE_REFUSED = (503, "storage-refused", "The storage refused the platform")
    BUCKET_MISSING = (503, "bucket-missing", "The box is not in the storage")
    UPSTREAM_TIMEOUT = (504, "component-timeout", "The component did not answer in time")
    BOX_FULL = (507, "box-full", "The box has no space for this")
    RESULT_TOO_LARGE = (507, "result-too-large", "The result is larger than allowed")
    STORAGE_FULL = (507, "storage-full", "The storage is full")

    def __init__(self, status: int, slug: str, title: str) -> None:
        self.status = status
        self.slug = slug
        self.title = title


class ProblemDialect(Enum):
    """Whose clients read a problem: those of our own API, of the Open Inference Protocol, or of OpenAI's."""

    OURS = "ours"
    OPEN_INFERENCE = "open-inference"
    OPENAI = "openai"


@dataclass(frozen=True)
class HttpProblem:
    """An answer that is an error. `retry_after` in whole seconds; `allow` are the methods a 405 names; `challenge` is
    the `WWW-Authenticate` of a 401 or 403; `accept_encoding` names the content codings that a 415 would take; `upgrade`
    is the protocol of a 426; `status`
    overrides the kind's for the general `HTTP`; `extra` are more members."""

    kind: ProblemKind
    detail: str
    retry_after: int = 0
    allow: str = ""
    challenge: str = ""
    accept_encoding: str = ""
    upgrade: str = ""
    status: int = 0
    title: str = ""
    extra: Mapping[str, Member] = field(default_factory=dict)

    @property
    def code(self) -> int:
        return self.status or self.kind.status

    def headers(self, content_type: str = CONTENT_TYPE) -> list[tuple[str, str]]:
        found = [
            ("retry-after", str(self.retry_after) if self.retry_after else ""),
            ("allow", self.allow),
            ("www-authenticate", self.challenge),
            ("accept-encoding", self.accept_encoding),
            ("upgrade", self.upgrade),
            ("connection", "Upgrade" if self.upgrade else ""),
            ("sec-websocket-version", "13" if self.upgrade else ""),
        ]
        return [("content-type", content_type), ("cache-control", "no-store"), *(h for h in found if h[1])]

    def without_paths(self, state: Path) -> HttpProblem:
        """Return the problem without paths of this host: see `host_paths`."""
        return self._with_texts(lambda text: without_host_paths(text, state))

    def _with_texts(self, change: Callable[[str], str]) -> HttpProblem:
        detail = changed(self.detail, change)
        if detail == self.detail and not self.extra:
            return self
        extra = {name: _changed(member, change) for name, member in self.extra.items()}
        return replace(self, detail=detail, extra=extra)

    def text(self) -> bytes:
        """The problem for programs that show plain text to people, as Git does."""
        return f"{printable(self.detail)}\n".encode()

    def body(
        self,
        request_id: str,
        dialect: ProblemDialect = ProblemDialect.OURS,
        said: str = "",
        messages: bool = False,
    ) -> bytes:
        """The problem document, with this occurrence's request id as its instance. Clients of other protocols find
        what they read in the member `error`. `said`: the detail in the language of a person, for a script of a page.
        `messages`: with what detail and errors were made of, for those who can translate it."""
        told = self._with_texts(printable)  # many parsers refuse lone surrogates in JSON
        document: dict[str, object] = {
            "type": f"urn:prichal:problem:{self.kind.slug}",
            "title": self.title or self.kind.title,
            "status": self.code,
            "detail": told.detail,
            "instance": f"urn:prichal:request:{request_id}",
            **told.extra,
        }
        if said:
            document["said"] = said
        if messages:
            document["messages"] = [as_document(text) for text in (told.detail, *_faults(told))]
        if self.retry_after:
            document["retryAfter"] = self.retry_after
        if dialect is ProblemDialect.OPEN_INFERENCE:
            document["error"] = told.detail
        elif dialect is ProblemDialect.OPENAI:
            document["error"] = told.openai_error()
        return json.dumps(document).encode()

    def openai_error(self) -> dict[str, str | None]:
        return {
            "message": self.detail,
            "type": "server_error" if self.code >= 500 else "invalid_request_error",
            "param": None,
            "code": self.kind.slug.replace("-", "_"),
        }


def _faults(problem: HttpProblem) -> list[str]:
    errors = problem.extra.get("errors", [])
    return (
        [str(each.get("detail", "")) for each in errors if isinstance(each, dict)]
        if isinstance(errors, list)
        else []
    )


def _changed(member: Any, change: Callable[[str], str]) -> Any:
    if isinstance(member, str):
        return changed(member, change)
    if isinstance(member, Mapping):
        return {name: _changed(value, change) for name, value in member.items()}
    if isinstance(member, list | tuple):
        return [_changed(value, change) for value in member]
    return member


def method_problem(detail: str, allowed: str) -> HttpProblem:
    """Return the problem of a method that a path does not take. The gateway makes it the answer to `OPTIONS`, so that
    every path takes that."""
    return HttpProblem(ProblemKind.METHOD, detail, allow=f"{allowed}, OPTIONS")


class RequestRefused(Exception):
    """Raised where a request ends with a problem."""

    def __init__(self, problem: HttpProblem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    def __reduce__(self) -> tuple[type[RequestRefused], tuple[HttpProblem]]:
        return RequestRefused, (self.problem,)
