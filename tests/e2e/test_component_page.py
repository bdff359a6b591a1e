"""The page of a component in a real browser, on the whole platform: a developer tries the API with a picture of
their own, sees the answer, and the text for a shell and that for Python make the same call."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from controller.domain.people.roles import Grant, Role
from controller.store.people import PeopleStore
from tests.support.browser import browser
from tests.support.cabinet import LIMITS, Cabinet, Look, chromium, faults
from tests.support.engines import BASE_IMAGE
from tests.support.people import add_person
from tests.support.platform import Module, Platform
from tests.support.waiting import wait_for

PEOPLE = {"anna": "the-key-of-anna-is-long"}
NAME = """it's a "picture" $HOME.png"""
SOURCE = '''
def predict(inputs, context):
    """Turn a picture into itself, <img src=x onerror="document.title='taken'"> & 'more'.

    :param inputs.picture: a picture <script>document.title = "taken"</script>
    :type inputs.picture: FILE
    :param inputs.table: numbers
    :type inputs.table: FP64
    :param inputs.note: a note
    :type inputs.note: str, optional
    :param outputs.same: the same picture
    :type outputs.same: FILE
    :param outputs.twice: the numbers doubled
    :type outputs.twice: FP64
    :param outputs.said: the note
    :type outputs.said: str
    """
    given = {item["name"]: item for item in inputs}
    path = context.folder + "/same.png"
    with open(given["picture"]["data"], "rb") as file, open(path, "wb") as copy:
        copy.write(file.read())
    (rows, columns), numbers = given["table"]["shape"], given["table"]["data"]
    doubled = [[2 * value for value in numbers[row * columns : (row + 1) * columns]] for row in range(rows)]
    note = given["note"]["data"] if "note" in given else "none"
    return {"same": path, "twice": doubled, "said": note}
'''


def png(size: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((255, 0, 0)) * size for _ in range(size))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def cabinet(platform: Platform) -> Iterator[Cabinet]:
    if browser() is None:
        pytest.skip("needs Chromium: scripts/test-tools")
    with chromium() as found:
        people = PeopleStore(platform.home / "state" / "web" / "people.db")
        yield Cabinet(f"http://127.0.0.1:{platform.port}", people, found)


def declare(module: Module) -> str:
    auth = {"token": {"credentials": "people"}}
    module.write("app.py", SOURCE).write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n")
    module.component(
        "model",
        image={"build": {"context": "."}},
        mlService={"inference": "app:predict"},
        resources={"cpus": 0.5, "memory": "128Mi"},
        connectedBoxes=[{"name": "data", "default": True}],
    )
    module.api(restfulApi={"auth": auth}).box("data").files_api(auth=auth)
    return module.push()


def field(name: str) -> str:
    return f'[data-field="{name}"]'


def run_text(command: list[str], text: str) -> dict[str, object]:
    env = {**os.environ, "API_TOKEN": PEOPLE["anna"], "no_proxy": "*"}
    done = subprocess.run([*command, text], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def outputs(answer: dict[str, object]) -> dict[str, object]:
    listed = answer["outputs"]
    assert isinstance(listed, list), answer
    return {each["name"]: each["data"] for each in listed}


def test_a_developer_tries_a_component(
    platform: Platform, module: Module, app: str, cabinet: Cabinet
) -> None:
    revision = declare(module)
    platform.connect(module, app, {"people": PEOPLE})
    platform.until_ready(app, revision)
    add_person(cabinet.people, "maker", Grant("maker", Role.DEVELOPER, app), password=False)
    add_person(cabinet.people, "guest", Grant("guest", Role.VIEWER, app), password=False)
    place = f"/-/apps/{app}/components/model"
    with cabinet.window("maker") as page:
        cabinet.open(page, place)
        tries_a_picture(page)
        shows_what_is_wrong(page)
        assert (
            platform.put_file(
                app,
                "data/texts/it%27s%20a%20%22picture%22%20%24HOME.png",
                png(),
                headers={"Authorization": f"Bearer {PEOPLE['anna']}"},
            ).status
            == 200
        )
        gives_texts_that_run(page)
        charts_are_drawn(page)
        assert page.title() == f"model · {app} · prichal", "no text of the module ran"
        assert faults(page) == []
        assert cabinet.complaints() == []
        ends_with_the_session(cabinet, page)
    with cabinet.window("guest", Look("ru", dark=True)) as page:
        cabinet.open(page, place)
        assert page.locator("h1").inner_text() == "model"
        assert page.locator("[data-try] form").count() == 0
        assert faults(page) == []
    acts = [(each.who, each.act, each.subject) for each in cabinet.people.acts()]
    assert ("maker", "try", f"{app}/api") in acts
    assert ("maker", "try", f"{app}/files") in acts


def tries_a_picture(page: Page) -> None:
    page.wait_for_selector(field("picture"))
    assert page.locator(f"{field('picture')} legend + p").inner_text().startswith("a picture <script>")
    page.locator(f"{field('picture')} input[type=file]").set_input_files(
        {"name": NAME, "mimeType": "image/png", "buffer": png()}
    )
    page.locator(f"{field('table')} [data-value]").fill("[[1, 2], [3, 4.5]]")
    page.locator("[data-send]").click()
    page.wait_for_selector("[data-result] > *")
    assert page.locator("[data-result] [role=alert]").all_inner_texts() == []
    page.wait_for_selector("[data-result] img.shown")
    wait_for(lambda: page.locator("img.shown").evaluate("one => one.naturalWidth") == 8)
    expect(page.locator("[data-said]")).to_contain_text(re.compile("^200 · "))
    assert page.locator("[data-result] td.number").all_inner_texts() == ["2", "4", "6", "9"]
    assert "none" in page.locator("[data-result] pre").all_inner_texts()


def shows_what_is_wrong(page: Page) -> None:
    table = page.locator(f"{field('table')} [data-value]")
    for text, told in (
        ("[[1], [2, 3]]", "equal lengths"),
        ("one", "cannot be read"),
        ("", "required"),
        ('["a"]', "numbers"),
    ):
        table.fill(text)
        page.locator("[data-send]").click()
        expect(page.locator("[data-result] [role=alert]")).to_contain_text(told)


def gives_texts_that_run(page: Page) -> None:
    """With a path, a table and a note that a shell and Python would read otherwise if they were not quoted."""
    page.locator(f"{field('picture')} input[type=file]").set_input_files([])
    page.locator(f"{field('picture')} [data-value]").fill(f"texts/{NAME}")
    page.locator(f"{field('table')} [data-value]").fill("[[1e3]]")
    note = 'it\'s "so" \\n $(id) `id` \N{SNOWMAN} \N{GRINNING FACE}\nsecond line'
    page.locator(f"{field('note')} [data-value]").fill(note)
    for command, id in ((["bash", "-c"], "try-curl"), ([sys.executable, "-c"], "try-python")):
        text = page.locator(f"#{id}").evaluate("one => one.textContent")
        assert "API_TOKEN" in text
        found = outputs(run_text(command, text))
        assert (found["twice"], found["said"]) == ([2000], note)


def charts_are_drawn(page: Page) -> None:
    page.wait_for_selector("[data-charts][data-drawn]")
    wait_for(
        lambda: page.locator("figure[data-chart=memory] path").get_attribute("d") not in (None, "M0 0"),
        limit=60,
    )
    page.locator("figure[data-chart=memory] summary").click()
    expect(page.locator("figure[data-chart=memory] tbody tr")).to_have_count(12)


def ends_with_the_session(cabinet: Cabinet, page: Page) -> None:
    (session,) = cabinet.people.sessions(LIMITS, time.time(), "maker")
    cabinet.people.end_session(session.id)
    page.locator("[data-send]").click()
    page.wait_for_selector("[data-result] .notice.bad")
    cabinet.complaints()  # the browser logs each 401
