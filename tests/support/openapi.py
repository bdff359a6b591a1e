"""OpenAPI descriptions, as far as several tests look at them."""

from __future__ import annotations

from typing import Any


def references(node: Any) -> list[str]:
    """Return all `$ref` in a document."""
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [found for value in node.values() for found in references(value)]
