"""`prichal image`, with a thread in the daemon's place."""

from __future__ import annotations

import json
import time

import pytest

from controller.cli.exits import Exit
from controller.domain.apps.image_lists import MOST_IMAGES
from controller.domain.apps.kept_images import ImageKind
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.store import SqliteStore
from tests.support.image_lists import ListedImages, answering, kept
from tests.unit.cli.conftest import Machine

GONE = kept("gone").name


@pytest.fixture
def engine(store: SqliteStore) -> ListedImages:
    store.apps.save(AppStatus(AppName("demo")))
    return ListedImages(kept("demo", id="0123456789abcdef"), kept("gone"), kept("", ImageKind.UNFINISHED))


def test_images_are_listed(machine: Machine, store: SqliteStore, engine: ListedImages) -> None:
    with answering(store, engine):
        shown = machine.run("image", "ls")
        as_json = machine.run("image", "ls", "--app", "gone", "-o", "json")
        names = machine.run("image", "ls", "-o", "name")
        none = machine.run("image", "ls", "--app", "other")
    assert (shown.code, shown.stderr) == (Exit.OK, "")
    assert "0123456789ab " in shown.stdout
    assert "but for the newest ones" in " ".join(shown.stdout.split())
    (found,) = json.loads(as_json.stdout)
    assert (found["app"], found["removed"], found["removal"]) == ("gone", True, "its app is gone")
    assert (found["size"], found["created"], found["due"]) == (5 * 2**20, "2023-11-14T22:13:20.000Z", None)
    assert names.stdout.splitlines() == [kept("demo").name, GONE, "sha256:left"]
    assert (none.code, none.stdout, none.stderr) == (Exit.OK, "", "The platform keeps no image.\n")


def test_a_dry_run_removes_nothing(machine: Machine, store: SqliteStore, engine: ListedImages) -> None:
    with answering(store, engine):
        tried = machine.run("image", "prune", "--dry-run", "-o", "name")
        assert len(engine.images) == 3
        done = machine.run("image", "prune", "--yes", "-o", "name")
        again = machine.run("image", "prune", "--yes")
    assert (tried.code, tried.stdout) == (Exit.OK, f"{GONE}\nsha256:left\n")
    assert "This is a dry run" in tried.stderr
    assert done.stdout == tried.stdout
    assert [each.app for each in engine.images] == ["demo"]
    assert "There is no image that nothing needs." in again.stderr


def test_a_person_is_asked_before(machine: Machine, store: SqliteStore, engine: ListedImages) -> None:
    with answering(store, engine):
        refused = machine.run("image", "prune", stdin="n\n")
        assert len(engine.images) == 3
        done = machine.run("image", "prune", "--app", "gone", stdin="y\n")
    assert (refused.code, "Remove 2 images of 10" in refused.stderr) == (Exit.INTERRUPTED, True)
    assert "Remove 1 images of 5" in done.stderr
    assert [each.app for each in engine.images] == ["demo", ""]


def test_what_is_left_out_is_told(machine: Machine, store: SqliteStore, engine: ListedImages) -> None:
    engine.images += [kept("demo", id=f"{number}") for number in range(MOST_IMAGES)]
    with answering(store, engine):
        shown = machine.run("image", "prune", "--dry-run", "-o", "name")
    assert "3 more images are not shown" in shown.stderr
    assert shown.stdout == f"{GONE}\nsha256:left\n", "what is removed is shown first"


def test_without_a_daemon(machine: Machine, store: SqliteStore) -> None:
    late = machine.run("image", "ls", "--timeout", "0")
    assert (late.code, "TimedOut" in late.stderr) == (Exit.TIMEOUT, True)
    store.heartbeat(time.time() - 60)
    for verb in (("ls",), ("prune", "--yes"), ("prune", "--dry-run")):
        found = machine.run("image", *verb)
        assert found.code == Exit.UNREACHABLE
        assert "the daemon does not run, which lists and removes images; start it with" in found.stderr


def test_a_name_that_no_app_can_have(machine: Machine, store: SqliteStore) -> None:
    found = machine.run("image", "ls", "--app", "../x")
    assert (found.code, "NameInvalid" in found.stderr) == (Exit.FAILED, True)
