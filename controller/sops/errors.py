"""Why a file cannot be decrypted."""

from __future__ import annotations


class SopsError(Exception):
    """`document` and `path` say where: `path` is that of a field, empty for the whole document. `line` counts from 1
    and is 0 if it is not known. The message quotes no value."""

    def __init__(
        self, message: str, path: tuple[str | int, ...] = (), document: int = 0, line: int = 0
    ) -> None:
        super().__init__(message)
        self.message, self.path, self.document, self.line = message, path, document, line
