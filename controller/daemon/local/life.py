"""A run without the platform, from the manifest to its results. Called by `prichal run-local`.

The runner is the daemon's, on the same engine, with the same limits; it finds the inputs where it would have put them
itself, and publishes nothing, since there is no box.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from controller.adapters.clock import SystemClock
from controller.adapters.docker import DockerJobs, LocalEngine
from controller.adapters.models import ModelCache
from controller.adapters.no_storage import NoStorage
from controller.config import Settings
from controller.daemon.local.given import Input, Passed, bring, inputs_of
from controller.daemon.local.interrupts import Presses, handled, interruptible, undisturbed
from controller.daemon.local.manifest import Declared, declared, secret_of
from controller.daemon.local.results import refuse_taken, take_along
from controller.daemon.local.view import Say, View
from controller.daemon.local.workplace import Workplace, keep, workplace
from controller.daemon.wiring import prepare_folders
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName, build_tag
from controller.domain.pipelines import Pipeline, Stage
from controller.domain.runs import Run, RunState, cancel, new_run, new_run_id
from controller.domain.spec import BuildImage, PipelineVar, SecretSpec, StageSpec
from controller.ports import JobState, Store
from controller.reconcile.resolve import runnable, runnable_stage
from controller.runner.deps import Deps
from controller.runner.folders import Folders
from controller.runner.runner import Runner
from controller.store import open_store

#: In the tags of images that are built here.
BUILDER = "prichal-run"
_LOOK = 0.05  # seconds between looks at the run


@dataclass(frozen=True)
class Local:
    """What was asked for. `root`: what `context` of a build is relative to, None for the Git checkout around the
    manifest."""

    manifest: Path
    output: Path
    pipeline: str | None = None
    inputs: tuple[Passed, ...] = ()
    secrets: tuple[tuple[str, Path], ...] = ()
    root: Path | None = None
    force: bool = False
    keep: bool = False


def run_local(settings: Settings, local: Local, out: Say, note: Say) -> RunState:
    """The state in which the run has ended. What is wrong with manifest, inputs and output is told before anything is
    begun. `out` takes what the stages write, `note` all else."""
    found = declared(local.manifest, local.pipeline, settings.limits)
    found = replace(found, secrets={**found.secrets, **{n: secret_of(n, file) for n, file in local.secrets}})
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
        workplace(engine) as place,
    ):
        images = [_image(engine, found, stage, _root(local), note) for stage in stages]
        place.remember(images)
        pipeline = local_pipeline(found, tuple(map(runnable_stage, stages, images)))
        return _Life(settings, local, found, place, out, note).run(pipeline, inputs)


def _require_secrets(found: Declared) -> None:
    for stage in found.pipeline.stages:
        for name in stage.env_from:
            if name not in found.secrets:
                raise Stalled(
                    "SecretMissing",
                    f"the stage {stage.name!r} takes variables from the Secret {name!r}: give them with "
                    f"--secret {name}=FILE, lines KEY=value, or put the Secret's manifest beside the pipeline's",
                )


def local_pipeline(found: Declared, stages: tuple[Stage, ...]) -> Pipeline:
    """As the platform would run it, but for boxes: there are none here."""
    return replace(
        runnable(found.pipeline, found.app, "", stages),
        vars=tuple(PipelineVar(var.name, None, var.mount_to) for var in found.pipeline.vars),
        boxes=(),
        continue_with=None,
        webhook=None,
        optional=found.optional,
    )


# --- images -----------------------------------------------------------------------------------------------------


def _image(engine: LocalEngine, found: Declared, stage: StageSpec, root: Path, note: Say) -> str:
    """The id of what the stage's containers are created from."""
    if not isinstance(stage.image, BuildImage):
        reference = stage.image.reference
        if known := engine.find_image(reference):
            return known
        note(f"{stage.name} * pulling {reference}")
        return engine.pull(reference)
    name = ComponentName(f"{found.pipeline.name}.{stage.name}")
    note(f"{stage.name} * building {root / stage.image.context}")
    tag = build_tag(BUILDER, found.app, name, "latest")
    return engine.build(tag, stage.image, root, lambda line: note(f"{stage.name} * {line}"))


def _root(local: Local) -> Path:
    if local.root:
        return local.root
    around = local.manifest.resolve() if local.manifest.is_dir() else local.manifest.resolve().parent
    return next((folder for folder in (around, *around.parents) if (folder / ".git").exists()), around)


# --- the run ----------------------------------------------------------------------------------------------------


class _Life:
    def __init__(
        self, settings: Settings, local: Local, found: Declared, place: Workplace, out: Say, note: Say
    ) -> None:
        limits = replace(settings.runs, concurrent=1, per_app=1, min_free=0)
        self._settings = replace(settings, state=place.state, instance=place.instance, runs=limits)
        self._local = local
        self._secrets = found.secrets
        self._place = place
        self._out = out
        self._note = note

    def run(self, pipeline: Pipeline, inputs: tuple[Input, ...]) -> RunState:
        now = time.time()
        id = new_run_id(now, secrets.randbits(32))
        folders = Folders(self._settings.run_files, id)
        prepare_folders(self._settings)
        folders.prepare()
        for given in inputs:
            self._note(f"input {given}")
        bring(inputs, {given.run.name: folders.input(given.run.name) for given in inputs})
        run = new_run(id, pipeline, now, inputs=[given.run for given in inputs])
        try:
            with (
                closing(open_store(self._settings.database)) as store,
                closing(DockerJobs(self._settings.docker, self._settings.instance)) as jobs,
            ):
                return self._drive(self._deps(store, jobs), store.runs.submit(run), folders).state
        finally:
            if self._local.keep:
                self._note(f"kept: {keep(folders.root)}")

    def _deps(self, store: Store, jobs: DockerJobs) -> Deps:
        storage = NoStorage()
        return Deps(
            store=store,
            jobs=jobs,
            storage=storage,
            models=ModelCache(self._settings.models, storage, self._settings.storage.model_cache),
            clock=SystemClock(),
            settings=self._settings,
            secret=lambda app, name, revision: self._secret(name),
            pull=_pull,
            keeps_files=True,
        )

    def _secret(self, name: str) -> SecretSpec | None:
        return self._secrets.get(name)

    def _drive(self, deps: Deps, run: Run, folders: Folders) -> Run:
        """With the runner in a thread of its own, which is over at the end; containers may be left."""
        stop = threading.Event()
        runner = threading.Thread(target=Runner(deps).run, args=(stop,), name="runner")
        runner.start()
        try:
            over = self._watch(deps, run, folders, runner)
            self._conclude(over, folders)
            return over
        finally:
            with undisturbed():
                stop.set()
                runner.join()

    def _watch(self, deps: Deps, run: Run, folders: Folders, runner: threading.Thread) -> Run:
        presses = Presses()
        view = View(folders, tuple(stage.name for stage in run.stages), self._out, self._note)
        with handled(presses):
            while not run.state.terminal:
                time.sleep(_LOOK)
                if presses.count:
                    self._end(deps, run, presses.count)
                run = deps.store.runs.get(run.app, run.id) or run
                view.show(run)
                if not runner.is_alive():
                    raise Stalled("InternalError", "the runner has ended by a fault of prichal, told above")
        return run

    def _end(self, deps: Deps, run: Run, asked: int) -> None:
        """First as on the platform: SIGTERM, ten seconds, SIGKILL. Whoever asks again does not wait."""
        canceled = cancel(run, time.time())
        if canceled is not run and deps.store.runs.save(canceled):
            self._note("canceling: the containers have ten seconds to end; Ctrl-C again ends them at once")
        if asked > 1:
            for job in deps.jobs.all():
                if job.state is JobState.RUNNING:
                    deps.jobs.stop(job.id, grace=0)

    def _conclude(self, run: Run, folders: Folders) -> None:
        for result in take_along(run, folders, self._local.output):
            self._note(f"output {result}")
        why = f", {run.reason}: {run.message}" if run.reason else ""
        self._note(f"{run.name} {run.state}{why}")


def _pull(app: AppName, reference: str) -> None:
    raise Stalled("ImageNotFound", f"the image {reference} was removed from this host while the run went on")
