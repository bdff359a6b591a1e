"""Reading commits: files, content ids and tars, and what is refused. Real repositories, made object by object."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import FileMode

from controller.adapters.git import tree
from controller.domain.errors import Stalled

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SUBMODULE = "5" * 40


@pytest.fixture
def repo(tmp_path: Path) -> pygit2.Repository:
    return pygit2.init_repository(tmp_path / "repo.git", bare=True)


Content = str | tuple[FileMode, str] | Mapping[str, "Content"]


def write(repo: pygit2.Repository, content: Mapping[str, Content]) -> pygit2.Oid:
    """A tree of files: text, (mode, text or commit id), or folders."""
    builder = repo.TreeBuilder()
    for name, value in content.items():
        if isinstance(value, str):
            builder.insert(name, repo.create_blob(value.encode()), FileMode.BLOB)
        elif isinstance(value, tuple):
            mode, text = value
            made = pygit2.Oid(hex=text) if mode is FileMode.COMMIT else repo.create_blob(text.encode())
            builder.insert(name, made, mode)
        else:
            builder.insert(name, write(repo, value), FileMode.TREE)
    return builder.write()


def commit(repo: pygit2.Repository, content: Mapping[str, Content]) -> str:
    who = pygit2.Signature("Ada", "ada@example.org", 1, 0)
    return str(repo.create_commit(None, who, who, "subject\n\nbody", write(repo, content), []))


def read(repo: pygit2.Repository, made: str, path: str = ".") -> dict[str, str]:
    files = tree.read_files(repo, made, path, (".yaml", ".yml"))
    return {file.path: file.content.decode() for file in files}


def archive(repo: pygit2.Repository, made: str, path: str = ".") -> bytes:
    return b"".join(tree.tar(repo, tree.archive_entries(repo, made, path)))


def untar(repo: pygit2.Repository, made: str, path: str = ".") -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive(repo, made, path))) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_files_are_chosen_by_suffix_and_hidden_ones_are_skipped(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {
            "z.yaml": "z",
            "a.yml": "a",
            "README.md": "no",
            ".hidden.yaml": "no",
            ".github": {"workflow.yaml": "no"},
            "sub": {
                "b.yaml": "b",
                "folder.yaml": {"c.yaml": "c"},
                "module.yaml": (FileMode.COMMIT, SUBMODULE),
            },
        },
    )
    assert read(repo, made) == {"a.yml": "a", "sub/b.yaml": "b", "sub/folder.yaml/c.yaml": "c", "z.yaml": "z"}
    assert list(read(repo, made)) == sorted(read(repo, made))
    assert read(repo, made, "sub/") == {"sub/b.yaml": "b", "sub/folder.yaml/c.yaml": "c"}
    assert read(repo, made, "./sub/../sub") == read(repo, made, "sub")


@pytest.mark.parametrize("path", ["nowhere", "a.yaml", "a.yaml/x", "..", "../x", "/etc", "sub/../../x"])
def test_a_path_that_is_no_folder_of_the_commit(repo: pygit2.Repository, path: str) -> None:
    made = commit(repo, {"a.yaml": "a"})
    with pytest.raises(Stalled) as caught:
        read(repo, made, path)
    assert caught.value.reason == "PathNotFound"


def test_a_symbolic_link_to_a_manifest_is_followed(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {
            "shared": {"base.yaml": "base"},
            "app": {
                "one.yaml": (FileMode.LINK, "../shared/base.yaml"),
                "two.yaml": (FileMode.LINK, "one.yaml"),
            },
        },
    )
    assert read(repo, made, "app") == {"app/one.yaml": "base", "app/two.yaml": "base"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "..", "a.yaml"])
def test_a_symbolic_link_that_leads_nowhere_good_is_refused(repo: pygit2.Repository, target: str) -> None:
    made = commit(repo, {"a.yaml": (FileMode.LINK, target)})
    with pytest.raises(Stalled) as caught:
        read(repo, made)
    assert caught.value.reason == "SymlinkRefused"
    assert "a.yaml" in caught.value.message


def test_equal_content_has_an_equal_id(repo: pygit2.Repository) -> None:
    one = commit(repo, {"x": {"Dockerfile": "FROM a"}, "other": "1"})
    two = commit(repo, {"x": {"Dockerfile": "FROM a"}, "other": "2"})
    ids = [str(tree.lookup(repo, made, path).id) for path in ("x", ".") for made in (one, two)]
    assert ids[0] == ids[1]
    assert ids[2] != ids[3]
    assert str(tree.lookup(repo, one, "x/Dockerfile").id) == str(repo.create_blob(b"FROM a"))


def test_an_archive_has_modes_links_and_folders(repo: pygit2.Repository) -> None:
    long_name = "n" * 150
    made = commit(
        repo,
        {
            "context": {
                "Dockerfile": "FROM scratch\n",
                "run.sh": (FileMode.BLOB_EXECUTABLE, "#!/bin/sh\n"),
                "lib": {"größe.py": "x = 1\n", "link": (FileMode.LINK, "../run.sh"), long_name: "long"},
                "vendor": (FileMode.COMMIT, SUBMODULE),
                ".dockerignore": "*.md\n",
            },
            "outside": "not in it",
        },
    )
    members = untar(repo, made, "context")
    assert set(members) == {
        "Dockerfile",
        "run.sh",
        "lib",
        "lib/größe.py",
        "lib/link",
        f"lib/{long_name}",
        ".dockerignore",
    }
    assert [members[n].mode for n in ("Dockerfile", "run.sh", "lib")] == [0o644, 0o755, 0o755]
    assert (members["lib/link"].issym(), members["lib/link"].linkname) == (True, "../run.sh")
    assert members["lib"].isdir()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {
        (0, 0, "", "", tree.TAR_TIME)
    }


def test_an_archive_is_the_same_whenever_it_is_made(repo: pygit2.Repository) -> None:
    content: dict[str, Content] = {"a": {"b": "x" * 511, "c": "y" * 512, "d": "z" * 513}, "e": ""}
    first = archive(repo, commit(repo, content))
    assert archive(repo, commit(repo, {**content})) == first
    assert len(first) % 512 == 0
    assert set(untar(repo, commit(repo, content))) == {"a", "a/b", "a/c", "a/d", "e"}


@pytest.mark.parametrize("target", ["/usr/bin/python3", "../outside", "lib/../../outside"])
def test_an_archive_with_a_link_to_the_outside_is_refused(repo: pygit2.Repository, target: str) -> None:
    made = commit(repo, {"context": {"link": (FileMode.LINK, target)}, "outside": "x"})
    with pytest.raises(Stalled) as caught:
        tree.archive_entries(repo, made, "context")
    assert caught.value.reason == "SymlinkRefused"


def test_lfs_pointers_are_named(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {"app.yaml": POINTER, "weights": {"a.bin": POINTER, "b.bin": POINTER}, "c": POINTER + "x" * 2000},
    )
    with pytest.raises(Stalled, match=r"app\.yaml") as caught:
        read(repo, made)
    assert caught.value.reason == "LfsPointer"
    with pytest.raises(Stalled, match=r"weights/a\.bin, weights/b\.bin\.") as caught:
        tree.archive_entries(repo, made, ".")
    assert caught.value.reason == "LfsPointer"


def test_a_tree_that_contains_itself_over_and_over_is_refused(repo: pygit2.Repository) -> None:
    bomb = write(repo, {f"f{number}": "x" for number in range(10)})
    for _ in range(5):
        builder = repo.TreeBuilder()
        for number in range(10):
            builder.insert(f"d{number}", bomb, FileMode.TREE)
        bomb = builder.write()
    who = pygit2.Signature("Ada", "ada@example.org", 1, 0)
    made = str(repo.create_commit(None, who, who, "bomb", bomb, []))
    with pytest.raises(Stalled) as caught:
        tree.check_complete(repo, made)
    assert caught.value.reason == "TreeTooLarge"


@pytest.mark.parametrize("name", [b"..", b"a/b", b".git"])
def test_names_that_git_never_makes_are_refused(repo: pygit2.Repository, name: bytes) -> None:
    blob = repo.create_blob(b"x")
    raw = b"100644 " + name + b"\0" + blob.raw
    made_tree = repo.odb.write(pygit2.enums.ObjectType.TREE, raw)
    text = f"tree {made_tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nevil\n"
    made = str(repo.odb.write(pygit2.enums.ObjectType.COMMIT, text.encode()))
    with pytest.raises(Stalled) as caught:
        tree.archive_entries(repo, made, ".")
    assert caught.value.reason == "TreeInvalid"


def test_a_missing_object_is_noticed(repo: pygit2.Repository) -> None:
    made = commit(repo, {"sub": {"a.yaml": "a"}})
    blob = str(repo.create_blob(b"a"))
    Path(repo.path, "objects", blob[:2], blob[2:]).unlink()
    with pytest.raises(KeyError, match=r"sub/a\.yaml"):
        tree.check_complete(pygit2.Repository(repo.path), made)
