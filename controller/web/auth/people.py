"""Finds out who makes a request to the platform's own interface: the admin token, a person's API token, a person's
session, or this host where it is trusted. Used by the Flask application and, in a thread, by the live endpoints.

Scripts of our own pages carry a token (page_tokens.py), and then nothing else counts.

The cookie of a session opens only what a person opens in a window of its own (`is_read`): pages of modules may share
our origin, and browsers send the cookie along for them, too. What changes something is a form of ours, which carries
a value that only the holder of the session was shown. Our pages are sandboxed, so browsers send no cookie with their
forms, and that value stands for the session by itself.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from controller.config import WebSettings
from controller.domain.apps.branch_previews import BranchPreview
from controller.domain.people.roles import Principal, administrator, with_previews
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth import page_tokens
from controller.web.auth.admin import (
    SAFE,
    ClientInfo,
    has_token,
    is_of_this_host,
    is_read,
    is_trusted,
    names_loopback,
    origin_of,
)

SESSION: Final = "prichal-session"
LOGIN: Final = "prichal-login"  # the cookie that binds a sign-in to the browser in which it began
LONGEST: Final = 200  # characters of a secret that is looked up
_BEARER: Final = "bearer"
_HOST: Final = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


class Callers:
    """Threads may share it."""

    def __init__(
        self,
        people: PeopleStore,
        settings: WebSettings,
        clock: Callable[[], float] = time.time,
        previews: Callable[[], Iterable[BranchPreview]] = tuple,
    ) -> None:
        self._people = people
        self._settings = settings
        self._clock = clock
        self._previews = previews
        self.limits = SessionLimits(settings.session_idle, settings.session_lifetime)

    def identify(self, client: ClientInfo) -> Principal | None:
        """Return the principal; None if the request has no credentials, or invalid ones."""
        return self._whole(self._identify(client))

    def _whole(self, found: Principal | None) -> Principal | None:
        """Return who was found with the roles that they have in previews of their apps."""
        if found is None or not found.grants or found.is_admin:
            return found
        return with_previews(found, ((each.app, each.of) for each in self._previews()))

    def _identify(self, client: ClientInfo) -> Principal | None:
        if page_tokens.HEADER in client.headers:
            return self._by_page(client)
        if has_token(client, self._settings):
            return administrator("admin token")
        scheme, _, value = client.headers.get("authorization", "").partition(" ")
        if scheme.lower() == _BEARER:
            return self._people.by_token(value.strip(), self._clock()) if len(value) <= LONGEST else None
        secret = self.cookie(client, SESSION)
        if secret and client.method in SAFE and is_read(client):
            found = self._people.session(secret, self.limits, self._clock())
            if found is not None:
                return found
        return administrator("this host") if is_trusted(client, self._settings) else None

    def _by_page(self, client: ClientInfo) -> Principal | None:
        """Return whom the page was shown to whose script makes this request."""
        text = client.headers.get(page_tokens.HEADER, "")
        token, now = page_tokens.read_token(text), self._clock()
        if token is None or client.headers.get("origin") != page_tokens.ORIGIN:
            return None
        if not token.opens(client.method, client.path, now):
            return None
        if not page_tokens.is_genuine(text, self._page_key(token.holder)):
            return None
        if token.holder == page_tokens.ADMIN:
            return administrator("admin token")
        if token.holder == page_tokens.HOST:
            return administrator("this host") if is_of_this_host(client, self._settings) else None
        return self._people.session_by_id(token.holder, self.limits, now, is_use=client.method not in SAFE)

    def page_token(self, principal: Principal, path: str, writes: str = "") -> str:
        """Return a token for the scripts of a page that is shown to this caller; "" if there can be none. They may read
        what is at `path` and below, and change what is at `writes` and below."""
        key = self._page_key(holder := _holder(principal))
        expires = int(self._clock() + page_tokens.LIFETIME)
        return page_tokens.PageToken(holder, path, writes, expires).signed(key) if key else ""

    def by_form(self, client: ClientInfo, value: str) -> Principal | None:
        """Return who was shown the form with this value; a browser that sends a cookie, too, must send theirs."""
        return self._whole(self._by_form(client, value))

    def _by_form(self, client: ClientInfo, value: str) -> Principal | None:
        id, _, signature = value.partition(".")
        if not is_form_post(client) or not 0 < len(value) <= LONGEST:
            return None
        key = self._people.session_key(id)
        if not key or not hmac.compare_digest(_signature(key).encode(), signature.encode("utf-8", "replace")):
            return None
        found = self._people.session_by_id(id, self.limits, self._clock())
        secret = self.cookie(client, SESSION)
        if secret and found is not None:
            other = self._people.session(secret, self.limits, self._clock())
            return found if other is not None and other.session == found.session else None
        return found

    def form_value(self, principal: Principal) -> str:
        """Return what forms for this session carry; "" for callers without one, who get no forms."""
        key = self._people.session_key(principal.session) if principal.session else ""
        return f"{principal.session}.{_signature(key)}" if key else ""

    def _page_key(self, holder: str) -> str:
        if holder in (page_tokens.ADMIN, page_tokens.HOST):
            return self._settings.admin_token.reveal() if self._settings.admin_token else ""
        return self._people.session_key(holder) if holder else ""

    def address(self, client: ClientInfo) -> str:
        return origin_of(client, self._settings).caller.decode("latin-1")

    def url(self, client: ClientInfo) -> str:
        """Return the URL by which the platform was reached; "" if the caller's `Host` cannot be that of one."""
        origin = origin_of(client, self._settings)
        host = origin.host.partition(b",")[0].strip().decode("latin-1")
        scheme = "https" if self.is_https(client) else "http"
        return f"{scheme}://{host}" if _HOST.fullmatch(host) else ""

    def is_https(self, client: ClientInfo) -> bool:
        return origin_of(client, self._settings).scheme.partition(b",")[0].strip() == b"https"

    def is_private(self, client: ClientInfo) -> bool:
        """Return True if nobody on the way can read a password: over HTTPS, or on this host."""
        return self.is_https(client) or names_loopback(client.headers.get("host", ""))

    def cookie_name(self, client: ClientInfo, name: str) -> str:
        """Over HTTPS with the prefix that keeps scripts of other hosts and paths from setting it."""
        return f"__Host-{name}" if self.is_https(client) else name

    def cookie(self, client: ClientInfo, name: str) -> str:
        """Return the value of a cookie of ours. If there are several, another page has set one: none counts."""
        wanted = self.cookie_name(client, name)
        pairs = (part.strip().partition("=") for part in client.headers.get("cookie", "").split(";"))
        found = [value for key, _, value in pairs if key == wanted]
        return found[0] if len(found) == 1 and len(found[0]) <= LONGEST else ""


def is_form_post(client: ClientInfo) -> bool:
    """Return True for a form that a window sends, or a program; False for what scripts and frames send."""
    mode, dest = (client.headers.get(f"sec-fetch-{name}", "") for name in ("mode", "dest"))
    return client.method == "POST" and mode in ("", "navigate") and dest in ("", "document")


def is_window(client: ClientInfo) -> bool:
    """Return True if a browser opens this in a window of its own, so that a page helps more than a document."""
    return client.method in SAFE and client.headers.get("sec-fetch-mode") == "navigate" and is_read(client)


def _holder(principal: Principal) -> str:
    if principal.name:
        return principal.session
    return page_tokens.HOST if principal.via == "this host" else page_tokens.ADMIN


def _signature(key: str) -> str:
    return hmac.new(key.encode(), b"form", "sha256").hexdigest()
