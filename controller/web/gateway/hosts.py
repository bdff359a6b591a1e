"""Decides what each host name serves. With `web.appDomain` each app has its own name, `APP.<appDomain>`, and
so its own origin in browsers: its pages can neither read nor frame those of other apps and of the platform.
Every other name belongs to the platform. Pure; called by the ASGI application for each request, after
`router`.

Paths are the same at both: `https://demo.apps.example.org/demo/image/predict`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from controller.web.gateway.router import CallLookup, Decision, ForwardCall, ServeService, not_found

_PORT = re.compile(rb":(\d{1,5})$")


@dataclass(frozen=True)
class HostRedirect:
    """The request is redirected to the host of the app, with its method and body. `authority` is that host, with
    the port that the request was sent to."""

    authority: bytes


@dataclass(frozen=True)
class HostNames:
    """`domain` is the common domain of apps' names, without a leading dot."""

    domain: bytes

    def judge(self, host: bytes, path: bytes, decision: Decision) -> Decision | HostRedirect:
        """Adapt `decision` to this host, the value of the `Host` field. A name of an app serves only that
        app; all other names serve only the platform."""
        name, port = _split(host)
        app = self._app(name)
        if app is None:
            if isinstance(decision, ForwardCall | CallLookup | ServeService):
                return HostRedirect(b"%b.%b%b" % (path.split(b"/", 2)[1], self.domain, port))
            return decision
        return decision if app and path.startswith(b"/%b/" % app) else not_found()

    def _app(self, name: bytes) -> bytes | None:
        """Return the app of a host name, None for the platform's own name, and "" for a name that no app can have."""
        app, dot, domain = name.partition(b".")
        if dot and domain == self.domain:
            return app
        return b"" if name.endswith(b"." + self.domain) else None


def _split(host: bytes) -> tuple[bytes, bytes]:
    """Return the name, in lower case and without the dot of the root, and the port with its colon. Proxies
    may send several hosts, of which the first is the caller's."""
    host = host.partition(b",")[0].strip().lower()
    found = _PORT.search(host)
    port = found[0] if found else b""
    return host.removesuffix(port).removesuffix(b"."), port
