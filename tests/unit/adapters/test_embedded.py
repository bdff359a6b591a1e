"""The embedded storage without its server: how it is reached, and what is taken for its last words. The server itself:
tests/integration/storage/test_embedded.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.embedded import EmbeddedStorage
from controller.adapters.embedded.storage import internal_url
from controller.adapters.embedded.volume import Volume, last_words
from controller.adapters.no_storage import NoStorage
from controller.adapters.objects import S3Storage
from controller.config import Settings
from controller.config.settings import StorageSettings
from controller.daemon.wiring import build_storage
from controller.domain.errors import Stalled


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::]:9000", "http://[::1]:9000"),
        ("10.0.0.5:9000", "http://10.0.0.5:9000"),
        ("storage.example.org:9000", "http://storage.example.org:9000"),
    ],
)
def test_how_this_host_reaches_it(listen: str, url: str) -> None:
    assert internal_url(listen) == url


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it said nothing"),
        ("starting\nserving\n\n", "serving"),
        ("<INFO>: a\n<FATAL>: no lock\n<INFO>: b\n", "<FATAL>: no lock"),
        ("fine\npanic: oh\n\ngoroutine 1\n  main.go:1\n", "panic: oh"),
        ("ERROR Unable to start the server: Specified port is already in use\n> advice\n", None),
    ],
)
def test_last_words(log: str, words: str | None) -> None:
    assert last_words(log) == (words or log.splitlines()[0])


def test_a_full_disk_is_told_first(tmp_path: Path) -> None:
    assert Volume(tmp_path).fault("it ended").reason == "StorageUnreachable"
    assert Volume(tmp_path / "not there yet").fault("it ended").reason == "StorageUnreachable"


@pytest.mark.parametrize(
    ("backend", "kind"), [("embedded", EmbeddedStorage), ("s3", S3Storage), ("none", NoStorage)]
)
def test_config_chooses(tmp_path: Path, backend: str, kind: type) -> None:
    settings = Settings(state=tmp_path, storage=StorageSettings(backend=backend))
    storage = build_storage(settings, b"k" * 32)
    assert isinstance(storage, kind)
    storage.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_storage() -> None:
    storage = NoStorage()
    assert storage.admin() is None
    for call in (storage.objects, storage.access):
        with pytest.raises(Stalled, match=r"storage\.backend") as caught:
            call()
        assert caught.value.reason == "StorageDisabled"
    storage.close()
