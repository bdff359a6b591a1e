"""Where a request really comes from: the socket's address, or what a proxy that the administrator trusts says. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Origin:
    """Values of `X-Forwarded-For`, `-Proto` and `-Host` for the component."""

    address: bytes
    scheme: bytes
    host: bytes


class TrustedProxies:
    """`proxies` are addresses or networks."""

    def __init__(self, proxies: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
        self._trusts = lru_cache(maxsize=4096)(self._in_networks)

    def trusts(self, address: str) -> bool:
        return bool(self._networks) and self._trusts(address)

    def origin(self, address: str, scheme: str, headers: Mapping[bytes, bytes]) -> Origin:
        """A trusted proxy's `X-Forwarded-For` is kept and its own address put behind it; anybody else's is dropped."""
        host = headers.get(b"host", b"")
        if not self.trusts(address):
            return Origin(address.encode(), scheme.encode(), host)
        before = headers.get(b"x-forwarded-for", b"")
        return Origin(
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
