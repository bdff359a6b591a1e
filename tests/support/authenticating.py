"""Callers before the gate: who the authenticator takes them for."""

from __future__ import annotations

import asyncio

from controller.web.access.auth import Authenticator, Caller
from controller.web.gateway.decide import Target
from controller.web.problems import Problem


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def identify(goal: Target, *authorizations: bytes | None) -> list[Caller | Problem]:
    async def run() -> list[Caller | Problem]:
        gate = Authenticator(Clock())
        try:
            return [await gate.identify(goal, authorization) for authorization in authorizations]
        finally:
            gate.close()

    return asyncio.run(run())
