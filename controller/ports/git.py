"""Git repositories: what a commit has, what a build of it sees, and commits by prichal itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.domain.apps.spec import BuildImage, RepositorySpec, SecretSpec


@dataclass(frozen=True)
class Revision:
    """An immutable commit in the local clone. `ref` is the reference that led to it, e.g. `refs/heads/main`."""

    repository: str
    commit: str
    ref: str
    author: str = ""
    subject: str = ""
    committed: float = 0.0


@dataclass(frozen=True)
class SourceFile:
    """`path` is relative to the repository's root (or platform folder), with forward slashes, and printable.
    `passed_over`: why its content cannot be read, for a warning."""

    path: str
    content: bytes
    passed_over: str = ""


@dataclass(frozen=True)
class BuildContext:
    """The input of a build. `files` is an uncompressed tar stream of it, but for the `.dockerignore` at its root:
    `dockerignore` is that one's text, None if the build does not see it. `dockerfile` may be seen or not."""

    dockerfile: bytes
    dockerignore: bytes | None
    files: Iterable[bytes]


@dataclass(frozen=True)
class CommitDraft:
    """A commit by prichal that replaces the content of one file. `at` in Unix seconds."""

    path: str
    content: bytes
    message: str
    at: int


class Sources(Protocol):
    """Git repositories: one bare clone each, no work tree. Calls on one repository are serialised inside."""

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        """Return the commit id that the remote's ref points to now; nothing is fetched (about 5 ms)."""

    def refs(self, repository: RepositorySpec, credentials: SecretSpec | None) -> Mapping[str, str]:
        """Return the commits of the remote's branches and pull requests, by the full names of their refs; nothing is
        fetched. An empty repository has none. Raises Stalled `TooManyRefs`."""

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        """Bring the ref's commit into the clone. An unchanged remote costs one round trip."""

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        """Return files below `path` with one of `suffixes`, sorted by path; hidden folders and files are
        skipped. Raises Stalled `PathNotFound` if `path` is not a folder of the commit."""

    def read(self, revision: Revision, path: str, most: int) -> bytes:
        """Return a file of the commit. Raises Stalled `PathNotFound` if `path` is not a file, `FileTooLarge` if it has
        more bytes than `most`."""

    def content_id(self, revision: Revision, source: BuildImage) -> str:
        """Return the id of what a build of `source` can see, without what `.dockerignore` excludes. Equal content
        has equal ids."""

    def build_context(self, revision: Revision, source: BuildImage) -> BuildContext:
        """Return the context, which is deterministic (fixed times and owners). Files that `.dockerignore`
        excludes are not checked."""

    def commit(
        self, repository: RepositorySpec, credentials: SecretSpec | None, parent: Revision, draft: CommitDraft
    ) -> str:
        """Put a commit onto the branch of the repository, and return its id. Raises Transient `BranchMoved` if the
        branch no longer points to `parent`, Stalled `ImageWriteFailed` if the server refuses it."""

    def forget(self, names: Iterable[str]) -> None:
        """Delete the clones of these repositories."""
