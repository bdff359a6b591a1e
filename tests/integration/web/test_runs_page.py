"""The page about the run API is run, command by command, and its answers are what the API answers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.spec import ApiVariable
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.passwords import hash_password
from controller.domain.routing.routes import Service, ServiceKind
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState
from controller.ports import RunLimits
from controller.store import SqliteStore
from tests.support.gateway import make_api
from tests.support.pages import ROOT, blocks
from tests.support.runs import RunDriver
from tests.support.serve_web import settings_of
from tests.support.specs import make
from tests.support.stores import open_store

from .conftest import Web, echo, serving
from .test_files_page import run

PAGE = ROOT / "docs" / "reference" / "runs.md"
APP, TRAIN = AppName("pu-ivanov-pa-demo"), ComponentName("train")
PIPELINE = make(
    Pipeline,
    APP,
    TRAIN,
    "718e2b06a4e1",
    (
        make(Stage, "fit", "sha256:1", inputs=("data", "rate"), outputs=("model",)),
        make(Stage, "tell", "sha256:2", inputs=("model",), outputs=("report",)),
    ),
    boxes=(ComponentName("userdata"),),
    concurrency=10,
    optional=("rate",),
)
INPUTS = (
    make(ApiVariable, "data", "A table"),
    make(ApiVariable, "rate", "Learning rate", required=False, datatypes=("FP64",)),
)
OUTPUTS = (make(ApiVariable, "report", "What came out"),)


class Runner(threading.Thread):
    """Plays the runs of the page: one that succeeds, one whose report fails, one that somebody has to stop."""

    def __init__(self, store: SqliteStore, folder: Path) -> None:
        super().__init__()
        self._player = RunDriver(store, folder, APP)
        self._store = store
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            if (claimed := self._store.runs.claim(RunLimits(host=10, app=10), time.time())) is not None:
                self._play(claimed)
            for active in self._store.runs.active():
                if active.state is RunState.CANCELING:
                    self._player.to(active.id, RunState.CANCELED, "Canceled")

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _play(self, claimed: Run) -> None:
        player, id = self._player, claimed.id
        player.to(id, RunState.RUNNING)
        if claimed.cause == "retry":
            return
        player.begin(id, "fit")
        if claimed.inputs[0].data == "tables/large.csv":
            return
        player.write(id, "fit", 1, b"epoch 1 of 2\nepoch 2 of 2\n")
        player.stage(id, "fit", lambda stage: replace(stage, progress="2/2"))
        player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
        player.begin(id, "tell")
        well = claimed.inputs[0].data != "tables/bad.csv"
        state, reason = (RunState.SUCCEEDED, "") if well else (RunState.FAILED, "ExitCode")
        player.end_attempt(id, "tell", 0 if well else 3, state, reason)
        player.to(id, state, reason)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    users = (("anna", hash_password("s3cret", "salt")),)
    one = Service(APP, make_api("train", users=users), ServiceKind.PIPELINE, (), TRAIN, INPUTS, OUTPUTS)
    every = Service(APP, make_api("pipelines", users=users), ServiceKind.PIPELINES)
    with closing(open_store(settings_of(state).database)) as store, echo("none") as component:
        store.runs.publish(APP, (PIPELINE,))
        store.routes.publish(APP, (one, every))
        runner = Runner(store, settings_of(state).run_files)
        with serving(state, store, component) as running:
            runner.start()
            try:
                yield running
            finally:
                runner.stop()


def test_every_command_gets_the_answer_that_is_shown(web: Web, tmp_path: Path) -> None:
    found = blocks(PAGE, "sh", "json", "text")
    commands = [block for block in found if block.language == "sh"]
    answers = dict(zip(map(id, commands), run(commands, web, tmp_path), strict=True))
    shown = [(answers[id(block)], after) for block, after in pairwise(found) if after.language != "sh"]
    assert len(shown) == sum(block.language != "sh" for block in found), "every answer follows a command"
    for answer, block in shown:
        read = json.loads if block.language == "json" else str
        assert read(plain(answer)) == read(plain(block.text)), str(block)


def plain(text: str) -> Any:
    """Without what is another one each time: ids of runs and requests, and times."""
    text = re.sub(r"\b[0-9a-f]{19}\b|\b[0-9a-f]{32}\b", "ID", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", "TIME", text)
