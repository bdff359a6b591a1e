"""Commits and trees that odd tools, old histories and bad luck have made: each is fetched, read and named,
and none of them costs the clone. The objects are written raw, so that neither Git nor libgit2 puts them
right."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pygit2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pygit2.enums import ObjectType

from controller.adapters.git import GitSources, tree
from controller.adapters.git.clones import MAX_LOOSE
from controller.adapters.git.copying import LARGE, copy
from controller.adapters.git.faults import CloneDamaged
from controller.config import GitSettings
from controller.domain.apps.spec import BuildImage, RefKind
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.text import printable
from controller.ports import Revision
from tests.support.git_servers import GIT_ENV
from tests.support.git_specs import repository
from tests.support.pages import ROOT, section

GUIDE = ROOT / "docs" / "guide" / "git.md"
MANIFEST = b"a: 1\n"
AUTHOR = b"Ada <ada@example.org> 1700000000 +0000"


class Server:
    """A bare repository whose objects are written byte by byte, and the sources that fetch it."""

    def __init__(self, folder: Path) -> None:
        self.repo = pygit2.init_repository(folder / "demo.git", bare=True)
        self.clones = folder / "clones"
        self.sources = GitSources(self.clones, GitSettings(), hosted=folder)
        self.url = str(folder / "demo.git")

    def write(self, kind: ObjectType, content: bytes) -> pygit2.Oid:
        """Without libgit2's check of what it writes."""
        name = {
            ObjectType.COMMIT: b"commit",
            ObjectType.TREE: b"tree",
            ObjectType.BLOB: b"blob",
            ObjectType.TAG: b"tag",
        }
        id = self.repo.odb.write(kind, content)
        assert str(id) == hashlib.sha1(name[kind] + b" %d\0" % len(content) + content).hexdigest()
        return id

    def blob(self, content: bytes = MANIFEST) -> pygit2.Oid:
        return self.write(ObjectType.BLOB, content)

    def tree(self, *entries: tuple[bytes, bytes, pygit2.Oid]) -> pygit2.Oid:
        return self.write(
            ObjectType.TREE, b"".join(mode + b" " + name + b"\0" + id.raw for mode, name, id in entries)
        )

    def commit(
        self, header: bytes = b"", message: bytes = b"subject\n", tree: pygit2.Oid | None = None
    ) -> str:
        """`header`: what comes after the line of the tree, by default an ordinary author."""
        lines = header or b"author " + AUTHOR + b"\ncommitter " + AUTHOR + b"\n"
        root = tree or self.tree((b"100644", b"a.yaml", self.blob()))
        made = self.write(ObjectType.COMMIT, b"tree " + str(root).encode() + b"\n" + lines + b"\n" + message)
        self.point("refs/heads/main", made)
        return str(made)

    def point(self, ref: str, id: pygit2.Oid) -> None:
        path = Path(self.repo.path) / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{id}\n")

    def fetch(self, ref: str = "main", kind: RefKind = RefKind.BRANCH) -> Revision:
        return self.sources.fetch(repository(self.url, ref, kind), None, None)

    def read(self, revision: Revision) -> dict[str, bytes]:
        return {file.path: file.content for file in self.sources.files(revision, ".", (".yaml", ".yml"))}

    def identity(self) -> int:
        return (self.clones / "demo.git").stat().st_ino


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def followed(server: Server) -> Revision:
    """An ordinary commit before it and one after it: the clone is the same all the time."""
    odd = (Path(server.repo.path) / "refs/heads/main").read_text()
    server.commit(message=b"before\n")
    server.fetch()
    clone = server.identity()
    (Path(server.repo.path) / "refs/heads/main").write_text(odd)
    revision = server.fetch()
    assert server.read(revision) == {"a.yaml": MANIFEST}
    build = BuildImage(".", dockerfile="a.yaml")
    assert server.sources.content_id(revision, build)
    assert b"".join(server.sources.build_context(revision, build).files)
    server.commit(message=b"after\n")
    assert server.fetch().subject == "after"
    assert server.identity() == clone
    return revision


HEADERS = {
    "an encoding that does not fit": (b"encoding cp1251\n", "\u0418".encode(), "\u0418"),
    "an encoding that fits": (b"encoding cp1251\n", "\u0418".encode("cp1251"), "\u0418"),
    "an encoding that nobody knows": (b"encoding CP-1251\n", "\u0418".encode(), "\u0418"),
    "an encoding of a Mac": (b"encoding UTF-8-MAC\n", b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
    "an encoding that is none of text": (b"encoding hex\n", b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
    "an encoding that knows no replacement": (b"encoding idna\n", b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
    "an encoding without a name": (b"encoding \n", b"x", "x"),
    "an encoding in Latin-1": (b"encoding caf\xe9\n", b"x", "x"),
    "no message": (b"", b"", ""),
    "a message with NUL and colours": (b"", b"\x1b[31mred\x1b[0m \0", r"red \x00"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_message_is_for_display(server: Server, case: str) -> None:
    encoding, message, subject = HEADERS[case]
    server.commit(b"author " + AUTHOR + b"\ncommitter " + AUTHOR + b"\n" + encoding, message)
    assert followed(server).subject == subject


WHO = {
    "an empty e-mail": b"Ada <> 1700000000 +0000",
    "no name": b"<ada@example.org> 1700000000 +0000",
    "no blank before the e-mail": b"Ada<ada@example.org> 1700000000 +0000",
    "brackets in the e-mail": b"Ada <ada <ada@example.org>> 1700000000 +0000",
    "Latin-1": b"Ad\xe9 <ad\xe9@example.org> 1700000000 +0000",
    "NUL": b"Ad\0a <ada@example.org> 1700000000 +0000",
    "a time before 1970": b"Ada <ada@example.org> -100 +0000",
    "a time far ahead": b"Ada <ada@example.org> 99999999999999 +0000",
    "no time": b"Ada <ada@example.org>",
    "no zone": b"Ada <ada@example.org> 1700000000",
    "a zone that is none": b"Ada <ada@example.org> 1700000000 +51800",
}


UNPARSABLE = (
    b"Ada 1700000000 +0000",
    b"Ada <ada@example.org> 18446744073709551999 +0000",
    b"Ada <ada@example.org> yesterday +0000",
    b"",
)


@pytest.mark.parametrize("case", WHO)
def test_author_and_date_are_for_display(server: Server, case: str) -> None:
    server.commit(b"author " + WHO[case] + b"\ncommitter " + WHO[case] + b"\n")
    revision = followed(server)
    assert printable(revision.author) == revision.author


@pytest.mark.parametrize(
    "header",
    [
        b"committer " + AUTHOR + b"\n",
        b"author " + AUTHOR + b"\n",
        b"mergetag x\n",
        *(b"author " + who + b"\ncommitter " + who + b"\n" for who in UNPARSABLE),
    ],
)
def test_a_commit_that_libgit2_cannot_parse(server: Server, header: bytes) -> None:
    """Git itself takes and hands out such commits. In the history of later ones, too."""
    odd = server.commit(header)
    revision = followed(server)
    assert (revision.commit, revision.subject) == (odd, "subject")
    clone = server.identity()
    for number in range(3):
        parent = (Path(server.repo.path) / "refs/heads/main").read_text().encode()
        server.commit(
            b"parent " + parent + b"author " + AUTHOR + b"\ncommitter " + AUTHOR + b"\n", b"%d\n" % number
        )
        after = server.fetch()
        assert (after.subject, server.read(after)) == (str(number), {"a.yaml": MANIFEST})
    assert server.fetch(odd, RefKind.COMMIT).commit == odd
    assert server.identity() == clone


def spoilt_tag(server: Server) -> None:
    server.point("refs/tags/odd", server.write(ObjectType.TAG, b"object 1\ntype commit\n"))


def written_ref(server: Server, content: str) -> None:
    path = Path(server.repo.path) / "refs/heads/odd"
    path.write_text(content)


OTHERS: dict[str, Any] = {
    "a commit that cannot be parsed": lambda s: (s.commit(b"mergetag x\n"), s.commit(message=b"good\n"))[1],
    "a branch at a commit that cannot be parsed": lambda s: s.point(
        "refs/heads/odd", pygit2.Oid(hex=s.commit(b"author Ada 1 +0\n"))
    ),
    "a tag that cannot be parsed": spoilt_tag,
    "a branch whose commit is missing": lambda s: written_ref(s, "5" * 40 + "\n"),
    "a branch that is no reference": lambda s: written_ref(s, "hello\n"),
    "an empty branch": lambda s: written_ref(s, ""),
    "a branch that stands for itself": lambda s: written_ref(s, "ref: refs/heads/odd\n"),
    "a branch that stands for none": lambda s: written_ref(s, "ref: refs/heads/nowhere\n"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_else_is_in_a_repository_is_in_nobodys_way(server: Server, case: str) -> None:
    OTHERS[case](server)
    server.commit(message=b"good\n")
    assert server.sources.head(repository(server.url), None) == server.fetch().commit
    clone = server.identity()
    server.commit(message=b"better\n")
    revision = server.fetch()
    assert (revision.subject, server.read(revision)) == ("better", {"a.yaml": MANIFEST})
    assert server.identity() == clone


def test_a_tag_of_a_commit_that_cannot_be_parsed(server: Server) -> None:
    odd = server.commit(b"mergetag x\n")
    tag = server.write(
        ObjectType.TAG, f"object {odd}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nm\n".encode()
    )
    server.point("refs/tags/v1", tag)
    assert server.fetch("v1", RefKind.TAG).commit == odd


@pytest.mark.parametrize(
    "content", [b"", b"tree\n", b"tree " + b"z" * 40 + b"\n", b"tree " + b"5" * 40 + b"\n\n", b"\xff" * 50]
)
def test_what_is_no_commit_at_all_leaves_the_one_before_in_force(server: Server, content: bytes) -> None:
    server.commit(message=b"before\n")
    before = server.fetch()
    clone = server.identity()
    server.point("refs/heads/main", server.write(ObjectType.COMMIT, content))
    for _ in range(2):
        with pytest.raises((Transient, Stalled)):
            server.fetch()
        assert server.read(before) == {"a.yaml": MANIFEST}
    server.commit(message=b"after\n")
    assert server.fetch().subject == "after"
    assert server.identity() == clone


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"100644 a.yaml\0short",
        b"hello a.yaml\0" + b"5" * 20,
        b"100644 \0" + b"5" * 20,
        b"100644 a.yaml\0" + b"5" * 20,
    ],
)
def test_a_tree_that_is_none_leaves_the_commit_before_in_force(server: Server, content: bytes) -> None:
    server.commit(message=b"before\n")
    before = server.fetch()
    clone = server.identity()
    for header in (b"", b"author Ada 1 +0\n"):  # also where objects are copied one by one
        server.commit(header, tree=server.write(ObjectType.TREE, content))
        with pytest.raises((Transient, Stalled)):
            server.read(server.fetch())
        assert server.read(before) == {"a.yaml": MANIFEST}
    server.commit(message=b"after\n")
    assert server.fetch().subject == "after"
    assert server.identity() == clone


def test_the_history_of_a_shallow_repository_ends_where_it_does(server: Server, tmp_path: Path) -> None:
    parent = b"parent " + b"5" * 40 + b"\n"
    for header in (b"author " + AUTHOR + b"\ncommitter " + AUTHOR + b"\n", b"mergetag x\n"):
        commit = server.commit(parent + header)
        revision = server.fetch()
        assert (revision.commit, server.read(revision)) == (commit, {"a.yaml": MANIFEST})


# --- clones that come and go ------------------------------------------------------------------------------------


def clonings(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    return [record for record in records if record.getMessage() == "cloning"]


def test_the_first_clone_is_no_damage(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.commit()
    with caplog.at_level(logging.INFO):
        server.fetch()
    [record] = clonings(caplog.records)
    assert not hasattr(record, "because")
    (server.clones / "demo.git" / "HEAD").unlink()
    with caplog.at_level(logging.INFO):
        server.fetch()
    assert "is damaged" in vars(clonings(caplog.records)[1])["because"]


@pytest.mark.parametrize(
    ("ref", "kind"),
    [("gone", RefKind.BRANCH), ("v9", RefKind.TAG), (">=9", RefKind.SEMVER), ("5" * 40, RefKind.COMMIT)],
)
def test_without_its_ref_a_repository_is_not_cloned_again_and_again(
    server: Server, caplog: pytest.LogCaptureFixture, ref: str, kind: RefKind
) -> None:
    server.commit()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(Stalled):
                server.fetch(ref, kind)
    assert not clonings(caplog.records) or kind is RefKind.COMMIT
    server.fetch()
    clone = server.identity()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(Stalled):
                server.fetch(ref, kind)
    assert clonings(caplog.records) == []
    assert server.identity() == clone


def test_copying_that_is_cut_off_is_gone_on_with(server: Server) -> None:
    """What is here is here with all that it needs, whenever it ends."""
    trees = [server.tree((b"100644", b"a.yaml", server.blob(b"a: %d\n" % n))) for n in range(5)]
    parent, commit = b"", ""
    for root in trees:
        commit = server.commit(parent + b"author Ada 1 +0\n", tree=root)
        parent = b"parent " + commit.encode() + b"\n"
    calls = 0
    while True:
        calls += 1
        clone = pygit2.init_repository(server.clones / f"copy-{calls}", bare=True)

        def cut(number: int, left: list[int] = [calls]) -> None:  # noqa: B006 - one list a definition
            left[0] -= 1
            if left[0] == 0:
                raise Stalled(Reason("Cut"), "off")

        with suppress(Stalled):
            copy(server.repo, clone, [commit], cut)
            break
        assert_closed(clone)
        copy(server.repo, clone, [commit], lambda number: None)
        assert_closed(clone)
        assert pygit2.Oid(hex=commit) in clone.odb
    assert calls == 31, "each of fifteen objects was once the last that was looked at, and that was copied"


def packed(server: Server, commit: str) -> Path:
    """Put all objects of the commit into a pack, and return it."""
    objects = Path(server.repo.path, "objects")

    def choose(builder: pygit2.PackBuilder) -> None:
        builder.add_recur(pygit2.Oid(hex=commit))

    server.repo.pack(pack_delegate=choose)
    for loose in objects.glob("??/*"):
        loose.unlink()
    [pack] = (objects / "pack").glob("*.pack")
    return pack


def test_what_is_put_in_place_is_there_with_all_that_it_needs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that nobody has packed needs a model in a pack; the daemon dies while both are put in place."""
    model = server.blob(os.urandom(2 * LARGE))
    packed(server, server.commit(tree=server.tree((b"100644", b"model", model))))
    commit = server.commit(
        tree=server.tree((b"100644", b"a.yaml", server.blob()), (b"100644", b"model", model))
    )
    replace, calls = os.replace, 0
    while True:
        calls += 1
        clone = pygit2.init_repository(server.clones / f"copy-{calls}", bare=True)
        left = iter(range(calls))

        def die(source: Path, target: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Stalled(Reason("Cut"), "off")
            replace(source, target)

        with monkeypatch.context() as patch, suppress(Stalled):
            patch.setattr(os, "replace", die)
            copy(server.repo, clone, [commit], lambda number: None)
            break
        check_whole(clone, commit)
        copy(server.repo, clone, [commit], lambda number: None)
    check_whole(clone, commit)
    assert calls == 5


def check_whole(clone: pygit2.Repository, commit: str) -> None:
    if pygit2.Oid(hex=commit) in clone.odb:
        tree.check_complete(clone, commit)


def test_many_objects_without_a_pack_get_one(server: Server) -> None:
    """A copy of a repository with large files leaves small ones as they lie there: also those of odd commits."""
    large = server.blob(os.urandom(2 * LARGE))

    def commit(number: int, header: bytes = b"author Ada 1 +0\n") -> Revision:
        names = [
            (b"100644", b"%04d-%d" % (n, number), server.blob(b"%d %d" % (n, number))) for n in range(900)
        ]
        entries = [(b"100644", b"a.yaml", server.blob()), (b"100644", b"large-%d" % number, large)]
        server.commit(header, tree=server.tree(*names, *entries))
        server.blob(os.urandom(2 * LARGE))  # of another branch: the repository is copied at each fetch
        return server.fetch()

    def loose() -> list[Path]:
        return list((server.clones / "demo.git" / "objects").glob("??/*"))

    revisions = [commit(0)]
    identity = server.identity()
    counts = [len(loose())]
    for number in range(1, 5):
        revisions.append(commit(number))
        counts.append(len(loose()))
    assert counts[1] > 1800
    assert max(counts) <= MAX_LOOSE + 1
    assert counts[2] == 1, "the large one"
    assert server.identity() == identity
    for revision in revisions:
        assert server.read(revision) == {"a.yaml": MANIFEST}
    assert_closed(pygit2.Repository(str(server.clones / "demo.git")))


def test_all_that_is_copied_counts_together(server: Server) -> None:
    """The limit of a repository is one for all of its branches."""
    branches = [
        server.commit(tree=server.tree((b"100644", b"a", server.blob(os.urandom(1000))))) for _ in range(3)
    ]
    clone, numbers = pygit2.init_repository(server.clones / "copy", bare=True), list[int]()
    copy(server.repo, clone, branches, numbers.append)
    assert numbers == sorted(numbers)
    assert numbers[-1] == sum(file.stat().st_size for file in Path(clone.path, "objects").glob("??/*"))


def test_a_pack_that_git_is_removing_is_not_copied(server: Server) -> None:
    """Git removes its index first, and may die then."""
    commit = server.commit(tree=server.tree((b"100644", b"model", server.blob(os.urandom(4 * LARGE)))))
    pack = packed(server, commit)
    half = pack.with_name(f"pack-{'5' * 40}.pack")
    half.write_bytes(pack.read_bytes()[: 2 * LARGE])
    clone = pygit2.init_repository(server.clones / "copy", bare=True)
    copy(server.repo, clone, [commit], lambda number: None)
    assert [file.name for file in Path(clone.path).rglob("*.pack")] == [pack.name]


def assert_closed(clone: pygit2.Repository) -> None:
    for id in clone.odb:
        for needed in re.findall(rb"[0-9a-f]{40}", clone.odb.read(id)[1]):
            assert pygit2.Oid(hex=needed.decode()) in clone.odb


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(
    who=st.binary(max_size=40).filter(lambda raw: not set(raw) & set(b"\n<>")),
    encoding=st.binary(max_size=12).filter(lambda raw: b"\n" not in raw)
    | st.sampled_from([b"cp1251", b"utf-16", b"punycode"]),
    message=st.binary(max_size=40),
)
def test_whatever_a_header_holds(server: Server, who: bytes, encoding: bytes, message: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        who += b" <a@b> 1 +0000"
        server.commit(b"author " + who + b"\ncommitter " + who + b"\nencoding " + encoding + b"\n", message)
        revision = server.fetch()
        assert server.read(revision) == {"a.yaml": MANIFEST}
    for text in (revision.author, revision.subject):
        assert printable(text) == text


# --- trees ------------------------------------------------------------------------------------------------------

ODD_TREES: dict[str, Any] = {
    "zero-padded folders": lambda s: [(b"040000", b"sub", s.tree((b"100644", b"b.yaml", s.blob())))],
    "modes of old times": lambda s: [(b"100664", b"b.yaml", s.blob()), (b"100600", b"c.yaml", s.blob())],
    "a device": lambda s: [(b"060644", b"disk.img", s.blob())],
    "a name in Latin-1": lambda s: [(b"100644", b"caf\xe9.yaml", s.blob())],
    "a link to a folder": lambda s: [(b"120000", b"l.yaml", s.blob(b"sub")), (b"40000", b"sub", s.tree())],
    "a link to a submodule": lambda s: [
        (b"120000", b"l.yaml", s.blob(b"mod")),
        (b"160000", b"mod", pygit2.Oid(hex="5" * 40)),
    ],
    "a link to nothing": lambda s: [(b"120000", b"l.yaml", s.blob(b"nowhere/x.yaml"))],
    "a link below a file": lambda s: [(b"120000", b"l.yaml", s.blob(b"a.yaml/x"))],
    "a link to itself": lambda s: [(b"120000", b"l.yaml", s.blob(b"l.yaml"))],
    "links in a circle": lambda s: [
        (b"120000", b"l.yaml", s.blob(b"m.yaml")),
        (b"120000", b"m.yaml", s.blob(b"l.yaml")),
    ],
    "an empty link": lambda s: [(b"120000", b"l.yaml", s.blob(b""))],
    "a link that is not UTF-8": lambda s: [(b"120000", b"l.yaml", s.blob(b"caf\xe9"))],
    "a link with NUL": lambda s: [(b"120000", b"l.yaml", s.blob(b"a\0b"))],
    "a folder called so": lambda s: [(b"40000", b"f.yaml", s.tree())],
    "a submodule called so": lambda s: [(b"160000", b"m.yaml", pygit2.Oid(hex="5" * 40))],
}


@pytest.mark.parametrize("case", ODD_TREES)
def test_odd_entries_stop_nothing(server: Server, case: str) -> None:
    entries = [(b"100644", b"a.yaml", server.blob()), *ODD_TREES[case](server)]
    server.commit(tree=server.tree(*sorted(entries, key=lambda e: e[1])))
    revision = server.fetch()
    clone = server.identity()
    files = {file.path: file for file in server.sources.files(revision, ".", (".yaml",))}
    assert files["a.yaml"].content == MANIFEST
    for path, file in files.items():
        assert printable(path) == path
        assert file.content == MANIFEST or "link" in file.passed_over
    server.commit(message=b"after\n")
    assert server.fetch().subject == "after"
    assert server.identity() == clone


@pytest.mark.parametrize("pointed", ["tree", "blob", "tag of a tree", "tag of a tag of a blob"])
def test_a_tag_that_stands_for_no_commit_is_refused_and_costs_no_clone(server: Server, pointed: str) -> None:
    def tag(id: Any, kind: str) -> pygit2.Oid:
        return server.write(
            ObjectType.TAG, f"object {id}\ntype {kind}\ntag v\ntagger A <a@b> 1 +0000\n\nm\n".encode()
        )

    server.commit()
    server.fetch()
    clone = server.identity()
    targets = {
        "tree": lambda: server.tree(),
        "blob": lambda: server.blob(),
        "tag of a tree": lambda: tag(server.tree(), "tree"),
        "tag of a tag of a blob": lambda: tag(tag(server.blob(), "blob"), "tag"),
    }
    server.point("refs/tags/v1", targets[pointed]())
    with pytest.raises((Stalled, Transient)) as caught:
        server.fetch("v1", RefKind.TAG)
    assert not isinstance(caught.value, CloneDamaged)
    assert server.identity() == clone
    assert server.read(server.fetch()) == {"a.yaml": MANIFEST}


def test_a_branch_that_is_missing_is_told_with_those_that_are_there(server: Server) -> None:
    server.commit()
    name = "refs/heads/caf\udce9"
    path = Path(server.repo.path) / name
    path.write_text(f"{server.commit()}\n")
    with pytest.raises(ControllerError) as caught:
        server.fetch("other")
    assert r"caf\xe9" in caught.value.message
    assert server.read(server.fetch())


def test_a_clone_is_replaced_only_if_an_object_is_damaged(server: Server) -> None:
    """Any other error while reading is a bug of this program, for which a new clone does not help."""
    server.commit()
    revision = server.fetch()
    clone = server.identity()
    with pytest.raises(Transient) as caught, server.sources._reading("demo", revision.commit):
        raise ValueError("a bug in what reads the commit")
    assert caught.value.reason == "CommitUnreadable"
    assert server.identity() == clone
    for file in (server.clones / "demo.git" / "objects").rglob("*"):
        if file.is_file() and file.suffix in ("", ".pack"):
            file.chmod(0o600)
            file.write_bytes(b"\0" * 100)
    fresh = GitSources(server.clones, GitSettings(), hosted=server.clones.parent)
    with suppress(Transient):
        fresh.files(revision, ".", (".yaml",))
    again = fresh.fetch(repository(server.url), None, None)
    assert fresh.files(again, ".", (".yaml",))[0].content == MANIFEST
    assert server.identity() != clone


def test_a_large_file_that_is_damaged_at_its_source_is_there_once_it_is_mended(server: Server) -> None:
    """It is copied as it is, and found when it is read."""
    model = server.blob(os.urandom(tree.MAX_FILE + 1))
    server.commit(tree=server.tree((b"100644", b"Dockerfile", server.blob()), (b"100644", b"model", model)))
    file = Path(server.repo.path, "objects", str(model)[:2], str(model)[2:])
    intact = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(intact[:-100] + bytes(100))
    build = BuildImage(".", dockerfile="Dockerfile")
    damaged = server.fetch()
    with pytest.raises(CloneDamaged):
        sent(server, damaged, build)
    for _ in range(2):
        with pytest.raises(
            Transient, match=f"itself is damaged: 'model' of commit .* {str(model)[:12]}"
        ) as caught:
            server.fetch()
        assert caught.value.reason == "RepositoryDamaged"
        assert not (server.clones / "demo.git").exists(), "it is not cloned again"
    file.write_bytes(intact)
    assert sent(server, server.fetch(), build) > tree.MAX_FILE


@pytest.mark.parametrize("what", ["manifest", "folder", "both"])
@pytest.mark.parametrize("how", ["gone", "other bytes"])
def test_what_is_damaged_in_a_repository_of_this_host_is_named(server: Server, what: str, how: str) -> None:
    """Also if the clone is intact until a later commit, and whichever is repaired first."""
    server.commit()
    server.fetch()
    blob = server.blob(b"b: 2\n")
    folder = server.tree((b"100644", b"a.yaml", blob))
    server.commit(tree=server.tree((b"40000", b"deploy", folder)))
    damaged = {"manifest": [blob], "folder": [folder], "both": [folder, blob]}[what]
    files = [Path(server.repo.path, "objects", str(id)[:2], str(id)[2:]) for id in damaged]
    intact = [file.read_bytes() for file in files]
    for file in files:
        file.chmod(0o600)
        file.write_bytes(bytes(30)) if how == "other bytes" else file.unlink()
    for file, content in zip(files, intact, strict=True):
        with pytest.raises(Transient) as caught:
            server.fetch()
        assert caught.value.reason == "RepositoryDamaged"
        path = "deploy/a.yaml" if file.name == str(blob)[2:] else "deploy"
        assert f"{path!r} of commit" in caught.value.message
        file.write_bytes(content)
    assert [file.content for file in server.sources.files(server.fetch(), "deploy", (".yaml",))] == [
        b"b: 2\n"
    ]


def test_a_damaged_repository_is_repaired_as_the_guide_says(server: Server, tmp_path: Path) -> None:
    """The commands of the page are typed, with the paths of here."""
    server.commit(tree=server.tree((b"100644", b"a.yaml", server.blob())))
    clone = pygit2.clone_repository(server.url, str(tmp_path / "intact"), bare=True)
    server.fetch()
    blob = server.blob(b"b: 2\n")
    server.commit(tree=server.tree((b"100644", b"a.yaml", blob)))
    clone.remotes["origin"].fetch(["+refs/heads/*:refs/heads/*"])
    file = Path(server.repo.path, "objects", str(blob)[:2], str(blob)[2:])
    file.chmod(0o600)
    file.write_bytes(bytes(30))
    with pytest.raises(Transient, match="itself is damaged"):
        server.fetch()
    (block,) = section(GUIDE, "### Repair a damaged repository")
    shown = block.text
    aside = tmp_path / "aside"
    aside.mkdir()
    for text, here in {
        "/var/lib/prichal/git/demo.git": server.repo.path,
        "objects/9f/1a4a7574340315fd5e468998ba2a9e5e16fed3": str(file.relative_to(server.repo.path)),
        "/root/": f"{aside}/",
        "/path/to/intact/clone": clone.path,
    }.items():
        assert text in shown
        shown = shown.replace(text, here)
    environment = {**os.environ, **GIT_ENV}
    done = subprocess.run(["bash", "-c", shown], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # of the last command, which finds no damage any more
    assert str(blob) in done.stderr  # what the first one has named
    assert server.sources.files(server.fetch(), ".", (".yaml",))[0].content == b"b: 2\n"


def sent(server: Server, revision: Revision, build: BuildImage) -> int:
    return sum(map(len, server.sources.build_context(revision, build).files))
