"""The embedded storage without its server: how it is reached, and what is taken for its last words. The server itself:
tests/integration/storage/test_embedded.py."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from controller.adapters.embedded import EmbeddedStorage
from controller.adapters.embedded.volume import StorageVolume, last_words
from controller.adapters.no_storage import NoStorage
from controller.adapters.objects import S3Storage
from controller.config import Settings
from controller.config.settings import StorageSettings
from controller.daemon.wiring import build_storage
from controller.domain.errors import Stalled


def test_it_listens_where_it_did_before_if_that_is_free(tmp_path: Path) -> None:
    volume = StorageVolume(tmp_path)
    assert volume.address() == ""
    first = volume.take_address()
    assert first.startswith("127.0.0.1:")
    assert (volume.address(), volume.take_address()) == (first, first)
    host, port = first.split(":")
    with socket.create_server((host, int(port))):
        second = volume.take_address()
    assert second != first
    assert StorageVolume(tmp_path).address() == second


@pytest.mark.parametrize("noted", ["", "0.0.0.0:1", "127.0.0.1:99999999", "nonsense"])
def test_what_is_noted_of_its_address_leads_nowhere_else(tmp_path: Path, noted: str) -> None:
    (tmp_path / "address").write_text(noted)
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", StorageVolume(tmp_path).take_address())


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
    assert StorageVolume(tmp_path).fault("it ended").reason == "StorageUnreachable"
    assert StorageVolume(tmp_path / "not there yet").fault("it ended").reason == "StorageUnreachable"


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
