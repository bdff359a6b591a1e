"""Moves of groups, in steps: one request moves as many files as fit into its time, and the same request again
continues the move. Used by the files API beside `area`; the record of a move (`domain.storage.moves`) is in the store.

Promises: a file is never in neither place, since it is copied before it is removed; nothing in the new place is
replaced; what somebody changes meanwhile in the old place stays there. Space for each copy is reserved as for an
upload, until a measurement has counted it: so a group may be larger than what is free, and moves as its space is
counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import PendingUpload, StoredObject
from controller.domain.storage.keys import MAX_KEY, FilePath
from controller.domain.storage.moves import GroupMove, leads_into_itself
from controller.web.api.files.area import MAX_AWAITED, MAX_STORED_KEY, PAGE, BoxArea, conflict
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

MAX_MOVED: Final = 1000  # files that one request moves
SECONDS: Final = 8.0  # and the time after which it moves no more
BATCH: Final = 100  # files that are moved side by side
COUNTED: Final = 20_000  # files of a group that are counted before it moves
RECOUNT_TIMEOUT: Final = 60.0  # seconds in which space that a move has used twice is counted


@dataclass(frozen=True)
class MoveStep:
    """`moved` files in this request, `so_far` of `files` (0: not known) in all. `left` stay in the old place, because
    the new one has others of their names. With `more`, the same request continues."""

    moved: int
    so_far: int
    files: int
    left: int
    more: bool


@dataclass(frozen=True)
class _Batch:
    moved: int = 0
    left: int = 0
    is_short: bool = False  # of space


class GroupMoves:
    def __init__(self, area: BoxArea) -> None:
        self._area = area
        self._boxes = area.store.boxes

    def is_under_way(self, group: FilePath, to: FilePath) -> bool:
        found = self._boxes.move(self._area.bucket, self._area.key(group))
        return found is not None and not found.done and found.target == self._area.key(to)

    def step(self, group: FilePath, to: FilePath) -> MoveStep:
        """Begin a move, or continue the same one. Raises RequestRefused, and errors of the storage: the move then stays
        as far as it is."""
        self._check_names(group, to)
        source, target = self._area.key(group), self._area.key(to)
        found = self._boxes.move(self._area.bucket, source)
        if found is None or found.target != target or (found.done and self._has_files(source)):
            found = self._begin(group, to, found)
        if found.done:  # the answer to the last step was lost
            return MoveStep(0, found.moved, found.files, 0, more=False)
        return self._continue(found)

    def _has_files(self, prefix: str) -> bool:
        return bool(self._area.objects.page(self._area.bucket, prefix, limit=1).objects)

    def _check_names(self, group: FilePath, to: FilePath) -> None:
        for path in (group, to):
            if not path.is_group or not path.text:
                detail = Localizable("A folder moves to the name of a folder, and a whole box does not move.")
                raise RequestRefused(HttpProblem(ProblemKind.INVALID_PATH, detail))
        if leads_into_itself(group.text, to.text):
            raise RequestRefused(
                conflict(Localizable("{path} cannot be moved into itself.", path=group.text))
            )
        for path in (group, to):
            self._area.require_settled(self._area.key(path), around=True)

    def _begin(self, group: FilePath, to: FilePath, other: GroupMove | None) -> GroupMove:
        area = self._area
        source, target = area.key(group), area.key(to)
        if other is not None and not other.done:
            detail = Localizable(
                "{path} is being moved to {to}: complete that move, or move it back.",
                path=group.text,
                to=other.target.removeprefix(area.prefix),
            )
            raise RequestRefused(conflict(detail))
        back = self._boxes.move(area.bucket, target)
        if back is None or back.done or not back.is_reverse_of(source, target):
            area.check_group_name(to)
            back = None
        files = self._count(group, to)
        move = GroupMove(area.bucket, source, target, files, area.now, area.now)
        self._boxes.save_move(move)
        if back is not None:
            self._boxes.forget_move(area.bucket, target)
        return move

    def _count(self, group: FilePath, to: FilePath) -> int:
        """Return how many files there are, 0 for more than are counted. Raises RequestRefused if there is none, or if
        one would have too long a name."""
        source, after, count = self._area.key(group), "", 0
        while count < COUNTED:
            page = self._area.objects.page(self._area.bucket, source, after, PAGE)
            count += len(page.objects)
            for found in page.objects:
                name = found.key.removeprefix(source)
                if _is_too_long(self._area.prefix, to.text + name):
                    detail = Localizable("There the name of {name} would be too long.", name=name[:200])
                    raise RequestRefused(HttpProblem(ProblemKind.INVALID_PATH, detail))
            if page.next is None:
                break
            after = page.next
        else:
            return 0
        if not count:
            detail = Localizable("There is no folder {path}.", path=group.text)
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
        return count

    def _continue(self, move: GroupMove) -> MoveStep:
        until, moved, left = time.monotonic() + SECONDS, 0, 0
        after: str | None = ""
        while after is not None and moved < MAX_MOVED and time.monotonic() < until:
            page = self._area.objects.page(move.bucket, move.source, after, BATCH)
            batch = self._move(move, page.objects)
            moved, left = moved + batch.moved, left + batch.left
            if batch.moved:
                move = replace(move, moved=move.moved + batch.moved, stepped=time.time())
                self._boxes.save_move(move)
            if batch.is_short:
                if not moved and time.time() - move.stepped > RECOUNT_TIMEOUT:
                    self._refuse_full(move, page.objects)
                break
            after = page.next
        if after is None:
            self._boxes.save_move(replace(move, done=True))
        return MoveStep(moved, move.moved, max(move.files, move.moved), left, more=after is not None)

    def _move(self, move: GroupMove, found: tuple[StoredObject, ...]) -> _Batch:
        """Move these files, as far as there is space for their copies."""
        area = self._area
        marks = [each.key for each in found if each.key.endswith("/")]  # of S3 clients, for empty folders
        files = [each for each in found if not each.key.endswith("/")]
        there = area.storage.start(lambda each: area.objects.stat(area.bucket, move.key(each.key)), files)
        pairs = list(zip(files, there, strict=True))
        free = [each for each, other in pairs if other is None]
        copied = [each.key for each, other in pairs if other is not None and _is_same(each, other)]
        left = len(pairs) - len(free) - len(copied)
        expires = area.now + area.lifetime
        wanted = [
            PendingUpload(0, area.bucket, move.key(each.key), each.size, time.time(), expires)
            for each in free
        ]
        fits = self._boxes.reserve_first(wanted, area.now, MAX_AWAITED)
        copied += [key for key in area.storage.start(lambda each: self._copy(move, each), free[:fits]) if key]
        area.objects.remove(area.bucket, [*copied, *marks])
        self._boxes.removed(area.bucket, [*copied, *marks], area.now)
        return _Batch(len(copied), left, is_short=fits < len(free))

    def _copy(self, move: GroupMove, found: StoredObject) -> str:
        """Copy a file. Return its key if it may be removed now; "" if somebody has changed or removed it."""
        objects = self._area.objects
        try:
            objects.copy(move.bucket, found, move.key(found.key))
        except Stalled as error:
            if error.reason in (Reason.OBJECT_MISSING, Reason.OBJECT_CHANGED):
                return ""
            raise
        still = objects.stat(move.bucket, found.key)
        return found.key if still is not None and _is_same(still, found) else ""

    def _refuse_full(self, move: GroupMove, found: tuple[StoredObject, ...]) -> None:
        size = max(each.size for each in found)
        raise RequestRefused(self._area.full(self._boxes.usage(move.bucket, time.time()), size))


def _is_same(one: StoredObject, other: StoredObject) -> bool:
    """Return whether they have the same content: a listing tells a time more exactly than an object does."""
    return (one.size, one.etag) == (other.size, other.etag)


def _is_too_long(prefix: str, text: str) -> bool:
    return len(text.encode()) > MAX_KEY or len((prefix + text).encode()) > MAX_STORED_KEY
