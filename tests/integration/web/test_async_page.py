"""What http-api.md shows of calls with a later answer is typed, and the answers are what the API answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.passwords import hash_password
from tests.support.gateway import make_api, make_route
from tests.support.pages import ROOT, blocks
from tests.support.serve_web import settings_of
from tests.support.stores import open_store

from .conftest import Web, serving
from .test_async_calls import Obedient, obedient
from .test_files_page import run
from .test_runs_page import plain

PAGE = ROOT / "docs" / "reference" / "http-api.md"
OUTPUTS = [{"name": "label", "datatype": "str", "data": "cat"}]


@pytest.fixture(scope="module")
def component() -> Iterator[Obedient]:
    with obedient(outputs=OUTPUTS) as found:
        yield found


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, component: Obedient) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    api = make_api("image", users=(("anna", hash_password("s3cret", "salt")),))
    names = {"app": AppName("pu-ivanov-pa-demo"), "component": ComponentName("my-mlcmp")}
    with closing(open_store(settings_of(state).database)) as store:
        store.routes.switch(make_route(api, upstreams=(component.endpoint,), concurrency=4, **names))
        with serving(state, store, component) as running:  # type: ignore[arg-type]
            yield running


def test_every_command_gets_the_answer_that_is_shown(web: Web, tmp_path: Path) -> None:
    found = [block for block in blocks(PAGE, "sh", "json") if _is_ours(block.text)]
    commands = [block for block in found if block.language == "sh"]
    answers = dict(zip(map(id, commands), run(commands, web, tmp_path), strict=True))
    shown = [(answers[id(block)], after) for block, after in pairwise(found) if after.language == "json"]
    assert len(shown) == len(commands) == 3
    for answer, block in shown:
        assert _told(answer) == _told(block.text), str(block)


def _is_ours(text: str) -> bool:
    return "$api" in text or "my-mlcmp" in text or '{"outputs"' in text


def _told(text: str) -> Any:
    """Without what is another one each time: a call may have begun already when it is accepted."""
    document = json.loads(plain(text))
    if document.get("state") in ("QUEUED", "RUNNING", "SUCCEEDED") and "links" in document:
        over = document["state"] == "SUCCEEDED" and document.pop("result") is not None
        return {**document, "state": over or "under way", "started": None, "ended": None, "result": None}
    return document


def test_the_example_in_python(web: Web) -> None:
    (example,) = (block for block in blocks(PAGE, "python") if "predict_later" in block.text)
    known: dict[str, Any] = {}
    exec(example.text, known)
    host, port = web.address
    authorization = "Basic " + base64.b64encode(b"anna:s3cret").decode()
    api = f"http://{host}:{port}/pu-ivanov-pa-demo/image"
    assert known["predict_later"](api, authorization, [{"name": "x", "data": 1}]) == OUTPUTS
