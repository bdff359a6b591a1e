"""The page of a folder of 100,000 files costs what its two hundred rows cost."""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import Path

import pytest

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.storage.box import BoxRecord, ObjectPage, StoredObject
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.pages.files import PER_PAGE
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import APP
from tests.support.people import Browser, add_person

MANY = 100_000
FOLDER = f"/-/apps/{APP}/files/data/many/?area=developer"


class ManyObjects(FakeObjects):
    """A bucket in which each folder has that many files, made up when they are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        self.listed += limit
        folder = prefix[: prefix.rfind("/") + 1]
        numbers = [number for number in range(MANY) if f"{folder}file-{number:06}".startswith(prefix)]
        first = bisect_right(numbers, after, key=lambda number: f"{folder}file-{number:06}")
        chosen = numbers[first : first + limit]
        found = tuple(
            StoredObject(f"{folder}file-{number:06}", 7, f"etag{number}", 1_790_078_400.0)
            for number in chosen
        )
        return ObjectPage(found, (), found[-1].key if len(found) == limit else None)


@pytest.fixture
def objects() -> ManyObjects:
    return ManyObjects()


@pytest.fixture
def browser(store: SqliteStore, storage: StorageClient, objects: ManyObjects, tmp_path: Path) -> Browser:
    (tmp_path / "web").mkdir()
    objects.create_bucket("bucket")
    app = create_app(store, Settings(state=tmp_path), storage)
    store.apps.save(AppStatus(APP))
    store.boxes.save(BoxRecord(APP, ComponentName("data"), "bucket", 10**9))
    add_person(people_context(app).store, "boss", Grant("boss", Role.ADMIN))
    found = Browser(app)
    assert found.sign_in("boss").status_code == 303
    return found


def test_each_page_costs_its_rows(browser: Browser, objects: ManyObjects) -> None:
    pages, place = 0, FOLDER
    while place and pages < 3:
        objects.listed = 0
        text = browser.open(place).text
        names = re.findall(r">(file-\d{6})<", text)
        first = pages * PER_PAGE
        assert names == [f"file-{number:06}" for number in range(first, first + PER_PAGE)]
        assert objects.listed <= 2 * PER_PAGE, "no more is listed than is shown"
        assert len(text) < 400_000
        following = re.search(r'<a [^>]*href="([^"]*after=[^"]*)"', text)
        place = following[1].replace("&amp;", "&") if following else ""
        pages += 1
    assert pages == 3


def test_the_beginning_of_names_finds_the_last_ones(browser: Browser) -> None:
    text = browser.open(f"{FOLDER}&prefix=file-09999").text
    assert re.findall(r">(file-\d{6})<", text) == [f"file-09999{digit}" for digit in range(10)]
    assert "after=" not in re.sub(r'data-files="[^"]*"', "", text), "there is no next page"
