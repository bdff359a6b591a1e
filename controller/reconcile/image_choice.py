"""Chooses the images of an app in place of those that Git has: those of a rollback, or the newest ones that registries
have, unless something holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from controller.domain.apps.deploy_gate import HeldCommit, hold_commit
from controller.domain.apps.followed_images import FollowRecord, has_newer, wanted_images, warnings_of
from controller.domain.apps.releases import Images, changed_images, release
from controller.domain.apps.rollback import is_of_images, rejected_images
from controller.domain.apps.spec import AppSpec, PlatformAppSpec
from controller.domain.apps.status import Rollback
from controller.domain.localizable import Localizable
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.status_writer import StatusWriter


class ImageChoice:
    """The choice of one pass. `ungated`: newer images are taken even if they are not to be applied yet."""

    def __init__(
        self, deps: ReconcilerDeps, status_writer: StatusWriter, declared: PlatformAppSpec, ungated: bool
    ) -> None:
        self._deps = deps
        self._status_writer = status_writer
        self._declared = declared
        self._ungated = ungated
        self._chosen: Images | None = None
        self._newest: Images = ()  # that would be deployed if nothing held them
        self._spec: AppSpec | None = None  # for which these were chosen

    @cached_property
    def _followed(self) -> tuple[FollowRecord, ...]:
        """What was known of followed images when this pass began."""
        return self._deps.store.images.of(self._declared.name)

    def warnings(self) -> Iterator[str]:
        return warnings_of(self._followed)

    def fix(self, images: Images) -> None:
        """Deploy these images, whatever newer ones there are."""
        self._chosen = images

    def choose(self, spec: AppSpec, commit: str) -> tuple[Images, HeldCommit | None]:
        """Return the images of this pass, and why newer ones have to wait, if they do: they wait as a new commit
        does."""
        if self._chosen is not None:
            return self._chosen, None
        status = self._status_writer.before
        held: HeldCommit | None = None
        self._spec = spec
        self._chosen = self._newest = wanted_images(spec, self._followed, status.desired_images)
        waits = {record.image.subject: record.state.why for record in self._followed}
        self._status_writer.record_newest_images(self._newest, waits)
        if commit == status.desired_revision and not self._ungated:
            kept = wanted_images(spec, self._followed, status.desired_images, hold=True)
            if kept != self._newest and (held := self._hold(commit, kept)):
                self._chosen = kept
        return self._chosen, held

    def newest_release(self, commit: str) -> str:
        """Return the release of this commit with the newest images."""
        return release(commit, self._newest)

    def found_newer(self) -> bool:
        """Return whether newer images were found since they were chosen."""
        if self._spec is None:
            return False
        records = self._deps.store.images.of(self._declared.name)
        return wanted_images(self._spec, records, self._newest) != self._newest

    def has_newer_than(self, rollback: Rollback, back: Images) -> bool:
        """Return whether a registry has a newer image than the one that a rollback of images was made from."""
        attempted = self._status_writer.before.attempted_images
        return is_of_images(rollback) and has_newer(self._followed, back, attempted)

    def reject(self, rollback: Rollback, back: Images) -> None:
        """Record what is rolled back, so that it is not chosen again when the rollback ends."""
        rejected = rejected_images(rollback, back, self._status_writer.before.attempted_images)
        if rejected and not self._ungated:
            known = {record.image.subject: record.rejected for record in self._followed}
            self._deps.store.images.reject(self._declared.name, tuple({**known, **dict(rejected)}.items()))

    def _hold(self, commit: str, kept: Images) -> HeldCommit | None:
        """Return why newer images have to wait, as a new commit would."""
        status, wanted = self._status_writer.before, self.newest_release(commit)
        now, after = self._deps.clock.now(), self._deps.ticks.after
        new = ", ".join(
            f"{image.partition('@')[0]} ({name})" for name, _, image in changed_images(kept, self._newest)
        )
        told = Localizable("the newer image {image}", image=new)
        rules = self._declared.deploy
        return hold_commit(status.app, wanted, rules, status.approved_revision, now, after, told)
