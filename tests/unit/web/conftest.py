from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config import Settings, WebSettings
from controller.domain.secret import Secret
from controller.store import SqliteStore, open_store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path, web=WebSettings(admin_token=Secret("letmein-token"), max_body=1000))


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    opened = open_store(settings.database)
    yield opened
    opened.close()
