"""Runs that go well: stages in their order, files where they belong, all of it written down."""

from __future__ import annotations

import json
from hashlib import sha256

from controller.domain.apps.spec import EnvVar, PipelineVar, Resources, SecretSpec
from controller.domain.names import ComponentName
from controller.domain.runs.run import RunFilter, RunInput, RunOutput, RunState, new_run, retry_of
from controller.domain.runs.steps import FinishRun, begin, finish
from controller.domain.secret import Secret
from controller.ports import Job
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, BUCKET, IMAGE, Command, Harness, pipeline, stage


def mounts(job: Job) -> dict[str, tuple[str, bool]]:
    """Target -> the name of what is mounted there, and whether it can only be read."""
    return {mount.target: (mount.volume.path[-1], mount.read_only) for mount in job.mounts}


def env(job: Job) -> dict[str, str]:
    return {name: value.reveal() for name, value in job.env}


def test_a_trivial_run(harness: Harness) -> None:
    harness.commands["fit"] = Command(log=b"one\ntwo\n")
    run = harness.finish()
    assert run.state is RunState.SUCCEEDED
    expected = ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert [step.state.value for step in run.history] == expected
    fit = run.stage("fit")
    assert [step.state.value for step in fit.history] == expected
    assert fit.attempt is not None
    assert (fit.attempt.exit_code, fit.attempt.reason) == (0, "")
    assert harness.log(run.id) == b"one\ntwo\n"
    (job,) = harness.jobs.made
    assert job.name == f"prichal.demo.{run.id}.fit.1"
    assert job.image == IMAGE
    wait_for(lambda: not harness.jobs.names())


def test_a_container_is_told_what_it_is(harness: Harness) -> None:
    secret = SecretSpec("keys", (("TOKEN", Secret("s3cret")), ("MODE", Secret("from the secret"))))
    harness.secrets["keys"] = secret
    fit = stage(
        command=("python3", "fit.py"),
        env=(EnvVar("MODE", "own"), EnvVar("UNIP_RUN", "forged")),
        env_from=("keys",),
        resources=make(Resources, cpus=2.0),
    )
    run = harness.finish(pipeline(fit), pass_identity=True)
    (job,) = harness.jobs.made
    assert env(job) == {
        "TOKEN": "s3cret",
        "MODE": "own",
        "UNIP_APP": "demo",
        "UNIP_PIPELINE": "train",
        "UNIP_RUN": run.id,
        "UNIP_STAGE": "fit",
        "UNIP_ATTEMPT": "1",
        "UNIP_PROGRESS": "/opt/prichal/progress/progress",
        "UNIP_USER": "anna",
    }
    assert (job.command, job.resources.cpus) == (("python3", "fit.py"), 2.0)
    harness.finish()
    assert "UNIP_USER" not in env(harness.jobs.made[1]), "only where the API passes it on"


def test_keys_of_the_storage_are_given_and_not_written_down(harness: Harness) -> None:
    keys = {"UNIP_S3_ACCESS_KEY": Secret("prichal.demo.1"), "UNIP_S3_SECRET_KEY": Secret("v3ry s3cret")}
    object.__setattr__(harness.deps, "storage_env", lambda of: keys if of.boxes else {})
    harness.finish(pipeline(stage(env=(EnvVar("UNIP_S3_ACCESS_KEY", "forged"),))))
    (job,) = harness.jobs.made
    assert env(job)["UNIP_S3_ACCESS_KEY"] == "prichal.demo.1"
    assert env(job)["UNIP_S3_SECRET_KEY"] == "v3ry s3cret"
    folder = harness.settings.database.parent
    assert not [path for path in folder.rglob("*") if path.is_file() and b"v3ry s3cret" in path.read_bytes()]


# --- inputs -----------------------------------------------------------------------------------------------------


def test_inputs_of_all_kinds(harness: Harness) -> None:
    harness.put("group/in.csv", "a,b")
    harness.put("images/cat.png", "cat")
    harness.put("images/more/dog.png", "dog")
    harness.put("images/.manifest.json", "{}")
    harness.put("w/part.bin", "weights", area="developer/")
    variables = (
        PipelineVar("weights", mount_from=("userdata", "w/")),
        PipelineVar("depth", mount_to="/depth.json"),
    )
    fit = stage(inputs=("data", "pictures", "weights", "depth"))
    seen: dict[str, dict[str, str]] = {}

    def look(job: Job) -> None:
        for mount in job.mounts:
            files = (
                [harness.path(mount)]
                if harness.path(mount).is_file()
                else sorted(harness.path(mount).rglob("*.*"))
            )
            seen[mount.target] = {f.name: f.read_text() for f in files if f.is_file()}
            if mount.read_only:
                assert all(f.stat().st_mode & 0o444 == 0o444 for f in files)

    harness.commands["fit"] = Command(act=look)
    inputs = [
        RunInput("data", data="group/in.csv"),
        RunInput("pictures", data="images/"),
        RunInput("depth", "INT32", "3"),
    ]
    run = harness.finish(pipeline(fit, vars=variables), inputs=inputs)
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen == {
        "/opt/prichal/progress": {},
        "/unip/data": {"data": "a,b"},
        "/unip/pictures": {"cat.png": "cat", "dog.png": "dog"},
        "/unip/weights": {"part.bin": "weights"},
        "/depth.json": {"depth": "3"},
    }
    (job,) = harness.jobs.made
    assert env(job)["UNIP_PIPELINE_PICTURES"] == "/unip/pictures"
    assert env(job)["UNIP_PIPELINE_DEPTH"] == "/depth.json"
    assert all(read_only for target, (_, read_only) in mounts(job).items() if target.startswith("/unip"))


def test_an_input_is_brought_once_for_all_stages(harness: Harness) -> None:
    harness.put("group/in.csv", "a,b")
    stages = [stage(f"s{number}", inputs=("data",)) for number in range(6)]
    before = harness.objects.requests
    run = harness.finish(pipeline(*stages), inputs=[RunInput("data", data="group/in.csv")])
    assert run.state is RunState.SUCCEEDED
    assert harness.objects.requests - before == 4, "two checks of the group, one of the file, one download"


def test_what_may_be_left_out_is_not_there(harness: Harness) -> None:
    run = harness.finish(pipeline(stage(inputs=("note",)), optional=("note",)))
    assert run.state is RunState.SUCCEEDED
    (job,) = harness.jobs.made
    assert "/unip/note" not in mounts(job)
    assert "UNIP_PIPELINE_NOTE" not in env(job)


def test_callers_have_areas_of_their_own(harness: Harness) -> None:
    harness.put("g/in.csv", "boris'", user="boris")
    given = [RunInput("data", data="g/in.csv")]
    assert harness.finish(pipeline(stage(inputs=("data",))), inputs=given).reason == "InputMissing"
    assert (
        harness.finish(pipeline(stage(inputs=("data",))), inputs=given, user="boris").state
        is RunState.SUCCEEDED
    )


# --- stages -----------------------------------------------------------------------------------------------------


def test_variables_move_from_stage_to_stage(harness: Harness) -> None:
    seen: list[str] = []

    def look(job: Job) -> None:
        (model,) = [mount for mount in job.mounts if mount.target == "/unip/model"]
        assert model.read_only
        assert (harness.path(model) / "deep" / "x.bin").stat().st_mode & 0o444 == 0o444, (
            "whoever the stage runs as"
        )
        seen.append((harness.path(model) / "deep" / "x.bin").read_text())

    def hide(job: Job) -> None:
        harness.output(job, "model/deep/x.bin").chmod(0o600)
        harness.output(job, "model/deep").chmod(0o700)

    harness.commands["fit"] = Command(files={"model/deep/x.bin": "weights"}, act=hide)
    harness.commands["report"] = Command(act=look, files={"page/index.html": "<p>"})
    run = harness.finish(
        pipeline(stage("report", inputs=("model",), outputs=("page",)), stage("fit", outputs=("model",)))
    )
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen == ["weights"]
    assert [job.stage for job in harness.jobs.made] == ["fit", "report"]
    assert set(harness.stored("runs/")) == {f"{run.id}/page/index.html", f"{run.id}/page/.manifest.json"}


def test_independent_stages_run_side_by_side(harness: Harness) -> None:
    for name in ("left", "right"):
        harness.commands[name] = Command(code=None)
    id = harness.submit(pipeline(stage("left"), stage("right")))
    left, right = harness.container("left"), harness.container("right")
    harness.jobs.exit(right.id)
    harness.until_stage(id, "right", RunState.SUCCEEDED)
    assert harness.run(id).state is RunState.RUNNING
    harness.jobs.exit(left.id)
    assert harness.until(id).state is RunState.SUCCEEDED


def test_a_neighbour_of_a_failure_comes_to_its_end(harness: Harness) -> None:
    harness.commands["good"] = Command(code=None, files={"a/x": "x"})
    harness.commands["bad"] = Command(code=3)
    id = harness.submit(
        pipeline(stage("good", outputs=("a",)), stage("bad"), stage("after", inputs=("a",), outputs=("b",)))
    )
    harness.until_stage(id, "bad", RunState.FAILED)
    harness.jobs.exit(harness.container("good").id)
    run = harness.until(id)
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert run.message == "stage bad: the command ended with exit code 3; its log may say why"
    assert run.stage("good").state is RunState.SUCCEEDED
    assert (run.stage("after").state, run.stage("after").reason) == (RunState.CANCELED, "NotRun")


def test_progress_is_read_while_the_stage_runs(harness: Harness) -> None:
    progress = []

    def begin(job: Job) -> None:
        progress.append(
            next(harness.path(m) for m in job.mounts if m.target == "/opt/prichal/progress") / "progress"
        )
        progress[0].write_text("1/10\n")

    harness.commands["fit"] = Command(code=None, act=begin)
    id = harness.submit()
    job = harness.container()
    wait_for(lambda: harness.run(id).stage("fit").progress == "1/10")
    progress[0].write_text("10/10")
    harness.jobs.exit(job.id)
    assert harness.until(id).stage("fit").progress == "10/10"


# --- outputs ----------------------------------------------------------------------------------------------------


def test_outputs_are_published_with_a_manifest(harness: Harness) -> None:
    harness.put("results/today/old.txt", "old")
    harness.put("results/today/.manifest.json", "old manifest")
    harness.commands["fit"] = Command(files={"model/a/x.bin": b"\0" * 5, "model/b.txt": "b"})
    of = pipeline(stage(outputs=("model",)))
    run = harness.finish(of, outputs=(RunOutput("model", "results/today"),))
    assert run.state is RunState.SUCCEEDED, run.message
    found = harness.stored("results/today/")
    assert (found["a/x.bin"], found["b.txt"], found["old.txt"]) == (b"\0" * 5, b"b", b"old")
    assert json.loads(found[".manifest.json"]) == {
        "run": run.id,
        "stage": "fit",
        "attempt": 1,
        "files": [
            {"name": "b.txt", "size": 1, "sha256": sha256(b"b").hexdigest()},
            {"name": "a/x.bin", "size": 5, "sha256": sha256(b"\0" * 5).hexdigest()},
        ],
    }


def test_room_is_kept_until_the_output_was_measured(harness: Harness) -> None:
    harness.commands["fit"] = Command(files={"model/x.bin": b"x" * 1000})
    harness.finish(pipeline(stage(outputs=("model",))))
    (pending,) = harness.store.boxes.pending(BUCKET)
    assert pending.size == 1000
    assert pending.key.endswith("/model/.manifest.json")
    assert pending.created < harness.clock.now(), "a measurement takes the manifest for this very upload"


def test_without_a_box_outputs_go_nowhere(harness: Harness) -> None:
    """They stay where they were made, as `prichal run-local` has it."""
    harness.restart(keeps_files=True)
    run = harness.finish(pipeline(stage(outputs=("model",)), boxes=()))
    assert run.state is RunState.SUCCEEDED
    assert harness.stored() == {}


def test_an_internal_variable_is_published_if_the_caller_asks(harness: Harness) -> None:
    of = pipeline(stage(outputs=("model",)), stage("report", inputs=("model",), outputs=("page",)))
    harness.finish(of, outputs=(RunOutput("model", "models/"),))
    assert set(harness.stored("models/")) == {"made.txt", ".manifest.json"}


def test_after_a_run_only_its_logs_stay_on_the_host(harness: Harness) -> None:
    harness.put("g/in.csv")
    harness.commands["fit"] = Command(log=b"hello\n", files={"model/x": "x"})
    of = pipeline(stage(inputs=("data",), outputs=("model",)))
    id = harness.submit(of, inputs=[RunInput("data", data="g/in.csv")])
    harness.until(id)
    folder = harness.settings.run_files / id
    wait_for(lambda: not [path for path in folder.iterdir() if path.is_dir()])
    assert harness.log(id) == b"hello\n"


# --- one after the other ----------------------------------------------------------------------------------------


def test_the_next_pipeline_begins_with_what_was_made(harness: Harness) -> None:
    publish = pipeline(stage("push", inputs=("model",)), name="publish")
    harness.store.runs.publish(APP, (publish,))
    seen: list[str] = []
    harness.commands["push"] = Command(
        act=lambda job: seen.extend(
            (harness.path(m) / "made.txt").read_text() for m in job.mounts if m.read_only
        )
    )
    of = pipeline(stage(outputs=("model",)), continue_with=ComponentName("publish"))
    first = harness.finish(of)
    (second,) = harness.store.runs.list(APP, RunFilter(ComponentName("publish")))
    assert (second.cause, second.origin, second.user) == ("continue", first.id, "anna")
    assert harness.until(second.id).state is RunState.SUCCEEDED
    assert seen == ["fit"]


def test_runs_of_nobody_lie_with_the_developer_and_are_continued_there(harness: Harness) -> None:
    push = pipeline(stage("push", inputs=("model",), outputs=("page",)), name="publish")
    harness.store.runs.publish(APP, (push,))
    seen: list[str] = []
    harness.commands["push"] = Command(
        files={"page/index.html": "<p>"},
        act=lambda job: seen.extend(
            (harness.path(m) / "made.txt").read_text() for m in job.mounts if m.read_only
        ),
    )
    of = pipeline(stage(outputs=("model",)), continue_with=ComponentName("publish"))
    first = harness.finish(of, user=None, cause="schedule", public=True)
    (second,) = harness.store.runs.list(APP, RunFilter(ComponentName("publish"), user="anybody"))
    done = harness.until(second.id)
    assert (done.state, done.public, done.user) == (RunState.SUCCEEDED, True, None)
    assert seen == ["fit"]
    keys = harness.objects.server.buckets[BUCKET].keys()
    assert {key.rpartition("/")[0] for key in keys} == {
        f"developer/runs/{first.id}/model",
        f"developer/runs/{done.id}/page",
    }


def test_after_a_failure_nothing_follows(harness: Harness) -> None:
    harness.store.runs.publish(APP, (pipeline(name="publish"),))
    harness.commands["fit"] = Command(code=1)
    harness.finish(pipeline(continue_with=ComponentName("publish")))
    assert harness.store.runs.list(APP, RunFilter(ComponentName("publish"))) == ()


def test_a_pipeline_that_is_gone_is_not_continued_with(harness: Harness) -> None:
    assert harness.finish(pipeline(continue_with=ComponentName("gone"))).state is RunState.SUCCEEDED


def test_a_repetition_goes_on_with_what_had_succeeded(harness: Harness) -> None:
    of = pipeline(
        stage("fit", outputs=("model", "plot")), stage("report", inputs=("model",), outputs=("page",))
    )
    harness.commands["fit"] = Command(files={"model/x": "weights", "plot/p.png": "p"})
    harness.commands["report"] = Command(code=1)
    failed = harness.finish(of)
    assert failed.state is RunState.FAILED
    seen: list[str] = []
    harness.commands["report"] = Command(
        files={"page/index.html": "<p>"},
        act=lambda job: seen.extend((harness.path(m) / "x").read_text() for m in job.mounts if m.read_only),
    )
    again = harness.store.runs.submit(retry_of(failed, "f" * 19, harness.clock.now()))
    done = harness.until(again.id)
    assert done.state is RunState.SUCCEEDED, done.message
    assert seen == ["weights"]
    assert [job.stage for job in harness.jobs.made] == ["fit", "report", "report"]
    places = {output.name: output.data for output in done.published}
    assert harness.stored(places["plot"])["p.png"] == b"p"
    assert harness.stored(places["page"])["index.html"] == b"<p>"


def test_a_repetition_of_what_is_not_kept_says_so(harness: Harness) -> None:
    of = pipeline(stage("fit", outputs=("model",)), stage("report", inputs=("model",)))
    lost = begin(new_run("a" * 19, of, 1.0).to(RunState.STARTING, 1.0), of.stages[:1], 1.0)
    lost = lost.with_stage(lost.stage("fit").end_attempt(2.0).to(RunState.SUCCEEDED, 2.0))
    lost = finish(lost, FinishRun(RunState.FAILED), 3.0)
    again = harness.store.runs.submit(retry_of(lost, "b" * 19, 4.0))
    run = harness.until(again.id)
    assert (run.state, run.reason) == (RunState.FAILED, "InputMissing")
    assert f"was an output of run {'a' * 19}" in run.message


def test_the_log_is_whole_when_the_run_is_over(harness: Harness) -> None:
    harness.commands["fit"] = Command(log=b"".join(b"line %d\n" % number for number in range(20_000)))
    run = harness.finish()
    assert harness.log(run.id).endswith(b"line 19999\n")
