"""Where the object proxy listens."""

from __future__ import annotations

import logging
import socket
from contextlib import closing

import pytest

from controller.web.objects.listen import ListenSocket


def test_an_address_that_is_taken_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with caplog.at_level(logging.ERROR):
            assert opened(ListenSocket(address), attempts=2) is None
        assert address in caplog.text
        assert "storage.listen" in caplog.text
    door = ListenSocket(address)
    sock = opened(door, attempts=1)
    assert sock is not None
    with closing(sock):
        assert sock.getsockname() == host_and_port(address)
        assert opened(door) is sock


def opened(door: ListenSocket, attempts: int = 1) -> socket.socket | None:
    door.open(attempts)
    return door.socket


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_where_there_is_no_storage_nothing_listens() -> None:
    door = ListenSocket("")
    door.open()
    assert door.socket is None
