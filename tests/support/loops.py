"""Coroutines of tests on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import uvloop


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function."""

    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """On the loop that gunicorn's workers use; a scenario that hangs is a failure."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    uvloop.run(bounded())
