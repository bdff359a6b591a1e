"""Responses as gzip (RFC 9110 8.4) for clients that accept it, where the time of the network that is saved is worth
the time of the processor. Pure. Used for the answers of a worker, and by the platform's gateway for its own.

Small texts are always worth it. Large ones must shrink well: JSON of random numbers becomes half as long at some
20 MB/s, which is slower than the network that it spares.
"""

from __future__ import annotations

import re

from .http1 import Body, HttpRequest, HttpResponse

LEAST = 1024  # bytes: fewer fit into one packet anyway
ALWAYS = 256 * 1024  # bytes: of more, a sample is tried before
SAMPLE = 64 * 1024
WORTH = 3  # times shorter that the sample must become
LEVEL = 1  # higher ones cost two to six times as much for some percent

_TYPE = re.compile(
    r"(?:text/(?!event-stream)[\w.+-]+|application/(?:json|javascript|xml|yaml|[\w.-]+\+(?:json|xml))|image/svg\+xml)"
    r"\s*(?:;.*)?",
    re.DOTALL,
)
_QUALITY = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def accepts_gzip(field: bytes) -> bool:
    """Does the field ``Accept-Encoding`` take gzip at least as well as no coding?"""
    weights: dict[bytes, float] = {}
    for part in field.lower().split(b","):
        coding, *parameters = (piece.strip() for piece in part.split(b";"))
        found = [match for parameter in parameters if (match := _QUALITY.fullmatch(parameter))]
        weights[coding] = float(found[0][1]) if found else 1.0
    gzip = weights.get(b"gzip", weights.get(b"x-gzip", weights.get(b"*", 0.0)))
    return gzip > 0 and gzip >= weights.get(b"identity", 0.0)


def is_compressible(content_type: str, size: int) -> bool:
    """May such content become much shorter? Event streams do not: each event has to leave at once."""
    return size >= LEAST and _TYPE.fullmatch(content_type.lower()) is not None


def gzipped(body: Body) -> Body:
    """The body as gzip, or as it was if that is not worth it. Takes up to 10 ms, for a large body that shrinks well
    10 ms for each MB or so."""
    if len(body) > ALWAYS and len(_gzip(body[:SAMPLE])) > SAMPLE // WORTH:
        return body
    coded = _gzip(body)
    return coded if len(coded) < len(body) else body


def compress(request: HttpRequest, response: HttpResponse) -> None:
    """Replace the body of a response if the client takes that. Files behind a body are counted by its length, and one
    in several pieces is mostly numbers."""
    size = len(response.body)
    if size < LEAST or response.more or response.files or request.files is not None:
        return
    if not is_compressible(response.content_type, size):
        return
    response.headers = [*response.headers, ("Vary", "Accept-Encoding")]
    if accepts_gzip(request.headers.get(b"accept-encoding", b"")):
        body = gzipped(response.body)
        if body is not response.body:
            response.body = body
            response.headers = [*response.headers, ("Content-Encoding", "gzip")]


def _gzip(body: Body) -> bytes:
    import zlib  # here: many workers never need it

    made = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return made.compress(body) + made.flush()
