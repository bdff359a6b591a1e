"""Connections that do not keep large values in memory.

SQLite copies what a statement is given, and frees the copy only when the statement is given something else. The driver
keeps the last 128 statements of each connection. So a thread that has stored a few large bodies would hold as much
memory until it ends. There is no call in the driver by which a statement forgets its values: who has a connection
closes it after a transaction that `keeps_large`, which costs a millisecond where storing the value took several."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Bytes or characters of a value that is worth a new connection. glibc gives so much back to the host when it is freed.
LARGE: Final = 2**18
#: A tuple: `str | bytes` in its place would be made again for each value.
_SIZED: Final = (str, bytes, bytearray, memoryview)


class Connection(sqlite3.Connection):
    """`keeps_large`: a statement was given a large value."""

    keeps_large = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._look_at(parameters)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return super().executemany(sql, map(self._look_at, parameters))

    def _look_at(self, parameters: Any) -> Any:
        values = parameters.values() if isinstance(parameters, Mapping) else parameters
        for value in values:
            if isinstance(value, _SIZED) and len(value) > LARGE:
                self.keeps_large = True
        return parameters
