"""Files of the pages: kept by browsers for ever, readable by everybody, and part of what is installed."""

from __future__ import annotations

import re
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from controller.config import Settings
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.pages.languages import LOCALE
from controller.web.pages.static_files import FOLDER, FOREVER, asset, contents, digest
from controller.web.storage import StorageClient
from tests.support.pages import ROOT

WEB = LOCALE.parent


@pytest.fixture
def client(store: SqliteStore, settings: Settings, storage: StorageClient) -> FlaskClient:
    return create_app(store, settings, storage).test_client()


def test_a_file_may_be_kept_for_ever(client: FlaskClient) -> None:
    for name, content in contents().items():
        reply = client.get(asset(name))
        assert (reply.status_code, reply.data) == (200, content)
        assert reply.headers["Cache-Control"] == FOREVER
        assert reply.content_type.startswith(("text/css", "text/javascript"))


def test_a_page_of_another_version_gets_it_and_may_not_keep_it(client: FlaskClient) -> None:
    reply = client.get("/-/static/0000000000000000/main.js")
    assert (reply.status_code, reply.headers["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize(
    "name", ["missing.js", "../static_files.py", "%2e%2e%2fapp.py", "main.js%00", ".", "main.js/"]
)
def test_nothing_else_is_a_file(client: FlaskClient, name: str) -> None:
    reply = client.get(f"/-/static/{digest()}/{name}")
    assert reply.status_code == 404
    assert "immutable" not in reply.headers.get("Cache-Control", "")


def test_modules_import_what_is_there() -> None:
    for name, content in contents().items():
        for wanted in re.findall(r'from "\./([^"]+)"', content.decode()):
            assert wanted in contents(), f"{name} imports {wanted}"


def test_templates_have_neither_scripts_nor_styles_of_their_own() -> None:
    for path in (WEB / "templates").rglob("*.html"):
        if path.name in ("description.html", "files.html", "runs.html"):
            continue  # pages of APIs, with a policy of their own
        text = path.read_text(encoding="utf-8")
        assert re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe", text) is None, path
        assert all("nonce=" in tag for tag in re.findall(r"<script[^>]*>", text)), path


def test_all_of_it_is_installed() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["controller.web"].split()
    files = [path for folder in ("templates", "static", "locale") for path in (WEB / folder).rglob("*.*")]
    assert len(files) > 30
    lacking = [
        path for path in files if not any(_fits(path.relative_to(WEB), pattern) for pattern in patterns)
    ]
    assert lacking == [], "setup.cfg, options.package_data"
    assert all(path.suffix in (".css", ".js") for path in FOLDER.iterdir())


def _fits(path: Path, pattern: str) -> bool:
    return len(path.parts) == pattern.count("/") + 1 and fnmatch(str(path), pattern)
