"""Where tokens are kept, and which requests carry them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from controller.client.logins import (
    Login,
    LoginFile,
    Logins,
    config_folder,
    domain_of,
    is_private,
    server_url,
)
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.secret import Secret


@pytest.fixture
def file(tmp_path: Path) -> LoginFile:
    return LoginFile(tmp_path / "prichal" / "logins.json")


ONE = Login(
    "https://ml.example.org", Secret("prichal_one"), "anna", "deploy", "", "apps.example.org", "/ca.pem"
)
TWO = Login("http://127.0.0.1:8000", Secret("prichal_two"), "boris")


def test_what_is_saved_is_loaded(file: LoginFile) -> None:
    assert file.load() == Logins()
    logins = Logins().with_login(ONE).with_login(TWO)
    file.save(logins)
    assert file.load() == logins
    assert logins.active == TWO
    assert logins.without(TWO.url).active is None
    assert logins.without(ONE.url).active == TWO
    again = Login(ONE.url, Secret("prichal_new"))
    assert logins.with_login(again).all == (TWO, again)


def test_only_the_user_may_read_it(file: LoginFile) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        file.save(Logins().with_login(ONE))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.path.chmod(0o640)
    with pytest.raises(Stalled) as error:
        file.load()
    assert error.value.reason == Reason.LOGINS_UNUSABLE
    assert "chmod 600" in error.value.message
    assert "prichal_one" not in error.value.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"servers": {"https://a": {}}}',
        '{"servers": {"ftp://a": {"token": "t"}}}',
        "[" * 10_000,
    ]
    + [json.dumps({"servers": {"https://a": {"token": token}}}) for token in (1, None, "a\nb", "é")],
)
def test_a_damaged_file_is_told(file: LoginFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(text)
    file.path.chmod(0o600)
    with pytest.raises(Stalled) as error:
        file.load()
    assert error.value.reason == Reason.LOGINS_UNUSABLE


def test_the_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_folder() == tmp_path / "prichal"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/anna")
    assert config_folder() == Path("/home/anna/.config/prichal")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://ML.example.org/", "https://ml.example.org"),
        ("ml.example.org", "https://ml.example.org"),
        ("http://127.0.0.1:8000/-/", "http://127.0.0.1:8000"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_a_server_is_named_by_its_url(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://a",
        "https://",
        "https://u:p@a",
        "https://a/b",
        "https://a?b",
        "https://a#b",
        "http://a:x",
        "é.org",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        server_url(text)


@pytest.mark.parametrize(
    ("url", "carries"),
    [
        ("https://ml.example.org/-/apps", True),
        ("https://ML.example.org:443/-/apps", True),
        ("https://demo.apps.example.org/demo/files", True),
        ("http://ml.example.org/-/apps", False),
        ("https://ml.example.org:8443/-/apps", False),
        ("https://ml.example.org.evil.org/-/apps", False),
        ("https://apps.example.org/", False),
        ("https://a.b.apps.example.org/", False),
        ("https://evilapps.example.org/", False),
        ("http://demo.apps.example.org/", False),
        ("https://demo.apps.example.org:1/", False),
        ("https://example.org/", False),
    ],
)
def test_a_token_goes_to_its_server_alone(url: str, carries: bool) -> None:
    assert ONE.is_for(url) is carries
    assert (Logins().with_login(TWO).with_login(ONE).find(url) is not None) is carries


def test_the_host_of_an_app() -> None:
    assert ONE.server_of("demo") == "https://demo.apps.example.org"
    assert TWO.server_of("demo") == TWO.url
    port = Login("https://ml.example.org:8443", Secret("t"), app_domain="apps.example.org")
    assert port.server_of("demo") == "https://demo.apps.example.org:8443"
    assert port.is_for(port.server_of("demo"))


@pytest.mark.parametrize("value", [None, 1, [], "", "a/b", "a@b", "a b", "-a", "a\nb", "x" * 300])
def test_a_domain_that_is_none(value: object) -> None:
    assert domain_of(value) == ""


def test_a_private_way() -> None:
    assert is_private("https://ml.example.org")
    assert is_private("http://127.0.0.1:8000")
    assert is_private("http://localhost")
    assert not is_private("http://ml.example.org")
    assert not is_private("http://localhost.evil.org")
