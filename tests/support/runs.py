"""A pipeline, its APIs, callers of the run API without a network, and the runner's part, which tests play."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from controller.domain.apps.spec import ApiVariable, PipelineVar, Webhook
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Service, ServiceKind
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, StageRun
from controller.ports import Runs
from controller.store import SqliteStore
from controller.web.context import CALL, ServiceCall
from tests.support.gateway import APP, make_api
from tests.support.specs import make

TRAIN = ComponentName("train")
BOXES = (ComponentName("userdata"), ComponentName("results"))
INPUTS = (
    make(ApiVariable, "data", "A table", datatypes=("FILE",)),
    make(ApiVariable, "rate", "Learning rate", required=False, datatypes=("FP64", "INT32")),
    make(ApiVariable, "note", "For people", required=False, datatypes=("str", "dict")),
)
OUTPUTS = (make(ApiVariable, "report", "What came out"), make(ApiVariable, "plots"))


def make_pipeline(name: str = "train", **fields: Any) -> Pipeline:
    """Two stages, one after the other."""
    stages = (
        make(Stage, "fit", "sha256:1", inputs=("data", "note", "rate", "weights"), outputs=("model",)),
        make(Stage, "tell", "sha256:2", inputs=("model",), outputs=("plots", "report")),
    )
    known = {
        "app": APP,
        "name": ComponentName(name),
        "revision": "c0ffee",
        "stages": stages,
        "vars": (PipelineVar("weights", mount_from=("userdata", "weights/")),),
        "boxes": BOXES,
        "optional": ("note", "rate"),
        "webhook": Webhook("hooks"),
    }
    return make(Pipeline, **{**known, **fields})


def one_pipeline(path: str = "train", **fields: Any) -> Service:
    """The API of the pipeline `train`; `fields` are those of its API."""
    api = make_api(path, **fields)
    return Service(APP, api, ServiceKind.PIPELINE, pipeline=TRAIN, inputs=INPUTS, outputs=OUTPUTS)


def all_pipelines(path: str = "pipelines", **fields: Any) -> Service:
    return Service(APP, make_api(path, **fields), ServiceKind.PIPELINES)


# --- callers ----------------------------------------------------------------------------------------------------


@dataclass
class RunCaller:
    """A caller as the gateway passes them on."""

    client: FlaskClient
    store: SqliteStore
    service: Service
    user: str = "ann"

    def as_user(self, user: str) -> RunCaller:
        return replace(self, user=user)

    def ask(self, method: str, path: str, body: Any = None, /, **headers: str) -> Any:
        """`path` is what comes after the API's own, with its query. `body` is sent as JSON unless it is bytes."""
        call = ServiceCall(self.service, self.user, f"/demo/{self.service.api.path}")
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            given = {"Content-Type": "application/json", **given}
        return self.client.open(
            f"/{self.service.kind}/{path}",
            method=method,
            data=content,
            headers=given,
            environ_overrides={"asgi.scope": {CALL: call}},
        )

    def submit(self, body: Any = None, /, **headers: str) -> Any:
        return self.ask("POST", "runs", {"inputs": {"data": "g/in.csv"}} if body is None else body, **headers)

    def problem(
        self, status: int, method: str, path: str, body: Any = None, /, **headers: str
    ) -> dict[str, Any]:
        response = self.ask(method, path, body, **headers)
        assert response.status_code == status, response.text
        assert response.content_type == "application/problem+json"
        document: dict[str, Any] = json.loads(response.data)
        assert document["status"] == status
        return document


def kind(document: dict[str, Any]) -> str:
    return str(document["type"]).removeprefix("urn:prichal:problem:")


# --- the runner's part ------------------------------------------------------------------------------------------


def runs_of(store: SqliteStore) -> Runs:
    """As the daemon finds them when it looks: what was asked for is there."""
    store.changed()
    return store.runs


@dataclass
class RunDriver:
    """Does to runs what the daemon would: every change is written down as the runner does it."""

    store: SqliteStore
    folder: Path
    app: AppName = APP

    def change(self, id: str, change: Callable[[Run], Run]) -> Run:
        while True:
            run = runs_of(self.store).get(self.app, id)
            assert run is not None
            saved = self.store.runs.save(change(run))
            if saved is not None:
                return saved

    def to(self, id: str, state: RunState, reason: str = "", message: str = "") -> Run:
        return self.change(id, lambda run: run.to(state, time.time(), Reason(reason), message))

    def stage(self, id: str, name: str, change: Callable[[StageRun], StageRun]) -> Run:
        return self.change(id, lambda run: run.with_stage(change(run.stage(name))))

    def begin(self, id: str, stage: str = "fit") -> Run:
        """The run, if it has not begun, and a new attempt of the stage are under way."""
        run = runs_of(self.store).get(self.app, id)
        assert run is not None
        if run.state is RunState.QUEUED:
            self.to(id, RunState.STARTING)
            self.to(id, RunState.RUNNING)
        now = time.time()
        return self.stage(id, stage, lambda s: s.begin(now).to(RunState.RUNNING, now))

    def end_attempt(self, id: str, stage: str, exit_code: int, state: RunState, reason: str = "") -> Run:
        now = time.time()
        return self.stage(
            id,
            stage,
            lambda s: s.end_attempt(now, exit_code=exit_code, reason=reason).to(state, now, Reason(reason)),
        )

    def finish(self, id: str, state: RunState = RunState.SUCCEEDED, reason: str = "") -> Run:
        """The run from where it is to its end, with all stages that are not over."""
        run = runs_of(self.store).get(self.app, id)
        assert run is not None
        if run.state is RunState.QUEUED:
            self.to(id, RunState.STARTING)
            self.to(id, RunState.RUNNING)
        for stage in run.stages:
            if not stage.state.terminal:
                self.stage(id, stage.name, lambda s: s.to(state, time.time(), Reason(reason)))
        return self.to(id, state, reason)

    def forget(self, id: str) -> None:
        run = runs_of(self.store).get(self.app, id)
        assert run is not None
        self.store.runs.forget([run])

    def log(self, id: str, stage: str, attempt: int) -> Path:
        path = self.folder / id / f"{stage}.{attempt}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, id: str, stage: str, attempt: int, data: bytes) -> None:
        with self.log(id, stage, attempt).open("ab") as file:
            file.write(data)
