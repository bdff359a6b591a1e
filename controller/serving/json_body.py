"""Reads the body of a request as JSON, in as little memory as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

from . import http1, jsontext, problems
from .http1 import HttpRequest
from .json_pieces import Sinks
from .problems import RequestFault, ServingProblem
from .texts import Text

JSON_TYPES = (b"application/json",)
_CHARSETS = (b"", b"utf-8", b"utf8", b"us-ascii")


def decode(request: HttpRequest, also: Sequence[bytes] = ()) -> Any:
    """The body as JSON. ``also``: content types that are taken for JSON beside its own, b"" for none
    at all. Raises ServingProblem 415, 400 or 422.
    """
    content_type = request.headers.get(b"content-type", b"")
    if content_type not in JSON_TYPES and not _is_json(content_type, also):
        given = (
            Text("not {value!r}", value=content_type.decode("latin-1"))
            if content_type
            else Text("but no Content-Type is given")
        )
        raise ServingProblem(
            problems.MEDIA_TYPE, Text("Content-Type must be application/json, {given}", given=given)
        )
    if jsontext.is_large(request.body):
        value = parse(request.body, request.sinks)
        request.body = b""  # the text is not needed beside what was made of it
        return value
    return parse(_text(request))


def _text(request: HttpRequest) -> str:
    """The body as text, in whose place it is let go: both and what is made of them would take memory at once."""
    body, request.body = request.body, b""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from error


def _not_utf8(error: UnicodeDecodeError) -> ServingProblem:
    return ServingProblem(
        problems.MALFORMED_JSON, Text("the body is not UTF-8 (byte {start})", start=error.start)
    )


def parse(text: Union[str, http1.Body], sinks: Optional[Sinks] = None) -> Any:
    """JSON from text or from its UTF-8, with large arrays of numbers in ``sinks``. Raises ServingProblem 400 or 422."""
    try:
        return jsontext.read(text) if isinstance(text, str) else jsontext.read_bytes(text, sinks)
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from error
    except jsontext.TooDeep as error:
        raise problems.invalid([RequestFault("", str(error))]) from error
    except ValueError as error:
        detail = str(error) if text.strip() else Text("the body is empty")
        raise ServingProblem(problems.MALFORMED_JSON, detail) from error


def _is_json(content_type: bytes, also: Sequence[bytes]) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.partition(b"charset=")[2].strip(b' "')
    kind = kind.strip()
    return (kind == b"application/json" or kind.endswith(b"+json") or kind in also) and charset in _CHARSETS
