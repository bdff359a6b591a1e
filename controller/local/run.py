"""A run without the platform, from the manifest to its results. Called by `prichal run-local`.

The runner is that of the daemon, on the same engine and with the same limits. Inputs are put where it expects
them, and nothing is published, since there are no boxes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from controller.adapters.clock import SystemClock
from controller.adapters.docker import DockerJobs, LocalEngine
from controller.adapters.docker.local import on_own_machine
from controller.adapters.models import ModelCache
from controller.adapters.no_storage import NoStorage
from controller.adapters.staging import StagingFolders
from controller.config import Settings
from controller.daemon.wiring import prepare_folders
from controller.domain.apps.spec import BuildImage, ImageSource, PipelineVar, SecretSpec, StageSpec
from controller.domain.errors import ControllerError, Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, cancel, new_run, new_run_id
from controller.local.console import Console, Say
from controller.local.inputs import GivenInput, GivenInputs, bring, inputs_of
from controller.local.manifest import DeclaredPipeline, declared, given_secrets
from controller.local.outputs import collect_outputs, refuse_taken
from controller.local.signals import InterruptCounter, handled, ignore_signals, interruptible
from controller.local.workspace import Workspace, keep, workspace
from controller.ports import JobState, Store
from controller.reconcile.build_inputs import build_input
from controller.reconcile.runnable_pipelines import runnable, runnable_stage
from controller.runner.deps import RunnerDeps
from controller.runner.folders import RunFolders
from controller.runner.runner import Runner
from controller.store import open_store

#: The prefix of the tags of images that are built here.
BUILDER = "prichal-run"
_LOOK = 0.05  # seconds between checks of the run


@dataclass(frozen=True)
class LocalRunOptions:
    """The options of the command. The `context` of a build is relative to `root`, or to the Git checkout
    around the manifest if it is None.
    """

    manifest: Path
    output: Path
    pipeline: str | None = None
    inputs: tuple[GivenInputs, ...] = ()
    secrets: tuple[tuple[str, Path], ...] = ()
    root: Path | None = None
    force: bool = False
    keep: bool = False


def run_local(settings: Settings, local: LocalRunOptions, out: Say, note: Say) -> RunState:
    """Run the pipeline and return its final state. Problems with manifest, inputs and output are reported
    before anything starts. `out` takes what the stages write, `note` everything else.
    """
    found = declared(local.manifest, local.pipeline, settings.limits)
    found = replace(found, secrets={**found.secrets, **given_secrets(local.secrets)})
    stages = found.pipeline.stages
    _require_secrets(found)
    draft = local_pipeline(found, tuple(runnable_stage(stage, "") for stage in stages))
    inputs = inputs_of(local.inputs, found, draft)
    if not local.force:
        refuse_taken(local.output, draft.made)
    for remark in found.remarks:
        note(f"note: {remark}")
    with (
        interruptible(),
        closing(LocalEngine(settings.docker, BUILDER)) as engine,
        workspace(engine) as place,
    ):
        made: dict[ImageSource, str] = {}
        for stage in stages:
            if stage.image not in made:
                made[stage.image] = _image(engine, found, stage, _root(local), note)
        images = [made[stage.image] for stage in stages]
        place.remember(images)
        with suppress(ControllerError):  # the next run tries again
            engine.collect_builds()
        pipeline = local_pipeline(found, tuple(map(runnable_stage, stages, images)))
        return _LocalRun(settings, local, found, place, out, note, engine.open_up).run(pipeline, inputs)


def _require_secrets(found: DeclaredPipeline) -> None:
    for stage in found.pipeline.stages:
        for name in stage.env_from:
            if name not in found.secrets:
                raise Stalled(
                    Reason.SECRET_MISSING,
                    f"the stage {stage.name!r} takes variables from the Secret {name!r}: pass them with "
                    f"--secret {name}=FILE (lines KEY=value), or put the Secret's manifest beside the pipeline's",
                )
        for one in stage.image.secrets if isinstance(stage.image, BuildImage) else ():
            known = found.secrets.get(one.secret)
            if known is None or known.get(one.key) is None:
                raise Stalled(
                    Reason.SECRET_MISSING,
                    f"the build of the stage {stage.name!r} mounts the key {one.key!r} of the Secret {one.secret!r}: "
                    f"pass it with --secret {one.secret}/{one.key}=FILE, or put the Secret's manifest beside "
                    "the pipeline's",
                )


def local_pipeline(found: DeclaredPipeline, stages: tuple[Stage, ...]) -> Pipeline:
    """Return the pipeline as the platform would run it, without boxes."""
    return replace(
        runnable(found.pipeline, found.app, "", stages),
        vars=tuple(PipelineVar(var.name, None, var.mount_to) for var in found.pipeline.vars),
        boxes=(),
        continue_with=None,
        webhook=None,
        optional=found.optional,
    )


# --- images -----------------------------------------------------------------------------------------------------


def _image(engine: LocalEngine, found: DeclaredPipeline, stage: StageSpec, root: Path, note: Say) -> str:
    """Return the id of the image that the stage's containers are created from."""
    if not isinstance(stage.image, BuildImage):
        reference = stage.image.reference
        if known := engine.find_image(reference):
            return known
        note(f"{stage.name} * pulling {reference}")
        return engine.pull(reference)
    note(f"{stage.name} * building {root / stage.image.context}")
    tag = f"{BUILDER}.local/{found.app}/{found.pipeline.name}.{stage.name}:latest"
    order = build_input("", stage.image, found.app, found.secrets.get, ())
    return engine.build(tag, order, root, lambda line: note(f"{stage.name} * {line}"))


def _root(local: LocalRunOptions) -> Path:
    if local.root:
        return local.root
    around = local.manifest.resolve() if local.manifest.is_dir() else local.manifest.resolve().parent
    return next((folder for folder in (around, *around.parents) if (folder / ".git").exists()), around)


# --- the run ----------------------------------------------------------------------------------------------------


class _LocalRun:
    def __init__(
        self,
        settings: Settings,
        local: LocalRunOptions,
        found: DeclaredPipeline,
        place: Workspace,
        out: Say,
        note: Say,
        unlock: Callable[[Path, str], None],
    ) -> None:
        self._unlock = unlock
        limits = replace(settings.runs, concurrent=1, per_app=1, min_free=0)
        self._settings = replace(settings, state=place.state, instance=place.instance, runs=limits)
        self._local = local
        self._secrets = found.secrets
        self._place = place
        self._out = out
        self._note = note

    def run(self, pipeline: Pipeline, inputs: tuple[GivenInput, ...]) -> RunState:
        now = time.time()
        id = new_run_id(now, secrets.randbits(32))
        folders = RunFolders(self._settings.run_files, id)
        prepare_folders(self._settings)
        folders.prepare()
        for given in inputs:
            self._note(f"input {given}")
        bring(inputs, {given.run.name: folders.input(given.run.name) for given in inputs})
        run = new_run(id, pipeline, now, inputs=[given.run for given in inputs])
        try:
            with (
                closing(open_store(self._settings.database)) as store,
                closing(self._jobs()) as jobs,
            ):
                return self._drive(self._deps(store, jobs), store.runs.submit(run), folders).state
        finally:
            if self._local.keep:
                self._note(f"kept: {keep(folders.root)}")

    def _jobs(self) -> DockerJobs:
        settings = self._settings
        return DockerJobs(on_own_machine(settings.docker), settings.instance, StagingFolders.of(settings))

    def _deps(self, store: Store, jobs: DockerJobs) -> RunnerDeps:
        storage = NoStorage()
        return RunnerDeps(
            store=store,
            jobs=jobs,
            storage=storage,
            models=ModelCache(self._settings.models, storage, self._settings.storage.model_cache),
            clock=SystemClock(),
            settings=self._settings,
            secret=lambda app, name, revision: self._secret(name),
            pull=_pull,
            unlock=lambda volume, image: self._unlock(StagingFolders.of(self._settings).path(volume), image),
            keeps_files=True,
        )

    def _secret(self, name: str) -> SecretSpec | None:
        return self._secrets.get(name)

    def _drive(self, deps: RunnerDeps, run: Run, folders: RunFolders) -> Run:
        """Run the runner in a thread, which has ended on return; containers may be left."""
        stop = threading.Event()
        runner = threading.Thread(target=Runner(deps).run, args=(stop,), name="runner")
        runner.start()
        try:
            over = self._watch(deps, run, folders, runner)
            self._conclude(over, folders)
            return over
        finally:
            with ignore_signals():
                stop.set()
                runner.join()

    def _watch(self, deps: RunnerDeps, run: Run, folders: RunFolders, runner: threading.Thread) -> Run:
        presses = InterruptCounter()
        view = Console(folders, tuple(stage.name for stage in run.stages), self._out, self._note)
        with handled(presses):
            while not run.state.terminal:
                time.sleep(_LOOK)
                if presses.count:
                    self._end(deps, run, presses.count)
                run = deps.store.runs.get(run.app, run.id) or run
                view.show(run)
                if not runner.is_alive():
                    raise Stalled(
                        Reason.INTERNAL_ERROR,
                        "the runner has ended by an error in prichal; the traceback is above",
                    )
        return run

    def _end(self, deps: RunnerDeps, run: Run, asked: int) -> None:
        """Cancel as on the platform: SIGTERM, ten seconds, SIGKILL. A second request does not wait."""
        canceled = cancel(run, time.time())
        if canceled is not run and deps.store.runs.save(canceled):
            self._note(
                "canceling: the containers have ten seconds to end; press Ctrl-C again to kill them at once"
            )
        if asked > 1:
            for job in deps.jobs.all():
                if job.state in (JobState.RUNNING, JobState.PENDING):
                    deps.jobs.stop(job.id, grace=0)

    def _conclude(self, run: Run, folders: RunFolders) -> None:
        for result in collect_outputs(run, folders, self._local.output):
            self._note(f"output {result}")
        why = f", {run.reason}: {run.message}" if run.reason else ""
        self._note(f"{run.name} {run.state}{why}")


def _pull(app: AppName, reference: str) -> None:
    raise Stalled(
        Reason.IMAGE_NOT_FOUND,
        f"the image {reference} was removed from this host during the run; start it again",
    )
