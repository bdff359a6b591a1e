"""Reads a commit from the object database without libgit2's parser, which refuses whole commits because of an
author or a date that Git itself accepts from old or odd tools, while only the tree is needed.

Author and message are only displayed, so nothing about them is an error.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

import pygit2
from pygit2.enums import ObjectType

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.text import printable

MAX_SIZE = 2**20
_TREE = re.compile(rb"tree ([0-9a-f]{40})\n")
_TIME = re.compile(rb"> *(-?[0-9]{1,15})(?: |$)")


@dataclass(frozen=True)
class RawCommit:
    """`committed` is in Unix seconds, 0 if the commit has no readable time."""

    tree: pygit2.Oid
    author: str
    subject: str
    committed: float


def is_here(repo: pygit2.Repository, id: str) -> bool:
    """Return whether the object exists. `id in repo` would parse it, and raise if it is odd."""
    return pygit2.Oid(hex=id) in repo.odb


def is_commit(repo: pygit2.Repository, id: str) -> bool:
    """Return whether the object is a commit. Raises KeyError if it does not exist."""
    return bool(repo.odb.read_header(pygit2.Oid(hex=id))[0] == ObjectType.COMMIT)


def read(repo: pygit2.Repository, id: str) -> RawCommit:
    """Read a commit. Raises KeyError if it does not exist; ValueError if it is not a commit."""
    oid = pygit2.Oid(hex=id)
    if repo.odb.read_header(oid)[1] > MAX_SIZE:
        raise Stalled(
            Reason.COMMIT_TOO_LARGE,
            Localizable(
                "commit {id} itself, without its files, has more than {most} bytes",
                id=id[:12],
                most=MAX_SIZE,
            ),
        )
    kind, content = repo.odb.read(oid)
    found = _TREE.match(content)
    if kind != ObjectType.COMMIT or found is None:
        raise ValueError(f"object {id} is not a commit")
    header, _, message = content.partition(b"\n\n")
    fields = dict(line.split(b" ", 1) for line in reversed(header.split(b"\n")) if b" " in line.strip())
    encoding = fields.get(b"encoding", b"").decode("ascii", "replace")
    author = fields.get(b"author", b"").rpartition(b">")
    time = _TIME.search(fields.get(b"committer", b""))
    return RawCommit(
        tree=pygit2.Oid(hex=found[1].decode()),
        author=_decoded(author[0] + author[1] or author[2], encoding),
        subject=_decoded(message, encoding).strip().partition("\n")[0],
        committed=float(time[1]) if time else 0.0,
    )


def _decoded(raw: bytes, encoding: str) -> str:
    """Decode a text. Valid UTF-8 is read as such: many tools name another encoding but write UTF-8."""
    with suppress(UnicodeDecodeError):
        return printable(raw.decode())
    try:
        return printable(raw.decode(encoding, "replace"))
    except (LookupError, ValueError):  # no such encoding, or one that does not support "replace"
        return printable(raw.decode("utf-8", "replace"))
