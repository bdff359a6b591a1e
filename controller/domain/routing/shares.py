"""How much of one worker of the gateway an app may take at once. Pure; the gateway holds it, the daemon shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.domain.apps.usage import Resource
from controller.domain.routing.async_calls import CallLimits

API_REQUESTS: Final = 24  # requests for files and runs that wait for a thread
PASSWORD_CHECKS: Final = 32  # under way or waiting
TRANSFERS: Final = 1000  # of all apps, between callers and the storage


def shares_of_app(queue_limit: int, per_app: int, sockets: int, calls: CallLimits) -> Mapping[Resource, int]:
    """Return the bounds of an app, from `web.queueLimit`, `web.perApp`, the smaller one of `web.sockets` and
    `web.socketsPerApp`, and those of async calls."""
    return {
        Resource.CALLS: min(per_app, queue_limit),
        Resource.SOCKETS: sockets,
        Resource.API_REQUESTS: API_REQUESTS,
        Resource.TRANSFERS: min(per_app, TRANSFERS),
        Resource.PASSWORD_CHECKS: PASSWORD_CHECKS,
        Resource.ASYNC_CALLS: calls.queued,
        Resource.ASYNC_RESULTS: calls.size_per_app,
    }
