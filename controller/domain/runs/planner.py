"""Planning for pipelines: which images of stages to pull or build, and which pipelines can be run. Pure; called by
`planner.plan_app`.

A pipeline is published when all its images are on this host, so that no run waits for one. Until then, and
while an image is not available, the previous version can be run."""

from __future__ import annotations

from controller.domain.apps.desired import DesiredApp, DesiredPipeline, DesiredStage
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import (
    Action,
    BuildImageAction,
    EnsureAccount,
    Hold,
    PublishPipelines,
    PullImage,
)
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import AppStatus
from controller.domain.localizable import Localizable, joined
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline


def plan_pipelines(
    desired: DesiredApp, observed: ObservedApp, status: AppStatus, may_publish: bool = True
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    groups: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    for pipeline in desired.pipelines:
        for stage in pipeline.stages:
            memory = status.component(stage.name)
            if stage.pin.present:
                continue
            if memory and memory.failed_fingerprint == stage.pin.deploy:
                holds.append(
                    Hold(stage.name, Reason.FAILED, memory.failure, kind=ComponentKind.EXPERIMENT_PIPELINE)
                )
            else:
                groups.append((_bring(stage),))
    groups += _accounts(desired, observed)
    wanted = _runnable(desired, observed)
    builds = any(isinstance(group[0], BuildImageAction) for group in groups)
    if may_publish and wanted != observed.pipelines and not builds:
        before = tuple(group[0] for group in groups)
        return [(*before, PublishPipelines(wanted, _why(observed.pipelines, wanted)))], holds
    return groups, holds


def _accounts(desired: DesiredApp, observed: ObservedApp) -> list[tuple[Action, ...]]:
    """Return the accounts whose keys stages receive, whether or not their images are ready."""
    if observed.storage:
        return []
    accounts = {wanted.account.name: wanted.account for wanted in desired.pipelines if wanted.account}
    return [
        (EnsureAccount(accounts[name], why=Localizable("the pipeline has connected boxes")),)
        for name in sorted(accounts.keys() - observed.accounts)
    ]


def _bring(stage: DesiredStage) -> Action:
    if stage.build and stage.pin.to_build:
        why = Localizable("this content has not been built here")
        return BuildImageAction(stage.name, stage.pin.deploy, stage.build, stage.pin.deploy, why)
    return PullImage(stage.name, stage.pin.deploy, why=Localizable("the engine does not have it"))


def _runnable(desired: DesiredApp, observed: ObservedApp) -> tuple[Pipeline, ...]:
    """Return pipelines by name: the declared one if its images are available, else the one published before."""
    before = {pipeline.name: pipeline for pipeline in observed.pipelines}
    declared = {wanted.pipeline.name: wanted for wanted in desired.pipelines}
    held = {u.name for u in desired.unresolved if u.kind is ComponentKind.EXPERIMENT_PIPELINE}
    declared_paths = {path for path, _ in desired.holders}
    led_to = {
        s.pipeline for s in observed.services if s.api.path in declared_paths
    }  # until the path moves on
    found: dict[ComponentName, Pipeline] = {}
    for name in before.keys() | declared.keys():
        wanted = declared.get(name)
        if wanted and _complete(wanted):
            found[name] = wanted.pipeline
        elif name in before and (wanted or name in held or name in led_to or not desired.prune):
            found[name] = before[name]
    return tuple(found[name] for name in sorted(found))


def _complete(wanted: DesiredPipeline) -> bool:
    """Return True if nothing has to be built: what is to be pulled comes before the publishing, in its group."""
    return not any(stage.build and stage.pin.to_build for stage in wanted.stages)


def _why(before: tuple[Pipeline, ...], after: tuple[Pipeline, ...]) -> str:
    old, new = {p.name for p in before}, {p.name for p in after}
    parts = [Localizable("new: {names}", names=", ".join(sorted(new - old)))] if new - old else []
    parts += [Localizable("gone: {names}", names=", ".join(sorted(old - new)))] if old - new else []
    return joined(parts) or Localizable("something about them changed")
