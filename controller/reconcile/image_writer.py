"""Writes images that are followed into Git: a commit by prichal that changes one value of one manifest. Called by the
follower.

The branch is read again for each attempt, so that what others have pushed meanwhile is kept, and an attempt that was
cut off finds its own commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.domain.apps.followed_images import FollowedImage, FollowState
from controller.domain.apps.spec import PlatformAppSpec, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import Stalled, Transient
from controller.domain.image_names import split_reference
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.manifests.image_edit import EditedFile, edit_image
from controller.ports import CommitDraft
from controller.reconcile.commit_manifests import SUFFIXES
from controller.reconcile.deps import ReconcilerDeps

ATTEMPTS: Final = 5  # while others push at the same time


@dataclass(frozen=True)
class ImageWriter:
    deps: ReconcilerDeps

    def write(self, declared: PlatformAppSpec, image: FollowedImage, state: FollowState) -> tuple[str, bool]:
        """Return the commit that has the image, and whether it was made now. Raises Stalled `ImageWriteFailed`,
        Transient `BranchMoved`, and otherwise as `Sources`."""
        repository = self._repository(declared)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(declared, repository, image, state)
            except Transient as error:
                if error.reason != Reason.BRANCH_MOVED or attempt == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _attempt(
        self, declared: PlatformAppSpec, repository: RepositorySpec, image: FollowedImage, state: FollowState
    ) -> tuple[str, bool]:
        sources, credentials = self.deps.sources, self._credentials(repository)
        head = sources.fetch(repository, credentials, None)
        edited = edit_image(sources.files(head, declared.path, SUFFIXES), image, state.image)
        if edited is None:
            return head.commit, False
        draft = CommitDraft(
            edited.path,
            edited.content,
            message_of(declared, image, edited, state),
            int(self.deps.clock.now()),
        )
        return sources.commit(repository, credentials, head, draft), True

    def _repository(self, declared: PlatformAppSpec) -> RepositorySpec:
        repository = self.deps.catalog.spec.repository(declared.repository)
        if repository is None:
            raise Stalled(
                Reason.REPOSITORY_MISSING,
                Localizable(
                    "the Repository {repository!r} does not exist: add it to the platform folder",
                    repository=declared.repository,
                ),
            )
        if repository.ref.kind is not RefKind.BRANCH:
            told = Localizable(
                "the Repository {repository} follows no branch, so images cannot be written back to it: leave out "
                "follow.writeBack",
                repository=repository.name,
            )
            raise Stalled(Reason.IMAGE_WRITE_FAILED, told)
        if repository.signers:
            told = Localizable(
                "the Repository {repository} takes signed commits alone, and those of prichal are not signed: leave "
                "out follow.writeBack",
                repository=repository.name,
            )
            raise Stalled(Reason.IMAGE_WRITE_FAILED, told)
        return repository

    def _credentials(self, repository: RepositorySpec) -> SecretSpec | None:
        return self.deps.catalog.repository_secret(repository, repository.credentials)


def message_of(
    declared: PlatformAppSpec, image: FollowedImage, edited: EditedFile, state: FollowState
) -> str:
    """Return the message of the commit: what was changed, and why."""
    name, tag, _ = split_reference(state.image)
    short = name.rpartition("/")[2]
    return (
        f"Follow {short} to {tag} in {image.subject}\n\n"
        f"App: {declared.name}\nFile: {edited.path}\nBefore: {edited.before}\nAfter: {state.image}\n"
        f"Why: {state.why}\n"
    )
