"""Sets the response headers that keep a page of a module, which may share the platform's origin, from reading
responses. Pure; the ASGI application applies it to every response of the platform's own, errors and streams too.

The platform's pages and documents open in an origin of their own (`sandbox`), so that to a module's page they
are like pages of another host. An opener policy would add nothing to that, and a page with both is an error
by the HTML standard. They are never framed, embedded or cached. Which requests of scripts are refused: see
admin.py."""

from __future__ import annotations

from typing import Final

from controller import __version__
from controller.web.auth import page_tokens
from controller.web.gateway.body import Message, Send
from controller.web.gateway.headers import Header, combined

_POLICY: Final = b"content-security-policy"

#: For all responses on behalf of a user: files, runs and their descriptions.
PRIVATE: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)

#: Of all below /-/, too.
OWN: Final[tuple[Header, ...]] = (
    *PRIVATE,
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"prichal-version", __version__.encode()),  # clients of another release say so
)

#: Of the files in web/static: everybody may read them, and a sandboxed page is an origin of its own.
STATIC: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"access-control-allow-origin", b"*"),
)

#: Of responses to scripts of our pages. They send their token in a field, and no cookie.
TO_SCRIPT: Final[tuple[Header, ...]] = (
    (b"access-control-allow-origin", page_tokens.ORIGIN.encode()),
    (b"access-control-expose-headers", b"content-range, location, retry-after, x-request-id"),
    (b"vary", b"origin"),
)
_PREFLIGHT: Final[tuple[Header, ...]] = (
    *TO_SCRIPT,
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (
        b"access-control-allow-headers",
        b"x-prichal-page, content-type, if-none-match, range, idempotency-key, last-event-id",
    ),
    (b"access-control-max-age", b"600"),
)

#: Of a response that has no policy of its own: it is not a page.
NOTHING: Final = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


def fields_for(scope: Message) -> tuple[Header, ...]:
    """Return the fields of the response to a request below /-/."""
    if scope["path"].startswith("/-/static/"):
        return STATIC
    return (*OWN, *TO_SCRIPT) if is_of_script(scope) else OWN


def is_of_script(scope: Message) -> bool:
    """Return True if a script in a sandboxed page makes the request, and says that the page is ours."""
    fields = combined(scope["headers"])
    return fields.get(b"origin") == page_tokens.ORIGIN.encode() and page_tokens.HEADER.encode() in fields


def preflight(scope: Message) -> tuple[Header, ...] | None:
    """Return the fields of the answer if the browser asks on behalf of such a script. It tells nothing to
    anybody: the request that follows has to carry the token."""
    fields = combined(scope["headers"])
    asked = fields.get(b"access-control-request-headers", b"").lower()
    is_asked = scope["method"] == "OPTIONS" and fields.get(b"origin") == page_tokens.ORIGIN.encode()
    return _PREFLIGHT if is_asked and page_tokens.HEADER.encode() in asked else None


def with_browser_headers(send: Send, fields: tuple[Header, ...]) -> Send:
    """Return a `send` that sets these fields and a policy in each response."""
    names = {name for name, _ in fields}

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if header[0].lower() not in names]
            if all(name.lower() != _POLICY for name, _ in kept):
                kept.append((_POLICY, NOTHING))
            message = {**message, "headers": [*kept, *fields]}
        await send(message)

    return guarded
