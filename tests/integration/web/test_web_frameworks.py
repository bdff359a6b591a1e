"""FastAPI, Flask, Gradio and Streamlit behind a real gunicorn: the programs of docs/guide/web-frameworks.md, in an
environment that `scripts/python-env` makes. Their links have to lead back below the path of the API."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_for

from .conftest import Reply, Web, demo_route

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test makes the environment

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guide" / "web-frameworks.md"
PREFIX = "/demo/open"


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def block(title: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the programs of the environment."""
    folder = ROOT / "build" / "web-frameworks"
    requirements = ROOT / "tests" / "clients" / "web_frameworks.txt"
    subprocess.run([ROOT / "scripts" / "python-env", folder, requirements], check=True)
    return folder / "bin"


Put = Callable[[str], Web]


@pytest.fixture
def put(web: Web, programs: Path, tmp_path: Path) -> Iterator[Put]:
    """Start the program of a section, and publish it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(title: str) -> Web:
        (tmp_path / "app.py").write_text(block(title, "python"))
        command = block(title, "sh") if "```sh" in section(title) else "python app.py"
        variables = dict(re.findall(r"name: (\w+), value: \"?([^}\"]*)", section(title)))
        port = free_port()
        path = f"{programs}:{os.environ['PATH']}"
        env = {**os.environ, **variables, "UNIP_PORT": str(port), "PATH": path, "HOME": str(tmp_path)}
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        web.put(demo_route(f"127.0.0.1:{port}"))
        return web

    with _ended(started):
        yield start


@contextmanager
def _ended(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ready(web: Web, path: str) -> Reply:
    """Return the answer at a path of the component, once it runs."""

    def answer() -> Reply | None:
        reply = web.ask("GET", PREFIX + path)
        return reply if reply.status == 200 else None

    found = wait_for(answer, limit=120)
    assert found is not None
    return found


def address(web: Web, url: str) -> str:
    """Return the path of a URL, which must lead to the API again."""
    parts = urlsplit(url)
    assert parts.netloc in ("", "{}:{}".format(*web.address)), url
    assert parts.path.startswith(f"{PREFIX}/"), url
    return parts.path


class Links(HTMLParser):
    """The addresses of what a page loads."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        fields = dict(attributes)
        if tag == "script" and fields.get("src"):
            self.found.append(fields["src"] or "")
        if tag == "link" and fields.get("rel") in ("stylesheet", "modulepreload"):
            self.found.append(fields["href"] or "")


def loads(web: Web, page: Reply) -> None:
    """Check that all that a page loads is there, at this host."""
    places = [urljoin(f"{PREFIX}/", link) for link in Links(page.body).found]
    own = [place for place in places if not urlsplit(place).netloc]
    assert own
    for place in own:
        assert web.ask("GET", address(web, place)).status == 200, place


@pytest.mark.parametrize("title", ["FastAPI", "Flask"])
def test_links_and_redirects_stay_below_the_prefix(put: Put, title: str) -> None:
    web = put(title)
    reply = ready(web, "/items/one")
    assert reply.json["name"] == "one"
    assert web.ask("GET", address(web, reply.json["next"])).json["name"] == "next"
    moved = web.ask("GET", f"{PREFIX}/go")
    assert moved.status in (302, 307)
    assert web.ask("GET", address(web, moved.headers["location"])).json["name"] == "there"


def test_the_page_of_fastapi_finds_its_description(put: Put) -> None:
    web = put("FastAPI")
    page = ready(web, "/docs").body.decode()
    (url,) = re.findall(r"url: '([^']+)'", page)
    document = web.ask("GET", address(web, url)).json
    assert document["servers"] == [{"url": PREFIX}]
    assert "/items/{name}" in document["paths"]


def test_gradio_is_loaded_and_called(put: Put) -> None:
    web = put("Gradio")
    loads(web, ready(web, "/"))
    config = web.ask("GET", f"{PREFIX}/config").json
    api = address(web, f"{config['root']}{config['api_prefix']}/call/shout")
    call = web.ask("POST", api, json.dumps({"data": ["hi"]}).encode(), content_type="application/json")
    assert call.status == 200, call.body
    events = web.ask("GET", f"{api}/{call.json['event_id']}")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert b'event: complete\ndata: ["HI"]' in events.body


def test_streamlit_is_loaded(put: Put) -> None:
    web = put("Streamlit")
    assert ready(web, "/_stcore/health").body == b"ok"
    page = web.ask("GET", f"{PREFIX}/")
    assert page.status == 200
    loads(web, page)
    assert web.ask("GET", f"{PREFIX}/_stcore/host-config").status == 200
