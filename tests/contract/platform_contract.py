"""What every implementation of the Protocol `Platform` does: the store read on the host, and the same over HTTP.
Subclasses give the fixture `platform`, over the fixture `store`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from controller.client.platform import AppRequest, Document, LogQuery, Platform
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.kept_images import ImageKind
from controller.domain.apps.plan import Hold, Plan
from controller.domain.apps.previews import PlanPreview, preview_of
from controller.domain.apps.requests import Outcome
from controller.domain.apps.status import AppStatus, ComponentStatus, Event, EventType
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from controller.kept_logs import BUILDS
from controller.store import SqliteStore
from tests.support.image_lists import ListedImages, answering, kept
from tests.support.wire_format import deviations

DEMO = AppName("demo")


def event(message: str, app: AppName = DEMO) -> Event:
    return Event(app, EventType.NORMAL, Reason.READY, message, ComponentName("namer"), "abc", time.time())


def messages(events: list[Document]) -> list[str]:
    return [each["message"] for each in events]


class PlatformContract:
    @pytest.fixture(autouse=True)
    def state(self, store: SqliteStore) -> None:
        ready = Condition(ConditionType.READY, True, Reason.READY, "1 of 1 ready", time.time() - 60)
        part = ComponentStatus(ComponentName("namer"), "MLComponent", "1f0c9a2e", "image:1", "", (ready,))
        store.apps.save(
            AppStatus(
                DEMO,
                repository="colors",
                attempted_revision="a" * 40,
                applied_revision="a" * 40,
                conditions=(ready,),
                components=(part,),
            )
        )
        store.heartbeat(time.time() + 3600)

    def refusal(self, error: pytest.ExceptionInfo[Stalled]) -> tuple[Reason, str]:
        return error.value.reason, error.value.message

    def test_apps(self, platform: Platform, store: SqliteStore) -> None:
        store.apps.save(AppStatus(AppName("another")))
        store.apps.save(AppStatus(PLATFORM))
        found = platform.apps()
        assert [(app["app"], app["state"]) for app in found["apps"]] == [
            ("another", "Unknown"),
            (DEMO, "Ready"),
        ]
        assert (found["daemon"], found["platform"]["app"]) == (True, PLATFORM)
        assert found["apps"][1]["parts"] == {"ready": 1, "all": 1}
        assert list(deviations(found)) == []

    def test_an_app(self, platform: Platform) -> None:
        found = platform.app(DEMO)
        assert (found["app"], found["state"], found["daemon"]) == (DEMO, "Ready", True)
        assert found["components"][0]["fingerprint"] == "1f0c9a2e"
        assert list(deviations(found)) == []
        assert platform.app(PLATFORM)["app"] == PLATFORM

    @pytest.mark.parametrize("ask", ["app", "events", "request", "roll_back"])
    def test_an_unknown_app(self, platform: Platform, ask: str) -> None:
        more: tuple[Any, ...] = (AppRequest.SUSPEND,) if ask == "request" else ()
        with pytest.raises(Stalled) as error:
            getattr(platform, ask)("dem", *more)
        assert self.refusal(error) == (Reason.UNKNOWN_APP, "there is no app 'dem'. Did you mean demo?")

    @pytest.mark.parametrize("name", ["../apps", "a/b", "", "%2e", "de mo", "démo", "x" * 300])
    def test_no_name_leads_elsewhere(self, platform: Platform, name: str) -> None:
        with pytest.raises(Stalled) as error:
            platform.app(name)
        assert error.value.reason in (Reason.UNKNOWN_APP, Reason.SERVER_TOO_OLD, Reason.NOT_A_PLATFORM)

    def test_events_are_told_oldest_first(self, platform: Platform, store: SqliteStore) -> None:
        store.events.add([event("one"), event("two"), event("else", AppName("gone")), event("three")])
        assert messages(platform.events(DEMO)) == ["one", "two", "three"]
        assert messages(platform.events(DEMO, limit=1)) == ["three"]
        assert messages(platform.events(None, limit=2)) == ["else", "three"]
        first = platform.events(DEMO)[0]["id"]
        assert messages(platform.events(DEMO, after=first)) == ["two", "three"]
        assert messages(platform.events(AppName("gone"))) == ["else"], "it has been disconnected"
        assert platform.events(DEMO, limit=0) == []
        assert list(deviations(platform.events(None))) == []

    def test_events_are_awaited(self, platform: Platform, store: SqliteStore) -> None:
        store.events.add([event("before")])
        last = platform.events(None)[-1]["id"]
        assert platform.events(DEMO, after=last) == []
        timer = threading.Timer(0.1, lambda: store.events.add([event("after")]))
        timer.start()
        found: list[Document] = []
        while not found:
            found = platform.events(DEMO, after=last, wait=10.0)
        timer.join()
        assert messages(found) == ["after"]

    @pytest.mark.parametrize("what", list(AppRequest))
    def test_requests(self, platform: Platform, store: SqliteStore, what: AppRequest) -> None:
        found = platform.request(DEMO, what)
        assert (found["app"], found["state"], found["outcome"]) == (DEMO, "queued", "")
        assert found["reasons"] == ["retry" if what is AppRequest.RETRY else "manual"]
        status = store.apps.status(DEMO)
        assert status.suspended is (what is AppRequest.SUSPEND)
        assert status.approved_revision == ("a" * 40 if what is AppRequest.APPROVE else "")
        assert store.requests.get(found["id"]) is not None

    def test_nothing_to_approve(self, platform: Platform, store: SqliteStore) -> None:
        store.apps.save(AppStatus(AppName("new")))
        with pytest.raises(Stalled) as error:
            platform.request("new", AppRequest.APPROVE)
        told = "new has no revision to approve yet; see: prichal status new"
        assert self.refusal(error) == (Reason.NOTHING_PENDING, told)
        assert store.requests.queued(AppName("new")) is None

    def test_the_progress_of_a_request(self, platform: Platform, store: SqliteStore) -> None:
        store.events.add([event("before")])
        after = platform.events(DEMO)[-1]["id"]
        id = platform.request(DEMO, AppRequest.RECONCILE)["id"]
        found = platform.progress(DEMO, id, after, 0.0)
        assert (found["request"]["state"], found["events"], found["daemon"]) == ("queued", [], True)
        store.events.add([event("pulled")])
        found = platform.progress(DEMO, id, after, 10.0)
        assert messages(found["events"]) == ["pulled"]
        claimed = store.requests.claim(time.time())
        assert claimed is not None
        store.requests.finish(claimed.id, Outcome.READY, "all well", "abc")
        found = platform.progress(DEMO, id, found["events"][-1]["id"], 10.0)
        assert (found["request"]["outcome"], found["request"]["message"]) == ("Ready", "all well")
        assert list(deviations(found)) == []

    def test_the_first_events_of_an_app(self, platform: Platform, store: SqliteStore) -> None:
        id = platform.request(DEMO, AppRequest.RECONCILE)["id"]
        store.events.add([event("first")])
        assert messages(platform.progress(DEMO, id, 0, 0.0)["events"]) == ["first"]

    def test_a_request_that_is_not_there_or_of_another_app(
        self, platform: Platform, store: SqliteStore
    ) -> None:
        store.apps.save(AppStatus(AppName("other")))
        id = platform.request("other", AppRequest.RECONCILE)["id"]
        for request in (id, 12345):
            with pytest.raises(Stalled) as error:
                platform.progress(DEMO, request, 0, 0.0)
            told = f"request {request} does not exist, or is over and was deleted"
            assert self.refusal(error) == (Reason.UNKNOWN_REQUEST, told)

    def test_a_daemon_that_does_not_run(self, platform: Platform, store: SqliteStore) -> None:
        store.heartbeat(time.time() - 60)
        assert platform.apps()["daemon"] is False
        assert platform.app(DEMO)["daemon"] is False

    def test_secrets(self, platform: Platform, store: SqliteStore) -> None:
        store.secrets.unlock(SecretKeys(b"k" * 32))
        change = platform.set_secret(
            DEMO, "keys", {"TOKEN": Secret("hunter2-horse"), "a/b&c": Secret("ключ\n")}
        )
        assert (change["state"], change["secret"]) == ("waiting", "keys")
        assert [each["id"] for each in platform.secrets(DEMO)["changes"]] == [change["id"]]
        with store.transaction():  # before which the daemon takes in what others ask for
            pass
        found = platform.secrets(DEMO)
        assert [key["name"] for key in found["secrets"][0]["keys"]] == ["TOKEN", "a/b&c"]
        assert found["changes"][0]["state"] == "applied"
        assert list(deviations(found)) == []
        platform.remove_secret(DEMO, "keys", ["a/b&c"])
        platform.remove_secret(DEMO, "keys", [])
        with store.transaction():
            pass
        assert platform.secrets(DEMO)["secrets"] == []
        assert [each["state"] for each in platform.secrets(DEMO)["changes"]] == ["applied"] * 3

    def test_a_secret_that_nobody_may_set(self, platform: Platform, store: SqliteStore) -> None:
        store.secrets.unlock(SecretKeys(b"k" * 32))
        with pytest.raises(Stalled) as error:
            platform.set_secret(DEMO, "keys", {"TOKEN": Secret("")})
        told = "the value of TOKEN is empty; to remove the key: prichal secret rm"
        assert self.refusal(error) == (Reason.SECRET_REFUSED, told)
        with pytest.raises(Stalled) as error:
            platform.remove_secret("dem", "keys", [])
        assert error.value.reason == Reason.UNKNOWN_APP

    # --- new apps -----------------------------------------------------------------------------------------------

    def test_templates(self, platform: Platform) -> None:
        found = platform.templates()
        assert list(deviations(found)) == []
        assert "function" in {each["name"] for each in found["templates"]}
        assert found["you"]["mayCreate"] is True

    def test_a_new_app(self, platform: Platform, store: SqliteStore) -> None:
        wanted = {"name": "new", "template": "function", "values": {"path": "x"}, "limits": {"memory": "1Gi"}}
        order = platform.create_app(wanted)
        assert (list(deviations(order)), order["app"], order["state"]) == ([], "new", "pending")
        store.requests.claim(0.0)
        (record,) = store.orders.unfinished()
        assert (record.order.id, record.order.app, dict(record.order.values)["path"]) == (
            order["id"],
            "new",
            "x",
        )
        assert record.order.limits is not None
        assert record.order.limits.memory == 2**30
        assert platform.order(order["id"])["state"] == "pending"

    def test_what_new_apps_are_refused_for(self, platform: Platform) -> None:
        right: Document = {"name": "new", "template": "function", "values": {}, "limits": {}}
        for wrong, reason in (
            ({"name": "Имя"}, Reason.NAME_INVALID),
            ({"name": "demo"}, Reason.ALREADY_CONNECTED),
            ({"template": "none"}, Reason.UNKNOWN_TEMPLATE),
            ({"values": {"no": "x"}}, Reason.TEMPLATE_VALUES),
            ({"limits": {"cpus": "many"}}, Reason.LIMITS_INVALID),
        ):
            with pytest.raises(Stalled) as refused:
                platform.create_app({**right, **wrong})
            assert refused.value.reason == reason

    def test_the_end_of_an_app(self, platform: Platform, store: SqliteStore) -> None:
        order = platform.delete_app("demo")
        assert (order["kind"], order["app"], order["state"]) == ("delete", "demo", "pending")
        store.requests.claim(0.0)
        assert [record.order.kind for record in store.orders.unfinished()] == ["delete"]
        with pytest.raises(Stalled) as refused:
            platform.delete_app("demmo")
        assert (refused.value.reason, "Did you mean demo?" in refused.value.message) == (
            Reason.UNKNOWN_APP,
            True,
        )
        with pytest.raises(Stalled) as missing:
            platform.order("0" * 32)
        assert missing.value.reason == Reason.UNKNOWN_ORDER

    # --- plans ------------------------------------------------------------------------------------------------

    @contextmanager
    def daemon(self, store: SqliteStore, **given: Any) -> Iterator[None]:
        """Compute what is asked for, as the daemon does."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.01):
                if asked := store.previews.begin():
                    manifests = [ManifestText("app.yaml", "replicas: 2\n")]
                    store.previews.finish(PlanPreview(asked.id, asked.app, **given), manifests)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(work)
            try:
                yield
            finally:
                over.set()
                done.result()

    def test_a_plan(self, platform: Platform, store: SqliteStore) -> None:
        plan = Plan(DEMO, "b" * 40, holds=(Hold(None, Reason.PRUNE_PENDING, "approve it"),))
        made = preview_of("", plan, "Two of them", "Anna", ["late: it is late"], ())
        given = {each.name: getattr(made, each.name) for each in fields(made)[2:]}
        with self.daemon(store, **given):
            found = platform.plan(DEMO)
            assert (found["from"], "+++ b/app.yaml" in found["manifests"]) == (None, True)
            self.applied(store, "a", "replicas: 1\n")
            found = platform.plan(DEMO)
        assert (found["app"], found["revision"], found["empty"], found["actions"]) == (
            DEMO,
            "b" * 40,
            True,
            [],
        )
        assert found["holds"] == [{"component": None, "reason": "PrunePending", "why": "approve it"}]
        assert (found["text"], found["warnings"]) == (plan.render(), ["late: it is late"])
        assert found["from"]["revision"] == "a" * 40
        assert "-replicas: 1\n+replicas: 2" in found["manifests"]
        assert {"id", "state", "daemon"}.isdisjoint(found)
        assert list(deviations(found)) == []

    @pytest.mark.parametrize("kind", [Stalled, Transient])
    def test_what_prevents_a_plan(
        self, platform: Platform, store: SqliteStore, kind: type[Stalled | Transient]
    ) -> None:
        why = {
            "problem": Reason.REGISTRY_UNREACHABLE,
            "message": "no route to git",
            "is_transient": kind is Transient,
        }
        with self.daemon(store, **why), pytest.raises(kind) as error:
            platform.plan(DEMO)
        assert (error.value.reason, error.value.message) == (Reason.REGISTRY_UNREACHABLE, "no route to git")

    def test_a_plan_that_nobody_computes(self, platform: Platform, store: SqliteStore) -> None:
        with pytest.raises(Stalled) as late:
            platform.plan(DEMO, timeout=0.1)
        assert late.value.reason == Reason.TIMED_OUT
        store.heartbeat(time.time() - 60)
        with pytest.raises(Stalled) as stopped:
            platform.plan(DEMO)
        assert stopped.value.reason == Reason.NOT_RUNNING
        with pytest.raises(Stalled) as unknown:
            platform.plan("dem")
        assert unknown.value.reason == Reason.UNKNOWN_APP

    # --- images

    def test_images(self, platform: Platform, store: SqliteStore) -> None:
        engine = ListedImages(kept("demo"), kept("gone"), kept("", ImageKind.UNFINISHED))
        with answering(store, engine):
            found = platform.images()
            assert [each["app"] for each in platform.images("gone")["images"]] == ["gone"]
            assert len(engine.images) == 3
            pruned = platform.prune_images("gone")
            assert [each.app for each in engine.images] == ["demo", ""]
            assert platform.prune_images()["removed"] == 1
        assert [(each["app"], each["removed"]) for each in found["images"]] == [
            ("demo", False),
            ("gone", True),
            (None, True),
        ]
        assert (found["removed"], found["removedSize"], found["leftOut"]) == (2, 10 * 2**20, 0)
        assert [(each["removed"], each["removal"]) for each in pruned["images"]] == [
            (True, "its app is gone")
        ]
        assert {"id", "state", "daemon"}.isdisjoint(found)
        assert list(deviations(found)) == []

    @pytest.mark.parametrize("kind", [Stalled, Transient])
    def test_what_prevents_a_list_of_images(
        self, platform: Platform, store: SqliteStore, kind: type[Stalled | Transient]
    ) -> None:
        engine = ListedImages()
        engine.fault = kind(Reason.ENGINE_UNREACHABLE, "no such engine")
        with answering(store, engine), pytest.raises(kind) as error:
            platform.images()
        assert (error.value.reason, error.value.message) == (Reason.ENGINE_UNREACHABLE, "no such engine")
        with pytest.raises(Stalled) as invalid:
            platform.prune_images("../x")
        assert invalid.value.reason == Reason.NAME_INVALID

    def test_a_list_of_images_that_nobody_makes(self, platform: Platform, store: SqliteStore) -> None:
        with pytest.raises(Stalled) as late:
            platform.images(timeout=0.1)
        assert late.value.reason == Reason.TIMED_OUT
        store.heartbeat(time.time() - 60)
        for ask in (platform.images, platform.prune_images):
            with pytest.raises(Stalled) as stopped:
                ask()
            assert stopped.value.reason == Reason.NOT_RUNNING

    # --- logs

    def write(self, folder: Path, name: str, text: str, component: str = "namer") -> None:
        place = folder / "logs" / "demo" / component / name
        place.mkdir(parents=True, exist_ok=True)
        with (place / "0000000000000000.log").open("a") as file:
            file.write(text)

    def lines(self, platform: Platform, **fields: Any) -> list[str]:
        return b"".join(platform.logs(DEMO, LogQuery(**fields))).decode().splitlines()

    def test_logs(self, platform: Platform, tmp_path: Path) -> None:
        self.write(tmp_path, "00000000000001-a", "old one\nold two\n")
        self.write(tmp_path, "00000000000002-b", "one\ntwo\nthree é\n")
        assert self.lines(platform) == ["one", "two", "three é"]
        assert self.lines(platform, component="namer", tail=1) == ["three é"]
        assert self.lines(platform, previous=True, tail=None) == ["old one", "old two"]
        assert self.lines(platform, since=time.time() + 99, tail=None) == ["one", "two", "three é"], (
            "no times"
        )

    def test_logs_of_builds(self, platform: Platform, tmp_path: Path) -> None:
        self.write(tmp_path, "00000000000003-c", "served\n")
        self.write(tmp_path, "00000000000001-a", "Step 1\n", component=BUILDS)
        self.write(tmp_path, "00000000000002-b", "Step 1\nStep 2\n", component=BUILDS)
        assert self.lines(platform, build=True) == ["Step 1", "Step 2"]
        assert self.lines(platform, build=True, tail=1) == ["Step 2"]
        assert self.lines(platform, build=True, previous=True) == ["Step 1"]
        assert self.lines(platform) == ["served"]

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({}, Reason.NO_CONTAINER),
            ({"previous": True}, Reason.NO_CONTAINER),
            ({"build": True}, Reason.NO_BUILD),
            ({"build": True, "previous": True}, Reason.NO_BUILD),
            ({"component": "nothing"}, Reason.UNKNOWN_COMPONENT),
            ({"component": "../demo"}, Reason.UNKNOWN_COMPONENT),
        ],
    )
    def test_logs_that_are_not_there(
        self, platform: Platform, fields: dict[str, Any], reason: Reason
    ) -> None:
        with pytest.raises(Stalled) as error:
            self.lines(platform, **fields)
        assert error.value.reason == reason

    def test_logs_of_an_unknown_app(self, platform: Platform) -> None:
        with pytest.raises(Stalled) as error:
            list(platform.logs("dem", LogQuery()))
        assert error.value.message == "there is no app 'dem'. Did you mean demo?"

    def test_a_log_is_followed_into_the_next_container(self, platform: Platform, tmp_path: Path) -> None:
        self.write(tmp_path, "00000000000001-a", "one\n")
        following = platform.logs(DEMO, LogQuery(follow=True))
        assert next(following) == b"one\n"
        self.write(tmp_path, "00000000000001-a", "two\n")
        assert next(following) == b"two\n"
        self.write(tmp_path, "00000000000002-b", "three\n")
        assert next(following) == b"three\n"
        following.close()  # type: ignore[attr-defined]

    # --- history

    def applied(self, store: SqliteStore, revision: str, text: str | None, plan: str = "") -> None:
        entry = AppliedRevision(
            DEMO, revision * 40, "Name colours", "Anna", ("push",), 100.0, 102.5, "Ready", "all well", plan
        )
        store.history.add(entry, [ManifestText("app.yaml", text)] if text is not None else [])

    def test_history(self, platform: Platform, store: SqliteStore) -> None:
        assert platform.history(DEMO)["history"] == []
        for revision in "abc":
            self.applied(store, revision, "kind: X\n", f"plan {revision}")
        found = platform.history(DEMO, 2)["history"]
        assert [(each["revision"][0], each["plan"]) for each in found] == [("c", "plan c"), ("b", "plan b")]
        assert (found[0]["seconds"], found[0]["triggers"], found[0]["author"]) == (2.5, ["push"], "Anna")
        assert list(deviations(found)) == []

    def test_a_rollback(self, platform: Platform, store: SqliteStore) -> None:
        self.applied(store, "b", "kind: X\n")
        self.applied(store, "a", "kind: X\n")
        found = platform.roll_back(DEMO)
        assert (found["app"], found["state"], found["reasons"]) == (DEMO, "queued", ["rollback"])
        assert (found["rollback"]["revision"], found["rollback"]["replaced"]) == ("b" * 40, "a" * 40)
        assert found["rollback"]["by"]
        assert platform.app(DEMO)["rollback"] == found["rollback"]
        assert platform.roll_back(DEMO, "bbbb")["rollback"] == found["rollback"]
        assert list(deviations(found)) == []
        platform.request(DEMO, AppRequest.RESUME)
        assert platform.app(DEMO)["rollback"] is None

    @pytest.mark.parametrize(
        ("revision", "reason"),
        [
            ("ffff", Reason.UNKNOWN_REVISION),
            ("aaaa", Reason.ROLLBACK_REFUSED),
            (None, Reason.UNKNOWN_REVISION),
        ],
    )
    def test_a_rollback_that_is_refused(
        self, platform: Platform, store: SqliteStore, revision: str | None, reason: Reason
    ) -> None:
        self.applied(store, "a", "kind: X\n")
        with pytest.raises(Stalled) as error:
            platform.roll_back(DEMO, revision)
        assert self.refusal(error)[0] == reason
        assert store.apps.status(DEMO).rollback is None
        assert store.requests.queued(DEMO) is None

    def test_a_difference(self, platform: Platform, store: SqliteStore) -> None:
        self.applied(store, "a", "replicas: 1\n")
        self.applied(store, "b", "replicas: 2\n", "start it")
        self.applied(store, "b", "replicas: 2\n", "heal it")
        found = platform.diff(DEMO)
        assert (found["from"]["revision"][0], found["to"]["plan"], found["plan"]) == (
            "a",
            "heal it",
            "heal it",
        )
        assert "-replicas: 1\n+replicas: 2" in found["manifests"]
        assert platform.diff(DEMO, "bbbb", "aaaaaa")["manifests"].endswith("-replicas: 2\n+replicas: 1")
        assert platform.diff(DEMO, "bbbb", "bbbb")["manifests"] == ""
        assert platform.diff(DEMO, "1", "2")["from"]["id"] == 1
        assert list(deviations(found)) == []

    @pytest.mark.parametrize("wanted", ["ffff", "a", "", "99", "../x", "%"])
    def test_a_revision_that_is_not_there(self, platform: Platform, store: SqliteStore, wanted: str) -> None:
        for asked in ((None, wanted), (wanted, None)):
            with pytest.raises(Stalled) as error:
                platform.diff(DEMO, *asked)
            assert error.value.reason == Reason.UNKNOWN_REVISION
        self.applied(store, "a", "x")
        with pytest.raises(Stalled) as error:
            platform.diff(DEMO, wanted)
        assert error.value.reason == Reason.UNKNOWN_REVISION
