"""Who may call, what a caller is told when the function misbehaves, and what must never be seen."""

from __future__ import annotations

import base64
import json
import time

import pytest

from tests.support.platform import JSON, Module, Platform

WHO = '''
def predict(inputs, context):
    """Who calls.

    :param outputs.user: the caller
    :type outputs.user: str
    """
    return {"user": context.user or "nobody"}
'''

MOODY = '''
import os, sys, time


def predict(inputs):
    """Does what it is told.

    :param inputs.deed: what to do
    :type inputs.deed: str
    :param outputs.done: what was done
    :type outputs.done: str
    """
    deed = inputs[0]["data"]
    if deed == "raise":
        raise ValueError("not today")
    if deed == "exit":
        sys.exit(3)
    if deed == "die":
        os._exit(9)
    if deed == "print":
        print("x" * 10_000_000)
    if deed == "block":
        time.sleep(3600)
    return {"done": deed}
'''


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_basic_auth_with_plain_and_hashed_passwords(platform: Platform, module: Module, app: str) -> None:
    hashed = platform.prichal("password", "hash", input="hash-me-please\n").stdout.strip()
    auth = {"basic": {"credentials": "users"}, "identityPassThrough": True}
    first = module.served(WHO).api(restfulApi={"auth": auth}).push()
    secrets = {"users": {"ivanov": "plain-and-long", "petrov": hashed}}
    platform.connect(module, app, secrets)
    platform.until_ready(app, first)

    assert platform.predict(app).status == 401
    known = platform.predict(app, headers=basic("ivanov", "wrong")).json
    unknown = platform.predict(app, headers=basic("nobody", "wrong")).json
    assert {**known, "instance": ""} == {**unknown, "instance": ""}
    assert known["status"] == 401
    spoofed = {"X-Forwarded-User": "admin"}
    for user, password in (("ivanov", "plain-and-long"), ("petrov", "hash-me-please")):
        reply = platform.predict(app, headers={**basic(user, password), **spoofed})
        assert reply.json["outputs"][0]["data"] == user


def test_identity_is_not_passed_unless_asked_for(platform: Platform, module: Module, app: str) -> None:
    first = module.served(WHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    reply = platform.predict(app, headers={"X-Forwarded-User": "admin"})
    assert reply.json["outputs"][0]["data"] == "nobody"


def test_unpublished_api_answers_404_and_keeps_its_component(
    platform: Platform, module: Module, app: str
) -> None:
    first = module.served(WHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    (before,) = platform.containers(app)
    second = module.api(published=False).push()
    platform.poke(app)
    platform.until_ready(app, second)
    assert platform.predict(app).status == 404
    assert [c["Id"] for c in platform.containers(app)] == [before["Id"]]


@pytest.fixture(scope="module")
def moody(platform: Platform) -> str:
    app = "pu-e2e-pa-moody"
    module = Module(platform.home / app)
    revision = module.served(MOODY, mlService={"timeout": "2s", "concurrency": 2}).push()
    platform.connect(module, app)
    platform.until_ready(app, revision)
    return app


def deed(name: str) -> list[dict[str, str]]:
    return [{"name": "deed", "datatype": "str", "data": name}]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("raise", 500, "ValueError: not today"),
        ("exit", 500, "SystemExit"),
        ("die", 502, ""),
        ("block", 504, "2 s"),
    ],
)
def test_function_that_misbehaves_is_told_and_the_service_goes_on(
    platform: Platform, moody: str, name: str, status: int, words: str
) -> None:
    reply = platform.predict(moody, deed(name))
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert words in reply.json["detail"]
    assert "Traceback" not in reply.body.decode()
    platform.until(lambda: platform.predict(moody, deed("nothing")).status == 200)


def test_ten_megabytes_of_print_do_no_harm(platform: Platform, moody: str) -> None:
    platform.until(lambda: platform.predict(moody, deed("print")).status == 200)


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b'{"inputs": [', 400, None),
        (b'{"inputs": []}', 422, "/inputs"),
        (b'{"inputs": [{"name": "other", "datatype": "str", "data": "x"}]}', 422, "/inputs"),
        (b'{"inputs": [{"name": "deed", "datatype": "FP32", "data": 1}]}', 422, "/inputs/0/datatype"),
        (b'{"inputs": [{"name": "deed", "datatype": "str", "data": NaN}]}', 400, None),
    ],
)
def test_bad_requests_are_refused_with_pointers(
    platform: Platform, moody: str, body: bytes, status: int, pointer: str | None
) -> None:
    reply = platform.request("POST", f"/{moody}/api/predict", body, JSON)
    assert reply.status == status
    assert reply.headers["x-request-id"]
    if pointer:
        assert any(error["pointer"].startswith(pointer) for error in reply.json["errors"])


def test_description_and_docs_are_served_through_the_gateway(platform: Platform, moody: str) -> None:
    document = platform.get(f"/{moody}/api/openapi.json").json
    assert document["servers"] == [{"url": "."}]  # beside the description, wherever it is published
    assert "/predict" in document["paths"]
    page = platform.get(f"/{moody}/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert b"what to do" in page.body


def test_secrets_are_in_no_text(platform: Platform, module: Module, app: str) -> None:
    secret = f"s3cr3t-{time.time_ns()}"
    prints_it = (
        WHO + "\nimport os\nprint('starting with', os.environ['API_KEY'], flush=True)\nraise SystemExit(1)\n"
    )
    module.served(prints_it, envFrom=[{"secretRef": {"name": "keys"}}]).push()
    platform.connect(module, app, {"keys": {"API_KEY": secret}})
    platform.until(lambda: platform.condition(app, "Stalled"))

    seen = json.dumps(platform.status(app)) + json.dumps(platform.events(app)) + platform.log.read_text()
    seen += platform.prichal("status", app).stdout + platform.prichal("events", app).stdout
    assert "starting with ***" in seen
    assert secret not in seen
    for file in (platform.home / "state" / "db").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()
