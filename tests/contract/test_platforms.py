"""The contract of `Platform` on the host, as other users of the host see it, and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.client.platform import Platform, ServerPlatform
from controller.config import Settings
from controller.domain.secret import Secret
from controller.store import SqliteStore, open_guest_store
from controller.web.api.platform.stored import StoredPlatform
from tests.contract.platform_contract import PlatformContract
from tests.support.platform_server import PlatformServer, platform_server
from tests.support.stores import open_store


class TestOnTheHost(PlatformContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        with closing(open_store(tmp_path / "db" / "state.db")) as store:
            yield store

    @pytest.fixture
    def platform(self, store: SqliteStore, tmp_path: Path) -> Iterator[Platform]:
        with closing(open_guest_store(tmp_path / "db" / "state.db")) as guest:
            yield StoredPlatform(guest, Settings(state=tmp_path))


class TestOverHttp(PlatformContract):
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[PlatformServer]:
        with platform_server(tmp_path) as server:
            yield server

    @pytest.fixture
    def store(self, server: PlatformServer) -> SqliteStore:
        return server.store

    @pytest.fixture
    def platform(self, server: PlatformServer) -> Iterator[Platform]:
        with ServerPlatform(server.url, Secret(f"Bearer {server.token()}")) as platform:
            yield platform
