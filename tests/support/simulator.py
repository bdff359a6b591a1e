"""Simulates the effects of plans without an engine: what each action needs and changes. Pure, but it asserts:
an action that no engine could carry out, or that would lose a request, fails the test."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from controller.domain.apps.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.apps.plan import (
    Action,
    AwaitReady,
    BuildImageAction,
    DrainWorkload,
    EnsureNetwork,
    PublishPipelines,
    PublishServices,
    PullImage,
    RemoveNetwork,
    RemoveWorkload,
    StageModel,
    StartWorkload,
    SwitchRoute,
    WithdrawRoute,
)
from controller.domain.names import AppName
from controller.domain.routing.routes import Route


@dataclass(frozen=True)
class World:
    """`ready`: endpoints that answered once; `drained`: endpoints without requests under way; `images` and `models`
    (by digest): those that are there, a plan may have brought them; `starts` counts them, so that no address is given
    twice."""

    observed: ObservedApp
    routes: tuple[Route, ...] = ()
    ready: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    starts: int = 0

    @classmethod
    def of(
        cls,
        observed: ObservedApp,
        routes: Iterable[Route],
        images: Iterable[str] = (),
        models: Iterable[str] = (),
    ) -> World:
        routes = tuple(routes)
        in_use = frozenset(upstream for route in routes for upstream in route.upstreams)
        return cls(observed, routes, ready=in_use, images=frozenset(images), models=frozenset(models))

    @property
    def app(self) -> AppName:
        return self.observed.app

    def running(self, name: str, fingerprint: str) -> list[ObservedWorkload]:
        return [
            w
            for w in self.observed.workloads
            if (w.component, w.fingerprint) == (name, fingerprint) and w.endpoint
        ]

    def live_upstreams(self, name: str) -> set[str]:
        """Of the component's route: those behind which something runs."""
        alive = {w.endpoint for w in self.observed.workloads if w.endpoint}
        return {u for r in self.routes if r.component == name for u in r.upstreams if u in alive}

    def after(self, actions: Iterable[Action]) -> World:
        world = self
        for action in actions:
            world = world.act(action)
        return world

    def act(self, action: Action) -> World:
        match action:
            case EnsureNetwork() | RemoveNetwork():
                return self._with_network(isinstance(action, EnsureNetwork))
            case PullImage(reference=image) | BuildImageAction(tag=image):
                return replace(self, images=self.images | {image})
            case StageModel(model=model):
                return replace(self, models=self.models | {model.digest})
            case StartWorkload():
                return self._start(action)
            case AwaitReady(names=names):
                endpoints = [self._named(name).endpoint for name in names]
                assert all(endpoints), f"{names} cannot become ready: not all of them run"
                return replace(self, ready=self.ready | {e for e in endpoints if e})
            case SwitchRoute():
                return self._switch(action)
            case WithdrawRoute(component=name):
                return replace(self, routes=tuple(r for r in self.routes if r.component != name))
            case DrainWorkload(endpoint=endpoint):
                in_use = {u for r in self.routes for u in r.upstreams}
                assert endpoint not in in_use, f"{endpoint} cannot be drained: traffic still goes there"
                return replace(self, drained=self.drained | {endpoint})
            case RemoveWorkload():
                return self._remove(action)
            case PublishServices():
                return self._publish(action)
            case PublishPipelines(pipelines=pipelines):
                return replace(self, observed=replace(self.observed, pipelines=pipelines))
            case _:  # boxes: tests/unit/domain/storage/test_planner.py has a world of its own for them
                return self

    # --- one action each ---------------------------------------------------------------------------------------

    def _with_network(self, there: bool) -> World:
        assert there or not self.observed.workloads, "a network in use cannot be removed"
        return replace(self, observed=replace(self.observed, network=there))

    def _start(self, action: StartWorkload) -> World:
        assert self.observed.network, "no network to start in"
        wanted = action.workload
        assert wanted.image in self.images, f"image {wanted.image} is not on the host"
        assert not wanted.model or wanted.model.volume.path[-1] in self.models, f"{wanted.model} is not here"
        number = self.starts + 1
        found = next((w for w in self.observed.workloads if w.name == action.name), None)
        assert found is None or found.state in (WorkloadState.CREATED, WorkloadState.PENDING), (
            f"the name {action.name} is taken"
        )
        started = ObservedWorkload(
            id=found.id if found else f"started-{number}",
            name=action.name,
            component=wanted.component,
            fingerprint=wanted.fingerprint,
            revision=wanted.revision,
            replica=wanted.replica,
            port=wanted.spec.port,
            state=WorkloadState.RUNNING,
            address=f"started-ip-{number}",
        )
        others = [w for w in self.observed.workloads if w is not found]
        return replace(self, observed=self._of([*others, started]), starts=number)

    def _switch(self, action: SwitchRoute) -> World:
        upstreams = tuple(e for name in action.names if (e := self._named(name).endpoint))
        assert len(upstreams) == len(action.names), f"{action.names}: traffic would go to nothing"
        assert self.ready.issuperset(upstreams), f"{action.names}: traffic would go to what is not ready"
        route = replace(action.route, upstreams=upstreams)
        before = next((r for r in self.routes if r.component == route.component), None)
        still = {api.path for api in before.apis} if before else set()
        route = _without(route, action.keeps - still)
        others = [
            _without(r, {api.path for api in route.apis} - action.keeps)
            for r in self.routes
            if r.component != route.component
        ]
        left = tuple(s for s in self.observed.services if s.api.path not in action.takes)
        return replace(
            self,
            routes=tuple(sorted([*others, route], key=lambda r: r.component)),
            observed=replace(self.observed, services=left),
        )

    def _publish(self, action: PublishServices) -> World:
        still = {service.api.path for service in self.observed.services}
        made = tuple(s for s in action.services if s.api.path in still | action.takes)
        return replace(
            self,
            routes=tuple(_without(r, action.takes) for r in self.routes),
            observed=replace(self.observed, services=made),
        )

    def _remove(self, action: RemoveWorkload) -> World:
        gone = next((w for w in self.observed.workloads if w.id == action.id), None)
        assert gone is not None, f"{action.name} is not in the snapshot"
        assert gone.name == action.name
        in_use = {u for r in self.routes for u in r.upstreams}
        assert gone.endpoint is None or gone.endpoint not in in_use, f"{action.name} is serving"
        served = gone.endpoint is not None and gone.endpoint in self.ready
        assert not served or gone.endpoint in self.drained, f"{action.name} was not drained"
        return replace(self, observed=self._of(w for w in self.observed.workloads if w.id != action.id))

    def _named(self, name: str) -> ObservedWorkload:
        found = [w for w in self.observed.workloads if w.name == name]
        assert found, f"{name} is not there"
        return found[0]

    def _of(self, workloads: Iterable[ObservedWorkload]) -> ObservedApp:
        return replace(self.observed, workloads=tuple(sorted(workloads, key=lambda w: w.name)))


def _without(route: Route, paths: Set[str]) -> Route:
    return replace(route, apis=tuple(api for api in route.apis if api.path not in paths))
