"""The queue against a model of its rules, in any order of calls and crashes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from controller.domain.apps.requests import Outcome, RequestState, Trigger
from controller.domain.names import AppName
from tests.support.stores import open_store

apps = st.sampled_from([AppName("a"), AppName("b"), AppName("c")])
reasons = st.sampled_from(["poll", "webhook", "drift", "manual"])
delays = st.sampled_from([0.0, 5.0, 60.0])


class Queue(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "state.db"
        self.store = open_store(self.path, clock=lambda: self.now)
        self.queued: dict[str, tuple[int, list[str], float]] = {}
        self.running: dict[str, int] = {}
        self.fate: dict[int, int] = {}  # id handed out -> id that stands for it
        self.done: dict[int, str] = {}

    @rule(target=ids, app=apps, reason=reasons, delay=delays)
    def enqueue(self, app: AppName, reason: str, delay: float) -> int:
        due = self.now + delay
        request = self.store.requests.enqueue(app, Trigger(reason), due)
        known, told, before = self.queued.get(app, (request, [], due))
        assert request == known
        self.queued[app] = (request, [*told, *([reason] if reason not in told else [])], min(due, before))
        self.fate[request] = request
        return request

    @rule()
    def claim(self) -> None:
        due = {app for app, (_, _, at) in self.queued.items() if at <= self.now and app not in self.running}
        request = self.store.requests.claim(self.now)
        assert (request is None) == (not due)
        if request is None:
            return
        assert request.app in due
        known, told, _ = self.queued.pop(request.app)
        assert (request.id, request.reasons) == (known, tuple(told))
        self.running[request.app] = request.id

    @rule(app=apps, outcome=st.sampled_from(["Ready", "Degraded"]))
    def finish(self, app: AppName, outcome: str) -> None:
        if app in self.running:
            request = self.running.pop(app)
            self.store.requests.finish(request, Outcome(outcome), "", "abc")
            self.done[request] = outcome

    @rule()
    def crash_and_recover(self) -> None:
        self.store.close()
        self.store = open_store(self.path, clock=lambda: self.now)
        assert self.store.requests.recover() == len(self.running)
        for app, dead in self.running.items():
            row = self.store.requests.queued(AppName(app))
            assert row is not None
            if app in self.queued:
                heir, told, due = self.queued[app]
                self.fate = {key: heir if value == dead else value for key, value in self.fate.items()}
                assert set(told) <= set(row.reasons)
                assert row.not_before <= due
            self.queued[app] = (row.id, list(row.reasons), row.not_before)
        self.running = {}

    @rule(seconds=delays)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(request=ids)
    def every_id_is_answered(self, request: int) -> None:
        found = self.store.requests.get(request)
        assert found is not None
        assert found.id == request
        stands_for = self.fate[request]
        if stands_for in self.done:
            assert (found.state, found.outcome) == (RequestState.DONE, self.done[stands_for])
        elif stands_for in self.running.values():
            assert found.state is RequestState.RUNNING
        else:
            assert found.state is RequestState.QUEUED

    @invariant()
    def the_next_moment_is_known(self) -> None:
        waiting = [at for app, (_, _, at) in self.queued.items() if app not in self.running]
        assert self.store.requests.next_due() == min(waiting, default=None)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
