"""A newcomer with a browser and Git, on the whole platform, in each language of the pages: from the link of an
administrator to an app of their own that answers, a call with a picture, a push, a run with its output, and the end of
the token. Every word by which the test finds something is the one that the page has in that language."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from controller.config import load
from controller.domain.people.roles import Grant, Role
from controller.store.people import LINK, PeopleStore
from controller.web.pages.languages import Language, wording
from tests.e2e.test_component_page import png
from tests.e2e.test_git_https import run as git
from tests.support.browser import browser
from tests.support.cabinet import Cabinet, Look, chromium
from tests.support.engines import BASE_IMAGE
from tests.support.people import PASSWORD, add_person
from tests.support.platform import Platform
from tests.support.waiting import wait_for

LONG = 90_000  # milliseconds: an image is built, or a run ends
PIPELINE = """\
apiVersion: unified-platform.cs.hse.ru/v1
kind: ExperimentPipeline
metadata: {name: measure}
spec:
  connectedBoxes: [{name: userdata, default: true}]
  vars: [{name: picture}, {name: report}]
  stages:
    - name: weigh
      image: {build: {context: .}}
      command: [sh, -c, 'echo "bytes: $(wc -c < "$UNIP_PIPELINE_PICTURE")" > "$UNIP_PIPELINE_REPORT/report.txt"']
      inputs: [{name: picture}]
      outputs: [{name: report}]
      resources: {cpus: 0.25, memory: 64Mi}
---
apiVersion: unified-platform.cs.hse.ru/v1
kind: APIComponent
metadata: {name: runs}
spec:
  published: true
  experimentPipeline: {name: measure}
  restfulApi: {path: measure}
  apiSpec:
    inputs: [{name: picture, description: A picture, type: {datatypes: [FILE]}}]
    outputs: [{name: report, description: Its size}]
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("journey") / "p")
    try:
        running.start()
        running.start_process("git-http")
        wait_for(lambda: (running.home / "state" / "git-http.sock").exists(), limit=30)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def cabinet(platform: Platform) -> Iterator[Cabinet]:
    if browser() is None:
        pytest.skip("needs Chromium: scripts/test-tools")
    with chromium() as found:
        people = PeopleStore(load(platform.config).people)
        yield Cabinet(f"http://127.0.0.1:{platform.port}", people, found)


class Newcomer:
    def __init__(self, cabinet: Cabinet, page: Page, language: Language) -> None:
        self.cabinet = cabinet
        self.page = page
        self.word = wording(language).text
        self.name = f"newcomer-{language}"
        self.app = ""

    def fill(self, label: str, text: str) -> None:
        self.page.get_by_label(self.word(label), exact=True).fill(text)

    def press(self, text: str) -> None:
        self.page.get_by_role("button", name=self.word(text), exact=True).first.click()

    def follow(self, text: str) -> None:
        self.page.get_by_role("link", name=self.word(text), exact=True).first.click()


@pytest.mark.parametrize("language", list(Language))
def test_from_the_link_to_the_end_of_the_token(
    cabinet: Cabinet, platform: Platform, tmp_path: Path, language: Language
) -> None:
    (picture := tmp_path / "picture.png").write_bytes(png())
    with cabinet.window(look=Look(language)) as page:
        person = Newcomer(cabinet, page, language)
        signs_in(person)
        makes_an_app(person, language)
        tries_it(person, picture)
        secret = makes_a_token(person)
        tree = clones(person, platform, secret, tmp_path)
        pushes_a_change(person, tree)
        tries_it(person, picture, answers="changed by a person")
        runs_a_pipeline(person, picture)
        assert cabinet.complaints() == []
        revokes_the_token(person, tree)
    acts = {entry.act for entry in cabinet.people.acts(50, person.name)}
    assert acts >= {"password set", "app create", "try", "token add", "run start", "token revoke"}


def signs_in(person: Newcomer) -> None:
    cabinet = person.cabinet
    add_person(cabinet.people, person.name, Grant(person.name, Role.CREATOR), password=False)
    cabinet.people.put_link(person.name, f"code-of-{person.name}", time.time() + LINK)
    cabinet.open(person.page, f"/-/login?code=code-of-{person.name}")
    person.fill("Password, at least 10 characters", PASSWORD)
    person.fill("The same password again", PASSWORD)
    person.press("Set password and sign in")


def makes_an_app(person: Newcomer, language: Language) -> None:
    page = person.page
    person.follow("New app")
    page.get_by_role("link", name={"en": "Files with a form", "ru": "Файлы и форма"}[language]).click()
    name = page.get_by_label(person.word("Name of the app"), exact=True)
    person.app = f"{name.input_value()}files-{language}"
    name.fill(person.app)
    base = {"en": "Base image with Python", "ru": "Базовый образ с Python"}[language]
    page.get_by_label(base).fill(BASE_IMAGE)
    person.press("Make the app")
    expect(page.get_by_text(person.word("The app answers."))).to_be_visible(timeout=LONG)


def tries_it(person: Newcomer, picture: Path, answers: str = "PNG") -> None:
    page = person.page
    person.cabinet.open(page, f"/-/apps/{person.app}/components/convert")
    field = page.locator('[data-field="document"]')
    field.get_by_label(person.word("A file of yours")).set_input_files(picture)
    person.press("Call")
    expect(page.locator("[data-said]")).to_contain_text("200 · ", timeout=LONG)
    expect(page.locator("[data-result] pre").first).to_contain_text(answers)


def makes_a_token(person: Newcomer) -> str:
    person.follow("Tokens")
    person.fill("Label", "of the journey")
    person.page.get_by_label(person.word("Scope"), exact=True).select_option("deploy")
    person.press("Make token")
    return person.page.locator("#secret").inner_text()


def clones(person: Newcomer, platform: Platform, secret: str, folder: Path) -> Path:
    url = f"http://{person.name}:{secret}@127.0.0.1:{platform.port}/-/git/{person.app}.git"
    assert done(git(folder, "clone", "--quiet", url, "tree")) == ""
    return folder / "tree"


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


def pushes_a_change(person: Newcomer, tree: Path) -> None:
    work = tree / "app" / "work.py"
    work.write_text(work.read_text() + '\n\ndef process(content):\n    return b"changed by a person"\n')
    (tree / "manifests" / "pipeline.yaml").write_text(PIPELINE)
    done(git(tree, "add", "--all"))
    done(git(tree, "commit", "--quiet", "-m", "Change the code"))
    pushed = git(tree, "push", "origin", "main")
    assert "prichal: ready after" in pushed.stderr, pushed.stderr
    person.cabinet.open(person.page, f"/-/apps/{person.app}")
    expect(person.page.get_by_role("heading", name=person.word("History"))).to_be_visible()
    expect(person.page.get_by_text("Change the code").first).to_be_visible()


def runs_a_pipeline(person: Newcomer, picture: Path) -> None:
    page = person.page
    person.cabinet.open(page, f"/-/apps/{person.app}")
    page.get_by_role("link", name="measure", exact=True).click()
    page.locator("summary", has_text=person.word("Start a run")).click()
    expect(page.locator("#start [data-chooser]")).to_be_visible()  # which the page's module makes
    page.locator("#start input[type=file]").set_input_files(picture)
    expect(page.locator("#start [data-said]")).to_contain_text(person.word("uploaded"))
    person.press("Start")
    expect(page.locator(".badge").first).to_have_text(person.word("succeeded"), timeout=LONG)
    page.get_by_role("link", name="report.txt", exact=True).click()
    expect(page.locator("pre.block")).to_have_text(f"bytes: {picture.stat().st_size}\n")


def revokes_the_token(person: Newcomer, tree: Path) -> None:
    person.follow("Tokens")
    person.page.locator("button[formaction$='/revoke']").click()
    expect(person.page.get_by_role("status")).to_be_visible()
    refused = git(tree, "push", "origin", "main:refs/heads/later")
    assert refused.returncode != 0
    assert "Authentication failed" in refused.stderr
