"""Planning for pipelines: which images of stages to bring here, and which pipelines can be run. Pure; called by
`planner.plan_app`.

A pipeline is published when all its images are here, so that no run waits for one. Until then, and while an image
cannot be had, the version before it can be run.
"""

from __future__ import annotations

from controller.domain.desired import DesiredApp, DesiredPipeline, DesiredStage
from controller.domain.names import ComponentName
from controller.domain.observed import ObservedApp
from controller.domain.pipelines import Pipeline
from controller.domain.plan import (
    Action,
    BuildImageAction,
    EnsureAccount,
    Hold,
    PublishPipelines,
    PullImage,
)
from controller.domain.spec import Kind
from controller.domain.status import AppStatus


def plan_pipelines(
    desired: DesiredApp, observed: ObservedApp, status: AppStatus
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    groups: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    for pipeline in desired.pipelines:
        for stage in pipeline.stages:
            memory = status.component(stage.name)
            if stage.pin.present:
                continue
            if memory and memory.failed_fingerprint == stage.pin.deploy:
                holds.append(Hold(stage.name, "Failed", memory.failure, kind=Kind.EXPERIMENT_PIPELINE))
            else:
                groups.append((_bring(stage),))
    groups += _accounts(desired, observed)
    wanted = _runnable(desired, observed)
    if wanted != observed.pipelines and not any(isinstance(g[0], BuildImageAction) for g in groups):
        before = tuple(group[0] for group in groups)
        return [(*before, PublishPipelines(wanted, _why(observed.pipelines, wanted)))], holds
    return groups, holds


def _accounts(desired: DesiredApp, observed: ObservedApp) -> list[tuple[Action, ...]]:
    """Those that stages find the keys of, whatever the state of their images."""
    if observed.storage:
        return []
    accounts = {wanted.account.name: wanted.account for wanted in desired.pipelines if wanted.account}
    return [
        (EnsureAccount(accounts[name], why="the pipeline has connected boxes"),)
        for name in sorted(accounts.keys() - observed.accounts)
    ]


def _bring(stage: DesiredStage) -> Action:
    if stage.build:
        why = "this content has not been built here"
        return BuildImageAction(stage.name, stage.pin.deploy, stage.build, stage.pin.deploy, why)
    return PullImage(stage.name, stage.pin.deploy, why="not on this host")


def _runnable(desired: DesiredApp, observed: ObservedApp) -> tuple[Pipeline, ...]:
    """By name: what is declared as far as its images can be had, else what was published before."""
    before = {pipeline.name: pipeline for pipeline in observed.pipelines}
    declared = {wanted.pipeline.name: wanted for wanted in desired.pipelines}
    held = {u.name for u in desired.unresolved if u.kind is Kind.EXPERIMENT_PIPELINE}
    found: dict[ComponentName, Pipeline] = {}
    for name in before.keys() | declared.keys():
        wanted = declared.get(name)
        if wanted and _complete(wanted):
            found[name] = wanted.pipeline
        elif name in before and (wanted or name in held or not desired.prune):
            found[name] = before[name]
    return tuple(found[name] for name in sorted(found))


def _complete(wanted: DesiredPipeline) -> bool:
    """Whether nothing has to be built: what is to be pulled comes before the publishing, in its group."""
    return all(stage.pin.present or not stage.build for stage in wanted.stages)


def _why(before: tuple[Pipeline, ...], after: tuple[Pipeline, ...]) -> str:
    old, new = {p.name for p in before}, {p.name for p in after}
    parts = (("new", new - old), ("gone", old - new))
    told = "; ".join(f"{word}: {', '.join(sorted(names))}" for word, names in parts if names)
    return told or "something about them changed"
