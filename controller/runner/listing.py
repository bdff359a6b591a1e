"""Lists a group of a box, and reads its manifest. Used when groups are read or published."""

from __future__ import annotations

from collections.abc import Iterator

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import FILE_INDEX, MARK, FileIndex, parse_index
from controller.domain.storage.box import StoredObject
from controller.ports import Objects

LARGEST_MANIFEST = 64 * 2**20  # bytes; larger objects are not read as manifests: some 400,000 files


def below(objects: Objects, bucket: str, prefix: str) -> Iterator[StoredObject]:
    """Yield all objects below the prefix. Some storages list an empty object for each folder, too."""
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, prefix, after)
        yield from (found for found in page.objects if not found.key.endswith("/"))
        after = page.next


def manifests(objects: Objects, bucket: str, prefix: str) -> tuple[FileIndex, ...]:
    """Return the mark and the manifest of the group with this prefix, which ends in `/`, as far as they
    exist.
    """
    found = (_manifest(objects, bucket, prefix + name) for name in (MARK, FILE_INDEX))
    return tuple(manifest for manifest in found if manifest)


def _manifest(objects: Objects, bucket: str, key: str) -> FileIndex | None:
    found = objects.stat(bucket, key)
    if found is None or found.size > LARGEST_MANIFEST:
        return None
    try:
        with objects.open(bucket, key) as pieces:
            return parse_index(b"".join(pieces))
    except ValueError:
        return None  # a file of the same name that is not ours
    except Stalled as error:
        if error.reason != Reason.OBJECT_MISSING:
            raise
        return None
