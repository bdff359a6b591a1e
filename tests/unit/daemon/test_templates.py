"""Templates that admins add by Git URL: real repositories with what nobody should put into them. Each is refused with
the place, and keeps nobody from the others."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pygit2
import pytest

from controller.config import GitSettings
from controller.daemon.orders import OrderWorker
from controller.daemon.templates import TemplateShelf
from controller.domain.apps.orders import OrderState
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.templates import TemplateRecord
from tests.support.clock import FakeClock
from tests.support.ordering import Host, settings_in
from tests.support.stores import open_store

HEAD = b"title: {en: Lab, ru: \xd0\x9b}\ntext: {en: Of the lab, ru: \xd0\x9b}\n"
FILE, EXECUTABLE, LINK, FOLDER, MODULE = "100644", "100755", "120000", "40000", "160000"
Entry = tuple[
    str, str, "bytes | list[Entry] | str"
]  # mode, name, content; a link's target; a submodule's commit


class Remote:
    """A repository whose trees are written as bytes: Git's own tools refuse some of them."""

    def __init__(self, path: Path) -> None:
        self.repository = pygit2.init_repository(str(path), bare=True, initial_head="main")
        self.path = path

    def commit(self, *entries: Entry, branch: str = "main") -> str:
        tree = self._tree(entries)
        who = pygit2.Signature("a", "a@b", 1_700_000_000, 0)
        reference = f"refs/heads/{branch}"
        self.repository.references.delete(reference) if reference in self.repository.references else None
        text = f"tree {tree}\nauthor {who} 0 +0000\ncommitter {who} 0 +0000\n\nx\n"
        commit = self._write("commit", text.encode())
        self.repository.references.create(reference, pygit2.Oid(hex=commit))
        return commit

    def _tree(self, entries: tuple[Entry, ...] | list[Entry]) -> str:
        parts = b""
        for mode, name, content in sorted(entries, key=lambda entry: entry[1]):
            if isinstance(content, list):
                id = self._tree(content)
            elif mode == MODULE:
                id = str(content)
            else:
                id = self._write("blob", content if isinstance(content, bytes) else content.encode())
            parts += f"{mode} {name}".encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(id)
        return self._write("tree", parts)

    def _write(self, kind: str, content: bytes) -> str:
        whole = f"{kind} {len(content)}".encode() + b"\0" + content
        id = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        path = Path(self.repository.path, "objects", id[:2], id[2:])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(whole, 1))
        return id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Host, Remote]]:
    remotes = tmp_path / "remotes"
    remotes.mkdir()
    settings = settings_in(tmp_path, templates=(f"lab={remotes}/lab.git", f"good={remotes}/good.git#stable"))
    settings = replace(settings, git=GitSettings(allowed_paths=(remotes,)))
    store = open_store(settings.database)
    good = Remote(remotes / "good.git")
    good.commit(
        (FILE, "template.yaml", HEAD), (FOLDER, "files", [(FILE, "a", b"{{ app }}")]), branch="stable"
    )
    yield Host(settings, store), Remote(remotes / "lab.git")
    store.close()


def refreshed(host: Host) -> dict[str, TemplateRecord]:
    TemplateShelf(host.settings, host.store).refresh()
    return {record.name: record for record in host.store.templates.all()}


GOOD: Entry = (FILE, "template.yaml", HEAD)
HOSTILE: dict[str, tuple[tuple[Entry, ...], str]] = {
    "no description": (((FOLDER, "files", [(FILE, "a", b"")]),), "there is no template.yaml"),
    "no files": ((GOOD,), "no file below its folder files/"),
    "a broken description": (
        ((FILE, "template.yaml", b"title: ["), (FOLDER, "files", [])),
        "template.yaml:1:",
    ),
    "a wrong description": (
        ((FILE, "template.yaml", HEAD + b"run: sh\n"), (FOLDER, "files", [(FILE, "a", b"")])),
        "template.yaml:1:1: Additional properties",
    ),
    "a link as description": (
        ((LINK, "template.yaml", "/etc/passwd"), (FOLDER, "files", [])),
        "template.yaml is a symbolic link",
    ),
    "a link": ((GOOD, (FOLDER, "files", [(LINK, "a", "../../../etc/passwd")])), "files/a is a symbolic link"),
    "a folder that is a link": ((GOOD, (LINK, "files", "/etc")), "no file below"),
    "a submodule": ((GOOD, (FOLDER, "files", [(MODULE, "m", "1" * 40)])), "files/m is a submodule"),
    "a name that leads out": (
        (GOOD, (FOLDER, "files", [(FOLDER, "..", [(FILE, "a", b"")])])),
        "which Git itself never creates",
    ),
    "a name with a slash": (
        (GOOD, (FOLDER, "files", [(FILE, "a/../../b", b"")])),
        "which Git itself never creates",
    ),
    "a folder .git": (
        (GOOD, (FOLDER, "files", [(FOLDER, ".git", [(FILE, "config", b"")])])),
        "never creates",
    ),
    "a folder .GIT": (
        (GOOD, (FOLDER, "files", [(FOLDER, ".GIT", [(FILE, "config", b"")])])),
        "cannot be in a repository",
    ),
    "a name of control characters": (
        (GOOD, (FOLDER, "files", [(FILE, "a\x1b[2J\n", b"")])),
        "must have a path of letters",
    ),
    "a name that is not Unicode": (
        (GOOD, (FOLDER, "files", [(FILE, "\udcff", b"")])),
        "must have a path of letters",
    ),
    "a large file": ((GOOD, (FOLDER, "files", [(FILE, "a", b"\0" * (2**20 + 1))])), "files/a has 1.05 MB"),
    "many large files": (
        (GOOD, (FOLDER, "files", [(FILE, f"f{i}", b"\0" * 2**20) for i in range(5)])),
        "more than 200 files and 4.19 MB",
    ),
    "too many files": (
        (GOOD, (FOLDER, "files", [(FILE, f"f{i:03}", b"") for i in range(300)])),
        "more than 200 files",
    ),
    "a variable that is not there": (
        (GOOD, (FOLDER, "files", [(FILE, "a", b"\n\n{{ secret }}")])),
        "files/a:3:1: {{ secret }} stands for a variable",
    ),
}


def test_what_hostile_repositories_have_is_refused_with_the_place(world: tuple[Host, Remote]) -> None:
    host, lab = world
    for name, (entries, told) in HOSTILE.items():
        lab.commit(*entries)
        found = refreshed(host)
        assert (found["lab"].template, told in found["lab"].problem) == (None, True), (
            name,
            found["lab"].problem,
        )
        assert found["lab"].problem.isprintable() or "\n" in found["lab"].problem
        assert found["good"].template is not None


def test_a_gigabyte_is_not_fetched(world: tuple[Host, Remote]) -> None:
    """A bound of a kilobyte stands for the one of 64 MiB."""
    host, lab = world
    noise = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(1000))
    lab.commit(GOOD, (FILE, "data", noise), (FOLDER, "files", [(FILE, "a", b"")]))
    small = replace(host.settings, git=replace(host.settings.git, max_repository=2**10))
    found = refreshed(Host(small, host.store))
    assert found["lab"].template is None
    assert "MiB" in found["lab"].problem


def test_a_template_of_an_admin_makes_apps(world: tuple[Host, Remote]) -> None:
    host, lab = world
    commit = lab.commit(
        (
            FILE,
            "template.yaml",
            HEAD + b"variables: [{name: n, type: number, title: {en: N, ru: N}, default: 3}]\n",
        ),
        (FILE, "README.md", b"{{ not_read }}"),
        (FOLDER, "files", [(EXECUTABLE, "run", b"{{ n }} {{ app }}"), (FOLDER, "x", [(FILE, "y", b"\xff")])]),
    )
    record = refreshed(host)["lab"]
    assert (record.commit, record.problem, record.url.endswith("/lab.git")) == (commit, "", True)
    host.place(host.order("demo", 1, template="lab", values=(("n", "7"),)))
    host.work()
    assert host.found(1).state is OrderState.DONE
    assert host.commit("demo") == {"run": b"7 demo", "x/y": b"\xff"}


def test_one_that_was_good_stays_in_use(world: tuple[Host, Remote]) -> None:
    host, lab = world
    first = lab.commit(GOOD, (FOLDER, "files", [(FILE, "a", b"first")]))
    refreshed(host)
    lab.commit(GOOD, (FOLDER, "files", [(LINK, "a", "/etc/passwd")]))
    record = refreshed(host)["lab"]
    assert (record.commit, "symbolic link" in record.problem) == (first, True)
    lab.path.rename(lab.path.with_suffix(".away"))
    record = refreshed(host)["lab"]
    assert record.template is not None
    loaded = TemplateShelf(host.settings, host.store).get("lab")
    assert loaded.files[0].content == b"first"


def test_names_of_built_in_templates_are_not_taken(world: tuple[Host, Remote]) -> None:
    host, lab = world
    lab.commit(GOOD, (FOLDER, "files", [(FILE, "a", b"")]))
    apps = replace(host.settings.apps, templates=(f"function={lab.path}",))
    other = Host(replace(host.settings, apps=apps), host.store)
    found = refreshed(other)
    assert "built-in" in found["function"].problem
    assert "Dockerfile" in {
        file.path for file in TemplateShelf(other.settings, host.store).get("function").files
    }


def test_templates_that_are_no_longer_configured_are_forgotten(world: tuple[Host, Remote]) -> None:
    host, lab = world
    lab.commit(GOOD, (FOLDER, "files", [(FILE, "a", b"")]))
    refreshed(host)
    clone = host.settings.clones / "template.lab.git"
    assert clone.exists()
    apps = replace(host.settings.apps, templates=())
    assert refreshed(Host(replace(host.settings, apps=apps), host.store)) == {}
    assert not clone.exists()
    with pytest.raises(Stalled) as refused:
        TemplateShelf(host.settings, host.store).get("lab")
    assert refused.value.reason == Reason.UNKNOWN_TEMPLATE


def test_a_template_that_cannot_be_used_refuses_orders(world: tuple[Host, Remote]) -> None:
    host, lab = world
    lab.commit(GOOD)
    refreshed(host)
    shelf = TemplateShelf(host.settings, host.store)
    host.place(host.order("demo", 1, template="lab", values=()))
    OrderWorker(host.settings, host.store, FakeClock(), shelf.get).work()
    assert (host.found(1).state, host.found(1).reason) == (OrderState.REFUSED, Reason.TEMPLATE_UNUSABLE)
    assert host.left() == set()


def test_when_each_was_fetched_last_without_a_problem(world: tuple[Host, Remote]) -> None:
    host, lab = world
    lab.commit(GOOD, (FOLDER, "files", [(FILE, "a", b"")]))
    TemplateShelf(host.settings, host.store, clock=lambda: 1000.0).refresh()
    lab.commit(GOOD)
    TemplateShelf(host.settings, host.store, clock=lambda: 2000.0).refresh()
    found = {record.name: (record.fetched, bool(record.problem)) for record in host.store.templates.all()}
    assert found == {"good": (2000.0, False), "lab": (1000.0, True)}
