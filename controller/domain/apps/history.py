"""The history of an app: each pass that acted or met a new commit, and what differs between the manifests of two of
them. Pure."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from controller.domain.apps.releases import Images, release
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret, scrub
from controller.domain.text import excerpt, printable

LONGEST: Final = 262_144  # characters of a difference
MOST_LINES: Final = 20_000  # of one file, beyond which it is only said that it differs


@dataclass(frozen=True)
class AppliedRevision:
    """Times in Unix seconds. `triggers` say what asked for the pass, `by` which person, if it is known; `plan` is what
    it did, "" if nothing was to do. `pins` and `models` are what images and models were resolved to, as in
    `AppStatus`."""

    app: AppName
    revision: str
    subject: str
    author: str
    triggers: tuple[str, ...]
    begun: float
    ended: float
    outcome: str
    message: str
    plan: str
    id: int = 0
    by: str = ""
    pins: tuple[tuple[str, str], ...] = ()
    models: tuple[tuple[ComponentName, str], ...] = ()
    images: Images = ()  # that were followed, in place of those of Git

    @property
    def release(self) -> str:
        return release(self.revision, self.images)


class SourceText(Protocol):
    """A file of a commit."""

    @property
    def path(self) -> str: ...

    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True)
class ManifestText:
    """A file with manifests, without values of Secrets."""

    path: str
    text: str


def find_revision(history: Iterable[AppliedRevision], wanted: str) -> AppliedRevision | None:
    """Return the newest entry of a revision, given by its first characters or by the number of the entry."""
    entries = tuple(history)
    by_number = next((each for each in entries if str(each.id) == wanted), None)
    by_revision = next(
        (each for each in entries if len(wanted) >= 4 and each.revision.startswith(wanted)), None
    )
    return by_revision or by_number


def difference(before: Iterable[ManifestText], after: Iterable[ManifestText]) -> str:
    """Return the unified difference of the manifests, file by file."""
    old, new = _by_path(before), _by_path(after)
    lines = [line for path in sorted({*old, *new}) for line in _of_file(path, old.get(path), new.get(path))]
    return excerpt("\n".join(map(printable, lines)), LONGEST)


def _by_path(files: Iterable[ManifestText]) -> Mapping[str, list[str]]:
    return {each.path: each.text.splitlines() for each in files}


def _of_file(path: str, before: list[str] | None, after: list[str] | None) -> Iterable[str]:
    if before == after:
        return ()
    if max(len(before or ()), len(after or ())) > MOST_LINES:
        return (f"{path} differs",)
    names = (
        f"a/{path}" if before is not None else "/dev/null",
        f"b/{path}" if after is not None else "/dev/null",
    )
    return difflib.unified_diff(before or [], after or [], *names, lineterm="")


#: A document of a Secret: its values are nobody's but the app's.
_SECRET: Final = re.compile(r"""\bkind["']?[ \t]*:[ \t]*["']?Secret\b""")
_DOCUMENTS: Final = re.compile(r"^---[^\n]*\n", re.MULTILINE)
HIDDEN: Final = "# A Secret, which is not shown.\n"
#: An encrypted value of sops, with its key. Its name may be shown, as sops leaves it in clear.
_ENCRYPTED: Final = re.compile(
    r"""^[ \t]*["']?([\w.-]{1,253})["']?[ \t]*:[ \t]*["']?(ENC\[AES256_GCM,[^\]]+\])""", re.MULTILINE
)


def shown_manifests(files: Iterable[SourceText], hidden: tuple[Secret, ...]) -> tuple[ManifestText, ...]:
    """Return files for people: without Secrets, whole documents and wherever their values stand."""
    return tuple(
        ManifestText(each.path, scrub(_without_secrets(each.content.decode("utf-8", "replace")), hidden))
        for each in files
        if each.content
    )


def _without_secrets(text: str) -> str:
    documents = _DOCUMENTS.split(text)
    return "---\n".join(_told(document) if _SECRET.search(document) else document for document in documents)


def _told(secret: str) -> str:
    """Return what may be shown of a Secret: of an encrypted one the names of its keys, each with a digest by which
    people see whether its encrypted value has changed."""
    return HIDDEN + "".join(
        f"# {key}: {hashlib.sha256(value.encode()).hexdigest()[:8]}\n"
        for key, value in _ENCRYPTED.findall(secret)
        if key != "mac"
    )
