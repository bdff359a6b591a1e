"""Runs and stages: which state may follow which, what comes next, and that every run comes to one end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import PipelineVar, Retries
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import (
    FOLLOWS,
    AreaKind,
    Run,
    RunInput,
    RunOutput,
    RunState,
    StageRun,
    TransitionRefused,
    cancel,
    continuation,
    is_run_id,
    new_run,
    new_run_id,
    retry_of,
)
from controller.domain.runs.steps import (
    PLATFORM_PAUSES,
    BeginStage,
    FinishRun,
    ReleaseOutputs,
    WaitForStage,
    after_failure,
    begin,
    finish,
    next_step,
    release,
)
from controller.store.codec import decode, encode
from tests.support.specs import make

S = RunState
ID = "0194d2f4a1c00000000"

#: Everything that may follow, written out once more: the table in the code is held to it cell by cell.
ALLOWED = {
    S.QUEUED: {S.STARTING, S.CANCELING, S.SUCCEEDED, S.FAILED, S.ERROR, S.CANCELED},
    S.STARTING: {S.QUEUED, S.RUNNING, S.CANCELING, S.SUCCEEDED, S.FAILED, S.ERROR, S.CANCELED},
    S.RUNNING: {S.QUEUED, S.CANCELING, S.SUCCEEDED, S.FAILED, S.ERROR, S.CANCELED},
    S.CANCELING: {S.SUCCEEDED, S.FAILED, S.ERROR, S.CANCELED},
    S.SUCCEEDED: set(),
    S.FAILED: set(),
    S.ERROR: set(),
    S.CANCELED: set(),
}


def pipeline(*stages: Stage, **rest: object) -> Pipeline:
    stages = stages or (make(Stage, "fit", "image:1"),)
    return make(Pipeline, AppName("demo"), ComponentName("train"), "c0ffee", stages, **rest)


def started(*stages: Stage) -> Run:
    return new_run(ID, pipeline(*stages), at=0.0).to(S.STARTING, 1.0)


CHAIN = (
    make(Stage, "fit", "i", inputs=("data",), outputs=("model",)),
    make(Stage, "report", "i", inputs=("model",), outputs=("page",)),
    make(Stage, "sketch", "i", inputs=("data",), outputs=("plot",)),
)


# --- transitions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", S)
@pytest.mark.parametrize("after", S)
def test_a_state_is_followed_by_what_the_table_says(before: S, after: S) -> None:
    stage, run = StageRun("fit", before), replace(started(), state=before)
    if after in ALLOWED[before]:
        assert stage.to(after, 2.0).state is after
        assert run.to(after, 2.0, Reason("Why"), "because").history[-1].reason == "Why"
        return
    for subject in (stage, run):
        with pytest.raises(TransitionRefused, match=f"{before} is not followed by {after}"):
            subject.to(after, 2.0)


def test_terminal_is_what_nothing_follows() -> None:
    assert {state for state in S if state.terminal} == {S.SUCCEEDED, S.FAILED, S.ERROR, S.CANCELED}
    assert FOLLOWS.keys() == set(S)


def test_every_transition_is_in_the_history() -> None:
    stage = StageRun("fit").begin(1.0).to(S.RUNNING, 2.0).to(S.FAILED, 3.0, Reason.EXIT_CODE, "code 1")
    assert [(step.state, step.at) for step in stage.history] == [
        (S.STARTING, 1.0),
        (S.RUNNING, 2.0),
        (S.FAILED, 3.0),
    ]
    assert (stage.reason, stage.message) == ("ExitCode", "code 1")


def test_the_first_end_of_an_attempt_stays() -> None:
    stage = (
        StageRun("fit")
        .begin(1.0)
        .end_attempt(5.0, exit_code=0)
        .end_attempt(9.0, reason=Reason.OUTPUT_MISSING)
    )
    assert stage.attempt is not None
    assert (stage.attempt.ended, stage.attempt.exit_code, stage.attempt.reason) == (5.0, 0, "OutputMissing")


# --- ids, names, times ------------------------------------------------------------------------------------------


def test_ids_are_in_the_order_of_time() -> None:
    ids = [
        new_run_id(at, random) for at, random in ((1.0, 2**32 - 1), (1.002, 5), (1.7e9, 0), (1.7e9 + 1, 0))
    ]
    assert ids == sorted(ids)
    assert all(is_run_id(id) for id in ids)
    assert new_run_id(1.7e9, 1) != new_run_id(1.7e9, 2)


def test_a_run_is_kept_by_its_outcome() -> None:
    run = started()
    assert run.expires is None
    ttl = {S.SUCCEEDED: 7, S.CANCELED: 7, S.FAILED: 30, S.ERROR: 30}
    assert {state: (run.to(state, 100.0).expires or 0) - 100.0 for state in ttl} == {
        state: days * 86400.0 for state, days in ttl.items()
    }


# --- what comes next --------------------------------------------------------------------------------------------


def end(run: Run, name: str, state: S = S.SUCCEEDED, at: float = 5.0) -> Run:
    return run.with_stage(
        run.stage(name).end_attempt(at, exit_code=0).to(state, at, Reason("Why"), "because")
    )


def names(step: object) -> list[str]:
    assert isinstance(step, BeginStage), step
    return [stage.name for stage in step.stages]


def test_stages_begin_once_their_inputs_are_made_and_side_by_side() -> None:
    run = started(*CHAIN)
    step = next_step(run, 1.0)
    assert names(step) == ["fit", "sketch"]
    assert isinstance(step, BeginStage)
    run = begin(run, step.stages, 1.0)
    assert next_step(run, 2.0) == WaitForStage()
    run = end(run, "fit")
    assert names(next_step(run, 6.0)) == ["report"]
    run = end(begin(run, CHAIN[1:2], 6.0), "report")
    assert next_step(run, 7.0) == WaitForStage(), "the sketch is still at work"
    assert next_step(end(run, "sketch"), 7.0) == FinishRun(S.SUCCEEDED)


def test_after_a_failure_nothing_begins_and_neighbours_come_to_their_end() -> None:
    run = begin(started(*CHAIN), (CHAIN[0], CHAIN[2]), 1.0)
    run = end(run, "fit", S.FAILED)
    assert next_step(run, 6.0) == WaitForStage()
    run = end(run, "sketch")
    assert next_step(run, 6.0) == FinishRun(S.FAILED, Reason("Why"), "stage fit: because")


def test_what_never_began_is_over_with_the_run() -> None:
    run = end(begin(started(*CHAIN), (CHAIN[0], CHAIN[2]), 1.0), "fit", S.ERROR)
    run = end(run, "sketch")
    step = next_step(run, 6.0)
    assert isinstance(step, FinishRun)
    over = finish(run, step, 6.0)
    assert over.state is S.ERROR
    assert over.ended == 6.0
    report = over.stage("report")
    assert (report.state, report.reason) == (S.CANCELED, "NotRun")


def test_a_canceled_run_waits_for_what_runs_and_ends() -> None:
    run = cancel(begin(started(*CHAIN), CHAIN[:1], 1.0), 2.0)
    assert run.state is S.CANCELING
    assert next_step(run, 3.0) == WaitForStage()
    run = end(run, "fit", S.CANCELED)
    step = next_step(run, 6.0)
    assert isinstance(step, FinishRun)
    assert step.state is S.CANCELED


def test_canceled_after_the_last_stage_is_too_late() -> None:
    run = cancel(end(begin(started(), pipeline().stages, 1.0), "fit"), 6.0)
    assert next_step(run, 7.0) == FinishRun(S.SUCCEEDED)


@pytest.mark.parametrize("state", S)
def test_canceled_in_every_state_and_twice(state: S) -> None:
    run = replace(new_run(ID, pipeline(*CHAIN), at=0.0), state=state)
    once = cancel(run, 1.0)
    assert cancel(once, 2.0) is once
    if state.terminal or state is S.CANCELING:
        assert once is run
    else:
        assert once.state is (S.CANCELED if state is S.QUEUED else S.CANCELING)


def test_canceling_is_done_once() -> None:
    queued = new_run(ID, pipeline(*CHAIN), at=0.0)
    over = cancel(queued, 1.0)
    assert over.state is S.CANCELED
    assert {stage.state for stage in over.stages} == {S.CANCELED}
    assert cancel(over, 2.0) is over
    canceling = cancel(started(), 1.0)
    assert cancel(canceling, 2.0) is canceling


# --- what becomes the module's own data -------------------------------------------------------------------------

MODEL, PLOT = (RunOutput(name, f"demo/{name}/", "weights", AreaKind.DEVELOPER) for name in ("model", "plot"))


def releasing() -> Run:
    """With all stages over, an internal output and another one to be released."""
    places = tuple(PipelineVar(o.name, publish_to=(o.box, o.data)) for o in (MODEL, PLOT))
    run = new_run(ID, pipeline(*CHAIN, vars=places), 0.0, outputs=[RunOutput("model", "mine/")])
    run = begin(run.to(S.STARTING, 1.0), CHAIN, 1.0)
    for stage in CHAIN:
        run = end(run, stage.name)
    return run


def test_outputs_are_released_once_all_stages_have_succeeded_and_before_the_run_has() -> None:
    run = releasing()
    unfinished = run.with_stage(replace(run.stage("report"), state=S.RUNNING))
    assert next_step(unfinished, 6.0) == WaitForStage()
    bad = run.with_stage(replace(run.stage("report"), state=S.FAILED))
    assert isinstance(next_step(bad, 6.0), FinishRun)
    assert next_step(run, 6.0) == ReleaseOutputs((MODEL, PLOT))
    run = release(replace(run, reason=Reason.STORAGE_UNREACHABLE, message="not yet"), MODEL)
    assert (run.reason, run.message) == ("", "")
    assert next_step(run, 6.0) == ReleaseOutputs((PLOT,))
    assert next_step(release(run, PLOT), 6.0) == FinishRun(S.SUCCEEDED)


def test_canceled_after_the_last_stage_is_too_late_for_releases_too() -> None:
    run = cancel(releasing(), 6.0)
    assert run.state is S.CANCELING
    assert next_step(run, 7.0) == ReleaseOutputs((MODEL, PLOT))


def test_what_is_released_is_not_the_callers() -> None:
    run = releasing()
    assert run.pipeline.offered == ("page",)
    page = RunOutput("page", f"runs/{ID}/page/")
    assert run.handed_out == (page,), "whatever he has asked for"
    assert run.published == (MODEL, page, PLOT)
    after = pipeline(make(Stage, "next", "i", inputs=("model", "page")))
    assert [given.name for given in continuation(run, after, "b", 9.0).inputs] == ["page"]


def test_a_repetition_releases_what_it_takes_over() -> None:
    run = finish(release(releasing(), MODEL), FinishRun(S.FAILED, Reason.STORAGE_FULL), 6.0)
    again = retry_of(run, "b", 10.0).to(S.STARTING, 11.0)
    assert {stage.state for stage in again.stages} == {S.SUCCEEDED}
    assert next_step(again, 11.0) == ReleaseOutputs((MODEL, PLOT))


def test_an_internal_output_is_published_if_the_caller_asks() -> None:
    run = replace(started(*CHAIN), outputs=(RunOutput("model", "models/"),))
    assert [(o.name, o.data) for o in run.handed_out] == [
        ("model", "models/"),
        ("page", f"runs/{ID}/page/"),
        ("plot", f"runs/{ID}/plot/"),
    ]


def test_why_a_run_was_canceled_is_said_at_its_end() -> None:
    canceling = cancel(started(), 1.0, why="replaced")
    assert next_step(canceling, 2.0) == FinishRun(S.CANCELED, Reason.CANCELED, "replaced")
    assert cancel(new_run(ID, pipeline(), 0.0), 1.0, why="replaced").message == "replaced before it began"


def test_runs_of_nobody_stay_so() -> None:
    run = new_run(ID, pipeline(continue_with=ComponentName("train")), 0.0, cause="schedule", public=True)
    assert run.is_visible_to("anna")
    assert run.is_visible_to("")
    assert run.area is AreaKind.DEVELOPER
    assert retry_of(run, ID, 1.0).public
    assert continuation(run, pipeline(), ID, 1.0).public
    own = new_run(ID, pipeline(), 0.0, "anna")
    assert [own.is_visible_to(user) for user in ("anna", "boris", "")] == [True, False, False]
    assert not retry_of(own, ID, 1.0).public


# --- failures ---------------------------------------------------------------------------------------------------


def failed(stage: StageRun, spec: Stage, at: float, platform: bool = False, final: bool = False) -> StageRun:
    ended = stage.begin(at).end_attempt(at, reason="Why", message="because", platform=platform)
    return after_failure(ended, spec, at, Reason("Why"), "because", platform=platform, final=final)


def test_no_repetitions_unless_the_manifest_says_so() -> None:
    assert failed(StageRun("fit"), make(Stage, "fit", "i"), 1.0).state is S.FAILED


def test_repetitions_wait_longer_and_longer_up_to_the_cap() -> None:
    spec = make(Stage, "fit", "i", retries=Retries(limit=5, backoff=10.0, factor=3.0, cap=100.0))
    stage, pauses = StageRun("fit"), []
    for _ in range(5):
        stage = failed(stage, spec, 50.0)
        assert stage.state is S.QUEUED
        pauses.append(stage.not_before - 50.0)
    assert pauses == [10.0, 30.0, 90.0, 100.0, 100.0]
    stage = failed(stage, spec, 50.0)
    assert stage.state is S.FAILED
    assert [a.number for a in stage.attempts] == [1, 2, 3, 4, 5, 6]


def test_faults_of_the_platform_count_apart() -> None:
    spec = make(Stage, "fit", "i", retries=make(Retries, limit=1, backoff=1.0))
    stage, pauses = StageRun("fit"), []
    for _ in PLATFORM_PAUSES:
        stage = failed(stage, spec, 10.0, platform=True)
        pauses.append(stage.not_before - 10.0)
    assert tuple(pauses) == PLATFORM_PAUSES
    stage = failed(stage, spec, 10.0)
    assert stage.state is S.QUEUED, "the first failure of the code itself"
    assert failed(stage, spec, 10.0, platform=True).state is S.ERROR
    assert failed(stage, spec, 10.0).state is S.FAILED


@pytest.mark.parametrize(("platform", "state"), [(False, S.FAILED), (True, S.ERROR)])
def test_what_cannot_get_better_is_not_repeated(platform: bool, state: S) -> None:
    spec = make(Stage, "fit", "i", retries=make(Retries, limit=9))
    assert failed(StageRun("fit"), spec, 1.0, platform, final=True).state is state


def test_a_repetition_waits_for_its_time() -> None:
    spec = make(Stage, "fit", "i", retries=make(Retries, limit=1, backoff=10.0))
    run = started(spec)
    run = run.with_stage(failed(run.stage("fit"), spec, 100.0))
    assert next_step(run, 109.0) == WaitForStage(until=110.0)
    assert names(next_step(run, 110.0)) == ["fit"]
    assert names(next_step(run, 50.0)) == ["fit"], (
        "the clock was set back: nobody waits for it to come round again"
    )


# --- repetition and continuation --------------------------------------------------------------------------------


def test_a_repetition_takes_over_what_succeeded() -> None:
    run = end(begin(started(*CHAIN), (CHAIN[0], CHAIN[2]), 1.0), "fit")
    run = finish(end(run, "sketch", S.FAILED), FinishRun(S.FAILED), 6.0)
    again = retry_of(run, "b", 10.0)
    assert (again.origin, again.cause) == (ID, "retry")
    assert again.stage("fit").reused_from == ID
    assert names(next_step(again.to(S.STARTING, 11.0), 11.0)) == ["report", "sketch"]
    assert retry_of(again, "c", 20.0).stage("fit").reused_from == ID, "where it was really made"


def test_outputs_are_where_the_run_put_them_that_made_them() -> None:
    run = replace(started(*CHAIN), outputs=(RunOutput("page", "results/", "other"),))
    assert [(o.name, o.data, o.box) for o in run.published] == [
        ("page", "results/", "other"),
        ("plot", f"runs/{ID}/plot/", ""),
    ]
    run = end(begin(run, (CHAIN[0], CHAIN[2]), 1.0), "sketch")
    again = retry_of(finish(end(run, "fit", S.FAILED), FinishRun(S.FAILED), 6.0), "b", 10.0)
    assert {o.name: o.data for o in again.published}["plot"] == f"runs/{ID}/plot/"


def test_the_next_pipeline_is_handed_what_has_the_same_name() -> None:
    after = make(
        Pipeline,
        AppName("demo"),
        ComponentName("publish"),
        "c0ffee",
        (make(Stage, "push", "i", inputs=("plot", "data", "extra", "model", "weights"), outputs=("log",)),),
        vars=(PipelineVar("weights", mount_from=("box", "w/")),),
    )
    run = new_run(
        ID,
        pipeline(*CHAIN),
        0.0,
        "anna",
        [RunInput("data", data="g/in.csv"), RunInput("depth", "INT32", "3")],
        priority=4,
        pass_identity=True,
    )
    found = continuation(run, after, "b", 9.0)
    assert found.inputs == (
        RunInput("data", data="g/in.csv"),
        RunInput("plot", data=f"runs/{ID}/plot/"),
    ), "internal variables are not published, and stay behind"
    assert (found.user, found.priority, found.cause, found.origin) == ("anna", 4, "continue", ID)
    assert found.pass_identity


@pytest.mark.parametrize("before", [(), ("a",), ("b",), ("a", "b")], ids=str)
@pytest.mark.parametrize("after", [(), ("a",), ("b",), ("b", "a")], ids=str)
@pytest.mark.parametrize("named", ["", "a", "c"])
def test_what_is_handed_on_lies_where_it_was_put(
    before: tuple[str, ...], after: tuple[str, ...], named: str
) -> None:
    """Both pipelines may have another default box."""
    first = replace(pipeline(*CHAIN), boxes=tuple(map(ComponentName, before)))
    then = replace(
        pipeline(make(Stage, "show", "sha256:1", inputs=("data", "plot"))),
        boxes=tuple(map(ComponentName, after)),
    )
    run = new_run(
        ID, first, 0.0, "anna", [RunInput("data", data="g/x", box=named)], [RunOutput("plot", "p/", named)]
    )
    place = named or next(iter(before), "")
    for found in continuation(run, then, "b", 9.0).inputs:
        assert (found.box or next(iter(after), "")) == place or not place


# --- whatever happens, in whatever order ------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """How an attempt ends."""

    kind: str  # ok | failed | platform | final


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Each stage takes in what some of the earlier ones make, in any order of the manifest."""
    stages = []
    for number in range(draw(st.integers(1, 5))):
        needs = draw(st.sets(st.integers(0, number - 1))) if number else set()
        retries = make(Retries, limit=draw(st.integers(0, 2)), backoff=draw(st.sampled_from([0.0, 5.0])))
        inputs = tuple(f"v{need}" for need in sorted(needs))
        stages.append(make(Stage, f"s{number}", "i", inputs=inputs, outputs=(f"v{number}",), retries=retries))
    released = draw(st.sets(st.integers(0, len(stages) - 1)))
    places = tuple(PipelineVar(f"v{number}", publish_to=("box", f"{number}/")) for number in released)
    return pipeline(*draw(st.permutations(stages)), vars=places)


class World:
    """One run, driven as the runner does it; the checks are made with every step."""

    def __init__(self, of: Pipeline) -> None:
        self.now = 1.0
        self.run = new_run(ID, of, 0.0).to(S.STARTING, self.now)
        self.ends = 0
        self.refused = False

    def step(self, refuse: bool = False) -> None:
        """`refuse`: the box takes nothing."""
        step = next_step(self.run, self.now)
        if isinstance(step, BeginStage):
            for stage in step.stages:
                assert self._made(stage), f"{stage.name} begins before its inputs are made"
                before = self.run.stage(stage.name)
                assert all(a.ended for a in before.attempts), "two attempts of one stage at once"
            assert self.run.state is not S.CANCELING
            self.run = begin(self.run, step.stages, self.now)
        elif isinstance(step, ReleaseOutputs):
            assert all(stage.state is S.SUCCEEDED for stage in self.run.stages)
            assert step.outputs[0].name not in self.run.released
            self._release(step.outputs[0], refuse)
        elif isinstance(step, FinishRun):
            assert not any(stage.active for stage in self.run.stages)
            self.run = finish(self.run, step, self.now)
            self.ends += 1

    def _release(self, output: RunOutput, refuse: bool) -> None:
        if refuse:
            self.run = finish(self.run, FinishRun(S.FAILED, Reason.STORAGE_FULL), self.now)
            self.refused = True
            self.ends += 1
        else:
            self.run = release(self.run, output)

    def _made(self, stage: Stage) -> bool:
        makers = self.run.pipeline.needs(stage)
        return all(self.run.stage(name).state is S.SUCCEEDED for name in makers)

    @property
    def active(self) -> list[StageRun]:
        return [stage for stage in self.run.stages if stage.active]

    def end(self, stage: StageRun, kind: str) -> None:
        if kind == "ok":
            ended = stage.end_attempt(self.now, exit_code=0).to(S.SUCCEEDED, self.now)
        elif self.run.state is S.CANCELING:
            ended = stage.end_attempt(self.now, reason=Reason.CANCELED).to(S.CANCELED, self.now)
        else:
            platform = kind == "platform"
            over = stage.end_attempt(self.now, reason="Why", platform=platform)
            spec = self.run.pipeline.stage(stage.name)
            ended = after_failure(
                over, spec, self.now, Reason("Why"), "", platform=platform, final=kind == "final"
            )
        self.run = self.run.with_stage(ended)

    def crash(self) -> None:
        """All that a new daemon knows is what was written down."""
        self.run = decode(Run, encode(self.run))

    def check(self) -> None:
        for stage in self.run.stages:
            assert sum(not a.ended for a in stage.attempts) == int(stage.active)
            assert [a.number for a in stage.attempts] == list(range(1, len(stage.attempts) + 1))
        assert self.ends == int(self.run.state.terminal)


EVENTS = st.lists(
    st.sampled_from(["step", "refuse", "ok", "failed", "platform", "final", "crash", "cancel", "later"]),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(pipelines(), EVENTS, st.randoms(use_true_random=False))
def test_every_run_comes_to_one_end(of: Pipeline, events: list[str], random: object) -> None:
    world = World(of)
    for event in events:
        if world.run.state.terminal:
            break
        if event in ("step", "refuse"):
            world.step(refuse=event == "refuse")
        elif event == "crash":
            world.crash()
        elif event == "cancel":
            world.run = cancel(world.run, world.now)
        elif event == "later":
            world.now += 7.0
        elif world.active:
            world.end(random.choice(world.active), event)  # type: ignore[attr-defined]
        world.check()
    for _ in range(200):  # from here on nothing goes wrong any more: it ends
        if world.run.state.terminal:
            break
        world.step()
        for stage in world.active:
            world.end(stage, "ok")
        world.now += 100.0
        world.check()
    assert world.run.state.terminal
    succeeded = all(stage.state is S.SUCCEEDED for stage in world.run.stages)
    assert (world.run.state is S.SUCCEEDED) == (succeeded and not world.refused)
    assert succeeded or not world.run.released
    assert world.run.state is not S.SUCCEEDED or sorted(world.run.released) == list(of.releases)
    assert all(stage.state.terminal for stage in world.run.stages)
