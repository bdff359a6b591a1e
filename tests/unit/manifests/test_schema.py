"""The schemas themselves: complete, right by the standard's own meta-schema, and of one mind with the controller."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from controller.domain.apps.spec import ComponentKind
from controller.domain.units import DURATION, SIZE
from controller.manifests.reader import ManifestDocument
from controller.manifests.schema import check, formats_of, schema
from controller.yaml_documents import parse
from tests.support.manifests import app_problems, platform_problems

FOLDER = Path(__file__).parent.parent.parent.parent / "manifests-schema"
FILES = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
SYSTEM = (ComponentKind.REPOSITORY, ComponentKind.PLATFORM_APP)


@cache
def standard_validator(kind: ComponentKind, with_formats: bool = True) -> Draft202012Validator:
    """As an editor would use the files: references resolved by the standard's rules, nothing of ours but formats."""
    registry = Registry().with_resources((name, Resource.from_contents(file)) for name, file in FILES.items())
    checker = formats_of() if with_formats else None
    return Draft202012Validator(
        {**FILES[f"{kind}.schema.json"], "$id": f"{kind}.schema.json"},
        registry=registry,
        format_checker=checker,
    )


def document_of(manifest: Any) -> ManifestDocument:
    node = parse("x.yaml", json.dumps(manifest).encode()).documents[0]
    return ManifestDocument("x.yaml", ComponentKind(manifest["kind"]), "", node)


def nodes(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All parts of a schema file that are mappings, with their JSON pointers."""
    if isinstance(part, dict):
        yield path, part
    for key, child in (
        part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    ):
        if key not in ("examples", "x-invalid-examples"):
            yield from nodes(child, f"{path}/{key}")


# --- the files --------------------------------------------------------------------------------------------------


def test_there_is_a_schema_for_each_kind_and_nothing_else() -> None:
    assert set(FILES) == {f"{kind}.schema.json" for kind in ComponentKind} | {"common.json"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_file_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(FILES[name])
    assert FILES[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("kind", ComponentKind)
def test_each_field_is_described_and_closed(kind: ComponentKind) -> None:
    def walk(part: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in part.get("properties", {}).items():
            if not field.get("description"):
                yield f"{path}.{name} has no description"
            yield from walk(field, f"{path}.{name}")
            yield from walk(field.get("items", {}), f"{path}.{name}[]")
        if part.get("type") == "object" and "additionalProperties" not in part:
            yield f"{path} is open"

    assert list(walk(schema(kind), "")) == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_beside_a_reference_stand_annotations_only(name: str) -> None:
    """The controller resolves references in place, which is only the same if nothing beside them constrains."""
    besides = {key for _, part in nodes(FILES[name]) if "$ref" in part for key in part}
    assert besides <= {"$ref", "title", "description", "default"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_value_has_words_for_its_problems(name: str) -> None:
    """Whatever has a type has a title, which completes 'must be …'."""
    wordless = [
        path
        for path, part in nodes(FILES[name])
        if "type" in part and "title" not in part and not path.endswith("/properties")
    ]
    assert wordless == []


def test_the_patterns_of_units_are_those_of_the_controller() -> None:
    definitions = FILES["common.json"]["$defs"]
    assert definitions["duration"]["pattern"] == DURATION
    assert definitions["size"]["pattern"].replace("(?=.*[1-9])", "") == SIZE


# --- the examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ComponentKind)
def test_examples_are_valid_for_the_controller_and_for_others(kind: ComponentKind) -> None:
    for example in schema(kind)["examples"]:
        assert list(check(document_of(example))) == []
        assert standard_validator(kind).is_valid(example)


@pytest.mark.parametrize("kind", ComponentKind)
def test_invalid_examples_have_the_problems_that_they_name(kind: ComponentKind) -> None:
    for example in schema(kind)["x-invalid-examples"]:
        found = sorted(check(document_of(example["manifest"])))
        assert [f"{p.field}: {p.message}".removeprefix(": ") for p in found] == example["problems"]
        assert not standard_validator(kind).is_valid(example["manifest"])


def test_a_line_end_after_a_value_is_no_part_of_it() -> None:
    """In Python's regular expressions `$` lets one follow, in those of JSON Schema it does not."""
    manifest = {**schema(ComponentKind.DATA_BOX)["examples"][1], "metadata": {"name": "weights\n"}}
    (found,) = check(document_of(manifest))
    assert found.field == "metadata.name"


# --- one verdict ------------------------------------------------------------------------------------------------

_junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70000), st.floats(-1, 100, allow_nan=False),
    st.sampled_from(["", "x", "X_y", "a/b", "/a/b", "..", "10m", "1Gi", "files", "own", "0 3 * * *", "UTC", ">=1 <2"]),
    st.just([]), st.just({}), st.just([{}]), st.just({"name": "x"}),
).map(copy.deepcopy)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """An example with up to three of its parts replaced, removed, added or renamed."""
    kind = draw(st.sampled_from(ComponentKind))
    manifest = copy.deepcopy(draw(st.sampled_from(schema(kind)["examples"])))
    for _ in range(draw(st.integers(1, 3))):
        places = [path for path in _places(manifest) if path not in (("kind",), ("apiVersion",))]
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        owner = manifest
        for step in path:
            owner = owner[step]
        match draw(st.sampled_from(["replace", "remove", "add", "rename"])):
            case "replace":
                owner[key] = draw(_junk)
            case "remove":
                del owner[key]
            case "add" if isinstance(owner, dict):
                owner[draw(st.sampled_from(["spec", "name", "path", "build", "extra"]))] = draw(_junk)
            case "rename" if isinstance(owner, dict):
                owner[f"{key}s"] = owner.pop(key)
    return manifest


@given(mutants())
def test_controller_and_schema_agree_on_every_document(manifest: Any) -> None:
    kind = ComponentKind(manifest["kind"])
    assert (list(check(document_of(manifest))) == []) == standard_validator(kind).is_valid(manifest)


@given(mutants())
def test_what_the_schema_refuses_is_not_loaded(manifest: Any) -> None:
    """And whatever it does not refuse is loaded or refused for what spans documents, but never fails otherwise."""
    kind = ComponentKind(manifest["kind"])
    judge = platform_problems if kind in SYSTEM else app_problems
    problems = judge(json.dumps(manifest))
    if not standard_validator(kind).is_valid(manifest):
        assert problems


@given(mutants())
def test_an_editor_without_our_formats_is_only_more_lenient(manifest: Any) -> None:
    kind = ComponentKind(manifest["kind"])
    if not standard_validator(kind, with_formats=False).is_valid(manifest):
        assert list(check(document_of(manifest)))
