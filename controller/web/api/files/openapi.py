"""The OpenAPI 3.1 description of the files API of one app, from `openapi.yaml`; served as `openapi.json` and shown on
the page for people. A test sends requests made from it, and holds their answers to its schemas.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller import __version__
from controller.web.api.descriptions import Json, description


def document(prefix: str, boxes: Sequence[str]) -> Json:
    """`prefix` is the path that the API is published at, `boxes` the names of the app's boxes."""
    made = description(__package__)
    made["info"] = {"title": f"Files at {prefix}", "version": __version__, **made["info"]}
    made["servers"] = [{"url": prefix}]
    for item in made["paths"].values():
        for parameter in item.get("parameters", ()):
            if parameter["name"] == "box" and boxes:
                parameter["schema"] = {"type": "string", "enum": list(boxes)}
    return made
