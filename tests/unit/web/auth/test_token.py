"""The token of the admin API that is made where none is configured."""

from __future__ import annotations

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.cli.main import main
from controller.config import Settings, WebSettings, load
from controller.domain.secret import Secret
from controller.web.auth.admin import ClientInfo, is_admin
from controller.web.auth.token import with_token
from tests.support.another import as_another


def token(settings: Settings) -> str:
    found = with_token(settings).web.admin_token
    assert found is not None
    return found.reveal()


def test_it_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    with ThreadPoolExecutor(8) as threads:
        (made,) = set(threads.map(lambda _: token(settings), range(16)))
    assert len(made) >= 32
    assert stat.S_IMODE(settings.admin_token_file.stat().st_mode) == 0o600
    assert [path.name for path in settings.admin_token_file.parent.iterdir()] == ["admin.token"]
    assert token(Settings(state=tmp_path / "other")) != made


def test_one_that_is_configured_counts(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, web=WebSettings(admin_token=Secret("configured-token")))
    assert token(settings) == "configured-token"
    assert not settings.admin_token_file.exists()


def test_without_a_folder_the_api_is_closed(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("")
    settings = with_token(Settings(state=tmp_path))
    assert settings.web.admin_token is None
    assert not is_admin(ClientInfo("GET", "127.0.0.1", {"host": "127.0.0.1:8000"}), settings.web)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7", ""])
def test_where_a_caller_is_says_nothing(tmp_path: Path, address: str) -> None:
    settings = with_token(Settings(state=tmp_path)).web
    assert settings.admin_token is not None
    headers = {"host": "127.0.0.1:8000"}
    assert not is_admin(ClientInfo("GET", address, headers), settings)
    bearer = {**headers, "authorization": f"Bearer {settings.admin_token.reveal()}"}
    assert is_admin(ClientInfo("GET", address, bearer), settings)


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {tmp_path / 'state'}\n")
    assert main(["--config", str(config), "token", "show"]) == Exit.FAILED
    assert "start the platform" in capsys.readouterr().err
    made = token(replace(Settings(), state=tmp_path / "state"))
    assert main(["--config", str(config), "token", "show"]) == Exit.OK
    assert capsys.readouterr().out == f"{made}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes the rights of another user")
def test_one_that_this_user_may_not_read_opens_nothing_to_him() -> None:
    """Operators and the daemon load the configuration, too, and need no token of the web process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "token").write_text("0123456789abcdef")
        (folder / "token").chmod(0o600)
        config = folder / "config.yaml"
        config.write_text(f"state: {folder}/state\nweb: {{adminTokenFile: {folder}/token}}\n")

        def look() -> None:
            settings = with_token(load(config))
            assert settings.web.admin_token == Secret("")
            for value in ("Bearer ", "Bearer", "Basic Og==", "Bearer 0123456789abcdef"):
                headers = {"host": "127.0.0.1:8000", "authorization": value}
                assert not is_admin(ClientInfo("GET", "127.0.0.1", headers), settings.web)
            assert main(["token", "show", "--config", str(config)]) is Exit.FAILED

        as_another(look, 4242)
        assert token(load(config)) == "0123456789abcdef"
