"""The style sheet and the modules of JavaScript of the pages, as they lie in `web/static/`: read once, and served at an
address that contains a digest of all of them, so that browsers may keep them for ever. Everybody may read them.

Modules import each other by relative paths, which stay below the same digest. There is no build step: add a file and
link it by `asset("name")` in a template.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

static_files = Blueprint("static_files", __name__)

PREFIX: Final = "/-/static/"
FOLDER: Final = Path(__file__).parents[1] / "static"
FOREVER: Final = "public, max-age=31536000, immutable"
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@cache
def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}


@cache
def digest() -> str:
    whole = hashlib.sha256()
    for name, content in contents().items():
        whole.update(b"%b\0%d\0%b" % (name.encode(), len(content), content))
    return whole.hexdigest()[:16]


def asset(name: str) -> str:
    """Return where a page finds a file; KeyError if there is none."""
    return f"{PREFIX}{digest()}/{name}" if contents()[name] else ""


@static_files.get("/-/static/<version>/<file>")
def static_file(version: str, file: str) -> ResponseReturnValue:
    """Pages of an earlier version of the platform get the present file, which they must not keep."""
    content = contents().get(file)
    if content is None:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, f"No file is called {file}."))
    response = Response(content, content_type=_TYPES[Path(file).suffix])
    response.headers["Cache-Control"] = FOREVER if version == digest() else "no-store"
    return response
