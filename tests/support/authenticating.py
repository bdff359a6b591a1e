"""Authenticates callers with the gateway's authenticator."""

from __future__ import annotations

import asyncio

from controller.web.auth.authenticate import AuthenticatedCaller, Authenticator
from controller.web.gateway.router import UpstreamTarget
from controller.web.problems import HttpProblem


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def identify(goal: UpstreamTarget, *authorizations: bytes | None) -> list[AuthenticatedCaller | HttpProblem]:
    async def run() -> list[AuthenticatedCaller | HttpProblem]:
        gate = Authenticator(Clock())
        try:
            return [await gate.identify(goal, authorization) for authorization in authorizations]
        finally:
            gate.close()

    return asyncio.run(run())
