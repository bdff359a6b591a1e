"""The JSON Schemas of `manifests-schema/` as the controller uses them: compiled once, no network, no file but ours.

The folder lies inside of this package under the name `schemas` (a link in the repository, real files in a
wheel), so that editors and the controller read the same files and agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.manifests import formats
from controller.manifests.explain import explain
from controller.manifests.reader import ManifestDocument
from controller.yaml_documents import Json, Node

Schema = dict[str, Any]


def check(document: ManifestDocument) -> Iterator[ManifestProblem]:
    """Return every violation of the kind's schema in a document."""
    errors = list(_validator(document.kind).iter_errors(document.node.value))
    wrong_type = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    seen: set[ManifestProblem] = set()
    for error in errors:
        place = tuple(error.absolute_path)
        if error.validator != "type" and place in wrong_type:
            continue  # follows from it
        for path, message in explain(error):
            problem = document.problem(path, message)
            if problem not in seen and not document.node.at(path).refused:
                seen.add(problem)
                yield problem


def with_defaults(document: ManifestDocument) -> ManifestDocument:
    """Return a valid document with the defaults of its kind's schema in place of what it leaves out. No default of a
    manifest stands anywhere else."""
    return replace(document, node=filled(document.node, schema(document.kind)))


def filled(node: Node, by: Schema) -> Node:
    """`node` with the defaults of the schema `by`; each stands at the place of the mapping that lacks it."""
    children = dict(node.children)
    if isinstance(node.value, list):
        children = {index: filled(child, by.get("items", {})) for index, child in children.items()}
        return replace(node, value=[child.value for child in children.values()], children=children)
    if not isinstance(node.value, dict):
        return node
    for name, part in by.get("properties", {}).items():
        if name in children:
            children[name] = filled(children[name], part)
        elif "default" in part:
            children[name] = filled(_default(part["default"], node), part)
    return replace(node, value={str(key): child.value for key, child in children.items()}, children=children)


def _default(value: Json, at: Node) -> Node:
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return Node(value, at.line, at.column, {key: _default(item, at) for key, item in items})


@cache
def schema(kind: ComponentKind) -> Schema:
    """Return the schema of a kind with all references resolved in place: the definitions are not recursive,
    and looking them up at each use would take half of the time of a validation."""
    root = _file(f"{kind}.schema.json")
    resolved = _resolve(root, root)
    assert isinstance(resolved, dict)
    return resolved


@cache
def _file(name: str) -> Schema:
    text = resources.files("controller.manifests").joinpath("schemas", name).read_text(encoding="utf-8")
    content: Schema = json.loads(text)
    return content


def _resolve(node: Any, root: Schema) -> Any:
    """Replace `{"$ref": …, "description": …}` by the definition, with the annotations of the reference."""
    if isinstance(node, list):
        return [_resolve(item, root) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {key: _resolve(value, root) for key, value in node.items() if key != "$defs"}
    file, _, pointer = node["$ref"].partition("#/")
    target_root = _file(file) if file else root
    target: Any = target_root
    for step in pointer.split("/"):
        target = target[step]
    own = {key: value for key, value in node.items() if key != "$ref"}
    return {**_resolve(target, target_root), **own}


@cache
def _validator(kind: ComponentKind) -> Draft202012Validator:
    validator: Draft202012Validator = _Validator(schema(kind), format_checker=formats_of())
    return validator


@cache
def formats_of() -> FormatChecker:
    """Return the formats that our schemas use."""
    checker = FormatChecker(())
    for name, is_valid in formats.CHECKS.items():
        checker.checks(name)(lambda value, ok=is_valid: not isinstance(value, str) or ok(value))
    return checker


def _pattern(_: Any, pattern: str, instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """JSON Schema's patterns are ECMAScript's, in which `$` is the very end; Python's lets a newline follow."""
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError(f"does not match {pattern!r}")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern, re.ASCII)


_Validator = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
