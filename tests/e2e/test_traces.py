"""Traces of the whole platform: a push, a call with a file, and a run, as a receiver of OTLP gets them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from controller.domain.traces import read_context
from tests.support.engines import BASE_IMAGE
from tests.support.otlp import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.platform import JSON, Module, Platform

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SIZE = '''
import os


def predict(inputs, context):
    """Say what the call belongs to, and the size of its file.

    :param inputs.file: anything
    :type inputs.file: FILE
    :param outputs.trace: of the call
    :type outputs.trace: str
    :param outputs.size: in bytes
    :type outputs.size: INT32
    """
    return {"trace": context.traceparent, "size": os.path.getsize(inputs[0]["data"])}
'''
TELL = 'import os; open(os.environ["UNIP_PIPELINE_OUT"] + "/trace", "w").write(os.environ["TRACEPARENT"])'


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as made:
        yield made


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> Iterator[Platform]:
    tracing = {"endpoint": receiver.url, "trustCallers": "all"}
    running = Platform(tmp_path_factory.mktemp("platform"), tracing=tracing)
    try:
        yield running.start()
    finally:
        running.stop()


def declared(module: Module) -> str:
    module.box("data").files_api()
    module.served(SIZE, connectedBoxes=[{"name": "data", "default": True}])
    module.pipeline(
        connectedBoxes=[{"name": "data", "default": True}],
        vars=[{"name": "out"}],
        stages=[
            {
                "name": "tell",
                "image": {"existingImageName": BASE_IMAGE},
                "command": ["python3", "-c", TELL],
                "outputs": [{"name": "out"}],
            }
        ],
    )
    module.runs_api(apiSpec={"outputs": [{"name": "out"}]})
    return module.push()


def only(spans: list[ReceivedSpan], trace: str = TRACE) -> ReceivedSpan:
    (found,) = [span for span in spans if span.trace == trace]
    return found


def test_a_push_a_call_and_a_run_are_traced(
    platform: Platform, module: Module, app: str, receiver: OtlpReceiver
) -> None:
    revision = declared(module)
    platform.connect(module, app)
    platform.until_ready(app, revision)
    assert platform.put_file(app, "data/group/a.txt", b"12345").status == 200

    asked = [{"name": "file", "datatype": "FILE", "data": "group/a.txt"}]
    reply = platform.predict(app, asked, headers=PARENT)
    assert reply.status == 200, reply.body
    told = {output["name"]: output["data"] for output in reply.json["outputs"]}

    body = json.dumps({"outputs": {"out": "told"}}).encode()
    submitted = {**JSON, **PARENT, "Prefer": "respond-async, wait=60"}
    run = platform.request("POST", f"/{app}/train/runs", body, submitted).json
    assert run["state"] == "SUCCEEDED", run
    stage = platform.get_file(app, "data/told/trace").body.decode()

    # A span is sent when it has ended, and each process sends its own, so that the outermost ones are the last to come.
    outermost = (
        "run train",
        "GET /{bucket}/{key}",
        f"POST /{app}/api/predict",
        f"POST /{app}/train/{{path}}",
    )
    platform.until(lambda: all(receiver.named(name) for name in outermost))
    platform.until(lambda: any(s.attributes.get("prichal.outcome") == "Ready" for s in receiver.spans))
    assert_call(app, receiver, told)
    assert_run(app, receiver, stage)
    assert_pass(app, receiver, revision)
    assert {span.service for span in receiver.spans} == {"prichal-daemon", "prichal-web"}


def assert_call(app: str, receiver: OtlpReceiver, told: dict[str, object]) -> None:
    """Gateway, storage and component, down to the function."""
    server = only(receiver.named(f"POST /{app}/api/predict"))
    assert (server.kind, server.parent, told["size"]) == ("SERVER", SPAN, [5])
    assert {"POST", "GET /{bucket}/{key}"} <= receiver.children(server)
    seen = read_context(str(told["trace"]))
    assert seen is not None
    client = next(span for span in receiver.spans if span.id == seen.span)
    assert (client.trace, client.parent, client.attributes["prichal.app"]) == (TRACE, server.id, app)


def assert_run(app: str, receiver: OtlpReceiver, told: str) -> None:
    """The request, the run, and the attempt that the command of the stage knows of."""
    server = only(receiver.named(f"POST /{app}/train/{{path}}"))
    whole, stage = only(receiver.named("run train")), only(receiver.named("stage tell"))
    assert (whole.service, whole.parent, stage.parent) == ("prichal-daemon", server.id, whole.id)
    seen = read_context(told)
    assert seen is not None
    assert (seen.trace, seen.span, seen.sampled) == (TRACE, stage.id, True)


def assert_pass(app: str, receiver: OtlpReceiver, revision: str) -> None:
    build = next(span for span in receiver.named("build image"))
    whole = next(span for span in receiver.named("reconcile") if span.id == build.parent)
    assert whole.attributes["prichal.app"] == app
    assert whole.attributes["vcs.ref.head.revision"] == revision
    assert {"fetch", "read manifests", "observe", "plan", "build image", "start workload", "await ready"} <= (
        receiver.children(whole)
    )
