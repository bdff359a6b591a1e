"""The servers at which this user has logged in, with a token for each, in a file of the user's configuration folder
that nobody else may read (`$XDG_CONFIG_HOME/prichal/logins.json`, by default below `~/.config`).

One of them is the current one: commands use it when nothing else names a server.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from controller.atomic import replace_file
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

MOST: Final = 2**20  # bytes of the file
_LOOPBACK: Final = re.compile(r"localhost|127\.0\.0\.1|::1")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Login:
    """A token of a person at the server `url`. `app_domain` is what the names of the hosts of its apps end in, ""
    if all apps share the server's host; the token is good for these hosts, too. `ca_file` has the certificates of
    the only authorities trusted for this server, "" for those of the system."""

    url: str
    token: Secret
    user: str = ""
    scope: str = ""
    expires: str = ""
    app_domain: str = ""
    ca_file: str = ""

    def server_of(self, app: str) -> str:
        """Return the URL of the host that serves the app."""
        if not self.app_domain:
            return self.url
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{app}.{self.app_domain}" + (f":{parts.port}" if parts.port else "")

    def is_for(self, url: str) -> bool:
        """Return True if a request to this URL may carry the token."""
        if origin(url) == origin(self.url):
            return True
        host = urlsplit(url).hostname or ""
        app = host.removesuffix(f".{self.app_domain}") if self.app_domain else ""
        return bool(app) and app != host and "." not in app and origin(url) == origin(self.server_of(app))


@dataclass(frozen=True)
class Logins:
    current: str = ""
    all: tuple[Login, ...] = ()

    def find(self, url: str) -> Login | None:
        """Return the login for a server, given by its URL or that of an app's host."""
        return next((login for login in self.all if login.is_for(url)), None)

    @property
    def active(self) -> Login | None:
        return next((login for login in self.all if login.url == self.current), None)

    def with_login(self, login: Login) -> Logins:
        """Add a login, which becomes the current one."""
        others = (each for each in self.all if each.url != login.url)
        return Logins(login.url, (*others, login))

    def without(self, url: str) -> Logins:
        rest = tuple(each for each in self.all if each.url != url)
        return replace(self, current="" if self.current == url else self.current, all=rest)


def origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def server_url(text: str) -> str:
    """Return the URL of a platform as it is kept. Raises ValueError if it is not one."""
    parts = urlsplit(text if "://" in text else f"https://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not http(s)://HOST[:PORT]")
    if "@" in parts.netloc or parts.path.rstrip("/") not in ("", "/-") or not parts.netloc.isascii():
        raise ValueError(f"{text!r} is not http(s)://HOST[:PORT], without a path or a user name")
    _ = parts.port  # raises ValueError
    return f"{parts.scheme}://{parts.netloc.lower()}"


def is_private(url: str) -> bool:
    """Return True if nobody on the way can read a token: over HTTPS, or on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or _LOOPBACK.fullmatch(parts.hostname or "") is not None


@dataclass(frozen=True)
class LoginFile:
    path: Path = field(default_factory=lambda: config_folder() / "logins.json")

    def load(self) -> Logins:
        """Raises Stalled `LoginsUnusable`."""
        try:
            with self.path.open("rb") as file:
                self._require_private(os.fstat(file.fileno()))
                text = file.read(MOST + 1)
        except FileNotFoundError:
            return Logins()
        except OSError as error:
            raise self._unusable(f"cannot be read ({error.strerror})") from error
        try:
            return _logins(json.loads(text[:MOST]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._unusable("is damaged: remove it, and log in again") from error

    def save(self, logins: Logins) -> None:
        """Raises Stalled `LoginsUnusable`."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, json.dumps(_document(logins), indent=2) + "\n", 0o600, durable=True)
        except OSError as error:
            raise self._unusable(f"cannot be written ({error.strerror})") from error

    def _require_private(self, found: os.stat_result) -> None:
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
            raise self._unusable("has tokens, and others may read it. Make it private with: chmod 600")

    def _unusable(self, why: str) -> Stalled:
        return Stalled(Reason.LOGINS_UNUSABLE, f"{self.path} {why}")


def config_folder() -> Path:
    """Return the folder of this user's configuration of prichal (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".config") / "prichal"


def _logins(document: Any) -> Logins:
    return Logins(
        str(document.get("current", "")),
        tuple(_login(url, content) for url, content in document.get("servers", {}).items()),
    )


def _login(url: str, content: Any) -> Login:
    token, domain = content["token"], content.get("appDomain", "")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError("not a token")
    texts = (str(content.get(name, "")) for name in ("user", "scope", "expires"))
    user, scope, expires = texts
    ca_file = str(content.get("caFile", ""))
    return Login(server_url(url), Secret(token), user, scope, expires, domain_of(domain), ca_file)


def domain_of(value: object) -> str:
    """Return the domain of apps that a server names; "" if it is none."""
    return value if isinstance(value, str) and _DOMAIN.fullmatch(value) else ""


def _document(logins: Logins) -> dict[str, object]:
    servers = {
        login.url: {
            "token": login.token.reveal(),
            "user": login.user,
            "scope": login.scope,
            "expires": login.expires,
            "appDomain": login.app_domain,
            "caFile": login.ca_file,
        }
        for login in logins.all
    }
    return {"current": logins.current, "servers": servers}
