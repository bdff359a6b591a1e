"""`GitSources`, the `Sources` port: a commit of a remote repository into its clone, and out of it.

Called by the reconciler (fetch, files, content_id, archive) and the poller (head). Every step may be repeated: a
commit counts as fetched once `FETCHED` points to it, and that reference is written last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pygit2

from controller.adapters.git import signatures, tree
from controller.adapters.git.clones import Clones
from controller.adapters.git.credentials import Access
from controller.adapters.git.faults import CloneDamaged, damage
from controller.adapters.git.locations import Scheme, locate
from controller.adapters.git.refs import Target, choose, commit_id
from controller.adapters.git.remote import Conversation, HostKeyTypes, configure
from controller.config import GitSettings
from controller.domain.errors import Stalled, Transient
from controller.domain.spec import RefKind, RepositorySpec, SecretSpec
from controller.ports import Revision, SourceFile

log = logging.getLogger(__name__)

INCOMING = "refs/prichal/incoming"  # what the server sent last
FETCHED = "refs/prichal/fetched"  # the commit that is here with all its files
EVERYTHING = ("+refs/heads/*:refs/prichal/heads/*", "+refs/tags/*:refs/prichal/tags/*")


class GitSources:
    """`hosted`: the folder of repositories that people push to on this host; always allowed as a local path."""

    def __init__(self, clones: Path, settings: GitSettings, hosted: Path) -> None:
        self._clones = Clones(clones)
        self._settings = settings
        self._allowed = (hosted, *settings.allowed_paths)
        configure(settings, home=clones)
        self._host_key_types = HostKeyTypes(home=clones)

    # --- talking to the server ---

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        if repository.ref.kind is RefKind.COMMIT:
            return commit_id(repository.ref.value)
        with self._clones.blank() as blank:
            return choose(repository.ref, self._converse(blank, repository, credentials).advertised()).commit

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        _require(repository.signers, signers)
        with self._clones.locked(repository.name):
            try:
                target = self._update(repository, credentials)
            except CloneDamaged as why:
                target = self._clone_again(repository, credentials, why)
        with self._reading(repository.name, target.commit) as clone:
            commit = clone[target.commit].peel(pygit2.Commit)
            if repository.signers and signers:
                signatures.verify(target.commit, *commit.gpg_signature, signers)
            return _revision(repository.name, target, commit)

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._clones.remove(name)

    def _converse(
        self, clone: pygit2.Repository, repository: RepositorySpec, credentials: SecretSpec | None
    ) -> Conversation:
        _require(repository.credentials, credentials)
        location = locate(repository.url, self._allowed)
        subject = f"repository {repository.name} ({location.url})"
        access = Access(location, credentials)
        if location.scheme is Scheme.SSH:
            self._host_key_types.learn(access)
        return Conversation(clone, access, subject, self._settings)

    def _update(self, repository: RepositorySpec, credentials: SecretSpec | None) -> Target:
        """CloneDamaged if there is no clone, or none that can be used."""
        self._clones.sweep(repository.name)
        with (
            damage(f"the clone of repository {repository.name}"),
            self._clones.open(repository.name) as clone,
        ):
            target = self._bring(clone, repository, credentials, _commit_at(clone, FETCHED))
            self._clones.compact(clone)
            return target

    def _clone_again(
        self, repository: RepositorySpec, credentials: SecretSpec | None, why: CloneDamaged
    ) -> Target:
        """What fails the same way in a fresh clone is not the clone's fault."""
        log.info("cloning", extra={"repository": repository.name, "because": why.message})
        try:
            with self._clones.fresh(repository.name) as clone:
                return self._bring(clone, repository, credentials, None)
        except CloneDamaged as error:
            raise Transient("FetchFailed", error.message) from error

    def _bring(
        self,
        clone: pygit2.Repository,
        repository: RepositorySpec,
        credentials: SecretSpec | None,
        fetched: str | None,
    ) -> Target:
        if repository.ref.kind is RefKind.COMMIT and commit_id(repository.ref.value) == fetched:
            return Target(fetched, fetched)
        conversation = self._converse(clone, repository, credentials)
        target = choose(repository.ref, conversation.advertised())
        if target.commit != fetched:
            self._transfer(clone, conversation, target)
        return target

    def _transfer(self, clone: pygit2.Repository, conversation: Conversation, target: Target) -> None:
        """Only what the ref needs. A commit that the server does not hand out by its id is looked for in everything."""
        by_id = target.ref == target.commit
        with suppress(Transient) if by_id else nullcontext():
            conversation.transfer([f"+{target.ref}:{INCOMING}"], self._clones.stored(clone))
        if by_id and target.commit not in clone:
            conversation.transfer(EVERYTHING, self._clones.stored(clone))
        with damage("what was fetched"):
            if target.commit not in clone and by_id:
                raise Stalled(
                    "RefNotFound", f"no branch or tag of the repository contains the commit {target.commit}"
                )
            if not isinstance(clone[target.commit], pygit2.Commit):
                raise Stalled("RefNotFound", f"{target.ref} does not stand for a commit")
            tree.check_complete(clone, target.commit)
            clone.references.create(FETCHED, pygit2.Oid(hex=target.commit), force=True)

    # --- reading a commit that is here ---

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        with self._reading(revision.repository, revision.commit) as clone:
            return tree.read_files(clone, revision.commit, path, suffixes)

    def content_id(self, revision: Revision, path: str) -> str:
        with self._reading(revision.repository, revision.commit) as clone:
            return str(tree.lookup(clone, revision.commit, path).id)

    def archive(self, revision: Revision, path: str) -> Iterator[bytes]:
        """Problems of the content are raised at once, not in the middle of the stream."""
        with self._reading(revision.repository, revision.commit) as clone:
            entries = tree.archive_entries(clone, revision.commit, path)
        return self._stream(revision, entries)

    def _stream(self, revision: Revision, entries: tuple[tree.Entry, ...]) -> Iterator[bytes]:
        with self._reading(revision.repository, revision.commit) as clone:
            yield from tree.tar(clone, entries)

    @contextmanager
    def _reading(self, name: str, commit: str) -> Iterator[pygit2.Repository]:
        """No lock: objects never change. A clone that turns out damaged is removed, so that the next fetch makes a
        new one."""
        identity = self._clones.identity(name)
        try:
            with damage(f"the clone of repository {name}"), self._clones.open(name) as clone:
                if commit not in clone:
                    raise Transient("RevisionGone", f"commit {commit[:12]} of {name} is not here any more")
                yield clone
        except CloneDamaged:
            self._clones.remove_damaged(name, identity)
            raise


def _require(name: str | None, secret: SecretSpec | None) -> None:
    """A Secret that is named but missing must not pass for none."""
    if name and secret is None:
        raise Stalled("SecretMissing", f"the Repository names the Secret {name!r}, which is not there")


def _commit_at(clone: pygit2.Repository, ref: str) -> str | None:
    """The commit that `ref` points to. KeyError or pygit2.GitError if the commit or its tree cannot be read."""
    if ref not in clone.references:
        return None
    commit = clone.references[ref].peel(pygit2.Commit)
    commit.peel(pygit2.Tree)
    return str(commit.id)


def _revision(repository: str, target: Target, commit: pygit2.Commit) -> Revision:
    return Revision(
        repository=repository,
        commit=target.commit,
        ref=target.ref,
        author=f"{commit.author.name} <{commit.author.email}>",
        subject=commit.message.strip().partition("\n")[0],
        committed=float(commit.commit_time),
    )
