"""Work of root in the folder of another user. What that user may have put there (links, journals of SQLite) leads root
to nothing that they could not read, write or delete themselves, because root goes on as that user meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Go on as the owner of a folder, if this is root. Import all modules before: the owner may not be allowed to read
    them."""
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        yield
        return
    found = folder.stat()
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
