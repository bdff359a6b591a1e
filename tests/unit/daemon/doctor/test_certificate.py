"""The certificate of the platform's address, as `prichal doctor` sees it over real TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from controller.config import Settings, WebSettings
from controller.daemon.doctor.certificate import check_certificate
from controller.domain.findings import Finding
from tests.support.issuer import make_certificate
from tests.support.receivers import receiver


def settings(url: str) -> Settings:
    return Settings(web=WebSettings(public_url=url))


@pytest.fixture(scope="module", name="pem")
def _pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


def test_a_certificate_that_ends_soon(pem: Path) -> None:
    with receiver(certificate=pem) as there, pytest.raises(Finding) as found:
        check_certificate(settings(there.url), ssl.create_default_context(cafile=pem))
    assert found.value.detail in (
        "the certificate of 127.0.0.1 ends in 0 days",
        "the certificate of 127.0.0.1 ends in 1 days",
    )


def test_a_certificate_that_nobody_trusts(pem: Path) -> None:
    with receiver(certificate=pem) as there, pytest.raises(Finding) as found:
        check_certificate(settings(there.url))
    assert found.value.detail == "the certificate of 127.0.0.1 is not valid: self-signed certificate"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is not https"),
        ("http://ml.example.org", "is not https"),
        ("https://127.0.0.1:1", "cannot be asked from this host"),
    ],
)
def test_what_cannot_be_looked_at_is_no_problem(url: str, words: str) -> None:
    assert words in check_certificate(settings(url))
