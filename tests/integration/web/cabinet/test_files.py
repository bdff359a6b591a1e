"""The pages of an app's files, used by people over a real storage."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from controller.adapters.objects import S3Objects
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.domain.storage.moves import GroupMove
from controller.store import open_guest_store
from tests.integration.web.conftest import Web
from tests.support.cabinet import LOOKS, Cabinet, faults
from tests.support.recorded import HOSTILE, NAME, STORED, TABLES
from tests.support.serve_web import settings_of
from tests.support.storage_servers import StorageServer

BOX = "/-/apps/demo-colors/files/tables"
MOVED = 60_000  # milliseconds in which a few files are moved, however busy the machine is
PAINTS = f"{BOX}/paints/?area=developer"


@contextmanager
def stored(platform: Web) -> Iterator[S3Objects]:
    with closing(open_guest_store(settings_of(platform.state).database)) as store:
        access = store.boxes.access()
    assert access is not None
    with closing(S3Objects.of(access)) as objects:
        yield objects


def put(platform: Web, name: str, content: bytes) -> None:
    with stored(platform) as objects:
        objects.put(TABLES, DEVELOPER_AREA + name, io.BytesIO(content), len(content))


def content(platform: Web, name: str, area: str = DEVELOPER_AREA) -> bytes | None:
    with stored(platform) as objects:
        if objects.stat(TABLES, area + name) is None:
            return None
        with objects.open(TABLES, area + name) as pieces:
            return b"".join(pieces)


def link(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()


def test_from_the_app_to_a_file_and_back(cabinet: Cabinet) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, "/-/apps/demo-colors")
        link(page, "Files")
        link(page, "The app's own files in tables")
        link(page, "paints/")
        link(page, "old/")
        link(page, "one.txt")
        expect(page.locator("pre")).to_have_text("old")
        link(page, "paints")
        expect(page.get_by_role("rowheader")).to_have_count(len(STORED))
        assert page.get_by_role("button", name="Delete", exact=True).count() == 0, "a viewer changes nothing"
        assert page.get_by_role("checkbox").count() == 0
        link(page, "My files")
        expect(page.get_by_text("There are no files here.")).to_be_visible()
        cabinet.open(page, "/-/apps/demo-colors")
        link(page, "tables")
        link(page, "paints/")


def test_a_filter_by_the_beginning_of_names(cabinet: Cabinet) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, PAINTS)
        page.get_by_label("Names that begin with").fill("«цв")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("rowheader")).to_have_text([NAME.partition("/")[2]])
        assert "area=developer" in page.url


def test_contents_are_shown_and_never_run(cabinet: Cabinet) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, PAINTS)
        link(page, NAME.partition("/")[2])
        expect(page.locator("pre")).to_have_text(HOSTILE, use_inner_text=False)
        link(page, "paints")
        link(page, "colors.csv")
        expect(page.get_by_role("columnheader")).to_have_text(["name", "rgb"])
        expect(page.get_by_role("cell", name="охра")).to_be_visible()
        link(page, "paints")
        link(page, "notes.json")
        expect(page.locator("pre")).to_contain_text('"count": 2')
        link(page, "paints")
        link(page, "page.html")
        expect(page.locator("pre")).to_have_text("<script>document.title = 'taken'</script>")
        assert "page.html" in page.title()


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0f01f0005050102cfa02e150000000049454e44ae426082"
)
DRAWING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="parent.document.title=1">'
    b"<script>parent.document.title = 'taken'</script><rect width='9' height='9'/></svg>"
)


def test_pictures_are_shown(cabinet: Cabinet, platform: Web) -> None:
    put(platform, "pictures/dot.png", PIXEL)
    put(platform, "pictures/drawing.svg", DRAWING)
    with cabinet.window("guest") as page:
        for name in ("dot.png", "drawing.svg"):
            cabinet.open(page, f"{BOX}/pictures/{name}?area=developer")
            expect(page.get_by_role("img", name=name)).to_be_visible()
            assert page.title().startswith(name)


def test_a_file_is_downloaded_under_its_name_and_opened_nowhere(
    cabinet: Cabinet, platform: Web, tmp_path: Path
) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, PAINTS)
        for name in ("page.html", NAME.partition("/")[2]):
            with page.expect_download() as begun:
                link(page, f"Download {name}")
            begun.value.save_as(tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == STORED[f"paints/{name}"]
            assert begun.value.suggested_filename[:7] == name[:7]  # browsers replace some signs
        expect(page.get_by_role("heading", name="paints")).to_be_visible()


def test_chosen_files_and_folders_are_deleted_once_asked(cabinet: Cabinet, platform: Web) -> None:
    for name in ("a <b>.txt", "b.txt", "kept.txt", "inner/c.txt", "inner/deep/d.txt"):
        put(platform, f"gone/{name}", b"x")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/gone/?area=developer")
        for name in ("a <b>.txt", "b.txt", "inner"):
            page.get_by_label(f"Choose {name}", exact=True).check()
        with stored(platform) as objects:  # meanwhile, somewhere else
            objects.remove(TABLES, [f"{DEVELOPER_AREA}gone/b.txt"])
        page.locator("summary", has_text="Delete what is chosen").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("status").first).to_contain_text("is deleted")
        expect(page.get_by_role("rowheader")).to_have_text(["kept.txt"])
        link(page, "kept.txt")
        page.locator("summary", has_text="Delete").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_text("There are no files here.")).to_be_visible()
    acts = [(entry.act, entry.subject, entry.detail) for entry in cabinet.people.acts(2, "maker")]
    told = "in tables/gone/ in the developer area"
    assert sorted(acts) == [("file change", "demo-colors", f"deleted {n} {told}") for n in (1, 3)]


def test_a_file_of_the_first_level_is_deleted_and_not_the_folder_of_its_name(
    cabinet: Cabinet, platform: Web
) -> None:
    """Other clients of the storage may put files there."""
    put(platform, "alone.txt", b"x")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/?area=developer")
        page.get_by_label("Choose alone.txt", exact=True).check()
        page.locator("summary", has_text="Delete what is chosen").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("status").first).to_contain_text("is deleted")
        expect(page.get_by_role("rowheader", name="alone.txt")).to_have_count(0)
    assert content(platform, "alone.txt") is None


def test_a_file_is_moved_and_renamed(cabinet: Cabinet, platform: Web) -> None:
    put(platform, "moved/one.txt", b"content")
    put(platform, "moved/taken.txt", b"other")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/moved/one.txt?area=developer")
        page.locator("summary", has_text="Move or rename").click()
        page.get_by_label("Folder and name in this area").fill("new folder/«два» <b>.txt")
        page.get_by_role("button", name="Move", exact=True).click()
        expect(page.get_by_role("status")).to_have_text("The file is moved.")
        expect(page.get_by_role("heading", name="«два» <b>.txt")).to_be_visible()
        expect(page.locator("pre")).to_have_text("content")
        assert content(platform, "moved/one.txt") is None
        page.locator("summary", has_text="Move or rename").press("Enter")
        page.get_by_label("Folder and name in this area").fill("moved/taken.txt")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Not possible at the moment")).to_be_visible()
    assert content(platform, "moved/taken.txt") == b"other"
    cabinet.complaints()  # the browser writes down that the answer was 409


def test_a_folder_is_renamed_with_the_keyboard(cabinet: Cabinet, platform: Web) -> None:
    for number in range(3):
        put(platform, f"folder/in it/{number:03}.txt", b"content")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/folder/?area=developer")
        page.locator("summary", has_text="Move or rename").press("Enter")
        page.get_by_label("Folder in this area").fill("новая «папка» <b>/it's")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="it's")).to_be_visible(timeout=MOVED)
        expect(page.get_by_role("rowheader")).to_have_text(["in it/"])
        page.locator("summary", has_text="Move or rename").press("Enter")
        page.get_by_label("Folder in this area").fill("paints")
        page.keyboard.press("Enter")
        expect(page.get_by_text("There is a folder paints/ already.")).to_be_visible(timeout=MOVED)
    assert content(platform, "folder/in it/002.txt") is None
    assert content(platform, "новая «папка» <b>/it's/in it/002.txt") == b"content"
    cabinet.complaints()  # the browser writes down that the answer was 409


def test_a_move_that_broke_off_is_told_and_goes_on(cabinet: Cabinet, platform: Web) -> None:
    put(platform, "half/one.txt", b"1")
    put(platform, "новая папка/two.txt", b"2")
    source, target = f"{DEVELOPER_AREA}half/", f"{DEVELOPER_AREA}новая папка/"
    with closing(open_guest_store(settings_of(platform.state).database)) as store:
        store.boxes.save_move(GroupMove(TABLES, source, target, 2, time.time(), time.time(), 1))
    for look in LOOKS:
        with cabinet.window("maker", look) as page:
            cabinet.open(page, f"{BOX}/?area=developer")
            expect(page.locator("[data-key='move-half/']")).to_be_visible()
            assert faults(page) == []
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/half/?area=developer")
        page.get_by_role("button", name="Move back: half/").click()
        expect(page.get_by_role("heading", name="half", exact=True)).to_be_visible(timeout=MOVED)
        expect(page.get_by_role("rowheader")).to_have_text(["one.txt", "two.txt"])


def test_another_window_follows_when_it_is_looked_at(cabinet: Cabinet, platform: Web) -> None:
    put(platform, "two/first.txt", b"1")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{BOX}/two/?area=developer")
        page.get_by_label("Choose first.txt").check()
        put(platform, "two/second.txt", b"2")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_role("rowheader")).to_have_text(["first.txt", "second.txt"])
        expect(page.get_by_label("Choose first.txt")).to_be_checked()


def test_while_the_storage_is_down_pages_say_so(
    cabinet: Cabinet, platform: Web, storage: StorageServer
) -> None:
    sorry = "Files cannot be reached at the moment. Everything else works."
    with cabinet.window("maker") as page:
        cabinet.open(page, PAINTS)
        storage.kill()
        try:
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            expect(page.locator(".notice.warn")).to_have_text(sorry)
            cabinet.open(page, PAINTS)
            expect(page.locator(".notice.warn")).to_have_text(sorry)
            assert faults(page) == []
            link(page, "My files")
            expect(page.locator(".notice.warn")).to_have_text(sorry)
            cabinet.open(page, f"{BOX}/paints/colors.csv?area=developer")
            expect(page.get_by_text(sorry)).to_be_visible()
        finally:
            storage.start()
        cabinet.open(page, PAINTS)
        expect(page.get_by_role("rowheader")).to_have_count(len(STORED))
    cabinet.complaints()  # the browser writes down that the answers were 503


def test_a_file_that_was_deleted_meanwhile(cabinet: Cabinet) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, f"{BOX}/paints/gone.txt?area=developer")
        expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    cabinet.complaints()  # the browser writes down that the answer was 404


def test_the_pages_of_files_are_for_everybody(cabinet: Cabinet, platform: Web) -> None:
    put(platform, "pictures/dot.png", PIXEL)
    paths = (
        BOX + "/",
        f"{BOX}/none/",
        *(f"{BOX}/paints/{name}?area=developer" for name in ("colors.csv", "notes.json")),
    )
    for look in LOOKS:
        with cabinet.window("boss", look) as page:
            for path in (*paths, f"{BOX}/pictures/dot.png?area=developer"):
                cabinet.open(page, path)
                assert faults(page) == [], path
