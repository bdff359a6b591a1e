"""The page of Secrets: forms with and without a file, and what each shows of them, which is never a value."""

from __future__ import annotations

import io
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.roles import Grant, Role
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.people import Browser, add_person, hidden

#: Together they take seconds.
pytestmark = pytest.mark.slow

PAGE = "/-/apps/demo/secrets"
VALUE = "hunter2-horse"


@pytest.fixture
def app(store: SqliteStore, storage: StorageClient, tmp_path: Path) -> Flask:
    (tmp_path / "web").mkdir()
    made = create_app(store, Settings(state=tmp_path), storage)
    store.secrets.unlock(SecretKeys(b"k" * 32))
    uses = (
        SecretUse("mail", ("MLComponent reader",), declared=False),
        SecretUse("in-git", ("MLComponent reader",), declared=True),
    )
    store.apps.save(AppStatus(AppName("demo"), secrets=uses))
    people = people_context(made).store
    add_person(people, "bob", Grant("bob", Role.DEVELOPER, "demo"))
    add_person(people, "eve", Grant("eve", Role.VIEWER, "demo"))
    return made


@pytest.fixture
def bob(app: Flask) -> Browser:
    browser = Browser(app)
    browser.sign_in("bob")
    return browser


def applied(store: SqliteStore) -> dict[str, dict[str, str]]:
    with store.transaction():  # before which the daemon takes in what others ask for
        pass
    readable = store.secrets.of(AppName("demo")).readable
    return {each.name: {key: value.reveal() for key, value in each.values} for each in readable}


def submit(bob: Browser, content: bytes | None = None, /, **fields: Any) -> Any:
    if content is not None:
        fields["file"] = (io.BytesIO(content), "value.txt")
    return bob.submit(PAGE, {**hidden(bob.open(PAGE)), **fields})


def test_a_key_is_typed_or_comes_from_a_file(bob: Browser, store: SqliteStore) -> None:
    assert submit(bob, secret="mail", key="TYPED", value=f"{VALUE}\r\n").status_code == 303
    assert submit(bob, b"from a file\n", secret="mail", key="FILE", value="not this").status_code == 303
    assert (
        submit(bob, b"", secret="mail", key="FILE", value=VALUE).status_code == 422
    )  # an empty file was chosen
    assert applied(store) == {"mail": {"TYPED": VALUE, "FILE": "from a file"}}
    text = bob.open(PAGE).text
    assert "set FILE (by bob)" in text
    assert VALUE not in text


def test_what_is_needed_comes_first(bob: Browser, store: SqliteStore) -> None:
    text = bob.open(PAGE).text
    assert text.index("Needed and not set") < text.index("Set a key") < text.index("Set by manifests")
    submit(bob, secret="mail", key="A", value=VALUE)
    submit(bob, secret="in-git", key="A", value=VALUE)
    applied(store)
    text = bob.open(PAGE).text
    assert "Needed and not set" not in text
    assert "Set by manifests" not in text
    assert "replaces that of a manifest" in text


def test_a_refused_form_comes_back_without_its_value(bob: Browser, store: SqliteStore) -> None:
    for content, fields in (
        (b"\xff", {"secret": "mail", "key": "A"}),
        (None, {"secret": "mail", "key": "a b", "value": VALUE}),
        (None, {"secret": "M", "key": "A", "value": VALUE}),
        (b"x" * 100_001, {"secret": "mail", "key": "A"}),
    ):
        reply = submit(bob, content, **fields)
        assert reply.status_code == 422
        assert f'value="{fields["key"]}"' in reply.text
        assert VALUE not in reply.text
    assert applied(store) == {}


def test_keys_and_secrets_are_removed(bob: Browser, store: SqliteStore) -> None:
    for key in ("A", "B/1", "C"):
        submit(bob, secret="mail", key=key, value=VALUE)
    form = hidden(bob.open(PAGE))
    assert bob.submit(f"{PAGE}/mail/remove", {**form, "key": "B/1"}).status_code == 303
    assert applied(store)["mail"].keys() == {"A", "C"}
    assert bob.submit(f"{PAGE}/mail/remove", form).status_code == 303
    assert applied(store) == {}


def test_only_who_steers_the_app_gets_it_and_only_with_a_form_of_ours(
    app: Flask, bob: Browser, store: SqliteStore
) -> None:
    eve = Browser(app)
    eve.sign_in("eve")
    assert eve.open(PAGE).status_code == 403
    fields = {"secret": "mail", "key": "A", "value": VALUE}
    file = {"file": (io.BytesIO(b"x"), "value.txt")}
    for more in ({}, {"form": "made-up.0123"}):
        assert bob.submit(PAGE, {**fields, **more}).status_code == 401
        assert bob.submit(PAGE, {**fields, **more, **file}).status_code == 401  # type: ignore[dict-item]
        file = {"file": (io.BytesIO(b"x"), "value.txt")}
    stolen = hidden(eve.open("/-/apps/demo"))
    assert bob.submit(PAGE, {**fields, "form": stolen.get("form", "")}).status_code in (401, 403)
    script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    assert bob.submit(PAGE, {**hidden(bob.open(PAGE)), **fields}, **script).status_code == 401
    assert applied(store) == {}


def test_the_address_may_say_what_to_fill_in_and_is_not_trusted(bob: Browser) -> None:
    text = bob.open(f'{PAGE}?secret="><script>x</script>&key=%22%3E{"k" * 400}').text
    assert "<script>x" not in text
    shown = text.partition('name="key" value="')[2].partition('"')[0]
    assert len(unescape(shown)) == 253, "a key has at most 253 characters"
    assert bob.open("/-/apps/@platform/secrets").status_code in (403, 404)
    assert bob.open("/-/apps/nothing/secrets").status_code == 404


def test_the_public_key_for_files_in_git_is_shown(bob: Browser, store: SqliteStore) -> None:
    assert "Encrypted in Git" not in bob.open(PAGE).text
    store.age_keys.ensure(AppName("demo"))
    [key] = store.age_keys.listed(AppName("demo"))
    text = unescape(bob.open(PAGE).text)
    assert "Encrypted in Git" in text
    assert f"age: {key.recipient}" in text
