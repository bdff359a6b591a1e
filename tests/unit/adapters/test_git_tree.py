"""Reading commits: files, content ids and tars, and what is refused. Real repositories, made object by object."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import FileMode

from controller.adapters.git import tree
from controller.domain.errors import Stalled

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SUBMODULE = "5" * 40
BOUNDS = tree.TreeLimits(file=10_000, context=100_000)


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


def context(
    repo: pygit2.Repository, made: str, path: str = ".", dockerfile: str = "Dockerfile"
) -> tree.BuildTree:
    found = tree.build_context(repo, tree.folder(repo, made, path), dockerfile)
    tree.check_sendable(repo, found, BOUNDS)
    return found


def archive(repo: pygit2.Repository, made: str, path: str = ".") -> bytes:
    return b"".join(tree.tar(repo, context(repo, made, path).entries))


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


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", ".."])
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
    }
    assert [members[n].mode for n in ("Dockerfile", "run.sh", "lib")] == [0o644, 0o755, 0o755]
    assert (members["lib/link"].issym(), members["lib/link"].linkname) == (True, "../run.sh")
    assert members["lib"].isdir()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {
        (0, 0, "", "", tree.TAR_TIME)
    }


def test_an_archive_is_the_same_whenever_it_is_made(repo: pygit2.Repository) -> None:
    content: dict[str, Content] = {"a": {"b": "x" * 511, "c": "y" * 512, "d": "z" * 513}, "Dockerfile": ""}
    first = archive(repo, commit(repo, content))
    assert archive(repo, commit(repo, {**content})) == first
    assert len(first) % 512 == 0
    assert set(untar(repo, commit(repo, content))) == {"a", "a/b", "a/c", "a/d", "Dockerfile"}


@pytest.mark.parametrize("target", ["/usr/bin/python3", "../outside", "lib/../../outside"])
def test_an_archive_with_a_link_to_the_outside_is_refused(repo: pygit2.Repository, target: str) -> None:
    made = commit(repo, {"context": {"Dockerfile": "", "link": (FileMode.LINK, target)}, "outside": "x"})
    with pytest.raises(Stalled) as caught:
        context(repo, made, "context")
    assert caught.value.reason == "SymlinkRefused"


def test_lfs_pointers_are_named(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {
            "app.yaml": POINTER,
            "weights": {"a.bin": POINTER, "b.bin": POINTER},
            "c": POINTER + "x" * 2000,
            "Dockerfile": "",
        },
    )
    with pytest.raises(Stalled, match=r"app\.yaml") as caught:
        read(repo, made)
    assert caught.value.reason == "LfsPointer"
    with pytest.raises(Stalled, match=r"weights/a\.bin, weights/b\.bin\.") as caught:
        context(repo, made)
    assert caught.value.reason == "LfsPointer"


@pytest.mark.slow
@pytest.mark.parametrize(("ignore", "reason"), [("", "TreeTooLarge"), ("bomb", "")])
def test_a_tree_that_contains_itself_over_and_over_is_refused_unless_ignored(
    repo: pygit2.Repository, ignore: str, reason: str
) -> None:
    bomb = write(repo, {f"f{number}": "x" for number in range(10)})
    for _ in range(5):
        builder = repo.TreeBuilder()
        for number in range(10):
            builder.insert(f"d{number}", bomb, FileMode.TREE)
        bomb = builder.write()
    who = pygit2.Signature("Ada", "ada@example.org", 1, 0)
    top = repo.TreeBuilder()
    top.insert("bomb", bomb, FileMode.TREE)
    top.insert("Dockerfile", repo.create_blob(b""), FileMode.BLOB)
    top.insert(".dockerignore", repo.create_blob(ignore.encode()), FileMode.BLOB)
    made = str(repo.create_commit(None, who, who, "bomb", top.write(), []))
    tree.check_complete(repo, made)
    with pytest.raises(Stalled) if reason else nullcontext() as caught:
        context(repo, made)
    assert not caught or caught.value.reason == reason


@pytest.mark.parametrize("name", [b"..", b"a/b", b".git"])
def test_names_that_git_never_makes_are_refused(repo: pygit2.Repository, name: bytes) -> None:
    blob = repo.create_blob(b"x")
    raw = b"100644 " + name + b"\0" + blob.raw + b"100644 Dockerfile\0" + blob.raw
    made_tree = repo.odb.write(pygit2.enums.ObjectType.TREE, raw)
    text = f"tree {made_tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nevil\n"
    made = str(repo.odb.write(pygit2.enums.ObjectType.COMMIT, text.encode()))
    with pytest.raises(Stalled) as caught:
        context(repo, made)
    assert caught.value.reason == "TreeInvalid"


def test_a_missing_object_is_noticed(repo: pygit2.Repository) -> None:
    made = commit(repo, {"sub": {"a.yaml": "a"}})
    blob = str(repo.create_blob(b"a"))
    Path(repo.path, "objects", blob[:2], blob[2:]).unlink()
    with pytest.raises(KeyError, match=r"sub/a\.yaml"):
        tree.check_complete(pygit2.Repository(repo.path), made)


# --- .dockerignore ----------------------------------------------------------------------------------------------

ODD: dict[str, Content] = {
    "pointer": POINTER,
    "links": {"absolute": (FileMode.LINK, "/usr/bin/python3"), "out": (FileMode.LINK, "../../../x")},
    "vendor": (FileMode.COMMIT, SUBMODULE),
}


@pytest.mark.parametrize("ignore", ["odd", "**/pointer\n**/links\n", "*\n!app.py\n", "odd/**\n!odd/none\n"])
def test_what_is_ignored_is_not_judged(repo: pygit2.Repository, ignore: str) -> None:
    made = commit(repo, {"odd": ODD, "app.py": "1", "Dockerfile": "", ".dockerignore": ignore})
    assert "app.py" in untar(repo, made)


@pytest.mark.parametrize(
    ("kept", "reason", "words"),
    [
        ("odd/pointer", "LfsPointer", "odd/pointer"),
        ("odd/links/absolute", "SymlinkRefused", "odd/links/absolute"),
        ("odd/links/out", "SymlinkRefused", "odd/links/out"),
    ],
)
def test_what_is_brought_back_is_judged_and_named(
    repo: pygit2.Repository, kept: str, reason: str, words: str
) -> None:
    made = commit(repo, {"odd": ODD, "Dockerfile": "", ".dockerignore": f"odd\n!{kept}\n"})
    with pytest.raises(Stalled, match=words) as caught:
        context(repo, made)
    assert caught.value.reason == reason


def test_an_ignored_name_that_git_never_makes_harms_nobody(repo: pygit2.Repository) -> None:
    blob, odd = repo.create_blob(b"x"), repo.create_blob(b"odd")
    raw = b"100644 ..\0" + blob.raw
    entries = {"Dockerfile": blob, ".dockerignore": odd}
    content = b"".join(b"100644 " + name.encode() + b"\0" + id.raw for name, id in sorted(entries.items()))
    folder = repo.odb.write(pygit2.enums.ObjectType.TREE, raw)
    root = repo.odb.write(pygit2.enums.ObjectType.TREE, content + b"40000 odd\0" + folder.raw)
    assert (
        tree.build_context(repo, repo[root].peel(pygit2.Tree), "Dockerfile").entries[0].path == "Dockerfile"
    )


def test_equal_content_as_a_build_sees_it_has_the_same_digest(repo: pygit2.Repository) -> None:
    base: dict[str, Content] = {"app.py": "1", "Dockerfile": "F", ".dockerignore": "*.md\n.dockerignore\n"}

    def digest(**changed: Content) -> str:
        return context(repo, commit(repo, {**base, **changed})).digest

    same = digest()
    assert digest(**{"README.md": "hello"}) == digest(**{"README.md": "hi"}) == same
    assert digest(**{".dockerignore": "*.md\n# a comment\n.dockerignore\n"}) == same
    assert len({same, digest(**{"app.py": "2"}), digest(Dockerfile="G"), digest(more="x")}) == 4
    assert digest(**{"app.py": (FileMode.BLOB_EXECUTABLE, "1")}) != same
    assert digest(**{".dockerignore": "*.md\n"}) != same  # it is seen now


def test_the_dockerfile_is_found_even_if_it_is_ignored_or_a_link(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {
            "deploy": {"Dockerfile": "FROM scratch"},
            "Dockerfile": (FileMode.LINK, "deploy/Dockerfile"),
            ".dockerignore": "*\n",
        },
    )
    for name in ("Dockerfile", "deploy/Dockerfile"):
        found = context(repo, made, dockerfile=name)
        assert repo[found.dockerfile].peel(pygit2.Blob).data == b"FROM scratch"
        assert (found.entries, found.dockerignore) == ((), None)
    with pytest.raises(Stalled, match="no file missing/Dockerfile") as caught:
        context(repo, made, dockerfile="missing/Dockerfile")
    assert caught.value.reason == "BuildFailed"


def test_a_dockerignore_may_be_a_link_and_one_for_a_dockerfile_comes_first(repo: pygit2.Repository) -> None:
    made = commit(
        repo,
        {
            "rules": "a\n.dockerignore\nrules\n",
            ".dockerignore": (FileMode.LINK, "rules"),
            "Dockerfile": "F",
            "other.Dockerfile": "F",
            "other.Dockerfile.dockerignore": "*\n!a\n",
            "a": "1",
            "b": "1",
        },
    )
    seen = {entry.path for entry in context(repo, made).entries}
    assert seen == {"Dockerfile", "other.Dockerfile", "other.Dockerfile.dockerignore", "b"}
    assert {e.path for e in context(repo, made, dockerfile="other.Dockerfile").entries} == {"a"}


def test_one_file_is_read_by_its_path(repo: pygit2.Repository) -> None:
    link = (FileMode.LINK, "../in.json")
    made = commit(repo, {"in.json": "{}", "smoke": {"in.json": "[1]", "link.json": link}})
    assert tree.read_file(repo, made, "smoke/in.json", 100) == b"[1]"
    assert tree.read_file(repo, made, "./smoke/../in.json", 100) == b"{}"
    assert tree.read_file(repo, made, "smoke/link.json", 100) == b"{}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing.json", "PathNotFound"),
        ("smoke", "PathNotFound"),
        ("in.json/more", "PathNotFound"),
        ("", "PathNotFound"),
        ("../in.json", "PathNotFound"),
        ("smoke/out.json", "SymlinkRefused"),
        ("smoke/self.json", "PathNotFound"),
        ("module", "PathNotFound"),
        ("large.json", "FileTooLarge"),
        ("lfs.json", "LfsPointer"),
    ],
)
def test_what_is_not_a_file_of_the_commit_is_refused(repo: pygit2.Repository, path: str, reason: str) -> None:
    files: dict[str, Content] = {"in.json": "{}", "large.json": "1" * 101, "lfs.json": POINTER[:100]}
    links = {"out.json": (FileMode.LINK, "/etc/passwd"), "self.json": (FileMode.LINK, "self.json")}
    made = commit(repo, {**files, "smoke": links, "module": (FileMode.COMMIT, SUBMODULE)})
    with pytest.raises(Stalled) as caught:
        tree.read_file(repo, made, path, 100)
    assert caught.value.reason == reason
