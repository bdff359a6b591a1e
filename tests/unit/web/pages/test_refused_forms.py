"""What a form is refused for is said in the reader's language: every form of the pages, filled in wrongly, in Russian.
The list of forms is compared with the routes, so that a new form needs a line here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.runs.run import new_run, new_run_id
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.domain.storage.keys import user_area
from controller.encryption import SecretKeys
from controller.web.app import create_app
from controller.web.auth.rules import RULES
from controller.web.auth.sign_in import SharedAttempts
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.ordering import settings_in
from tests.support.people import Browser, add_person, hidden
from tests.support.runs import make_pipeline
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

ACCESS = StorageAccess("http://127.0.0.1:9000", "https://files.example.org", "web", Secret("letmein-storage"))
RUN = new_run_id(1.0, 1)
APP = "/-/apps/<name>"
RUNS = f"{APP}/pipelines/<pipeline>/runs"
Fields = dict[str, str]

#: What is wrong in each form. Those without an entry of theirs can only be about something that is gone.
WRONG: dict[str, list[Fields]] = {
    "/-/login": [{"name": "boss", "password": "wrong"}, {"name": "", "password": ""}],
    "/-/new/<template>": [
        {"name": ""},
        {"name": "-"},
        {"name": "demo"},
        {"name": "new", "value-path": "no/path"},
        {"name": "new", "limit-cpus": "many"},
        {"name": "new", "limit-memory": "-1"},
    ],
    f"{APP}/delete": [{"confirm": ""}, {"confirm": "else"}],
    f"{APP}/secrets": [
        {"secret": "", "key": "K", "value": "v"},
        {"secret": "Upper", "key": "K", "value": "v"},
        {"secret": "mail", "key": "a b", "value": "v"},
        {"secret": "mail", "key": "K", "value": ""},
        {"secret": "mail", "key": "K", "value": "v" * 200_000},
    ],
    f"{APP}/secrets/<secret>/remove": [],
    f"{APP}/files/<path:target>": [
        {"to": "one"},
        {"to": "a//b"},
        {"to": "../b"},
        {"to": "a/b\\c"},
        {"to": "a/" + "b" * 999},
    ],
    RUNS: [{"input.data": "a/../b"}, {"input.data": "group/missing.csv"}],
    f"{RUNS}/<id>/cancel": [],
    f"{RUNS}/<id>/retry": [{}],
    "/-/tokens": [
        {"label": "x" * 61, "scope": "read", "days": "1"},
        {"label": "x", "scope": "all", "days": "1"},
        {"label": "x", "scope": "read", "days": "0"},
        {"label": "x", "scope": "read", "days": "367"},
    ],
    "/-/users": [{"name": ""}, {"name": "Not a name"}, {"name": "boss"}],
    "/-/users/<id>/link": [{}],
    "/-/users/<id>/remove": [{}],
    "/-/users/<id>/roles": [
        {"role": "king"},
        {"role": "viewer", "app": "two words"},
        {"role": "developer"},
        {"role": "admin", "app": "demo"},
        {"role": "viewer"},
    ],
    "/-/users/<id>/roles/revoke": [{"role": "viewer"}],
    "/-/tokens/<id>/revoke": [{}],
    "/-/sessions/<id>/revoke": [{}],
    "/-/device/answer": [
        {"answer": "allow", "scope": "none"},
        {"answer": "allow", "scope": "read", "code": "BCDF"},
    ],
    f"{APP}/approve": [{}],
    f"{APP}/rollback": [{}, {"revision": "0" * 40}],
    f"{APP}/notifications/<notification>/test": [{}],
    f"{APP}/previews/<preview>/keep": [{}],
    f"{APP}/previews/<preview>/remove": [{}],
    f"{APP}/reconcile": [],
    f"{APP}/retry": [],
    f"{APP}/suspend": [],
    f"{APP}/resume": [],
}
#: What only programs ask for.
PROGRAMS = {
    "/-/apps",
    "/-/device",
    "/-/device/token",
    "/-/images/prune",
    "/-/hooks/<repository>",
    "/-/login/oidc/<issuer>/logout",
    "/-/me/logout",
    "/-/logout",
    f"{APP}/age-keys",
    f"{APP}/components/<component>/passes",
    "/-/git/<hosted>.git/git-upload-pack",
    "/-/git/<hosted>.git/git-receive-pack",
}
#: What stands in a route for a part of it. Nothing of the kind exists, unless the form is about something that does.
PARTS = {
    "<name>": "demo",
    "<template>": "function",
    "<secret>": "mail",
    "<path:target>": "data/group/a.csv",
    "<pipeline>": "train",
}
_ALERT = re.compile(r"<(\w+)[^>]*role=\"alert\"[^>]*>(.*?)</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = settings_in(tmp_path_factory.mktemp("host"))
    store = open_store(settings.database)
    store.secrets.unlock(SecretKeys(b"k" * 32))
    objects = FakeObjects()
    for bucket in ("prichal.demo.data", "prichal.demo.userdata"):
        objects.create_bucket(bucket)
    objects.put("prichal.demo.data", f"{user_area('person:boss')}group/a.csv", io.BytesIO(b"a"), 1)
    store.boxes.record_access(ACCESS)
    storage = StorageClient(store, lambda access: objects)
    app = AppName("demo")
    store.apps.save(AppStatus(app, components=(ComponentStatus(ComponentName("model"), "MLComponent"),)))
    pipeline = make_pipeline(app=app)
    store.runs.publish(app, (pipeline,))
    store.runs.submit(new_run(RUN, pipeline, 1.0))
    store.boxes.save(BoxRecord(app, ComponentName("data"), "prichal.demo.data", 10**9))
    store.boxes.save(BoxRecord(app, ComponentName("userdata"), "prichal.demo.userdata", 10**9))
    made = create_app(store, settings, storage)
    people = people_context(made).store
    add_person(people, "boss", Grant("boss", Role.ADMIN))
    yield made
    storage.close()
    store.close()


@pytest.fixture
def boss(app: Flask) -> Browser:
    people_context(app).sign_in.attempts = SharedAttempts()  # sign-ins are limited in number
    browser = Browser(app)
    browser.sign_in("boss")
    return browser


def alerts(page: Any) -> list[str]:
    return [text for _, text in _ALERT.findall(page.text) if text.strip()]


def test_every_form_is_here() -> None:
    posts = {route for method, route in RULES if method == "POST"}
    assert posts == set(WRONG) | PROGRAMS


CASES = [(route, fields) for route, wrong in WRONG.items() for fields in wrong]


@pytest.mark.parametrize(
    ("route", "fields"), CASES, ids=[f"{route} {str(fields)[:60]}" for route, fields in CASES]
)
def test_no_refusal_is_in_english(app: Flask, boss: Browser, route: str, fields: Fields) -> None:
    path = route
    for part, value in {
        **PARTS,
        "<id>": RUN if "/runs/" in route else "boss" if route.endswith("remove") else "gone",
    }.items():
        path = path.replace(part, value)
    form = hidden(boss.open("/-/login" if route == "/-/login" else "/-/tokens"))["form"]
    page = boss.submit(path, {"form": form, **fields}, **{"Accept-Language": "ru"})
    assert page.status_code >= 400, page.text
    assert '<html lang="ru"' in page.text
    told = alerts(page)
    assert told, page.text
    for text in told:
        assert 'lang="en"' not in text
        assert re.search("[а-яё]{3}", text), text
