"""The run API's views over a real store: submit, list, cancel, retry, and what the API says of itself."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from controller.config import Settings
from controller.domain.apps.spec import CronSchedule, Overlap, PipelineVar
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.run import Run, RunState, new_run, new_run_id
from controller.domain.runs.schedules import Checkpoint
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from controller.store import SqliteStore
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import APP
from tests.support.runs import (
    INPUTS,
    OUTPUTS,
    RunCaller,
    RunDriver,
    all_pipelines,
    kind,
    make_pipeline,
    one_pipeline,
)

ID = re.compile(r"[0-9a-f]{19}")


@pytest.fixture
def runs(store: SqliteStore, settings: Settings, storage: StorageClient) -> RunCaller:
    store.runs.publish(APP, (make_pipeline(),))
    return RunCaller(create_app(store, settings, storage).test_client(), store, one_pipeline())


@pytest.fixture
def player(store: SqliteStore, tmp_path: Path) -> RunDriver:
    return RunDriver(store, tmp_path / "runs")


def stored(runs: RunCaller) -> tuple[Run, ...]:
    return runs.store.runs.list(APP)


def test_what_becomes_the_modules_own_data_is_told(runs: RunCaller) -> None:
    model = PipelineVar("model", publish_to=("weights", "net/"))
    runs.store.runs.publish(APP, (make_pipeline(vars=(model,)),))
    document = runs.submit().json
    assert document["outputs"] == [
        {"name": "model", "data": "net/", "box": "weights", "area": "developer"},
        *({"name": name, "data": f"runs/{document['id']}/{name}/"} for name in ("plots", "report")),
    ]
    problem = runs.problem(422, "POST", "runs", {"inputs": {"data": "a/b"}, "outputs": {"model": "mine"}})
    assert [error["pointer"] for error in problem["errors"]] == ["/outputs/model"]


# --- submit -------------------------------------------------------------------------------------------------------


def test_a_run_is_written_down(runs: RunCaller) -> None:
    before = time.time()
    body = {"inputs": {"data": "g/in.csv", "rate": 0.1}, "outputs": {"report": "today"}, "priority": -3}
    answer = runs.submit({**body, "webhook": "https://example.org/done"})
    assert answer.status_code == 202
    document = answer.json
    assert ID.fullmatch(document["id"])
    assert answer.headers["Location"] == f"/demo/train/runs/{document['id']}" == document["links"]["self"]
    assert (answer.headers["Retry-After"], answer.headers["ETag"]) == ("1", '"0"')
    (run,) = stored(runs)
    assert (run.id, run.user, run.priority, run.webhook) == (
        document["id"],
        "ann",
        -3,
        "https://example.org/done",
    )
    assert before <= run.created <= time.time()
    assert run.pipeline == make_pipeline()
    assert run.state is RunState.QUEUED


def test_the_document(runs: RunCaller) -> None:
    body = {
        "inputs": [{"name": "data", "data": "g/in.csv", "box": "results"}, {"name": "rate", "data": [1, 2]}]
    }
    document = runs.submit(body).json
    link = f"/demo/train/runs/{document['id']}"
    created = document["created"]
    queued = {"state": "QUEUED", "at": created, "reason": "", "message": ""}
    assert datetime.fromisoformat(created).timestamp() == pytest.approx(time.time(), abs=10)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created)

    def stage(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "state": "QUEUED",
            "reason": "",
            "message": "",
            "exitCode": None,
            "attempt": None,
            "attempts": [],
            "progress": None,
            "history": [queued],
        }

    assert document == {
        "id": document["id"],
        "pipeline": "train",
        "state": "QUEUED",
        "reason": "",
        "message": "",
        "created": created,
        "started": None,
        "ended": None,
        "user": "ann",
        "public": False,
        "priority": 0,
        "cause": "api",
        "origin": None,
        "inputs": [
            {"name": "data", "datatype": "FILE", "data": "g/in.csv", "box": "results"},
            {"name": "rate", "datatype": "FP64", "data": [1, 2]},
        ],
        "outputs": [
            {"name": "plots", "data": f"runs/{document['id']}/plots/"},
            {"name": "report", "data": f"runs/{document['id']}/report/"},
        ],
        "stages": [stage("fit"), stage("tell")],
        "history": [queued],
        "links": {
            "self": link,
            "logs": f"{link}/logs",
            "events": f"{link}/events",
            "cancel": f"{link}/cancel",
            "retry": f"{link}/retry",
        },
    }


def test_callers_without_a_name(runs: RunCaller) -> None:
    assert runs.as_user("").submit().json["user"] is None
    assert stored(runs)[0].user is None


@pytest.mark.parametrize("passes", [True, False])
def test_whether_stages_are_told_who_called(runs: RunCaller, passes: bool) -> None:
    replace(runs, service=one_pipeline(pass_identity=passes)).submit()
    assert stored(runs)[0].pass_identity is passes


def test_faults_are_told_with_pointers(runs: RunCaller) -> None:
    document = runs.problem(422, "POST", "runs", {"inputs": {"data": "..", "nope": 1}})
    assert kind(document) == "invalid-request"
    assert {error["pointer"] for error in document["errors"]} == {"/inputs/data", "/inputs/nope"}
    assert "1 more" in document["detail"]
    assert stored(runs) == ()


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"{", "malformed-json"),
        (b"\xff\xfe", "malformed-json"),
        (b'{"inputs": {"data": "a/b", "rate": NaN}}', "malformed-json"),
        (b'{"inputs": {"data": "a/b", "rate": -Infinity}}', "malformed-json"),
        (b'{"inputs": {"data": "a/b", "note": {"x": 1e999}}}', "malformed-json"),
        (b'{"priority": ' + b"1" * 5000 + b"}", "malformed-json"),
        (b"[" * 100_000, "malformed-json"),
        (b'{"a": 1} {}', "malformed-json"),
    ],
)
def test_what_is_no_json(runs: RunCaller, body: bytes, slug: str) -> None:
    assert kind(runs.problem(400, "POST", "runs", body)) == slug
    assert stored(runs) == ()


def test_another_content_type(runs: RunCaller) -> None:
    document = runs.problem(
        415, "POST", "runs", b"inputs=x", Content_Type="application/x-www-form-urlencoded"
    )
    assert "application/json" in document["detail"]
    ok = runs.ask(
        "POST", "runs", b'{"inputs": {"data": "a/b"}}', Content_Type="application/vnd.x+json; charset=utf-8"
    )
    assert ok.status_code == 202


def test_an_empty_body_is_an_empty_object(runs: RunCaller) -> None:
    document = runs.problem(422, "POST", "runs")
    assert [error["pointer"] for error in document["errors"]] == ["/inputs"]
    bare = replace(one_pipeline(), inputs=())
    assert replace(runs, service=bare).ask("POST", "runs").status_code == 202


def test_a_pipeline_that_cannot_be_run_yet(runs: RunCaller) -> None:
    runs.store.runs.publish(APP, ())
    document = runs.problem(503, "POST", "runs", {"inputs": {"data": "a/b"}})
    assert kind(document) == "not-ready"
    assert document["retryAfter"] == 5


def test_a_run_keeps_its_pipeline_whatever_comes_later(runs: RunCaller) -> None:
    runs.submit()
    runs.store.runs.publish(APP, (make_pipeline(revision="newer"),))
    runs.submit()
    assert [run.pipeline.revision for run in stored(runs)] == ["newer", "c0ffee"]


BOX, OTHER = "bucket-userdata", "bucket-results"


@pytest.fixture
def filled(runs: RunCaller, objects: FakeObjects) -> RunCaller:
    """Ann has a file and a group in each box."""
    for box, bucket in (("userdata", BOX), ("results", OTHER)):
        runs.store.boxes.save(BoxRecord(APP, ComponentName(box), bucket, capacity=10**9))
        objects.create_bucket(bucket)
        for name in (f"{box}/file.csv", f"{box}/group/a/b"):
            objects.put(bucket, f"{user_area('ann')}{name}", BytesIO(b"x"), 1)
    return runs


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({"data": "userdata/file.csv"}, True),
        ({"data": "userdata/group/"}, True),
        ({"data": "userdata/group/a/"}, True),
        ({"data": "userdata"}, True),
        ({"data": "results/file.csv", "box": "results"}, True),
        ({"data": "results/file.csv"}, False),
        ({"data": "userdata/file.csv", "box": "results"}, False),
        ({"data": "userdata/file.csv/"}, False),
        ({"data": "userdata/group/a"}, False),
        ({"data": "userdata/grou/"}, False),
        ({"data": "userdata/nothing"}, False),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_files_that_are_not_there_are_told_at_once(
    filled: RunCaller, given: dict[str, str], there: bool, listed: bool
) -> None:
    inputs: Any = [{"name": "rate", "data": 1.5}, {"name": "data", **given}]
    pointer = "/inputs/1/data"
    if not listed:
        if "box" in given:
            return
        inputs, pointer = {"rate": 1.5, "data": given["data"]}, "/inputs/data"
    if there:
        assert filled.submit({"inputs": inputs}).status_code == 202
        return
    problem = filled.problem(422, "POST", "runs", {"inputs": inputs})
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert (
        f"'data': there {'are no files' if given['data'].endswith('/') else 'is no file'}"
        in problem["detail"]
    )
    assert stored(filled) == ()


def test_a_repeated_request_is_not_looked_at_again(filled: RunCaller, objects: FakeObjects) -> None:
    body = {"inputs": {"data": "userdata/file.csv"}}
    first = filled.submit(body, Idempotency_Key="k").json["id"]
    objects.remove(BOX, [f"{user_area('ann')}userdata/file.csv"])
    assert filled.submit(body, Idempotency_Key="k").json["id"] == first
    filled.problem(422, "POST", "runs", body, Idempotency_Key="other")


def test_a_storage_that_does_not_answer_holds_up_nobody(filled: RunCaller, objects: FakeObjects) -> None:
    objects.server.down = True
    assert filled.submit({"inputs": {"data": "userdata/nothing"}}).status_code == 202


@pytest.mark.parametrize("data", ["", "/", "//", ".", "..", "a//b", "../x", "a\\b"])
def test_no_path_is_the_whole_area(filled: RunCaller, data: str) -> None:
    body = {"inputs": [{"name": "data", "datatype": "FILE", "data": data}]}
    problem = filled.problem(422, "POST", "runs", body)
    assert [error["pointer"] for error in problem["errors"]] == ["/inputs/0/data"]


def test_outputs_without_any_box_are_not_lost_after_hours(runs: RunCaller) -> None:
    """Of a commit from before this was refused."""
    runs.store.runs.publish(APP, (make_pipeline(boxes=()),))
    caller = replace(runs, service=replace(runs.service, inputs=()))
    problem = caller.problem(422, "POST", "runs", {"inputs": []})
    assert "no connected box that its outputs (plots, report) could go to" in problem["detail"]


@pytest.mark.parametrize("name", ["zz", "a/b~c", "x" * 300, "'"])
@pytest.mark.parametrize("member", ["inputs", "outputs"])
def test_a_name_is_told_once(runs: RunCaller, name: str, member: str) -> None:
    body = {"inputs": {"data": "g/x"}, "outputs": {}}
    problem = runs.problem(422, "POST", "runs", {**body, member: {**body[member], name: "y"}})
    (error,) = problem["errors"]
    assert problem["detail"] == f"/{member}: {error['detail']}."
    assert error["detail"].count(name[:100].encode("ascii", "backslashreplace").decode()) == 1
    assert error["pointer"].startswith(f"/{member}/")


# --- the same request again ---------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_run(runs: RunCaller, player: RunDriver) -> None:
    first = runs.submit(Idempotency_Key='"k-1"').json["id"]
    again = runs.submit(Idempotency_Key="k-1")
    assert (again.status_code, again.json["id"]) == (202, first)
    reordered = b'{ "outputs" : {},"inputs":{"data":"g/in.csv"}}'
    other = runs.problem(422, "POST", "runs", reordered, Idempotency_Key="k-1")
    assert kind(other) == "idempotency-key-reused", "it says something else"
    assert first in other["detail"]
    player.finish(first)
    ended = runs.submit(b'{"inputs" :\n{"data":"g/in.csv"}}', Idempotency_Key="k-1")
    assert (ended.status_code, ended.json["state"]) == (200, "SUCCEEDED")
    assert len(stored(runs)) == 1


def test_a_full_queue_is_told_and_a_repeated_request_is_none_more(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    store.runs.publish(APP, (make_pipeline(),))
    few = replace(settings, runs=replace(settings.runs, queued=4))
    runs = RunCaller(create_app(store, few, storage).test_client(), store, one_pipeline())
    first = runs.submit(Idempotency_Key="k-1").json["id"]
    runs.submit()
    full = runs.problem(429, "POST", "runs", {"inputs": {"data": "g/in.csv"}})
    assert (kind(full), full["retryAfter"]) == ("queue-full", 10)
    assert "A user may have 2 runs" in full["detail"]
    assert runs.submit(Idempotency_Key="k-1").json["id"] == first
    assert runs.as_user("bob").submit().status_code == 202, "the share of one user is not that of all"


def test_keys_belong_to_a_caller_and_a_pipeline(runs: RunCaller) -> None:
    runs.store.runs.publish(APP, (make_pipeline(), make_pipeline("other")))
    everything = replace(runs, service=all_pipelines())
    body = {"inputs": {"data": "g/in.csv"}}
    answers = [
        runs.submit(body, Idempotency_Key="k"),
        runs.as_user("bob").submit(body, Idempotency_Key="k"),
        runs.as_user("").submit(body, Idempotency_Key="k"),
        everything.ask("POST", "other/runs", body, Idempotency_Key="k"),
    ]
    assert len({answer.json["id"] for answer in answers}) == 4
    same = everything.ask("POST", "train/runs", body, Idempotency_Key="k")
    assert same.json["id"] == answers[0].json["id"], "another API, the same pipeline"
    assert same.headers["Location"] == f"/demo/pipelines/train/runs/{same.json['id']}"


@pytest.mark.parametrize("key", ["", '""', "a b", "ä", "x" * 256, '"a', '"a"b"', '"a\\"', "\t"])
def test_malformed_keys(runs: RunCaller, key: str) -> None:
    document = runs.problem(400, "POST", "runs", {"inputs": {"data": "a/b"}}, Idempotency_Key=key)
    assert "Idempotency-Key" in document["detail"]


def test_a_key_is_free_once_its_run_is_gone(runs: RunCaller, player: RunDriver) -> None:
    first = runs.submit(Idempotency_Key="k").json["id"]
    player.finish(first)
    player.forget(first)
    assert runs.submit({"inputs": {"data": "g/other.csv"}}, Idempotency_Key="k").status_code == 202


def test_the_same_key_from_many_at_once(
    store: SqliteStore, settings: Settings, storage: StorageClient
) -> None:
    """With two bodies: one of them wins, whatever the order; the other is told so."""
    store.runs.publish(APP, (make_pipeline(),))
    app = create_app(store, settings, storage)
    together = threading.Barrier(8)

    def submit(number: int) -> Any:
        caller = RunCaller(app.test_client(), store, one_pipeline())
        together.wait()
        return caller.submit({"inputs": {"data": f"g/{number % 2}"}}, Idempotency_Key="k")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(8)))
    (run,) = store.runs.list(APP)
    winner = int(run.inputs[0].data[-1])
    for number, answer in enumerate(answers):
        if number % 2 == winner:
            assert (answer.status_code, answer.json["id"]) == (202, run.id)
        else:
            assert (answer.status_code, kind(json.loads(answer.data))) == (422, "idempotency-key-reused")


# --- list ---------------------------------------------------------------------------------------------------------


def ids(answer: Any) -> list[str]:
    return [run["id"] for run in answer.json["runs"]]


def test_pages_newest_first(runs: RunCaller) -> None:
    given = [new_run_id(1000.0 + n, n) for n in range(25)]
    for id in given:
        runs.store.runs.submit(new_run(id, make_pipeline(), 1000.0, "ann"))
    first = runs.ask("GET", "runs")
    assert ids(first) == given[:4:-1]
    assert first.json["next"] == given[5]
    second = runs.ask("GET", f"runs?after={first.json['next']}")
    assert (ids(second), second.json["next"]) == (given[4::-1], None)
    exact = runs.ask("GET", "runs?limit=25")
    assert (len(ids(exact)), exact.json["next"]) == (25, None)
    assert set(first.json["runs"][0]) >= {"id", "state", "created", "ended", "links"}
    assert "stages" not in first.json["runs"][0]


def test_runs_in_a_state(runs: RunCaller, player: RunDriver) -> None:
    a, b, c = (runs.submit().json["id"] for _ in range(3))
    player.finish(a)
    player.begin(b)
    assert ids(runs.ask("GET", "runs?state=SUCCEEDED")) == [a]
    assert ids(runs.ask("GET", "runs?state=running")) == [b]
    assert ids(runs.ask("GET", "runs?state=QUEUED&limit=1")) == [c]
    assert ids(runs.ask("GET", "runs?state=FAILED")) == []


@pytest.mark.parametrize(
    "query",
    [
        "state=DONE",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "limit=1e2",
        "limit=٣",
        "after=x",
        "after=../x",
    ],
)
def test_malformed_lists(runs: RunCaller, query: str) -> None:
    name = query.partition("=")[0]
    assert name in runs.problem(400, "GET", f"runs?{query}")["detail"]


def test_everybody_sees_his_own_runs(runs: RunCaller) -> None:
    own = {user: runs.as_user(user).submit().json["id"] for user in ("ann", "bob", "")}
    for user, id in own.items():
        assert ids(runs.as_user(user).ask("GET", "runs")) == [id]


# --- cancel -------------------------------------------------------------------------------------------------------


def test_runs_of_nobody_are_everybodys(runs: RunCaller, player: RunDriver) -> None:
    now = time.time()
    of = make_pipeline()
    first = runs.store.runs.submit(new_run(new_run_id(now, 1), of, now, cause="schedule", public=True))
    player.finish(first.id, RunState.FAILED)
    for user in ("ann", "bob", ""):
        caller = runs.as_user(user)
        [shown] = [run for run in caller.ask("GET", "runs").json["runs"] if run["id"] == first.id]
        assert (shown["public"], shown["user"], shown["cause"]) == (True, None, "schedule")
    document = runs.ask("POST", f"runs/{first.id}/cancel").json
    assert {output["area"] for output in document["outputs"]} == {"developer"}
    again = runs.as_user("bob").ask("POST", f"runs/{first.id}/retry").json
    assert (again["public"], again["user"], again["origin"]) == (True, None, first.id)
    assert runs.ask("POST", f"runs/{again['id']}/cancel").json["state"] == "CANCELED"
    player.forget(first.id)
    for user in ("ann", "bob", ""):
        runs.as_user(user).problem(410, "POST", f"runs/{first.id}/retry")


def test_keys_for_runs_of_nobody_belong_to_callers(runs: RunCaller, player: RunDriver) -> None:
    now = time.time()
    of = make_pipeline()
    for random in (1, 2):
        run = new_run(new_run_id(now, random), of, now, cause="schedule", public=True)
        player.finish(runs.store.runs.submit(run).id, RunState.FAILED)
    one, other = (run.id for run in stored(runs))

    def retry(user: str, id: str) -> Any:
        return runs.as_user(user).ask("POST", f"runs/{id}/retry", Idempotency_Key="k")

    first = retry("ann", one).json["id"]
    assert retry("ann", one).json["id"] == first
    assert retry("ann", other).status_code == 422
    assert retry("bob", other).json["id"] != first
    assert retry("", other).status_code == 202


def test_a_queued_run_is_canceled_at_once(runs: RunCaller) -> None:
    id = runs.submit().json["id"]
    answer = runs.ask("POST", f"runs/{id}/cancel")
    assert (answer.status_code, answer.json["state"], answer.json["reason"]) == (200, "CANCELED", "Canceled")
    assert answer.json["ended"] is not None
    again = runs.ask("POST", f"runs/{id}/cancel")
    assert (again.status_code, again.json) == (200, answer.json)


@pytest.mark.parametrize("state", [RunState.STARTING, RunState.RUNNING])
def test_one_that_has_begun_is_asked_to_stop(runs: RunCaller, player: RunDriver, state: RunState) -> None:
    id = runs.submit().json["id"]
    player.to(id, RunState.STARTING)
    if state is RunState.RUNNING:
        player.to(id, RunState.RUNNING)
    answer = runs.ask("POST", f"runs/{id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (202, "CANCELING")
    assert answer.headers["Retry-After"] == "1"
    again = runs.ask("POST", f"runs/{id}/cancel")
    assert (again.status_code, again.json) == (202, answer.json), "nothing more happens"


@pytest.mark.parametrize("state", [s for s in RunState if s.terminal])
def test_one_that_is_over_stays_as_it_is(runs: RunCaller, player: RunDriver, state: RunState) -> None:
    id = runs.submit().json["id"]
    before = player.finish(id, state)
    answer = runs.ask("POST", f"runs/{id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (200, state)
    assert runs.store.runs.get(APP, id) == before


class Beaten:
    """The runs of a store, where somebody else is always quicker the first time."""

    def __init__(self, runs: Any, meanwhile: Callable[[], object]) -> None:
        self._runs = runs
        self._meanwhile = [meanwhile]

    def cancel(self, app: AppName, id: str, at: float) -> Run | None:
        if self._meanwhile:
            self._meanwhile.pop()()
        canceled: Run | None = self._runs.cancel(app, id, at)
        return canceled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runs, name)


class BeatenStore:
    def __init__(self, store: SqliteStore, meanwhile: Callable[[], object]) -> None:
        self._store = store
        self.runs = Beaten(store.runs, meanwhile)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("ended", [True, False])
def test_cancel_races_with_the_runner(
    runs: RunCaller, player: RunDriver, settings: Settings, storage: StorageClient, ended: bool
) -> None:
    """The run is changed between the look and the change: what it has become decides."""
    id = runs.submit().json["id"]
    player.begin(id)
    store: Any = BeatenStore(
        runs.store,
        lambda: player.finish(id) if ended else player.end_attempt(id, "fit", 0, RunState.SUCCEEDED),
    )
    racing = replace(runs, client=create_app(store, settings, storage).test_client())
    answer = racing.ask("POST", f"runs/{id}/cancel")
    assert (answer.status_code, answer.json["state"]) == ((200, "SUCCEEDED") if ended else (202, "CANCELING"))
    assert answer.json["stages"][0]["state"] == "SUCCEEDED"


# --- retry --------------------------------------------------------------------------------------------------------


def test_a_repetition_takes_over_what_had_succeeded(runs: RunCaller, player: RunDriver) -> None:
    id = runs.submit().json["id"]
    player.begin(id)
    player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
    player.finish(id, RunState.FAILED, "ExitCode")
    answer = runs.ask("POST", f"runs/{id}/retry")
    assert answer.status_code == 202
    again = answer.json
    assert (again["cause"], again["origin"], again["inputs"]) == (
        "retry",
        id,
        [{"name": "data", "datatype": "FILE", "data": "g/in.csv"}],
    )
    assert [(s["name"], s["state"], s["reason"]) for s in again["stages"]] == [
        ("fit", "SUCCEEDED", "Reused"),
        ("tell", "QUEUED", ""),
    ]
    assert answer.headers["Location"].endswith(again["id"])
    assert again["id"] != id


def test_a_repetition_with_a_key(runs: RunCaller, player: RunDriver) -> None:
    first, second = (runs.submit().json["id"] for _ in range(2))
    for id in (first, second):
        player.finish(id, RunState.FAILED)
    one = runs.ask("POST", f"runs/{first}/retry", Idempotency_Key="k").json["id"]
    assert runs.ask("POST", f"runs/{first}/retry", Idempotency_Key="k").json["id"] == one
    assert (
        kind(runs.problem(422, "POST", f"runs/{second}/retry", Idempotency_Key="k"))
        == "idempotency-key-reused"
    )


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.CANCELING, RunState.SUCCEEDED])
def test_what_is_not_repeated(runs: RunCaller, player: RunDriver, state: RunState) -> None:
    id = runs.submit().json["id"]
    if state is RunState.SUCCEEDED:
        player.finish(id)
    elif state is not RunState.QUEUED:
        player.begin(id)
        if state is RunState.CANCELING:
            player.to(id, state)
    document = runs.problem(409, "POST", f"runs/{id}/retry")
    assert kind(document) == "run-state"
    assert len(stored(runs)) == 1


# --- whose run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_runs_of_others_are_not_there(runs: RunCaller, player: RunDriver, action: str) -> None:
    id = runs.submit().json["id"]
    for user in ("bob", ""):
        theirs = runs.as_user(user).problem(404, "POST", f"runs/{id}/{action}")
        none = runs.as_user(user).problem(404, "POST", f"runs/{id[::-1]}/{action}")
        assert theirs["detail"].replace(id, "") == none["detail"].replace(id[::-1], "")
    player.finish(id, RunState.FAILED)
    player.forget(id)
    assert kind(runs.problem(410, "POST", f"runs/{id}/{action}")) == "run-gone"
    runs.as_user("bob").problem(404, "POST", f"runs/{id}/{action}")


@pytest.mark.parametrize("id", ["x", "0" * 18, "0" * 20, "0" * 18 + "G", "'; DROP TABLE runs", "%20", "é"])
def test_what_is_no_id(runs: RunCaller, id: str) -> None:
    runs.problem(404, "POST", f"runs/{id}/cancel")
    assert runs.submit().status_code == 202


def test_a_run_of_another_pipeline_is_not_in_this_api(runs: RunCaller) -> None:
    runs.store.runs.publish(APP, (make_pipeline(), make_pipeline("other")))
    everything = replace(runs, service=all_pipelines())
    other = everything.ask("POST", "other/runs", {"inputs": {"data": "a/b"}}).json["id"]
    runs.problem(404, "POST", f"runs/{other}/cancel")
    everything.problem(404, "POST", f"train/runs/{other}/cancel")
    assert ids(runs.ask("GET", "runs")) == []
    assert everything.ask("POST", f"other/runs/{other}/cancel").status_code == 200


# --- all pipelines ------------------------------------------------------------------------------------------------


@pytest.fixture
def everything(runs: RunCaller) -> RunCaller:
    runs.store.runs.publish(APP, (make_pipeline(), make_pipeline("other")))
    return replace(runs, service=all_pipelines())


def test_pipelines_with_what_they_take(everything: RunCaller) -> None:
    everything.store.routes.publish(APP, (one_pipeline(), all_pipelines()))
    other, train = everything.ask("GET", "").json["pipelines"]
    assert (other["name"], train["name"], train["revision"]) == ("other", "train", "c0ffee")
    assert train["inputs"][1] == {
        "name": "rate",
        "description": "Learning rate",
        "required": False,
        "datatypes": ["FP64", "INT32"],
    }
    assert [v["name"] for v in train["inputs"]] == [v.name for v in INPUTS]
    assert train["outputs"] == [{"name": v.name, "description": v.description} for v in OUTPUTS]
    assert train["stages"][1] == {"name": "tell", "inputs": ["model"], "outputs": ["plots", "report"]}
    assert [(v["name"], v["required"]) for v in other["inputs"]] == [
        ("data", True),
        ("note", False),
        ("rate", False),
    ]
    assert len(other["inputs"][0]["datatypes"]) == 6, "no API says what it may be"


def test_pipelines_with_their_schedules(everything: RunCaller) -> None:
    schedule = CronSchedule("0 3 * * *", "Europe/Moscow", Overlap.REPLACE)
    everything.store.runs.publish(APP, (make_pipeline(schedule=schedule),))

    def shown() -> Any:
        return everything.ask("GET", "").json["pipelines"][0]["schedule"]

    told = {"cron": "0 3 * * *", "timezone": "Europe/Moscow", "concurrencyPolicy": "Replace"}
    assert shown() == {**told, "next": None}, "nobody has looked at it yet"
    [scheduled] = everything.store.schedules.all()
    everything.store.schedules.advance(scheduled, Checkpoint("0 3 * * *", "Europe/Moscow", 0.0, 1769817600.0))
    assert shown() == {**told, "next": "2026-01-31T00:00:00.000Z"}
    [scheduled] = everything.store.schedules.all()
    everything.store.schedules.advance(scheduled, Checkpoint("0 3 * * *", "Europe/Moscow", 0.0, math.inf))
    assert shown() == {**told, "next": None}


def test_runs_of_all_pipelines(everything: RunCaller) -> None:
    body = {"inputs": {"data": "a/b"}}
    train = everything.ask("POST", "train/runs", body).json
    other = everything.ask("POST", "other/runs", body).json
    assert ids(everything.ask("GET", "runs")) == [other["id"], train["id"]]
    assert ids(everything.ask("GET", "train/runs")) == [train["id"]]
    assert everything.ask("GET", "runs").json["runs"][0]["links"]["self"] == other["links"]["self"]
    assert other["links"]["self"] == f"/demo/pipelines/other/runs/{other['id']}"


def test_a_pipeline_that_is_not_there(everything: RunCaller, player: RunDriver) -> None:
    everything.problem(404, "POST", "nope/runs", {})
    everything.problem(404, "GET", "nope/runs")
    run = everything.ask("POST", "other/runs", {"inputs": {"data": "a/b"}}).json
    everything.store.runs.publish(APP, (make_pipeline(),))
    everything.problem(404, "POST", "other/runs", {"inputs": {"data": "a/b"}})
    assert ids(everything.ask("GET", "other/runs")) == [run["id"]], "its runs are still there"


# --- descriptions and methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [True, False])
def test_pages_for_people(runs: RunCaller, published: bool) -> None:
    if not published:
        runs.store.runs.publish(APP, ())
    page = runs.ask("GET", "docs")
    assert page.content_type == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "Learning rate" in page.text
    assert "/demo/train/runs/{id}/logs" in page.text
    page = replace(runs, service=all_pipelines()).ask("GET", "docs")
    assert ("Pipeline <code>train</code>" in page.text) is published


def test_what_people_declared_is_shown_and_not_run(runs: RunCaller) -> None:
    evil = replace(one_pipeline(), inputs=(replace(INPUTS[0], description="<script>alert(1)</script>'"),))
    page = replace(runs, service=evil).ask("GET", "docs").text
    assert "<script" not in page
    assert "&lt;script" in page


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "runs", {"GET", "POST"}),
        ("PUT", "runs", {"GET", "POST"}),
        ("GET", "runs/0000000000000000000/cancel", {"POST"}),
        ("POST", "docs", {"GET"}),
    ],
)
def test_other_methods(runs: RunCaller, method: str, path: str, allowed: set[str]) -> None:
    answer = runs.ask(method, path)
    assert answer.status_code == 405
    assert allowed <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("path", ["", "run", "runs/", "runs/x/y", "train/runs", "-/docs"])
def test_other_paths(runs: RunCaller, path: str) -> None:
    runs.problem(404, "GET", path)


def test_what_no_gateway_handed_over_answers_nothing(runs: RunCaller) -> None:
    assert runs.client.get("/pipeline/runs").status_code == 500
    assert runs.client.post("/pipelines/train/runs").status_code == 500
