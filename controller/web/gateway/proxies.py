"""Finds the client address of a request: that of the socket, or the one that a trusted proxy states. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Values of `X-Forwarded-For`, `-Proto` and `-Host` for the component."""

    address: bytes
    scheme: bytes
    host: bytes

    @property
    def caller(self) -> bytes:
        """Return the address of the nearest proxy's client, or else that of the socket: earlier addresses may
        be forged."""
        hops = self.address.rsplit(b",", 2)
        return hops[-2].strip() if len(hops) > 1 else hops[0]


@lru_cache(maxsize=1024)  # the same callers call again and again
def _direct(address: str, scheme: str, host: bytes) -> RequestOrigin:
    return RequestOrigin(address.encode(), scheme.encode(), host)


class TrustedProxies:
    """`proxies` are addresses or networks."""

    def __init__(self, proxies: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
        self._trusts = lru_cache(maxsize=4096)(self._in_networks)

    def trusts(self, address: str) -> bool:
        return bool(self._networks) and self._trusts(address)

    def origin(self, address: str, scheme: str, headers: Mapping[bytes, bytes]) -> RequestOrigin:
        """Return the origin. The address of a trusted proxy is appended to its `X-Forwarded-For`; other
        callers' fields are dropped."""
        host = headers.get(b"host", b"")
        if not self.trusts(address):
            return _direct(address, scheme, host)
        before = headers.get(b"x-forwarded-for", b"")
        return RequestOrigin(
            b"%b, %b" % (before, address.encode()) if before else address.encode(),
            headers.get(b"x-forwarded-proto", scheme.encode()),
            headers.get(b"x-forwarded-host", host),
        )

    def _in_networks(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
