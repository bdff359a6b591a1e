"""The post-receive hook of repositories hosted here: it reports a push to the platform, and shows the result
to the person who pushed.

git-receive-pack runs `run` in a `python3 -I -S`, with the path of the repository as the argument and
"<before> <after> <ref>" lines on standard input; its standard error is shown to that person as `remote: …` lines. The
push has been accepted by then: nothing here can fail it, and nothing is lost if the platform does not answer, since
polling finds the commit later.

Every push waits until this program has started and has told the platform. Python itself needs 10 ms for that, and
json, re, socket and hmac would need 25 ms more: so what is built into the interpreter does their work here, and
requests are HTTP/1.0, written by hand. The hook imports this file, because Python compiles one that it runs each time.
What is built in differs between interpreters: where some of it is not there, or is used in another way, the modules
do their work themselves.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

TYPE_CHECKING = False  # what type checkers take for typing's own, whose import takes 5 ms
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Connection(Protocol):
        def sendall(self, data: bytes, /) -> object: ...
        def recv(self, size: int, /) -> bytes: ...


CONFIG = "prichal.json"  # in the repository: {"name", "url", "secret"}
LIMIT = 600.0  # seconds that a push waits at most
LONG_POLL = 20  # seconds that the platform may hold back a response
TIMEOUT = 10.0  # additional seconds
RETRIES, PAUSE = 5, 1.0  # while the platform restarts, say
OUTAGE = 60.0  # seconds without an answer after which a push that waits for the result gives up
NEW = 600.0  # seconds for which a repository counts as new
ANNOUNCE_TIMEOUT = 30.0  # seconds in which the platform should know a new one, however busy the host is
DELETED = "0" * 40
BLOCK = 64  # bytes of a block of SHA-256
WORDS = 8  # characters of an event that the last line need not repeat

OUTCOMES = {
    "Ready": "ready",
    "Degraded": "FAILED: the previous version keeps serving",
    "Failed": "FAILED: the running version was kept",
    "Superseded": "superseded by a newer commit",
    "Suspended": "suspended: the commit is applied after `prichal resume`",
    "Waiting": "waiting for something that is not ready yet; it continues automatically",
}


class NoAnswer(Exception):
    """The platform cannot be reached or refuses the request. `status` is that of its response, "" without
    one; `passing` means that another attempt may succeed.
    """

    def __init__(self, message: str, status: str = "", passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.passing = passing


class PlatformClient:
    """The platform's HTTP interface for pushes, as described in docs/guide/git.md."""

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
        change = {"ref": ref, "before": before, "after": after, "pusher": pusher(os.environ)}
        if push := os.environ.get("PRICHAL_PUSH"):  # over HTTPS: by it the platform knows who pushes
            change["push"] = push
        body = text_object(change).encode()
        delivery = os.urandom(16).hex()
        headers = {"X-Delivery": delivery, "X-Prichal-Push": "1", "Content-Type": "application/json"}
        return self._ask("POST", self._hooks, body, body, headers, TIMEOUT)

    def progress(self, delivery: str, after: int, ref: str, build: str) -> dict[str, Any]:
        """Return news, at the latest after LONG_POLL seconds: events after one, lines of builds after a place."""
        query = f"after={after}&build={build}&wait={LONG_POLL}&ref={quoted(ref)}"
        path = f"{self._hooks}/{delivery}?{query}"
        return self._ask("GET", path, b"", path.encode(), {}, LONG_POLL + TIMEOUT)

    def _ask(
        self, method: str, path: str, body: bytes, signed: bytes, headers: dict[str, str], timeout: float
    ) -> dict[str, Any]:
        signature = _signature(self._secret, signed)
        lines = [f"{method} {path} HTTP/1.0", f"Host: {self._authority}", f"X-Signature: sha256={signature}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "Accept: application/json", "Connection: close", "", ""]
        try:
            answer = self._exchange("\r\n".join(lines).encode() + body, timeout)
        except OSError as error:
            why = f"the platform does not answer at {self._authority} ({error})"
            raise NoAnswer(why, passing=isinstance(error, ConnectionError)) from error
        return _parse(answer)

    def _exchange(self, request: bytes, timeout: float) -> bytes:
        """Send a request. HTTP/1.0: the response ends with the connection and is never chunked."""
        if self._tls:
            with self._encrypted(timeout) as connection:
                return _answer(connection, request)
        plain = connected(self._address, timeout)
        try:
            return _answer(plain, request)
        finally:
            plain.close()

    def _encrypted(self, timeout: float) -> ssl.SSLSocket:
        import socket
        import ssl  # takes 10 ms, which most pushes need not spend

        plain = socket.create_connection(self._address, timeout)
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=self._address[0])
        except OSError:
            plain.close()
            raise


def connected(address: tuple[str, int], timeout: float) -> _socket.socket:
    """Return a connection. Raises OSError, the last one if none of several addresses can be reached."""
    last = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, place in _socket.getaddrinfo(*address, 0, _socket.SOCK_STREAM):
        connection = _socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            last = error
    raise last


def _answer(connection: Connection, request: bytes) -> bytes:
    connection.sendall(request)
    return b"".join(iter(lambda: connection.recv(65536), b""))


class _Json:
    """How the interpreter's own reader reads; json.JSONDecoder has the same."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float


def _json() -> tuple[Callable[[str], str], Callable[[str, int], tuple[Any, int]]]:
    """Return what writes a text as JSON, and what reads JSON from a place on."""
    like: Any = _Json()
    try:
        from _json import encode_basestring_ascii, make_scanner

        scan: Any = make_scanner(like)
        if encode_basestring_ascii("ä") == '"\\u00e4"' and scan('{"a": [1]}', 0) == ({"a": [1]}, 10):
            return encode_basestring_ascii, scan
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    import json

    return json.dumps, json.JSONDecoder().raw_decode


def _signature(secret: bytes, content: bytes) -> str:
    """Return the HMAC (RFC 2104) with SHA-256. hmac would load OpenSSL, which takes 3 ms."""
    try:
        sha256 = _sha256()
        key = (secret if len(secret) <= BLOCK else sha256(secret).digest()).ljust(BLOCK, b"\0")
        inner = sha256(bytes(byte ^ 0x36 for byte in key) + content).digest()
        return str(sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest())
    except (ImportError, AttributeError, TypeError, ValueError):
        import hmac

        return hmac.new(secret, content, "sha256").hexdigest()


def _sha256() -> Callable[[bytes], Any]:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore] # since Python 3.12
    except ImportError:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    return sha256  # type: ignore[no-any-return, unused-ignore]


_text_as_json, _read_json = _json()


def text_object(content: Mapping[str, str]) -> str:
    """Return a JSON object of texts."""
    texts = (f"{_text_as_json(key)}:{_text_as_json(content[key])}" for key in content)
    return f"{{{','.join(texts)}}}"


def read_object(text: str) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError."""
    try:
        content, end = _read_json(text.strip(" \t\r\n"), 0)
    except (StopIteration, ValueError, RecursionError, SystemError):
        # SystemError: where json is not imported, it does not find the class of the error that it wants to raise.
        raise ValueError("this is not JSON") from None
    if end != len(text.strip(" \t\r\n")) or not isinstance(content, dict):
        raise ValueError("this is not a JSON object")
    return content


def pusher(environment: Mapping[str, str]) -> str:
    """Return who pushes: over HTTP as the platform has identified them, over SSH the user of the host; else ""."""
    if name := environment.get("REMOTE_USER"):
        return name
    return environment.get("USER", "") if "SSH_CONNECTION" in environment else ""


def _parse(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode("ascii", "replace") if head.startswith(b"HTTP/") else "no status"
    try:
        content = read_object(body.decode())
    except ValueError:
        content = None
    if status.startswith("2") and content is not None:
        return content
    detail = content.get("detail") or content.get("title") if content is not None else None
    why = f": {str(detail).rstrip('.')}" if detail else ""
    raise NoAnswer(
        f"the platform answers {status}{why}", status, passing=status.startswith("5") or not answer
    )


def print_line(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"prichal: {line}\n")
    sys.stderr.flush()


def print_news(events: list[dict[str, Any]], build: str) -> list[str]:
    """Print events, and what builds have said after the event that one has begun. Return the events' messages."""
    lines = "\n".join(f"| {line}" for line in build.splitlines())
    begun = max((n for n, event in enumerate(events) if event.get("reason") == "Building"), default=-1)
    if begun < 0:
        print_line(lines)
    for number, event in enumerate(events):
        component = f"{event['component']}: " if event.get("component") else ""
        print_line(f"{component}{event['message']}")
        if number == begun:
            print_line(lines)
    return [str(event["message"]) for event in events]


def quoted(text: str) -> str:
    """Return a text as the value of a query; urllib would take 20 ms to import."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )


def announce(
    platform: PlatformClient, pushed: list[str], timeout: float, pause: float = PAUSE
) -> list[tuple[str, str]]:
    """Announce every ref, and return the ids of deliveries to wait for, each with its ref. `timeout` is in seconds in
    which the platform may not know the repository yet.
    """
    deliveries = []
    until = time.monotonic() + timeout
    for line in pushed:
        before, after, ref = line.split(" ", 2)
        answer = accepted(platform, (before, after, ref), until, pause)
        if answer.get("status") == "skipped":
            print_line(f"nothing to do: {answer.get('reason', ref)}")
        elif "links" in answer:
            print_line(f"{ref} is {'deleted' if after == DELETED else f'at {after[:12]}'}; reconciling")
            deliveries.append((str(answer["id"]), ref))
    return deliveries


def accepted(
    platform: PlatformClient, change: tuple[str, str, str], until: float, pause: float
) -> dict[str, Any]:
    """Return the platform's response to an announcement. Raises NoAnswer if there is none or it is a refusal."""
    failures, said = 0, False
    while True:
        try:
            return platform.announce(*change)
        except NoAnswer as error:
            unknown = error.status == "404"
            failures += 0 if unknown else 1
            if failures > RETRIES or (not error.passing and not unknown):
                raise
            if unknown and time.monotonic() >= until:
                raise
            if unknown and not said:
                print_line("this repository is new: waiting until the platform knows it")
                said = True
        time.sleep(pause)


def announce_timeout(repository: str) -> float:
    """Return the seconds to wait for a new repository: `prichal repo create --connect` returns as soon as the
    platform folder is written.
    """
    age = time.time() - os.stat(os.path.join(repository, CONFIG)).st_mtime
    return ANNOUNCE_TIMEOUT if age < NEW else 0.0


class Outage:
    """Attempts without an answer, one after another."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = time.monotonic()

    def note(self, error: NoAnswer) -> None:
        """Count an attempt, and say so before it gets long. Raises `error` when it is enough: refusals soon are."""
        self._failures += 1
        is_refused = error.status != "" and not error.passing
        is_long = time.monotonic() - self._since > OUTAGE
        if self._failures > RETRIES and (is_refused or is_long):
            raise error
        if self._failures == RETRIES:
            print_line(f"{error}; trying again for up to {OUTAGE:g} s")


def follow(platform: PlatformClient, delivery: str, ref: str, deadline: float) -> None:
    """Print events and what builds say until the work is done."""
    started, seen, place = time.monotonic(), 0, ""
    outage = Outage()
    told: list[str] = []
    while time.monotonic() < deadline:
        asked = time.monotonic()
        try:
            answer = platform.progress(delivery, seen, ref, place)
        except NoAnswer as error:
            outage.note(error)
            time.sleep(PAUSE)
            continue
        outage = Outage()
        build = answer.get("build") or {}
        place = str(build.get("next") or place)
        told += print_news(answer.get("events", ()), str(build.get("text") or ""))
        seen = max((seen, *(int(event["id"]) for event in answer.get("events", ()))))
        if answer.get("state") == "done":
            print_line(verdict(answer, time.monotonic() - started, told))
            for line in answer.get("open", ()):
                print_line(str(line))
            return
        if not answer.get("events") and time.monotonic() - asked < PAUSE:
            time.sleep(PAUSE)  # do not flood a platform that does not hold back its responses
    print_line(f"not done after {LIMIT:g} s; it continues in the background. See: prichal status")


def verdict(answer: dict[str, Any], seconds: float, told: list[str]) -> str:
    """Return how it ended, and why, as far as the events have not shown it."""
    import re

    outcome, message = str(answer.get("outcome")), str(answer.get("message") or "")
    text = f"{OUTCOMES.get(outcome, outcome)} after {seconds:.1f} s"
    if outcome == "Ready" or (message and any(message in event for event in told)):
        return text
    for event in sorted(told, key=len, reverse=True):
        if len(event) >= WORDS:  # a short word may be within another one by chance
            message = re.sub(rf"(?<!\w){re.escape(event)}(?!\w)", "see above", message)
    message = re.sub(r"see above(\s+see above)+", "see above", message)
    return f"{text}: {message}" if message else text


def main(repository: str, pushed: list[str]) -> None:
    try:
        with open(os.path.join(repository, CONFIG), encoding="utf-8") as file:
            config = read_object(file.read())
        platform = PlatformClient(config["url"], config["name"], config["secret"])
        deadline = time.monotonic() + LIMIT
        for delivery, ref in announce(platform, pushed, announce_timeout(repository)):
            follow(platform, delivery, ref, deadline)
    except NoAnswer as error:
        print_line(f"{error}.\nYour commit was received and will be picked up by polling.")
    except (OSError, KeyError, ValueError, TypeError) as error:
        print_line(f"the hook of this repository does not work ({type(error).__name__}: {error}).")
        print_line(
            "Your commit was received and will be picked up by polling. Repair it with: prichal repo create"
        )


def run() -> None:
    try:
        # As bytes: the names of branches need not be UTF-8, and hold characters at which only text is split.
        given = sys.stdin.buffer.read().splitlines()
        main(sys.argv[1], [line.decode("utf-8", "surrogateescape") for line in given])
    except (KeyboardInterrupt, BrokenPipeError):
        # The person who pushed has left, and the work continues. Nothing may be flushed into the closed pipe
        # at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


if __name__ == "__main__":  # as hooks of earlier versions run it
    run()
