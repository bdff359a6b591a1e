"""Files of calls through real processes: gunicorn, the serving library and a storage, each of which is also stopped,
frozen and killed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.adapters.objects import S3Objects
from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_password
from controller.domain.storage.box import BoxRecord, StorageAccess
from tests.integration.web.conftest import Reply, Web, echo
from tests.support.gateway import APP, make_api, make_route
from tests.support.serve_web import settings_of
from tests.support.storage_servers import StorageServer, embedded_server, minio_binary, minio_server
from tests.support.stores import open_store
from tests.support.waiting import wait_for
from tests.unit.serving.server import Server

SERVERS = {"embedded": embedded_server, "minio": minio_server}
BUCKET = "prichal.demo.userdata"
CAPACITY = 10**9

FUNCTION = '''
import hashlib, os, time

def predict(inputs, parameters, context):
    """Turn a file around.

    :param inputs.file: A file
    :type inputs.file: FILE, optional
    :param outputs.digest: SHA-256 of what came
    :type outputs.digest: str
    :param outputs.turned: The file, turned around
    :type outputs.turned: FILE, optional
    """
    data = b"".join(open(item["data"], "rb").read() for item in inputs)
    if "die" in parameters:
        os._exit(1)
    if "hold" in parameters:
        open("held", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    target = os.path.join(context.folder, "turned.png")
    with open(target, "wb") as file:
        file.write(data[::-1])
    outputs = [{"name": "digest", "datatype": "str", "data": hashlib.sha256(data).hexdigest()}]
    if "digest" not in parameters:
        outputs.append({"name": "turned", "datatype": "FILE", "data": target})
    return outputs
'''


ANN = {"Authorization": f"Basic {base64.b64encode(b'ann:anns-password').decode()}"}


@dataclass
class Scene:
    web: Web
    storage: StorageServer
    objects: S3Objects
    component: Server

    def predict(self, path: str | None, *parameters: str, user: str = "ann", **members: Any) -> Reply:
        inputs = [{"name": "file", "datatype": "FILE", "data": path}] if path else []
        document = {"inputs": inputs, "parameters": parameters, **members}
        credentials = base64.b64encode(f"{user}:{user}s-password".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
        return self.web.ask("POST", "/demo/turn/predict", json.dumps(document).encode(), **headers)

    def later(self, path: str | None, *parameters: str) -> str:
        """Call it for ann without waiting for the answer, and return the address of the call."""
        inputs = [{"name": "file", "datatype": "FILE", "data": path}] if path else []
        body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
        headers = {"Content-Type": "application/json", "Prefer": "respond-async", **ANN}
        return self.web.ask("POST", "/demo/turn/predict", body, **headers).headers["location"]

    def call(self, place: str) -> Any:
        return self.web.ask("GET", place, None, **ANN).json

    def put(self, path: str, content: bytes, user: str = "ann") -> None:
        self.objects.put(BUCKET, f"users/{user}/file_groups/{path}", io.BytesIO(content), len(content))

    def get(self, path: str, user: str = "ann") -> bytes:
        with self.objects.open(BUCKET, f"users/{user}/file_groups/{path}") as pieces:
            return b"".join(pieces)

    @property
    def pending(self) -> int:
        return self.web.store.boxes.usage(BUCKET, time.time()).pending


@pytest.fixture(scope="module", params=SERVERS)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio: `make minio` builds it")
    state: Path = tmp_path_factory.mktemp("state")
    users = tuple((name, hash_password(f"{name}s-password", "salt")) for name in ("ann", "bob"))
    with ExitStack() as stack:
        storage = stack.enter_context(SERVERS[request.param](tmp_path_factory.mktemp("storage")))
        objects = stack.enter_context(closing(storage.objects()))
        store = stack.enter_context(closing(open_store(settings_of(state).database)))
        unused = stack.enter_context(echo("none"))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        objects.create_bucket(BUCKET)
        store.boxes.save(BoxRecord(APP, ComponentName("userdata"), BUCKET, CAPACITY))
        store.boxes.record_access(
            StorageAccess(storage.url, storage.url, storage.access_key, storage.secret_key)
        )
        component = Server(tmp_path_factory.mktemp("component"), FUNCTION)
        stack.callback(component.close)
        route = make_route(
            make_api("turn", users=users),
            upstreams=(f"127.0.0.1:{component.ready().port}",),
            boxes=(ComponentName("userdata"),),
            timeout=20.0,
        )
        store.routes.switch(route)
        web = Web(state, store, listener, unused)
        web.start()
        stack.callback(stop, web)
        wait_for(lambda: web.ask("GET", "/-/healthz").status == 200)
        yield Scene(web, storage, objects, component)


def stop(web: Web) -> None:
    assert web.process is not None
    os.kill(web.process.pid, signal.SIGQUIT)
    web.process.wait(timeout=30)


def kind(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    return str(reply.json["type"]).removeprefix("urn:prichal:problem:")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 100_000, 10_000_000, 100_000_000])
def test_a_file_comes_in_and_another_goes_out(here: Scene, size: int) -> None:
    content = os.urandom(size)
    here.put("group/файл #1.bin", content)
    reply = here.predict("group/файл #1.bin")
    assert reply.status == 200, reply.body
    told, turned = reply.json["outputs"]
    assert told["data"] == digest(content)
    assert turned["data"] == f"predictions/{reply.headers['x-request-id']}/turned.png"
    assert turned["content_type"] == "image/png"
    assert here.get(turned["data"]) == content[::-1]


def test_many_at_once(here: Scene) -> None:
    contents = {f"many/{number}": os.urandom(500_000 + number) for number in range(12)}
    for path, content in contents.items():
        here.put(path, content)
    with ThreadPoolExecutor(12) as threads:
        replies = dict(zip(contents, threads.map(here.predict, contents), strict=True))
    for path, reply in replies.items():
        assert reply.status == 200, reply.body
        assert reply.json["outputs"][0]["data"] == digest(contents[path])
        assert here.get(reply.json["outputs"][1]["data"]) == contents[path][::-1]


def test_a_caller_sees_his_own_area_alone(here: Scene) -> None:
    here.put("private/a", b"ann's")
    for path in ("private/a", "../ann/file_groups/private/a", "users/ann/file_groups/private/a"):
        reply = here.predict(path, user="bob")
        assert (reply.status, kind(reply)) == (422, "invalid-request")
        assert reply.json["errors"][0]["pointer"] == "/inputs/0/data"
    assert here.predict("private/a", user="ann").status == 200


def test_the_caller_chooses_where_the_output_lies(here: Scene) -> None:
    target = {"name": "turned", "datatype": "FILE", "data": "results/today/x.png"}
    here.put("group/a", b"abc")
    reply = here.predict("group/a", output_fields=[target], user="ann")
    assert reply.json["outputs"] == [{**target, "content_type": "image/png"}]
    assert here.get("results/today/x.png") == b"cba"
    reply = here.predict("group/a", output_fields=[{**target, "data": "results/today/x.png/y"}])
    assert (reply.status, kind(reply)) == (409, "path-conflict")


def test_the_object_has_the_outputs_type(here: Scene) -> None:
    path = here.predict(None).json["outputs"][1]["data"]
    link = urlsplit(here.objects.sign("GET", BUCKET, f"users/ann/file_groups/{path}", 60))
    assert link.hostname is not None
    with closing(HTTPConnection(link.hostname, link.port, timeout=30)) as connection:
        connection.request("GET", f"{link.path}?{link.query}")
        assert connection.getresponse().headers["content-type"] == "image/png"


def test_a_box_without_room_takes_no_output(here: Scene) -> None:
    boxes = here.web.store.boxes
    boxes.measured(BUCKET, CAPACITY - 10, 1, time.time(), [upload.id for upload in boxes.pending(BUCKET)])
    here.put("group/b", b"x" * 11)
    reply = here.predict("group/b")
    assert (reply.status, kind(reply)) == (507, "box-full")
    assert (reply.json["free"], reply.json["size"]) == (10, 11)
    assert here.predict("group/b", "digest").status == 200
    boxes.measured(BUCKET, 0, 0, time.time(), [])


def test_a_component_that_dies_is_named(here: Scene) -> None:
    here.put("group/c", b"c")
    reply = here.predict("group/c", "die")
    assert (reply.status, kind(reply)) == (502, "component-died")
    wait_for(lambda: here.predict("group/c", "digest").status == 200)


def test_a_storage_that_dies_and_comes_back(here: Scene) -> None:
    here.put("group/d", os.urandom(1_000_000))
    assert here.predict("group/d", "digest").status == 200
    here.storage.kill()
    reply = here.predict("group/d", "digest")
    assert (reply.status, kind(reply)) == (503, "storage-unreachable")
    assert int(reply.headers["retry-after"]) > 0
    here.storage.start()
    assert here.predict("group/d", "digest").status == 200


def test_a_storage_that_dies_before_the_output_is_stored(here: Scene) -> None:
    before = here.pending
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(here.predict, None, "hold")
        held = here.component.folder / "held"
        wait_for(held.exists)
        here.storage.kill()
        here.component.release()
        reply = call.result()
    (here.component.folder / "go").unlink()
    held.unlink()
    assert (reply.status, kind(reply)) == (503, "storage-unreachable")
    assert reply.json["detail"].startswith("Output 'turned' cannot be stored. ")
    wait_for(lambda: here.pending == before)
    here.storage.start()
    assert here.predict(None).status == 200


def test_a_caller_who_leaves_ends_the_call(here: Scene) -> None:
    credentials = base64.b64encode(b"ann:anns-password").decode()
    body = b'{"inputs": [], "parameters": ["hold"]}'
    head = (
        "POST /demo/turn/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Authorization: Basic {credentials}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    before = here.pending
    with socket.create_connection(here.web.address, timeout=30) as caller:
        caller.sendall(head.encode() + body)
        wait_for((here.component.folder / "held").exists)
    here.component.release()
    wait_for(lambda: here.component.get("/health/ready").json["running"] == 0)
    (here.component.folder / "go").unlink()
    (here.component.folder / "held").unlink()
    assert here.pending == before, "nothing was reserved for him"


def test_files_of_a_call_that_is_answered_later(here: Scene) -> None:
    """It waits while the storage does not answer, since the component has got nothing of it."""
    content = os.urandom(1_000_000)
    here.put("group/later", content)
    here.storage.kill()
    place = here.later("group/later")
    wait_for(lambda: here.call(place)["reason"] == "StorageUnreachable")
    here.storage.start()
    assert (
        wait_for(lambda: here.call(place), lambda found: found["ended"] is not None)["state"] == "SUCCEEDED"
    )
    told, turned = here.web.ask("GET", f"{place}/result", None, **ANN).json["outputs"]
    assert (told["data"], here.get(turned["data"])) == (digest(content), content[::-1])
    missing = here.later("group/none")
    found = wait_for(lambda: here.call(missing), lambda found: found["ended"] is not None)
    assert (found["state"], found["reason"], found["result"]["status"]) == ("FAILED", "InvalidRequest", 422)


def test_a_call_whose_output_cannot_be_stored_is_not_repeated(here: Scene) -> None:
    place = here.later(None, "hold")
    wait_for((here.component.folder / "held").exists)
    here.storage.kill()
    here.component.release()
    found = wait_for(lambda: here.call(place), lambda found: found["ended"] is not None)
    (here.component.folder / "go").unlink()
    (here.component.folder / "held").unlink()
    assert (found["state"], found["reason"], found["result"]["status"]) == (
        "ERROR",
        "StorageUnreachable",
        503,
    )
    here.storage.start()
    wait_for(lambda: here.predict(None).status == 200)
