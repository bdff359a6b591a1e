"""Which documents are ours, and what is said of those that nearly are."""

from __future__ import annotations

import pytest

from controller.domain.spec import Kind
from controller.manifests.reader import MAX_DOCUMENTS, MAX_TOTAL, nearest, read, render_path
from controller.ports import SourceFile
from tests.support.manifests import VERSION

BOX = f"{VERSION}kind: DataBox\nmetadata: {{name: weights}}\nspec: {{s3DefaultStorage: {{}}}}\n"


def file(text: str, path: str = "a.yaml") -> SourceFile:
    return SourceFile(path, text.encode())


def test_documents_come_in_order_with_file_kind_and_name() -> None:
    reading = read([file(BOX, "b.yml"), file(f"{BOX}---\n{BOX}", "sub/a.yaml")])
    assert [(d.file, d.kind, d.name) for d in reading.documents] == [
        ("b.yml", Kind.DATA_BOX, "weights"),
        ("sub/a.yaml", Kind.DATA_BOX, "weights"),
        ("sub/a.yaml", Kind.DATA_BOX, "weights"),
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
    assert str(problem).startswith("2.yaml: more than 2 MiB or 1000 documents of manifests: ")
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
