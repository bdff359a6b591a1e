"""The images of a run's stages: pulled again, or built again from their commit, if the engine does not have them any
more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import is_build
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run
from controller.ports import Job, ObservedJob
from controller.runner.attempt_context import AttemptContext


class StageImages:
    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._deps = context.deps

    def create(self, job: Job) -> ObservedJob:
        """Create the container. If its image was removed by hand, pull it again from its registry."""
        try:
            return self._deps.jobs.create(job)
        except ControllerError as error:
            if error.reason != Reason.IMAGE_GONE:
                raise
        self._bring(self._context.stage)
        return self._deps.jobs.create(replace(job, image=self._context.stage.image))

    def require(self, stage: Stage) -> None:
        """Raise Stalled if the image is missing. One of a registry can still be pulled later."""
        with suppress(Transient):
            if "@" not in stage.image and not self._deps.jobs.has_image(stage.image):
                self._bring(stage)

    def _bring(self, stage: Stage) -> None:
        """Pull the image; if it was built here, build it again from its commit, whatever commit the app is
        at.
        """
        run = self._context.run()
        try:
            self._deps.pull(run.app, stage.image)
        except Stalled as error:
            if error.reason != Reason.IMAGE_NOT_FOUND or not is_build(stage.image, run.app):
                raise
            self._build(run, stage)

    def _build(self, run: Run, stage: Stage) -> None:
        commit = run.pipeline.revision[:12]
        gone = Localizable(
            "the image of stage {stage!r}, of commit {commit}, is gone from the engine",
            stage=stage.name,
            commit=commit,
        )
        self._context.show_reason(
            Reason.BUILDING_IMAGE, Localizable("{gone} and is being built again", gone=gone)
        )
        try:
            image = self._deps.rebuild(run.pipeline, stage.name)
        except Stalled as error:
            message = Localizable(
                "{gone} and cannot be built again ({error}): load it again, or start a new run, "
                "which runs the current commit",
                gone=gone,
                error=error.message,
            )
            raise Stalled(Reason.IMAGE_NOT_FOUND, message) from error
        self._context.show_reason(Reason.NONE, "")
        if image != stage.image:
            self._context.update(
                lambda run: replace(run, pipeline=run.pipeline.with_image(stage.image, image))
            )
        if self._context.stage.image == stage.image:
            self._context.stage = replace(self._context.stage, image=image)
