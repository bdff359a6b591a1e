"""An app about which several things are decided at once: it was rolled back, new commits and images wait, it is
suspended. Each state is reached as it is in practice."""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.deploy_gate import DeployWindow
from controller.domain.apps.spec import PlatformAppSpec
from controller.web.api.platform.stored import approved_revision
from tests.unit.reconcile.following import NAME, Following
from tests.unit.reconcile.harness import APP, Harness, api, app, ml
from tests.unit.reconcile.test_rollout_watch import ROLLOUT, count

#: The harness begins on 2023-11-14 at 22:13:20 UTC: this one opens months later.
CLOSED = (DeployWindow("0 23 1 3 *", "UTC", 3600.0),)
_FOLLOWED: dict[str, object] = {"existingImageName": NAME, "follow": {"semver": "^1"}}
SHOWN = (ConditionType.SUSPENDED, ConditionType.ROLLED_BACK, ConditionType.DEPLOY_PENDING)


class Deciding:
    """The second version is in service and is watched. `follows`: versions are images that are followed, at one commit;
    else each is a commit."""

    def __init__(self, harness: Harness, follows: bool) -> None:
        self.harness, self.follows = harness, follows
        self.callers = count(harness)
        self.following = Following(harness)
        self.declared: PlatformAppSpec = app()
        self.number = 0
        self.versions: dict[str, str] = {}  # their names by image or commit
        harness.connect(self.declared)
        self.newer()
        harness.clock.advance(600.0)
        self.newer()
        harness.retry()  # late counts are those of the first version

    # --- states ------------------------------------------------------------------------------------------------

    def rollback(self) -> None:
        self.harness.roll_back()
        self.harness.run("rollback")
        self.harness.run("retry")

    def automatic(self) -> None:
        self.callers.codes[500] += 1000
        self.harness.clock.advance(10.0)
        self.harness.run("drift")
        self.harness.run("rollback")
        self.harness.run("retry")

    def approval(self) -> None:
        self._hold(approval=True)

    def frozen(self) -> None:
        self._hold(frozen=True)

    def window(self) -> None:
        self._hold(windows=CLOSED)

    def suspended(self) -> None:
        self.harness.store.apps.set_suspended(APP, True)
        self.harness.run("manual")

    def image(self) -> None:
        self.newer()
        if self.harness.outcome.retry_after:
            self.harness.retry()  # late counts are those of the version before

    def _hold(self, **changes: object) -> None:
        """A rule comes, beside those that there are, and a newer version that it may hold."""
        rules = replace(self.declared.deploy, **changes)  # type: ignore[arg-type]
        self.declared = replace(self.declared, deploy=rules)
        self.harness.connect(self.declared)
        self.newer()

    # --- what happens -------------------------------------------------------------------------------------------

    def newer(self) -> None:
        """A version comes that is newer than all others."""
        self.number += 1
        if not self.follows:
            self._commit("demo:1", ORDER=str(self.number))
            return
        image = self.following.push(f"1.{self.number}.0")
        self.versions[image] = str(self.number)
        if self.number == 1:
            self.harness.push(ml(image=_FOLLOWED, rollout=ROLLOUT), api())
            self.harness.run()
        self.following.take()

    def commit(self) -> None:
        """A new commit comes."""
        if self.follows:
            self._commit(_FOLLOWED, ORDER="new")
        else:
            self.newer()

    def _commit(self, image: str | dict[str, object], **env: str) -> None:
        values = [{"name": name, "value": value} for name, value in env.items()]
        commit = self.harness.push(ml(image=image, rollout=ROLLOUT, env=values), api())
        self.versions[commit] = str(self.number)
        self.harness.run()

    def nothing(self) -> None:
        """Nobody does anything."""

    def resume(self) -> None:
        self.harness.resume()
        self.harness.run("manual")

    def approve(self) -> None:
        self.harness.store.apps.approve(APP, approved_revision(self.harness.status()))
        self.harness.run("manual")

    # --- what is to be seen -------------------------------------------------------------------------------------

    @property
    def shown(self) -> str:
        """The version in service, and what the status says about it."""
        status = self.harness.status()
        found = [find(status.conditions, kind) for kind in SHOWN]
        return " ".join([self.serving, *(str(each.reason) for each in found if each)])

    @property
    def serving(self) -> str:
        status = self.harness.status()
        return self.versions[status.components[0].image if self.follows else status.desired_revision]
