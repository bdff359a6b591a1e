"""What the page on the installation shows to back up and restore is typed into a shell, below a folder that stands for
the host's root, while the state is in use."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.apps.requests import Trigger
from controller.domain.names import AppName
from controller.ports import Store
from controller.store import open_store
from controller.store.names import CallerNameTable
from tests.support.pages import ROOT, Block, section
from tests.support.shell import run

PAGE = ROOT / "docs" / "install.md"
BACKUP, RESTORE = (b for b in section(PAGE, "## Back up and restore") if b.language == "sh")
APP = AppName("demo")
#: What belongs to a host with systemd, and is nobody's business here.
HOSTS = "systemctl() { :; }; systemd-tmpfiles() { :; }; chown() { :; }\n"


def shell(text: str, block: Block) -> Block:
    return Block(block.page, block.line, "sh", text + block.text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with a configuration, a key, a repository and a state."""
    root = tmp_path / "host"
    for name in (
        "etc/prichal/config.yaml",
        "var/lib/prichal/private/instance.key",
        "var/lib/prichal/git/demo.git/HEAD",
    ):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(name)
    (root / "var/lib/prichal/db").mkdir()
    return root


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with closing(open_store(root / "var/lib/prichal/db/state.db")) as store:
        yield store


@pytest.mark.parametrize("named", [True, False])
def test_what_is_restored_is_what_was_there(store: Store, root: Path, tmp_path: Path, named: bool) -> None:
    """Also where nobody has a name yet: a copy of what is not there would make it, and it would be root's."""
    names = root / "var/lib/prichal/web/names.db"
    names.parent.mkdir()
    if named:
        CallerNameTable(names).claim(APP, "olga", "https://issuer.example.org#1", now=1.0)
    store.requests.enqueue(APP, Trigger.WEBHOOK)
    replaced = {
        "/opt/prichal/.venv/bin/python": sys.executable,
        "/var/backups/": f"{tmp_path}/backups/",
        "/var/lib/prichal/db": f"{root}/var/lib/prichal/db",
        "/var/lib/prichal/web": f"{root}/var/lib/prichal/web",
        "-C / ": f"-C {root} ",
    }
    run((BACKUP,), tmp_path, replaced)
    store.requests.enqueue(AppName("later"), Trigger.WEBHOOK)
    (copies,) = (tmp_path / "backups" / "prichal").iterdir()
    new = tmp_path / "new"
    new.mkdir()
    replaced = {
        "-C / ": f"-C {new} ",
        "-o prichal -g prichal ": "",
        "-o prichal-web -g prichal ": "",
        "/var/lib/prichal/db": f"{new}/var/lib/prichal/db",
        "/var/lib/prichal/web": f"{new}/var/lib/prichal/web",
    }
    run((shell(f"{HOSTS}cd {copies}\n", RESTORE),), tmp_path, replaced)
    for name in (
        "etc/prichal/config.yaml",
        "var/lib/prichal/private/instance.key",
        "var/lib/prichal/git/demo.git/HEAD",
    ):
        assert (new / name).read_text() == name
    for database in (new / "var/lib/prichal/db").rglob("*.db"):
        with closing(sqlite3.connect(database)) as found:
            assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert names.exists() is named
    kept = CallerNameTable(new / "var/lib/prichal/web/names.db").all(APP)
    assert [owned.name for owned in kept] == ["olga"] * named
    with closing(open_store(new / "var/lib/prichal/db/state.db")) as restored:
        assert restored.requests.queued(APP) is not None
        assert restored.requests.queued(AppName("later")) is None
