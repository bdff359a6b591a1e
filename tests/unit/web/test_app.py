"""The Flask application over a real store: hooks, status, errors, the page."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from controller.config import Settings
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import HookProvider
from controller.domain.apps.status import (
    AppStatus,
    ComponentStatus,
    Event,
    EventType,
    PreviewWatch,
    RepositoryRecord,
)
from controller.domain.gpu_devices import GpuDevice, GpuReport, write_report
from controller.domain.names import AppName, ComponentName, previews_key
from controller.domain.people.pushes import PushUnderWay, digest_of_push
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import Lease
from controller.domain.runs.run import RunState, new_run, new_run_id
from controller.domain.storage.box import BoxRecord, BoxState, PendingUpload
from controller.store import SqliteStore, request_metrics
from controller.store.request_metrics import RequestMetrics, WaitReason
from controller.web.api.platform.status import FRESH
from controller.web.app import LazyRule, create_app
from controller.web.context import people_context
from controller.web.storage import StorageClient
from tests.support.gateway import APP, make_api, make_route
from tests.support.runs import make_pipeline
from tests.support.webhooks import CAPTURED, SECRET, Captured, hmac_hex

GENERIC = next(hook for hook in CAPTURED if hook.provider is HookProvider.GENERIC)
ASK = {"X-Prichal": "1"}


@pytest.fixture
def client(store: SqliteStore, settings: Settings, storage: StorageClient) -> FlaskClient:
    app = create_app(store, settings, storage)
    return app.test_client()


def follow(store: SqliteStore, provider: HookProvider = HookProvider.GENERIC, **fields: Any) -> None:
    known = {
        "name": "demo-repo",
        "apps": (APP, AppName("second")),
        "ref": "branch:main",
        "interval": 60.0,
        "hook_provider": provider.value,
        "hook_secret": SECRET,
    }
    store.repositories.replace([RepositoryRecord(**{**known, **fields})])


def send(client: FlaskClient, hook: Captured, body: bytes | None = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(
        "/-/hooks/demo-repo", data=hook.body if body is None else body, headers={**hook.headers, **named}
    )


def signed(client: FlaskClient, body: bytes, **headers: str) -> Any:
    return send(client, GENERIC, body, **{"x_signature": "sha256=" + hmac_hex(body), **headers})


def data(response: Any) -> Any:
    return response.json


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = json.loads(response.data)
    assert document["status"] == status
    assert {"type", "title", "detail", "instance"} <= set(document)
    return document


# --- hooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", CAPTURED, ids=lambda hook: hook.name)
def test_a_push_becomes_a_request_for_every_app(
    client: FlaskClient, store: SqliteStore, hook: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "webhook-timestamp" in hook.headers:
        monkeypatch.setattr(time, "time", lambda: float(hook.headers["webhook-timestamp"]))
    kind, _, name = hook.ref.removeprefix("refs/").partition("/")
    follow(
        store, hook.provider, hook_secret=hook.secret, ref=f"{'branch' if kind == 'heads' else 'tag'}:{name}"
    )
    response = send(client, hook)
    assert response.status_code == 202
    answer = response.json
    assert answer["id"] == hook.delivery
    assert answer["links"]["self"] == f"/-/hooks/demo-repo/{hook.delivery}"
    for app, request in zip((APP, AppName("second")), answer["requests"], strict=True):
        queued = store.requests.queued(app)
        assert queued is not None
        assert (queued.id, queued.reasons) == (request, ("webhook",))


def of_server(client: FlaskClient, payload: object) -> Any:
    headers = {"X-Gitlab-Event": "System Hook", "X-Gitlab-Token": SECRET}
    return client.post("/-/hooks/demo-repo", json=payload, headers=headers)


def merge_request(number: int, project: str, state: str = "opened") -> dict[str, object]:
    told = {"iid": number, "state": state, "source_branch": "feature/x"}
    return {
        "object_kind": "merge_request",
        "project": {"path_with_namespace": project},
        "object_attributes": {**told, "source_project_id": 7, "target_project_id": 7},
    }


def test_a_hook_of_a_whole_server_tells_of_merge_requests_of_its_project_alone(
    client: FlaskClient, store: SqliteStore
) -> None:
    watches = (PreviewWatch(APP, ("feature/*",), pulls=True),)
    follow(store, HookProvider.GITLAB, path="team/demo", previews=watches)
    assert of_server(client, merge_request(3, "team/demo")).json["status"] == "accepted"
    for number, state in ((3, "closed"), (4, "opened")):
        skipped = of_server(client, merge_request(number, "team/other", state))
        assert skipped.json["reason"] == "this event is about team/other, not about team/demo"
    assert [pull.number for pull in store.branches.pulls("demo-repo")] == [3]
    assert store.requests.queued(previews_key(APP)) is not None
    assert store.requests.queued(APP) is None
    assert of_server(client, {"event_name": "project_create"}).json["status"] == "skipped"
    assert store.requests.queued(APP) is None
    assert of_server(client, {"event_name": "push", "ref": "refs/heads/main"}).json["status"] == "accepted"
    assert store.requests.queued(APP) is not None


def test_our_own_hook_is_a_push(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    assert send(client, GENERIC, x_prichal_push="1").status_code == 202
    queued = store.requests.queued(APP)
    assert queued is not None
    assert queued.reasons == ("push",)


@pytest.mark.parametrize(
    ("told", "own", "by"),
    [
        ({"after": "a" * 40, "pusher": "anna"}, "1", "host user anna"),
        ({"after": "a" * 40, "pusher": "anna"}, "", ""),  # another server's word about people is not taken
        ({"after": "a" * 40, "pusher": ["anna"]}, "1", ""),
        ({"after": "a" * 40, "pusher": "anna\x1b[2J\n"}, "1", "host user anna"),
        ({"after": "a" * 40}, "1", ""),
        ({"after": 7, "pusher": "anna"}, "1", ""),
    ],
)
def test_our_own_hook_says_who_pushed(
    client: FlaskClient, store: SqliteStore, told: dict[str, object], own: str, by: str
) -> None:
    follow(store)
    body = json.dumps({"ref": "refs/heads/main", **told}).encode()
    assert signed(client, body, x_prichal_push=own).status_code == 202
    assert store.repositories.pusher("demo-repo", "a" * 40) == by


PUSH_ID = "0f" * 16


def under_way(store: SqliteStore, hosted: str = "demo", left: bool = False) -> None:
    store.repositories.save_push(
        PushUnderWay(
            digest_of_push(PUSH_ID), hosted, "anna", "token 3f0c", "192.0.2.7", time.time(), left=left
        )
    )


def report(client: FlaskClient, ref: str, after: str, push: object = PUSH_ID, number: int = 0) -> Any:
    body = json.dumps({"ref": ref, "after": after, "pusher": "boss", "push": push}).encode()
    return signed(client, body, x_prichal_push="1", x_delivery=f"d{number}")


def test_who_pushes_over_https_is_known_by_the_id_of_the_push(
    client: FlaskClient, store: SqliteStore
) -> None:
    """For all refs that Git has accepted, also those that nobody follows."""
    follow(store, hosted="demo")
    under_way(store)
    for number in range(150):
        assert (
            report(client, f"refs/heads/topic-{number}", f"{number:040x}", number=number).status_code == 202
        )
    assert report(client, "refs/heads/gone", "0" * 40, number=150).status_code == 202
    assert {store.repositories.pusher("demo-repo", f"{number:040x}") for number in range(1, 150)} == {"anna"}
    found = store.repositories.push(digest_of_push(PUSH_ID))
    assert found is not None
    assert (found.accepted, found.detail(200)) == (
        151,
        f"refs/heads/topic-0 deleted, refs/heads/topic-1 at {'0' * 12}, refs/heads/topic-2 at {'0' * 12} and 148 more",
    )


@pytest.mark.parametrize("push", ["f0" * 16, "x", "0f" * 1000, digest_of_push(PUSH_ID)])
def test_an_id_that_is_not_of_a_push_to_the_repository_names_nobody(
    client: FlaskClient, store: SqliteStore, push: str
) -> None:
    follow(store, hosted="demo")
    under_way(store)
    assert report(client, "refs/heads/main", "a" * 40, push).status_code == 202
    assert store.repositories.pusher("demo-repo", "a" * 40) == ""
    under_way(store, hosted="other")
    assert report(client, "refs/heads/main", "a" * 40, number=1).status_code == 202
    assert store.repositories.pusher("demo-repo", "a" * 40) == ""


@pytest.mark.parametrize("left", [False, True])
def test_what_git_accepts_after_the_connection_has_ended_is_written_down(
    client: FlaskClient, store: SqliteStore, settings: Settings, left: bool
) -> None:
    follow(store, hosted="demo")
    (settings.state / "web").mkdir()
    under_way(store, left=left)
    report(client, "refs/heads/main", "a" * 40)
    people = people_context(client.application).store
    acts = [(act.who, act.via, act.act, act.subject, act.detail) for act in people.acts()]
    told = ("anna", "token 3f0c", "push", "repository demo", f"refs/heads/main at {'a' * 12}")
    assert acts == ([told] if left else []), "until then the exchange itself does"
    assert store.repositories.pusher("demo-repo", "a" * 40) == "anna"


def test_the_secret_of_a_repository_names_no_other_person(client: FlaskClient, store: SqliteStore) -> None:
    """Everybody who reads the secret can sign what the hook would send."""
    follow(store)
    store.repositories.remember_push("demo-repo", "a" * 40, "anna", time.time())
    forged = json.dumps({"ref": "refs/heads/main", "after": "a" * 40, "pusher": "boss"}).encode()
    assert signed(client, forged, x_prichal_push="1").status_code == 202
    assert store.repositories.pusher("demo-repo", "a" * 40) == "anna", "who pushed over HTTPS stays"
    unseen = json.dumps({"ref": "refs/heads/main", "after": "b" * 40, "pusher": "boss"}).encode()
    assert signed(client, unseen, x_prichal_push="1", x_delivery="another").status_code == 202
    assert store.repositories.pusher("demo-repo", "b" * 40) == "host user boss"


def test_a_replay_does_nothing(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    first = send(client, GENERIC).json
    claimed = store.requests.claim(time.time() + 1)
    assert claimed is not None
    again = send(client, GENERIC)
    assert again.status_code == 200
    assert again.json["status"] == "replay"
    assert again.json["requests"] == first["requests"]
    assert store.requests.queued(claimed.app) is None, "a replay asked for another pass"


def test_a_delivery_without_id_gets_one(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    answers = [send(client, GENERIC, x_delivery="").json["id"] for _ in range(2)]
    assert len(set(answers)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", identity) for identity in answers)


def test_another_ref_is_skipped(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    response = signed(client, b'{"ref": "refs/heads/feature"}')
    assert (response.status_code, response.json["status"]) == (202, "skipped")
    assert "refs/heads/feature" in response.json["reason"]
    assert store.requests.queued(APP) is None


def test_a_ping_is_answered(client: FlaskClient, store: SqliteStore) -> None:
    follow(store, HookProvider.GITHUB)
    hook = next(hook for hook in CAPTURED if hook.name == "github-push")
    response = send(client, hook, x_github_event="ping")
    assert (response.status_code, response.json) == (200, {"status": "pong"})
    assert store.requests.queued(APP) is None


PINGS = [
    (HookProvider.GITHUB, "x_github_event", "ping", "x_hub_signature_256"),
    (HookProvider.BITBUCKET, "x_event_key", "diagnostics:ping", "x_hub_signature"),
]


@pytest.mark.parametrize(("provider", "field", "event", "signature"), PINGS)
def test_pings_that_are_not_signed(
    client: FlaskClient, store: SqliteStore, provider: HookProvider, field: str, event: str, signature: str
) -> None:
    """Bitbucket Data Center signs none, whatever secret is set."""
    follow(store, provider)
    headers = {field.replace("_", "-"): event, "Content-Type": "application/json"}
    response = client.post("/-/hooks/demo-repo", data=b'{"test": true}', headers=headers)
    assert response.status_code == 200
    assert data(response)["status"] == "pong"
    assert "not signed" in data(response)["reason"]
    assert store.requests.queued(APP) is None
    wrong = {**headers, signature.replace("_", "-"): "sha256=" + "0" * 64}
    problem(client.post("/-/hooks/demo-repo", data=b'{"test": true}', headers=wrong), 401)
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    refused = problem(client.post("/-/hooks/demo-repo", data=b"payload=%7B%7D", headers=form), 415)
    assert "application/json" in refused["detail"]
    assert "application/x-www-form-urlencoded" in refused["detail"]


@pytest.mark.parametrize("provider", HookProvider)
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""]
)
def test_the_content_type_is_looked_at_first(
    client: FlaskClient, store: SqliteStore, provider: HookProvider, kind: str
) -> None:
    follow(store, provider)
    headers = {"Content-Type": kind} if kind else {}
    refused = problem(client.post("/-/hooks/demo-repo", data=b"payload=%7B%7D", headers=headers), 415)
    assert "content type to application/json" in refused["detail"]


@pytest.mark.parametrize("provider", HookProvider)
def test_a_push_that_says_it_is_a_ping_has_no_effect(
    client: FlaskClient, store: SqliteStore, provider: HookProvider
) -> None:
    follow(store, provider)
    named = dict.fromkeys(
        ("X-GitHub-Event", "X-Gitea-Event", "X-Gogs-Event", "X-Event-Key", "X-Ping"), "ping"
    )
    response = client.post("/-/hooks/demo-repo", json={"ref": "refs/heads/main"}, headers=named)
    assert response.status_code in (200, 401)
    assert store.requests.queued(APP) is None


def test_an_event_that_is_no_push_is_skipped(client: FlaskClient, store: SqliteStore) -> None:
    follow(store, HookProvider.GITHUB)
    hook = next(hook for hook in CAPTURED if hook.name == "github-push")
    assert send(client, hook, x_github_event="issues").json["status"] == "skipped"


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha256=" + "0" * 64, "sha256=" + hmac_hex(GENERIC.body)[:-2]]
)
def test_a_wrong_signature(client: FlaskClient, store: SqliteStore, signature: str) -> None:
    follow(store)
    assert problem(send(client, GENERIC, x_signature=signature), 401)["type"].endswith("bad-signature")
    assert store.requests.queued(APP) is None


def test_the_signature_comes_before_the_payload(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    problem(send(client, GENERIC, b"not json"), 401)


@pytest.mark.parametrize("body", [b"", b"not json", b'{"ref": ', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_json(client: FlaskClient, store: SqliteStore, body: bytes) -> None:
    follow(store)
    assert problem(signed(client, body), 400)["type"].endswith("malformed-json")


def test_another_content_type(client: FlaskClient, store: SqliteStore) -> None:
    follow(store)
    problem(send(client, GENERIC, content_type="application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize(
    "record",
    [{"name": "other"}, {"hook_provider": None}, {"hook_secret": ""}],
    ids=["unknown", "no hook", "no secret"],
)
def test_a_repository_without_webhook(
    client: FlaskClient, store: SqliteStore, record: dict[str, Any]
) -> None:
    follow(store, **record)
    problem(send(client, GENERIC), 404)


def test_a_body_over_the_limit(client: FlaskClient, store: SqliteStore, settings: Settings) -> None:
    follow(store)
    body = b" " * (settings.web.hook_max_body + 1)
    problem(signed(client, body), 413)


# --- status -------------------------------------------------------------------------------------------------------


def demo(store: SqliteStore) -> None:
    ready = Condition(
        ConditionType.READY, False, Reason.CRASH_LOOP, "restarted 5 times within 600 s", 1000.0, "c0ffee"
    )
    degraded = Condition(ConditionType.DEGRADED, True, Reason.CRASH_LOOP, "<script>alert(1)</script>", 1000.0)
    classify = ComponentStatus(ComponentName("classify"), "MLComponent", conditions=(ready,))
    status = AppStatus(
        APP,
        repository="demo-repo",
        attempted_revision="c0ffee11",
        applied_revision="c0ffee11",
        conditions=(ready, degraded),
        components=(classify,),
        plan="start classify: declared",
    )
    event = Event(
        APP, EventType.WARNING, Reason.CRASH_LOOP, "it crashed", ComponentName("classify"), "c0ffee11", 1000.0
    )
    store.apps.save(status, [event])
    store.routes.switch(
        make_route(make_api(users=(("ann", "scrypt:hash"),)), make_api("off", published=False))
    )


def test_health_needs_nothing(client: FlaskClient) -> None:
    assert data(client.get("/-/healthz", environ_base={"REMOTE_ADDR": "192.0.2.1"})) == {"status": "ok"}


def test_readiness_says_what_is_missing(client: FlaskClient, store: SqliteStore) -> None:
    never = client.get("/-/readyz", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert (never.status_code, data(never)["checks"]["daemon"]) == (503, "it has never run")
    store.heartbeat(time.time() - FRESH - 5)
    stale = client.get("/-/readyz")
    assert stale.status_code == 503
    assert "control loop was last alive" in data(stale)["checks"]["daemon"]
    store.heartbeat(time.time())
    assert client.get("/-/readyz").status_code == 200


def test_readiness_without_database(client: FlaskClient, store: SqliteStore, settings: Settings) -> None:
    settings.database.write_bytes(b"not a database " * 1000)
    response = client.get("/-/readyz")
    assert response.status_code == 503
    assert data(response)["checks"]["database"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/-/metrics"),
        ("GET", "/-/status"),
        ("GET", "/-/apps"),
        ("GET", "/-/apps/demo"),
        ("GET", "/-/apps/demo/events"),
        ("GET", "/-/"),
        ("POST", "/-/apps/demo/reconcile"),
        ("POST", "/-/apps/demo/suspend"),
        ("POST", "/-/apps/demo/resume"),
        ("POST", "/-/apps/demo/approve"),
    ],
)
def test_all_else_needs_the_administrator(
    client: FlaskClient, store: SqliteStore, method: str, path: str
) -> None:
    demo(store)
    refused = client.open(path, method=method, environ_base={"REMOTE_ADDR": "192.0.2.1"}, headers=ASK)
    problem(refused, 401)
    assert "Bearer" in refused.headers["WWW-Authenticate"]
    headers = {"Authorization": "Bearer letmein-token"}
    let_in = client.open(path, method=method, environ_base={"REMOTE_ADDR": "192.0.2.1"}, headers=headers)
    assert let_in.status_code in (200, 202)


def test_an_app_in_full(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    store.requests.enqueue(APP, Trigger.MANUAL)
    document = data(client.get("/-/apps/demo"))
    assert document["ready"] is False
    assert [c["type"] for c in document["conditions"]] == ["Ready", "Degraded"]
    assert document["components"][0]["conditions"][0]["reason"] == "CrashLoop"
    assert document["plan"] == "start classify: declared"
    assert document["queued"]["reasons"] == ["manual"]
    assert document["apis"][0]["paths"] == [
        {"path": "/demo/image", "published": True},
        {"path": "/demo/off", "published": False},
    ]
    assert "scrypt" not in json.dumps(document)
    assert "127.0.0.1" not in json.dumps(document)
    assert data(client.get("/-/apps"))["apps"][0]["app"] == "demo"
    assert data(client.get("/-/status"))["apps"][0]["app"] == "demo"


def test_events_page_on(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    store.events.add(Event(APP, EventType.NORMAL, Reason.STARTED, f"number {n}") for n in range(5))
    first = data(client.get("/-/apps/demo/events?limit=3"))["events"]
    assert [event["message"] for event in first] == ["number 2", "number 3", "number 4"]
    after = data(client.get(f"/-/apps/demo/events?after={first[0]['id']}"))["events"]
    assert [event["message"] for event in after] == ["number 3", "number 4"]
    problem(client.get("/-/apps/demo/events?after=x"), 400)


def test_what_an_administrator_may_ask_for(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    answer = client.post("/-/apps/demo/reconcile", headers=ASK)
    queued = store.requests.queued(APP)
    assert answer.status_code == 202
    assert queued is not None
    assert data(answer)["request"] == queued.id
    client.post("/-/apps/demo/suspend", headers=ASK)
    assert store.apps.status(APP).suspended
    client.post("/-/apps/demo/resume", headers=ASK)
    assert not store.apps.status(APP).suspended
    client.post("/-/apps/demo/approve", headers=ASK)
    assert store.apps.status(APP).approved_revision == "c0ffee11"
    client.post("/-/apps/demo/approve", headers=ASK, json={"revision": "beef"})
    assert store.apps.status(APP).approved_revision == "beef"


@pytest.mark.parametrize("action", ["reconcile", "suspend", "resume", "rollback", "approve"])
def test_an_unknown_app(client: FlaskClient, action: str) -> None:
    problem(client.post(f"/-/apps/nobody/{action}", headers=ASK), 404)
    problem(client.get("/-/apps/nobody"), 404)


def test_a_browser_is_not_tricked(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    problem(client.post("/-/apps/demo/suspend", data={"x": "y"}), 401)
    problem(client.post("/-/apps/demo/suspend", headers={**ASK, "Origin": "http://localhost"}), 401)
    assert not store.apps.status(APP).suspended


def test_the_pages_show_and_escape(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    for path, texts in (
        ("/-/", ("demo", "restarted 5 times")),
        (
            "/-/apps/demo",
            ("demo", "classify", "restarted 5 times", "it crashed", "/demo/image/docs", "/demo/off"),
        ),
    ):
        response = client.get(path, headers={"Accept": "text/html"})
        page = response.text
        assert response.status_code == 200
        assert [text for text in texts if text not in page] == []
        ours = re.findall(r'<script type="module" src="/-/static/[^"]+" nonce="[^"]+"', page)
        assert page.count("<script") == len(ours) > 0, "messages are escaped"
        assert "/demo/off/" not in page, "an API that is not published has no link"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert not re.search(r"(src|href)=.https?://", page), "nothing is loaded from elsewhere"


def test_what_a_reader_opens_is_known_again(client: FlaskClient, store: SqliteStore) -> None:
    """Each part that can be opened has a name of its own, which later events do not change."""

    def ids() -> list[str]:
        page = client.get("/-/apps/demo", headers={"Accept": "text/html"}).text
        return re.findall(r'<details id="([^"]+)"', page)

    demo(store)
    texts = (f"number {n}\nand more" for n in range(3))
    store.events.add(Event(APP, EventType.NORMAL, Reason.STARTED, text) for text in texts)
    before = ids()
    assert len(before) == len(set(before)) == 3
    store.events.add([Event(APP, EventType.NORMAL, Reason.STARTED, "another\none")])
    assert set(before) < set(ids())
    assert len(ids()) == 4


def test_a_page_runs_its_own_module_and_no_other(client: FlaskClient) -> None:
    first, second = (client.get("/-/") for _ in range(2))
    (nonce,) = re.findall(r'<script type="module" [^>]*nonce="([^"]+)"', first.text)
    assert f"script-src 'nonce-{nonce}';" in first.headers["Content-Security-Policy"]
    assert f"style-src 'nonce-{nonce}';" in first.headers["Content-Security-Policy"]
    assert nonce not in second.text
    assert re.search(r"<(style|script)>| style=| on[a-z]+=", first.text) is None


def test_the_page_without_anything(client: FlaskClient) -> None:
    assert "prichal connect" in client.get("/-/").text


def test_metrics(client: FlaskClient, store: SqliteStore, settings: Settings) -> None:
    demo(store)
    store.heartbeat(time.time())
    store.requests.enqueue(APP, Trigger.MANUAL)
    folder = settings.state / "web"
    request_metrics.clear(folder)
    counts = RequestMetrics()
    counts.observe("demo/image", 200, 0.004)
    counts.flush(request_metrics.worker_file(folder, 1))
    counts.observe("demo/image", 504, 70.0)
    counts.wait_begins("demo/image", WaitReason.HEALING)
    counts.flush(request_metrics.worker_file(folder, 2))
    text = client.get("/-/metrics").text
    for line in (
        'prichal_app_condition{app="demo",component="classify",type="Ready"} 0.0',
        'prichal_app_condition{app="demo",component="",type="Degraded"} 1.0',
        "prichal_requests_queued 1.0",
        'prichal_gateway_requests_total{api="demo/image",code="200"} 2.0',
        'prichal_gateway_requests_total{api="demo/image",code="504"} 1.0',
        'prichal_gateway_request_seconds_bucket{api="demo/image",le="0.0025"} 0.0',
        'prichal_gateway_request_seconds_bucket{api="demo/image",le="0.005"} 2.0',
        'prichal_gateway_request_seconds_count{api="demo/image"} 3.0',
        'prichal_gateway_requests_waiting{api="demo/image",reason="healing"} 1.0',
        'prichal_gateway_waits_total{api="demo/image",reason="healing"} 1.0',
        "prichal_daemon_heartbeat_age_seconds ",
    ):
        assert line in text


def test_metrics_of_boxes(client: FlaskClient, store: SqliteStore) -> None:
    now = time.time()
    store.boxes.save(BoxRecord(APP, ComponentName("data"), "bucket", 1000, used=3, files=2, measured=now))
    store.boxes.reserve(PendingUpload(0, "bucket", "k", 500, created=now, expires=now + 900), now)
    store.boxes.reserve(PendingUpload(0, "bucket", "old", 70, created=now - 901, expires=now - 1), now)
    kept = BoxRecord(APP, ComponentName("old"), "older", 7, state=BoxState.KEPT, used=9)
    store.boxes.save(kept)
    lines = client.get("/-/metrics").text.splitlines()
    for line in (
        'prichal_box_bytes{app="demo",box="data"} 3.0',
        'prichal_box_capacity_bytes{app="demo",box="data"} 1000.0',
        'prichal_box_files{app="demo",box="data"} 2.0',
        'prichal_box_pending_bytes{app="demo",box="data"} 500.0',
        'prichal_box_bytes{app="demo",box="old"} 9.0',
    ):
        assert line in lines


def test_gpus_are_shown_with_their_holders(
    client: FlaskClient, store: SqliteStore, settings: Settings
) -> None:
    assert data(client.get("/-/status"))["gpus"] == []
    assert "prichal_gpu" not in client.get("/-/metrics").text
    store.gpus.save(Lease("prichal.demo.web.1.0", APP, ComponentName("web"), ("GPU-a",), 2))
    devices = (
        GpuDevice("0", "GPU-a", "T4", 2**30, 2**34, 0.5),
        GpuDevice("1", "GPU-b", lost=True, problem="lost"),
    )
    report = write_report(GpuReport(time.time(), "550", devices))
    settings.gpu_report.write_text(json.dumps(report))
    first, second = data(client.get("/-/status"))["gpus"]
    assert first == {
        "id": "GPU-a",
        "lent": False,
        "index": "0",
        "name": "T4",
        "memoryUsed": 2**30,
        "memoryTotal": 2**34,
        "utilization": 0.5,
        "problem": "",
        "holders": [{"app": APP, "component": "web", "container": "prichal.demo.web.1.0", "share": 2}],
        "otherHolders": 0,
    }
    assert (second["id"], second["problem"], second["memoryUsed"]) == ("GPU-b", "lost", None)
    lines = client.get("/-/metrics").text.splitlines()
    for line in (
        'prichal_gpu_memory_used_bytes{device="GPU-a",gpu="GPU-a"} 1.073741824e+09',
        'prichal_gpu_utilization_ratio{device="GPU-a",gpu="GPU-a"} 0.5',
        f'prichal_gpu_holders{{app="{APP}",component="web",gpu="GPU-a",pipeline=""}} 1.0',
        'prichal_gpu_usable{device="GPU-b",gpu="GPU-b"} 0.0',
    ):
        assert line in lines
    assert not any("memory" in line and "GPU-b" in line for line in lines)
    page = client.get("/-/health", headers={"Accept": "text/html"}).text
    assert "GPU-a" in page
    assert f"{APP} / web" in page
    assert page.count("unknown") == 2
    for content in ("", "[]", "{", "x" * 2**21):
        settings.gpu_report.write_text(content)
        (only,) = data(client.get("/-/health"))["gpus"]
        assert (only["id"], only["memoryUsed"], len(only["holders"])) == ("GPU-a", None, 1)


def test_a_stage_that_has_a_gpu_is_linked(
    client: FlaskClient, store: SqliteStore, settings: Settings
) -> None:
    run = new_run(new_run_id(time.time(), 1), make_pipeline(APP), time.time()).to(
        RunState.STARTING, time.time()
    )
    (first, *_) = run.stages
    store.runs.submit(run)
    store.runs.save(run.with_stage(first.begin(time.time(), ("0",))))
    store.gpus.save(Lease("prichal.demo.web.1.0", APP, ComponentName("web"), ("1",)))
    gpus = data(client.get("/-/status"))["gpus"]
    assert gpus[0]["holders"] == [{"app": APP, "run": run.id, "stage": first.name, "share": 1}]
    page = client.get("/-/health", headers={"Accept": "text/html"}).text
    assert f'href="/-/apps/{APP}/pipelines/{run.name}/runs/{run.id}"' in page


def test_metrics_of_runs(client: FlaskClient, store: SqliteStore) -> None:
    now = time.time()
    first, second, third = (
        new_run(new_run_id(now - age, age), make_pipeline(), now - age) for age in (90, 50, 10)
    )
    for run in (first, second, third):
        store.runs.submit(run)
    store.runs.save(first.to(RunState.FAILED, now))
    lines = client.get("/-/metrics").text.splitlines()
    assert 'prichal_runs{app="demo",pipeline="train",state="FAILED"} 1.0' in lines
    assert 'prichal_runs{app="demo",pipeline="train",state="QUEUED"} 2.0' in lines
    name = 'prichal_runs_oldest_queued_seconds{app="demo",pipeline="train"} '
    (age,) = (float(line.removeprefix(name)) for line in lines if line.startswith(name))
    assert 50 <= age < 90


def test_an_app_tells_of_its_runs(client: FlaskClient, store: SqliteStore) -> None:
    demo(store)
    runs = client.get("/-/apps/demo").get_json()["runs"]
    assert runs == {"queued": 0, "active": 0, "last": None}
    ended = store.runs.submit(new_run("a", make_pipeline(), 1.0))
    store.runs.save(ended.to(RunState.FAILED, 2.0, Reason.EXIT_CODE, "why"))
    store.runs.submit(new_run("b", make_pipeline(), 1.0))
    begun = store.runs.submit(new_run("c", make_pipeline(), 1.0))
    store.runs.save(begun.to(RunState.STARTING, 3.0))
    last = {
        "id": "a",
        "pipeline": "train",
        "state": "FAILED",
        "reason": "ExitCode",
        "message": "why",
        "ended": "1970-01-01T00:00:02.000Z",
    }
    assert client.get("/-/apps/demo").get_json()["runs"] == {"queued": 1, "active": 1, "last": last}


# --- errors -------------------------------------------------------------------------------------------------------


def test_flask_s_own_errors_are_problems(client: FlaskClient) -> None:
    assert problem(client.get("/-/nothing"), 404)["type"] == "urn:prichal:problem:not-found"
    wrong = client.put("/-/healthz")
    problem(wrong, 405)
    assert wrong.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_front_leads_to_the_page(client: FlaskClient) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (307, "/-/")


def test_a_bug_is_told_without_its_insides(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    app = create_app(store, settings, storage)

    @app.get("/bug")
    def bug() -> str:
        raise ZeroDivisionError("secret inside")

    document = problem(app.test_client().get("/bug", headers={"X-Request-ID": "r-1"}), 500)
    assert document["instance"] == "urn:prichal:request:r-1"
    assert "secret" not in json.dumps(document)


def test_a_damaged_store_is_a_problem_to_try_again(
    client: FlaskClient, settings: Settings, store: SqliteStore
) -> None:
    follow(store)
    settings.database.write_bytes(b"not a database " * 1000)
    document = problem(send(client, GENERIC), 503)
    assert document["retryAfter"] > 0


def test_addresses_of_rules_are_compiled_when_they_are_asked_for(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    rules = list(create_app(store, settings, storage).url_map.iter_rules())
    assert {type(rule) for rule in rules} == {LazyRule}
    assert {rule._build_unknown.__name__ for rule in rules} == {"build"}, "Werkzeug compiled some itself"
    (events,) = (rule for rule in rules if rule.rule == "/-/apps/<name>/events")
    assert events.build({"name": "a b", "limit": 3}) == ("", "/-/apps/a%20b/events?limit=3")
    assert events.build({"name": "demo"}, append_unknown=False) == ("", "/-/apps/demo/events")
