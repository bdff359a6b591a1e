"""Limits how often somebody may try a password, and logs each failed sign-in as one line that programs such as
fail2ban can parse (docs/guide/operations.md).

An attempt counts for the address and name together, so that attempts from elsewhere lock nobody out, and for
the address, so that nobody can try one password with all names. Users who have signed in from an address
before are not blocked there by others. The counts are in memory, in each worker, bounded."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

#: The name does not change with the module, because filters of fail2ban use it.
log = logging.getLogger("prichal.auth")

KEPT: Final = 8192  # keys of each kind
K = TypeVar("K")


@dataclass(frozen=True)
class AttemptRate:
    """A rate: a burst, and one more after each `pause` seconds."""

    burst: int
    pause: float


BY_NAME: Final = AttemptRate(5, 10.0)
BY_ADDRESS: Final = AttemptRate(50, 2.0)


class LoginAttempts:
    """Counts the attempts of one worker; used only on its event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._by_name = _Buckets[tuple[str, str, str]](BY_NAME, clock)
        self._by_address = _Buckets[str](BY_ADDRESS, clock)
        self._good: dict[tuple[str, str, str], None] = {}

    def begin(self, address: str, api: str, name: str) -> int:
        """Return 0 if a password may be checked now, else the seconds until then."""
        key = (_network(address), api, name)
        waits = [self._by_name.wait(key)]
        if key not in self._good and not _is_here(address):
            waits.append(self._by_address.wait(key[0]))
        if any(waits):
            return max(1, round(max(waits) + 0.5))
        self._by_name.take(key)
        self._by_address.take(key[0])
        return 0

    def give_back(self, address: str, api: str, name: str) -> None:
        """Take back an attempt that did not fail."""
        self._by_name.give_back((_network(address), api, name))
        self._by_address.give_back(_network(address))

    def succeeded(self, address: str, api: str, name: str) -> None:
        key = (_network(address), api, name)
        self.give_back(address, api, name)
        self._good.pop(key, None)
        self._good[key] = None
        if len(self._good) > KEPT:
            self._good.pop(next(iter(self._good)))


class _Buckets(Generic[K]):
    """The used part of the burst by key, and the time of that value."""

    def __init__(self, rate: AttemptRate, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._used: dict[K, tuple[float, float]] = {}

    def wait(self, key: K) -> float:
        return max(0.0, (self._now(key) - (self._rate.burst - 1)) * self._rate.pause)

    def take(self, key: K, number: float = 1.0) -> None:
        used = max(0.0, self._now(key) + number)
        self._used.pop(key, None)
        if used:
            self._used[key] = (used, self._clock())
        if len(self._used) > KEPT:
            self._used.pop(next(iter(self._used)))

    def give_back(self, key: K) -> None:
        self.take(key, -1.0)

    def _now(self, key: K) -> float:
        used, at = self._used.get(key, (0.0, 0.0))
        return max(0.0, used - (self._clock() - at) / self._rate.pause)


def log_failure(address: str, scheme: str, user: str, api: str) -> None:
    """Log one line, whatever user name the caller sent."""
    fields = {
        "address": address or "-",
        "scheme": scheme,
        "user": quote(user[:128], safe="@.-_") or "-",
        "api": api,
    }
    log.warning("sign-in failed", extra=fields)


def _network(address: str) -> str:
    """Return the network of an address, since a caller with IPv6 has 2^64 addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address


def _is_here(address: str) -> bool:
    """Return True for programs of this host; behind a proxy that is not configured, all callers have this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True
