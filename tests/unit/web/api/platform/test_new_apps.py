"""`POST /-/apps`, `DELETE /-/apps/<name>`, `/-/templates`, `/-/orders`: who may ask for what, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from controller.domain.apps.orders import OrderState
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.domain.templates import TemplateRecord
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.ordering import Host, settings_in
from tests.support.people import add_person, add_token
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

NAME = "pu-anna-pa-demo"


class Site(Host):
    app: Flask
    tokens: dict[str, str]

    def ask(self, who: str, path: str, body: object = None, method: str = "") -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        method = method or ("POST" if body is not None else "GET")
        return self.app.test_client().open(path, method=method, headers=headers, json=body)

    def create(self, who: str = "anna", name: str = NAME, **more: object) -> Any:
        return self.ask(who, "/-/apps", {"name": name, "template": "function", **more})

    def connected(self) -> None:
        """What the daemon does, and the passes that follow."""
        self.work()
        for app in self.spec().apps:
            self.store.apps.save(AppStatus(app.name))
        self.store.orders.replace_shares(each for each in _shares(self))


def _shares(site: Site) -> Any:
    from controller.domain.apps.orders import shares_of

    return shares_of(site.spec())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    settings = settings_in(tmp_path)
    store = open_store(settings.database)
    storage = StorageClient(store, lambda access: FakeObjects())
    site = Site(settings, store)
    people = {"anna": (Role.CREATOR,), "boris": (Role.CREATOR,), "eva": (), "boss": (Role.ADMIN,)}
    for name, roles in people.items():
        add_person(site.people, name, *(Grant(name, role) for role in roles), password=False)
    site.tokens = {name: add_token(site.people, name) for name in people}
    site.app = create_app(store, settings, storage)
    yield site
    storage.close()
    store.close()


def test_a_person_makes_an_app_and_becomes_its_developer(site: Site) -> None:
    reply = site.create(values={"path": "count"}, limits={"memory": "300Mi"})
    assert (reply.status_code, reply.json["state"], reply.json["app"]) == (202, "pending", NAME)
    place = reply.headers["Location"]
    assert site.ask("anna", f"/-/apps/{NAME}").status_code == 404
    site.connected()
    done = site.ask("anna", place).json
    assert (done["state"], done["reason"]) == ("done", "AppCreated")
    assert done["repository"] == str(site.settings.repositories / f"{NAME}.git")
    assert site.ask("anna", f"/-/apps/{NAME}").status_code == 200
    assert site.ask("boris", f"/-/apps/{NAME}").status_code == 404
    assert site.ask("anna", f"/-/apps/{NAME}/suspend", {}).status_code == 202
    assert [(act.who, act.act, act.subject) for act in site.people.acts(10)][-1] == (
        "anna",
        "app create",
        NAME,
    )


def test_orders_are_seen_by_their_authors_and_admins(site: Site) -> None:
    place = site.create().headers["Location"]
    assert [site.ask(who, place).status_code for who in ("anna", "boris", "eva", "boss")] == [
        200,
        404,
        404,
        200,
    ]
    assert site.ask("boss", "/-/orders/../../etc").status_code == 404
    assert site.ask("boss", "/-/orders/" + "g" * 32).status_code == 404


REFUSED: list[tuple[dict[str, object], int, str, str]] = [
    ({"name": "demo"}, 422, "invalid-request", "begin with 'pu-anna-pa-'"),
    ({"name": "pu-anna-pa-"}, 422, "invalid-request", "begin with"),
    ({"name": "pu-boris-pa-demo"}, 422, "invalid-request", "begin with"),
    ({"name": "pu-anna-pa-демо"}, 422, "invalid-request", "a-z, 0-9 and hyphens"),
    ({"name": "pu-anna-pa-<script>'\""}, 422, "invalid-request", "a-z, 0-9 and hyphens"),
    ({"name": "pu-anna-pa-" + "x" * 60}, 422, "invalid-request", "1 to 63"),
    ({"template": "../function"}, 422, "invalid-request", "there is no template"),
    ({"values": {"path": "a/b"}}, 422, "invalid-request", "path must match"),
    ({"values": {"path": ["a"]}}, 422, "invalid-request", "must be a text"),
    ({"values": {"no": "x"}}, 422, "invalid-request", "no variable 'no'"),
    ({"limits": {"cpus": 5}}, 403, "quota-exceeded", "cpus: 5 asked for, 4 of 4 left"),
    ({"limits": {"gpus": 1}}, 403, "quota-exceeded", "gpus: 1 asked for, 0 of 0 left"),
    ({"limits": {"memory": "1Ti"}}, 403, "quota-exceeded", "memory: 1Ti asked for"),
    ({"limits": {"memory": "much"}}, 422, "invalid-request", "give for example 512Mi"),
    ({"limits": {"cpus": -1}}, 422, "invalid-request", "cpus is '-1'"),
    ({"limits": {"gpus": 0.5}}, 422, "invalid-request", "gpus is '0.5'"),
    ({"limits": {"time": 1}}, 422, "invalid-request", "no limit 'time'"),
    ({"limits": {"cpus": True}}, 422, "invalid-request", "must be a number"),
    ({"owner": "boss"}, 422, "invalid-request", "must be a mapping"),
    ({"name": 5}, 422, "invalid-request", "must be a mapping"),
]


def test_what_is_refused(site: Site) -> None:
    for body, status, kind, told in REFUSED:
        reply = site.ask("anna", "/-/apps", {"name": NAME, "template": "function", **body})
        assert reply.status_code == status, body
        assert reply.json["type"].endswith(kind)
        assert told.lower() in reply.json["detail"].lower()
        assert (site.people.promises(), site.store.orders.unfinished()) == ((), ())


def test_a_name_that_is_taken(site: Site) -> None:
    site.create()
    site.connected()
    again = site.create()
    assert (again.status_code, again.json["reason"]) == (409, "AlreadyConnected")


def test_two_orders_for_one_name(site: Site) -> None:
    """An admin may choose the name of somebody else's app; the first order wins, and the other author is told."""
    first, second = site.create(), site.create("boss")
    assert (first.status_code, second.status_code) == (202, 202)
    site.connected()
    told = site.ask("boss", second.headers["Location"]).json
    assert (told["state"], told["reason"]) == ("refused", "AlreadyConnected")
    assert site.ask("anna", first.headers["Location"]).json["state"] == "done"


def test_quotas(site: Site) -> None:
    site.people.set_quota("anna", {"apps": 1, "gpus": 2})
    you = site.ask("anna", "/-/templates").json["you"]
    assert (you["mayCreate"], you["prefix"]) == (True, "pu-anna-pa-")
    assert (you["quota"]["apps"], you["quota"]["gpus"], you["quota"]["cpus"]) == (1, 2, 4)
    assert site.create(limits={"gpus": 2}).status_code == 202
    site.connected()
    full = site.create(name=f"{NAME}-2", limits={"cpus": 0.1})
    assert (full.status_code, "apps: 1 asked for, 0 of 1 left" in full.json["detail"]) == (403, True)
    assert site.ask("anna", "/-/templates").json["you"]["used"]["gpus"] == 2
    site.people.set_quota("anna", {"apps": None})
    assert site.create(name=f"{NAME}-2", limits={"cpus": 0.1}).status_code == 202


def test_admins_have_neither_prefix_nor_quota(site: Site) -> None:
    assert site.create("boss", "anything", limits={"cpus": 100, "gpus": 8}).status_code == 202
    site.connected()
    assert site.spec().apps[0].owner == "boss"
    you = site.ask("boss", "/-/templates").json["you"]
    assert (you["prefix"], you["quota"]) == ("", None)


def test_templates_for_everybody_and_their_problems_for_admins(site: Site) -> None:
    site.store.templates.replace(
        [TemplateRecord("lab", None, "https://git.example.org/lab", "", "is broken")]
    )
    shown = site.ask("eva", "/-/templates").json
    assert shown["you"]["mayCreate"] is False
    (lab,) = (each for each in shown["templates"] if each["name"] == "lab")
    assert lab == {"name": "lab", "usable": False}
    (lab,) = (each for each in site.ask("boss", "/-/templates").json["templates"] if each["name"] == "lab")
    assert (lab["problem"], lab["url"]) == ("is broken", "https://git.example.org/lab")
    refused = site.create(template="lab")
    assert (refused.status_code, refused.json["reason"]) == (422, "TemplateUnusable")
    assert site.create(template="pipeline").status_code == 202


def test_deleting(site: Site) -> None:
    site.create()
    site.connected()
    gone = f"/-/apps/{NAME}"
    assert site.ask("boris", gone, method="DELETE").status_code == 404
    assert site.ask("anna", gone, method="DELETE").status_code == 409
    assert site.ask("anna", f"{gone}?confirm=pu-anna", method="DELETE").json["type"].endswith("not-confirmed")
    reply = site.ask("anna", f"{gone}?confirm={NAME}", method="DELETE")
    assert reply.status_code == 202
    site.work()
    record = site.store.orders.get(reply.json["id"])
    assert record is not None
    assert record.state is OrderState.DONE
    assert site.ask("boss", "/-/apps/missing?confirm=missing", method="DELETE").status_code == 404
    assert site.ask("anna", gone).status_code == 404
    assert site.people.grants(0.0, "anna") == (Grant("anna", Role.CREATOR),)


def test_scopes(site: Site) -> None:
    site.tokens["reader"] = add_token(site.people, "anna", Scope.READ)
    site.tokens["deployer"] = add_token(site.people, "anna", Scope.DEPLOY)
    assert site.create("reader").status_code == 403
    assert site.create("deployer").status_code == 202
    site.connected()
    assert site.ask("deployer", f"/-/apps/{NAME}?confirm={NAME}", method="DELETE").status_code == 403


def test_a_role_that_was_taken_away_counts_at_once(site: Site) -> None:
    site.create()
    site.connected()
    assert site.ask("anna", f"/-/apps/{NAME}").status_code == 200
    site.people.take_back(Grant("anna", Role.DEVELOPER, NAME))
    assert site.ask("anna", f"/-/apps/{NAME}").status_code == 404
    site.app.test_client().get("/-/apps")
    assert AppName(NAME) not in {grant.app for grant in site.people.grants(0.0, "anna")}
