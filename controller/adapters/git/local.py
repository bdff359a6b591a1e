"""Repositories on this host, read without libgit2's own server where that is slow or fails.

It computes for large files, which are copied as they are (`copying`). And libgit2 parses every commit that it lists or
packs, and refuses the whole repository because of one author without an e-mail or one date beyond its integers; Git
itself serves such commits. Then the refs are read one by one, and missing objects are copied, too, whatever a commit
says about its author.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pygit2
from pygit2.enums import ObjectType

from controller.adapters.git import tree
from controller.adapters.git.copying import copy, has_large
from controller.adapters.git.faults import DAMAGED, CloneDamaged, rule_of, translate
from controller.adapters.git.refs import COMMIT_ID, PEELED, Advertised
from controller.adapters.git.remote import RemoteSession
from controller.adapters.git.writing import written
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.ports import CommitDraft

_OBJECT = re.compile(rb"object ([0-9a-f]{40})\n")
_ERRORS = (pygit2.GitError, KeyError, ValueError, OSError)


class SourceUnreadable(Transient):
    """The repository itself cannot be read: another clone of it would not help."""


class LocalSession(RemoteSession):
    def advertised(self) -> Advertised:
        try:
            return super().advertised()
        except CloneDamaged:
            with self._readable() as source:
                return refs_of(source)

    def transfer(self, refspecs: Iterable[str], stored: int) -> None:
        """Fetch objects. Copied ones get no references here, which libgit2 would fail to read later."""
        refspecs = tuple(refspecs)
        if self._has_large():
            with suppress(CloneDamaged, Stalled):  # packs may have more than the refs need, and too much
                self._callbacks.begin(stored)
                self._copy(refspecs)
                return
        try:
            super().transfer(refspecs, stored)
        except CloneDamaged:
            self._copy(refspecs)

    def _has_large(self) -> bool:
        with self._readable() as source:
            return has_large(source, self._clone)

    def _copy(self, refspecs: Iterable[str]) -> None:
        with self._readable() as source:
            copy(source, self._clone, _meant(refspecs, refs_of(source)), self._received)

    def find_damage(self, commit: str, largest: int, known: tree.Damage | None) -> tree.Damage | None:
        with self._readable() as source:
            return tree.find_damage(source, commit, largest, known)

    def commit(self, branch: str, parent: str, draft: CommitDraft) -> str:
        """Write the commit into the repository itself: its branch is compared and changed at once."""
        with self._readable() as target:
            return written(target, parent, draft, branch)

    def _received(self, number: int) -> None:
        self._callbacks.transfer_progress(SimpleNamespace(received_bytes=number))

    def _readable(self) -> _Readable:
        return _Readable(self._access.location.url, self._subject)


class _Readable:
    """The opened repository. If it cannot be read, the local clone is not the cause: raises SourceUnreadable."""

    def __init__(self, path: str, subject: str) -> None:
        self._path, self._subject = path, subject
        self._source: pygit2.Repository | None = None

    def __enter__(self) -> pygit2.Repository:
        try:
            self._source = pygit2.Repository(self._path)
        except _ERRORS as error:
            raise self._translated(error) from error
        return self._source

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._source is not None:
            self._source.free()
        if isinstance(error, _ERRORS):
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> ControllerError:
        if rule_of(error) is DAMAGED:
            return SourceUnreadable(
                Reason.COMMIT_UNREADABLE,
                Localizable(
                    "{subject}: the source cannot be read: {error}", subject=self._subject, error=error
                ),
            )
        return translate(error, self._subject)


def refs_of(source: pygit2.Repository) -> Advertised:
    """Return the refs as a server would. Only references that cannot be read are left out."""
    refs: dict[str, str] = {}
    for raw in source.raw_listall_references():
        name = raw.decode("utf-8", "surrogateescape")
        with suppress(*_ERRORS):
            id = source.references[name].resolve().target
            refs[name] = str(id)
            peeled = _peeled(source, pygit2.Oid(hex=str(id)))
            if peeled != id:
                refs[name + PEELED] = str(peeled)
    default = None
    with suppress(*_ERRORS):
        head = source.references["HEAD"].target
        default = head if isinstance(head, str) else None
    return Advertised(refs, default)


def _peeled(source: pygit2.Repository, id: pygit2.Oid) -> pygit2.Oid:
    """Return the object of a tag, or of a tag of a tag."""
    seen: set[pygit2.Oid] = set()
    while id not in seen:
        seen.add(id)
        kind, content = source.odb.read(id)
        if kind != ObjectType.TAG or not (found := _OBJECT.match(content)):
            break
        id = pygit2.Oid(hex=found[1].decode())
    return id


def _meant(refspecs: Iterable[str], there: Advertised) -> Iterator[str]:
    """Yield the commits that refspecs stand for."""
    for refspec in refspecs:
        wanted = refspec.removeprefix("+").partition(":")[0]
        if COMMIT_ID.fullmatch(wanted):
            yield wanted
        elif wanted.endswith("/*"):
            names = (
                name for name in there.refs if name.startswith(wanted[:-1]) and not name.endswith(PEELED)
            )
            yield from (there.refs.get(name + PEELED, there.refs[name]) for name in names)
        elif wanted in there.refs:
            yield there.refs.get(wanted + PEELED, there.refs[wanted])
