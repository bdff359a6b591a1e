"""`prichal doctor` and the page of health say of each issuer what keeps people from signing in, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config import OpenIdIssuer, Settings
from controller.config.settings import SignInSettings
from controller.daemon.doctor.issuers import BYTES, check_issuers
from controller.domain.findings import Finding
from tests.support.issuer import issuer, make_certificate
from tests.support.openid_provider import OpenIdProvider


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    found = OpenIdProvider()
    found.start()
    found.publish()
    yield found
    found.stop()


def settings_with(*urls: str) -> Settings:
    allowed = tuple(OpenIdIssuer(f"issuer{number}", url, "prichal") for number, url in enumerate(urls))
    return Settings(sign_in=SignInSettings(oidc=allowed))


def finding(*urls: str, within: float = 20.0) -> Finding:
    with pytest.raises(Finding) as caught:
        check_issuers(settings_with(*urls), within)
    return caught.value


def test_one_that_works_and_none_at_all(provider: OpenIdProvider) -> None:
    assert (
        check_issuers(settings_with(provider.url)) == "issuer0: discovery and keys answer, the clocks agree"
    )
    assert "none is configured" in check_issuers(Settings())


def test_what_is_wrong_and_what_to_do(provider: OpenIdProvider) -> None:
    provider.answers[provider.keys] = (503, {}, b"")
    assert "answers 503" in finding(provider.url).detail
    provider.serve(provider.keys, {"keys": []})
    assert "has no keys" in finding(provider.url).detail
    provider.metadata = {"token_endpoint": None}
    provider.publish()
    assert "has no token_endpoint" in finding(provider.url).detail
    provider.metadata = {"jwks_uri": "file:///etc/passwd"}
    provider.publish()
    assert "has no jwks_uri" in finding(provider.url).detail
    provider.metadata = {"issuer": "https://other.example"}
    provider.publish()
    found = finding(provider.url)
    assert "is that of https://other.example" in found.detail
    assert "write issuer in people.oidc exactly" in found.advice
    for content in (b"<html>", b"[]", b"[" * 100_000, b"x" * (BYTES + 1)):
        provider.answers[provider.discovery] = (200, {}, content)
        assert "something else than a JSON object" in finding(provider.url).detail
    assert "answers 404" in finding(f"{provider.url}/elsewhere").detail


def test_clocks_that_differ(provider: OpenIdProvider) -> None:
    """An answer that a cache has kept for an hour, but is of this moment, was made an hour ahead."""
    status, headers, content = provider.answers[provider.discovery]
    provider.answers[provider.discovery] = (status, {**headers, "Age": "3600"}, content)
    found = finding(provider.url)
    assert "3600 s behind" in found.detail or "3599 s behind" in found.detail
    assert "timedatectl set-ntp true" in found.advice
    provider.answers[provider.discovery] = (status, {**headers, "Age": "soon"}, content)
    assert "the clocks agree" in check_issuers(settings_with(provider.url))


def test_those_that_do_not_answer_are_told_together(provider: OpenIdProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in (silent, other)]
        found = finding(*urls, within=0.1)
    assert "issuer0" in found.detail
    assert "issuer1" in found.detail
    assert found.advice.count("people.oidc") == 1  # of both
    gone = provider.url
    provider.stop()
    assert "does not answer" in finding(gone).detail


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    with issuer(certificate=make_certificate(tmp_path / "issuer.pem")) as found:
        assert "update-ca-certificates" in finding(found.url).advice
