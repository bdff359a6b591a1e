"""The post-receive hook of repositories hosted here: tells the platform of a push, and the pusher what comes of it.

Run by git-receive-pack as `python3 -I -S post_receive.py REPOSITORY` with "<before> <after> <ref>" lines on standard
input; what it writes to standard error arrives at the pusher as `remote: …` lines. The push has been accepted by then:
nothing here can fail it, and nothing is lost if the platform does not answer, for polling finds the commit later.

Every push waits for this program to start. Hence the standard library only, without pathlib and typing, and HTTP/1.0
by hand: importing http.client takes 45 ms, four times as long as Python itself.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
import sys
import time

TYPE_CHECKING = False  # what type checkers take for typing's own, whose import costs 5 ms
if TYPE_CHECKING:
    from typing import Any

CONFIG = "prichal.json"  # in the repository: {"name", "url", "secret"}
LIMIT = 600.0  # seconds that a pusher is kept waiting
LONG_POLL = 20  # seconds that the platform may hold back an answer
TIMEOUT = 10.0  # seconds beyond that
RETRIES, PAUSE = 5, 1.0  # while the platform is restarted, say
DELETED = "0" * 40

OUTCOMES = {
    "Ready": "ready",
    "Degraded": "FAILED, the version before goes on serving",
    "Failed": "FAILED, nothing was changed that had not to be",
    "Superseded": "a newer commit takes over",
    "Suspended": "suspended: it is applied after `prichal resume`",
    "Waiting": "waiting for something that is not there yet; it goes on by itself",
}


class NoAnswer(Exception):
    """The platform cannot be reached, or does not accept what we say."""


class Platform:
    """Its HTTP interface for pushes, as described in docs/guide/git.md."""

    def __init__(self, url: str, name: str, secret: str) -> None:
        scheme, _, rest = url.partition("://")
        self._tls = scheme == "https"
        authority, slash, prefix = rest.partition("/")
        self._authority = authority
        host, colon, port = authority.rpartition(":")
        self._address = (host.strip("[]"), int(port)) if colon else (authority, 443 if self._tls else 80)
        self._hooks = f"{slash}{prefix}".rstrip("/") + f"/-/hooks/{name}"
        self._secret = secret.encode()

    def announce(self, before: str, after: str, ref: str) -> dict[str, Any]:
        body = json.dumps({"ref": ref, "before": before, "after": after}).encode()
        delivery = os.urandom(16).hex()
        headers = {"X-Delivery": delivery, "X-Prichal-Push": "1", "Content-Type": "application/json"}
        return self._ask("POST", self._hooks, body, body, headers, TIMEOUT)

    def progress(self, delivery: str, after: int) -> dict[str, Any]:
        """Answers when there is something new, at the latest after LONG_POLL seconds."""
        path = f"{self._hooks}/{delivery}?after={after}&wait={LONG_POLL}"
        return self._ask("GET", path, b"", path.encode(), {}, LONG_POLL + TIMEOUT)

    def _ask(
        self, method: str, path: str, body: bytes, signed: bytes, headers: dict[str, str], timeout: float
    ) -> dict[str, Any]:
        signature = hmac.new(self._secret, signed, "sha256").hexdigest()
        lines = [f"{method} {path} HTTP/1.0", f"Host: {self._authority}", f"X-Signature: sha256={signature}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "Accept: application/json", "Connection: close", "", ""]
        try:
            answer = self._exchange("\r\n".join(lines).encode() + body, timeout)
        except OSError as error:
            raise NoAnswer(f"the platform does not answer at {self._authority} ({error})") from error
        return _parse(answer)

    def _exchange(self, request: bytes, timeout: float) -> bytes:
        """HTTP/1.0: the answer ends with the connection and is never chunked."""
        with socket.create_connection(self._address, timeout=timeout) as plain:
            connection = self._encrypted(plain) if self._tls else plain
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def _encrypted(self, plain: socket.socket) -> socket.socket:
        import ssl  # 10 ms that most pushes do not need

        return ssl.create_default_context().wrap_socket(plain, server_hostname=self._address[0])


def _parse(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode("ascii", "replace") if head.startswith(b"HTTP/") else "no status"
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if status.startswith("2") and isinstance(content, dict):
        return content
    detail = content.get("detail") or content.get("title") if isinstance(content, dict) else None
    raise NoAnswer(f"the platform answers {status}" + (f": {detail}" if detail else ""))


def say(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"prichal: {line}\n")
    sys.stderr.flush()


def announce(platform: Platform, pushed: list[str]) -> list[str]:
    """Tell of every ref; the delivery ids that are worth waiting for."""
    deliveries = []
    for line in pushed:
        before, after, ref = line.split()
        answer = platform.announce(before, after, ref)
        if answer.get("status") == "skipped":
            say(f"nothing to do: {answer.get('reason', ref)}")
        elif "links" in answer:
            say(f"{ref} is {'deleted' if after == DELETED else f'at {after[:12]}'}; converging")
            deliveries.append(str(answer["id"]))
    return deliveries


def follow(platform: Platform, delivery: str, deadline: float) -> None:
    """Print events until the work is done."""
    started, seen, failures = time.monotonic(), 0, 0
    while time.monotonic() < deadline:
        asked = time.monotonic()
        try:
            answer = platform.progress(delivery, seen)
        except NoAnswer:
            failures += 1
            if failures > RETRIES:
                raise
            time.sleep(PAUSE)
            continue
        failures = 0
        for event in answer.get("events", ()):
            seen = max(seen, int(event["id"]))
            component = f"{event['component']}: " if event.get("component") else ""
            say(f"{component}{event['message']}")
        if answer.get("state") == "done":
            say(verdict(answer, time.monotonic() - started))
            return
        if not answer.get("events") and time.monotonic() - asked < PAUSE:
            time.sleep(PAUSE)  # a platform that does not hold back its answers is not to be flooded
    say(f"not done after {LIMIT:g} s; it goes on without you. See: prichal status")


def verdict(answer: dict[str, Any], seconds: float) -> str:
    outcome, message = str(answer.get("outcome")), answer.get("message")
    text = f"{OUTCOMES.get(outcome, outcome)} after {seconds:.1f} s"
    return f"{text}: {message}" if message and outcome != "Ready" else text


def main(repository: str, pushed: list[str]) -> None:
    try:
        with open(os.path.join(repository, CONFIG), encoding="utf-8") as file:
            config = json.load(file)
        platform = Platform(config["url"], config["name"], config["secret"])
        deadline = time.monotonic() + LIMIT
        for delivery in announce(platform, pushed):
            follow(platform, delivery, deadline)
    except NoAnswer as error:
        say(f"{error}.\nYour commit was received and will be picked up by polling.")
    except (OSError, KeyError, ValueError, TypeError) as error:
        say(f"this repository's hook does not work ({type(error).__name__}: {error}).")
        say("Your commit was received and will be picked up by polling. Mend it with: prichal repo create")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.stdin.read().splitlines())
    except (KeyboardInterrupt, BrokenPipeError):
        # The pusher has left. That is fine: the work goes on. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
