"""Makes a commit that changes one file of its parent, from Git objects alone: nothing is checked out, no hook runs, and
the rest of the tree stays as it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.ports import CommitDraft

AUTHOR = pygit2.Signature("prichal", "prichal@prichal.invalid", 0, 0)
#: Values of core.sharedRepository for which the group of a repository may write.
_SHARED = frozenset({"group", "true", "1", "all", "world", "everybody", "2", "0660", "0770"})


def written(repository: pygit2.Repository, parent: str, draft: CommitDraft, ref: str | None) -> str:
    """Write the commit and return its id. With `ref`, that points to it afterwards: raises Transient `BranchMoved` if
    it points to another commit than the parent."""
    above = repository[parent].peel(pygit2.Commit)
    tree = _with_file(repository, above.tree, draft.path.split("/"), repository.create_blob(draft.content))
    who = pygit2.Signature(AUTHOR.name, AUTHOR.email, draft.at, 0)
    if ref is not None and str(repository.references[ref].resolve().target) != parent:
        raise moved(ref)
    try:
        commit = repository.create_commit(ref, who, who, draft.message, tree, [above.id])
    except pygit2.GitError as error:
        if ref is not None and "first parent" in str(error):
            raise moved(ref) from error
        raise
    _share(repository)
    return str(commit)


def moved(ref: str) -> Transient:
    return Transient(Reason.BRANCH_MOVED, Localizable("{ref} has another commit meanwhile", ref=ref))


def _with_file(
    repository: pygit2.Repository, tree: pygit2.Tree, path: list[str], blob: pygit2.Oid
) -> pygit2.Oid:
    """Return a tree in which a file has another content."""
    name, *rest = path
    if name not in tree:
        raise Stalled(
            Reason.IMAGE_WRITE_FAILED, Localizable("there is no {name} in the commit any more", name=name)
        )
    entry, builder = tree[name], repository.TreeBuilder(tree)
    if not rest and entry.filemode not in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
        raise Stalled(
            Reason.IMAGE_WRITE_FAILED,
            Localizable("{name} is a link in the commit: write the manifest out there", name=name),
        )
    if not rest:
        builder.insert(name, blob, entry.filemode)
    elif isinstance(entry, pygit2.Tree):
        builder.insert(name, _with_file(repository, entry, rest, blob), FileMode.TREE)
    else:
        raise Stalled(Reason.IMAGE_WRITE_FAILED, Localizable("{name} is no folder of the commit", name=name))
    return builder.write()


def _share(repository: pygit2.Repository) -> None:
    """Let the group of a shared repository write into folders of objects that are new: libgit2 makes them for their
    owner alone, and the next push could not be stored."""
    config = repository.config
    if "core.sharedRepository" not in config or str(config["core.sharedRepository"]).lower() not in _SHARED:
        return
    for folder in Path(repository.path, "objects").iterdir():
        found = folder.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWGRP:
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXG | stat.S_ISGID)
