"""What a caller is told when the Git service takes the connection and says nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from controller.web.git import endpoint
from controller.web.git.endpoint import _CarriedExchange
from controller.web.git.requests import read_git_target
from controller.web.problems import ProblemKind, RequestRefused


def header_of(said: bytes) -> ProblemKind | int:
    """Return the status of the header, or why the exchange was refused."""
    target = read_git_target("GET", b"/-/git/demo.git/info/refs", b"service=git-upload-pack")

    async def ask() -> ProblemKind | int:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.sendall(said)
        exchange = _CarriedExchange(target, near, 1000, None)
        try:
            return (await exchange._header())[0].status
        except RequestRefused as refused:
            return refused.problem.kind
        finally:
            exchange.close()
            far.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("said", [b"", b"Content-Type: application/x"])
def test_a_service_that_cannot_be_started_is_waited_for_no_longer_than_a_minute(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(endpoint, "BEGINNING", 0.05)
    assert header_of(said) is ProblemKind.GIT_SERVICE


def test_a_header_is_read_to_its_end() -> None:
    assert header_of(b"Content-Type: application/x\r\n\r\nbody") == 200
