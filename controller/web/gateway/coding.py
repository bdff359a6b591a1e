"""Content codings of request bodies (RFC 9110 §8.4) that the platform reads; components decode theirs themselves, see
`controller.serving`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.serving import http1, problems
from controller.web.gateway.body import too_large
from controller.web.gateway.headers import Header, combined
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

_LINE = re.compile(rb"^content-encoding: (.*)\r\n", re.MULTILINE)
_WISH = re.compile(rb"^accept-encoding: .*\r\n", re.MULTILINE)
_NONE = frozenset((b"", b"identity"))


def refuse_coded(headers: Iterable[Header]) -> None:
    """Refuse encoded bodies: requests that the platform answers itself must be sent without a content coding.
    Raises RequestRefused."""
    coding = combined(headers).get(b"content-encoding", b"")
    if coding.strip().lower() not in _NONE:
        given = coding[:100].decode("latin-1")
        raise RequestRefused(
            _unsupported(f"Content-Encoding must be left out here, not {given!r}.", "identity")
        )


def is_coded(lines: bytes) -> bool:
    return _LINE.search(lines) is not None


def any_coding(lines: bytes) -> bytes:
    """Return the header `lines` without the wish for a coding of the response."""
    return _WISH.sub(b"", lines)


def decoded(content: bytes, lines: bytes, limit: int) -> tuple[bytes, bytes]:
    """Return the decoded body, and the header `lines` without the coding. Raises RequestRefused."""
    codings = [coding.strip() for coding in _LINE.findall(lines)]
    if not codings:
        return content, lines
    try:
        plain = bytes(http1.decoded(content, b", ".join(codings), limit))
    except problems.ServingProblem as problem:
        raise _refused(problem, limit) from problem
    return plain, _LINE.sub(b"", lines)


def _refused(problem: problems.ServingProblem, limit: int) -> RequestRefused:
    if problem.kind is problems.TOO_LARGE:
        return too_large(limit)
    if problem.kind is problems.CONTENT_CODING:
        return RequestRefused(_unsupported(f"{problem.detail}.", "gzip"))
    return RequestRefused(HttpProblem(ProblemKind.MALFORMED_CODING, f"{problem.detail}."))


def _unsupported(detail: str, supported: str) -> HttpProblem:
    return HttpProblem(ProblemKind.CONTENT_CODING, detail, accept_encoding=supported)
