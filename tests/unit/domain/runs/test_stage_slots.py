"""Slots of the host for stages: within the host, fair between apps, and never idle while somebody waits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import Limits, Resources
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, cancel, new_run
from controller.domain.runs.stage_slots import WAITING_FOR_SLOT, Share, begin_admitted
from controller.domain.runs.steps import BeginStage, FinishRun, finish, next_step
from tests.support.specs import make

S = RunState
APPS = ("ants", "bees", "cats")


def run(app: str, id: str, stages: int) -> Run:
    """Stages that do not need each other."""
    named = tuple(make(Stage, f"s{n}", "i", resources=make(Resources, gpus=0)) for n in range(stages))
    return new_run(id, make(Pipeline, AppName(app), ComponentName("train"), "c0ffee", named), 0.0)


class Host:
    """What drives do, one after the other."""

    def __init__(self, slots: int, per_app: int) -> None:
        self.share = Share(Limits(), slots, per_app=per_app)
        self.runs: dict[str, Run] = {}

    def submit(self, app: str, stages: int) -> str:
        id = f"r{len(self.runs)}"
        self.runs[id] = run(app, id, stages).to(S.STARTING, 1.0)
        self.look(id)
        return id

    def look(self, id: str) -> None:
        found = self.runs[id]
        match next_step(found, 2.0):
            case BeginStage(stages):
                self.runs[id] = begin_admitted(found, stages, self.share, self.active(), 2.0)
            case FinishRun() as end:
                self.runs[id] = finish(found, end, 2.0)

    def end(self, id: str, stage: str) -> None:
        ended = self.runs[id].stage(stage).end_attempt(3.0).to(S.SUCCEEDED, 3.0)
        self.runs[id] = self.runs[id].with_stage(ended)
        self.look(id)

    def active(self) -> tuple[Run, ...]:
        return tuple(found for found in self.runs.values() if not found.state.terminal)

    def at_work(self) -> list[tuple[str, str]]:
        return [(found.id, stage.name) for found in self.active() for stage in found.stages if stage.active]

    def used(self) -> Counter[str]:
        return Counter(self.runs[id].app for id, _ in self.at_work())

    def waiting(self) -> Counter[str]:
        """Stages by app that a slot is all they lack."""
        return Counter(
            found.app
            for found in self.active()
            if found.state is not S.CANCELING
            for stage in found.stages
            if stage.state is S.QUEUED
        )

    def settle(self) -> None:
        """Everybody has looked since something changed."""
        before: object = None
        while before != self.runs:
            before = dict(self.runs)
            for found in self.active():
                self.look(found.id)


def test_one_app_cannot_have_all() -> None:
    host = Host(slots=4, per_app=10)
    host.submit("ants", 30)
    assert host.used() == {"ants": 3}
    host.submit("bees", 1)
    assert host.used() == {"ants": 3, "bees": 1}
    reasons = {stage.reason for stage in host.runs["r0"].stages if stage.state is S.QUEUED}
    assert reasons == {WAITING_FOR_SLOT}


def test_the_next_free_slot_goes_to_who_has_the_fewest() -> None:
    host = Host(slots=4, per_app=3)
    host.submit("ants", 30)
    host.submit("bees", 30)
    host.submit("cats", 1)
    assert host.used() == {"ants": 3, "bees": 1}
    host.end(*host.at_work()[0])
    host.settle()
    assert host.used() == {"ants": 2, "bees": 1, "cats": 1}


@pytest.mark.parametrize("slots", [1, 2])
def test_a_small_host_serves_everybody_in_turn(slots: int) -> None:
    host = Host(slots, per_app=12)
    for app in APPS:
        host.submit(app, 2)
    order = []
    while at_work := host.at_work():
        order.append(host.runs[at_work[0][0]].app)
        host.end(*at_work[0])
        host.settle()
    assert sorted(order) == sorted(APPS * 2)
    assert host.active() == ()


def test_who_only_tries_a_pipeline_has_the_host() -> None:
    assert Share(Limits(), 4).slots == 4


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_slots_are_shared_fairly(data: st.DataObject) -> None:
    host = Host(data.draw(st.integers(1, 6), label="slots"), data.draw(st.integers(1, 8), label="per app"))
    for _ in range(data.draw(st.integers(1, 25), label="steps")):
        before, was_waiting = host.used(), host.waiting()
        acts = ["submit"] + ["end", "end"] * bool(host.at_work()) + ["cancel"] * bool(host.active())
        match data.draw(st.sampled_from(acts)):
            case "submit":
                host.submit(data.draw(st.sampled_from(APPS)), data.draw(st.integers(1, 6)))
            case "end":
                ended = data.draw(st.sampled_from(host.at_work()))
                before[host.runs[ended[0]].app] -= 1
                host.end(*ended)
                _look_in_any_order(host, data)
                gained = {app for app in APPS if host.used()[app] > before[app]}
                _are_those_with_the_fewest(host, gained, before, was_waiting)
            case "cancel":
                id = data.draw(st.sampled_from([found.id for found in host.active()]))
                host.runs[id] = cancel(host.runs[id], 2.0)
        _look_in_any_order(host, data)
        _holds(host)


def _look_in_any_order(host: Host, data: st.DataObject) -> None:
    ids = data.draw(st.permutations([found.id for found in host.active()]))
    for id in ids:
        host.look(id)
    host.settle()


def _are_those_with_the_fewest(
    host: Host, gained: set[str], before: Counter[str], was_waiting: Counter[str]
) -> None:
    """Nobody who waited and might have had more had fewer than one who gained, and still has."""
    for winner in gained:
        for other in APPS:
            waits = was_waiting[other] and host.waiting()[other] and before[other] < host.share.slots
            assert not waits or host.used()[other] + 1 >= host.used()[winner]


def _holds(host: Host) -> None:
    used, waiting = host.used(), host.waiting()
    assert sum(used.values()) <= host.share.host
    assert all(number <= host.share.slots for number in used.values())
    if host.share.host > 1:
        assert all(number < host.share.host for number in used.values())
    idle = host.share.host - sum(used.values())
    may = [app for app in waiting if used[app] < host.share.slots]
    assert not (idle and may), "a slot is idle while somebody waits"
