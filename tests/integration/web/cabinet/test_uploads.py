"""Files are uploaded by people over a real storage: chosen, dragged, interrupted, continued, replaced, refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from tests.integration.web.conftest import Web
from tests.support.cabinet import LOOKS, Cabinet, Look, faults
from tests.support.recorded import TABLES
from tests.support.waiting import wait_for

from .test_files import BOX, content, link, put

PART = 16 * 2**20  # bytes
MINE = user_area("person:maker")
CAPACITY = 10**9


@pytest.fixture(autouse=True)
def room(platform: Web) -> None:
    app, box = AppName("demo-colors"), ComponentName("tables")
    platform.store.boxes.save(BoxRecord(app, box, TABLES, CAPACITY))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(2 * PART + 1000))
    return path


def choose(page: Page, *files: Path, into: str = "") -> None:
    if into:
        page.get_by_label("Into the folder").fill(into)
    page.get_by_label("Files of yours").set_input_files(list(files))


def row(page: Page, path: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_text(path, exact=True))


def says(page: Page, path: str, text: str) -> None:
    expect(row(page, path)).to_contain_text(text)


@contextmanager
def parts_sent(page: Page) -> Iterator[list[int]]:
    """The numbers of the parts whose bytes the page sends."""
    sent: list[int] = []

    def note(request: Request) -> None:
        if request.method == "PUT" and "partNumber=" in request.url:
            sent.append(int(request.url.partition("partNumber=")[2].partition("&")[0]))

    page.on("request", note)
    yield sent
    page.remove_listener("request", note)


def test_files_are_chosen_and_stored(cabinet: Cabinet, platform: Web, tmp_path: Path, large: Path) -> None:
    (small := tmp_path / "«цвета» <b>1<b> 100%.txt").write_text("ochre")
    (empty := tmp_path / "empty").write_bytes(b"")
    with cabinet.window("maker") as page:
        cabinet.open(page, BOX + "/")
        for into in ("", "../paints", "new/../other"):
            choose(page, small, into=into)
            expect(page.get_by_role("status")).to_have_text("Name a folder: files lie in folders.")
        choose(page, small, empty, large, into="new/ folder")
        for file in (small, empty, large):
            says(page, f"new/ folder/{file.name}", "uploaded")
            assert content(platform, f"new/ folder/{file.name}", MINE) == file.read_bytes()
        link(page, "new/")
        link(page, " folder/")
        expect(page.get_by_role("rowheader")).to_have_text([empty.name, large.name, small.name])
    acts = [entry.detail for entry in cabinet.people.acts(3, "maker")]
    assert f"uploaded tables/new/ folder/{large.name}" in acts


def test_a_lost_connection_is_waited_for(cabinet: Cabinet, platform: Web, large: Path) -> None:
    with cabinet.window("maker") as page, parts_sent(page) as sent:
        cabinet.open(page, f"{BOX}/lost/")
        page.route("**partNumber=2&**", lambda route: route.abort())
        choose(page, large)
        says(page, f"lost/{large.name}", "the connection is lost; it goes on by itself")
        page.unroute("**partNumber=2&**")
        page.evaluate("dispatchEvent(new Event('online'))")
        says(page, f"lost/{large.name}", "uploaded")
        assert sent.count(1) == 1, "what has arrived is not sent again"
    assert content(platform, f"lost/{large.name}", MINE) == large.read_bytes()
    cabinet.complaints()  # the browser writes down that a connection broke


@contextmanager
def answer_lost_once(page: Page, url: str, method: str, body: bytes = b"") -> Iterator[None]:
    """The platform gets the first such request, and the page does not get its answer."""
    lost: list[int] = []

    def lose(route: Route) -> None:
        if route.request.method != method or lost:
            route.continue_()
            return
        lost.append(route.fetch(post_data=body).status)  # Playwright does not know the bytes of a file
        route.abort()

    page.route(url, lose)
    yield
    page.unroute(url, lose)
    assert [status // 100 for status in lost] == [2]


def test_a_file_that_is_stored_counts_though_the_answer_was_lost(
    cabinet: Cabinet, platform: Web, tmp_path: Path
) -> None:
    (tmp_path / "small.txt").write_text("once")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/answers/")
        with answer_lost_once(page, "**/small.txt?X-Amz*", "PUT", b"once"):
            choose(page, tmp_path / "small.txt")
            says(page, "answers/small.txt", "uploaded")
        (tmp_path / "small.txt").write_text("more")
        choose(page, tmp_path / "small.txt")
        expect(page.locator("[data-uploads] li").last).to_contain_text("is here already")
    assert content(platform, "answers/small.txt", MINE) == b"once"
    cabinet.complaints()  # the browser writes down what was lost and refused


def test_an_upload_is_begun_once_though_the_answer_was_lost(
    cabinet: Cabinet, platform: Web, large: Path
) -> None:
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/begun/")
        with answer_lost_once(page, f"**/begun/{large.name}?*uploads=*", "POST"):
            choose(page, large)
            says(page, f"begun/{large.name}", "uploaded")
    left = platform.store.boxes.unfinished(TABLES, f"{MINE}begun/", 0, 9)
    assert len({each.upload for each in left}) <= 1, "one at most is not counted yet"
    assert content(platform, f"begun/{large.name}", MINE) == large.read_bytes()
    cabinet.complaints()


@pytest.mark.parametrize("status", [403, 500])
def test_what_is_refused_again_and_again_ends(
    cabinet: Cabinet, platform: Web, tmp_path: Path, status: int
) -> None:
    (tmp_path / "refused.txt").write_text("content")
    with cabinet.window("maker") as page:
        page.clock.install()
        cabinet.open(page, f"{BOX}/refused-{status}/")
        page.route("**/refused.txt?X-Amz*", lambda route: route.fulfill(status=status))
        choose(page, tmp_path / "refused.txt")
        shown = row(page, f"refused-{status}/refused.txt")

        def has_ended() -> bool:
            page.clock.fast_forward(1000)
            return "could not" in shown.inner_text()

        wait_for(has_ended, limit=60)
        page.unroute("**/refused.txt?X-Amz*")
        page.get_by_role("button", name="Go on").click()
        says(page, f"refused-{status}/refused.txt", "uploaded")
    assert content(platform, f"refused-{status}/refused.txt", MINE) == b"content"
    cabinet.complaints()


def test_why_it_failed_is_in_the_reader_s_language(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    put(platform, "taken/name", b"a file")
    (tmp_path / "inner.txt").write_text("x")
    with cabinet.window("maker", Look("ru")) as page:
        cabinet.open(page, f"{BOX}/taken/?area=developer")
        page.locator("#into").fill("taken/name")
        page.locator("#chosen").set_input_files(tmp_path / "inner.txt")
        shown = page.locator("[data-uploads] li")
        expect(shown).to_contain_text("Файл и папка не могут называться одинаково.")
        expect(shown).to_contain_text("taken/name — файл, в нём не может быть файлов.")
        expect(shown.locator("[lang=en]")).to_have_count(0)
    cabinet.complaints()


def test_a_folder_is_chosen_and_files_are_dragged(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    (folder := tmp_path / "«набор» <b>" / "inner" / "deep").mkdir(parents=True)
    (folder / "c.txt").write_text("c")
    (folder.parent / "b.txt").write_text("b")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/dropped/")
        page.get_by_label("A folder of yours").set_input_files(tmp_path / "«набор» <b>")
        for path in ("inner/b.txt", "inner/deep/c.txt"):
            says(page, f"dropped/«набор» <b>/{path}", "uploaded")
        drag(page, folder / "c.txt", folder.parent / "b.txt")
        for name in ("b.txt", "c.txt"):
            says(page, f"dropped/{name}", "uploaded")
        drag(page, folder.parent)  # Chromium reads no folders for pages with an origin of their own
        expect(page.get_by_role("status")).to_contain_text("choose it instead")
    assert content(platform, "dropped/b.txt", MINE) == b"b"
    assert content(platform, "dropped/«набор» <b>/inner/deep/c.txt", MINE) == b"c"


def drag(page: Page, *files: Path) -> None:
    """As a person does it, from a window of the system."""
    pointed = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        pointed.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    pointed.detach()


def interrupted(page: Page, cabinet: Cabinet, file: Path, folder: str) -> None:
    """The page is left when two of three parts have arrived."""
    cabinet.open(page, f"{BOX}/{folder}/")
    page.route("**partNumber=3&**", lambda route: route.abort())
    choose(page, file)
    says(page, f"{folder}/{file.name}", "the connection is lost")
    page.unroute("**partNumber=3&**")
    cabinet.open(page, f"{BOX}/{folder}/")
    expect(page.get_by_role("heading", name="Unfinished uploads")).to_be_visible()


def test_an_upload_goes_on_after_the_page_was_closed(cabinet: Cabinet, platform: Web, large: Path) -> None:
    with cabinet.window("maker") as page:
        interrupted(page, cabinet, large, "resumed")
        with parts_sent(page) as sent:
            choose(page, large)
            says(page, f"resumed/{large.name}", "uploaded")
        expect(page.get_by_role("heading", name="Unfinished uploads")).to_be_hidden()
        assert sent == [3]
        expect(page.get_by_role("rowheader")).to_have_text([large.name])
    assert content(platform, f"resumed/{large.name}", MINE) == large.read_bytes()
    cabinet.complaints()


def test_a_file_that_has_changed_meanwhile_is_not_mixed(cabinet: Cabinet, platform: Web, large: Path) -> None:
    with cabinet.window("maker") as page:
        interrupted(page, cabinet, large, "changed")
        with large.open("r+b") as file:
            file.seek(5)
            file.write(b"changed")
        with parts_sent(page) as sent:
            choose(page, large)
            says(page, f"changed/{large.name}", "uploaded")
        assert sent == [1, 3]
    assert content(platform, f"changed/{large.name}", MINE) == large.read_bytes()
    cabinet.complaints()


def test_an_upload_is_given_up(cabinet: Cabinet, platform: Web, large: Path) -> None:
    with cabinet.window("maker") as page:
        interrupted(page, cabinet, large, "given-up")
        page.context.set_offline(True)
        page.get_by_role("button", name=f"Give up given-up/{large.name}").click()
        expect(page.get_by_role("status").first).to_contain_text("This could not be given up")
        page.context.set_offline(False)
        page.get_by_role("button", name=f"Give up given-up/{large.name}").click()
        expect(page.get_by_role("heading", name="Unfinished uploads")).to_be_hidden()
        page.route("**partNumber=2&**", lambda route: route.abort())
        choose(page, large)
        says(page, f"given-up/{large.name}", "the connection is lost")
        page.context.set_offline(True)
        page.get_by_role("button", name=f"Cancel: given-up/{large.name}").click()
        says(page, f"given-up/{large.name}", "This could not be given up")
        page.context.set_offline(False)
        page.get_by_role("button", name=f"Cancel: given-up/{large.name}").click()
        expect(row(page, f"given-up/{large.name}").get_by_text("canceled", exact=True)).to_be_visible()
        expect(page.get_by_role("heading", name="Unfinished uploads")).to_be_hidden()
    assert not [each for each in platform.store.boxes.pending(TABLES) if "given-up" in each.key]
    cabinet.complaints()


def test_a_file_is_replaced_when_somebody_says_so(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        put(platform, f"kept/{name}", b"old")
        (tmp_path / name).write_text("new")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/kept/?area=developer")
        choose(page, tmp_path / "one.txt", tmp_path / "two.txt")
        for name, act in (("one.txt", "Replace"), ("two.txt", "Skip")):
            says(page, f"kept/{name}", "A file of this name is here already.")
            page.get_by_role("button", name=f"{act}: kept/{name}").click()
        says(page, "kept/one.txt", "uploaded")
        says(page, "kept/two.txt", "canceled")
    assert [content(platform, f"kept/{name}") for name in ("one.txt", "two.txt")] == [b"new", b"old"]
    cabinet.complaints()  # the browser writes down that the answer was 412


def test_without_room_nothing_begins(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    for name in ("one.bin", "two.bin"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(6 * 10**8)
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/huge/")
        choose(page, tmp_path / "one.bin", tmp_path / "two.bin")
        expect(page.get_by_role("status")).to_contain_text(
            "There is no room for all of them: they have 1.12 GiB"
        )
        expect(page.locator("[data-uploads] li")).to_have_count(0)
    assert not [each for each in platform.store.boxes.pending(TABLES) if "huge" in each.key]


def test_rows_of_uploads_are_for_everybody(cabinet: Cabinet, large: Path) -> None:
    for number, look in enumerate(LOOKS):
        with cabinet.window("maker", look) as page:
            cabinet.open(page, f"{BOX}/look-{number}/")
            page.route("**partNumber=2&**", lambda route: route.abort())
            page.locator("#chosen").set_input_files(large)
            expect(page.locator("[data-uploads] li")).to_contain_text("%")
            assert faults(page) == []
            cabinet.open(page, f"{BOX}/look-{number}/")
            assert page.locator("[data-unfinished]").count() == 1
            assert faults(page) == []
    cabinet.complaints()
