"""What manifests turn into: every field with its unit, every default, and the words about what is doubtful."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.config import DefaultLimits
from controller.domain.apps.spec import (
    ApiSpec,
    ApiVariable,
    AuthSpec,
    BoxLink,
    BoxSpec,
    BuildImage,
    BuildSecret,
    CorsSpec,
    CronSchedule,
    EnvVar,
    ExistingImage,
    FilesTarget,
    Limits,
    MLComponentSpec,
    MLTarget,
    OidcSpec,
    Overlap,
    OwnServer,
    PipelineSpec,
    PipelinesTarget,
    PipelineTarget,
    PipelineVar,
    PlatformServer,
    Reclaim,
    Resources,
    Retries,
    Rollout,
    StageSpec,
    Strategy,
    Webhook,
)
from controller.domain.errors import ManifestInvalid
from controller.domain.secret import Secret
from controller.manifests import load_app
from controller.manifests.reader import MAX_PROBLEMS
from controller.ports import SourceFile
from tests.support.manifests import APP, EXAMPLES, LIMITS, VERSION, app_of, app_problems

ML = f"""{VERSION}kind: MLComponent
metadata: {{name: classify}}
spec:
  image: {{existingImageName: demo:1}}
  mlService: {{inference: app:predict}}
"""
#: What the configuration gives to a container whose manifest asks for nothing.
RESOURCES = Resources(cpus=1.0, memory=2**30, gpus=0, pids=256)


def example(name: str) -> bytes:
    return (EXAMPLES / "valid" / f"{name}.yaml").read_bytes()


def test_an_ml_component_with_everything() -> None:
    (component,) = app_of(example("demo")).ml_components
    assert component == MLComponentSpec(
        name="my-mlcmp",  # type: ignore[arg-type]
        image=BuildImage(".", "Dockerfile", "serve", (("KEY", "value"),)),
        server=PlatformServer(
            "app.inference:predict",
            loader="app.inference:load",
            concurrency=4,
            queue=40,
            timeout=60.0,
            processes=1,
            preload=False,
        ),
        port=8002,
        env=(EnvVar("THRESHOLD", "0.5"),),
        env_from=("keys",),
        boxes=(BoxLink("userdata", default=True), BoxLink("weights", default=False)),
        model_box="weights",
        model_path="resnet/model.onnx",
        follow_model=False,
        package_registry="pypi",
        setup_timeout=120.0,
        async_timeout=600.0,
        resources=Resources(cpus=1.0, memory=2**30, gpus=0, pids=256),
        replicas=1,
        rollout=Rollout(Strategy.BLUE_GREEN, 30.0, 0.05),
        patience=10.0,
        idempotent=False,
        idle_after=600.0,
    )


def test_an_ml_component_with_nothing_has_the_defaults_of_the_schema() -> None:
    (component,) = app_of(ML).ml_components
    assert component == MLComponentSpec(
        component.name,
        ExistingImage("demo:1"),
        PlatformServer("app:predict", concurrency=4, queue=40, timeout=60.0, processes=1, preload=False),
        port=8002,
        follow_model=False,
        setup_timeout=120.0,
        async_timeout=600.0,
        resources=RESOURCES,
        replicas=1,
        rollout=Rollout(Strategy.BLUE_GREEN, 30.0, 0.05),
        patience=10.0,
        idempotent=False,
    )


def test_an_own_server() -> None:
    (component,) = app_of(example("own-server")).ml_components
    assert component.server == OwnServer("/ready", timeout=5.0)
    assert component.rollout == Rollout(Strategy.RECREATE, 0.0, 0.05)


def test_apis_and_boxes_are_sorted_by_name() -> None:
    spec = app_of(example("demo"))
    assert spec.apis == (
        ApiSpec(
            "files",  # type: ignore[arg-type]
            FilesTarget(("ivanov", "petrov")),
            "files",
            published=True,
            auth=AuthSpec(identity_pass_through=False),
        ),
        ApiSpec(
            "my-api",  # type: ignore[arg-type]
            MLTarget("my-mlcmp"),  # type: ignore[arg-type]
            "image",
            published=True,
            auth=AuthSpec(basic="users", identity_pass_through=True),
        ),
    )
    assert spec.boxes == (
        BoxSpec("userdata", 10 * 10**9, Reclaim.RETAIN),  # type: ignore[arg-type]
        BoxSpec("weights", 10**9, Reclaim.DELETE),  # type: ignore[arg-type]
    )


def test_pipelines() -> None:
    spec = app_of(example("pipelines"))
    nightly, train = spec.pipelines
    image = ExistingImage("registry.example.org/team/demo-train:718e2b0")
    assert train == PipelineSpec(
        name="train",  # type: ignore[arg-type]
        vars=(
            PipelineVar("data"),
            PipelineVar("weights", mount_from=("weights", "resnet/")),
            PipelineVar("model"),
            PipelineVar("report", mount_to="/work/report"),
            PipelineVar("scores", publish_to=("weights", "scores/")),
        ),
        stages=(
            StageSpec(
                "report",
                image,
                inputs=("model",),
                outputs=("report",),
                resources=RESOURCES,
                timeout=86400.0,
                retries=Retries(0, 10.0, 2.0, 300.0),
                read_only_root=False,
            ),
            StageSpec(
                "train",
                image,
                command=("python", "train.py"),
                inputs=("data", "weights"),
                outputs=("model", "scores"),
                resources=RESOURCES,
                timeout=7200.0,
                retries=Retries(2, 10.0, 2.0, 300.0),
                read_only_root=False,
            ),
        ),
        boxes=(BoxLink("weights", default=True),),
        continue_with="nightly",
        concurrency=2,
        ttl_succeeded=7 * 86400.0,
        ttl_failed=30 * 86400.0,
    )
    assert nightly.schedule == CronSchedule("0 3 * jan-jun mon,wed/2", "Europe/Moscow", Overlap.REPLACE)
    assert nightly.stages[0].image == BuildImage(".", "Dockerfile")


def test_webhooks_of_pipelines() -> None:
    head = "apiVersion: unified-platform.cs.hse.ru/v1\nkind: ExperimentPipeline\nmetadata: {name: train}\n"
    stages = 'stages: [{name: fit, image: {existingImageName: "demo:1"}}]'
    for text, expected in (
        ("secret: keys", Webhook("keys")),
        ("secret: keys, url: 'https://example.org/x?y'", Webhook("keys", "https://example.org/x?y")),
    ):
        spec = app_of(f"{head}spec: {{{stages}, webhook: {{{text}}}}}".encode())
        assert spec.pipelines[0].webhook == expected


def test_apis_of_pipelines() -> None:
    runs, train = app_of(example("pipelines")).apis
    assert (runs.target, runs.path, runs.published) == (PipelinesTarget(), "pipelines", False)
    assert train.target == PipelineTarget("train")  # type: ignore[arg-type]
    assert train.inputs == (
        ApiVariable("data", description="table of cases", required=False, datatypes=("FILE", "dict")),
    )
    assert train.outputs == (
        ApiVariable("report", description="figures", required=True, datatypes=("FILE",)),
    )
    oidc = OidcSpec("https://id.example.org/realms/demo", "demo", "demo-web", (("group", "lab"),))
    assert train.auth == AuthSpec(token="keys", oidc=oidc, identity_pass_through=False)


def test_origins_are_as_browsers_write_them() -> None:
    text = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: APIComponent
metadata: {name: api}
spec:
  pipelines: {}
  restfulApi:
    cors:
      origins: [HTTPS://Lab.Example.Org:443, "http://localhost:4200", "http://[0:0::0:1]:080", "https://a.example:80"]
      maxAge: 1h
      exposeHeaders: [X-Total-Count]
"""
    origins = ("http://[::1]", "http://localhost:4200", "https://a.example:80", "https://lab.example.org")
    assert app_of(text.encode()).apis[0].cors == CorsSpec(
        origins, credentials=False, max_age=3600.0, expose_headers=("X-Total-Count",)
    )
    assert app_of(example("pipelines")).apis[0].cors is None


def test_the_config_says_what_silent_manifests_get() -> None:
    limits = DefaultLimits(cpus=0.5, memory=2**29, pids=64)
    spec = load_app([SourceFile("a.yaml", ML.encode())], APP, True, limits)
    assert spec.ml_components[0].resources == Resources(0.5, 2**29, 0, 64)


def test_processes_and_shared_memory_are_as_the_manifest_says() -> None:
    text = ML.replace("inference: app:predict", "inference: app:predict, processes: 2, preload: true")
    (component,) = app_of(f"{text}  resources: {{memory: 1Gi, shm: 256Mi}}\n".encode()).ml_components
    assert isinstance(component.server, PlatformServer)
    assert (component.server.processes, component.server.preload) == (2, True)
    assert component.resources.shm == 2**28


def test_paths_of_builds_are_normalised() -> None:
    text = ML.replace(
        "existingImageName: demo:1", "build: {context: ./a//b/, dockerfile: ./docker/Dockerfile}"
    )
    assert app_of(text).ml_components[0].image == BuildImage("a/b", "docker/Dockerfile")


def test_secrets_of_builds() -> None:
    secrets = "[{id: pip, secret: a, key: b}, {id: ca, secret: a, key: c}]"
    text = ML.replace("existingImageName: demo:1", f"build: {{secrets: {secrets}}}")
    image = app_of(text).ml_components[0].image
    assert isinstance(image, BuildImage)
    assert image.secrets == (BuildSecret("pip", "a", "b"), BuildSecret("ca", "a", "c"))
    (problem,) = app_problems(text.replace("id: ca", "id: pip"))
    assert "spec.image.build.secrets[1].id: another one has the id 'pip': give each its own" in str(problem)


def test_documents_may_be_spread_over_files() -> None:
    api = f"{VERSION}kind: APIComponent\nmetadata: {{name: api}}\nspec:\n  mlComponent: {{name: classify}}\n"
    spec = app_of(api + "  restfulApi: {path: image}\n", ML)
    assert (len(spec.apis), len(spec.ml_components)) == (1, 1)


def test_no_file_is_an_empty_app() -> None:
    assert app_of().ml_components == ()


# --- Secrets in the module's repository --------------------------------------------------------------------------

SECRET = f"""{VERSION}kind: Secret
metadata: {{name: own}}
stringData: {{token: hunter2}}
data: {{other: aHVudGVyMw==}}
"""


@pytest.mark.parametrize(
    ("gpus", "share", "name", "value", "said"),
    [
        (1, 1, "NVIDIA_VISIBLE_DEVICES", "all", "has no effect: the platform sets NVIDIA_VISIBLE_DEVICES"),
        (0, 1, "CUDA_VISIBLE_DEVICES", "0", "the container has no GPU"),
        (1, 1, "CUDA_VISIBLE_DEVICES", "3", "the container has 1 GPU, which is number 0"),
        (2, 1, "CUDA_VISIBLE_DEVICES", "0, 2", "the container has 2 GPUs, which are numbered from 0 to 1"),
        (2, 1, "CUDA_VISIBLE_DEVICES", "9" * 5000, "the container has 2 GPUs"),
        (2, 1, "CUDA_VISIBLE_DEVICES", "0,1", ""),
        (0, 1, "CUDA_VISIBLE_DEVICES", "-1", ""),
        (0, 1, "CUDA_VISIBLE_DEVICES", "", ""),
        (1, 1, "CUDA_VISIBLE_DEVICES", "١,GPU-1", ""),
        (0, 2, "OTHER", "x", "has no effect without `gpus`"),
        (1, 2, "OTHER", "x", ""),
    ],
)
def test_variables_that_choose_gpus(gpus: int, share: int, name: str, value: str, said: str) -> None:
    more = f'  resources: {{gpus: {gpus}, gpuShare: {share}}}\n  env: [{{name: {name}, value: "{value}"}}]\n'
    warnings = app_of(ML + more).warnings
    assert [said in warning for warning in warnings] == ([True] if said else []), warnings


def test_a_plain_secret_works_with_a_warning() -> None:
    spec = app_of(SECRET, ML + "  envFrom: [{secretRef: {name: own}}]\n")
    (secret,) = spec.secrets
    assert secret.values == (("other", Secret("hunter3")), ("token", Secret("hunter2")))
    assert secret.app == "demo"
    (warning,) = spec.warnings
    assert warning.startswith(
        "f0.yaml:2:1: kind: the Secret 'own' lies in plain text in the module's repository"
    )


def test_secrets_are_in_no_text() -> None:
    assert "hunter" not in repr(app_of(SECRET))
    broken = SECRET.replace("hunter2", "[hunter2]") + "hunter2: hunter4\n"
    with pytest.raises(ManifestInvalid) as caught:
        app_of(broken)
    assert "hunter4" not in str(caught.value)
    assert "hunter3" not in str(caught.value)


# --- what is doubtful ---------------------------------------------------------------------------------------------


def test_an_identity_without_a_login_is_mentioned() -> None:
    api = f"""{VERSION}kind: APIComponent
metadata: {{name: api}}
spec: {{mlComponent: {{name: classify}}, restfulApi: {{path: image, auth: {{identityPassThrough: true}}}}}}
"""
    (warning,) = app_of(ML, api).warnings
    assert "names no way to log in" in warning


def test_unused_variables_and_clocked_runs_with_inputs_are_mentioned() -> None:
    text = f"""{VERSION}kind: ExperimentPipeline
metadata: {{name: train}}
spec:
  vars: [{{name: data}}, {{name: spare}}]
  stages: [{{name: one, image: {{existingImageName: "demo:1"}}, inputs: [{{name: data}}]}}]
  schedule: {{cron: "0 3 * * *"}}
"""
    assert app_of(text).warnings == (
        "f0.yaml:5:25: spec.vars[1].name: no stage uses 'spare'",
        "f0.yaml:7:3: spec.schedule: a run started by the clock is passed no inputs: give data a mountFrom",
    )


@pytest.mark.parametrize(
    ("more", "mentioned"),
    [
        ("", True),
        ("  connectedBoxes: [{name: results}]\n", False),
    ],
)
def test_outputs_without_a_box_are_mentioned_and_not_refused(more: str, mentioned: bool) -> None:
    text = f"""{VERSION}kind: ExperimentPipeline
metadata: {{name: train}}
spec:
  vars: [{{name: model}}]
  stages: [{{name: one, image: {{existingImageName: "demo:1"}}, outputs: [{{name: model}}]}}]
"""
    box = (
        f"{VERSION}kind: DataBox\nmetadata: {{name: results}}\nspec: {{s3DefaultStorage: {{capacity: 1M}}}}\n"
    )
    warnings = app_of(text + more, box).warnings
    assert ["'model' has no box to go to" in warning for warning in warnings] == [True] * mentioned


PIPELINE_API = """kind: APIComponent
metadata: {name: train-api}
spec:
  experimentPipeline: {name: %s}
  restfulApi: {path: train}
  apiSpec: {}
"""
LOST = """kind: ExperimentPipeline
metadata: {name: train}
spec:
  vars: [{name: model}]
  stages: [{name: one, image: {existingImageName: "demo:1"}, outputs: [{name: model}]}]
"""
FIRST = """kind: ExperimentPipeline
metadata: {name: first}
spec:
  stages: [{name: one, image: {existingImageName: "demo:1"}}]
  continueWith: {pipeline: train}
"""
ALL_API = "kind: APIComponent\nmetadata: {name: all}\nspec: {pipelines: {}, restfulApi: {path: all}}\n"
CLOCK = '  schedule: {cron: "0 3 * * *"}\n'


@pytest.mark.parametrize(
    "manifests",
    [
        (LOST, PIPELINE_API % "train"),
        (LOST, ALL_API),
        (LOST + CLOCK,),
        (LOST, FIRST, PIPELINE_API % "first"),
        (LOST, FIRST + CLOCK),
    ],
    ids=["api", "api of all", "clock", "after another", "after another by the clock"],
)
def test_outputs_that_each_run_would_lose_are_refused(manifests: tuple[str, ...]) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        app_of(*(VERSION + text for text in manifests))
    (problem,) = caught.value.problems
    assert "'model' has no box to go to, so that each run would lose it" in problem.message
    assert app_of(VERSION + LOST, VERSION + FIRST).warnings, "nobody runs it on the platform"


@pytest.mark.parametrize("text", ["a\\ud800", "\\udfff", "a\\0b"])
@pytest.mark.parametrize("place", ["key", "variable", "output", "stage", "command"])
def test_a_text_that_nobody_can_use_is_told_once(text: str, place: str) -> None:
    names = dict.fromkeys(["key", "variable", "output", "stage", "command"], "x") | {place: text}
    key = f'  "{text}": 1\n' if place == "key" else ""
    manifest = f"""{VERSION}kind: ExperimentPipeline
metadata: {{name: train}}
spec:
{key}  vars: [{{name: "{names["variable"]}"}}]
  connectedBoxes: [{{name: results}}]
  stages:
    - name: "{names["stage"]}"
      image: {{existingImageName: "demo:1"}}
      command: ["{names["command"]}"]
      outputs: [{{name: "{names["output"]}"}}]
"""
    box = (
        f"{VERSION}kind: DataBox\nmetadata: {{name: results}}\nspec: {{s3DefaultStorage: {{capacity: 1M}}}}\n"
    )
    with pytest.raises(ManifestInvalid) as caught:
        app_of(manifest, box)
    assert len(caught.value.problems) == 1, caught.value.message
    assert "half of a character" in caught.value.message


# --- all or nothing -----------------------------------------------------------------------------------------------


def test_problems_of_all_files_are_told_together() -> None:
    wrong = ML.replace("name: classify", "name: Classify")
    with pytest.raises(ManifestInvalid) as caught:
        app_of("kind: [", wrong, ML.replace("inference", "inferense"), f"{VERSION}kind: Nothing\n")
    assert [(p.file, p.line) for p in caught.value.problems] == [
        ("f1.yaml", 3),
        ("f2.yaml", 6),
        ("f2.yaml", 6),
        ("f3.yaml", 2),
    ]
    assert caught.value.reason == "ManifestInvalid"


def test_a_mistake_made_many_times_is_cut_short() -> None:
    text = ML + "  env:\n" + "    - {name: A, valu: x}\n" * 450
    problems = app_problems(text)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].message == f"and {900 - MAX_PROBLEMS} more problems after this one"


def test_limits_are_those_of_the_platform_app() -> None:
    assert app_problems(ML, app=replace(APP, limits=Limits(cpus=1, memory=2**30, containers=1))) == ()
    (problem,) = app_problems(ML, app=replace(APP, limits=Limits(containers=0)))
    assert (
        problem.message
        == "all components together ask for 1 container; the limits of the app allow 0 containers"
    )


STAGE = f"""---
{VERSION}kind: ExperimentPipeline
metadata: {{name: train}}
spec:
  stages:
    - {{name: fit, image: {{existingImageName: "demo:1"}}, resources: {{cpus: 2, memory: 1Gi, gpus: 1}}}}
"""


APP_WITH_GPUS = replace(APP, limits=Limits(gpus=1))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(cpus=3, memory=2 * 2**30, containers=2, gpus=1), ""),
        (
            Limits(cpus=2.5),
            "2 CPUs are too much: the limits of the app allow 2.5 CPUs, and its components leave 1.5 CPUs for stages",
        ),
        (Limits(memory=2**31 - 1), "1Gi of memory is too much: the limits of the app allow"),
        (Limits(gpus=0), "1 GPU is too much: the limits of the app allow 0 GPUs"),
        (
            Limits(containers=1),
            "1 container is too much: the limits of the app allow 1 container, and its components leave 0 containers",
        ),
    ],
)
def test_a_stage_that_never_fits_beside_the_components(limits: Limits, message: str) -> None:
    found = app_problems(ML + STAGE, app=replace(APP, limits=limits))
    assert len(found) == bool(message)
    assert all(problem.message.startswith(message) for problem in found)


@pytest.mark.parametrize(
    ("given", "timeout"), [("", 3600.0), ("timeout: 30s, ", 30.0), ("timeout: 2h, ", 7200.0)]
)
def test_a_stage_has_a_timeout_in_any_case(given: str, timeout: float) -> None:
    text = STAGE.replace("{name: fit, ", f"{{name: fit, {given}")
    limits = DefaultLimits(stage_timeout=3600.0, max_stage_timeout=7200.0)
    spec = load_app([SourceFile("a.yaml", text.encode())], APP_WITH_GPUS, False, limits)
    assert [stage.timeout for stage in spec.pipelines[0].stages] == [timeout]


def test_a_timeout_beyond_what_the_configuration_allows() -> None:
    (problem,) = app_problems(STAGE.replace("{name: fit, ", "{name: fit, timeout: 8d, "), app=APP_WITH_GPUS)
    assert (problem.line, problem.field) == (7, "spec.stages[0].timeout")
    assert problem.message == "8d is too long: the controller's config allows 7d"


def test_the_default_timeout_is_never_beyond_the_longest() -> None:
    assert DefaultLimits(stage_timeout=100.0, max_stage_timeout=10.0).of_stage(None) == 10.0


def test_what_others_have_to_provide_can_be_taken_as_given() -> None:
    """Package registries where the platform is not known; Secrets always, since they may be set later."""
    text = ML + "  envFrom: [{secretRef: {name: unknown}}]\n"
    assert app_problems(text) == ()
    spec = load_app([SourceFile("a.yaml", text.encode())], APP, False, LIMITS)
    assert spec.ml_components[0].env_from == ("unknown",)
