"""Files of runs, used by people over a real storage: an input is uploaded or picked in the form, outputs are listed and
opened on the page of the run, and what people see when files or the storage are gone."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.run import Run, RunState, Transition, new_run, new_run_id
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from tests.integration.web.conftest import Web
from tests.support.cabinet import LOOKS, Cabinet, faults
from tests.support.runs import make_pipeline

from .test_files import stored
from .test_runs import PIPELINE
from .test_runs import stored as stored_run

APP, BOX, BUCKET = AppName("demo-colors"), ComponentName("userdata"), "prichal.demo-colors.userdata"
MINE = user_area("person:maker")
NAME = "«отчёт» <i>\"1\"<i> 100% 'x'&amp;.csv"


@pytest.fixture(scope="module", autouse=True)
def box(platform: Web) -> None:
    platform.store.boxes.save(BoxRecord(APP, BOX, BUCKET, 10**9))
    with stored(platform) as objects:
        objects.create_bucket(BUCKET)


def put(platform: Web, path: str, content: bytes = b"a,b\n1,2\n") -> None:
    with stored(platform) as objects:
        objects.put(BUCKET, MINE + path, io.BytesIO(content), len(content))


def ended(platform: Web, number: int, user: str = "person:maker", files: tuple[str, ...] = (NAME,)) -> Run:
    """A run that has published files into its output `report`, and none into `plots`."""
    now = time.time()
    run = new_run(new_run_id(now, number), make_pipeline(app=APP), now, user)
    stages = tuple(replace(stage, state=RunState.SUCCEEDED) for stage in run.stages)
    end = (Transition(RunState.STARTING, now), Transition(RunState.SUCCEEDED, now))
    run = replace(run, state=RunState.SUCCEEDED, stages=stages, history=end)
    platform.store.runs.submit(run)
    for name in files:
        put(platform, f"runs/{run.id}/report/{name}")
    return run


@contextmanager
def storage_down(platform: Web) -> Iterator[None]:
    access = platform.store.boxes.access()
    assert access is not None
    platform.store.boxes.record_access(replace(access, internal_url="http://127.0.0.1:1"))
    try:
        yield
    finally:
        platform.store.boxes.record_access(access)


def form(cabinet: Cabinet, page: Page) -> None:
    cabinet.open(page, PIPELINE)
    page.get_by_text("Start a run").click()


def start(platform: Web, page: Page) -> Run:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/runs/*")
    return stored_run(platform, page.url.rpartition("/")[2])


def test_an_input_is_uploaded_and_the_run_gets_it(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    (file := tmp_path / NAME).write_bytes(b"x" * 10**6)
    with cabinet.window("maker") as page:
        form(cabinet, page)
        page.get_by_label("A file of yours for data").set_input_files(file)
        expect(page.locator("[data-file-input] [data-said]").first).to_have_text(f"{NAME}: uploaded")
        assert faults(page) == []
        run = start(platform, page)
        path = run.inputs[0].data
        assert path.endswith(f"/{NAME}")
        with stored(platform) as objects, objects.open(BUCKET, MINE + path) as pieces:
            assert b"".join(pieces) == file.read_bytes()
        page.get_by_role("link", name=path).click()
        expect(page.get_by_role("heading", name=NAME)).to_be_visible()


def test_no_run_starts_before_its_file_is_there(cabinet: Cabinet, tmp_path: Path) -> None:
    (file := tmp_path / "late.csv").write_bytes(b"x")
    with cabinet.window("maker") as page:
        form(cabinet, page)
        held: list[object] = []
        page.route("**/uploads/**", lambda route: held.append(route))
        page.get_by_label("A file of yours for data").set_input_files(file)
        button = page.get_by_role("button", name="Start", exact=True)
        expect(button).to_be_disabled()
        page.get_by_label("data", exact=True).fill(
            "tables/other.csv"
        )  # another one is meant: the upload is given up
        expect(button).to_be_enabled()
        page.unroute("**/uploads/**")
    cabinet.complaints()


def test_a_file_in_the_box_is_picked_with_the_keyboard(cabinet: Cabinet, platform: Web) -> None:
    put(platform, f"tables/2026/{NAME}")
    with cabinet.window("maker") as page:
        form(cabinet, page)
        page.get_by_role("button", name="Choose from the box").focus()
        page.keyboard.press("Enter")
        for name in ("tables/", "2026/"):
            page.get_by_role("button", name=name, exact=True).press("Enter")
        expect(page.get_by_role("button", name="The folder above")).to_be_focused()
        page.get_by_role("button", name=NAME, exact=True).press("Enter")
        expect(page.get_by_label("data", exact=True)).to_have_value(f"tables/2026/{NAME}")
        expect(page.get_by_label("data", exact=True)).to_be_focused()


def test_what_is_wrong_is_said_where_it_is_and_nothing_is_lost(cabinet: Cabinet) -> None:
    with cabinet.window("maker") as page:
        form(cabinet, page)
        page.get_by_label("data", exact=True).fill("tables/nowhere.csv")
        page.get_by_label("rate").fill("fast")
        page.get_by_label("note").fill("<b>kept</b>")
        page.get_by_role("button", name="Start", exact=True).click()
        rate = page.get_by_label("rate")
        expect(rate).to_have_attribute("aria-invalid", "true")
        expect(rate).to_be_focused()
        expect(
            page.get_by_role("alert").filter(has_text="must be a 64-bit floating-point number")
        ).to_be_visible()
        expect(page.get_by_label("note")).to_have_value("<b>kept</b>")
        assert faults(page) == []
        rate.fill("0.5")
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("alert").filter(has_text="upload it first")).to_be_visible()
        expect(page.get_by_label("data", exact=True)).to_have_attribute("aria-invalid", "true")
        page.get_by_role("link", name="Русский").click()
        expect(page.get_by_role("heading", name="train")).to_be_visible()
    cabinet.complaints()  # the browser writes down that the answer was 422


def test_outputs_are_listed_shown_and_saved(cabinet: Cabinet, platform: Web) -> None:
    run = ended(platform, 1)
    for look in LOOKS:
        with cabinet.window("maker", look) as page:
            cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
            listed = page.locator("[data-outputs]")
            expect(listed.get_by_role("link", name=NAME, exact=True)).to_be_visible()
            assert faults(page) == []
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
        with page.expect_download() as begun:
            page.get_by_role("link", name=f"Download: {NAME}").click()
        assert Path(begun.value.path()).read_bytes() == b"a,b\n1,2\n"
        page.get_by_role("link", name=NAME, exact=True).click()
        expect(page.get_by_role("cell", name="2", exact=True)).to_be_visible()


def test_outputs_appear_when_their_stage_has_succeeded(cabinet: Cabinet, platform: Web) -> None:
    done = ended(platform, 2)
    begun = replace(
        done,
        id=new_run_id(time.time(), 3),
        state=RunState.RUNNING,
        stages=(done.stages[0], replace(done.stages[1], state=RunState.RUNNING)),
    )
    platform.store.runs.submit(begun)
    put(platform, f"runs/{begun.id}/report/late.csv")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{begun.id}")
        expect(page.get_by_text(f"runs/{begun.id}/report/")).to_be_visible()
        expect(page.locator("[data-outputs]")).to_have_count(0)
        platform.store.runs.save(
            replace(begun, state=RunState.SUCCEEDED, stages=done.stages, history=done.history)
        )
        expect(page.get_by_role("link", name="late.csv", exact=True)).to_be_visible()


def test_files_of_others_are_theirs(cabinet: Cabinet, platform: Web) -> None:
    run = ended(platform, 4, user="ivanov")
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
        expect(page.get_by_text("nobody else reads them here").first).to_be_visible()
        expect(page.locator("[data-outputs]")).to_have_count(0)


def test_outputs_that_are_gone(cabinet: Cabinet, platform: Web) -> None:
    run = ended(platform, 5, files=())
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
        expect(page.get_by_text("Its files are gone").first).to_be_visible()


def test_the_storage_is_down_while_the_page_is_open(cabinet: Cabinet, platform: Web) -> None:
    run = ended(platform, 6)
    with cabinet.window("maker") as page:
        with storage_down(platform):
            cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
            expect(page.get_by_text("Files cannot be reached").first).to_be_visible()
            expect(page.get_by_role("heading", name=run.id)).to_be_visible()
        expect(page.get_by_role("link", name=NAME, exact=True)).to_be_visible()
    cabinet.complaints()  # the browser writes down that the answer was 503


def test_a_run_that_is_removed_meanwhile(cabinet: Cabinet, platform: Web) -> None:
    run = ended(platform, 7)
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{run.id}")
        expect(page.get_by_role("link", name=NAME, exact=True)).to_be_visible()
        platform.store.runs.forget([run])
        expect(page.get_by_text("This run has been removed")).to_be_visible()
    cabinet.complaints()  # the browser writes down that the run is not there
