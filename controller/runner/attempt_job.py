"""The container of an attempt: its inputs, mounts and variables."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from controller.domain.apps.environment import variables
from controller.domain.apps.mounts import OURS
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import env_name, mount_path
from controller.domain.runs.run import Run
from controller.domain.secret import Secret
from controller.domain.units import render_duration
from controller.ports import Job, JobMount
from controller.runner.attempt_context import AttemptContext
from controller.runner.failures import TIMEOUT, StageFailed, StageFailure, too_much
from controller.runner.inputs import StagingHooks
from controller.runner.traces import trace_variables

PROGRESS = f"{OURS}/progress"  # a folder in containers
_STAGING = 3600.0  # seconds that the inputs of an attempt may take, whatever its timeout


class JobBuilder:
    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._work = context.work
        self._deps = context.deps
        self._signals = context.signals

    def job(self, run: Run) -> Job:
        """Bring the inputs, and return what the engine is asked to create. Raises Stalled, StageFailed, Canceled."""
        self._work.folders.prepare_attempt(
            self._context.stage.name, self._context.number, self._context.stage.outputs
        )
        check = self._in_time()
        env, mounts = self._env(run), [self._mount(PROGRESS, self._progress_folder, read_only=False)]
        for name in (*self._context.stage.inputs, *self._context.stage.outputs):
            place = self.place(run, name, check)
            if place:
                target = mount_path(run.pipeline.var(name))
                mounts.append(self._mount(target, place, read_only=name in self._context.stage.inputs))
                env[env_name(name)] = Secret(target)
        return Job(
            name=self._context.name,
            app=run.app,
            run=run.id,
            stage=self._context.stage.name,
            attempt=self._context.number,
            image=self._context.stage.image,
            command=self._context.stage.command,
            env=tuple(env.items()),
            mounts=tuple(mounts),
            resources=self._context.stage.resources,
            gpus=run.stage(self._context.stage.name).attempts[-1].gpus,
            read_only_root=self._context.stage.read_only_root,
        )

    def place(self, run: Run, name: str, check: Callable[[], None] | None = None) -> Path | None:
        """Return where an input or output of the stage lies on this host; inputs are brought there first."""
        if name in self._context.stage.inputs:
            hooks = StagingHooks(check or self._signals.check, self._context.note_turn)
            return self._work.inputs.bring(run, name, hooks)
        return self._work.folders.output(self._context.stage.name, self._context.number, name)

    def _in_time(self) -> Callable[[], None]:
        """Return a function that raises ShuttingDown, Canceled, and StageFailed once the inputs have taken
        too long."""
        clock, timeout = self._deps.clock, self._context.stage.timeout
        limit = math.inf if timeout is None else max(timeout, _STAGING)
        begun = clock.monotonic()

        def check() -> None:
            self._signals.check()
            if why := self._work.overfull():
                raise StageFailed(too_much(why))
            if clock.monotonic() - begun > limit:
                raise StageFailed(
                    StageFailure(
                        TIMEOUT,
                        Localizable("its inputs did not arrive within {limit}", limit=render_duration(limit)),
                    )
                )

        return check

    def _mount(self, target: str, source: Path, read_only: bool) -> JobMount:
        return JobMount(self._work.folders.volume(source), target, read_only)

    @property
    def _progress_folder(self) -> Path:
        return self._work.folders.progress(self._context.stage.name, self._context.number)

    def _env(self, run: Run) -> dict[str, Secret]:
        """Return the module's variables, and those of the platform, which take precedence."""
        env: dict[str, Secret] = {}
        for name in self._context.stage.env_from:
            found = self._deps.secret(run.app, name, run.pipeline.revision)
            if found is None:
                how = f"prichal secret set {run.app} {name} KEY"
                raise Stalled(
                    Reason.SECRET_MISSING,
                    Localizable("the Secret {name!r} does not exist: set it with: {how}", name=name, how=how),
                )
            env |= variables(found)
        env |= {variable.name: Secret(variable.value) for variable in self._context.stage.env}
        env |= self._deps.storage_env(run.pipeline)
        ours = {
            "UNIP_APP": run.app,
            "UNIP_PIPELINE": run.name,
            "UNIP_RUN": run.id,
            "UNIP_STAGE": self._context.stage.name,
            "UNIP_ATTEMPT": str(self._context.number),
            "UNIP_PROGRESS": f"{PROGRESS}/progress",
        }
        if run.pass_identity and run.user:
            ours["UNIP_USER"] = run.user
        ours |= trace_variables(self._deps.tracer, run, self._context.stage.name, self._context.number)
        return env | {name: Secret(value) for name, value in ours.items()}
