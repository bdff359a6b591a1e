"""`FakeSources`: the port `Sources` in memory. A test pushes commits, and can inject failures of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from itertools import count

from controller.domain.apps.spec import BuildImage, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.ports import BuildContext, CommitDraft, Revision, SourceFile
from tests.support.engines import tar_of

Tree = Mapping[str, bytes]


class FakeSources:
    """`fault`: what `fetch` and `head` raise; `fetched` counts the fetches; `forgotten` are the clones deleted."""

    def __init__(self) -> None:
        self.fault: ControllerError | None = None
        self.fetched = 0
        self.forgotten: list[str] = []
        self.drafts: list[CommitDraft] = []  # commits by prichal
        self.before_commit: Callable[[], object] = lambda: None
        self.listed = 0  # how often the refs of a server were asked for
        self._heads: dict[str, str] = {}
        self._refs: dict[str, dict[str, str]] = {}  # of branches beside the one that is followed
        self._commits: dict[tuple[str, str], Tree] = {}
        self._served: dict[tuple[str, str], Tree] = {}  # not in the clone, but on the server
        self._numbers = count(1)

    # --- script ------------------------------------------------------------------------------------------------

    def push(self, repository: str, files: Mapping[str, str]) -> str:
        """A new commit that holds exactly these files; its id."""
        tree = {path: text.encode() for path, text in files.items()}
        commit = hashlib.sha1(f"{next(self._numbers)} {tree}".encode(), usedforsecurity=False).hexdigest()
        self._commits[repository, commit] = tree
        self._heads[repository] = commit
        return commit

    def push_branch(self, repository: str, ref: str, files: Mapping[str, str]) -> str:
        """A new commit on another branch, or of a pull request; its id."""
        followed = self._heads.get(repository)
        commit = self.push(repository, files)
        self._heads.pop(repository)
        if followed:
            self._heads[repository] = followed
        self._refs.setdefault(repository, {})[ref] = commit
        return commit

    def delete_branch(self, repository: str, ref: str) -> None:
        del self._refs[repository][ref]

    def move(self, repository: str, commit: str) -> None:
        """The branch points to a commit that was there before: a force push."""
        self._heads[repository] = commit

    def lose(self, repository: str, commit: str, served: bool = False) -> None:
        """The commit is gone from the clone, as after a force push and a clean-up. `served`: the clone is new, and the
        server still has the commit."""
        tree = self._commits.pop((repository, commit))
        if served:
            self._served[repository, commit] = tree

    # --- the port ----------------------------------------------------------------------------------------------

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        if self.fault:
            raise self.fault
        if repository.ref.kind is RefKind.COMMIT:
            if (repository.name, repository.ref.value) not in {**self._commits, **self._served}:
                raise Stalled(Reason.REF_NOT_FOUND, f"no branch contains the commit {repository.ref.value}")
            return repository.ref.value
        if repository.name.startswith("@"):
            return self._head_of_preview(repository)
        if repository.name not in self._heads:
            raise Stalled(Reason.REF_NOT_FOUND, f"{repository.name} has no branch {repository.ref.value}")
        return self._heads[repository.name]

    def _head_of_preview(self, repository: RepositorySpec) -> str:
        """A clone of its own, of the same server."""
        server = repository.url.removesuffix(".git").rpartition("/")[2]
        ref = (
            repository.ref.value
            if repository.ref.kind is RefKind.PULL
            else f"refs/heads/{repository.ref.value}"
        )
        commit = repository.head if (repository.name, repository.head) in self._commits else ""
        commit = commit or self._refs.get(server, {}).get(ref, "")
        if not commit:
            raise Stalled(Reason.REF_NOT_FOUND, f"{server} has no {ref}")
        self._commits.setdefault((repository.name, commit), self._commits[server, commit])
        return commit

    def refs(self, repository: RepositorySpec, credentials: SecretSpec | None) -> Mapping[str, str]:
        if self.fault:
            raise self.fault
        self.listed += 1
        head = self._heads.get(repository.name)
        followed = {f"refs/heads/{repository.ref.value}": head} if head else {}
        return {**followed, **self._refs.get(repository.name, {})}

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        commit = self.head(repository, credentials)
        self.fetched += 1
        if repository.ref.kind is RefKind.COMMIT:
            self._commits |= {key: tree for key, tree in self._served.items() if key[1] == commit}
        return Revision(repository.name, commit, f"refs/heads/{repository.ref.value}", subject="a change")

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        below = self._below(revision, path)
        return tuple(SourceFile(p, below[p]) for p in sorted(below) if p.endswith(suffixes))

    def read(self, revision: Revision, path: str, most: int) -> bytes:
        found = self._below(revision, ".").get(path)
        if found is None:
            raise Stalled(Reason.PATH_NOT_FOUND, f"there is no file {path} in commit {revision.commit[:12]}")
        if len(found) > most:
            raise Stalled(Reason.FILE_TOO_LARGE, f"{path} has {len(found)} bytes")
        return found

    def content_id(self, revision: Revision, source: BuildImage) -> str:
        return hashlib.sha256(
            repr(sorted(self._below(revision, source.context).items())).encode()
        ).hexdigest()

    def build_context(self, revision: Revision, source: BuildImage) -> BuildContext:
        files = {name: content.decode() for name, content in self._below(revision, source.context).items()}
        return BuildContext(files.get(source.dockerfile, "").encode(), None, [tar_of(files)])

    def commit(
        self, repository: RepositorySpec, credentials: SecretSpec | None, parent: Revision, draft: CommitDraft
    ) -> str:
        self.before_commit()
        if self._heads[repository.name] != parent.commit:
            raise Transient(Reason.BRANCH_MOVED, "the branch has another commit meanwhile")
        tree = {**self._commits[repository.name, parent.commit], draft.path: draft.content}
        self.drafts.append(draft)
        return self.push(repository.name, {path: content.decode() for path, content in tree.items()})

    def forget(self, names: Iterable[str]) -> None:
        self.forgotten += names

    def _below(self, revision: Revision, path: str) -> Tree:
        tree = self._commits.get((revision.repository, revision.commit))
        if tree is None:
            raise Stalled(
                Reason.REVISION_GONE, f"{revision.commit[:12]} is not in the clone of {revision.repository}"
            )
        if path == ".":
            return tree
        below = {name: content for name, content in tree.items() if name.startswith(f"{path}/")}
        if not below:
            raise Stalled(Reason.PATH_NOT_FOUND, f"there is no folder {path} in {revision.commit[:12]}")
        return below
