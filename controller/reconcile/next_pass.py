"""Computes what a pass would do now, for people who ask (`prichal plan`). Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.gpu_plan import beside_itself, gpu_failures
from controller.domain.apps.history import ManifestText
from controller.domain.apps.plan import Plan
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.ports import Revision
from controller.reconcile.commit_manifests import manifests_of
from controller.reconcile.convergence import plan_of
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.loading import CommitLoader
from controller.reconcile.observe import observe
from controller.reconcile.secret_sources import hidden_of
from controller.reconcile.status_writer import STAYS_DECLARED, STAYS_SUSPENDED, StatusWriter


@dataclass(frozen=True)
class NextPass:
    """What a pass would do now. `warnings` hold besides, `hidden` must not appear in what people see of it."""

    plan: Plan
    revision: Revision
    manifests: tuple[ManifestText, ...]
    warnings: tuple[str, ...]
    hidden: tuple[Secret, ...]


def preview(deps: ReconcilerDeps, app: AppName) -> NextPass:
    """Return what would be done as things stand, without acting or writing; the repository is fetched. Raises what
    prevents a plan."""
    declared = deps.catalog.spec.app(app)
    if declared is None:
        raise Stalled(Reason.UNKNOWN_APP, Localizable("there is no PlatformApp {app!r}", app=app))
    writer = StatusWriter(deps.store, deps.clock, app, hidden_of(deps, app), silent=True)
    loader = CommitLoader(deps, writer, declared, ungated=True)
    loaded = loader.load()
    desired = loader.desired(loaded, fresh=False)
    if loader.follow_models(loaded):
        desired = loader.desired(loaded, fresh=False)
    observed = observe(deps, desired)
    # what was never created can be planned without observing the storage
    if observed.storage and not observed.boxes:
        observed = replace(observed, storage=None)
    plan = plan_of(deps, desired, observed, writer.status, deps.clock.now())
    warnings = [joined((each.reason, each.message), ": ") for each in writer.extra_conditions]
    if held := find(writer.before.conditions, ConditionType.DEPLOY_PENDING):
        warnings.append(joined((held.reason, held.message), ": "))
    if writer.rolled_back:
        warnings.append(joined((Reason.ROLLED_BACK, writer.rolled_back.message), ": "))
    if declared.suspend or writer.before.suspended:
        stays = STAYS_DECLARED if declared.suspend else STAYS_SUSPENDED
        warnings.append(joined((Reason.SUSPENDED, stays), ": "))
    gpus = deps.gpu_leases.view(desired)
    warnings += [*gpu_failures(plan, gpus), *beside_itself(desired, gpus.pool)]
    manifests = manifests_of(deps, loaded.revision, declared, writer.secrets)
    return NextPass(plan, loaded.revision, manifests, tuple(warnings), writer.secrets)
