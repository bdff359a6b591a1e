"""Measures how long a caller waits for the first word of a stream: a chat through the whole path, beside the least
server of one's own, called directly."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, closing
from functools import partial
from statistics import median

from benchmarks.environment import PROCESSORS, WAIT_LIMIT, Adder, Environment, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.load import LoadFailed, Target, connect
from controller.domain import labels

CALLS, ROUNDS = 300, 5
CHAT = json.dumps(
    {"model": "words", "messages": [{"role": "user", "content": "what?"}], "stream": True}
).encode()
WORD, END = b"to ", b"\r\n0\r\n\r\n"
PATH, DIRECT = "whole path, openai: chat", "container directly, openai: chat"
OWN_PATH, OWN = "whole path, own server", "own server directly"


class Words(Adder):
    """A module with two components that say the same words, each with its API."""

    def commit(self, offset: int) -> str:
        base = {
            "image": {"existingImageName": self._image},
            "resources": {"cpus": PROCESSORS, "memory": "256Mi"},
        }
        service = {"inference": "words:predict", "openai": "chat"}
        self.component("words", **base, mlService=service).api("words", "words")
        self.component("own", **base, mlService={"server": "own", "readyPath": "/"}).api("own", "own")
        self._git("add", "--all")
        self._git(
            "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "--quiet", "--message", "Say"
        )
        return self._git("rev-parse", "HEAD").strip()

    def through(self, path: str) -> Target:
        return Target(("127.0.0.1", self._platform.port), f"/{self.app}/{path}", CHAT, WORD)

    def directly(self, component: str, path: str) -> Target:
        """The container itself, past the gateway."""
        found = self._platform.containers(self.app, running=True)
        (container,) = (one for one in found if one["Labels"][labels.COMPONENT] == component)
        address = next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]
        return Target((address, 8002), path, CHAT, WORD)


def measure(ground: Environment) -> Section:
    section = Section("streams", "the first word of a stream, one connection, beside a server of one's own")
    with ExitStack() as stack:
        module = Words(stack.enter_context(running_platform(ground)), ground)
        module.deploy(0)
        targets = {
            PATH: module.through("words/v1/chat/completions"),
            DIRECT: module.directly("words", "/v1/chat/completions"),
            OWN_PATH: module.through("own/chat"),
            OWN: module.directly("own", "/chat"),
        }
        readers = {
            name: partial(_first, stack.enter_context(closing(connect(target.address))), target)
            for name, target in targets.items()
        }
        count = ground.count(CALLS, 3)
        times = in_turns(
            {name: partial(_timed, first, count) for name, first in readers.items()}, ground.count(ROUNDS)
        )
    for name, measured in times.items():
        section.add(f"{name}, first word", "ms", measured)
    added = [path - own for path, own in zip(times[PATH], times[OWN], strict=True)]
    section.add("what the whole path adds to an own server", "ms", added, aim="1 ms")
    return section


def _timed(first: partial[float], count: int) -> float:
    return 1e3 * median(first() for _ in range(count))


def _first(connection: socket.socket, target: Target) -> float:
    """The seconds from the request to the first word; the rest of the stream is read, too."""
    connection.settimeout(WAIT_LIMIT)
    begun = time.perf_counter()
    connection.sendall(target.request)
    reply, at = b"", 0.0
    while not reply.endswith(END):
        piece = connection.recv(65536)
        reply += piece
        if not at and WORD in reply:
            at = time.perf_counter()
        if not piece or not reply.startswith(b"HTTP/1.1 200"[: len(reply)]):
            raise LoadFailed(f"{target.address}{target.path} answers {reply[:300]!r}")
    if not at:
        raise LoadFailed(f"{target.address}{target.path} streams no word: {reply[:300]!r}")
    return at - begun
