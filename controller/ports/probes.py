"""Probes: requests to a component before it gets calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.domain.apps.smoke import SmokeAnswer, SmokeCase


@dataclass(frozen=True)
class Readiness:
    """Whether a server is ready; if not, `detail` has its answer, if there is one."""

    ready: bool
    detail: str = ""


class Prober(Protocol):
    def probe(self, endpoint: str, path: str, timeout: float) -> Readiness:
        """Request `http://endpoint/path`; never raises."""

    def read(self, endpoint: str, path: str, timeout: float) -> str:
        """Return the first 64 KiB of what `http://endpoint/path` answers with 200, else ""; never raises."""

    def call(
        self,
        endpoint: str,
        case: SmokeCase,
        headers: Mapping[str, str],
        timeout: float,
        unless: Callable[[], bool],
    ) -> SmokeAnswer:
        """Send the request of a smoke test; never raises. It is given up after `timeout` seconds, or when `unless`
        returns True, which is called from another thread."""
