"""A path of an API that is declared before and after a commit is answered at every step, whatever moves and fails.

Components are renamed, swap their paths, hand them over in chains and circles, leave Git, or give a path to a pipeline
and back. Groups of a plan run in any order, their actions interleaved, and any of them may fail for now or for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.apps.desired import DesiredApp, DesiredComponent, DesiredPipeline, Unresolved
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.plan import (
    GOING,
    Action,
    AwaitReady,
    EnsureNetwork,
    Plan,
    StartWorkload,
    subject,
    subject_text,
)
from controller.domain.apps.planner import plan_app
from controller.domain.apps.status import AppStatus, ComponentStatus, Setback
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Service, ServiceKind
from controller.domain.runs.pipeline import Pipeline, Stage
from tests.support.builders import APP, COMMIT, component, fingerprint, observed, route, workload
from tests.support.simulator import World
from tests.support.specs import make

NAMES = ("a", "b", "c")
PATHS = ("x", "y", "z")
PLATFORM = "the platform"
TRAIN = ComponentName("train")
NOW = 1_000_000.0
ROUNDS = 12


@dataclass(frozen=True)
class Commit:
    """Who answers each path, and in which version each component comes."""

    holders: dict[str, str]
    versions: dict[str, str]
    unresolved: frozenset[str] = frozenset()

    def apis(self, name: str) -> tuple[Api, ...]:
        return tuple(api(path) for path, holder in sorted(self.holders.items()) if holder == name)

    @property
    def services(self) -> tuple[Service, ...]:
        return tuple(
            Service(APP, found, ServiceKind.PIPELINE, pipeline=TRAIN) for found in self.apis(PLATFORM)
        )


def api(path: str) -> Api:
    return Api(path, ComponentName(f"{path}-api"), published=True)


def pipeline() -> Pipeline:
    return make(Pipeline, APP, TRAIN, COMMIT, (make(Stage, "fit", "fit:1", outputs=("model",)),))


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    names = sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1)))
    targets = [*names, PLATFORM]
    holders = {path: draw(st.sampled_from(targets)) for path in PATHS if draw(st.integers(0, 4))}
    return Commit(holders, {name: draw(st.sampled_from(["v1", "v2"])) for name in names})


@dataclass
class Play:
    """Rounds of planning and acting, as a pass makes them, until nothing is left to do."""

    old: Commit
    new: Commit
    broken: frozenset[str]  # components whose new version does not become ready
    choose: st.DataObject
    world: World = field(init=False)
    status: AppStatus = field(default_factory=lambda: AppStatus(APP))

    def __post_init__(self) -> None:
        running = {name: workload(name, version) for name, version in self.old.versions.items()}
        routes = [
            route(component(name, self.old.versions[name]), runs, apis=self.old.apis(name))
            for name, runs in running.items()
        ]
        pipelines = (pipeline(),) if self.old.services else ()
        seen = replace(observed(*running.values()), services=self.old.services, pipelines=pipelines)
        images = [component(version=version).pin.deploy for version in ("v1", "v2")]
        self.world = World.of(seen, routes, images)

    def answered(self) -> set[str]:
        alive = {w.endpoint for w in self.world.observed.workloads if w.endpoint}
        paths = {a.path for r in self.world.routes if alive.intersection(r.upstreams) for a in r.apis}
        runnable = {p.name for p in self.world.observed.pipelines}
        return paths | {s.api.path for s in self.world.observed.services if s.pipeline in runnable}

    def leads_to(self, path: str) -> list[str]:
        """Everything that claims the path."""
        found: list[str] = [r.component for r in self.world.routes for a in r.apis if a.path == path]
        return found + [PLATFORM for s in self.world.observed.services if s.api.path == path]

    # --- what the commit makes of it -----------------------------------------------------------------------------

    def desired(self) -> DesiredApp:
        wanted = [c for name in sorted(self.new.versions) if (c := self._component(name))]
        missing = [
            Unresolved(ComponentName(name), Reason.IMAGE_NOT_FOUND, "no such image")
            for name in sorted(self.new.unresolved)
            if name not in {c.spec.name for c in wanted}
        ]
        holders = tuple(
            (path, None if holder == PLATFORM else ComponentName(holder))
            for path, holder in sorted(self.new.holders.items())
        )
        pipelines = (DesiredPipeline(pipeline(), ()),) if self.new.services else ()
        return DesiredApp(
            APP,
            COMMIT,
            tuple(wanted),
            pipelines=pipelines,
            services=self.new.services,
            unresolved=tuple(missing),
            holders=holders,
        )

    def _component(self, name: str) -> DesiredComponent | None:
        """As resolved: the last good version if the new one cannot be had or has failed."""
        made = replace(component(name, self.new.versions[name]), apis=self.new.apis(name))
        memory = self.status.component(ComponentName(name))
        failed = memory is not None and memory.failed_fingerprint in made.fingerprints
        if not failed and name not in self.new.unresolved:
            return made
        if name in self.old.versions:
            older = replace(component(name, self.old.versions[name]), apis=self.old.apis(name))
            return replace(older, failure_reason=Reason.NOT_READY, failure="it does not come up")
        return None if name in self.new.unresolved else made

    # --- acting --------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        return plan_app(
            self.desired(), self.world.observed, self.world.routes, self.status, PlannerPolicy(), NOW
        )

    def run(self) -> None:
        lasting = self.answered() & self.new.holders.keys()
        for _ in range(ROUNDS):
            plan = self.plan()
            if plan.empty:
                return
            first = [g for g in plan.steps if isinstance(g[0], EnsureNetwork)]
            going = [g for g in plan.steps if all(isinstance(a, GOING) for a in g)]
            between = [g for g in plan.steps if g not in first and g not in going]
            for groups in (first, between, going):
                if self._side_by_side([list(g) for g in groups], lasting):
                    break
        raise AssertionError(f"it does not come to rest: {self.plan().render()}")

    def _side_by_side(self, groups: list[list[Action]], lasting: set[str]) -> bool:
        whole = {id(group): tuple(group) for group in groups}
        failed = False
        while groups:
            group = groups[self.choose.draw(st.integers(0, len(groups) - 1))]
            action = group.pop(0)
            if self._fails(action, whole[id(group)]):
                failed = True
                group.clear()
            else:
                self.world = self.world.act(action)
            groups = [group for group in groups if group]
            lost = lasting - self.answered()
            assert not lost, f"{lost} lost after {action}"
        return failed

    def _fails(self, action: Action, group: tuple[Action, ...]) -> bool:
        if isinstance(action, AwaitReady) and self._broken(action):
            memory = ComponentStatus(action.component, "MLComponent", failed_fingerprint=action.fingerprint)
            others = [c for c in self.status.components if c.name != action.component]
            self.status = replace(self.status, components=(*others, memory))
            return True
        if isinstance(action, StartWorkload) and self.choose.draw(st.integers(0, 5)) == 0:
            setback = Setback(subject_text(*subject(group)), Reason.ENGINE_FAILED, "not today", 1, NOW)
            self.status = replace(self.status, setbacks=(*self.status.setbacks, setback))
            return True
        return False

    def _broken(self, action: AwaitReady) -> bool:
        version = self.new.versions.get(action.component, "")
        return action.component in self.broken and fingerprint(version) == action.fingerprint


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commits(), commits(), st.data())
def test_a_path_declared_before_and_after_is_answered_at_every_step(
    old: Commit, new: Commit, data: st.DataObject
) -> None:
    broken = frozenset(data.draw(st.sets(st.sampled_from(sorted(new.versions)))))
    missing = frozenset(data.draw(st.sets(st.sampled_from(sorted(new.versions)), max_size=1)))
    play = Play(old, replace(new, unresolved=missing), broken, data)
    play.run()
    for path in PATHS:
        assert len(play.leads_to(path)) <= 1
    held = broken | missing | {s.subject for s in play.status.setbacks}
    if not held:
        assert {p: play.leads_to(p) for p in new.holders} == {p: [h] for p, h in new.holders.items()}
        assert {r.component for r in play.world.routes} == set(new.versions)
