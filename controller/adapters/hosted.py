"""Bare repositories hosted here, for people who push directly to this machine: `prichal repo create NAME`.

Each has a post-receive hook that reports pushes to the platform and shows the result to the person who pushed
(post_receive.py). Called only by the command line; the daemon reads these repositories like any other. Backups read and
restore them here, too.
"""

from __future__ import annotations

import grp
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel, FileMode, RepositoryInitFlag, RepositoryInitMode, RepositoryOpenFlag

from controller.adapters import post_receive
from controller.atomic import flush, replace_file
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.templates import TemplateFile
from controller.file_trees import remove_tree

#: The beginning of the name of a repository that is not complete yet.
DRAFT = ".new-"
HOOK = """\
#!/bin/sh
# Written by `prichal repo create`. Run it again to renew this hook.
if [ -x {python} ] && [ -r {script} ]; then
    exec {python} -I -S -c {code} "$PWD"
fi
echo "prichal: the platform's program has moved. Your commit was received and will be picked up by" \\
    "polling. Renew the hook with: prichal repo create" >&2
"""

SETTINGS: dict[str, bool | str] = {
    # History from other servers is pushed here, too: git-fsck refuses some old and odd commits in any case.
    # Dangerous entries are refused when a commit is read, wherever it comes from.
    "receive.fsckObjects": False,
    "receive.denyNonFastForwards": False,  # a force push is the way to withdraw a commit
    "receive.autogc": True,
}


def create(hosted: Path, name: str, hook_url: str, secret: Secret, group: str | None = None) -> Path:
    """Create `<hosted>/<name>.git`, or renew the hook of an existing one, and return its path.

    `hook_url` is the address of the web process, e.g. http://127.0.0.1:8000; `secret` is that of the
    Repository's generic webhook. Members of `group` may push; without one, only the owner may. Raises Stalled
    `NameInvalid`, `HostingFailed`.
    """
    _require_label(name)
    path = hosted / f"{name}.git"
    try:
        _furnish(path, name, hook_url, secret, group)
    except (OSError, LookupError, pygit2.GitError) as error:
        raise Stalled(
            Reason.HOSTING_FAILED,
            Localizable("cannot create the repository {path}: {error}", path=path, error=error),
        ) from error
    return path


def require_creatable(name: str, group: str | None) -> None:
    """Raise Stalled `NameInvalid`, and `HostingFailed` for a group that is unknown here."""
    _require_label(name)
    try:
        if group is not None:
            grp.getgrnam(group)
    except KeyError as error:
        raise Stalled(
            Reason.HOSTING_FAILED, Localizable("there is no group {group!r} on this host", group=group)
        ) from error


def _require_label(name: str) -> None:
    if not is_dns_label(name):
        raise Stalled(
            Reason.NAME_INVALID,
            Localizable(
                "{name!r} is not a valid repository name: use at most 63 of a-z, 0-9 and hyphens", name=name
            ),
        )


def _furnish(path: Path, name: str, hook_url: str, secret: Secret, group: str | None, mark: str = "") -> None:
    _initialise(path, group)
    _write(path / "hooks" / "post-receive", _hook(), 0o755)
    _write(path / post_receive.CONFIG, _config(name, hook_url, secret, mark), 0o640)
    if group is not None:
        _hand_over(path, group)


@dataclass(frozen=True)
class FirstCommit:
    """What a new repository begins with. `mark` is remembered in it, so that one who was killed knows it again."""

    files: tuple[TemplateFile, ...]
    author: str
    message: str
    at: int  # Unix seconds
    mark: str


def create_filled(
    hosted: Path, name: str, hook_url: str, secret: Secret, group: str | None, first: FirstCommit
) -> Path:
    """Create a repository with its first commit on `main`, and return its path. It appears as a whole; one that an
    earlier call with this mark has made is fine. Raises Stalled `AlreadyConnected` for any other, `NameInvalid`,
    `HostingFailed`."""
    path, draft = hosted / f"{name}.git", hosted / f"{DRAFT}{name}.git"
    if path.exists():
        if mark_of(path) == first.mark:
            return path
        raise Stalled(
            Reason.ALREADY_CONNECTED,
            Localizable("there is a repository {name} already: choose another name", name=name),
        )
    remove_tree(draft)
    _require_label(name)
    try:
        _furnish(draft, name, hook_url, secret, group, first.mark)
        _commit(draft, first)
        if group is not None:
            _hand_over(draft, group)  # what the commit has added, too
        os.rename(draft, path)
        flush(hosted)
    except (OSError, LookupError, ValueError, pygit2.GitError) as error:
        remove_tree(draft)
        raise Stalled(
            Reason.HOSTING_FAILED,
            Localizable("cannot create the repository {path}: {error}", path=path, error=error),
        ) from error
    return path


def mark_of(path: Path) -> str:
    """Return the mark of a repository that was created filled; "" for others."""
    try:
        content = json.loads((path / post_receive.CONFIG).read_text())
    except (OSError, ValueError):
        return ""
    return str(content.get("mark", "")) if isinstance(content, dict) else ""


def _commit(path: Path, first: FirstCommit) -> None:
    """Make the commit from Git objects: nothing is checked out, and no hook runs."""
    repository = pygit2.Repository(str(path))
    index = pygit2.Index()
    for file in first.files:
        mode = FileMode.BLOB_EXECUTABLE if file.executable else FileMode.BLOB
        index.add(pygit2.IndexEntry(file.path, repository.create_blob(file.content), mode))
    who = pygit2.Signature(first.author, f"{first.author}@prichal.invalid", first.at, 0)
    repository.create_commit("refs/heads/main", who, who, first.message, index.write_tree(repository), [])


def _initialise(path: Path, group: str | None) -> None:
    mode = RepositoryInitMode.SHARED_GROUP if group is not None else 0o700
    flags = RepositoryInitFlag.BARE | RepositoryInitFlag.MKPATH
    repository = pygit2.init_repository(str(path), bare=True, flags=flags, mode=mode, initial_head="main")
    for key, value in SETTINGS.items():
        repository.config[key] = value
    if group is not None:
        repository.config["core.sharedRepository"] = "group"


def _hook() -> str:
    """Return the hook. The folder of the program comes last in the path: there are other modules in it."""
    script = Path(post_receive.__file__).resolve()
    code = f"import sys; sys.path.append({str(script.parent)!r}); from {script.stem} import run; run()"
    python, path, code = (shlex.quote(text) for text in (sys.executable, str(script), code))
    return HOOK.format(python=python, script=path, code=code)


def _config(name: str, hook_url: str, secret: Secret, mark: str = "") -> str:
    content = {"name": name, "url": hook_url.rstrip("/"), "secret": secret.reveal()}
    return json.dumps({**content, "mark": mark} if mark else content, indent=2) + "\n"


def _write(path: Path, content: str, mode: int) -> None:
    """Write a file by a rename: a concurrent push sees the old or the new file, and no process sees half a
    secret.
    """
    path.parent.mkdir(exist_ok=True)
    replace_file(path, content, mode)


def _hand_over(path: Path, group: str) -> None:
    """Set the group of all files. Folders pass it on to new files."""
    for item in _everything(path):
        shutil.chown(item, group=group)
        if item.is_dir():
            item.chmod(0o2770)


def _everything(path: Path) -> Iterator[Path]:
    yield path
    yield from path.rglob("*")


# --- backups ----------------------------------------------------------------------------------------------------

MOST_REFS = 64 * 2**20  # bytes of a document


def read_refs(path: Path) -> bytes | None:
    """Return where branches and tags of a repository are, and what its hook needs, as a document; None if it is gone.
    Nothing of the repository runs, whatever its configuration says."""
    _leave_out_own_configuration()
    try:
        repository = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH | RepositoryOpenFlag.BARE)
        refs = {}
        for reference in repository.references.iterator():
            if isinstance(reference.target, pygit2.Oid):
                refs[reference.name] = str(reference.target)
        head = repository.lookup_reference("HEAD").raw_target
        content = json.loads((path / post_receive.CONFIG).read_text())
        hook = {"secret": str(content["secret"]), "mark": str(content.get("mark", ""))}
    except (pygit2.GitError, KeyError, ValueError, TypeError, OSError) as error:
        if not path.exists():
            return None
        raise Stalled(
            Reason.HOSTING_FAILED,
            Localizable("cannot read the repository {path}: {error}", path=path, error=error),
        ) from error
    head_name = head.decode(errors="replace") if isinstance(head, bytes) else str(head)
    return json.dumps({"head": head_name, "refs": refs, **hook}).encode()


def _leave_out_own_configuration() -> None:
    """Let Git read no configuration but that of the repository. root does this work as the owner of the folder, who may
    not enter root's home; and of the caller's choice are the folder and its user."""
    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.PROGRAMDATA, ConfigLevel.GLOBAL):
        pygit2.settings.search_path[level] = ""
    pygit2.settings.owner_validation = False


def draft_of(hosted: Path, name: str) -> Path:
    """Return the folder into which the objects of a restored repository are put first."""
    _require_label(name)
    return hosted / f"{DRAFT}{name}.git"


def restore_refs(hosted: Path, name: str, hook_url: str, group: str | None, document: bytes) -> Path:
    """Make a repository of the objects in its draft, and return its path. It appears as a whole. Raises Stalled
    `HostingFailed` if a branch leads to nothing, or the document is not one of `read_refs`."""
    path, draft = hosted / f"{name}.git", draft_of(hosted, name)
    _leave_out_own_configuration()
    try:
        content = json.loads(document)
        secret, mark = Secret(str(content["secret"])), str(content["mark"])
        _furnish(draft, name, hook_url, secret, group, mark)
        repository = pygit2.Repository(str(draft))
        for ref, target in content["refs"].items():
            if not ref.startswith("refs/"):
                raise ValueError(Localizable("{ref!r} is no branch and no tag", ref=ref))
            repository.references.create(ref, pygit2.Oid(hex=target))  # raises if there is no such object
        repository.set_head(content["head"])
        if group is not None:
            _hand_over(draft, group)
        os.rename(draft, path)
        flush(hosted)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, pygit2.GitError) as error:
        raise Stalled(
            Reason.HOSTING_FAILED,
            Localizable("cannot restore the repository {path}: {error}", path=path, error=error),
        ) from error
    return path
