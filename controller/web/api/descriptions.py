"""OpenAPI descriptions that lie as YAML beside the code which completes them."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

from controller.yaml_documents import parse

Json = dict[str, Any]


def description(package: str) -> Json:
    """Return the content of `openapi.yaml` in a package, as a copy that may be changed."""
    return deepcopy(_read(package))


@cache
def _read(package: str) -> Json:
    parsed = parse("openapi.yaml", files(package).joinpath("openapi.yaml").read_bytes())
    assert not parsed.problems, parsed.problems
    document = parsed.documents[0].value
    assert isinstance(document, dict)
    return document
