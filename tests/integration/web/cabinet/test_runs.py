"""Pages of pipelines and runs, used by people: a run is started, followed with its log and canceled; others are
repeated."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect

from controller.domain.names import AppName
from controller.domain.runs.run import Run, RunState
from controller.store import open_guest_store
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet
from tests.support.recorded import FAILED, RUNNING
from tests.support.serve_web import settings_of
from tests.support.waiting import wait_for

APP = AppName("demo-colors")
PIPELINE = "/-/apps/demo-colors/pipelines/train"


def stored(platform: Web, id: str) -> Run:
    with closing(open_guest_store(settings_of(platform.state).database)) as store:
        found = store.runs.get(APP, id)
    assert found is not None
    return found


def test_a_run_is_started_with_its_inputs_and_canceled(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("maker") as page:
        cabinet.open(page, "/-/apps/demo-colors")
        page.get_by_role("link", name="train", exact=True).first.click()
        page.get_by_text("Start a run").click()
        page.get_by_label("data", exact=True).fill("tables/paints.csv")
        page.get_by_label("rate").fill("0.25")
        page.get_by_label("note").fill("from the page")
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url("**/runs/*")
        id = page.url.rpartition("/")[2]
        run = stored(platform, id)
        assert run.user == "person:maker"
        given = {each.name: (each.datatype, each.data) for each in run.inputs}
        assert given == {
            "data": ("FILE", "tables/paints.csv"),
            "rate": ("FP64", "0.25"),
            "note": ("str", '"from the page"'),
        }

        page.locator("summary", has_text="Cancel").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".badge").first).to_have_text("being canceled")
        wait_for(lambda: stored(platform, id).state is RunState.CANCELING)


def test_a_log_is_shown_as_it_grows_and_searched(cabinet: Cabinet, platform: Web) -> None:
    folder = settings_of(platform.state).run_files / RUNNING
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "fit.1.log"
    write(log, "first epoch\nloss 0.5\n")
    with cabinet.window("guest") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{RUNNING}")
        page.locator("summary", has_text="fit").click()
        text = page.locator("#log-fit [data-text]")
        expect(text).to_have_text("first epoch\nloss 0.5")
        write(log, "second <b>epoch</b>\n")
        expect(text).to_have_text("first epoch\nloss 0.5\nsecond <b>epoch</b>")
        page.locator("#find-fit").fill("EPOCH")
        expect(text).to_have_text("first epoch\nsecond <b>epoch</b>")
        assert page.get_by_role("button", name="Cancel").count() == 0  # a viewer has no buttons


def test_a_large_log_costs_its_newest_part(cabinet: Cabinet, platform: Web) -> None:
    folder = settings_of(platform.state).run_files / FAILED
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fit.1.log").open("wb") as file:
        file.truncate(2**30)
        file.seek(2**30)
        file.write(b"\nthe last line\n")
    with cabinet.window("guest") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{FAILED}")
        page.locator("summary", has_text="fit").click()
        expect(page.locator("#log-fit [data-text]")).to_contain_text("the last line")
        expect(page.get_by_text("Only the newest part of this log is shown.").first).to_be_visible()


def test_what_failed_is_repeated(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("maker") as page:
        cabinet.open(page, f"{PIPELINE}/runs/{FAILED}")
        assert page.title().startswith(FAILED)  # no script of a message has run
        page.get_by_role("button", name="Retry failed stages").click()
        page.wait_for_url(lambda url: "/runs/" in url and not url.endswith(FAILED))
        assert stored(platform, page.url.rpartition("/")[2]).origin == FAILED


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
