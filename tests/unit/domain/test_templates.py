"""What templates may declare, what their variables take, and what is made of their files."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.templates import (
    LONGEST_VALUE,
    MOST_FILE,
    MOST_FILES,
    Template,
    TemplateFile,
    TemplateVariable,
    VariableType,
    Words,
    files_problem,
    path_problem,
    pattern_problem,
    render,
    undeclared,
    values_of,
    variable_problem,
    with_defaults,
)

WORDS = Words("a", "б")


def variable(kind: VariableType = VariableType.TEXT, **more: object) -> TemplateVariable:
    return replace(TemplateVariable("size", kind, WORDS), **more)  # type: ignore[arg-type]


def template(*variables: TemplateVariable) -> Template:
    return Template("demo", WORDS, WORDS, variables)


@pytest.mark.parametrize(
    ("kind", "more", "good", "bad"),
    [
        (VariableType.TEXT, {}, ["", "Ünïcode текст", "x" * 100], ["a\nb", "\0", "\x1b[1m", "x" * 101]),
        (VariableType.TEXT, {"pattern": "[a-z]{1,3}"}, ["a", "abc"], ["", "abcd", "A", "a\n"]),
        (VariableType.NAME, {}, ["a", "a-b"], ["", "A", "-a", "имя", "a_b", "a" * 64]),
        (VariableType.NUMBER, {}, ["0", "-5", "1000000000000000"], ["", "1.5", "1e3", "٣", "9" * 17, "x"]),
        (VariableType.CHOICE, {"options": ("x", "y")}, ["x"], ["", "z", "X"]),
    ],
)
def test_values(kind: VariableType, more: dict[str, object], good: list[str], bad: list[str]) -> None:
    asked = variable(kind, **more)
    assert [value for value in good if asked.problem(value)] == []
    assert [value for value in bad if not asked.problem(value)] == []


@pytest.mark.parametrize("pattern", ["[A-Za-z]{1,20}", "v[0-9]+", r"[^<>&\\]{1,80}", r"a\.b", "x*y*z*", ""])
def test_patterns_that_are_taken(pattern: str) -> None:
    assert pattern_problem(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "a|b",
        "a?a?a?a?",
        "^a$",
        r"\d+",
        r"(?i)a",
        "[a",
        "a{1,2}{3}b{1,2}*",
        "a**",
        r"\1",
        "x" * 201,
        "a)(",
    ],
)
def test_patterns_that_are_not_taken(pattern: str) -> None:
    assert pattern_problem(pattern) != ""


def test_the_worst_pattern_is_matched_quickly() -> None:
    worst = variable(pattern="[a-z]*[a-z]*[a-z]*!")
    assert variable_problem(replace(worst, default="!")) == ""
    begun = time.process_time()
    assert worst.problem("a" * LONGEST_VALUE)
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (variable(name="app"), "cannot be the name"),
        (variable(name="Größe"), "cannot be the name"),
        (variable(options=("a",)), "options belong"),
        (variable(VariableType.CHOICE), "options belong"),
        (variable(VariableType.NAME, default="a", pattern="a"), "only the type 'text'"),
        (variable(pattern="(a)"), "its pattern"),
        (variable(VariableType.NUMBER, default="many"), "its default 'many' must be a whole number"),
    ],
)
def test_variables_that_are_refused(declared: TemplateVariable, told: str) -> None:
    assert told in variable_problem(declared)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        ".git/config",
        "x/.GIT/hooks/post-receive",
        "a\nb",
        "имя",
        "-x",
        "",
        "a b",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    assert path_problem(path) != ""
    assert path in files_problem([TemplateFile(path, b"")])


@pytest.mark.parametrize("path", ["README.md", ".dockerignore", "app/__init__.py", "a-b/c+d.txt"])
def test_paths_that_are_taken(path: str) -> None:
    assert files_problem([TemplateFile(path, b"")]) == ""


def test_files_are_bounded() -> None:
    assert "no file" in files_problem([])
    assert "1 MiB" in files_problem([TemplateFile("a", b"x" * (MOST_FILE + 1))])
    assert "4 MiB" in files_problem([TemplateFile(f"f{i}", b"x" * MOST_FILE) for i in range(5)])
    assert str(MOST_FILES) in files_problem([TemplateFile(f"f{i}", b"") for i in range(MOST_FILES + 1)])


def test_rendering() -> None:
    files = (
        TemplateFile("a.py", b"name = '{{ app }}'  # {{size}} {{ other }} {{ 1 + 1 }} {% for x in y %}"),
        TemplateFile("b.bin", b"\0{{ app }}"),
        TemplateFile("c.txt", "{{ app }} \u043f".encode("cp1251"), executable=True),
    )
    made = {file.path: file for file in render(files, "demo", {"size": "{{ app }}"})}
    assert made["a.py"].content == b"name = 'demo'  # {{ app }} {{ other }} {{ 1 + 1 }} {% for x in y %}"
    assert made["b.bin"].content == files[1].content
    assert (made["c.txt"].content, made["c.txt"].executable) == (files[2].content, True)


def test_places_that_no_variable_fills_are_found() -> None:
    file = TemplateFile("a", b"{{ app }}\n{{ size }}\n\n{{ sise }}")
    assert list(undeclared(template(variable()), [file])) == [("a", 4, "sise")]


def test_values_of_a_template() -> None:
    asked = template(variable(VariableType.NUMBER, default="3"))
    assert values_of(asked, {}) == ({"size": "3"}, ())
    assert values_of(asked, {"size": "4"}) == ({"size": "4"}, ())
    _, problems = values_of(asked, {"size": "x", "sise": "1"})
    assert [re.sub(r"[^a-z ]", "", each) for each in problems] == [
        "there is no variable sise the template demo has size",
        "size must be a whole number it is x",
    ]


def test_defaults_of_a_host_count_as_far_as_they_fit() -> None:
    asked = template(variable(VariableType.NUMBER, default="3"))
    assert with_defaults(asked, {"size": "7", "other": "x"}).variables[0].default == "7"
    assert with_defaults(asked, {"size": "x"}) == asked


@given(st.text(max_size=60), st.text(max_size=30))
def test_what_was_filled_in_is_never_read_again(text: str, value: str) -> None:
    content = ("{{ size }}" + text).encode("utf-8", "replace")
    (made,) = render(
        [TemplateFile("a", content)], "demo", {"size": value.encode("utf-8", "replace").decode()}
    )
    if b"\0" not in content:
        assert made.content.startswith(value.encode("utf-8", "replace"))
