"""From a commit to an answer, and from one version to the next, on everything real."""

from __future__ import annotations

import json

from controller.yaml_documents import parse
from tests.support.platform import API_VERSION, ECHO, Callers, Module, Platform

NEVER_READY = "import time\ntime.sleep(3600)\n" + ECHO
DIES_IN_SETUP = 'raise RuntimeError("no weights here")\n' + ECHO


def test_next_version_answers_and_no_call_is_lost(platform: Platform, module: Module, app: str) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    assert platform.predict(app).json == {"outputs": [{"name": "version", "datatype": "str", "data": "1"}]}

    with Callers(platform, app, 4) as callers:
        platform.until(lambda: callers.answered("1") > 20)
        second = module.served(ECHO, version="2").push()
        platform.poke(app)
        platform.until(lambda: callers.answered("2") > 20)
    platform.until_ready(app, second)
    assert callers.failures == []
    assert [c["Labels"]["io.prichal.revision"] for c in platform.containers(app)] == [second]


def test_unready_version_never_replaces_a_serving_one(platform: Platform, module: Module, app: str) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)

    with Callers(platform, app, 2) as callers:
        module.served(NEVER_READY, version="2", mlService={"setupTimeout": "2s"}).push()
        platform.poke(app)
        platform.until(lambda: platform.condition(app, "Degraded"))
        degraded = platform.condition(app, "Degraded")
    assert callers.failures == []
    assert "not ready within 2 s" in degraded["message"]
    assert "keeps serving" in degraded["message"]
    assert platform.status(app)["appliedRevision"] == first
    assert len(platform.containers(app)) == 1

    third = module.served(ECHO, version="3").push()
    platform.poke(app)
    platform.until_ready(app, third)
    assert not platform.condition(app, "Degraded")
    assert platform.predict(app).json["outputs"][0]["data"] == "3"


def test_failed_version_says_its_last_log_lines_and_is_not_tried_again(
    platform: Platform, module: Module, app: str
) -> None:
    module.served(DIES_IN_SETUP).push()
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Stalled"))
    assert "no weights here" in platform.condition(app, "Stalled")["message"]
    assert platform.predict(app).status == 404  # nothing of it was ever published
    started = [e for e in platform.events(app) if e["reason"] == "Started"]

    passes = platform.passes(app)
    platform.until(lambda: platform.passes(app) > passes + 1)  # periodic ones: nothing has changed
    assert [e for e in platform.events(app) if e["reason"] == "Started"] == started
    assert platform.containers(app) == []


def test_newer_commit_cancels_waiting_on_an_older_one(platform: Platform, module: Module, app: str) -> None:
    module.served(NEVER_READY, mlService={"setupTimeout": "110s"}).push()
    platform.connect(module, app)
    platform.until(lambda: platform.containers(app, running=True))
    second = module.served(ECHO, version="2").push()
    platform.poke(app)
    platform.until_ready(app, second)
    assert len(platform.containers(app)) == 1


def test_invalid_commit_changes_nothing_and_tells_all_problems(
    platform: Platform, module: Module, app: str
) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    before = platform.containers(app)

    module.served(ECHO, version="2", replicas=0, colour="red").write(
        "manifests/more.yaml", f"apiVersion: {API_VERSION}\nkind: [\n"
    ).push()
    platform.poke(app)
    platform.until(lambda: platform.condition(app, "ManifestInvalid"))
    message = platform.condition(app, "ManifestInvalid")["message"]
    assert "spec.replicas" in message
    assert "colour" in message
    assert "more.yaml:3" in message
    assert [c["Id"] for c in platform.containers(app)] == [c["Id"] for c in before]
    assert platform.predict(app).json["outputs"][0]["data"] == "1"


def test_unchanged_context_is_not_built_twice(platform: Platform, module: Module, app: str) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    module.write("README.md", "in the context, so this builds").write(".dockerignore", "README.md\n")
    second = module.push()
    platform.poke(app)
    platform.until_ready(app, second)
    builds = [e for e in platform.events(app) if e["reason"] == "Building"]

    third = module.write("manifests/note.yaml", "apiVersion: v1\nkind: Other\n").push()
    platform.poke(app)
    platform.until(lambda: platform.status(app)["attemptedRevision"] == third)
    assert platform.predict(app).status == 200
    assert len(builds) <= 2


def test_what_left_git_is_removed_but_never_all_at_once(platform: Platform, module: Module, app: str) -> None:
    module.served(ECHO)
    spec = {"image": {"build": {"context": "."}}, "env": [{"name": "VERSION", "value": "b"}]}
    first = module.component("other", **spec, mlService={"inference": "app:predict"}).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    assert len(platform.containers(app)) == 2

    second = module.remove("manifests/other.yaml").push()
    platform.poke(app)
    platform.until_ready(app, second)
    assert [c["Labels"]["io.prichal.component"] for c in platform.containers(app)] == ["model"]

    module.remove("manifests/model.yaml", "manifests/api-model.yaml").write("manifests/.keep", "").push()
    platform.poke(app)
    platform.until(lambda: platform.condition(app, "PrunePending"))
    assert platform.predict(app).status == 200
    platform.prichal("approve", app)
    platform.until(lambda: not platform.containers(app))
    assert platform.predict(app).status == 404


def test_disconnecting_removes_everything(platform: Platform, module: Module, app: str) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    plan = json.loads(platform.prichal("plan", app, "-o", "json").stdout)
    assert (plan["revision"], plan["empty"], plan["actions"]) == (first, True, [])
    (as_yaml,) = parse("plan", platform.prichal("plan", app, "-o", "yaml").stdout.encode()).documents
    assert as_yaml.value == plan
    done = platform.prichal("disconnect", app, "--yes", "--wait")
    assert f"{app}: Removed" in done.stderr
    platform.until(lambda: not platform.status(app))
    assert platform.containers(app) == []
    assert platform.docker.networks(names=[f"{platform.instance}.{app}"]) == []
    assert platform.predict(app).status == 404
