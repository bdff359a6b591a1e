"""Sets the response headers that keep a page of a module, which may share the platform's origin, from reading
responses. Pure; the ASGI application applies it to every response of the platform's own, errors and streams too.

The platform's pages and documents open in an origin of their own (`sandbox`), so that to a module's page they
are like pages of another host. An opener policy would add nothing to that, and a page with both is an error
by the HTML standard. They are never framed, embedded or cached. Which requests of scripts are refused: see
admin.py."""

from __future__ import annotations

from typing import Final

from controller.web.gateway.body import Message, Send
from controller.web.gateway.headers import Header

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
)

#: Of a response that has no policy of its own: it is not a page.
NOTHING: Final = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


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
