"""Files of this host that hold values of Secrets: those that Secrets of the platform folder name under `files`, and
those with credentials that the configuration or a command names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.secret import Secret, without_line_end
from controller.yaml_documents import Node, parse

_MAX_SECRET_FILE = 2**20

ReadFile = Callable[[str], bytes]


def read_host_file(path: str) -> bytes:
    """Read at most one byte more than a Secret may hold, so that the caller can tell. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(_MAX_SECRET_FILE + 1)


def load_secret_values(path: Path) -> tuple[tuple[str, Secret], ...]:
    """Return the mapping in a YAML file with the `stringData` of a Secret. Raises ManifestInvalid."""
    try:
        parsed = parse(str(path), read_host_file(str(path)))
    except OSError as error:
        problem = ManifestProblem(
            str(path), 0, 0, "", Localizable("cannot be read: {strerror}", strerror=error.strerror)
        )
        raise ManifestInvalid((problem,)) from error
    root = parsed.documents[0] if len(parsed.documents) == 1 else Node(None, 1, 1)
    problems = list(parsed.problems)
    if not isinstance(root.value, dict) or not root.value:
        problems.append(
            ManifestProblem(
                str(path), root.line, root.column, "", Localizable("must be one mapping of keys to texts")
            )
        )
    wrong = [key for key in root.keys if not isinstance(root.children[key].value, str)]
    problems += [
        ManifestProblem(str(path), *root.keys[key], key, Localizable("must be text: write it in quotes"))
        for key in wrong
    ]
    if problems:
        raise ManifestInvalid(tuple(problems))
    values = {key: without_line_end(str(root.children[key].value)) for key in root.keys}
    return tuple(sorted((key, Secret(value)) for key, value in values.items()))


def content_of(raw: bytes) -> str:
    """Return the text of a file of a Secret. Raises ValueError."""
    if len(raw) > _MAX_SECRET_FILE:
        raise ValueError(
            Localizable("it is larger than {max_secret_file} MiB", max_secret_file=_MAX_SECRET_FILE // 2**20)
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(Localizable("it is not UTF-8 text")) from error
