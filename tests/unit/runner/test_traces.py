"""Spans of runs, and what commands get of the trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.domain.runs.run import RunState
from controller.domain.traces import TraceContext, context_of_text, read_context, text_of
from controller.ports import Job
from tests.support.tracing import KeptSpans
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Command, Harness, pipeline, stage

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "a=1")


@pytest.fixture
def tracer() -> KeptSpans:
    return KeptSpans()


def watch(harness: Harness, code: int | None = 0) -> list[Job]:
    """Return a list that gets the containers that are started."""
    started: list[Job] = []
    for name in ("fit", "report"):
        harness.commands[name] = Command(code=code, act=started.append)
    return started


def contexts(started: list[Job]) -> dict[str, TraceContext | None]:
    """Return what the commands got, by stage."""
    found = {}
    for job in started:
        env = {name: value.reveal() for name, value in job.env}
        parent = env.get("TRACEPARENT", "")
        found[job.stage] = read_context(parent, env.get("TRACESTATE", ""))
        assert ("TRACESTATE" in env) == bool(found[job.stage] and found[job.stage].state)  # type: ignore[union-attr]
    return found


def test_a_run_is_one_trace_below_its_caller(harness: Harness, tracer: KeptSpans) -> None:
    started = watch(harness)
    harness.restart(tracer=tracer)
    run = harness.finish(pipeline(stage("fit"), stage("report")), trace=text_of(CALLER))
    (whole,) = tracer.named("run train")
    assert whole.start.parent == CALLER
    assert (whole.start.at, whole.at) == (run.created, run.history[-1].at)
    assert whole.attributes["cicd.pipeline.result"] == "success"
    assert sorted(tracer.children(whole)) == ["stage fit", "stage report"]
    given = contexts(started)
    for name in ("fit", "report"):
        (span,) = tracer.named(f"stage {name}")
        assert span.context == given[name]
        assert span.context is not None
        assert (span.context.trace, span.context.state) == (CALLER.trace, "a=1")
        assert span.attributes["process.exit.code"] == 0
    assert all(span.ended and not span.failure for span in tracer.spans)


def test_a_failure_and_its_repetition_are_two_spans(harness: Harness, tracer: KeptSpans) -> None:
    harness.restart(tracer=tracer)
    harness.commands["fit"] = Command(code=3)
    run = harness.finish(pipeline(stage("fit")))
    assert run.state is RunState.FAILED
    (span,), (whole,) = tracer.named("stage fit"), tracer.named("run train")
    assert (span.failure, span.attributes["process.exit.code"]) == ("ExitCode", 3)
    assert whole.failure
    assert whole.attributes["cicd.pipeline.result"] == "failure"


def test_another_daemon_continues_the_trace(harness: Harness, tracer: KeptSpans) -> None:
    started = watch(harness, code=None)  # it runs until the test ends it
    harness.restart(tracer=tracer)
    id = harness.submit(pipeline(stage("fit")))
    harness.until_stage(id, "fit", RunState.RUNNING)
    later = KeptSpans()
    harness.restart(tracer=later)
    harness.jobs.exit(harness.container().id)
    harness.until(id)
    harness.stop()
    assert tracer.spans == []
    (span,), (whole,) = later.named("stage fit"), later.named("run train")
    assert span.context == contexts(started)["fit"]
    assert span.start.parent == whole.context


def test_the_next_run_is_below_the_one_before(harness: Harness, tracer: KeptSpans) -> None:
    harness.restart(tracer=tracer)
    after = pipeline(stage("ship"), name="publish")
    first = pipeline(stage("fit"), continue_with=after.name)
    harness.store.runs.publish(first.app, (first, after))
    harness.finish(first)
    wait_for(lambda: tracer.named("run publish"))
    (before,), (whole,) = tracer.named("run train"), tracer.named("run publish")
    assert whole.start.parent == before.context


@pytest.mark.parametrize("trace", ["", text_of(CALLER)])
def test_without_traces_the_caller_is_passed_on(tmp_path: Path, trace: str) -> None:
    harness = Harness(tmp_path / "state")
    started = watch(harness)
    with harness.running():
        harness.finish(pipeline(stage("fit")), trace=trace)
    assert contexts(started) == {"fit": context_of_text(trace)}
    harness.close()
