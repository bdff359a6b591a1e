"""Reads a template: its description and its files become a `Template`, or the list of everything that is wrong with it.
Nobody has checked what is in them before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator

from controller.domain.apps.spec import Limits
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.templates import (
    DESCRIPTION,
    FILES,
    MOST_VARIABLES,
    Template,
    TemplateFile,
    TemplateVariable,
    VariableType,
    Words,
    files_problem,
    undeclared,
    variable_problem,
)
from controller.domain.units import parse_size
from controller.yaml_documents import Node, parse

_WORDS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["en", "ru"],
    "properties": {
        language: {"type": "string", "minLength": 1, "maxLength": 1000} for language in ("en", "ru")
    },
}
_VARIABLE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "title", "default"],
    "properties": {
        "name": {"type": "string", "maxLength": 31},
        "title": _WORDS,
        "type": {"enum": [str(kind) for kind in VariableType]},
        "default": {"type": ["string", "integer"]},
        "pattern": {"type": "string"},
        "options": {
            "type": "array",
            "minItems": 1,
            "maxItems": 50,
            "uniqueItems": True,
            "items": {"type": "string"},
        },
    },
}
SCHEMA: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "text"],
    "properties": {
        "title": _WORDS,
        "text": _WORDS,
        "manifests": {"type": "string", "pattern": r"^(?:\.|[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+){0,9})\Z"},
        "limits": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "cpus": {"type": "number", "exclusiveMinimum": 0, "maximum": 1024},
                "memory": {"type": ["string", "integer"]},
                "storage": {"type": ["string", "integer"]},
                "gpus": {"type": "integer", "minimum": 0, "maximum": 1024},
                "containers": {"type": "integer", "minimum": 0, "maximum": 100_000},
            },
        },
        "variables": {"type": "array", "maxItems": MOST_VARIABLES, "items": _VARIABLE},
    },
}


@dataclass(frozen=True)
class LoadedTemplate:
    template: Template
    files: tuple[TemplateFile, ...]


def load_template(name: str, content: Iterable[TemplateFile]) -> LoadedTemplate:
    """Return the template whose folder has these files. Raises ManifestInvalid with all problems."""
    content = tuple(content)
    description = next((file for file in content if file.path == DESCRIPTION), None)
    if description is None:
        raise ManifestInvalid(
            (
                _problem(
                    Localizable(
                        "there is no {description}, which describes the template", description=DESCRIPTION
                    )
                ),
            )
        )
    root = _root(description.content)
    template = _template(name, root)
    files = tuple(
        TemplateFile(file.path.removeprefix(FILES), file.content, file.executable)
        for file in content
        if file.path.startswith(FILES)
    )
    if problem := files_problem(files):
        raise ManifestInvalid((ManifestProblem(FILES, 0, 0, "", problem),))
    problems = tuple(_unfilled(template, files))
    if problems:
        raise ManifestInvalid(problems)
    return LoadedTemplate(template, files)


def _problem(message: str, node: Node | None = None, field: str = "") -> ManifestProblem:
    line, column = (node.line, node.column) if node else (0, 0)
    return ManifestProblem(DESCRIPTION, line, column, field, message)


def _root(content: bytes) -> Node:
    parsed = parse(DESCRIPTION, content)
    if parsed.problems:
        raise ManifestInvalid(parsed.problems)
    if len(parsed.documents) != 1:
        raise ManifestInvalid((_problem(Localizable("must have one document")),))
    root = parsed.documents[0]
    problems = tuple(_violations(root))
    if problems:
        raise ManifestInvalid(problems)
    return root


def _violations(root: Node) -> Iterator[ManifestProblem]:
    for error in Draft202012Validator(SCHEMA).iter_errors(root.value):
        path = tuple(error.absolute_path)
        line, column = root.place(path)
        yield ManifestProblem(DESCRIPTION, line, column, ".".join(map(str, path)), error.message[:300])


def _template(name: str, root: Node) -> Template:
    raw: Any = root.value
    variables = tuple(_variable(each) for each in raw.get("variables", ()))
    problems = list(_wrong_variables(root, variables))
    try:
        limits = _limits(raw.get("limits", {}))
    except ValueError as error:
        problems.append(_problem(str(error), root.at(("limits",)), "limits"))
        limits = Limits()
    if problems:
        raise ManifestInvalid(tuple(problems))
    return Template(
        name, Words(**raw["title"]), Words(**raw["text"]), variables, limits, raw.get("manifests", ".")
    )


def _wrong_variables(root: Node, variables: tuple[TemplateVariable, ...]) -> Iterator[ManifestProblem]:
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        problem = variable_problem(variable)
        if variable.name in seen:
            problem = Localizable("there is another variable {variable!r}", variable=variable.name)
        seen.add(variable.name)
        if problem:
            yield _problem(problem, root.at(("variables", index)), f"variables.{index}")


def _variable(raw: Any) -> TemplateVariable:
    return TemplateVariable(
        raw["name"],
        VariableType(raw.get("type", VariableType.TEXT)),
        Words(**raw["title"]),
        str(raw["default"]),
        raw.get("pattern", ""),
        tuple(raw.get("options", ())),
    )


def _limits(raw: Any) -> Limits:
    return Limits(
        cpus=float(raw["cpus"]) if "cpus" in raw else None,
        memory=parse_size(raw["memory"]) if "memory" in raw else None,
        storage=parse_size(raw["storage"]) if "storage" in raw else None,
        containers=raw.get("containers"),
        gpus=raw.get("gpus"),
    )


def _unfilled(template: Template, files: tuple[TemplateFile, ...]) -> Iterator[ManifestProblem]:
    for path, line, name in undeclared(template, files):
        message = Localizable(
            "{{ {name} }} stands for a variable that {description} does not declare",
            name=name,
            description=DESCRIPTION,
        )
        yield ManifestProblem(FILES + path, line, 1, "", message)
