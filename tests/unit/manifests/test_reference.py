"""The reference page is the schemas' own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.domain.apps.spec import ComponentKind
from controller.manifests.reference import renewed, to_yaml
from controller.manifests.schema import schema
from controller.yaml_documents import parse

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "reference" / "manifests.md"


def test_the_page_is_current() -> None:
    text = PAGE.read_text()
    assert renewed(text) == text, "run: python -m controller.manifests.reference docs/reference/manifests.md"


def test_the_page_has_every_kind() -> None:
    text = PAGE.read_text()
    assert [kind for kind in ComponentKind if f"\n## {kind}\n" not in text] == []


@pytest.mark.parametrize("kind", ComponentKind)
def test_examples_are_shown_as_what_they_are(kind: ComponentKind) -> None:
    for example in schema(kind)["examples"]:
        (document,) = parse("f", to_yaml(example).encode()).documents
        assert document.value == example


def test_a_page_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the line"):
        renewed("# Manifests\n")
