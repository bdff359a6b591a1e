"""Runs of pipelines on the whole platform: from a file in a box to a file in a box, through the death of the daemon,
and by the clock."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from controller.config import Settings
from controller.domain.names import AppName
from controller.domain.runs.run import RunState
from controller.store import open_store
from tests.support.engines import BASE_IMAGE
from tests.support.platform import JSON, Module, Platform, Reply
from tests.support.receivers import WHSEC, Receiver, receiver
from tests.support.waiting import wait_for

DAY = 86400.0
COUNT = """
import os, time
source, target = os.environ["UNIP_PIPELINE_DATA"], os.environ["UNIP_PIPELINE_COUNTED"]
print("counting", flush=True)
time.sleep(float(os.environ.get("PAUSE", "0")))
with open(source) as file, open(target + "/words.txt", "w") as out:
    out.write(str(len(file.read().split())))
"""
REPORT = """
import os
source, target = os.environ["UNIP_PIPELINE_COUNTED"], os.environ["UNIP_PIPELINE_REPORT"]
with open(source + "/words.txt") as file, open(target + "/report.txt", "w") as out:
    out.write("words: " + file.read())
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Whose webhooks may come to loopback, where those of the tests are received."""
    running = Platform(tmp_path_factory.mktemp("platform"), runs={"webhookPrivate": True})
    try:
        yield running.start()
    finally:
        running.stop()


def declare(module: Module, pause: str = "0", **spec: Any) -> str:
    image = {"existingImageName": BASE_IMAGE}
    module.box("data").files_api()
    module.pipeline(
        connectedBoxes=[{"name": "data", "default": True}],
        vars=[{"name": "data"}, {"name": "counted"}, {"name": "report"}],
        stages=[
            {
                "name": "count",
                "image": image,
                "command": ["python3", "-c", COUNT],
                "inputs": [{"name": "data"}],
                "outputs": [{"name": "counted"}],
                "env": [{"name": "PAUSE", "value": pause}],
            },
            {
                "name": "report",
                "image": image,
                "command": ["python3", "-c", REPORT],
                "inputs": [{"name": "counted"}],
                "outputs": [{"name": "report"}],
            },
        ],
        **spec,
    )
    api = {
        "inputs": [{"name": "data", "type": {"datatypes": ["FILE"]}}],
        "outputs": [{"name": "report", "description": "what came out"}],
    }
    module.runs_api(apiSpec=api)
    return module.push()


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def submit(platform: Platform, app: str, wait: int = 0) -> Reply:
    body = {"inputs": {"data": "texts/a.txt"}, "outputs": {"report": "results/today"}}
    headers = {**JSON, "Prefer": f"respond-async, wait={wait}"}
    return platform.request("POST", f"/{app}/train/runs", json.dumps(body).encode(), headers)


def assert_told(there: Receiver, run: dict[str, Any]) -> None:
    (received,) = wait_for(lambda: there.received)
    assert received.genuine
    told = received.json
    assert (told["type"], told["data"]["id"]) == ("run.succeeded", run["id"])
    assert told["data"]["outputs"] == [{"name": "report", "box": "data", "data": "results/today/"}]


def test_a_file_goes_in_and_a_report_comes_out(
    platform: Platform, module: Module, app: str, there: Receiver
) -> None:
    revision = declare(module, webhook={"url": there.url, "secret": "hooks"})
    platform.connect(module, app, secrets={"hooks": {"secret": WHSEC}})
    platform.until_ready(app, revision)
    assert platform.put_file(app, "data/texts/a.txt", b"one two three").status == 200
    reply = submit(platform, app, wait=30)
    assert reply.status == 200, reply.body
    run = reply.json
    assert run["state"] == "SUCCEEDED", run
    assert [stage["state"] for stage in run["stages"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert_told(there, run)
    assert platform.get_file(app, "data/results/today/report.txt").body == b"words: 3"
    log = platform.get(f"/{app}/train/runs/{run['id']}/logs?stage=count")
    assert log.body == b"counting\n"
    platform.until(lambda: not platform.containers(app))


def test_the_daemon_dies_in_the_middle_of_a_run(platform: Platform, module: Module, app: str) -> None:
    revision = declare(module, pause="3")
    platform.connect(module, app)
    platform.until_ready(app, revision)
    assert platform.put_file(app, "data/texts/a.txt", b"one two three").status == 200
    run = submit(platform, app).json
    platform.until(lambda: platform.containers(app, running=True))
    platform.kill("daemon", signal.SIGKILL)
    platform.start_process("daemon")
    ended = platform.get(f"/{app}/train/runs/{run['id']}?wait=60").json
    assert ended["state"] == "SUCCEEDED", ended
    assert [len(stage["attempts"]) for stage in ended["stages"]] == [1, 1], "nothing ran twice"
    assert platform.get_file(app, "data/results/today/report.txt").body == b"words: 3"


def test_an_image_built_here_and_removed_by_hand_comes_back(
    platform: Platform, module: Module, app: str
) -> None:
    module.write("Dockerfile", f'FROM {BASE_IMAGE}\nCMD ["python3", "-c", "print(1)"]\n')
    module.pipeline(stages=[{"name": "count", "image": {"build": {"context": "."}}}])
    module.runs_api(apiSpec={})
    revision = module.push()
    platform.connect(module, app)
    platform.until_ready(app, revision)

    def run() -> Any:
        headers = {**JSON, "Prefer": "wait=30"}
        return platform.request("POST", f"/{app}/train/runs", b"{}", headers).json

    assert run()["state"] == "SUCCEEDED"
    reference = f"{platform.instance}.local/{app}/*"

    (image,) = platform.docker.images(filters={"reference": reference})
    platform.until(lambda: not platform.containers(app))
    platform.docker.remove_image(image["Id"], force=True)
    rebuilt = run()
    assert rebuilt["state"] == "SUCCEEDED", rebuilt
    assert len(rebuilt["stages"][0]["attempts"]) == 1


def test_disconnected_in_the_middle_of_a_run(platform: Platform, module: Module, app: str) -> None:
    revision = declare(module, pause="3600")
    platform.connect(module, app)
    platform.until_ready(app, revision)
    assert platform.put_file(app, "data/texts/a.txt", b"one two three").status == 200
    begun = submit(platform, app).json
    platform.until(lambda: platform.containers(app, running=True))
    waiting = submit(platform, app).json  # the pipeline runs once at a time
    keeper = Module(platform.home / f"{app}-keeper")
    keeper.push()
    platform.connect(keeper, f"{app}-keeper")  # an empty folder would be taken for a lost mount
    platform.disconnect(app)
    platform.until(lambda: not platform.containers(app))
    platform.until(lambda: platform.get(f"/{app}/train/runs/{begun['id']}").status == 404)
    networks = {"name": f"{platform.instance}.{app}"}
    platform.until(lambda: not platform.docker.networks(filters=networks))
    with closing(open_store(platform.home / "state" / "db" / "state.db")) as store:
        for id in (begun["id"], waiting["id"]):
            run = store.runs.get(AppName(app), id)
            assert run
            assert (run.state, run.reason) == (RunState.CANCELED, "AppDisconnected")
    log = platform.home / "state" / "runs" / begun["id"] / "count.1.log"
    assert log.read_text() == "counting\n", "kept until its time is over"


def test_what_a_daemon_has_missed_is_made_up_for_once(platform: Platform, module: Module, app: str) -> None:
    write = "import os; open(os.environ['UNIP_PIPELINE_REPORT'] + '/report.txt', 'w').write('done')"
    stage = {"name": "report", "image": {"existingImageName": BASE_IMAGE}, "outputs": [{"name": "report"}]}
    module.box("data").pipeline(
        connectedBoxes=[{"name": "data", "default": True}],
        vars=[{"name": "report"}],
        stages=[{**stage, "command": ["python3", "-c", write]}],
        schedule={"cron": "0 3 * * *", "timezone": "Europe/Moscow"},
    )
    module.runs_api(apiSpec={"outputs": [{"name": "report", "description": "what came out"}]})
    revision = module.push()
    platform.connect(module, app)
    platform.until_ready(app, revision)
    with closing(open_store(Settings(state=platform.home / "state").database)) as store:
        platform.until(lambda: store.schedules.all(AppName(app))[0].mark)
        platform.kill("daemon", signal.SIGTERM)
        [scheduled] = store.schedules.all(AppName(app))
        assert scheduled.mark
        days_ago = replace(scheduled.mark, at=scheduled.mark.at - 5 * DAY, next=scheduled.mark.next - 5 * DAY)
        assert store.schedules.advance(scheduled, days_ago)
    assert platform.get(f"/{app}/train/runs").json["runs"] == []
    platform.start_process("daemon")
    platform.until(lambda: platform.get(f"/{app}/train/runs").json["runs"])
    [run] = platform.get(f"/{app}/train/runs").json["runs"]
    ended = platform.get(f"/{app}/train/runs/{run['id']}?wait=60").json
    assert ended["state"] == "SUCCEEDED", ended
    assert (ended["cause"], ended["public"], ended["user"]) == ("schedule", True, None)
    place = {"name": "report", "data": f"runs/{run['id']}/report/", "area": "developer"}
    assert ended["outputs"] == [place]
    assert len(platform.get(f"/{app}/train/runs").json["runs"]) == 1
