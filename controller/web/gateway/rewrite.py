"""Translates addresses and cookies in a component's response for its callers: the component assumes that it
is at the root of a host, but is published below `/<app>/<path>`. Pure; called by `headers` for the few fields
that need it.

Every function takes time linear in its input, since a component may send anything.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

#: URLs as browsers read them (https://url.spec.whatwg.org/): a backslash is a slash, and more than two
#: slashes are two.
_URL = re.compile(rb"(?:https?:[/\\]*|[/\\]{2,})([^/\\?#]*)(.*)", re.IGNORECASE | re.DOTALL)
#: Of /\NAME and ///NAME, too, browsers make a host, but servers mean a path.
_HOST = re.compile(rb"//[^/\\]")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_PORT = re.compile(rb":([0-9]*)\Z")
_CONTAINER_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "0.0.0.0", "::1", "::"))  # noqa: S104 - what an address means, or is said to containers
_DEFAULT_PORTS: Final = frozenset(("", "80", "443"))

#: A target between angle brackets, or a quoted text, in which there may be such brackets, too.
_LINK = re.compile(rb'"(?:[^"\\]|\\.)*+"?|<([^>]*+)>?', re.DOTALL)
_REFRESH = re.compile(rb"([^;,]*[;,]\s*(?:url\s*=\s*)?)(['\"]?)(.*)", re.IGNORECASE | re.DOTALL)

#: Browsers take such a cookie only for a whole host, with `Path=/`.
HOST_PREFIX: Final = b"__host-"


@dataclass(frozen=True, slots=True)
class PublicSite:
    """The published address of a component, and the names that it may use for itself. `path` is the requested
    one; `host` is the caller's; `endpoints` are `IP:PORT`; `component` is `<app>.<component>`, part of its
    containers' names."""

    prefix: bytes
    path: bytes
    host: bytes
    endpoints: tuple[str, ...]
    component: str

    def rewrite(self, name: bytes, value: bytes) -> bytes:
        """Return the value of a field of REWRITTEN for the caller."""
        match name:
            case b"set-cookie":
                return set_cookie(value, self)
            case b"link":
                return _LINK.sub(lambda found: self._link(found), value)
            case b"refresh":
                return self._refresh(value)
            case _:
                return location(value, self)

    def _link(self, found: re.Match[bytes]) -> bytes:
        target: bytes | None = found[1]
        closed = target is not None and found[0].endswith(b">")
        return b"<%b>" % location(found[1], self) if closed else found[0]

    def _refresh(self, value: bytes) -> bytes:
        found = _REFRESH.fullmatch(value)
        if found is None:
            return value  # seconds only: the same page again
        before, quote, rest = found.groups()
        url, end, more = rest.partition(quote) if quote else (rest, b"", b"")
        return b"%b%b%b%b%b" % (before, quote, location(url, self), end, more)

    def is_own(self, authority: bytes) -> bool:
        """Return True if the authority of a URL is one of the component's names."""
        text = authority.rpartition(b"@")[2]
        host, port = _host_and_port(text)
        caller, caller_port = _host_and_port(self.host)
        own = [_host_and_port(endpoint.encode()) for endpoint in self.endpoints]
        if any(host == name for name, _ in own) or self._is_container(host):
            return True
        if host == caller and _same_port(port, caller_port):
            return True
        # A server that knows only its own port appends it to the requested host, its loopback address, or a
        # name of its network.
        local = host == caller or host in _LOOPBACK or not set(host) & set(".:")
        return local and any(port == number for _, number in own)

    def _is_container(self, host: str) -> bool:
        if _CONTAINER_ID.fullmatch(host):
            return True
        name = rf"(?:.*\.)?{re.escape(self.component)}\.[0-9a-f]{{8}}\.[0-9]+(?:\..*)?"
        return re.fullmatch(name, host) is not None


#: Fields with addresses or cookies, in lower case.
REWRITTEN: Final = frozenset((b"location", b"content-location", b"refresh", b"link", b"set-cookie"))


def location(value: bytes, site: PublicSite) -> bytes:
    """Return a URL or path of the component as a path below the prefix, and any other URL unchanged."""
    found = _URL.fullmatch(value)
    if found is not None and found[1] and site.is_own(found[1]):
        return _below(found[2], site.prefix)
    if value[:1] in (b"/", b"\\") and not _HOST.match(value):
        return _below(value, site.prefix)
    if (
        site.path.partition(b"?")[0] != b"/"
        or _SCHEME.match(value)
        or value[:1] in (b"", b"/", b".", b"?", b"#")
    ):
        return value
    # If the caller requested the prefix without a slash at its end, a relative URL would lead out of it.
    return b"%b/%b" % (site.prefix, value)


def _below(path: bytes, prefix: bytes) -> bytes:
    if not path.startswith(b"/"):
        path = b"/" + path.removeprefix(b"\\")
    return path if is_below(path, prefix) else prefix + path


def is_below(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?", b"#")


def _same_port(port: str, other: str) -> bool:
    return port == other or (port in _DEFAULT_PORTS and other in _DEFAULT_PORTS)


def _host_and_port(authority: bytes) -> tuple[str, str]:
    """Normalise host and port: lower case, addresses in their shortest form, an IPv4 address never as one of IPv6."""
    found = _PORT.search(authority)
    port = found[1].decode() if found else ""
    host = (authority[: found.start()] if found else authority).decode("latin-1").lower()
    host = host.removeprefix("[").removesuffix("]").removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host, port
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port


# --- cookies ----------------------------------------------------------------------------------------------------


def set_cookie(value: bytes, site: PublicSite) -> bytes:
    """Return the cookie for this API only: its path lies below the prefix, and it has no domain. One whose
    name begins with `__Host-` must have the path `/`, so the API becomes part of its name, by which `cookies`
    recognises it."""
    pair, *attributes = value.split(b";")
    kept, path = [], b""
    for attribute in attributes:
        name, _, text = attribute.partition(b"=")
        match name.strip().lower():
            case b"path":
                path = text.strip().strip(b'"')
            case b"domain":
                continue
            case _:
                kept.append(attribute)
    if pair.lstrip()[: len(HOST_PREFIX)].lower() == HOST_PREFIX:
        pair, path = _tagged(pair.lstrip(), site.prefix), b"/"
    else:
        path = path if path.startswith(b"/") else _folder(site.path)
        path = site.prefix if path == b"/" else _below(path, site.prefix)
    return b";".join((pair, b" Path=" + path, *kept))


def _folder(path: bytes) -> bytes:
    """Return the path of a cookie that has none (RFC 6265 §5.1.4)."""
    return path.partition(b"?")[0].rpartition(b"/")[0] or b"/"


def _tag(prefix: bytes) -> bytes:
    """Return the tag of the API. Names of apps and paths of APIs have no dot, so no tag begins with another one."""
    return prefix[1:].replace(b"/", b".") + b"."


def _tagged(pair: bytes, prefix: bytes) -> bytes:
    size = len(HOST_PREFIX)
    return pair[:size] + _tag(prefix) + pair[size:]


def cookies(value: bytes, prefix: bytes) -> bytes:
    """Return a `Cookie` field for the component: `__Host-` cookies get their own names back, and those of
    other APIs, which browsers send to all, are left out."""
    tag, size, kept = _tag(prefix), len(HOST_PREFIX), []
    for pair in (part.strip() for part in value.split(b";")):
        if pair[:size].lower() != HOST_PREFIX:
            kept.append(pair)
        elif pair.startswith(tag, size):
            kept.append(pair[:size] + pair[size + len(tag) :])
    return b"; ".join(pair for pair in kept if pair)
