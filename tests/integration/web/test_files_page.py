"""The page about the files API is run, command by command, and its answers are what the API answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.passwords import hash_password
from controller.domain.routing.routes import Service, ServiceKind
from controller.domain.storage.box import BoxRecord, StorageAccess
from tests.support.gateway import make_api
from tests.support.pages import ROOT, Block, blocks
from tests.support.serve_web import objects_address, settings_of
from tests.support.storage_servers import embedded_server
from tests.support.stores import open_store

from .conftest import Web, echo, serving

PAGE = ROOT / "docs" / "reference" / "files.md"
APP, BOX = AppName("pu-ivanov-pa-demo"), ComponentName("userdata")
HOST = "https://models.example.org"

#: What is another one each time.
VOLATILE = {"presigned_put_url", "presigned_get_url", "expires", "modified", "etag", "instance", "upload"}
END = "\x1e"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state, storage = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("storage")
    users = tuple((user, hash_password("s3cret", "salt")) for user in ("anna", "ivanov"))
    bucket = f"prichal.{APP}.{BOX}"
    with (
        embedded_server(storage) as server,
        closing(open_store(settings_of(state).database)) as store,
        echo("none") as component,
    ):
        store.routes.publish(
            APP, (Service(APP, make_api("files", users=users), ServiceKind.FILES, ("ivanov",)),)
        )
        store.boxes.record_access(
            StorageAccess(
                server.url, f"http://{objects_address(state)}", server.access_key, server.secret_key
            )
        )
        store.boxes.save(BoxRecord(APP, BOX, bucket, 5 * 10**9))
        with closing(server.objects()) as objects:
            objects.create_bucket(bucket)
        with serving(state, store, component) as running:
            yield running


def test_every_command_gets_the_answer_that_is_shown(web: Web, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"not really a c")
    (tmp_path / "zoo.mp4").write_bytes(os.urandom(17_000_000))
    found = blocks(PAGE, "sh", "json")
    commands = [block for block in found if block.language == "sh"]
    answers = dict(zip(map(id, commands), run(commands, web, tmp_path), strict=True))
    shown = [(answers[id(block)], after) for block, after in pairwise(found) if after.language == "json"]
    assert len(shown) == sum(block.language == "json" for block in found), "every answer follows a command"
    for answer, block in shown:
        assert plain(json.loads(answer)) == plain(json.loads(block.text)), str(block)


def run(commands: list[Block], web: Web, folder: Path) -> list[str]:
    """What each block prints; all of them in one shell."""
    address = "http://{}:{}".format(*web.address)
    script = "".join(f"{block.text.replace(HOST, address)}printf '{END}'\n" for block in commands)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(END)[:-1]


def plain(value: Any) -> Any:
    """With the type in place of what is another one each time."""
    if isinstance(value, dict):
        return {k: type(v).__name__ if k in VOLATILE else plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
