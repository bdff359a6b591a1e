"""Files that travel with the call, over real sockets: what the function gets, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Reply, Server, read_all, read_response

DOCSTRING = '''
    """Files.

    :param inputs.first: A file
    :type inputs.first: FILE or str
    :param inputs.second: Another one
    :type inputs.second: FILE, optional
    :param outputs.seen: What came
    :type outputs.seen: dict
    :param outputs.file: A file
    :type outputs.file: FILE, optional
    :param outputs.more: Another one
    :type outputs.more: FILE, optional
    """
'''


def function(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import os, pathlib, threading, time\ndef predict(inputs, context):\n{DOCSTRING}{lines}"


SEEN = """
seen = [
    {**item, "content": pathlib.Path(item["data"]).read_bytes().decode("latin-1")[:100],
     "size": os.path.getsize(item["data"])}
    for item in inputs if item["datatype"] == "FILE"
]
return {"seen": {"files": seen, "folder": os.path.dirname(os.path.dirname(inputs[0]["data"]))}}
"""

COPY = """
target = pathlib.Path(context.folder, "copy.bin")
target.write_bytes(pathlib.Path(inputs[0]["data"]).read_bytes()[::-1])
return [
    {"name": "seen", "datatype": "dict", "data": {"folder": context.folder}},
    {"name": "file", "datatype": "FILE", "data": target, "content_type": "image/png"},
    {"name": "more", "datatype": "FILE", "data": inputs[0]["data"]},
]
"""


@pytest.fixture
def scratch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The server's TMPDIR."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def files_in(scratch: pathlib.Path) -> list[str]:
    # os.walk passes over what is removed while it looks.
    return [
        str((pathlib.Path(folder) / name).relative_to(scratch))
        for folder, _, names in os.walk(scratch)
        for name in names
    ]


def item(name: str, path: str, **members: str) -> dict[str, str]:
    return {"name": name, "datatype": "FILE", "data": path, **members}


def framed(
    document: Any,
    *files: tuple[int, bytes],
    path: str = "/predict",
    header: str | None = None,
    more: str = "",
) -> bytes:
    """A request with files behind its JSON; each with its place in the inputs. `more` lines for the header."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    ends = "".join(f"; {index}={len(data)}" for index, data in files)
    behind = b"".join(data for _, data in files)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"X-Prichal-Files: {header or f'{len(content)}{ends}'}\r\n"
        f"Content-Length: {len(content) + len(behind)}\r\n{more}\r\n"
    )
    return head.encode() + content + behind


def send(server: Server, request: bytes) -> Reply:
    with server.connect() as sock:
        sock.sendall(request)
        return read_response(sock.makefile("rb"))


def test_the_function_gets_local_paths(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(SEEN)).ready()
    cat, dog = os.urandom(3_000_000), b""
    inputs = [item("first", "group/кот.png", content_type="image/png"), item("second", "group/кот.png")]
    reply = send(server, framed({"inputs": inputs}, (0, cat), (1, dog)))
    assert reply.status == 200, reply.body
    (first, second) = reply.outputs["seen"]["files"]
    assert (first["content"], first["size"]) == (cat.decode("latin-1")[:100], len(cat))
    assert (second["content"], second["size"]) == ("", 0)
    assert first["data"] != second["data"]
    assert {pathlib.Path(seen["data"]).name for seen in (first, second)} == {"кот.png"}
    assert first["content_type"] == "image/png"
    assert "x-prichal-files" not in reply.headers
    wait_for(lambda: not files_in(scratch))


def test_files_behind_tensors_as_bytes(serve: Serve, scratch: pathlib.Path) -> None:
    """A tensor behind the JSON, and a file behind that; with a file among its outputs the reply is JSON."""
    source = function(COPY).replace(
        "    :param outputs.seen",
        "    :param inputs.flags: Flags\n    :type inputs.flags: BOOL\n    :param outputs.seen",
    )
    server = serve(source, component="net").ready()
    flags = {"name": "flags", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}
    document = {"inputs": [item("first", "g/a"), flags], "parameters": {"binary_data_output": True}}
    head = json.dumps(document).encode()
    more = f"Inference-Header-Content-Length: {len(head)}\r\n"
    request = framed(head + b"\0\1", (0, b"dog"), path="/v2/models/net/infer", more=more)
    with server.connect() as sock:
        sock.sendall(request)
        stream = sock.makefile("rb")
        reply = read_response(stream)
    assert reply.status == 200, reply.body
    length, *ends = reply.headers["x-prichal-files"].split("; ")
    names = [output["name"] for output in json.loads(reply.body[: int(length)])["outputs"]]
    assert names == ["seen", "file", "more"]
    assert ends == ["1=3", "2=3"]
    assert reply.body[int(length) :] == b"goddog"


def test_the_connection_goes_on_behind_the_files(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(SEEN)).ready()
    request = framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 100_000))
    with server.connect() as sock:
        stream = sock.makefile("rb")
        sock.sendall(request * 3)
        for _ in range(3):
            reply = read_response(stream)
            assert reply.outputs["seen"]["files"][0]["size"] == 100_000
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_response(stream).status == 200


def test_files_come_back_behind_the_reply(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(COPY)).ready()
    data = os.urandom(2_000_000)
    with server.connect() as sock:
        stream = sock.makefile("rb")
        for _ in range(2):
            sock.sendall(framed({"inputs": [item("first", "g/a.bin")]}, (0, data)))
            reply = read_response(stream)
            length, _, ends = reply.headers["x-prichal-files"].partition("; ")
            assert ends == f"1={len(data)}; 2={len(data)}"
            document, files = json.loads(reply.body[: int(length)]), reply.body[int(length) :]
            assert files == data[::-1] + data
            seen, file, more = document["outputs"]
            assert file == {
                "name": "file",
                "datatype": "FILE",
                "data": "copy.bin",
                "content_type": "image/png",
            }
            assert more["data"] == "a.bin"
            assert pathlib.Path(seen["data"]["folder"]).is_relative_to(scratch)
            wait_for(lambda: not files_in(scratch))


def test_a_sender_that_knows_nothing_of_files_gets_none(serve: Serve, scratch: pathlib.Path) -> None:
    body = 'return {"seen": {}, "file": __file__}'
    server = serve(function(body)).ready()
    request = {"inputs": [{"name": "first", "datatype": "str", "data": ""}]}
    reply = server.post(request)
    assert (reply.status, reply.json["type"]) == (500, "urn:prichal:problem:bad-output")
    assert "no box connected" in reply.json["detail"]
    assert send(server, framed(request)).headers["x-prichal-files"].endswith(f"; 1={len(function(body))}")
    file = {"inputs": [item("first", "g/a")]}
    assert "no box connected" in server.post(file).json["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("inputs", "pointer", "unread"),
    [
        ([item("unknown", "g/a")], "/inputs/0/name", True),
        ([item("first", "../a")], "/inputs/0/data", True),
        ([item("second", "g/a"), item("first", "g/b")], "/inputs/1/data", False),
    ],
)
def test_a_request_that_is_refused_closes_the_connection_over_unread_files(
    serve: Serve, scratch: pathlib.Path, inputs: list[dict[str, str]], pointer: str, unread: bool
) -> None:
    server = serve(function(SEEN)).ready()
    with server.connect() as sock:
        sock.sendall(framed({"inputs": inputs}, (0, b"x" * 3_000_000)))
        sock.shutdown(socket.SHUT_WR)
        received = read_all(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 422 ")
    assert (b"Connection: close" in head) == unread
    assert json.loads(body)["errors"][0]["pointer"] == pointer
    wait_for(lambda: not files_in(scratch))


@pytest.mark.parametrize("header", ["x", "5", "-1", "11; 0=5", "11; a=1", "11;0=99999999999999999999"])
def test_ends_that_do_not_fit_are_refused(serve: Serve, header: str) -> None:
    reply = send(serve(function(SEEN)).ready(), framed(b'{"inputs":1}', header=header))
    assert (reply.status, reply.json["type"]) == (400, "urn:prichal:problem:bad-http")


def test_the_limit_of_the_body_is_that_of_the_json(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(SEEN), max_body=300).ready()
    reply = send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 1_000_000)))
    assert reply.outputs["seen"]["files"][0]["size"] == 1_000_000
    reply = send(server, framed({"inputs": [item("first", "g/" + "a" * 300)]}, (0, b"x" * 1000)))
    assert (reply.status, reply.json["limit"]) == (413, 300)


def test_files_that_stop_arriving_are_a_408(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(SEEN), read_timeout=0.2).ready()
    request = framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 1000))
    reply = send(server, request[:-1])
    assert (reply.status, reply.json["type"]) == (408, "urn:prichal:problem:request-timeout")
    wait_for(lambda: not files_in(scratch))


def test_a_sender_that_leaves_in_the_middle_leaves_nothing(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(SEEN)).ready()
    request = framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 100_000))
    with server.connect() as sock:
        sock.sendall(request[:-1])
        wait_for(lambda: files_in(scratch))
    wait_for(lambda: not files_in(scratch))
    assert server.get("/health/ready").json["running"] == 0


@pytest.mark.parametrize(
    "end", ["raise ValueError('no')", "raise SystemExit(1)", 'return {"file": "/no/such"}']
)
def test_a_function_that_fails_leaves_nothing(serve: Serve, scratch: pathlib.Path, end: str) -> None:
    server = serve(function(f"pathlib.Path(context.folder, 'x').touch()\n{end}")).ready()
    assert send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x"))).status == 500
    wait_for(lambda: not files_in(scratch))


def test_a_call_that_is_overdue_keeps_its_files_until_it_returns(serve: Serve, scratch: pathlib.Path) -> None:
    body = "while not os.path.exists('go'):\n    time.sleep(0.01)\nreturn {'seen': {}}"
    server = serve(function(body), timeout=0.2, replace_after=60).ready()
    reply = send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x")))
    assert reply.status == 504
    assert len(files_in(scratch)) == 1
    server.release()
    wait_for(lambda: not files_in(scratch))


def test_what_a_killed_worker_left_is_cleared_away(serve: Serve, scratch: pathlib.Path) -> None:
    body = "if inputs[0]['data'].endswith('die'):\n    os.kill(os.getpid(), 9)\nreturn {'seen': {}}"
    server = serve(function(body)).ready()
    with server.connect() as sock:
        sock.sendall(framed({"inputs": [item("first", "g/die")]}, (0, b"x" * 1000)))
        assert read_all(sock) == b""
    server.ready(2)
    assert files_in(scratch) == []
    assert send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x"))).status == 200


def test_two_servers_with_one_tmpdir_leave_each_other_alone(
    serve: Serve, scratch: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body = "while not os.path.exists('go'):\n    time.sleep(0.01)\nreturn {'seen': {}}"
    server = serve(function(body)).ready()
    with server.connect() as sock:
        sock.sendall(framed({"inputs": [item("first", "g/a")]}, (0, b"x")))
        wait_for(lambda: files_in(scratch))
        other = Server(tmp_path_factory.mktemp("other"), function(body)).ready()
        assert len(files_in(scratch)) == 1
        other.close()
        server.release()
        assert read_response(sock.makefile("rb")).status == 200


def test_a_container_without_room_says_so(
    serve: Serve, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    server = serve(function(SEEN)).ready()
    reply = send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 1000)))
    assert (reply.status, reply.json["type"]) == (507, "urn:prichal:problem:disk-full")
    assert "TMPDIR" in reply.json["detail"]


@pytest.fixture
def tiny_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_freed(
    serve: Serve, tiny_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tiny_disk))
    server = serve(function(SEEN)).ready()
    request = {"inputs": [item("first", "g/a")]}
    reply = send(server, framed(request, (0, b"x" * 2**21)))
    assert (reply.status, "No space left" in reply.json["detail"]) == (507, True)
    wait_for(lambda: not files_in(tiny_disk))
    assert send(server, framed(request, (0, b"x" * 2**19))).status == 200


def test_files_are_not_taken_in_when_no_call_may_wait(serve: Serve, scratch: pathlib.Path) -> None:
    body = "while not os.path.exists('go'):\n    time.sleep(0.01)\nreturn {'seen': {}}"
    server = serve(function(body), concurrency=1, queue=0).ready()
    request = framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 1000))
    with server.connect() as sock:
        sock.sendall(request)
        wait_for(lambda: server.get("/health/ready").json["running"] == 1)
        reply = send(server, request[:-999])  # most of the file never comes
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        server.release()
        assert read_response(sock.makefile("rb")).status == 200


def test_time_on_the_way_is_not_the_functions(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function("return {'seen': {'deadline': context.deadline}}"), timeout=30).ready()
    request = framed({"inputs": [item("first", "g/a")]}, (0, b"x" * 1000))
    on_the_way = 0.5  # seconds; reading what is there already counts, and takes some microseconds
    with server.connect() as sock:
        begun = time.monotonic()
        sock.sendall(request[:-1])
        wait_for(lambda: files_in(scratch) and time.monotonic() > begun + on_the_way)
        sock.sendall(request[-1:])
        deadline = read_response(sock.makefile("rb")).outputs["seen"]["deadline"]
        assert deadline > begun + 30 + on_the_way / 2


def test_the_open_inference_protocol_carries_files(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(function(COPY)).ready()
    tensor = {"name": "first", "datatype": "FILE", "shape": [1], "data": ["g/a.bin"]}
    path = "/v2/models/echo/infer"
    reply = send(server, framed({"inputs": [tensor]}, (0, b"abc"), path=path))
    length = int(reply.headers["x-prichal-files"].partition(";")[0])
    file = json.loads(reply.body[:length])["outputs"][1]
    assert (file["datatype"], file["data"]) == ("FILE", ["copy.bin"])
    assert file["parameters"] == {"content_type": "image/png"}
    assert reply.body[length:] == b"cbaabc"
    bytes_tensor = {**tensor, "name": "second", "datatype": "BYTES"}
    refused = send(server, framed({"inputs": [tensor, bytes_tensor]}, (0, b"abc"), path=path))
    assert refused.json["errors"][0]["pointer"] == "/inputs/1/data"
    assert "datatype FILE" in refused.json["errors"][0]["detail"]


def test_an_output_must_be_a_file(serve: Serve, scratch: pathlib.Path) -> None:
    server = serve(
        function('os.mkfifo(context.folder + "/fifo")\nreturn {"file": context.folder + "/fifo"}')
    ).ready()
    reply = send(server, framed({"inputs": [item("first", "g/a")]}, (0, b"x")))
    assert reply.json["type"] == "urn:prichal:problem:bad-output"
    assert "there is no file at" in reply.json["detail"]


def test_an_output_that_shrinks_ends_the_connection(serve: Serve, scratch: pathlib.Path) -> None:
    """A length that was told cannot be taken back."""
    body = """
path = os.path.join(context.folder, "x")
file = os.open(path, os.O_RDWR | os.O_CREAT)
os.truncate(file, 300 * 2**20)
def shrink():
    while not os.path.exists("go"):
        time.sleep(0.01)
    os.truncate(file, 0)
threading.Thread(target=shrink, daemon=True).start()
return {"file": path}
"""
    server = serve(function(body.strip())).ready()
    with server.connect() as sock:
        sock.sendall(framed({"inputs": [{"name": "first", "datatype": "str", "data": ""}]}))
        begun = sock.recv(1000)
        assert begun.startswith(b"HTTP/1.1 200 OK")
        server.release()
        received = len(begun) + len(read_all(sock))
    assert received < 300 * 2**20
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.wait_ended() == 0
