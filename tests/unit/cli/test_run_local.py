"""`prichal run-local`, as far as no engine is needed: what it reads, refuses, takes along and shows."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.config.settings import DefaultLimits
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunInput, RunState, StageRun, new_run
from controller.domain.secret import Secret
from controller.local.console import Console
from controller.local.inputs import GivenInput, GivenInputs, bring, inputs_of
from controller.local.manifest import DeclaredPipeline, declared, given_secrets, secret_of
from controller.local.outputs import collect_outputs, refuse_taken
from controller.local.run import local_pipeline
from controller.reconcile.runnable_pipelines import runnable_stage
from controller.runner.folders import RunFolders
from tests.support.specs import make
from tests.unit.cli.conftest import Machine

MANIFEST = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: ExperimentPipeline
metadata: {name: train, namespace: pu-ivanov-pa-demo}
spec:
  connectedBoxes: [{name: userdata, default: true}]
  vars:
    - {name: data, mountTo: /work/data}
    - {name: rate}
    - {name: note}
    - {name: weights, mountFrom: {box: userdata, path: resnet/}}
    - {name: model, publishTo: {box: userdata, path: models/}}
    - {name: report}
  stages:
    - name: fit
      image: {existingImageName: "demo:1"}
      command: [python3, fit.py]
      inputs: [{name: data}, {name: rate}, {name: weights}, {name: note}]
      outputs: [{name: model}]
      retries: {limit: 2, backoff: 3s}
      timeout: 1h
    - name: tell
      image: {build: {context: tell}}
      inputs: [{name: model}]
      outputs: [{name: report}]
      envFrom: [{secretRef: {name: keys}}]
  continueWith: {pipeline: publish}
  schedule: {cron: "0 3 * * *"}
"""
API = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: APIComponent
metadata: {name: train}
spec:
  published: true
  experimentPipeline: {name: train}
  restfulApi: {path: train, auth: {basic: {credentials: users}}}
  apiSpec:
    inputs:
      - {name: data, description: A table, type: {datatypes: [FILE]}}
      - {name: rate, description: Learning rate, type: {datatypes: [FP64]}}
      - {name: note, required: false, type: {datatypes: [str, FILE]}}
    outputs: [{name: report, description: What came out}]
"""
REST = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: DataBox
metadata: {name: userdata}
spec: {s3DefaultStorage: {}}
---
apiVersion: unified-platform.cs.hse.ru/v1
kind: Secret
metadata: {name: keys}
stringData: {KEY: s3cret}
---
apiVersion: unified-platform.cs.hse.ru/v1
kind: ExperimentPipeline
metadata: {name: publish}
spec:
  stages: [{name: put, image: {existingImageName: "demo:1"}}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with manifests and some data."""
    folder = tmp_path / "work"
    (folder / "manifests").mkdir(parents=True)
    for name, text in (("train.yaml", MANIFEST), ("api.yaml", API), ("rest.yaml", REST)):
        (folder / "manifests" / name).write_text(text)
    (folder / "in.csv").write_text("1,2\n")
    (folder / "w" / "sub").mkdir(parents=True)
    (folder / "w" / "sub" / "layer").write_text("w")
    monkeypatch.chdir(folder)
    return folder


def read(place: str = "manifests/train.yaml", pipeline: str | None = "train") -> DeclaredPipeline:
    return declared(Path(place), pipeline, DefaultLimits())


def inputs(*arguments: str, found: DeclaredPipeline | None = None) -> dict[str, GivenInput]:
    found = found or read()
    given = inputs_of(tuple(map(GivenInputs.parse, arguments)), found, pipeline(found))
    return {each.run.name: each for each in given}


def pipeline(found: DeclaredPipeline) -> Pipeline:
    return local_pipeline(found, tuple(runnable_stage(s, "image") for s in found.pipeline.stages))


# --- manifests --------------------------------------------------------------------------------------------------


def test_a_file_is_read_with_what_lies_beside_it(folder: Path) -> None:
    found = read()
    assert (found.app, found.pipeline.name) == ("pu-ivanov-pa-demo", "train")
    assert found.secrets["keys"].get("KEY") == Secret("s3cret")
    assert found.passed["rate"].datatypes == ("FP64",)
    assert [remark.split()[0] for remark in found.remarks] == ["schedule", "continueWith", "model"]


def test_of_a_folder_one_of_several_has_to_be_chosen(folder: Path) -> None:
    assert read("manifests").pipeline.name == "train"
    assert read("manifests/rest.yaml", None).pipeline.name == "publish", "the only one of this file"
    with pytest.raises(Stalled, match=r"several pipelines .*--pipeline"):
        read("manifests", None)
    with pytest.raises(Stalled, match="no pipeline 'trian', only: "):
        read("manifests", "trian")


def test_problems_have_their_position_and_those_of_neighbours_do_not_matter(folder: Path) -> None:
    (folder / "manifests" / "api.yaml").write_text(API.replace("restfulApi", "restfullApi"))
    assert read().pipeline.name == "train"
    with pytest.raises(ManifestInvalid, match=r"api\.yaml:8:3: spec\.restfullApi"):
        read("manifests")
    (folder / "manifests" / "train.yaml").write_text(MANIFEST.replace("timeout: 1h", "timeout: long"))
    with pytest.raises(ManifestInvalid, match=r"train\.yaml:21:7: spec\.stages\[0\]\.timeout"):
        read()


def test_the_pipeline_is_that_of_the_platform_without_boxes(folder: Path) -> None:
    found = pipeline(read())
    assert (found.boxes, found.continue_with, found.optional) == ((), None, ("note",))
    assert (found.stages[0].retries.limit, found.stages[0].timeout) == (2, 3600.0)
    assert found.var("data").mount_to == "/work/data"
    assert found.passed == ("data", "note", "rate", "weights")


def test_a_secret_is_read_as_docker_reads_it(folder: Path) -> None:
    file = folder / "keys.env"
    file.write_text('# of mine\n\nKEY="a=b"\nEMPTY=\n')
    assert secret_of("keys", file).values == (("KEY", Secret('"a=b"')), ("EMPTY", Secret("")))
    file.write_text("KEY=1\nnonsense\n")
    with pytest.raises(Stalled, match=r"keys\.env:2: "):
        secret_of("keys", file)


# --- inputs -----------------------------------------------------------------------------------------------------

ALL = ("data=./in.csv", "rate=0.5", "weights=w")


def test_paths_are_files_and_the_rest_values(folder: Path) -> None:
    found = inputs(*ALL, "note=three words here")
    assert (found["data"].run.datatype, found["data"].path) == ("FILE", Path("in.csv"))
    assert found["weights"].path == Path("w")
    assert found["rate"].run == RunInput("rate", "FP64", "0.5"), "its API says that it is a number"
    assert found["note"].run == RunInput("note", "str", '"three words here"')
    assert str(found["data"]) == "data: file in.csv (4 bytes)"


@pytest.mark.parametrize(
    ("argument", "datatype", "data"),
    [
        ("rate=0.5", "str", '"0.5"'),
        ("rate:=0.5", "FP64", "0.5"),
        ("rate:=[[1, 2], [3, 4]]", "INT32", "[[1, 2], [3, 4]]"),
        ('rate:={"a": null}', "dict", '{"a": null}'),
        ('rate:="in.csv"', "str", '"in.csv"'),
    ],
)
def test_without_an_api_only_json_is_more_than_a_text(
    folder: Path, argument: str, datatype: str, data: str
) -> None:
    (folder / "manifests" / "api.yaml").unlink()
    found = inputs("data=in.csv", "weights=w", "note=x", argument)
    assert found["rate"].run == RunInput("rate", datatype, data)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data=in.cvs", "input 'data': there is no file or folder 'in.cvs'"),
        ("data=", "there is no file or folder ''"),
        ("data=empty", "there are no files in empty"),
        ("note=./gone.txt", "there is no file or folder './gone.txt'"),
        ("rate=fast", "'fast' is not valid JSON"),
        ("rate:=true", "true is not of type FP64"),
        ("model=w", "'model' is an output of the stage 'fit'"),
        ("dat=in.csv", "no stage has an input 'dat'.*did you mean 'data'"),
    ],
)
def test_what_is_wrong_with_an_input_is_said(folder: Path, argument: str, message: str) -> None:
    (folder / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(Stalled, match=message):
        inputs(argument)


def test_all_missing_inputs_are_named_with_where_they_come_from(folder: Path) -> None:
    with pytest.raises(Stalled) as caught:
        inputs("note=x")
    assert caught.value.reason == "InputMissing"
    assert caught.value.message.splitlines() == [
        "inputs are missing:",
        "  --input data=PATH  (A table)",
        "  --input rate=VALUE  (Learning rate)",
        "  --input weights=PATH  (on the platform: resnet/ in the developer area of the box 'userdata')",
    ]


def test_copies_are_readable_for_every_user_of_an_image(folder: Path, tmp_path: Path) -> None:
    (folder / "in.csv").chmod(0o600)
    (folder / "w" / "sub").chmod(0o700)
    (folder / "w" / "link").symlink_to("sub/layer")
    places = {"data": tmp_path / "in", "weights": tmp_path / "weights"}
    before = os.umask(0o077)
    try:
        bring(tuple(inputs(*ALL).values()), places)
    finally:
        os.umask(before)
    assert places["data"].stat().st_mode & 0o777 == 0o644
    assert (places["weights"] / "sub").stat().st_mode & 0o777 == 0o755
    assert not (places["weights"] / "link").is_symlink()
    assert (places["weights"] / "link").read_text() == "w"


def test_a_folder_with_a_dangling_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "w" / "link").symlink_to("gone")
    with pytest.raises(Stalled, match="input 'weights' cannot be copied"):
        bring(tuple(inputs(*ALL).values()), {"data": tmp_path / "in", "weights": tmp_path / "weights"})


# --- outputs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def over(tmp_path: Path) -> tuple[Run, RunFolders]:
    """A run whose first stage has made a model at its second attempt; the second stage has failed."""
    stages = (
        make(Stage, "fit", "i", outputs=("model",)),
        make(Stage, "tell", "i", ("c",), ("model",), ("report",)),
    )
    run = new_run("r1", make(Pipeline, AppName("demo"), ComponentName("train"), "", stages), 0.0)
    done = stage_through(run.stage("fit").begin(1.0).to(RunState.QUEUED, 2.0).begin(3.0), RunState.SUCCEEDED)
    run = run.with_stage(done).with_stage(stage_through(run.stage("tell").begin(5.0), RunState.FAILED))
    folders = RunFolders(tmp_path, "r1")
    made = folders.output("fit", 2, "model")
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "m").write_text("model")
    folders.output("tell", 1, "report").mkdir(parents=True)
    return run, folders


def stage_through(stage: StageRun, end: RunState) -> StageRun:
    return stage.to(RunState.RUNNING, 4.0).to(end, 5.0)


def test_outputs_of_stages_that_have_succeeded_are_taken_along(
    over: tuple[Run, RunFolders], tmp_path: Path
) -> None:
    (result,) = collect_outputs(*over, tmp_path / "a" / "out")
    assert str(result) == f"model: {tmp_path}/a/out/model/ (1 file, 5 bytes)"
    assert (result.folder / "sub" / "m").read_text() == "model"
    assert [path.name for path in (tmp_path / "a" / "out").iterdir()] == ["model"]


def test_they_replace_what_is_there_and_a_bad_one_replaces_nothing(
    over: tuple[Run, RunFolders], tmp_path: Path
) -> None:
    run, folders = over
    old = tmp_path / "out" / "model" / "old"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    with pytest.raises(Stalled, match=r"out/model exists already: "):
        refuse_taken(tmp_path / "out", ["model", "report"])
    (folders.output("fit", 2, "model") / "link").symlink_to("/etc/passwd")
    with pytest.raises(Stalled, match="'link' is a link"):
        collect_outputs(run, folders, tmp_path / "out")
    assert old.read_text() == "old"
    (folders.output("fit", 2, "model") / "link").unlink()
    collect_outputs(run, folders, tmp_path / "out")
    assert not old.exists()


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    refuse_taken(tmp_path, ["model"])


# --- the view ---------------------------------------------------------------------------------------------------


class Screen:
    """One stage seen as it goes on; what is said to both streams, in order."""

    def __init__(self, tmp_path: Path) -> None:
        self.stage = new_run(
            "r1", make(Pipeline, AppName("a"), ComponentName("p"), "", (make(Stage, "fit", "i"),)), 0.0
        )
        self.lines: list[str] = []
        self.folders = RunFolders(tmp_path, "r1")
        self.folders.prepare()
        self._view = Console(self.folders, ("fit",), self.lines.append, self.lines.append)

    def show(self, stage: StageRun) -> StageRun:
        self._view.show(self.stage.with_stage(stage))
        return stage

    def writes(self, attempt: int, content: bytes) -> None:
        with self.folders.log("fit", attempt).open("ab") as file:
            file.write(content)

    def new(self) -> list[str]:
        said, self.lines[:] = list(self.lines), []
        return said


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def test_lines_come_whole_between_the_transitions_they_belong_to(screen: Screen) -> None:
    waiting = screen.show(screen.stage.stage("fit"))
    running = screen.show(waiting.begin(1.0).to(RunState.RUNNING, 1.5))
    assert screen.new() == ["fit * STARTING", "fit * RUNNING"]
    screen.writes(1, "one\r\ntw\u00f6 ".encode()[:-2])  # amidst a character
    screen.show(running)
    assert screen.new() == ["fit | one"]
    screen.writes(1, "\u00f6 and the rest".encode()[1:])
    again = replace(running.to(RunState.QUEUED, 3.0, Reason.EXIT_CODE, "exit code 1"), not_before=13.0)
    screen.show(again)
    assert screen.new() == [
        "fit | tw\u00f6 and the rest",
        "fit * QUEUED after 2.0 s, ExitCode: exit code 1; again in 10 s",
    ]


def test_each_attempt_has_its_log_though_it_was_missed_while_it_ran(screen: Screen) -> None:
    first = screen.stage.stage("fit").begin(1.0).to(RunState.RUNNING, 1.0).to(RunState.QUEUED, 2.0)
    done = first.begin(3.0).to(RunState.RUNNING, 3.0).to(RunState.SUCCEEDED, 4.0)
    screen.writes(1, b"first\n")
    screen.writes(2, b"second\n")
    screen.show(replace(done, progress="2/2"))
    assert screen.new() == [
        *("fit * STARTING", "fit * RUNNING", "fit | first", "fit * QUEUED after 1.0 s"),
        *("fit * STARTING again, attempt 2", "fit * RUNNING", "fit * 2/2", "fit | second"),
        "fit * SUCCEEDED after 1.0 s",
    ]


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], Exit.USAGE, "error (InputMissing): inputs are missing:"),
        (["--input", "data"], Exit.USAGE, "'data' is neither NAME=PATH"),
        (["--secret", "keys=nowhere"], Exit.USAGE, "is not NAME=FILE"),
        (["--secret", "keys/=manifests/train.yaml"], Exit.USAGE, "is not NAME=FILE or NAME/KEY=FILE"),
        (["--secret", "/token=manifests/train.yaml"], Exit.USAGE, "is not NAME=FILE or NAME/KEY=FILE"),
        (["--pipeline", "other"], Exit.NOT_FOUND, "no pipeline 'other'"),
        ([f"--input={given}" for given in ALL], Exit.USAGE, "out/report exists already"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_begun(
    machine: Machine,
    folder: Path,
    arguments: list[str],
    code: Exit,
    said: str,
) -> None:
    (folder / "out" / "report").mkdir(parents=True)
    (folder / "out" / "report" / "mine").touch()
    found = machine.run("run-local", "manifests/train.yaml", *arguments)
    assert (found.code, found.stdout) == (code, "")
    assert said in found.stderr


def test_what_a_build_mounts_is_asked_for(machine: Machine, folder: Path) -> None:
    """Before anything is pulled or built; the sentence can be followed as it is written, key by key."""
    file, given = folder / "manifests" / "train.yaml", list[str]()
    mounted = "{id: a, secret: packages, key: token}, {id: b, secret: packages, key: user}"
    build = f"{{build: {{context: tell, secrets: [{mounted}]}}}}"
    file.write_text(file.read_text().replace("{build: {context: tell}}", build))
    (folder / "value").write_text("t0ken\n")
    for key in ("token", "user"):
        found = machine.run("run-local", "manifests/train.yaml", *given)
        assert f"mounts the key '{key}' of the Secret 'packages'" in found.stderr
        assert f"--secret packages/{key}=FILE" in found.stderr
        assert found.code == Exit.FAILED
        assert "t0ken" not in found.stderr
        given += ["--secret", f"packages/{key}={folder / 'value'}"]


def test_the_keys_of_a_secret_are_given_one_by_one_or_together(folder: Path) -> None:
    (folder / "keys.env").write_text("KEY=x\nOTHER=y\n")
    (folder / "token").write_text("line 1\nline=2\n")
    given = given_secrets(
        [("keys", folder / "keys.env"), ("keys/KEY", folder / "token"), ("b/k", folder / "token")]
    )
    assert {name: dict(spec.values) for name, spec in given.items()} == {
        "keys": {"KEY": Secret("line 1\nline=2\n"), "OTHER": Secret("y")},
        "b": {"k": Secret("line 1\nline=2\n")},
    }
    (folder / "token").write_text("one\n")
    assert given_secrets([("b/k", folder / "token")])["b"].get("k") == Secret("one")
    (folder / "token").write_bytes(b"\xff")
    with pytest.raises(Stalled, match="is not text") as caught:
        given_secrets([("b/k", folder / "token")])
    assert caught.value.reason == "SecretInvalid"


def test_a_secret_that_is_not_there_is_asked_for(machine: Machine, folder: Path) -> None:
    (folder / "manifests" / "rest.yaml").write_text(REST.replace("name: keys", "name: other"))
    found = machine.run("run-local", "manifests/train.yaml")
    assert "error (SecretMissing): the stage 'tell'" in found.stderr
    assert "--secret keys=FILE" in found.stderr
    assert found.code == Exit.FAILED
    assert json.dumps("s3cret") not in found.stderr
