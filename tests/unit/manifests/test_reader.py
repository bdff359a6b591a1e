"""Which documents are ours, and what is said of those that nearly are."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import ComponentKind
from controller.manifests.reader import MAX_DOCUMENTS, MAX_TOTAL, nearest, read, render_path
from controller.ports import SourceFile
from tests.support.manifests import VERSION

BOX = f"{VERSION}kind: DataBox\nmetadata: {{name: weights}}\nspec: {{s3DefaultStorage: {{}}}}\n"


def file(text: str, path: str = "a.yaml") -> SourceFile:
    return SourceFile(path, text.encode())


def test_documents_come_in_order_with_file_kind_and_name() -> None:
    reading = read([file(BOX, "b.yml"), file(f"{BOX}---\n{BOX}", "sub/a.yaml")])
    assert [(d.file, d.kind, d.name) for d in reading.documents] == [
        ("b.yml", ComponentKind.DATA_BOX, "weights"),
        ("sub/a.yaml", ComponentKind.DATA_BOX, "weights"),
        ("sub/a.yaml", ComponentKind.DATA_BOX, "weights"),
    ]


def test_json_and_other_files_are_not_read() -> None:
    assert read([file(BOX, "box.json"), file(BOX, "README.md")]).documents == ()


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: apps/v1\nkind: Deployment\n",
        "apiVersion: v1\nkind: Secret\n",
        "apiVersion: other.example.org/v1\nkind: Repository\n",
        "{{- if .Values.enabled }}\nkind: Deployment\n{{ end }}\n",  # a template, which is no YAML
        "[unclosed\n",
        "- a list\n",
        "",
    ],
)
def test_what_is_not_ours_is_passed_over(text: str) -> None:
    reading = read([file(text)])
    assert (reading.documents, reading.problems, reading.warnings) == ((), (), ())


@pytest.mark.parametrize(
    ("head", "place"),
    [
        ("kind: DataBox\n", "a.yaml:1:1"),
        ("kind: Secret\n", "a.yaml:1:1"),
        ("kind: DataBox\napiVersion: v1\n", "a.yaml:2:1"),
        ("kind: Secret\napiVersion: unified-platform.cs.hse.ru/v2\n", "a.yaml:2:1"),
    ],
)
def test_a_document_that_is_probably_ours_is_mentioned(head: str, place: str) -> None:
    reading = read([file(head)])
    assert (reading.documents, reading.problems) == ((), ())
    (warning,) = reading.warnings
    assert warning.startswith(f"{place}: apiVersion: passed over, although its kind is ")
    assert warning.endswith("should it be unified-platform.cs.hse.ru/v1?")


def test_too_much_is_refused() -> None:
    padding = "#" * 2**20
    many = [file(BOX + padding[: -len(BOX)], f"{i}.yaml") for i in range(MAX_TOTAL // 2**20 + 1)]
    (problem,) = read(many).problems
    assert str(problem).startswith("2.yaml: more than 2 MiB, 1000 documents or 100000 values of manifests: ")
    small = file("---\n".join(f"{VERSION}kind: DataBox\n" for _ in range(200)))
    (problem,) = read([small] * (MAX_DOCUMENTS // 200 + 2)).problems
    assert "1000 documents" in problem.message


def test_paths_are_written_so_that_they_cannot_be_misread() -> None:
    assert render_path(["spec", "stages", 0, "env", 12, "name"]) == "spec.stages[0].env[12].name"
    assert render_path(["stringData", "a.b"]) == 'stringData["a.b"]'
    assert render_path([]) == ""


def test_the_nearest_word_is_only_guessed_if_it_is_near() -> None:
    assert nearest("inferense", ["inference", "loader"]) == "; did you mean 'inference'?"
    assert nearest("MODELBOX", ["modelBox"]) == "; did you mean 'modelBox'?"
    assert nearest("colour", ["inference", "loader"]) == ""


# --- what other tools have there --------------------------------------------------------------------------------

OURS = "apiVersion: unified-platform.cs.hse.ru/v1\nkind: DataBox\nmetadata: {name: box}\n"
THEIRS: dict[str, str | bytes] = {
    "a Helm template": "{{- if .Values.s }}\napiVersion: v1\nkind: Secret\ndata:\n  a: {{ .Values.a }}\n{{- end }}\n",
    "a tag": "apiVersion: v1\nkind: Secret\nspec: !Ref Other\n",
    "a merge key": "kind: Secret\nbase: &b {x: 1}\nother:\n  <<: *b\n",
    "a key twice": "kind: Secret\na: 1\na: 2\n",
    "an alias without its anchor": "kind: Repository\na: *nowhere\n",
    "numbers of another YAML": "kind: Secret\na: .inf\nb: 1e999\n",
    "a comment that names a kind": "# kind: DataBox of unified-platform.cs.hse.ru/v1\non: {push: !x}\n",
    "our manifest within a text": "m: |\n  apiVersion: unified-platform.cs.hse.ru/v1\n  kind: DataBox\nx: !x\n",
    "our manifest within a sequence": "items:\n- apiVersion: unified-platform.cs.hse.ru/v1\n  x: !x\n",
    "our name in a value": "apiVersion: v1\nhost: unified-platform.cs.hse.ru\nx: !x\n",
    "no UTF-8": b"kind: Secret # caf\xe9\n",
    "a binary file": b"\0\1\2 kind: Secret \xff\xfe",
    "UTF-16": "kind: Secret\nx: !x\n".encode("utf-16"),
    "deep nesting": "kind: Secret\na: " + "[" * 100 + "]" * 100 + "\n",
    "a bomb": "kind: Secret\na: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]\n" for p, n in itertools.pairwise("abcdefg")),
    "a huge file": "kind: Secret\n" + "# much\n" * 200_000,
    "a custom resource": "apiVersion: example.org/v1\nkind: DataBox\nspec: !x\n",
    "an unfinished text": 'kind: Secret\na: "no end\n',
    "tabs": "kind: Secret\n\ta: 1\n",
    "a kustomization with our manifest as a patch": (
        "apiVersion: kustomize.config.k8s.io/v1beta1\n"
        "kind: Kustomization\n"
        "resources: [a.yaml]\n"
        "patches:\n"
        "- patch: |-\n"
        "    apiVersion: unified-platform.cs.hse.ru/v1\n"
        "    kind: DataBox\n"
        "    metadata: {name: x}\n"
        "  target: {kind: DataBox}\n"
    ),
    "services with merge keys": (
        "x-common: &common\n"
        "  restart: always\n"
        "services:\n"
        "  web:\n"
        "    <<: *common\n"
        "    image: x\n"
        "    environment:\n"
        "      KIND: kind\n"
        "secrets:\n"
        "  kind:\n"
        "    file: x\n"
    ),
    "a workflow": (
        "name: ci\n"
        "on:\n"
        "  push: {branches: [main]}\n"
        "jobs:\n"
        "  b:\n"
        "    runs-on: x\n"
        "    steps:\n"
        "    - run: |\n"
        "        kind: Secret\n"
        "        kind create cluster\n"
        "      env: {X: '${{ secrets.X }}'}\n"
        "    - uses: a/b@v1\n"
        "      with: {kind: Secret}\n"
    ),
    "a playbook with a vault": (
        "- hosts: all\n"
        "  vars:\n"
        '    a: "{{ b }}"\n'
        "    c: !vault |\n"
        "      $ANSIBLE_VAULT;1.1\n"
        "  tasks:\n"
        "  - k8s:\n"
        "      definition:\n"
        "        kind: Secret\n"
    ),
    "a directive": ("%YAML 1.1\n---\nkind: Secret\na: yes\nb: 0o7\n...\n"),
    "a directive of tags": ("%TAG !e! tag:example.org,2000:\n---\nkind: Secret\na: !e!x y\n"),
    "a template with CRLF": ("apiVersion: v1\r\nkind: Secret\r\ndata: {{ x }}\r\n"),
    "a List that holds a manifest of ours": (
        "apiVersion: v1\n"
        "kind: List\n"
        "items:\n"
        "- apiVersion: unified-platform.cs.hse.ru/v1\n"
        "  kind: DataBox\n"
        "  metadata: {name: q}\n"
    ),
    "a template that makes documents": (
        "{{- range .Values.x }}\n---\nkind: Secret\nmetadata:\n  name: {{ .n }}\n{{- end }}\n"
    ),
    "Jinja": ("{% for x in y %}\nkind: Secret\n{% endfor %}\n"),
    "an OpenAPI description": (
        "openapi: 3.0.0\ncomponents:\n  schemas:\n    kind: {type: string, enum: [Secret, DataBox]}\n"
    ),
    "a definition of our kinds for a cluster": (
        "apiVersion: apiextensions.k8s.io/v1\n"
        "kind: CustomResourceDefinition\n"
        "metadata: {name: databoxes.unified-platform.cs.hse.ru}\n"
        "spec:\n"
        "  group: unified-platform.cs.hse.ru\n"
        "  names: {kind: DataBox}\n"
        "  versions: [{name: v1, schema: !x y}]\n"
    ),
    "a helmfile": ("releases:\n- name: x\n  values:\n  - {{ .Values | toYaml | nindent 4 }}\n"),
    "CloudFormation": (
        "Resources:\n  A:\n    Type: X\n    kind: Secret\n    P: !Sub '${A}'\n    Q: !GetAtt A.B\n"
    ),
    "encrypted values": (
        "kind: Secret\ndata:\n  a: ENC[AES256_GCM,data:x,iv:y]\nsops:\n  mac: ENC[x]\n  kind: Secret\n"
    ),
    "tags of Python": ("site: x\nmarkdown_extensions:\n- a: {f: !!python/name:x.y.z }\nkind: Secret\n"),
    "an anchor twice": ("kind: Secret\na: &x 1\nb: &x 2\nc: *x\n"),
    "a sequence as a key": ("kind: Secret\n? [a, b]\n: c\n"),
    "keys that are no text": ("kind: Secret\n~: 1\n1: 2\ntrue: 3\n"),
    "a control character": ("kind: Secret\na: \u0007\n"),
    "a line end of Unicode": ("kind: Secret\na: x\u0085b: y\n"),
    "half of a character": ('kind: Secret\na: "\\ud83d"\n'),
    "a document in braces": ("{kind: Secret, a: !x b}\n"),
    "a huge number": "kind: Secret\na: 1" + "0" * 5000 + "\n",
    "numbers of C": ("kind: Secret\na: 0x1p3\nb: 1e400\nc: -.INF\n"),
    "dates that are none": ("kind: Secret\na: 2024-01-01\nb: 2024-99-99\n"),
    "sets and binaries": ("kind: Secret\na: !!set {x, y}\nb: !!binary aGk=\nc: !!omap [a: 1]\n"),
    "empty documents": ("---\n---\n---\nkind: Secret\nx: !x\n---\n"),
    "ends of documents": ("kind: Secret\nx: 1\n...\njunk: !x\n...\n"),
    "our group in another version": (
        "apiVersion: unified-platform.cs.hse.ru/v1beta1\nkind: DataBox\nspec: {}\n"
    ),
    "our group misspelt": ("apiVersion: unified-platfrom.cs.hse.ru/v1\nkind: DataBox\nspec: {}\n"),
    "our group in capitals": ("apiVersion: Unified-Platform.cs.hse.ru/v1\nkind: DataBox\n"),
    "apiVersion misspelt": ("apiversion: unified-platform.cs.hse.ru/v1\nkind: DataBox\n"),
    "a list for apiVersion": ("apiVersion: [unified-platform.cs.hse.ru/v1]\nkind: DataBox\n"),
    "a number for apiVersion": ("apiVersion: 1\nkind: DataBox\n"),
    "a list for kind": ("kind: [Secret]\napiVersion: {a: b}\n"),
    "nothing for kind": ("kind:\napiVersion:\n"),
    "our group alone": ("unified-platform.cs.hse.ru/v1\n"),
    "Liquid": ("kind: Secret\na: {% if x %}y{% endif %}\n"),
    "ERB": ("kind: Secret\n<% if x %>\na: 1\n<% end %>\n"),
    "a conflict of a merge": ("<<<<<<< HEAD\nkind: Secret\n=======\nkind: DataBox\n>>>>>>> x\n"),
    "a line with a percent sign": ("kind: Secret\n%foo\n"),
    "mappings in mappings": "kind: Secret\n" + "".join("  " * depth + "a:\n" for depth in range(300)),
    "a long line": "kind: Secret\na: " + "x" * 500_000 + "\n",
    "NUL": ("kind: Secret\na: \u0000\n"),
    "a marker of documents in a text": ("kind: Secret\na: |\n  ---\n  x\nb: !x\n"),
    "one in quotes": ('kind: Secret\na: "x\n  --- y"\nb: !x\n'),
}


def theirs(case: str) -> bytes:
    content = THEIRS[case]
    return content if isinstance(content, bytes) else content.encode()


@pytest.mark.parametrize("case", THEIRS)
def test_a_file_of_another_tool_is_no_problem_of_the_commit(case: str) -> None:
    reading = read([SourceFile("a.yaml", theirs(case)), SourceFile("b.yaml", OURS.encode())])
    assert reading.problems == ()
    assert [document.name for document in reading.documents] == ["box"]


@pytest.mark.parametrize("case", sorted(THEIRS.keys() - {"UTF-16", "a huge file", "a bomb", "a binary file"}))
@pytest.mark.parametrize("ours_first", [True, False])
def test_nor_is_its_document_in_a_file_that_it_shares_with_us(case: str, ours_first: bool) -> None:
    parts = [OURS.encode(), theirs(case)]
    content = b"---\n".join(parts if ours_first else reversed(parts))
    reading = read([SourceFile("a.yaml", content)])
    assert reading.problems == ()
    (document,) = reading.documents
    line = 1 if ours_first else theirs(case).count(b"\n") + 2
    assert document.node.place(["kind"]) == (line + 1, 1)


@pytest.mark.parametrize(
    "ours",
    [
        OURS + "spec: !x\n",
        OURS + "kind: DataBox\n",
        OURS + "spec: {{ .Values.x }}\n",
        OURS + 'spec: "no end\n',
        "# a comment\n" + OURS + "a: *nowhere\n",
        "kind: DataBox\nspec: !x\napiVersion: unified-platform.cs.hse.ru/v1\n",
        "  kind: DataBox\n  apiVersion: 'unified-platform.cs.hse.ru/v1'\n  spec: !x\n",
        '{"apiVersion": "unified-platform.cs.hse.ru/v1", "kind": !x "DataBox"}\n',
        '{\n  "kind": "DataBox",\n  "apiVersion": "unified-platform.cs.hse.ru/v1",\n  "a": [}\n',
        '"apiVersion": unified-platform.cs.hse.ru/v1\nspec: !x\n',
        "apiVersion: unified-platform.cs.hse.ru/v2\nspec: !x\n",
    ],
)
@pytest.mark.parametrize("before", ["", THEIRS["a Helm template"]], ids=["alone", "behind a template"])
def test_a_broken_document_that_is_evidently_ours_is_a_problem_with_its_place(ours: str, before: Any) -> None:
    content = f"{before}---\n{ours}" if before else ours
    reading = read([SourceFile("a.yaml", content.encode())])
    assert reading.problems
    first = (before.count("\n") + 2) if before else 1
    assert all(problem.line >= first for problem in reading.problems)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(sorted(THEIRS.keys() - {"UTF-16", "a huge file", "a bomb", "a binary file"})),
        max_size=4,
    ),
    st.lists(st.integers(0, 4), max_size=3),
    st.booleans(),
)
def test_ours_are_found_between_whatever_documents(cases: list[str], places: list[int], crlf: bool) -> None:
    parts = [theirs(case) for case in cases]
    for place in places:
        parts.insert(place, OURS.encode())
    content = b"".join(
        part if part.endswith(b"\n") else part + b"\n" for part in [p + b"\n---\n" for p in parts]
    )
    reading = read([SourceFile("a.yaml", content.replace(b"\n", b"\r\n") if crlf else content)])
    assert reading.problems == ()
    assert [document.name for document in reading.documents] == ["box"] * len(places)


def test_a_document_of_a_kind_of_ours_that_cannot_be_read_is_mentioned() -> None:
    reading = read([SourceFile("a.yaml", b"kind: MLComponent\nspec: !x\n")])
    assert (reading.documents, reading.problems) == ((), ())
    (warning,) = reading.warnings
    assert warning.startswith("a.yaml:2:")


def test_a_link_that_leads_to_no_file_is_mentioned() -> None:
    reading = read([SourceFile("a.yaml", b"", passed_over="leads nowhere")])
    assert reading.warnings == ("a.yaml: leads nowhere",)


VALUES = "  a: [" + "1," * 9_000 + "]\n"


def test_many_values_in_many_files() -> None:
    """Each file by itself is within the bounds."""
    many = [file(f"{BOX}x:\n{VALUES}", f"{i:02}.yaml") for i in range(30)]
    (problem,) = read(many).problems
    assert "100000 values of manifests" in problem.message
    assert problem.file == "12.yaml", "what comes after that is not read"


def test_many_values_in_files_of_others() -> None:
    """They are not problems of the commit, and cost no more than their share; ours among them are read."""
    many = [file(f"kind: Secret\nx:\n{VALUES}", f"{i:02}.yaml") for i in range(30)]
    found = read([*many, file(BOX, "99.yaml")])
    assert found.problems == ()
    assert [document.file for document in found.documents] == ["99.yaml"]
    assert [
        warning
        for warning in found.warnings
        if "passed over" in warning and warning.startswith("04.yaml: files")
    ]


@pytest.mark.parametrize(
    "rest",
    ["---\na\n", "--- \n", "---\nkind: MLComponent\nx: !y z\n", "---\nkind: Secret\n"],
)
def test_a_file_of_many_documents_that_cannot_be_read(rest: str) -> None:
    """A quarter of a megabyte; each document by itself is read at most once, and no line before it again."""
    begun = time.process_time()
    found = read([file("kind: Secret\nx: !y z\n" + rest * (250_000 // len(rest)), "a.yaml")])
    assert time.process_time() - begun < 10
    assert found.documents == ()


def test_a_document_read_by_itself_has_its_place_in_the_file() -> None:
    text = "a: !x y\n---\n" + "b: 1\n" * 5 + "---\n" + VERSION + "kind: DataBox\nmetadata: {name: [}\n"
    (problem,) = read([file(text, "a.yaml")]).problems
    assert problem.line == 11
