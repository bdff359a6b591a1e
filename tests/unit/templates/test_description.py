"""Descriptions of templates that nobody has checked before."""

from __future__ import annotations

import pytest

from controller.domain.errors import ManifestInvalid
from controller.domain.templates import TemplateFile
from controller.templates.description import load_template

HEAD = "title: {en: Demo, ru: Проба}\ntext: {en: Text, ru: Текст}\n"
GOOD = (
    HEAD
    + """manifests: manifests
limits: {cpus: 0.5, memory: 256Mi, storage: 1G, gpus: 1, containers: 3}
variables:
  - {name: size, type: number, title: {en: Size, ru: Размер}, default: 3}
  - {name: kind, type: choice, title: {en: Kind, ru: Вид}, options: [a, b], default: b}
"""
)


def folder(description: str, **files: bytes) -> list[TemplateFile]:
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return [
        TemplateFile("template.yaml", description.encode()),
        TemplateFile("README.md", b"for people who look at the template"),
        *(TemplateFile(f"files/{name}", content) for name, content in (named or {"a": b"{{ app }}"}).items()),
    ]


def test_a_template() -> None:
    loaded = load_template("demo", folder(GOOD, app__run=b"{{ size }} {{ kind }}"))
    assert loaded.template.title.in_language("ru") == "Проба"
    assert [variable.default for variable in loaded.template.variables] == ["3", "b"]
    assert (loaded.template.limits.memory, loaded.template.limits.gpus) == (256 * 2**20, 1)
    assert [file.path for file in loaded.files] == ["app/run"]


@pytest.mark.parametrize(
    ("description", "place"),
    [
        ("", "template.yaml"),
        ("title: [", "template.yaml:"),
        (HEAD + "---\n" + HEAD, "must have one document"),
        ("- a\n", "template.yaml:1:1"),
        (HEAD + "hooks: [rm -rf /]\n", "template.yaml:"),
        (HEAD.replace("ru: Проба", "de: Probe"), "template.yaml:1:"),
        (HEAD + "title: {en: a, ru: b}\n", "template.yaml:3:"),
        (HEAD + "manifests: ../..\n", "template.yaml:3:1: manifests"),
        (HEAD + "limits: {memory: much}\n", "template.yaml:3:"),
        (HEAD + "limits: {cpus: -1}\n", "limits.cpus"),
        (HEAD + "limits: {gpus: true}\n", "limits.gpus"),
        (GOOD.replace("default: 3", "default: many"), "template.yaml:6:5: variables.0"),
        (GOOD.replace("name: kind", "name: size"), "another variable"),
        (GOOD.replace("name: kind", "name: app"), "variables.1"),
        (GOOD.replace("default: 3", "default: 3, pattern: (a+)+"), "variables.0"),
        (HEAD + "x: &a [1, 2]\n" + "".join(f"y{i}: [*a, *a]\n" for i in range(9000)), "template.yaml"),
    ],
)
def test_broken_descriptions_are_refused_with_the_place(description: str, place: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        load_template("demo", folder(description))
    assert place in refused.value.message


def test_files_are_refused_with_the_place() -> None:
    with pytest.raises(ManifestInvalid, match=r"files/.*\.git/config cannot be in a repository"):
        load_template("demo", [*folder(HEAD), TemplateFile("files/.git/config", b"")])
    with pytest.raises(ManifestInvalid, match=r"files/a:2:1: \{\{ typo \}\} stands for a variable"):
        load_template("demo", folder(HEAD, a=b"\n{{ typo }}"))
    with pytest.raises(ManifestInvalid, match="no file below"):
        load_template("demo", [TemplateFile("template.yaml", HEAD.encode())])
    with pytest.raises(ManifestInvalid, match=r"there is no template\.yaml"):
        load_template("demo", [TemplateFile("files/a", b"")])
