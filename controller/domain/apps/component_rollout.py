"""The rollout of one component that is declared: its containers are started, made ready, put into service and retired.
Pure; part of the planner, whose safety rules hold here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.domain.apps.desired import BuildInput, DesiredApp, DesiredComponent, ModelMount, Workload
from controller.domain.apps.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.apps.pauses import PlannerPolicy, hold_setback, pause_left
from controller.domain.apps.plan import (
    Action,
    AwaitReady,
    BuildImageAction,
    EnsureAccount,
    Hold,
    PullImage,
    RemoveWorkload,
    RunSmokeTest,
    StageModel,
    StartWorkload,
    SwitchRoute,
)
from controller.domain.apps.pruning import drain_and_remove
from controller.domain.apps.spec import ComponentKind, MLComponentSpec, OwnServer, PlatformServer, Strategy
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName, short, workload_name
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Route
from controller.domain.units import render_duration

#: Seconds that the gateway waits longer than the serving library, which can give a better answer.
GATEWAY_MARGIN = 2.0
_NOT_BEGUN = (WorkloadState.CREATED, WorkloadState.PENDING)


@dataclass(frozen=True)
class ComponentRollout:
    """The rules for one component that is declared."""

    app: DesiredApp
    component: DesiredComponent
    observed: ObservedApp
    route: Route | None
    status: AppStatus
    policy: PlannerPolicy
    now: float

    def plan(self) -> tuple[tuple[Action, ...], list[Hold]]:
        """Apply the first matching rule; rules that forbid an action come before those that ask for it."""
        component_status = self.status.component(self.name) or ComponentStatus(self.name, "MLComponent")
        if self.component.failure:
            actions, holds = self._converge(component_status)
            return actions, [Hold(self.name, Reason.FAILED, self.component.failure), *holds]
        if component_status.failed_fingerprint in self.component.fingerprints and not self._serving:
            return self._clear_failed(), [
                Hold(
                    self.name, Reason.FAILED, component_status.failure or Localizable("did not become ready")
                )
            ]
        return self._converge(component_status)

    def healing(self) -> tuple[tuple[Action, ...], list[Hold]] | None:
        """Repair the version in service while the next attempt at a new one waits."""
        setback = next((s for s in self.status.setbacks if s.subject == self.name and not s.resolving), None)
        left = pause_left(setback, self.policy, self.now) if setback else 0.0
        if setback is None or left <= 0 or self.component.last_good is None:
            return None
        before = replace(self, component=self.component.last_good)
        actions, holds = before.plan()
        if not any(isinstance(action, StartWorkload) for action in actions):
            return None
        return actions, [
            hold_setback(setback, ComponentKind.ML_COMPONENT, self.name, left, self.policy),
            *holds,
        ]

    def waiting(
        self, unready: frozenset[ComponentName], copying: tuple[ComponentName, ...]
    ) -> tuple[tuple[Action, ...], list[Hold]] | None:
        """Keep the version in service while components that the new one depends on are not ready, or boxes are still
        being copied. Its image is built meanwhile."""
        awaited = [name for name in self.component.spec.depends_on if name in unready]
        to_build = self.component.build and self.component.pin.to_build
        if not (awaited or copying) or self._serving or to_build:
            return None
        hold = self._awaits_boxes(copying) if copying else self._awaits_components(awaited)
        if self.component.last_good is None:
            return (), [hold]
        actions, holds = replace(self, component=self.component.last_good).plan()
        return actions, [hold, *holds]

    def _awaits_boxes(self, copying: tuple[ComponentName, ...]) -> Hold:
        why = Localizable(
            "it waits until the boxes of the preview are copied: {names}", names=", ".join(copying)
        )
        return Hold(self.name, Reason.AWAITING_BOX, why)

    def _awaits_components(self, awaited: list[ComponentName]) -> Hold:
        names = " and ".join(awaited)
        why = (
            Localizable("it waits until {names} serve this commit", names=names)
            if len(awaited) > 1
            else Localizable("it waits until {names} serves this commit", names=names)
        )
        return Hold(self.name, Reason.DEPENDENCY_NOT_READY, why)

    # --- facts -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> ComponentName:
        return self.component.spec.name

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the running version, if it matches under any version, else the newest one."""
        matching = [w.fingerprint for w in self._matching]
        if self._serving and self.route and (self.route.fingerprint in matching or not matching):
            return self.route.fingerprint
        return matching[-1] if matching else self.component.fingerprint

    @property
    def _matching(self) -> list[ObservedWorkload]:
        return [w for w in self.observed.of(self.name) if w.fingerprint in self.component.fingerprints]

    @property
    def _serving(self) -> bool:
        """Return True if the route is for the wanted version, which then has been ready once, even if it is dead."""
        return self.route is not None and self.route.fingerprint in self.component.fingerprints

    def _wanted(self) -> dict[int, ObservedWorkload | None]:
        """Map each replica to its container. If two claim it (for example because one was renamed by hand),
        the one that answers wins."""
        matching = [w for w in self._matching if w.fingerprint == self.fingerprint]
        found = {w.replica: w for w in sorted(matching, key=_answers)}
        return {replica: found.get(replica) for replica in range(self.component.spec.replicas)}

    def _has_unrouted(self, wanted: dict[int, ObservedWorkload | None]) -> bool:
        """Return True if something of the version runs that the route does not lead to yet."""
        known = self.route.upstreams if self.route else ()
        return any(w and w.endpoint and w.endpoint not in known for w in wanted.values())

    def _names(self, wanted: dict[int, ObservedWorkload | None]) -> tuple[str, ...]:
        return tuple(
            w.name if w and _answers(w) else self._workload_name(replica) for replica, w in wanted.items()
        )

    @property
    def _idle(self) -> str:
        return Localizable(
            "idle for {idle_after}", idle_after=render_duration(self.component.spec.idle_after or 0.0)
        )

    def _workload_name(self, replica: int) -> str:
        return workload_name(self.policy.instance, self.app.app, self.name, self.fingerprint, replica)

    # --- rules -------------------------------------------------------------------------------------------------

    def _clear_failed(self) -> tuple[Action, ...]:
        return tuple(
            RemoveWorkload(self.name, w.name, w.id, why=Localizable("this version did not become ready"))
            for w in self._matching
        )

    def _converge(self, component_status: ComponentStatus) -> tuple[tuple[Action, ...], list[Hold]]:
        if self.component.asleep and self._serving:
            return self._sleep(), []
        if self.component.build and self.component.pin.to_build:
            return (self._build(self.component.build),), []
        wanted = self._wanted()
        missing = [replica for replica, w in wanted.items() if not _answers(w)]
        obsolete = self._obsolete(wanted)
        if (
            self._serving
            and (missing or self._has_unrouted(wanted))
            and (hold := self._hold_restart(component_status))
        ):
            return self._give_up_waking(component_status, hold) or self._leave_out_dead(
                self._why_stalled(component_status, hold)
            ), [hold]
        before: tuple[Action, ...] = ()
        if (
            missing
            and obsolete
            and self.component.spec.rollout.strategy is Strategy.RECREATE
            and not self._serving
        ):
            before, obsolete = (*self._withdraw_traffic(), *self._retire(obsolete)), []
        return (
            *(self._leave_out_dead(self._why_stalled(component_status)) if missing else ()),
            *(self._image() if missing else ()),  # first of all: with Recreate nothing serves from here on
            *(self._model() if missing else ()),
            *self._account(),
            *before,
            *self._starts(missing, wanted),
            *self._switch(wanted, bool(missing)),
            *self._retire(obsolete),
        ), []

    def _sleep(self) -> tuple[Action, ...]:
        """Hold calls first, so that none is in progress when the containers are stopped. The route keeps the
        version."""
        asleep = self._route((), asleep=True)
        return (*self._switch_if_changed(asleep, ()), *self._retire(list(self.observed.of(self.name))))

    def _give_up_waking(self, component_status: ComponentStatus, hold: Hold) -> tuple[Action, ...]:
        """Let callers get 503 at once while the component cannot be started, instead of waiting."""
        if not self.route or not self.route.asleep:
            return ()
        awake = replace(
            self.route,
            asleep=False,
            stalled=self._why_stalled(component_status, hold) or Localizable("it did not wake up"),
        )
        return (self._reroute(awake, (), why=Localizable("it did not wake up")),)

    def _obsolete(self, wanted: dict[int, ObservedWorkload | None]) -> list[ObservedWorkload]:
        kept = {w.id for w in wanted.values() if w}
        return [w for w in self.observed.of(self.name) if w.id not in kept]

    def _hold_restart(self, component_status: ComponentStatus) -> Hold | None:
        recent = [at for at in component_status.restarts if at > self.now - self.policy.crash_window]
        if len(recent) >= self.policy.crash_limit:
            why = Localizable(
                "restarted {count} times within {crash_window} s",
                count=len(recent),
                crash_window=format(self.policy.crash_window, ".0f"),
            )
            return Hold(self.name, Reason.CRASH_LOOP, why)
        pause = self.policy.backoff.after(len(recent))
        left = recent[-1] + pause - self.now if recent else 0.0
        if left <= 0:
            return None
        return Hold(
            self.name,
            Reason.BACKOFF,
            Localizable(
                "restart {count} waits for {pause} s", count=len(recent) + 1, pause=format(pause, ".0f")
            ),
            retry_after=left,
        )

    def _why_stalled(self, component_status: ComponentStatus, hold: Hold | None = None) -> str:
        """Return why calls had better not wait for the version in service, for its callers; empty while it is to be
        expected that it takes calls soon, even after a pause."""
        if hold is not None and hold.reason == Reason.CRASH_LOOP:
            return Localizable("it was {why} and is not started again for now", why=hold.why)
        if component_status.failure_reason and not component_status.failed_fingerprint:
            return Localizable(
                "its last start failed ({failure_reason}), and is tried again after a pause",
                failure_reason=component_status.failure_reason,
            )
        setback = next((s for s in self.status.setbacks if s.subject == self.name and s.stalled), None)
        if setback is None or setback.resolving or setback.version not in ("", self.fingerprint):
            return ""
        return Localizable("it cannot be started again ({reason})", reason=setback.reason)

    def _leave_out_dead(self, stalled: str) -> tuple[Action, ...]:
        """Take a dead replica out of the route: its address may soon belong to another component. `stalled`: why the
        last one is not repaired, if it is not."""
        if not self._serving or self.route is None:
            return ()
        alive = {w.endpoint: w.name for w in self.observed.of(self.name) if w.endpoint}
        still = tuple(alive[upstream] for upstream in self.route.upstreams if upstream in alive)
        if still and len(still) < len(self.route.upstreams):
            return (
                self._reroute(self.route, still, why=Localizable("a replica died, the others keep serving")),
            )
        dead = replace(self.route, upstreams=(), stalled="" if self.route.asleep else stalled)
        if still or dead == self.route:
            return ()
        why = (
            Localizable("calls do not wait: {stalled}", stalled=stalled)
            if stalled and not self.route.upstreams
            else Localizable("no replica answers any more")
        )
        return (self._reroute(dead, (), why),)

    def _reroute(self, route: Route, names: tuple[str, ...], why: str) -> SwitchRoute:
        """Update the route of a version in service; paths that it already answers stay."""
        return SwitchRoute(route, names, why, keeps=frozenset(api.path for api in route.apis))

    def _starts(self, missing: list[int], wanted: dict[int, ObservedWorkload | None]) -> tuple[Action, ...]:
        actions: list[Action] = []
        for replica in missing:
            dead = wanted[replica]
            if dead and not self._adoptable(replica, dead):
                actions.append(RemoveWorkload(self.name, dead.name, dead.id, why=_death(dead)))
            actions.append(self._start(replica, dead))
        if not actions:
            return ()
        return (
            *actions,
            self._await(wanted, Localizable("only ready versions get traffic")),
            *self._smoke(wanted),
        )

    def _adoptable(self, replica: int, dead: ObservedWorkload) -> bool:
        """Return True if this container can be started as the replica: it has the right name and was never
        started."""
        return dead.state in _NOT_BEGUN and dead.name == self._workload_name(replica)

    def _await(self, wanted: dict[int, ObservedWorkload | None], why: str) -> AwaitReady:
        spec = self.component.spec
        names, path = self._names(wanted), spec.server.ready_path
        return AwaitReady(self.name, self.fingerprint, names, path, spec.setup_timeout, why)

    def _smoke(self, wanted: dict[int, ObservedWorkload | None]) -> tuple[Action, ...]:
        """Return the smoke test of a version that has not passed it: one in service has."""
        smoke = self.component.smoke
        if smoke is None or self._serving:
            return ()
        server, why = self.component.spec.server, Localizable("before it gets traffic")
        return (RunSmokeTest(self.name, self.fingerprint, self._names(wanted), smoke, server, why),)

    def _build(self, build: BuildInput) -> BuildImageAction:
        why = Localizable("this content has not been built here")
        return BuildImageAction(self.name, self.component.pin.deploy, build, self.component.fingerprint, why)

    def _image(self) -> tuple[Action, ...]:
        if self.component.pin.present:
            return ()
        return (
            PullImage(self.name, self.component.pin.deploy, why=Localizable("the engine does not have it")),
        )

    def _model(self) -> tuple[Action, ...]:
        model = self.component.model
        if model is None or model.present:
            return ()
        return (StageModel(self.name, model, why=Localizable("not in the cache")),)

    def _account(self) -> tuple[Action, ...]:
        account = self.component.account
        if account is None or account.name in self.observed.accounts or self.observed.storage:
            return ()
        return (EnsureAccount(account, why=Localizable("the component has connected boxes")),)

    def _start(self, replica: int, dead: ObservedWorkload | None) -> StartWorkload:
        component, model = self.component, self.component.model
        workload = Workload(
            self.app.app,
            self.name,
            replica,
            self.fingerprint,
            component.revision or self.app.revision,
            component.pin.deploy,
            component.spec,
            component.env,
            ModelMount(model.volume, model.name) if model else None,
        )
        return StartWorkload(
            workload,
            self._workload_name(replica),
            self._why_start(dead),
            heals=self._heals(dead),
            node_lost=dead is not None and dead.state is WorkloadState.LOST,
        )

    def _heals(self, dead: ObservedWorkload | None) -> bool:
        """Return True if the replica had served, which is not the case for new, additional and hibernating ones."""
        if not self._serving or self.route is None or self.route.asleep:
            return False
        if dead:
            return dead.state not in _NOT_BEGUN
        return not self.route.upstreams or len(self.route.upstreams) >= self.component.spec.replicas

    def _why_start(self, dead: ObservedWorkload | None) -> str:
        if dead and dead.state is WorkloadState.CREATED:
            return Localizable("it was made but never started")
        if dead and dead.state is WorkloadState.PENDING:
            return Localizable("it was accepted and does not run yet")
        if dead:
            return Localizable("its predecessor {dead}", dead=_death(dead))
        if self._serving and self.route and self.route.asleep:
            return Localizable("it was asleep")
        if self._serving:
            return Localizable("its container is gone") if self._heals(dead) else _declared(self.component)
        if self.route and self.route.in_service:
            return Localizable("replaces version {fingerprint}", fingerprint=short(self.route.fingerprint))
        return Localizable("declared, not running")

    def _switch(self, wanted: dict[int, ObservedWorkload | None], started: bool) -> tuple[Action, ...]:
        """Return the wanted route; its upstreams are known now only if nothing has to be started."""
        endpoints = () if started else tuple(w.endpoint for w in wanted.values() if w and w.endpoint)
        route = self._route(endpoints)
        names = self._names(wanted)
        if started:
            return (self._switch_to(route, names, why=Localizable("the version is ready")),)
        if not self._serving or self.route is None:
            return (
                self._await(wanted, Localizable("it runs, not yet in use")),
                *self._smoke(wanted),
                self._switch_to(route, names, why=Localizable("the version is ready")),
            )
        switch = self._switch_if_changed(route, names)
        if switch and self._has_unrouted(wanted):
            return (self._await(wanted, Localizable("it runs, not yet in use")), *switch)
        return switch

    def _switch_if_changed(self, route: Route, names: tuple[str, ...]) -> tuple[Action, ...]:
        if self.route is None or _traffic(self.route) == _traffic(route):
            return ()
        why = self._idle if route.asleep and not self.route.asleep else _difference(self.route, route)
        return (self._switch_to(route, names, why),)

    def _switch_to(self, route: Route, names: tuple[str, ...], why: str) -> SwitchRoute:
        keeps = frozenset(api.path for api in route.apis if self.app.moved(api.path, self.name))
        return SwitchRoute(route, names, why, keeps)

    def _apis(self) -> tuple[Api, ...]:
        """Return the APIs declared for it, and those that the commit gives to a successor that does not answer
        them yet."""
        now = self.route.apis if self.route else ()
        left = {api.path: api for api in now if self.app.moved(api.path, self.name)}
        declared = {api.path: api for api in self.component.apis if not self.app.moved(api.path, self.name)}
        return tuple(api for _, api in sorted((left | declared).items()))

    def _route(self, upstreams: tuple[str, ...], asleep: bool = False) -> Route:
        spec = self.component.spec
        return Route(
            app=self.app.app,
            component=self.name,
            fingerprint=self.fingerprint,
            revision=self.component.revision or self.app.revision,
            upstreams=upstreams,
            apis=self._apis(),
            timeout=spec.server.timeout + GATEWAY_MARGIN,
            any_path=isinstance(spec.server, OwnServer),
            asleep=asleep,
            wake_within=spec.setup_timeout if spec.idle_after is not None else 0.0,
            patience=spec.patience,
            idempotent=spec.idempotent,
            ready_path=spec.server.ready_path,
            boxes=_boxes(spec) if isinstance(spec.server, PlatformServer) else (),
            async_timeout=spec.async_timeout,
            webhook=spec.webhook,
            drain=spec.rollout.drain_timeout,
            concurrency=spec.server.concurrency if isinstance(spec.server, PlatformServer) else 1,
        )

    def _withdraw_traffic(self) -> tuple[Action, ...]:
        if not self.route or not self.route.upstreams:
            return ()
        return (
            self._reroute(
                replace(self.route, upstreams=()),
                (),
                why=Localizable("strategy Recreate: the old one stops first"),
            ),
        )

    def _retire(self, obsolete: list[ObservedWorkload]) -> tuple[Action, ...]:
        timeout = self.component.spec.rollout.drain_timeout
        return tuple(
            action
            for workload in obsolete
            for action in drain_and_remove(workload, timeout, self._why_obsolete(workload))
        )

    def _why_obsolete(self, workload: ObservedWorkload) -> str:
        if workload.fingerprint == self.fingerprint and self.component.asleep:
            return self._idle
        if workload.fingerprint == self.fingerprint:
            return _declared(self.component)
        return Localizable("not of version {fingerprint}", fingerprint=short(self.fingerprint))


def _boxes(spec: MLComponentSpec) -> tuple[ComponentName, ...]:
    """Return the connected boxes, the default one first, for the FILE variables of calls."""
    links = sorted(spec.boxes, key=lambda link: not link.default)
    return tuple(ComponentName(link.name) for link in links)


def _traffic(route: Route) -> Route:
    """Return what the gateway acts on, so that a new commit that changes nothing for a component switches nothing."""
    return replace(route, revision="")


def _answers(workload: ObservedWorkload | None) -> bool:
    """Return True if it can be called: one that runs, but was taken off the app's network, cannot."""
    return workload is not None and workload.state is WorkloadState.RUNNING and workload.endpoint is not None


def _declared(component: DesiredComponent) -> str:
    count = component.spec.replicas
    return (
        Localizable("1 replica is declared")
        if count == 1
        else Localizable("{count} replicas are declared", count=count)
    )


def _death(workload: ObservedWorkload) -> str:
    if workload.state is WorkloadState.RUNNING:
        return Localizable("was taken off the network")
    if workload.state in _NOT_BEGUN:
        return Localizable("was never started")
    if workload.state is WorkloadState.REFUSED:
        return Localizable("was refused by the engine")
    if workload.state is WorkloadState.LOST:
        return Localizable("is on a node that does not answer")
    if workload.oom_killed:
        return Localizable("was OOM-killed")
    return (
        Localizable("exited with code {exit_code}", exit_code=workload.exit_code)
        if workload.exit_code is not None
        else Localizable("stopped")
    )


def _difference(before: Route, after: Route) -> str:
    if before.apis != after.apis:
        return Localizable("its APIs changed")
    if len(before.upstreams) > len(after.upstreams):
        return Localizable("fewer replicas are declared")
    if before.asleep and not after.asleep:
        return Localizable("it woke up")
    if before.upstreams != after.upstreams:
        return Localizable("its addresses changed")
    return Localizable("its limits changed")
