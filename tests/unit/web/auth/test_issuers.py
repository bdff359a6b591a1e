"""Keys of issuers: what is taken for a key, what is fetched and how often, what counts while nobody answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.web.auth import discovery, issuers
from controller.web.auth.discovery import IssuerFailed, checked_url, fetch_json, fetch_keys, read_keys
from controller.web.auth.issuers import Issuers, IssuerUnreachable
from tests.support.issuer import (
    Issuer,
    SigningKey,
    issuer,
    make_certificate,
    make_key,
    signing_key,
)

FIRST, SECOND = signing_key("first"), signing_key("second")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def with_issuers(play: Callable[[Issuers, Clock], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = Clock()
        known = Issuers(clock)
        try:
            await play(known, clock)
        finally:
            known.close()

    asyncio.run(run())


# --- key sets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "fields", "usable"),
    [
        ("RS256", {}, {"RS256"}),
        ("RS256", {"use": None, "key_ops": ["verify"]}, {"RS256"}),
        ("RS256", {"alg": None}, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("RS256", {"alg": "PS512"}, {"PS512"}),
        ("ES256", {"alg": None}, {"ES256"}),
        ("ES384", {}, {"ES384"}),
        ("ES512", {}, {"ES512"}),
        ("EdDSA", {"alg": None}, {"EdDSA"}),
        ("RS256", {"use": "enc"}, set()),
        ("RS256", {"key_ops": ["encrypt"]}, set()),
        ("RS256", {"alg": "HS256"}, set()),
        ("RS256", {"alg": "none"}, set()),
        ("RS256", {"alg": "RSA-OAEP"}, set()),
        ("RS256", {"kty": "oct", "k": "c2VjcmV0"}, set()),
        ("RS256", {"kty": ["RSA"]}, set()),
        ("RS256", {"n": "!"}, set()),
        ("RS256", {"n": None}, set()),
        ("RS256", {"n": 7}, set()),
        ("RS256", {"n": "_" * 1367}, set()),
        ("RS256", {"e": "AQAAAAB"}, set()),
        ("RS256", {"e": "AQAAAQ"}, {"RS256"}),
        ("ES256", {"alg": "ES384"}, set()),
        ("ES256", {"crv": "P-384", "alg": None}, set()),
        ("ES256", {"crv": "secp256k1", "alg": None}, set()),
    ],
)
def test_what_a_key_may_be_used_with(algorithm: str, fields: dict[str, Any], usable: set[str]) -> None:
    spare = signing_key("spare", "EdDSA").jwk()
    found = read_keys({"keys": [signing_key("it", algorithm).jwk(**fields), spare]})
    assert {key.algorithm_name for key in found.keys if key.key_id == "it"} == usable


def test_a_short_key_is_passed_over() -> None:
    short = SigningKey("short", "RS256", make_key("RS256", bits=1024))
    with pytest.raises(IssuerFailed, match="no key that could be used"):
        read_keys({"keys": [short.jwk()]})


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": [1, "x", None, {}]}, {"keys": []}])
def test_a_key_set_without_keys(document: dict[str, Any]) -> None:
    with pytest.raises(IssuerFailed, match="no key that could be used"):
        read_keys(document)


def test_a_token_without_kid_fits_an_only_key() -> None:
    assert read_keys({"keys": [FIRST.jwk()]}).find("RS256", None)
    assert not read_keys({"keys": [FIRST.jwk(), SECOND.jwk()]}).find("RS256", None)
    assert not read_keys({"keys": [FIRST.jwk()]}).find("RS512", None)


# --- what is fetched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "plain", "good"),
    [
        ("https://id.example.org/realm", False, True),
        ("https://id.example.org:8443", True, True),
        ("http://127.0.0.1:8080/realm", True, True),
        ("http://localhost", True, True),
        ("http://[::1]:80", True, True),
        ("http://127.0.0.1:8080/realm", False, False),
        ("http://id.example.org", True, False),
        ("http://127.0.0.1.example.org", True, False),
        ("http://127.0.0.1@id.example.org", True, False),
        ("file:///etc/passwd", True, False),
        ("ftp://127.0.0.1", True, False),
        ("https://", True, False),
        ("https://[::1", True, False),
        ("https://id.example.org:port", True, False),
        ("", True, False),
    ],
)
def test_which_urls_are_asked(url: str, plain: bool, good: bool) -> None:
    if good:
        assert checked_url(url, plain).geturl() == url
    else:
        with pytest.raises(IssuerFailed):
            checked_url(url, plain)


def test_discovery_leads_to_the_keys() -> None:
    with issuer(FIRST, signing_key("curve", "ES256")) as running:
        found = fetch_keys(running.url)
        assert running.asked == [running.discovery, running.keys]
    assert [(key.key_id, key.algorithm_name) for key in found.keys] == [
        ("first", "RS256"),
        ("curve", "ES256"),
    ]


def _other_issuer(running: Issuer) -> None:
    running.serve(running.discovery, {"issuer": running.url + "/", "jwks_uri": running.url + "/keys"})


def _no_keys_url(running: Issuer) -> None:
    running.serve(running.discovery, {"issuer": running.url})


def _keys_elsewhere_in_plain(running: Issuer) -> None:
    running.serve(running.discovery, {"issuer": running.url, "jwks_uri": "http://id.example.org/keys"})


def _redirect(running: Issuer) -> None:
    running.answers[running.discovery] = (302, {"Location": "/elsewhere"}, b"")


def _large(running: Issuer) -> None:
    running.answers[running.keys] = (200, {}, b" " * (discovery.ANSWER_BYTES + 1))


def _not_json(running: Issuer) -> None:
    running.answers[running.keys] = (200, {}, b"<html>")


def _nested(running: Issuer) -> None:
    running.answers[running.keys] = (200, {}, b"[" * 100_000)


def _list(running: Issuer) -> None:
    running.serve(running.keys, [])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_issuer, "discovery document is that of"),
        (_no_keys_url, "no jwks_uri"),
        (_keys_elsewhere_in_plain, "'http://id.example.org/keys' is not an https URL"),
        (_redirect, "answers 302"),
        (_large, "more than 262144 bytes"),
        (_not_json, "is not JSON"),
        (_nested, "is not JSON"),
        (_list, "is not a JSON object"),
        (Issuer.stop, "refused"),
    ],
)
def test_an_issuer_that_is_not_believed(spoil: Callable[[Issuer], None], said: str) -> None:
    with issuer(FIRST) as running:
        spoil(running)
        with pytest.raises(IssuerFailed, match=said):
            fetch_keys(running.url)


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused; with one that counts, keys without TLS are."""
    certificate = make_certificate(tmp_path / "issuer.pem")
    with issuer(FIRST, certificate=certificate) as running, issuer(FIRST) as plain:
        with pytest.raises(IssuerFailed, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_keys(running.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch_keys(running.url).find("RS256", "first")
        running.serve(running.discovery, {"issuer": running.url, "jwks_uri": f"{plain.url}/keys"})
        with pytest.raises(IssuerFailed, match="is not an https URL"):
            fetch_keys(running.url)
        assert plain.asked == []


def test_a_trickle_is_ended() -> None:
    """A server that never stops sending its header: each byte comes in time, the answer never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def trickle() -> str:
            loop = asyncio.get_running_loop()
            url = checked_url(f"http://127.0.0.1:{listener.getsockname()[1]}/slow", plain=True)
            fetch = loop.run_in_executor(None, fetch_json, url, 0.2)
            listener.setblocking(False)
            connection, _ = await loop.sock_accept(listener)
            with connection:
                connection.setblocking(False)
                await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\nX: ")
                while not fetch.done():
                    try:
                        await loop.sock_sendall(connection, b"x")
                    except ConnectionError:
                        break
                    await asyncio.wait([fetch], timeout=0.05)
                with pytest.raises(IssuerFailed) as failed:
                    await fetch
            return str(failed.value)

        assert "/slow" in asyncio.run(trickle())


# --- how often, and what counts meanwhile -------------------------------------------------------------------------


def test_many_callers_wait_for_one_fetch() -> None:
    with issuer(FIRST) as running:

        async def play(known: Issuers, _: Clock) -> None:
            keys = await asyncio.gather(*(known.key(running.url, "RS256", "first") for _ in range(20)))
            assert all(keys)

        with_issuers(play)
        assert running.fetches() == 1


def test_an_unknown_kid_makes_it_look_again_once_a_minute() -> None:
    with issuer(FIRST) as running:

        async def play(known: Issuers, clock: Clock) -> None:
            assert await known.key(running.url, "RS256", "first")
            running.publish(FIRST, SECOND)
            for number in range(5):
                assert await known.key(running.url, "RS256", f"guess {number}") is None
            assert running.fetches() == 1
            clock.now += issuers.AGAIN
            assert await known.key(running.url, "RS256", "second")
            assert await known.key(running.url, "RS256", "guess") is None
            assert running.fetches() == 2

        with_issuers(play)


def test_a_withdrawn_key_counts_until_its_lifetime_is_over() -> None:
    with issuer(FIRST) as running:

        async def play(known: Issuers, clock: Clock) -> None:
            assert await known.key(running.url, "RS256", "first")
            running.publish(SECOND)
            clock.now += issuers.LIFETIME - 1
            assert await known.key(running.url, "RS256", "first")
            clock.now += 1
            assert await known.key(running.url, "RS256", "first") is None
            assert await known.key(running.url, "RS256", "second")

        with_issuers(play)


def test_known_keys_count_for_a_day_while_the_issuer_is_away() -> None:
    with issuer(FIRST) as running:

        async def play(known: Issuers, clock: Clock) -> None:
            assert await known.key(running.url, "RS256", "first")
            running.stop()
            clock.now += issuers.LIFETIME
            assert await known.key(running.url, "RS256", "first")
            with pytest.raises(IssuerUnreachable) as unknown:
                await known.key(running.url, "RS256", "second")
            assert unknown.value.retry_after == issuers.AGAIN
            clock.now += issuers.STALE - issuers.LIFETIME
            with pytest.raises(IssuerUnreachable):
                await known.key(running.url, "RS256", "first")
            running.start()
            clock.now += issuers.AGAIN
            assert await known.key(running.url, "RS256", "first")

        with_issuers(play)


def test_an_issuer_that_was_never_there_is_asked_again_soon() -> None:
    with issuer(FIRST) as running:
        running.answers[running.discovery] = (500, {}, b"")

        async def play(known: Issuers, clock: Clock) -> None:
            for _ in range(3):
                with pytest.raises(IssuerUnreachable) as away:
                    await known.key(running.url, "RS256", "first")
                assert away.value.retry_after == issuers.RETRY
            assert running.asked == [running.discovery]
            running.publish(FIRST)
            clock.now += issuers.RETRY
            assert await known.key(running.url, "RS256", "first")

        with_issuers(play)


def test_a_caller_does_not_wait_for_ever() -> None:
    """A server that takes the connection and says nothing, until the caller has gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def run() -> None:
            known = Issuers(Clock(), timeout=0.01)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with pytest.raises(IssuerUnreachable):
                await known.key(url, "RS256", "first")
            known.close()

        asyncio.run(run())


def test_a_caller_who_leaves_does_not_end_the_fetch() -> None:
    with issuer(FIRST) as running:

        async def play(known: Issuers, _: Clock) -> None:
            leaving = asyncio.ensure_future(known.key(running.url, "RS256", "first"))
            await asyncio.sleep(0)
            staying = asyncio.ensure_future(known.key(running.url, "RS256", "first"))
            await asyncio.sleep(0)
            leaving.cancel()
            assert await staying

        with_issuers(play)
        assert running.fetches() == 1
