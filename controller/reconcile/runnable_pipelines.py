"""Makes what the runner runs of what manifests declare: a pipeline and its stages, with images that are pinned."""

from __future__ import annotations

from collections.abc import Iterable

from controller.domain.apps.spec import ApiSpec, PipelineSpec, PipelineTarget, StageSpec
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage


def optional_inputs(pipeline: ComponentName, apis: Iterable[ApiSpec]) -> tuple[str, ...]:
    """Return the inputs of the pipeline that callers of at least one of its APIs may leave out, sorted."""
    target = PipelineTarget(pipeline)
    return tuple(
        sorted({v.name for api in apis if api.target == target for v in api.inputs if not v.required})
    )


def runnable_stage(declared: StageSpec, image: str) -> Stage:
    """Return the stage to run. Its containers are created from `image`."""
    return Stage(
        declared.name,
        image,
        command=declared.command,
        inputs=declared.inputs,
        outputs=declared.outputs,
        env=declared.env,
        env_from=declared.env_from,
        resources=declared.resources,
        timeout=declared.timeout,
        retries=declared.retries,
        read_only_root=declared.read_only_root,
    )


def runnable(declared: PipelineSpec, app: AppName, commit: str, stages: tuple[Stage, ...]) -> Pipeline:
    boxes = sorted(declared.boxes, key=lambda link: not link.default)
    return Pipeline(
        app,
        declared.name,
        commit,
        stages,
        vars=declared.vars,
        boxes=tuple(ComponentName(link.name) for link in boxes),
        continue_with=ComponentName(declared.continue_with) if declared.continue_with else None,
        concurrency=declared.concurrency,
        ttl_succeeded=declared.ttl_succeeded,
        ttl_failed=declared.ttl_failed,
        webhook=declared.webhook,
        schedule=declared.schedule,
    )
