"""Connections whose header does not come are closed, be it that nothing comes or a byte now and then."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from controller.web import server


@pytest.mark.parametrize("drips", [False, True])
def test_the_header_of_the_first_request_has_a_deadline(monkeypatch: pytest.MonkeyPatch, drips: bool) -> None:
    monkeypatch.setattr(server, "HEADER", 0.2)

    async def run() -> bytes:
        loop, config = asyncio.get_running_loop(), Config()
        worker = SimpleNamespace(cfg=config, log=Logger(config), asgi=None, loop=loop, nr_conns=0, alive=True)
        listening = await loop.create_server(lambda: gasgi.ASGIProtocol(worker), "127.0.0.1", 0)
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            if drips:
                writer.write(b"GET / HTTP/1.1\r\n")
            ended = asyncio.create_task(reader.read())
            while drips and not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.01)
            writer.close()
            return await ended

    assert asyncio.run(run()) == b""
