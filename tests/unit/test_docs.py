"""The documentation is held to the code: links, manifests, configuration, commands, functions, JSON, metrics."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from controller.cli.formats import FormatType
from controller.config import DefaultLimits, Settings
from controller.config.loader import ConfigInvalid, read
from controller.config.options import OPTIONS
from controller.daemon.doctor import CHECKS
from controller.domain.apps.spec import ComponentKind, PlatformAppSpec
from controller.domain.errors import ManifestProblem
from controller.domain.names import AppName, RepositoryName
from controller.manifests.build import examine
from controller.manifests.encrypted import names_files
from controller.manifests.platform import examine_platform
from controller.manifests.reader import API_VERSION, ManifestDocument
from controller.manifests.reader import read as read_manifests
from controller.manifests.schema import check
from controller.manifests.validate import validate_folder
from controller.ports import SourceFile
from controller.serving import docstring
from controller.serving.signature import Signature
from controller.yaml_documents import parse
from tests.support.commands import calls, resolve
from tests.support.pages import README, ROOT, Block, anchors, blocks, inline_code, links, pages, section
from tests.support.specs import make

PAGES = pages()
REFERENCE = ROOT / "docs" / "reference"
#: Translations show the blocks of their originals, see test_docs_in_russian.py.
BLOCKS = [block for page in PAGES if page.parent != ROOT / "docs" / "ru" for block in blocks(page)]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/manifests"))
SECTIONS = {key.partition(".")[0] for key in OPTIONS}


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# --- links ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{file} is not there"
        if anchor:
            assert anchor in anchors(target), f"{file} has no heading #{anchor}"


def test_every_page_is_in_the_index() -> None:
    index, decisions = ROOT / "docs" / "README.md", ROOT / "docs" / "adr" / "README.md"
    listed = {(page.parent / file).resolve() for page in (index, decisions) for file, _ in links(page)}
    assert set(ROOT.glob("docs/**/*.md")) - {index} <= listed


# --- YAML: manifests and configuration --------------------------------------------------------------------------


def manifests(block: Block) -> str:
    """The block's documents with a kind; the line `apiVersion: …` may have been left out for brevity."""
    texts = [text for text in block.text.split("\n---\n") if re.search(r"^kind: ", text, re.MULTILINE)]
    version = f"apiVersion: {API_VERSION}\n"
    return "\n---\n".join(text if "apiVersion: " in text else version + text for text in texts)


MANIFEST_BLOCKS = [block for block in of("yaml") if manifests(block)]


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_manifest_or_configuration_or_at_least_yaml(block: Block, tmp_path: Path) -> None:
    parsed = parse(str(block), block.text.encode())
    assert parsed.problems == ()
    for node in parsed.documents:
        if isinstance(node.value, dict) and set(node.value) <= SECTIONS:
            assert config_problems(block.text, tmp_path) == []


def config_problems(text: str, folder: Path) -> list[ManifestProblem]:
    """Of a fragment of config.yaml, but for the files that it names: they are not on this machine."""
    file = folder / "config.yaml"
    file.write_text(text)
    try:
        read(file, Settings())
    except ConfigInvalid as error:
        unread = ("cannot be read", "cannot read")
        return [problem for problem in error.problems if not any(text in problem.message for text in unread)]
    return []


@pytest.mark.parametrize("block", MANIFEST_BLOCKS, ids=str)
def test_every_manifest_passes_its_schema(block: Block) -> None:
    reading = read_manifests([SourceFile("block.yaml", manifests(block).encode())])
    assert reading.problems == ()
    assert reading.documents
    assert [str(p) for document in reading.documents for p in check(document)] == []


@pytest.mark.parametrize(
    "page",
    sorted({b.page for b in MANIFEST_BLOCKS} - {REFERENCE / "manifests.md"}),
    ids=lambda page: page.name,
)
def test_manifests_of_a_page_fit_together(page: Path) -> None:
    """Those of the reference are examples of one kind each, which name what is not there."""
    texts = [manifests(block) for block in MANIFEST_BLOCKS if block.page == page]
    documents = read_manifests(files(texts)).documents
    module, platform = (tuple(d for d in documents if is_platforms(d) is side) for side in (False, True))
    namespaces = {str(d.get("metadata", "namespace")) for d in module} - {"None"}
    app = make(PlatformAppSpec, AppName(namespaces.pop() if namespaces else "app"), RepositoryName("page"))
    assert examine(files(source(d) for d in module), app, False, DefaultLimits()).problems == ()
    _, problems = examine_platform(
        tuple(files(source(d) for d in platform)), Settings(), lambda path: b"content"
    )
    assert [str(problem) for problem in problems] == []


def is_platforms(document: ManifestDocument) -> bool:
    if document.kind is ComponentKind.SECRET:
        return not names_files(document)
    return document.kind in (ComponentKind.REPOSITORY, ComponentKind.PLATFORM_APP)


def source(document: ManifestDocument) -> str:
    return json.dumps(document.node.value)


def files(texts: Iterator[str] | list[str]) -> list[SourceFile]:
    return [SourceFile(f"m{i}.yaml", text.encode()) for i, text in enumerate(texts)]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_examples_are_valid(folder: Path) -> None:
    verdict = validate_folder(folder)
    assert (verdict.problems, verdict.notes) == ((), ())
    assert verdict.documents > 0


def test_every_example_is_listed() -> None:
    listed = {file for file, _ in links(ROOT / "examples" / "README.md")}
    assert {folder.name for folder in EXAMPLES} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_of_the_configuration_exist(page: Path) -> None:
    prefixes = "|".join(sorted({key.partition(".")[0] for key in OPTIONS if "." in key} - {"platform"}))
    named = [m[0] for code in inline_code(page) for m in re.finditer(rf"^({prefixes})\.\w+", code)]
    assert set(named) - {*OPTIONS, "docker.io", "people.db"} == set()


# --- commands ---------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Where, and what is typed: in the lines of shell blocks, and whole commands in inline code."""
    lines = [(str(block), line) for block in of("sh", "") for line in joined(block.text)]
    lines += [
        (str(page.relative_to(ROOT)), code)
        for page in PAGES
        for code in inline_code(page)
        if code.startswith("prichal ")
    ]
    return [(place, words) for place, line in lines if "prichal" in line for words in calls(line)]


def joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize(("place", "arguments"), sorted(set(commands())), ids=str)
def test_commands_exist_with_their_options(place: str, arguments: tuple[str, ...]) -> None:
    words = list(arguments)
    command, context = resolve(words)
    options, left, _ = command.make_parser(context).parse_args(list(words))  # raises for an unknown option
    assert left == [], f"{left} is too much"
    for param in command.params:
        if isinstance(param.type, click.Choice) and isinstance(value := options.get(param.name or ""), str):
            assert value in param.type.choices or value.isupper()
        if isinstance(param.type, FormatType) and (value := options.get(param.name or "")) is not None:
            param.type.convert(value, param, context)  # raises for an unknown format
    missing = [p.name for p in command.params if p.required and options.get(p.name or "") is None]
    assert missing == [] or (":" not in place and is_a_mention(words)), f"{missing} are missing"


def test_the_transcript_in_the_readme_is_an_excerpt_of_its_chapter() -> None:
    """The end-to-end test types the chapter's commands and compares what they print, so the transcript stays true."""
    (transcript,) = section(README, "## Thirty seconds")
    chapter = " ".join(block.text for block in section(README, "## Your first module in ten minutes"))
    typed = " ".join(chapter.replace("\\\n", " ").split())
    lines = joined(transcript.text)
    shown = [line.removeprefix("$ ").partition("  #")[0] for line in lines if line.startswith("$ ")]
    printed = [line for line in lines if line.startswith("remote: ")]
    assert shown
    assert printed
    for line in shown + printed:
        assert " ".join(line.split()) in typed, line


def is_a_mention(words: list[str]) -> bool:
    """Inline, `prichal connect --print` speaks of the command, it does not show how it is called."""
    return all(word.startswith("-") for word in words)


#: Pages whose shell blocks a test types, all or those with these words.
TYPED: dict[str, dict[str, str]] = {
    "README.md": {"": "tests/e2e/test_readme.py"},
    "docs/guide/files.md": {"": "tests/e2e/test_files_guide.py"},
    "docs/guide/module.md": {"docker run": "tests/integration/docker/test_shown.py"},
    "docs/guide/operations.md": {"openssl": "tests/unit/web/api/platform/test_signatures.py"},
    "docs/guide/remote.md": {"": "tests/e2e/test_remote_guide.py"},
    "docs/guide/runs.md": {"": "tests/e2e/test_runs_guide.py"},
    "docs/guide/secrets.md": {"": "tests/e2e/test_encrypted_secrets.py"},
    "docs/guide/web-frameworks.md": {"": "tests/integration/web/test_web_frameworks.py"},
    "docs/install.md": {
        "docker run": "tests/integration/test_packages.py",
    },
    "docs/reference/files.md": {"": "tests/integration/web/test_files_page.py"},
    "docs/reference/http-api.md": {"$api": "tests/integration/web/test_async_page.py"},
    "docs/reference/runs.md": {"": "tests/integration/web/test_runs_page.py"},
    "examples/digits/README.md": {"": "tests/e2e/test_examples.py"},
    "examples/own-server/README.md": {
        "docker run": "tests/integration/docker/test_shown.py",
        "repo create": "tests/e2e/test_readme.py",
    },
}
#: Blocks with these words are typed by no test, since they change the host or speak of what is made up.
NOT_TYPED: dict[str, dict[str, str]] = {
    "CONTRIBUTING.md": {"make setup": "its targets are looked for in the Makefile"},
    "docs/guide/module.md": {
        "presigned_put_url": "the page on the files API shows the same requests",
        "docker build": "the module is made up; the example's page shows the same",
        "/predict": "the module is made up; the example's page shows the same",
    },
    "docs/guide/backup.md": {"systemctl": "it starts the services of a host"},
    "docs/guide/operations.md": {
        "rsync": "it copies the storage of a host",
        "juicefs load": "it mends the storage of a host",
        "docker image prune": "it removes images of others",
    },
    "docs/install.md": {
        "apt-get": "it installs packages",
        "git clone": "it installs a release",
        "systemctl": "it starts and stops services of a host",
        "ln -sfn": "it changes what is installed",
        "pip install": "it adds to what is installed",
        "iptables": "it changes the rules of a host",
    },
    "docs/reference/containers.md": {"docker ps": "it looks at containers of a host"},
}


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_what_is_shown_to_be_typed_is_typed_by_a_test(block: Block) -> None:
    """Except calls of `prichal` that speak of what is made up, which are checked above."""
    page = str(block.page.relative_to(ROOT))
    typing = [test for words, test in TYPED.get(page, {}).items() if words in block.text]
    reasons = [why for words, why in NOT_TYPED.get(page, {}).items() if words in block.text]
    only_ours = all(line.startswith("prichal ") for line in joined(block.text) if line.strip())
    assert typing or reasons or only_ours, "let a test type it, or say here why none does"
    for test in typing:
        assert block.page.name in (ROOT / test).read_text() or "README" in (ROOT / test).read_text()


def test_no_block_is_listed_that_no_page_shows() -> None:
    texts = [(str(block.page.relative_to(ROOT)), block.text) for block in of("sh")]
    listed = {
        (page, words) for found in (TYPED, NOT_TYPED) for page, known in found.items() for words in known
    }
    assert {
        (page, words) for page, words in listed if not any(page == p and words in t for p, t in texts)
    } == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_the_makefile_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [*inline_code(page), *(line for block in blocks(page) for line in joined(block.text))]
    named = {target for text in code for target in re.findall(r"^(?:make )([a-z]+)", text.strip())}
    assert named - targets == set()


# --- functions, JSON, names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in of("python") if "inputs." in block.text], ids=str)
def test_inference_functions_are_described_as_the_serving_library_reads_it(block: Block) -> None:
    functions = [node for node in ast.parse(block.text).body if isinstance(node, ast.FunctionDef)]
    inference = [f for f in functions if f.name == "predict" or "inputs." in (ast.get_docstring(f) or "")]
    assert inference
    for function in inference:
        signature = docstring.parse(ast.get_docstring(function, clean=False))
        assert isinstance(signature, Signature), signature


def test_examples_are_described_as_the_serving_library_reads_it() -> None:
    found = list(ROOT.glob("examples/*/app/inference.py"))
    assert found
    for path in found:
        text, line = docstring.find(path.read_text(), "predict") or (None, 1)
        assert isinstance(docstring.parse(text, line), Signature)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


def test_metrics_exist() -> None:
    source = (ROOT / "controller/web/api/platform/metrics.py").read_text()
    known = set(re.findall(r'"(prichal_\w+)"', source))
    for page in PAGES:
        for name in re.findall(r"\bprichal_(?!serving|metrics)\w+\b", page.read_text()):
            assert re.sub(r"_(total|bucket|count|sum)$", "", name) in known, f"{page.name}: {name}"


def test_every_check_of_the_doctor_is_explained() -> None:
    page = (ROOT / "docs/guide/operations.md").read_text()
    assert [name for name in CHECKS if f"`{name}`" not in page] == []


def test_every_decision_has_a_number_of_its_own_and_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(folder.glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        assert re.match(rf"# {int(path.name[:4])}\. .+\n\nDate: \d{{4}}-\d\d-\d\d\n\nStatus: ", text), (
            path.name
        )
        assert re.search(r"^## Look again when\n\n\S", text, re.MULTILINE), path.name
        assert f"]({path.name})" in (folder / "README.md").read_text()


def test_the_table_of_packages_names_every_package() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {
        path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "controller").rglob("__init__.py")
        if "builtin" not in path.parts  # files of templates
    }
    missing = [name for name in sorted(packages - {"controller"}) if f"`{name}/`" not in page]
    modules = [f"{path.stem}.py" for path in (ROOT / "controller").glob("[a-z]*.py")]
    assert missing + [name for name in modules if name not in page] == []


def test_the_page_on_security_names_tests_that_are_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(tests/[^`]+)`", page))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_walks_through_the_layout_pass_modules_that_are_there() -> None:
    page = (ROOT / "docs" / "adr" / "0019-packages-are-nouns.md").read_text()
    walks = [line for line in page.splitlines() if "→" in line]
    assert len(walks) == 3
    named = [name for line in walks for name in re.findall(r"`(\w+(?:/\w+)+)`", line)]
    assert [name for name in named if not (ROOT / "controller" / f"{name}.py").exists()] == []
