"""Apps that are made from templates and deleted: what each step leaves, who wins, and what is refused."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.daemon.templates import TemplateShelf
from controller.domain.apps.orders import MOST_WAITING, OrderState
from controller.domain.apps.spec import Limits
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord
from controller.store import open_guest_store
from controller.templates.asking import NewApp, creation, deletion
from tests.support.ordering import QUOTA, Host, settings_in
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

DEMO = "pu-anna-pa-demo"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    settings = settings_in(tmp_path)
    store = open_store(settings.database)
    store.heartbeat(0.0)  # the daemon's connection is there before those of others
    host = Host(settings, store)
    host.people.add("anna", 0.0)
    host.people.add("boris", 0.0)
    yield host
    store.close()


def test_an_app_is_made(host: Host) -> None:
    host.place(host.order(DEMO, 1), "anna")
    host.work()
    record = host.found(1)
    assert (record.state, record.reason) == (OrderState.DONE, Reason.APP_CREATED)
    spec = host.spec()
    app, repository = spec.app(AppName(DEMO)), spec.repositories[0]
    assert app is not None
    assert (app.owner, app.path, app.limits) == ("anna", "manifests", Limits(1.0, 2**30, 0, 64, 0))
    assert (repository.url, repository.hook_provider) == (
        str(host.settings.repositories / f"{DEMO}.git"),
        "generic",
    )
    assert b'path: "count"' in host.commit(DEMO)["manifests/function.yaml"]
    assert host.commit(DEMO)["README.md"].startswith(f"# {DEMO}\n".encode())
    assert host.left() == {f"{DEMO}.yaml", f"{DEMO}.secret.yaml", f"{DEMO}.git"}
    assert (
        host.settings.repositories / f"{DEMO}.git" / "hooks" / "post-receive"
    ).stat().st_mode & stat.S_IXUSR
    host.settle()
    assert host.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, DEMO),)
    assert host.people.promises() == ()
    assert [event.reason for event in host.store.events.list(AppName(DEMO), 0, 10)] == [Reason.APP_CREATED]


def test_of_two_people_one_wins_and_the_other_is_told(host: Host) -> None:
    """Both ask before the daemon looks."""
    first, second = host.order("demo", 1), host.order("demo", 2, by="boris")
    host.place(first, "anna")
    host.place(second, "boris")
    host.work()
    assert host.found(1).state is OrderState.DONE
    assert (host.found(2).state, host.found(2).reason) == (OrderState.REFUSED, Reason.ALREADY_CONNECTED)
    assert "choose another name" in host.found(2).message
    host.settle()
    assert host.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, "demo"),)
    assert host.mark("demo") == first.id


def test_a_quota_holds_for_orders_that_come_together(host: Host) -> None:
    for number in range(5):
        host.place(host.order(f"demo-{number}", number), "anna")
    host.work()
    states = [host.found(number) for number in range(5)]
    assert [each.state for each in states] == [OrderState.DONE] * 3 + [OrderState.REFUSED] * 2
    assert "apps: 1 asked for, 0 of 3 left" in states[3].message
    assert len(host.spec().apps) == 3
    host.place(host.order("boris-demo", 9, by="boris"), "boris")
    host.work()
    assert host.found(9).state is OrderState.DONE


def test_what_is_there_already_is_not_taken(host: Host) -> None:
    host.place(host.order("one", 1))
    host.work()
    host.store.apps.save(AppStatus(AppName("still-there")))
    box = BoxRecord(AppName("kept"), ComponentName("data"), "prichal.kept.data", 1)
    host.store.boxes.save(box)
    (host.settings.repositories / "pushed.git").mkdir()
    for number, name in enumerate(("one", "still-there", "kept", "pushed"), 2):
        host.place(host.order("free", number, app=AppName(name)))
    host.work()
    reasons = [host.found(number).reason for number in range(2, 6)]
    assert reasons == [*(Reason.ALREADY_CONNECTED,) * 2, Reason.DATA_KEPT, Reason.ALREADY_CONNECTED]
    assert host.left() == {"one.yaml", "one.secret.yaml", "one.git", "pushed.git"}


def test_a_broken_platform_folder_refuses_and_leaves_nothing(host: Host) -> None:
    folder = Path(host.settings.platform.path)
    (folder / "broken.yaml").write_text("kind: PlatformApp\napiVersion: unified-platform.cs.hse.ru/v1\n")
    host.place(host.order("demo", 1), "anna")
    host.work()
    assert (host.found(1).state, host.found(1).reason) == (OrderState.REFUSED, Reason.MANIFEST_INVALID)
    assert "ask an admin" in host.found(1).message
    assert host.left() == {"broken.yaml"}
    host.settle()
    assert (host.people.grants(0.0), host.people.promises()) == ((), ())


def test_a_template_that_cannot_be_used_is_refused(host: Host) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"template": "missing"},
        {"values": (("way", "up"),)},
        {"values": (("path", "a/b"),)},
    )
    for number, changes in enumerate(wrong):
        host.place(host.order("demo", number, **changes))
    host.work()
    reasons = [host.found(number).reason for number in range(3)]
    assert reasons == [Reason.UNKNOWN_TEMPLATE, *(Reason.TEMPLATE_VALUES,) * 2]
    assert host.left() == set()


def test_a_disk_that_cannot_be_written_is_tried_again(host: Host) -> None:
    host.settings.repositories.write_text("a file where the folder should be")
    host.place(host.order("demo", 1), "anna")
    host.work()
    assert host.found(1).state is not OrderState.DONE
    host.settings.repositories.unlink()
    host.work()
    assert host.found(1).state is OrderState.DONE


def test_a_platform_in_git_is_refused_with_what_to_do(host: Host) -> None:
    in_git = replace(
        host.settings, platform=replace(host.settings.platform, url="https://git.example.org/p.git")
    )
    with pytest.raises(Stalled, match="prichal new") as refused:
        creation(host.store, in_git, NewApp("demo", "function"), "0" * 32)
    assert refused.value.reason == Reason.PLATFORM_IN_GIT
    with pytest.raises(Stalled, match="remove the documents of demo there"):
        deletion(host.store, in_git, "demo", "demo", "0" * 32)
    host.place(host.order("demo", 1))
    Host(in_git, host.store).work()
    assert (host.found(1).state, host.found(1).reason) == (OrderState.REFUSED, Reason.PLATFORM_IN_GIT)


def test_an_app_is_deleted(host: Host) -> None:
    host.place(host.order("demo", 1), "anna")
    host.place(host.order("other", 2), "anna")
    host.work()
    host.settle()
    host.people.grant(Grant("boris", Role.VIEWER, "demo"))
    host.place(host.removal("demo", 3))
    host.work()
    assert (host.found(3).state, host.found(3).reason) == (OrderState.DONE, Reason.APP_DELETED)
    assert host.left() == {"other.yaml", "other.secret.yaml", "other.git"}
    kept = list((host.settings.repositories / "deleted").iterdir())
    assert [path.name for path in kept] == [f"demo.{3:032x}.git"]
    host.settle()
    assert host.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, "other"),)
    host.place(host.order("demo", 4, by="boris"), "boris")
    host.work()
    host.settle()
    assert Grant("boris", Role.DEVELOPER, "demo") in host.people.grants(0.0)


def test_the_last_app_is_deleted_without_another_approval(host: Host) -> None:
    host.place(host.order("demo", 1))
    host.work()
    host.place(host.removal("demo", 2))
    host.work()
    assert host.store.apps.status(PLATFORM).approved_revision
    assert host.left() == set()


def test_roles_of_an_earlier_app_do_not_open_a_new_one(host: Host) -> None:
    """Nobody has settled the deletion when the name is taken again."""
    host.place(host.order("demo", 1), "anna")
    host.work()
    host.settle()
    host.place(host.removal("demo", 2))
    host.place(host.order("demo", 3, by="boris"), "boris")
    host.work()
    host.settle()
    assert host.people.grants(0.0) == (Grant("boris", Role.DEVELOPER, "demo"),)


def test_a_file_that_declares_more_is_not_removed(host: Host) -> None:
    host.place(host.order("demo", 1))
    host.work()
    path = Path(host.settings.platform.path) / "demo.yaml"
    path.write_text(path.read_text() + "---\n" + path.read_text().replace("name: demo", "name: second", 2))
    host.place(host.removal("demo", 2))
    host.work()
    assert (host.found(2).state, host.found(2).reason) == (OrderState.REFUSED, Reason.SHARED_FILE)
    assert "demo.git" in host.left()


def test_orders_of_other_processes_are_taken_once(host: Host) -> None:
    guest = Host(host.settings, open_guest_store(host.settings.database))
    try:
        order = guest.order("demo", 1)
        guest.place(order, "anna")
        guest.store.orders.ask(order)
        assert guest.found(1).state is OrderState.PENDING
        request = host.store.requests.claim(1e12)
        assert request is not None
        assert request.app == PLATFORM
        guest.store.orders.ask(order)
        host.work()
        assert host.found(1).state is guest.found(1).state is OrderState.DONE
        guest.settle()
        assert guest.people.grants(0.0) == (Grant("anna", Role.DEVELOPER, "demo"),)
    finally:
        guest.store.close()


def test_floods_of_orders_are_bounded(host: Host) -> None:
    guest = Host(host.settings, open_guest_store(host.settings.database))
    try:
        for number in range(MOST_WAITING):
            guest.store.orders.ask(guest.order("demo", number))
        with pytest.raises(Transient, match="try again"):
            guest.store.orders.ask(guest.order("demo", 1000))
        host.store.requests.claim(0.0)
        guest.store.orders.ask(guest.order("late", 1001))
        host.store.requests.claim(0.0)
        assert (host.found(1001).state, host.found(1001).reason) == (OrderState.REFUSED, Reason.QUEUE_FULL)
    finally:
        guest.store.close()


def test_a_promise_without_an_order_is_dropped_after_a_while(host: Host) -> None:
    host.people.promise("0" * 32, "anna", "demo", 0.0)
    host.settle()
    assert host.people.promises() == ()
    host.people.promise("1" * 32, "anna", "demo", 1e12)
    host.settle()
    assert len(host.people.promises()) == 1
    assert host.people.grants(0.0) == ()


def test_promises_end_with_the_account(host: Host) -> None:
    host.place(host.order("demo", 1), "anna")
    host.people.remove("anna")
    host.work()
    host.settle()
    assert (host.people.grants(0.0), host.people.promises()) == ((), ())


def test_limits_bound_what_the_next_commit_may_declare(host: Host) -> None:
    """The share of a new app is held by the checks of each commit."""
    from controller.manifests.build import examine
    from controller.ports import SourceFile

    host.place(host.order("demo", 1, limits=Limits(0.25, 2**27, 0, 64, 0), quota=QUOTA))
    host.work()
    app = host.spec().app(AppName("demo"))
    assert app is not None
    files = [
        SourceFile(path, content) for path, content in host.commit("demo").items() if path.endswith(".yaml")
    ]
    found = [problem.message for problem in examine(files, app, True, host.settings.limits).problems]
    assert [message.partition(";")[2] for message in found] == [
        " the limits of the app allow 0.25 CPUs",
        " the limits of the app allow 128Mi of memory",
    ]


def test_templates_of_the_host_have_its_defaults(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, values=("base=registry.example.org/python:3.12",))
    store = open_store(settings.database)
    try:
        loaded = TemplateShelf(settings, store).get("function")
        assert {v.name: v.default for v in loaded.template.variables}[
            "base"
        ] == "registry.example.org/python:3.12"
    finally:
        store.close()
