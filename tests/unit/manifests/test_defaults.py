"""A default of a manifest stands in its schema and nowhere else: changing it there changes what is built."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

import pytest

from controller.config import DefaultLimits
from controller.domain.apps.spec import ComponentKind, PlatformAppSpec
from controller.manifests import components, platform_spec
from controller.manifests.reader import ManifestDocument, read
from controller.manifests.schema import Schema, filled, schema, with_defaults
from controller.ports import SourceFile
from tests.support.pages import ROOT
from tests.support.specs import MODULE, PLATFORM, make

Location = tuple[str, ...]
Field = tuple[type, str]


def _defaults(part: Schema, path: Location = ()) -> Iterator[Location]:
    """Yield the place of each default. Those of mappings only say that the defaults in them hold."""
    if "default" in part and part["default"] != {}:
        yield path
    for name, inner in part.get("properties", {}).items():
        yield from _defaults(inner, (*path, "properties", name))
    if "items" in part:
        yield from _defaults(part["items"], (*path, "items"))


def _name(part: object) -> str:
    return ".".join(step for step in part if step != "properties") if isinstance(part, tuple) else str(part)


DEFAULTS = [(kind, path) for kind in ComponentKind for path in _defaults(schema(kind))]


@pytest.fixture(scope="module", name="documents")
def _documents() -> tuple[ManifestDocument, ...]:
    return read(SourceFile(f"{i}.yaml", text.encode()) for i, text in enumerate((MODULE, PLATFORM))).documents


def _build(document: ManifestDocument) -> object:
    limits = DefaultLimits()
    match document.kind:
        case ComponentKind.ML_COMPONENT:
            return components.ml_component(document, limits)
        case ComponentKind.EXPERIMENT_PIPELINE:
            return components.pipeline(document, limits)
        case ComponentKind.API_COMPONENT:
            return components.api(document)
        case ComponentKind.DATA_BOX:
            return components.box(document)
        case ComponentKind.NOTIFICATION:
            return components.notification(document)
        case ComponentKind.REPOSITORY:
            return platform_spec.repository(document)
        case _:
            return platform_spec.app(document, limits)


def _other(part: Mapping[str, Any]) -> object:
    """Return another value than the default that the field can have."""
    default = part["default"]
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case {"datatypes": _}:
            return {"datatypes": ["str"]}
    if options := [option for option in part.get("enum", ()) if option != default]:
        return options[0]
    if part.get("format") == "timezone":
        return "Europe/Moscow"
    if default[-1] == "%":
        return "11%"
    return "11s" if default[0].isdigit() and default[-1] != "G" else "2G" if default[-1] == "G" else "other"


def _changed(kind: ComponentKind, path: Location) -> Schema:
    """Return a copy of the schema with another default at `path`."""
    copy = deepcopy(schema(kind))
    part = copy
    for step in path:
        part = part[step]
    part["default"] = _other(part)
    return copy


def _differences(one: object, other: object) -> Iterator[Field]:
    """Yield the innermost fields in which two specifications differ."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for mine, theirs in zip(one, other, strict=True):
            yield from _differences(mine, theirs)
    if not is_dataclass(one) or type(one) is not type(other):
        return
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if mine != theirs:
            inner = tuple(_differences(mine, theirs))
            yield from inner or ((type(one), field.name),)


def _decided_by(documents: tuple[ManifestDocument, ...], kind: ComponentKind, path: Location) -> set[Field]:
    """Return the fields of specifications that the default at `path` decides."""
    changed = _changed(kind, path)
    found: set[Field] = set()
    for document in documents:
        if document.kind is kind:
            before = _build(with_defaults(document))
            try:
                after = _build(replace(document, node=filled(document.node, changed)))
            except KeyError:  # with another kind of server, other fields are needed
                continue
            found |= set(_differences(before, after))
    return found


@pytest.mark.parametrize(("kind", "path"), DEFAULTS, ids=_name)
def test_a_default_of_the_schema_decides(
    documents: tuple[ManifestDocument, ...], kind: ComponentKind, path: Location
) -> None:
    assert _decided_by(documents, kind, path), "the default is not taken from the schema"


@pytest.mark.parametrize(("kind", "path"), DEFAULTS, ids=_name)
def test_no_specification_has_a_default_of_its_own(
    documents: tuple[ManifestDocument, ...], kind: ComponentKind, path: Location
) -> None:
    untied = [
        f"{of.__name__}.{field.name}"
        for of, name in _decided_by(documents, kind, path)
        for field in fields(of)
        if field.name == name and (field.default is not MISSING or field.default_factory is not MISSING)
    ]
    assert untied == []


def test_no_reader_of_manifests_has_a_default_of_its_own() -> None:
    """`spec.get("replicas", 1)` would be one. An empty value in place of what is left out is allowed."""
    untied = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted((ROOT / "controller" / "manifests").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _gives_a_default(node)
    ]
    assert untied == []


def _gives_a_default(call: ast.Call) -> bool:
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="document" | "api") | ast.Subscript(), attr="get")
        ):
            return False  # of a ManifestDocument, whose `get` takes a path
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(), ast.Constant(value=value)]):
            return bool(value)
        case ast.Call(
            func=ast.Attribute(attr="get"),
            args=[ast.Constant(), ast.List(elts=items) | ast.Tuple(elts=items)],
        ):
            return bool(items)
        case ast.Call(
            func=ast.Attribute(attr="get"), args=[ast.Constant(), ast.Attribute(value=ast.Name(id=of))]
        ):
            return of != "limits"  # which are the configuration's
    return False


def test_a_default_stands_at_the_place_of_what_lacks_it(documents: tuple[ManifestDocument, ...]) -> None:
    document = documents[0]
    whole = with_defaults(document)
    assert document.get("spec", "replicas") is None
    assert whole.get("spec", "replicas") == 1
    assert whole.get("spec", "rollout", "drainTimeout") == "30s"
    place = ("spec", "rollout", "drainTimeout")
    assert whole.node.place(place) == document.node.place(place)


def test_what_a_manifest_says_stays(documents: tuple[ManifestDocument, ...]) -> None:
    for document in documents:
        whole = with_defaults(document)
        assert with_defaults(whole) == whole
        assert _lacks(document.node.value, whole.node.value) == []


def _lacks(part: Any, whole: Any) -> list[object]:
    """Return what `part` says and `whole` does not."""
    match part:
        case dict():
            return [lack for key, value in part.items() for lack in _lacks(value, whole[key])]
        case list():
            return [lack for value, item in zip(part, whole, strict=True) for lack in _lacks(value, item)]
    return [] if part == whole else [part]


def test_the_builder_of_tests_takes_what_manifests_give() -> None:
    app = make(PlatformAppSpec, "demo", prune=False)
    assert (app.name, app.path, app.prune, app.suspend) == ("demo", ".", False, False)
    assert app.registries == ()
