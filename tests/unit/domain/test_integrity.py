"""Decoded values are checked by the rules by which they were created: names that lead elsewhere are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.domain.apps.spec import CronSchedule, EnvVar, Limits, PipelineVar, Resources, Retries, Webhook
from controller.domain.apps.status import AppStatus, ComponentStatus, RepositoryRecord
from controller.domain.integrity import require_integrity
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Attempt, Run, RunCause, RunInput, RunOutput, StageRun, new_run
from controller.domain.storage.box import BoxRecord, PendingUpload
from controller.store.codec import decode, encode
from tests.support.specs import make

LEADS_ELSEWHERE = (
    "../../../../../hostdir",
    "/etc/shadow",
    "a/../b",
    "a/b",
    "..",
    ".",
    "",
    "a\0b",
    "x" * 300,
    "-v",
    " a",
)

STAGE = make(Stage, "fit", "sha256:1", outputs=("model",))
PIPELINE = make(Pipeline, AppName("demo"), ComponentName("train"), "c0ffee", (STAGE,))
VAR = PipelineVar("model")
RUN = new_run("1a22b3c4d5e6f708192", PIPELINE, 1.0)
ROUTE = Route(AppName("demo"), ComponentName("namer"), "1:f", "c0ffee", ("10.0.0.1:80",), ())
BOX = BoxRecord(AppName("demo"), ComponentName("data"), "prichal.demo.data", 10)

NAMES: dict[str, Callable[[str], object]] = {
    "variable": lambda text: replace(VAR, name=text),
    "box of a variable": lambda text: replace(VAR, mount_from=(text, "a/")),
    "box that is published to": lambda text: replace(VAR, publish_to=(text, "a/")),
    "output of a stage": lambda text: replace(STAGE, outputs=(text,)),
    "input of a stage": lambda text: replace(STAGE, inputs=(text,)),
    "stage": lambda text: replace(STAGE, name=text),
    "image": lambda text: replace(STAGE, image=text),
    "Secret": lambda text: replace(STAGE, env_from=(text,)),
    "variable of the environment": lambda text: EnvVar(text, "v"),
    "pipeline": lambda text: replace(PIPELINE, name=ComponentName(text)),
    "app of a pipeline": lambda text: replace(PIPELINE, app=AppName(text)),
    "connected box": lambda text: replace(PIPELINE, boxes=(ComponentName(text),)),
    "next pipeline": lambda text: replace(PIPELINE, continue_with=ComponentName(text)),
    "optional variable": lambda text: replace(PIPELINE, optional=(text,)),
    "secret of a webhook": lambda text: Webhook(text),
    "run": lambda text: replace(RUN, id=text),
    "stage of a run": lambda text: replace(RUN, stages=(StageRun(text),)),
    "run whose outputs are taken": lambda text: StageRun("fit", reused_from=text or "?"),
    "run that is repeated": lambda text: replace(RUN, origin=text or "?"),
    "released": lambda text: replace(RUN, released=(text,)),
    "input": lambda text: RunInput(text, "FILE", "a/b"),
    "output": lambda text: RunOutput(text, "a/"),
    "box of an input": lambda text: RunInput("data", "FILE", "a/b", box=text or "?"),
    "box of an output": lambda text: RunOutput("model", "a/", box=text or "?"),
    "cause": lambda text: replace(RUN, cause=RunCause(text)),
    "progress": lambda text: StageRun("fit", progress=text or "?"),
    "path of an API": lambda text: Api(text, ComponentName("api"), published=True),
    "address": lambda text: replace(ROUTE, upstreams=(text,)),
    "app of a route": lambda text: replace(ROUTE, app=AppName(text)),
    "repository": lambda text: RepositoryRecord(text, (), "branch:main", 1.0),
    "app of a repository": lambda text: RepositoryRecord("demo", (AppName(text),), "branch:main", 1.0),
    "app": lambda text: AppStatus(AppName(text)),
    "model": lambda text: ComponentStatus(ComponentName("namer"), "MLComponent", model=text or "?"),
    "pinned model": lambda text: AppStatus(AppName("demo"), models=((ComponentName("namer"), text),)),
    "bucket": lambda text: replace(BOX, bucket=text),
    "bucket of an upload": lambda text: PendingUpload(1, text, "key", 1, 1.0, 2.0),
}
#: An image may have slashes, and be long.
ALLOWED = {
    ("image", "x" * 300),
    ("image", "a/b"),
    ("image", "a/../b"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", LEADS_ELSEWHERE, ids=range(len(LEADS_ELSEWHERE)))
def test_a_name_is_one_step_and_no_more(name: str, text: str) -> None:
    if (name, text) not in ALLOWED:
        with pytest.raises(ValueError, match=r"is not|the path"):
            require_integrity(NAMES[name](text))


@pytest.mark.parametrize(
    "value",
    [
        PIPELINE,
        STAGE,
        replace(VAR, mount_from=("data", "a/b"), mount_to="/work/model", publish_to=("data", "a/")),
        RUN,
        ROUTE,
        BOX,
        StageRun("fit", reused_from=RUN.id, progress="1/2", attempts=(Attempt(1, 1.0), Attempt(2, 2.0))),
        make(CronSchedule, "0 3 * * *", "Europe/Moscow"),
        Webhook("hook", "https://example.org/x"),
        AppStatus(AppName("@platform")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_platform_writes_is_sound(value: object) -> None:
    require_integrity(value)
    assert decode(type(value), encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        *(
            replace(VAR, mount_to=text)
            for text in ("/etc", "/opt/prichal/x", "work", "/a/../etc", "/work/\0", "/")
        ),
        *(replace(VAR, mount_from=("data", text)) for text in ("../x", "/x", "", "a//b", "a\0b")),
        *(replace(VAR, publish_to=("data", text)) for text in ("../x/", "a/b", "")),
        *(RunInput("data", "FILE", text) for text in ("../boris/x", "/x", "a//b", "a\\b")),
        *(RunOutput("model", text) for text in ("../boris/", "/x", "a//b/")),
        RunInput("data", "FI/LE", "a"),
        replace(STAGE, command=("a\0b",)),
        replace(STAGE, outputs=("a", "a")),
        replace(STAGE, inputs=("a",), outputs=("a",)),
        *(replace(STAGE, timeout=number) for number in (0.0, -1.0, float("nan"), float("inf"))),
        EnvVar("A", "a\0b"),
        EnvVar("A", "x" * 100_001),
        *(make(Resources, cpus=number) for number in (-1.0, float("nan"), 1e9)),
        *(make(Resources, memory=number) for number in (0, -1)),
        make(Resources, gpus=-1),
        make(Resources, pids=0),
        make(Retries, limit=101),
        make(Retries, backoff=float("inf")),
        Limits(cpus=-1.0),
        make(CronSchedule, "0 3 * * *\n", "UTC"),
        make(CronSchedule, "0 3 * * *", "../../etc/passwd"),
        Webhook("hook", "file:///etc/passwd"),
        replace(PIPELINE, stages=(STAGE, STAGE)),
        replace(PIPELINE, revision="../x"),
        replace(PIPELINE, concurrency=0),
        replace(PIPELINE, ttl_failed=float("nan")),
        AppStatus(AppName("demo"), pins=(("image", "x" * 1001),)),
        Attempt(0, 1.0),
        Attempt(1, 1.0, gpus=("a,b",)),
        StageRun("fit", attempts=(Attempt(2, 1.0),)),
        replace(RUN, app=AppName("other")),
        replace(RUN, stages=()),
        replace(RUN, stages=(StageRun("other"),)),
        replace(RUN, outputs=(RunOutput("unknown", "a/"),)),
        replace(RUN, webhook="http://u:p@h/"),
        replace(RUN, priority=1_000_000),
        replace(RUN, created=float("nan")),
        replace(RUN, user="x" * 2000),
        replace(BOX, capacity=-1),
        PendingUpload(1, BOX.bucket, "k", -1, 1.0, 2.0),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_it_cannot_have_written_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not|the path"):
        require_integrity(value)


def test_a_forged_run_is_not_read() -> None:
    """Whatever part of it leads elsewhere."""
    forged = encode(RUN).replace('"model"', '"../../../../../hostdir"')
    with pytest.raises(ValueError, match="is not the name of a variable"):
        decode(Run, forged)
