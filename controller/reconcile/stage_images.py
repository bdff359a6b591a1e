"""Builds the image of a stage again from the commit of its pipeline. Called by the runner, whatever commit
the app is at: a repeated run continues with the code that it began with.
"""

from __future__ import annotations

from functools import partial

from controller.domain.apps.spec import BuildImage, SecretSpec
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import build_tag
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.ports import Revision
from controller.reconcile.build_inputs import build_content, build_input
from controller.reconcile.commit_manifests import spec_at
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.secret_sources import run_secret


def rebuilt(deps: ReconcilerDeps, pipeline: Pipeline, stage: str) -> str:
    """Return what containers are created from. Raises Stalled `ImageNotFound` if it was not built from the commit;
    otherwise errors as `Engine.build` and `Sources`.
    """
    declared = deps.catalog.spec.app(pipeline.app)
    if declared is None:
        raise Stalled(Reason.IMAGE_NOT_FOUND, Localizable("its app is no longer connected"))
    revision = Revision(declared.repository, pipeline.revision, "")
    source = _source(deps, pipeline, stage)
    tag = build_tag(deps.settings.instance, pipeline.app, build_content(deps.sources, revision, source))
    pin = deps.engine.pin(source, tag, ())
    if pin.to_build:
        secret = partial(_secret, deps, pipeline)
        with deps.builds.turn(pipeline.app):
            build = build_input(
                pipeline.revision, source, pipeline.app, secret, deps.catalog.registries(declared)
            )
            context = deps.sources.build_context(revision, source)
            with deps.build_log(pipeline.app, tag) as line:
                deps.engine.build(tag, build, context, line)
        pin = deps.engine.pin(source, tag, ())
    return pin.deploy


def _secret(deps: ReconcilerDeps, pipeline: Pipeline, name: str) -> SecretSpec | None:
    return run_secret(deps, pipeline.app, name, pipeline.revision)


def _source(deps: ReconcilerDeps, pipeline: Pipeline, stage: str) -> BuildImage:
    spec = spec_at(deps, pipeline.app, pipeline.revision)
    for found in spec.pipelines if spec else ():
        for declared in found.stages if found.name == pipeline.name else ():
            if declared.name == stage and isinstance(declared.image, BuildImage):
                return declared.image
    raise Stalled(Reason.IMAGE_NOT_FOUND, Localizable("its manifest does not say how to build it"))
