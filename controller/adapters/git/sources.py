"""`GitSources`, the `Sources` port: fetches a commit of a remote repository into its clone, and reads it.

Called by the reconciler (fetch, files, content_id, build_context) and the poller (head). Every step may be
repeated: a commit counts as fetched once the file `FETCHED`, which is written last, names it. It is not a
reference: libgit2 tells servers what a clone has by walking from its references, and fails at commits that it
cannot parse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pygit2

from controller.adapters.git import commits, signatures, tree
from controller.adapters.git.clones import Clones
from controller.adapters.git.credentials import Access
from controller.adapters.git.faults import CloneDamaged, damage
from controller.adapters.git.local import LocalSession, SourceUnreadable
from controller.adapters.git.locations import UrlScheme, locate
from controller.adapters.git.refs import (
    BRANCHES,
    PULLS,
    Advertised,
    ResolvedRef,
    choose,
    commit_id,
    full_name,
)
from controller.adapters.git.remote import HostKeyTypes, RemoteSession, configure
from controller.atomic import replace_file
from controller.config import GitSettings
from controller.domain.apps.spec import BuildImage, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.templates import TemplateFile
from controller.domain.text import printable
from controller.ports import BuildContext, CommitDraft, Revision, SourceFile

log = logging.getLogger(__name__)

INCOMING = "refs/prichal/incoming"  # what the server sent last
KNOWN = "refs/prichal/fetched"  # the last commit that libgit2 can tell a server of
FETCHED = "prichal-fetched"  # file in a clone: the commit that is complete here
MAX_CONTENT_IDS = 1000
MOST_REFS = 100_000  # branches and pull requests that are listed for previews
EVERYTHING = ("+refs/heads/*:refs/prichal/heads/*", "+refs/tags/*:refs/prichal/tags/*")


class GitSources:
    """`hosted` is the folder of repositories that people push to on this host; it is always allowed as a
    local path.
    """

    def __init__(self, clones: Path, settings: GitSettings, hosted: Path) -> None:
        self._clones = Clones(clones)
        self._settings = settings
        self._allowed = (hosted, *settings.allowed_paths)
        self._bounds = tree.TreeLimits(settings.max_file, settings.max_context)
        self._largest = max(settings.max_file, tree.MAX_FILE)  # bytes of an object that is read
        self._content_ids: dict[tuple[str, str], str] = {}
        #: Repositories whose clone was damaged, with what is known to be damaged in themselves.
        self._suspects: dict[str, tree.Damage | None] = {}
        configure(settings, home=clones)
        self._host_key_types = HostKeyTypes(home=clones)

    # --- talking to the server ---

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        if repository.ref.kind is RefKind.COMMIT:
            return commit_id(repository.ref.value)
        if repository.head:
            return repository.head
        with self._clones.blank() as blank:
            return choose(repository.ref, self._converse(blank, repository, credentials).advertised()).commit

    def refs(self, repository: RepositorySpec, credentials: SecretSpec | None) -> Mapping[str, str]:
        with self._clones.blank() as blank:
            advertised = self._converse(blank, repository, credentials).advertised()
        found = {
            name: commit for name, commit in advertised.refs.items() if name.startswith((BRANCHES, *PULLS))
        }
        if len(found) > MOST_REFS:
            told = Localizable(
                "the server has {count} branches and pull requests, and at most {most} are looked at for previews: "
                "delete branches that nobody needs, or let the app have no `previews`",
                count=len(found),
                most=MOST_REFS,
            )
            raise Stalled(Reason.TOO_MANY_REFS, told)
        return found

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        _require(repository.signers, signers)
        with self._clones.locked(repository.name):
            target = self._update(repository, credentials)
        with self._reading(repository.name, target.commit) as clone:
            if repository.signers and signers:
                signatures.verify(target.commit, *_signature(clone, target.commit), signers)
            return _revision(repository.name, target, commits.read(clone, target.commit))

    def commit(
        self, repository: RepositorySpec, credentials: SecretSpec | None, parent: Revision, draft: CommitDraft
    ) -> str:
        with self._clones.locked(repository.name), self._reading(repository.name, parent.commit) as clone:
            session = self._converse(clone, repository, credentials)
            return session.commit(f"{BRANCHES}{repository.ref.value}", parent.commit, draft)

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._clones.remove(name)
            self._suspects.pop(name, None)

    def _converse(
        self, clone: pygit2.Repository, repository: RepositorySpec, credentials: SecretSpec | None
    ) -> RemoteSession:
        _require(repository.credentials, credentials)
        location = locate(repository.url, self._allowed)
        subject = Localizable("repository {name} ({url})", name=repository.name, url=location.url)
        access = Access(location, credentials)
        if location.scheme is UrlScheme.SSH:
            self._host_key_types.add(access)
        kind = LocalSession if location.scheme is UrlScheme.LOCAL else RemoteSession
        return kind(clone, access, subject, self._settings)

    def _update(self, repository: RepositorySpec, credentials: SecretSpec | None) -> ResolvedRef:
        """Fetch the wanted commit. A clone is created if missing, and again only if it is damaged."""
        name = repository.name
        self._clones.sweep(name)
        if self._clones.identity(name) is None:
            return self._clone_anew(repository, credentials)
        try:
            with (
                damage(Localizable("the clone of repository {name}", name=name)),
                self._clones.open(name) as clone,
            ):
                target = self._bring(clone, repository, credentials)
                self._clones.compact(clone)
                return target
        except CloneDamaged as why:
            return self._clone_anew(repository, credentials, why)

    def _clone_anew(
        self, repository: RepositorySpec, credentials: SecretSpec | None, why: CloneDamaged | None = None
    ) -> ResolvedRef:
        """Clone a repository. What fails again in a new clone is not caused by the clone. The server is asked
        first: without the wanted ref there is nothing to clone.
        """
        with self._clones.blank() as blank:
            session = self._converse(blank, repository, credentials)
            target = self._target(repository, session)
            if why or repository.name in self._suspects:
                self._require_intact(repository.name, session, target.commit)
        because = {"because": why.message} if why else {}
        log.info("cloning", extra={"repository": repository.name, **because})
        try:
            with self._clones.fresh(repository.name) as clone:
                session = self._converse(clone, repository, credentials)
                try:
                    self._transfer(clone, repository, session, target)
                except CloneDamaged:
                    self._require_intact(repository.name, session, target.commit)
                    raise
        except CloneDamaged as error:
            raise Transient(Reason.FETCH_FAILED, error.message) from error
        self._suspects.pop(repository.name, None)
        return target

    def _require_intact(self, name: str, session: RemoteSession, commit: str) -> None:
        """Raise Transient `RepositoryDamaged` if the commit is damaged in the repository itself: another clone of it
        would be, too, and may have gigabytes. The object that was found is looked at first the next time."""
        found = session.find_damage(commit, self._largest, self._suspects.get(name))
        self._suspects[name] = found
        if found is None:
            return
        raise Transient(
            Reason.REPOSITORY_DAMAGED,
            Localizable(
                "{subject} itself is damaged: {path} of commit {commit}, object {id}, cannot be read: {error}. Restore "
                "it from a backup, or as docs/guide/git.md says",
                subject=session.subject,
                path=repr(found.path),
                commit=commit[:12],
                id=found.id[:12],
                error=found.error,
            ),
        )

    def _target(self, repository: RepositorySpec, conversation: RemoteSession) -> ResolvedRef:
        if repository.ref.kind is RefKind.COMMIT:
            return choose(repository.ref, Advertised({}))
        return choose(repository.ref, conversation.advertised())

    def _bring(
        self, clone: pygit2.Repository, repository: RepositorySpec, credentials: SecretSpec | None
    ) -> ResolvedRef:
        fetched = _fetched(clone)
        if repository.ref.kind is RefKind.COMMIT and commit_id(repository.ref.value) == fetched:
            return ResolvedRef(fetched, fetched)
        if repository.head and repository.head == fetched:
            return ResolvedRef(full_name(repository.ref), fetched)
        conversation = self._converse(clone, repository, credentials)
        target = self._target(repository, conversation)
        if target.commit == fetched:
            return target
        try:
            self._transfer(clone, repository, conversation, target)
        except CloneDamaged:
            if fetched is None or tree.is_damaged(clone, fetched, self._largest):
                raise
            # The clone is intact, but libgit2 cannot walk its history. Without references it requests
            # everything.
            for reference in clone.raw_listall_references():
                clone.references.delete(reference.decode("utf-8", "surrogateescape"))
            self._transfer(clone, repository, self._converse(clone, repository, credentials), target)
        return target

    def _transfer(
        self,
        clone: pygit2.Repository,
        repository: RepositorySpec,
        conversation: RemoteSession,
        target: ResolvedRef,
    ) -> None:
        try:
            self._receive(clone, conversation, target)
        except SourceUnreadable:
            self._require_intact(repository.name, conversation, target.commit)
            raise

    def _receive(self, clone: pygit2.Repository, conversation: RemoteSession, target: ResolvedRef) -> None:
        """Fetch only what the ref needs. A commit that the server does not serve by its id is searched in
        everything.
        """
        by_id = target.ref == target.commit
        with suppress(Transient) if by_id else nullcontext():
            conversation.transfer([f"+{target.ref}:{INCOMING}"], self._clones.stored(clone))
        if by_id and not commits.is_here(clone, target.commit):
            conversation.transfer(EVERYTHING, self._clones.stored(clone))
        with damage(Localizable("what was fetched")):
            if by_id and not commits.is_here(clone, target.commit):
                raise Stalled(
                    Reason.REF_NOT_FOUND,
                    Localizable(
                        "no branch or tag of the repository contains the commit {commit}",
                        commit=target.commit,
                    ),
                )
            if not commits.is_commit(clone, target.commit):
                raise Stalled(
                    Reason.REF_NOT_FOUND, Localizable("{ref} does not point to a commit", ref=target.ref)
                )
            tree.check_complete(clone, target.commit)
            _note_fetched(clone, target.commit)

    # --- reading a commit that is here ---

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        with self._reading(revision.repository, revision.commit) as clone:
            return tree.read_files(clone, revision.commit, path, suffixes)

    def template_files(self, revision: Revision) -> tuple[TemplateFile, ...]:
        """Return the description of a template and its files. Raises Stalled for what templates may not have."""
        with self._reading(revision.repository, revision.commit) as clone:
            return tree.template_files(clone, revision.commit)

    def read(self, revision: Revision, path: str, most: int) -> bytes:
        with self._reading(revision.repository, revision.commit) as clone:
            return tree.read_file(clone, revision.commit, path, most)

    def content_id(self, revision: Revision, source: BuildImage) -> str:
        """Return the digest of a context. Results are cached by the folder's id, since reading many files
        takes seconds.
        """
        with self._reading(revision.repository, revision.commit) as clone:
            root = tree.folder(clone, revision.commit, source.context)
            key = (str(root.id), source.dockerfile)
            if key not in self._content_ids:
                self._content_ids[key] = tree.build_context(clone, root, source.dockerfile).digest
                if len(self._content_ids) > MAX_CONTENT_IDS:
                    self._content_ids.pop(next(iter(self._content_ids)), None)
            return self._content_ids[key]

    def build_context(self, revision: Revision, source: BuildImage) -> BuildContext:
        """Return the context. Problems of the content are raised at once, not in the middle of the stream."""
        with self._reading(revision.repository, revision.commit) as clone:
            root = tree.folder(clone, revision.commit, source.context)
            found = tree.build_context(clone, root, source.dockerfile)
            tree.check_sendable(clone, found, self._bounds)
            dockerfile, ignoring = (
                tree.content_of(clone, id, name, tree.MAX_RULES) if id else None
                for name, id in ((source.dockerfile, found.dockerfile), (".dockerignore", found.dockerignore))
            )
        return BuildContext(dockerfile or b"", ignoring, self._stream(revision, found.entries))

    def _stream(self, revision: Revision, entries: tuple[tree.TreeEntry, ...]) -> Iterator[bytes]:
        with self._reading(revision.repository, revision.commit) as clone:
            yield from tree.tar(clone, entries)

    @contextmanager
    def _reading(self, name: str, commit: str) -> Iterator[pygit2.Repository]:
        """Yield the clone for reading, without a lock, since objects never change. A damaged clone is
        removed, so that the next fetch creates a new one; an intact one is kept, and raises Transient
        `CommitUnreadable` if the commit cannot be read.
        """
        identity = self._clones.identity(name)
        try:
            with (
                damage(Localizable("the clone of repository {name}", name=name)),
                self._clones.open(name) as clone,
            ):
                if not commits.is_here(clone, commit):
                    raise Transient(
                        Reason.REVISION_GONE,
                        Localizable(
                            "commit {commit} of {name} is no longer in the clone",
                            commit=commit[:12],
                            name=name,
                        ),
                    )
                yield clone
        except CloneDamaged as error:
            if not self._is_damaged(name, commit):
                raise Transient(
                    Reason.COMMIT_UNREADABLE,
                    Localizable(
                        "commit {commit} of {name} cannot be read: {error}",
                        commit=commit[:12],
                        name=name,
                        error=repr(error.__cause__),
                    ),
                ) from error
            self._clones.remove_damaged(name, identity)
            self._suspects.setdefault(name, None)
            raise

    def _is_damaged(self, name: str, commit: str) -> bool:
        try:
            with self._clones.open(name) as clone:
                return tree.is_damaged(clone, commit, self._largest)
        except (pygit2.GitError, OSError):
            return True


def _require(name: str | None, secret: SecretSpec | None) -> None:
    """Raise if a named Secret is missing: it must not be treated as if none was named."""
    if name and secret is None:
        raise Stalled(
            Reason.SECRET_MISSING,
            Localizable("the Repository names the Secret {name!r}, which does not exist", name=name),
        )


def _fetched(clone: pygit2.Repository) -> str | None:
    """Return the fetched commit. Raises KeyError or pygit2.GitError if it or its tree cannot be read."""
    try:
        commit = Path(clone.path, FETCHED).read_text()
    except FileNotFoundError:
        return None
    tree.root_of(clone, commit)
    return commit


def _note_fetched(clone: pygit2.Repository, commit: str) -> None:
    """Record the fetched commit, last and atomically."""
    with suppress(pygit2.GitError, ValueError):
        clone.references.create(KNOWN, pygit2.Oid(hex=commit), force=True)
    replace_file(Path(clone.path, FETCHED), commit)


def _signature(clone: pygit2.Repository, commit: str) -> tuple[bytes | None, bytes | None]:
    """Return the signature and what was signed. A commit that libgit2 cannot parse counts as unsigned."""
    try:
        return clone[commit].peel(pygit2.Commit).gpg_signature
    except (pygit2.GitError, ValueError):
        return None, None


def _revision(repository: str, target: ResolvedRef, commit: commits.RawCommit) -> Revision:
    return Revision(
        repository=repository,
        commit=target.commit,
        ref=printable(target.ref),
        author=commit.author,
        subject=commit.subject,
        committed=commit.committed,
    )
