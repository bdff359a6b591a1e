"""A commit of some kilobytes may hold gigabytes of files: one blob of zeros under many names. What is too large is
refused by the size in its header, and not read."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import FileMode, ObjectType

from controller.adapters.git import GitSources, commits, tree
from controller.adapters.git.tree import TreeLimits
from controller.config import GitSettings
from controller.domain.apps.spec import BuildImage, RefKind
from controller.domain.errors import Stalled
from controller.manifests import reader
from controller.ports import Revision
from tests.support.git_specs import repository

HUGE = 100 * 2**20
PEAK = 8 * 2**20  # bytes that Python may take meanwhile
ENOUGH = TreeLimits(file=2**20, context=3 * 2**20)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    return pygit2.init_repository(tmp_path_factory.mktemp("git") / "demo.git", bare=True)


@pytest.fixture(scope="module")
def zeros(repo: pygit2.Repository) -> pygit2.Oid:
    return repo.create_blob(bytes(HUGE))


def folder(repo: pygit2.Repository, files: dict[str, tuple[FileMode, pygit2.Oid]]) -> pygit2.Oid:
    builder = repo.TreeBuilder()
    for name, (mode, id) in files.items():
        builder.insert(name, id, mode)
    return builder.write()


def commit(repo: pygit2.Repository, root: pygit2.Oid) -> str:
    who = pygit2.Signature("Ada", "ada@example.org", 1, 0)
    return str(repo.create_commit(None, who, who, "subject", root, []))


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < PEAK


def refused(reason: str, act: Callable[[], object]) -> str:
    with pytest.raises(Stalled) as caught:
        act()
    assert caught.value.reason == reason
    return caught.value.message


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("names", [["big.yaml"], [f"big{number}.yaml" for number in range(100)]])
def test_files_that_are_too_large_for_manifests(
    repo: pygit2.Repository, zeros: pygit2.Oid, names: list[str]
) -> None:
    """As annotations of data are. They are of another tool, so they keep no commit from being deployed."""
    ours = repo.create_blob(b"a: 1\n")
    files = {**dict.fromkeys(names, (FileMode.BLOB, zeros)), "ours.yaml": (FileMode.BLOB, ours)}
    found = tree.read_files(repo, commit(repo, folder(repo, files)), ".", (".yaml",))
    said = "has 105 MB, which no manifest has: it is passed over"
    assert {file.path: file.passed_over or file.content for file in found} == {
        **dict.fromkeys(names, said),
        "ours.yaml": b"a: 1\n",
    }


def test_of_files_that_are_too_much_together_the_largest_are_passed_over(repo: pygit2.Repository) -> None:
    assert tree.MAX_MANIFEST == reader.MAX_TOTAL
    large = repo.create_blob(b"a: 1\n" * (9 * 2**20 // 5))
    ours = repo.create_blob(b"a: 1\n" * (2**20 // 5))
    files = {f"data{number}.yaml": (FileMode.BLOB, large) for number in range(5)}
    made = commit(repo, folder(repo, {**files, "ours.yaml": (FileMode.BLOB, ours)}))
    found = {file.path: file.passed_over for file in tree.read_files(repo, made, ".", (".yaml",))}
    assert [name for name, why in found.items() if why] == ["data0.yaml", "data1.yaml"]


@pytest.mark.parametrize(("size", "passed_over"), [(2**21, False), (2**21 + 1, True), (10**17, True)])
def test_pointers_to_what_is_too_large_for_manifests(
    repo: pygit2.Repository, size: int, passed_over: bool
) -> None:
    pointer = repo.create_blob(tree.LFS_PREFIX + b"v1\noid sha256:%b\nsize %d\n" % (b"a" * 64, size))
    made = commit(repo, folder(repo, {"labels.yaml": (FileMode.BLOB, pointer)}))
    if passed_over:
        (found,) = tree.read_files(repo, made, ".", (".yaml",))
        assert found.passed_over.startswith("is a pointer of Git LFS to ")
    else:
        assert "labels.yaml" in refused("LfsPointer", lambda: tree.read_files(repo, made, ".", (".yaml",)))


@pytest.mark.usefixtures("bounded")
def test_manifests_together(repo: pygit2.Repository) -> None:
    each = repo.create_blob(b"a: 1\n" * (2**20 // 5))
    made = commit(repo, folder(repo, {f"{number}.yaml": (FileMode.BLOB, each) for number in range(200)}))
    assert "together" in refused("FileTooLarge", lambda: tree.read_files(repo, made, ".", (".yaml",)))


@pytest.mark.parametrize("links", [tree.MAX_LINKS, tree.MAX_LINKS + 1])
def test_links_among_manifests(repo: pygit2.Repository, links: int) -> None:
    """In a folder of many files, in which each is looked for."""
    link, content = repo.create_blob(b"~.yaml"), repo.create_blob(b"a: 1")
    others = {f"{number}": (FileMode.BLOB, content) for number in range(50_000)}
    many = {f"{number}.yaml": (FileMode.LINK, link) for number in range(links)}
    made = commit(repo, folder(repo, {**others, **many, "~.yaml": (FileMode.BLOB, content)}))
    if links > tree.MAX_LINKS:
        refused("TreeTooLarge", lambda: tree.read_files(repo, made, ".", (".yaml",)))
    else:
        assert {file.content for file in tree.read_files(repo, made, ".", (".yaml",))} == {b"a: 1"}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("mode", [FileMode.BLOB, FileMode.LINK])
@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore", "link"])
def test_any_file_that_is_read_whole(
    repo: pygit2.Repository, zeros: pygit2.Oid, name: str, mode: FileMode
) -> None:
    small = repo.create_blob(b"FROM a")
    files = {"Dockerfile": (FileMode.BLOB, small), "link": (FileMode.LINK, repo.create_blob(b"Dockerfile"))}
    root = folder(repo, {**files, name: (mode, zeros)})

    def act() -> None:
        found = tree.build_context(repo, repo[root].peel(pygit2.Tree), "Dockerfile")
        tree.check_sendable(repo, found, ENOUGH)
        tree.content_of(repo, found.dockerfile, "Dockerfile", tree.MAX_RULES)

    with pytest.raises(Stalled) as caught:
        act()
    assert caught.value.reason in ("FileTooLarge", "ContextTooLarge")


@pytest.mark.usefixtures("bounded")
def test_contexts(repo: pygit2.Repository, zeros: pygit2.Oid) -> None:
    half = repo.create_blob(bytes(2**19))
    dockerfile = (FileMode.BLOB, repo.create_blob(b"FROM a"))
    large = folder(repo, {"Dockerfile": dockerfile, "data": (FileMode.BLOB, zeros)})
    many = folder(repo, {"Dockerfile": dockerfile, **{f"{n}": (FileMode.BLOB, half) for n in range(10)}})
    ignored = folder(
        repo,
        {
            "Dockerfile": dockerfile,
            "data": (FileMode.BLOB, zeros),
            ".dockerignore": (FileMode.BLOB, repo.create_blob(b"data")),
        },
    )

    def check(root: pygit2.Oid) -> None:
        found = tree.build_context(repo, repo[root].peel(pygit2.Tree), "Dockerfile")
        tree.check_sendable(repo, found, ENOUGH)

    assert "data has 105 MB, the limit for one file is 1.05 MB (`git.maxFile`)" in refused(
        "ContextTooLarge", lambda: check(large)
    )
    assert "have more than 3.15 MB together (`git.maxContext`)" in refused(
        "ContextTooLarge", lambda: check(many)
    )
    check(ignored)


def test_paths(repo: pygit2.Repository) -> None:
    inner = folder(repo, {"x.yaml": (FileMode.BLOB, repo.create_blob(b"a"))})
    for _ in range(2000):  # one in the other, far deeper than Python goes by recursion
        inner = folder(repo, {"folder": (FileMode.TREE, inner)})
    made = commit(repo, inner)
    assert "path of more than 4096" in refused(
        "TreeTooLarge", lambda: tree.read_files(repo, made, ".", (".yaml",))
    )
    deep = "/".join(["folder"] * 1500 + ["missing"])
    refused("PathNotFound", lambda: tree.lookup(repo, made, deep))
    tree.check_complete(repo, made)


@pytest.mark.usefixtures("bounded")
def test_commits_and_trees_themselves(repo: pygit2.Repository) -> None:
    empty = str(repo.TreeBuilder().write()).encode()
    header = b"tree " + empty + b"\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\n"
    long = repo.odb.write(ObjectType.COMMIT, header + b"m" * (2 * 2**20))
    refused("CommitTooLarge", lambda: commits.read(repo, str(long)))


def test_a_context_is_held_against_the_settings(tmp_path: Path) -> None:
    origin = pygit2.init_repository(tmp_path / "demo.git", bare=True)
    root = folder(
        origin,
        {
            "Dockerfile": (FileMode.BLOB, origin.create_blob(b"FROM a")),
            "d": (FileMode.BLOB, origin.create_blob(bytes(3 * 2**20))),
        },
    )
    made = commit(origin, root)
    origin.references.create("refs/heads/main", pygit2.Oid(hex=made))
    settings = GitSettings(max_file=2**20)
    sources = GitSources(tmp_path / "clones", settings, hosted=tmp_path)
    fetched: Revision = sources.fetch(
        repository(str(tmp_path / "demo.git"), "main", RefKind.BRANCH), None, None
    )
    refused("ContextTooLarge", lambda: sources.build_context(fetched, BuildImage(".", "Dockerfile")))
