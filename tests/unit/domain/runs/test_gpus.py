"""GPUs that are lent: never one to two, never lost, and to those first who asked first."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import Resources, Retries
from controller.domain.errors import Stalled, Waiting
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import (
    WAITING,
    GpuPool,
    GpuRequest,
    Lease,
    allocate,
    begin_with_gpus,
    corrected,
    held,
)
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, StageRun, cancel, new_run
from controller.domain.runs.steps import BeginStage, FinishRun, after_failure, can_begin, finish, next_step
from tests.support.specs import make

S = RunState
HOST = ("0", "GPU-b", "2")


def run(id: str, *wanted: int, retries: int = 0, share: int = 1) -> Run:
    """One stage for each number of GPUs; they do not need each other."""
    stages = tuple(
        make(
            Stage,
            f"s{n}",
            "i",
            resources=make(Resources, gpus=count, gpu_share=share),
            retries=make(Retries, retries, backoff=0.0),
        )
        for n, count in enumerate(wanted)
    )
    return new_run(id, make(Pipeline, AppName("demo"), ComponentName("train"), "c0ffee", stages), 0.0)


class Host:
    """What drives do, one after the other."""

    def __init__(self, *gpus: str) -> None:
        self.gpus = gpus
        self.runs: dict[str, Run] = {}
        self.leases: dict[str, Lease] = {}
        self.requests: tuple[GpuRequest, ...] = ()
        self.lost: dict[str, str] = {}

    @property
    def pool(self) -> GpuPool:
        return GpuPool(self.gpus, tuple(self.leases.values()), self.requests, self.lost)

    def start(self, name: str, wanted: int, component: str = "web", share: int = 1) -> tuple[str, ...]:
        """What the reconciler does for a component. Raises Waiting, Stalled."""
        asked = Lease(name, AppName("demo"), ComponentName(component), share=share)
        lease = allocate(asked, wanted, self.pool, self.active())
        self.leases[name] = lease
        return lease.gpus

    def submit(self, id: str, *wanted: int, retries: int = 0, share: int = 1) -> Run:
        self.runs[id] = run(id, *wanted, retries=retries, share=share).to(S.STARTING, 1.0)
        return self.look(id)

    def look(self, id: str) -> Run:
        found = self.runs[id]
        match next_step(found, 2.0):
            case BeginStage(stages):
                self.runs[id] = begin_with_gpus(found, stages, self.pool, self.active(), 2.0)
            case FinishRun() as end:
                self.runs[id] = finish(found, end, 2.0)
        return self.runs[id]

    def active(self) -> tuple[Run, ...]:
        return tuple(found for found in self.runs.values() if not found.state.terminal)

    def end(self, id: str, stage: str = "s0", well: bool = True) -> None:
        found = self.runs[id]
        before = found.stage(stage)
        if before.state is S.STARTING:
            before = before.to(S.RUNNING, 2.0)
        if found.state is S.CANCELING:
            after = before.end_attempt(3.0).to(S.CANCELED, 3.0)
        elif well:
            after = before.end_attempt(3.0).to(S.SUCCEEDED, 3.0)
        else:
            spec = found.pipeline.stage(stage)
            after = before.end_attempt(3.0, reason=Reason.EXIT_CODE)
            after = after_failure(after, spec, 1.0, Reason.EXIT_CODE, "", platform=False)
        self.runs[id] = found.with_stage(after)

    def gpus_of(self, id: str, stage: str = "s0") -> tuple[str, ...] | None:
        """None while it has no attempt."""
        attempt = self.runs[id].stage(stage).attempt
        return attempt.gpus if attempt else None


def test_the_first_free_ones_are_lent_and_come_back() -> None:
    host = Host(*HOST)
    host.submit("a", 2)
    host.submit("b", 1)
    assert (host.gpus_of("a"), host.gpus_of("b")) == (("0", "GPU-b"), ("2",))
    assert held(host.active()) == set(HOST)
    host.end("a")
    assert held(host.active()) == {"2"}
    host.submit("c", 1)
    assert host.gpus_of("c") == ("0",)


def test_who_waits_says_so_and_is_no_attempt() -> None:
    host = Host("0")
    host.submit("a", 1)
    waiting = host.submit("b", 1).stage("s0")
    assert (waiting.state, waiting.reason) == (S.QUEUED, WAITING)
    assert waiting.message == "waits for 1 GPU; this host lends 1"
    assert waiting.attempts == ()
    assert host.look("b") == host.look("b"), "looking again changes nothing"
    host.end("a")
    begun = host.look("b").stage("s0")
    assert (begun.state, begun.reason, begun.ticket) == (S.STARTING, "", 0)


def test_small_ones_do_not_pass_a_big_one() -> None:
    host = Host(*HOST)
    host.submit("a", 1)
    host.submit("big", 3)
    host.submit("small", 1)
    assert host.gpus_of("small") is None, "two are free, but it is not its turn"
    host.end("a")
    assert host.look("small").stage("s0").attempts == ()
    host.look("big")
    assert host.gpus_of("big") == HOST
    host.end("big")
    host.look("small")
    assert host.gpus_of("small") == ("0",)


def test_who_is_not_in_the_way_of_those_before_goes() -> None:
    host = Host(*HOST)
    host.submit("a", 3)
    host.submit("b", 1)
    host.submit("c", 1)
    host.end("a")
    host.look("c")
    assert host.gpus_of("c") == ("0",), "there is enough for both"
    host.look("b")
    assert host.gpus_of("b") == ("GPU-b",)


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_more_than_the_host_has_fails_at_once(gpus: tuple[str, ...]) -> None:
    host = Host(*gpus)
    failed = host.submit("a", 2)
    assert (failed.stage("s0").state, failed.stage("s0").reason) == (S.FAILED, "NoGpu")
    assert "`runs.gpus`" in failed.stage("s0").message
    over = host.look("a")
    assert (over.state, over.reason, over.stage("s0").attempts) == (S.FAILED, "NoGpu", ())


def test_who_will_never_begin_is_in_nobodys_way() -> None:
    host = Host("0", "1")
    host.submit("a", 1)
    host.submit("canceled", 2)
    host.submit("failed", 2, 0)
    host.end("failed", "s1", well=False)
    host.runs["canceled"] = cancel(host.runs["canceled"], 2.0)
    host.submit("b", 1)
    assert host.gpus_of("b") == ("1",)


def test_a_repetition_goes_to_the_end_of_the_line() -> None:
    host = Host("0")
    host.submit("a", 1, retries=1)
    host.submit("b", 1)
    host.end("a", well=False)
    assert host.look("a").stage("s0").reason == WAITING
    host.look("b")
    assert host.gpus_of("b") == ("0",)


def test_a_host_that_has_fewer_by_now() -> None:
    host = Host("0", "1")
    host.submit("a", 2)
    host.submit("b", 2)
    host.submit("c", 1)
    host.gpus = ("0",)
    assert host.look("b").stage("s0").reason == "NoGpu"
    assert held(host.active()) == {"0", "1"}
    host.end("a")
    host.look("c")
    assert host.gpus_of("c") == ("0",)


# --- whatever happens -------------------------------------------------------------------------------------------


def test_components_and_stages_have_one_pool() -> None:
    host = Host(*HOST)
    assert host.start("web.0", 1) == ("0",)
    host.submit("a", 1)
    assert host.gpus_of("a") == ("GPU-b",)
    assert host.start("web.1", 1) == ("2",)
    assert host.start("web.0", 1) == ("0",), "it has it already"
    assert (
        host.submit("b", 1).stage("s0").message
        == "waits for 1 GPU; this host lends 3, components have 2 of them"
    )
    with pytest.raises(Waiting) as caught:
        host.start("chat.0", 2, "chat")
    assert caught.value.reason == WAITING
    assert caught.value.message == (
        "waits for 2 GPUs; this host lends 3, and components have 2 of them and stages of runs 1"
    )
    del host.leases["web.0"]
    host.look("b")
    assert host.gpus_of("b") == ("0",)


def test_a_stage_that_asks_for_what_components_have_keeps_no_other_waiting() -> None:
    host = Host(*HOST)
    host.start("web.0", 1)
    assert host.submit("big", 3).stage("s0").reason == WAITING
    host.submit("small", 2)
    assert host.gpus_of("small") == ("GPU-b", "2")


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_a_component_that_asks_for_more_than_there_is(gpus: tuple[str, ...]) -> None:
    with pytest.raises(Stalled, match=r"`runs\.gpus`") as caught:
        Host(*gpus).start("web.0", 2)
    assert caught.value.reason == "NoGpu"


def test_a_component_that_waits_for_itself_is_told_what_to_do() -> None:
    host = Host("0", "1")
    host.start("web.old", 2)
    with pytest.raises(Waiting, match="strategy: Recreate"):
        host.start("web.new", 1)
    host.leases["web.old"] = Lease("web.old", AppName("demo"), ComponentName("web"), ("0",))
    assert host.start("web.new", 1) == ("1",)


def test_a_lease_that_clashes_is_replaced() -> None:
    """After a daemon died between lending and making a container, and the GPU was lent again."""
    host = Host("0", "1")
    host.start("web.0", 1)
    host.leases["chat.0"] = Lease("chat.0", AppName("demo"), ComponentName("chat"), ("0",))
    assert host.start("web.0", 1) == ("1",)


def test_stages_that_share_have_the_same_one() -> None:
    host = Host("0", "1")
    for id in "abc":
        host.submit(id, 1, share=2)
    assert [host.gpus_of(id) for id in "abc"] == [("0",), ("0",), ("1",)], "whole ones are kept for others"
    host.submit("whole", 1)
    assert host.gpus_of("whole") is None
    assert host.submit("d", 1, share=2).stage("s0").reason == WAITING, "who shares does not pass who does not"
    host.end("c")
    host.look("whole")
    assert host.gpus_of("whole") == ("1",)


def test_a_stage_that_shares_with_a_component_delays_nobody_and_is_delayed_by_nobody() -> None:
    host = Host("0", "1")
    host.start("web.0", 1, share=2)
    host.submit("a", 1)
    host.submit("whole", 1)
    assert host.gpus_of("whole") is None
    host.submit("sharing", 1, share=2)
    assert host.gpus_of("sharing") == ("0",)


def test_what_a_component_waits_for_goes_to_no_stage_that_begins_later() -> None:
    host = Host("0", "1")
    host.submit("a", 1)
    host.requests = (GpuRequest(ComponentName("web"), 2),)
    waiting = host.submit("b", 1).stage("s0")
    assert waiting.reason == WAITING
    host.end("a")
    host.look("b")
    assert host.gpus_of("b") is None
    assert host.start("web.0", 2) == ("0", "1")
    host.requests = ()
    del host.leases["web.0"]
    host.look("b")
    assert host.gpus_of("b") == ("0",)


def test_a_component_that_waits_for_another_component_delays_no_stage() -> None:
    host = Host("0", "1")
    host.start("web.0", 1)
    host.requests = (GpuRequest(ComponentName("chat"), 2),)
    host.submit("a", 1)
    assert host.gpus_of("a") == ("1",)


@pytest.mark.parametrize("share", [1, 2])
def test_one_that_does_not_work_is_lent_to_nobody_until_it_does(share: int) -> None:
    host = Host("0", "1")
    host.lost = {"0": "GPU is lost"}
    host.submit("a", 1)
    assert host.gpus_of("a") == ("1",)
    waiting = host.submit("b", 2, share=share).stage("s0")
    assert waiting.message == "waits for 2 GPUs; this host lends 2, of which 0 does not work (GPU is lost)"
    with pytest.raises(Waiting, match="GPU is lost"):
        host.start("web.0", 1)
    host.lost = {}
    host.end("a")
    host.look("b")
    assert host.gpus_of("b") == ("0", "1")


APP, WEB = AppName("demo"), ComponentName("web")


def lease(name: str, *gpus: str) -> Lease:
    return Lease(name, APP, WEB, gpus)


@pytest.mark.parametrize(
    ("written", "containers", "starting", "expected"),
    [
        ([], ["old"], [], ["old"]),
        (["old", "gone"], ["old"], [], ["old"]),
        (["old", "new"], ["old"], ["new"], ["new", "old"]),
        (["new"], [], ["new"], ["new"]),
        (["before"], [], ["new"], ["new"]),
        (["before"], [], ["new", "other"], ["new"]),
        (["before"], ["old"], [], ["old"]),
        (["new"], ["new"], ["new"], ["new"]),
    ],
)
def test_leases_are_corrected_by_containers_and_plans(
    written: list[str], containers: list[str], starting: list[str], expected: list[str]
) -> None:
    found = corrected(
        [lease(name, "0") for name in written],
        [lease(name, "0") for name in containers],
        [lease(name) for name in starting],
    )
    assert [each.workload for each in found] == expected
    assert {each.gpus for each in found} <= {("0",)}


def check(host: Host, before: dict[str, Run]) -> None:
    to_components = [gpu for lease in host.leases.values() for gpu in lease.gpus]
    allocated = to_components + [
        gpu
        for found in host.active()
        for stage in found.stages
        for attempt in stage.attempts
        if not attempt.ended
        for gpu in attempt.gpus
    ]
    assert len(allocated) == len(set(allocated)), "two have the same one"
    assert set(allocated) <= set(host.gpus)
    for found in host.active():
        for stage in found.stages:
            if stage.active:
                assert stage.attempt
                assert len(stage.attempt.gpus) == found.pipeline.stage(stage.name).resources.gpus
    for id, older in before.items():
        for was, now in zip(older.stages, host.runs[id].stages, strict=True):
            if was.ticket and now.active:
                waiting = in_line_before(was, host, before, len(host.gpus) - len(to_components))
                assert waiting <= len(host.gpus) - len(allocated), "those before it were passed"


def in_line_before(served: StageRun, host: Host, before: dict[str, Run], left: int) -> int:
    """How many GPUs those wait for who had asked before, and still do, and for no more than components have left."""
    return sum(
        wanted
        for found in host.active()
        if can_begin(found) and found.id in before
        for stage in found.stages
        if 0 < stage.ticket == before[found.id].stage(stage.name).ticket < served.ticket
        and (wanted := found.pipeline.stage(stage.name).resources.gpus) <= left
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_happens_nobody_shares_and_all_are_served(data: st.DataObject) -> None:
    host = Host(*HOST)
    for number in range(data.draw(st.integers(1, 15), label="steps")):
        before = dict(host.runs)
        running = [(r.id, s.name) for r in host.active() for s in r.stages if s.active]
        acts = (
            ["submit", "start"]
            + (["remove"] if host.leases else [])
            + (["look", "cancel"] if host.active() else [])
            + (["end"] if running else [])
        )
        match data.draw(st.sampled_from(acts)):
            case "submit":
                wanted = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
                host.submit(f"r{number}", *wanted, retries=1)
            case "start":
                name = data.draw(st.sampled_from(["web.0", "web.1", "chat.0"]))
                with suppress(Waiting, Stalled):
                    host.start(name, data.draw(st.integers(1, 3)), name.partition(".")[0])
            case "remove":
                del host.leases[data.draw(st.sampled_from(sorted(host.leases)))]
            case "look":
                host.look(data.draw(st.sampled_from([r.id for r in host.active()])))
            case "cancel":
                id = data.draw(st.sampled_from([r.id for r in host.active()]))
                host.runs[id] = cancel(host.runs[id], 2.0)
            case "end":
                host.end(*data.draw(st.sampled_from(running)), well=data.draw(st.booleans()))
        check(host, before)
    host.leases.clear()
    for _ in range(100):  # all that run come to their end, and everybody looks
        for found in host.active():
            for stage in found.stages:
                if stage.active:
                    host.end(found.id, stage.name)
            host.look(found.id)
        check(host, {})
    assert host.active() == ()
    assert held(host.runs.values()) == frozenset()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whoever_shares_whatever_happens_no_holder_shares_with_more_than_it_said(data: st.DataObject) -> None:
    host = Host(*HOST)
    for number in range(data.draw(st.integers(1, 15), label="steps")):
        share = data.draw(st.integers(1, 3), label="share")
        wanted = data.draw(st.integers(1, 3), label="wanted")
        running = [(r.id, s.name) for r in host.active() for s in r.stages if s.active]
        match data.draw(st.sampled_from(["submit", "start", "remove", "end", "look"])):
            case "submit":
                host.submit(f"r{number}", wanted, share=share)
            case "start":
                name = data.draw(st.sampled_from(["web.0", "web.1", "chat.0"]))
                with suppress(Waiting, Stalled):
                    host.start(name, wanted, name.partition(".")[0], share)
            case "remove" if host.leases:
                del host.leases[data.draw(st.sampled_from(sorted(host.leases)))]
            case "end" if running:
                host.end(*data.draw(st.sampled_from(running)))
            case "look" if host.active():
                host.look(data.draw(st.sampled_from([r.id for r in host.active()])))
        check_shares(host)
    host.leases.clear()
    for _ in range(100):
        for found in host.active():
            for stage in found.stages:
                if stage.active:
                    host.end(found.id, stage.name)
            host.look(found.id)
        check_shares(host)
    assert host.active() == (), "all are served"


def check_shares(host: Host) -> None:
    holders: dict[str, list[int]] = {}
    for held_by in host.leases.values():
        for gpu in held_by.gpus:
            holders.setdefault(gpu, []).append(held_by.share)
    for found in host.active():
        for stage in found.stages:
            if stage.attempt and not stage.attempt.ended:
                asked = found.pipeline.stage(stage.name).resources
                assert len(set(stage.attempt.gpus)) == asked.gpus
                for gpu in stage.attempt.gpus:
                    holders.setdefault(gpu, []).append(asked.per_gpu)
    assert holders.keys() <= set(host.gpus)
    assert all(len(shares) <= min(shares) for shares in holders.values()), holders
