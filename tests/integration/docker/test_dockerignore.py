"""What our builds see of a context, compared with what the `docker build` command of this machine sends."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import docker
import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygit2.enums import FileMode

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.context import of_folder
from controller.adapters.git import tree
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage
from controller.domain.errors import Stalled
from controller.ports import BuildContext
from tests.support.docker_client import DockerClient, docker_client
from tests.support.engines import BASE_IMAGE
from tests.support.specs import make

FILES = (
    *(
        "Dockerfile",
        "app.py",
        "README.md",
        "x.log",
        "a",
        "A",
        "é.txt",
        "with space",
        "#hash",
        "!bang",
        "$d",
        "^c",
    ),
    *(
        "[x]",
        "a*b",
        "back\\slash",
        "tab\there",
        "{a,b}",
        ".env",
        ".hidden/.env",
        "secrets/prod.key",
        "secrets/keep",
    ),
    *(
        "app/secrets/k.key",
        "app/deep/secrets/k.key",
        "app/deep/er/secrets/keep/k",
        "app/main.py",
        "app/x.log",
    ),
    *(
        "docs/a.md",
        "docs/sub/b.md",
        "docs/sub/c.txt",
        "node_modules/m/index.js",
        "app/node_modules/m/index.js",
    ),
    *(
        "foobar",
        "barfoo",
        "foo/bar",
        "x/foo/bar",
        "foo1/bar",
        "a1",
        "a2",
        "ab",
        "deploy/Dockerfile",
        "deploy/keep",
    ),
)
#: One `.dockerignore` each; whatever the client makes of it is right.
TABLE = (
    *("", "\n\n", "*", "**", "/", ".", "..", "./", "*\n!app.py", "**\n!app", "*\n!app/**\n", "*\n!*/secrets"),
    *(
        "**/secrets",
        "**/secrets/",
        "/**/secrets",
        "**/secrets/**",
        "**/*.key",
        "*/secrets",
        "secrets",
        "/secrets",
    ),
    *(
        "secrets/",
        "./secrets",
        "app/../secrets",
        "app/./deep",
        "//secrets",
        "../secrets",
        "secrets/*",
        "secrets/**",
    ),
    *("**/secrets\n!secrets/keep", "secrets\n!secrets/keep", "secrets/*\n!**/keep", "secrets\n!**/keep"),
    *(
        "app\n!app/deep/secrets",
        "app\n!app/deep\napp/deep/er",
        "**/node_modules\n!app/node_modules",
        "**/*.md\n!README.md",
    ),
    *(
        "docs/**/*.md",
        "docs/**/b.md",
        "docs/**",
        "docs/*/",
        "d*s",
        "**/sub/*.txt",
        "app/**/secrets",
        "**foo",
        "foo**",
    ),
    *(
        "foo**/bar",
        "**/foo/bar",
        "**/bar",
        "*.log",
        "**/*.log",
        "?",
        "a?",
        "[a-c]",
        "[^a-c]*",
        "[!a]*",
        "a[12]",
    ),
    *(
        "[x]",
        "\\[x\\]",
        "a\\*b",
        "back\\slash",
        "back\\\\slash",
        "#hash",
        "\\#hash",
        "!bang",
        "\\!bang",
        " #hash",
    ),
    *(
        "with space",
        "  with space  ",
        "with\\ space",
        "tab\there",
        "\t*.log\t",
        "é*",
        "?.txt",
        "$d",
        "^c",
        "{a,b}",
        "(a)",
    ),
    *(
        "a|b",
        "a+",
        "a.",
        "\ufeff*.log",
        "*.log\r\nsecrets\r\n",
        "# *\n*.log",
        "*.log\n#",
        "!*.log",
        "*.log\n!x.log\nx.log",
    ),
    *(
        "a\n!A",
        "Dockerfile",
        ".dockerignore",
        "Dockerfile\n.dockerignore",
        "*ocker*",
        ".*",
        "**/.*",
        "deploy",
        "deploy\n!**/keep",
    ),
    *(
        "[",
        "[]a]",
        "a[",
        "!",
        "\\",
        "x\\",
        "[a-]",
        "[-a]",
        "! secrets",
        "!\nx",
        "*\n! ./app/",
        "*/*",
        "*/*/*",
        "app/*/*\n!app/deep",
    ),
    *(
        "**/\u00e9.txt",
        "app/main.py/",
        "app/main.py/x",
        "**/**/secrets",
        "***",
        "*?*",
        "**/d*/**/k*",
        "!app\napp",
        "app\n!app/\n",
    ),
)


@pytest.fixture(scope="module")
def client_of() -> Iterator[DockerClient]:
    with docker_client() as client:
        yield client


def write(folder: Path, files: Iterable[str], ignore: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".dockerignore").write_bytes(ignore.encode())


def names(context: BuildContext) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.files))) as archive:
        return {member.name for member in archive}


def committed(folder: Path, repo: pygit2.Repository) -> pygit2.Tree:
    builder = repo.TreeBuilder()
    for path in folder.iterdir():
        if path.is_dir():
            builder.insert(path.name, committed(path, repo).id, FileMode.TREE)
        else:
            builder.insert(path.name, repo.create_blob(path.read_bytes()), FileMode.BLOB)
    return repo[builder.write()].peel(pygit2.Tree)


def check(
    folder: Path, repo: pygit2.Repository, client: DockerClient, dockerfile: str = "Dockerfile"
) -> None:
    """The commit and the folder give a build what the client sends, or are refused as the client refuses them."""
    sent = client.sends(folder, dockerfile)
    root = committed(folder, repo)
    if sent is None:
        with pytest.raises(Stalled):
            tree.build_context(repo, root, dockerfile)
        return
    # The builder itself reads these two, and takes them away again where they are ignored.
    hidden = {".dockerignore", dockerfile}
    of_commit = {entry.path for entry in tree.build_context(repo, root, dockerfile).entries}
    assert of_commit - hidden == sent - hidden, (folder / ".dockerignore").read_text()
    assert names(of_folder(folder, dockerfile)) == of_commit


@pytest.mark.timeout(900)
def test_each_pattern_leaves_out_what_it_leaves_out_of_docker_build(
    client_of: DockerClient, tmp_path: Path
) -> None:
    repo = pygit2.init_repository(tmp_path / "repo.git", bare=True)
    folder = tmp_path / "context"
    write(folder, FILES, "")
    wrong = []
    for ignore in TABLE:
        (folder / ".dockerignore").write_bytes(ignore.encode())
        for dockerfile in ("Dockerfile", *(["deploy/Dockerfile"] if "deploy" in ignore else [])):
            try:
                check(folder, repo, client_of, dockerfile)
            except AssertionError as error:
                wrong.append(error)
    assert not wrong


NAMES = st.sampled_from(["a", "b", "ab", "c.log", "é", "x y", "[a]", "#", "!", "secrets", "keep"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PIECES = st.sampled_from(
    [
        "a",
        "b",
        "é",
        " ",
        ".log",
        "secrets",
        "keep",
        "*",
        "*",
        "**",
        "**/",
        "/",
        "/",
        "?",
        "[a-c]",
        "[^a]",
        ".",
        "..",
        "\\*",
        "#",
        "!",
    ]
)
PATTERNS = st.one_of(st.lists(PIECES, min_size=1, max_size=5).map("".join), PATHS, PATHS.map("**/{}".format))
LINES = st.tuples(
    st.sampled_from(["", "", "!", "/"]), PATTERNS, st.sampled_from(["", "", "/", "/**", "\r"])
).map("".join)


@settings(max_examples=40, deadline=None)
@given(files=st.sets(PATHS, min_size=2, max_size=10), lines=st.lists(LINES, min_size=1, max_size=5))
def test_whatever_is_in_the_file_and_the_folder(
    client_of: DockerClient, tmp_path_factory: pytest.TempPathFactory, files: set[str], lines: list[str]
) -> None:
    home = tmp_path_factory.mktemp("generated")
    try:
        apart = {path for path in files if not any(other.startswith(f"{path}/") for other in files)}
        write(home / "context", {*apart, "Dockerfile"}, "\n".join(lines))
        check(home / "context", pygit2.init_repository(home / "repo.git", bare=True), client_of)
    finally:
        shutil.rmtree(home)


def test_the_image_has_what_docker_build_would_put_into_it(
    engine: DockerEngine, client: docker.APIClient, instance: str, tmp_path: Path
) -> None:
    """Also of the files that the builder reads, and byte by byte."""
    find = "cd /ctx && find . -type f -exec sha256sum {} + | sort -k2"
    dockerfile = f"FROM {BASE_IMAGE}\nCOPY . /ctx\nRUN {find}\n"
    cases = {
        "none": None,
        "ignored": "# a comment\n\n**/*.key\napp\n!app/main.py\nDockerfile\n.dockerignore\n",
        "all": "*\n!app",
    }
    for name, ignore in cases.items():
        folder = tmp_path / name
        write(folder, FILES, ignore or "")
        (folder / "Dockerfile").write_text(dockerfile)
        if ignore is None:
            (folder / ".dockerignore").unlink()
        lines: list[str] = []
        tag = f"{instance}.local/app:{name}"
        engine.build(
            tag, BuildInput("c", make(BuildImage, ".")), of_folder(folder, "Dockerfile"), lines.append
        )
        ours = {line for line in lines if "  ./" in line}
        assert ours == _in_the_image(client, folder, f"{instance}.local/app:real")


def _in_the_image(client: docker.APIClient, folder: Path, tag: str) -> set[str]:
    """Of the same build by the command."""
    done = subprocess.run(
        [
            "docker",
            "build",
            "--label",
            f"io.prichal.built-by={tag.partition('.')[0]}",
            "-t",
            tag,
            str(folder),
        ],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in done.stdout.splitlines() if "  ./" in line}
