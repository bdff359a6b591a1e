"""`python -m benchmarks.empty_reply [STATUS]`: a server that reads each request to its end, gives an empty answer, by
default 503, and closes the connection. Prints its port when it is ready.

What attackers cost who send to this server is what they cost on this machine at least: they, the network and the load
share its processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_STATUS = int(sys.argv[1]) if len(sys.argv) > 1 else 503
_ANSWER = b"HTTP/1.1 %d Status\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % _STATUS
BODY_TIMEOUT = 5.0  # seconds for a body, as the platform has for one that it refuses


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        length = _LENGTH.search(head)
        left = int(length[1]) if length else 0
        async with asyncio.timeout(BODY_TIMEOUT):
            while left > 0 and (data := await reader.read(min(left, 2**18))):
                left -= len(data)
    writer.close()


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
