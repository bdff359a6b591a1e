"""Versions that are ready and fail their smoke test get no call, whatever way they fail; the push says why."""

from __future__ import annotations

import json

from tests.e2e.test_push import hosted, push
from tests.support.engines import BASE_IMAGE
from tests.support.platform import Callers, Module, Platform

SOURCE = '''
import os, time

version = os.environ["VERSION"]


def predict(inputs):
    """Tell the version.

    :param outputs.version: which one answers
    :type outputs.version: str
    """
    if version == "dies":
        os._exit(7)
    if version == "sleeps":
        time.sleep(600)
    if version == "raises":
        raise KeyError("label")
    return iter([{"version": "a"}, {"version": "b"}]) if version == "yields" else {"version": version}
'''
SMOKE = {"input": "smoke/in.json", "output": "smoke/out.json"}


def reply(data: object) -> str:
    shape = {"shape": [len(data)]} if isinstance(data, list) else {}
    return json.dumps({"outputs": [{"name": "version", "datatype": "str", **shape, "data": data}]})


def declared(module: Module, version: str, expected: object = "1", **smoke: object) -> Module:
    module.write("smoke/in.json", json.dumps({"inputs": []})).write("smoke/out.json", reply(expected))
    service = {"timeout": "2s", "smokeTest": {**SMOKE, **smoke}}
    return module.served(SOURCE, version, mlService=service)


def test_versions_that_fail_their_smoke_test_get_no_call(
    platform: Platform, module: Module, app: str
) -> None:
    hosted(platform, module, app)
    assert "has passed its smoke test, smoke/in.json" in push(declared(module, "1"))
    with Callers(platform, app, 2) as callers:
        for version, words in (
            ("2", '/outputs/0/data: expected "1", found "2"'),
            ("dies", "/predict gave no answer: the connection was cut"),
            ("sleeps", "/predict answered 504: function app:predict in component model did not return"),
            ("raises", "/predict answered 500: function app:predict in component model raised KeyError"),
            ("yields", "/outputs/0/shape: expected nothing, found an array of 1"),
        ):
            told = push(declared(module, version))
            assert "does not pass its smoke test" in told, told
            assert words in told, told
            assert words in platform.condition(app, "Degraded")["message"]
        module.write("smoke/in.json", "{")
        told = push(module)
        assert "its smoke test cannot be run: smoke/in.json is not JSON" in told
    assert callers.failures == []
    assert platform.predict(app).json["outputs"][0]["data"] == "1"
    assert len(platform.containers(app)) == 1

    assert "is ready" in push(declared(module, "2", "2"))
    assert platform.predict(app).json["outputs"][0]["data"] == "2"
    assert "is ready" in push(declared(module, "yields", ["a", "b"]))
    assert platform.predict(app).json["outputs"][0]["data"] == ["a", "b"]


def test_an_own_server_is_tested_at_a_path_of_its_own(platform: Platform, module: Module, app: str) -> None:
    hosted(platform, module, app)
    serve = '["python3", "-m", "http.server", "8002"]'
    module.write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCMD {serve}\n").write("smoke/in.json", "{}")
    service = {"server": "own", "readyPath": "/", "smokeTest": {"input": "smoke/in.json", "path": "/score"}}
    module.component(
        "model", image={"build": {"context": "."}}, mlService=service, resources={"memory": "64Mi"}
    )
    told = push(module.api())
    assert "/score answered 501" in told, told
    assert platform.predict(app).status == 404
