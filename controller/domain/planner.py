"""The planner: desired state against observed state gives a plan. Pure; called by the reconciler and `prichal plan`.

Safety rules, each held by a property test:
- only workloads in the snapshot (hence ours) are ever named in a removal;
- a serving workload is drained and removed only after the route points elsewhere (or its component left Git);
- a version that failed is not started again before something changes;
- only a version that has been ready is put to sleep, and its route stays, so that a call can wake it up;
- planning on the result of a plan gives an empty plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.domain.boxes import bound, plan_boxes
from controller.domain.desired import BuildInput, DesiredApp, DesiredComponent, ModelMount, Workload
from controller.domain.names import ComponentName, short, workload_name
from controller.domain.observed import ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.plan import (
    Action,
    AwaitReady,
    BuildImageAction,
    DrainWorkload,
    EnsureAccount,
    EnsureNetwork,
    Hold,
    Plan,
    PublishServices,
    PullImage,
    RemoveAccount,
    RemoveNetwork,
    RemoveWorkload,
    StageModel,
    StartWorkload,
    SwitchRoute,
    WithdrawRoute,
)
from controller.domain.publishing import plan_pipelines
from controller.domain.routes import Route, Service
from controller.domain.spec import Kind, MLComponentSpec, OwnServer, PlatformServer, Strategy
from controller.domain.status import AppStatus, ComponentStatus
from controller.domain.units import render_duration

#: Seconds that the gateway waits longer than the serving library, so that the one who knows more answers.
GATEWAY_MARGIN = 2.0
_GONE_DRAIN = 30.0  # seconds; the manifest that would say is gone, too


@dataclass(frozen=True)
class Policy:
    instance: str = "prichal"
    backoff_initial: float = 2.0
    backoff_max: float = 300.0
    crash_limit: int = 5
    crash_window: float = 600.0


def plan_app(
    desired: DesiredApp,
    observed: ObservedApp,
    routes: tuple[Route, ...],
    status: AppStatus,
    policy: Policy,
    now: float,
) -> Plan:
    """What to do, in which order and why. `routes` are those in force for the app, `status` what earlier passes
    learned (failed versions, restarts), `now` Unix seconds."""
    by_component = {route.component: route for route in routes}
    steps: list[tuple[Action, ...]] = []
    holds: list[Hold] = []
    for component in desired.components:
        rollout = _Rollout(
            desired, component, observed, by_component.get(component.spec.name), status, policy, now
        )
        actions, held = rollout.plan()
        steps.append(actions)
        holds += held
    holds += [Hold(u.name, u.reason, u.why, kind=u.kind) for u in desired.unresolved]
    if everything := _all_would_go(desired, observed, by_component):
        return Plan(desired.app, desired.revision, (), (*holds, everything))
    for planned, held in (
        plan_boxes(desired, observed, policy.instance),
        _plan_gone(desired, observed, by_component),
        plan_pipelines(desired, observed, status),
        (_plan_services(desired, observed), []),
        (_plan_leftover_accounts(desired, observed), []),
    ):
        steps += planned
        holds += held
    steps = [step for step in steps if step]
    if any(isinstance(action, StartWorkload) for step in steps for action in step) and not observed.network:
        steps.insert(0, (EnsureNetwork(why="the app has no network yet"),))
    if observed.network and not _needs_network(desired, observed, holds):
        steps.append((RemoveNetwork(why="the app has no component left"),))
    return Plan(desired.app, desired.revision, tuple(steps), tuple(holds))


def _needs_network(desired: DesiredApp, observed: ObservedApp, holds: list[Hold]) -> bool:
    """Whether containers need it, may be left that do, or come with the next run."""
    runs = desired.pipelines or observed.pipelines or observed.runs
    return bool(desired.components or runs) or any(hold.kind is Kind.ML_COMPONENT for hold in holds)


def backoff(attempts: int, initial: float, cap: float) -> float:
    """Seconds to wait before the next try after `attempts` failed ones: 0, initial, 2 × initial, … up to `cap`."""
    return min(cap, initial * 2.0 ** min(attempts - 1, 30)) if attempts > 0 else 0.0


@dataclass(frozen=True)
class _Rollout:
    """The rules for one component that is declared."""

    app: DesiredApp
    component: DesiredComponent
    observed: ObservedApp
    route: Route | None
    status: AppStatus
    policy: Policy
    now: float

    def plan(self) -> tuple[tuple[Action, ...], list[Hold]]:
        """First matching rule wins; the order puts what forbids acting before what asks for it."""
        memory = self.status.component(self.name) or ComponentStatus(self.name, "MLComponent")
        if self.component.failure:
            actions, holds = self._converge(memory)
            return actions, [Hold(self.name, "Failed", self.component.failure), *holds]
        if memory.failed_fingerprint in self.component.fingerprints and not self._serving:
            return self._clear_failed(), [Hold(self.name, "Failed", memory.failure or "did not become ready")]
        return self._converge(memory)

    # --- facts -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> ComponentName:
        return self.component.spec.name

    @property
    def fingerprint(self) -> str:
        """Of what runs already, if it matches under any version, else the newest."""
        matching = [w.fingerprint for w in self._matching]
        if self._serving and self.route and (self.route.fingerprint in matching or not matching):
            return self.route.fingerprint
        return matching[-1] if matching else self.component.fingerprint

    @property
    def _matching(self) -> list[ObservedWorkload]:
        return [w for w in self.observed.of(self.name) if w.fingerprint in self.component.fingerprints]

    @property
    def _serving(self) -> bool:
        """Whether the version wanted is the one that the route is for: it has been ready once, dead or not."""
        return self.route is not None and self.route.fingerprint in self.component.fingerprints

    def _wanted(self) -> dict[int, ObservedWorkload | None]:
        """By replica: what stands for it. Of two (one was renamed by hand, say) the one that answers."""
        matching = [w for w in self._matching if w.fingerprint == self.fingerprint]
        found = {w.replica: w for w in sorted(matching, key=_answers)}
        return {replica: found.get(replica) for replica in range(self.component.spec.replicas)}

    def _newcomers(self, wanted: dict[int, ObservedWorkload | None]) -> bool:
        """Whether something of the version runs that the route does not lead to yet."""
        known = self.route.upstreams if self.route else ()
        return any(w and w.endpoint and w.endpoint not in known for w in wanted.values())

    def _names(self, wanted: dict[int, ObservedWorkload | None]) -> tuple[str, ...]:
        return tuple(
            w.name if w and _answers(w) else self._workload_name(replica) for replica, w in wanted.items()
        )

    @property
    def _idle(self) -> str:
        return f"idle for {render_duration(self.component.spec.idle_after or 0.0)}"

    def _workload_name(self, replica: int) -> str:
        return workload_name(self.policy.instance, self.app.app, self.name, self.fingerprint, replica)

    # --- rules -------------------------------------------------------------------------------------------------

    def _clear_failed(self) -> tuple[Action, ...]:
        return tuple(
            RemoveWorkload(w.name, w.id, why="this version did not become ready") for w in self._matching
        )

    def _converge(self, memory: ComponentStatus) -> tuple[tuple[Action, ...], list[Hold]]:
        if self.component.asleep and self._serving:
            return self._sleep(), []
        if self.component.build and not self.component.pin.present:
            return (self._build(self.component.build),), []
        wanted = self._wanted()
        missing = [replica for replica, w in wanted.items() if not _answers(w)]
        obsolete = self._obsolete(wanted)
        if self._serving and (missing or self._newcomers(wanted)) and (hold := self._hold_restart(memory)):
            return self._give_up_waking() or self._leave_out_dead(), [hold]
        before: tuple[Action, ...] = ()
        if (
            missing
            and obsolete
            and self.component.spec.rollout.strategy is Strategy.RECREATE
            and not self._serving
        ):
            before, obsolete = (*self._withdraw_traffic(), *self._retire(obsolete)), []
        return (
            *(self._leave_out_dead() if missing else ()),
            *(self._image() if missing else ()),  # first of all: with Recreate nothing serves from here on
            *(self._model() if missing else ()),
            *self._account(),
            *before,
            *self._starts(missing, wanted),
            *self._switch(wanted, bool(missing)),
            *self._retire(obsolete),
        ), []

    def _sleep(self) -> tuple[Action, ...]:
        """Calls are held back first, so that none is on its way to what is stopped. The route keeps the version."""
        asleep = self._route((), asleep=True)
        return (*self._switch_if_changed(asleep, ()), *self._retire(list(self.observed.of(self.name))))

    def _give_up_waking(self) -> tuple[Action, ...]:
        """While it does not come up, callers are told so at once instead of waiting."""
        if not self.route or not self.route.asleep:
            return ()
        return (SwitchRoute(replace(self.route, asleep=False), (), why="it did not wake up"),)

    def _obsolete(self, wanted: dict[int, ObservedWorkload | None]) -> list[ObservedWorkload]:
        kept = {w.id for w in wanted.values() if w}
        return [w for w in self.observed.of(self.name) if w.id not in kept]

    def _hold_restart(self, memory: ComponentStatus) -> Hold | None:
        recent = [at for at in memory.restarts if at > self.now - self.policy.crash_window]
        if len(recent) >= self.policy.crash_limit:
            why = f"restarted {len(recent)} times within {self.policy.crash_window:.0f} s"
            return Hold(self.name, "CrashLoop", why)
        pause = backoff(len(recent), self.policy.backoff_initial, self.policy.backoff_max)
        left = recent[-1] + pause - self.now if recent else 0.0
        if left <= 0:
            return None
        return Hold(
            self.name, "Backoff", f"restart {len(recent) + 1} waits for {pause:.0f} s", retry_after=left
        )

    def _leave_out_dead(self) -> tuple[Action, ...]:
        """A dead replica gets no more traffic: its address may soon be that of another component."""
        if not self._serving or self.route is None:
            return ()
        alive = {w.endpoint: w.name for w in self.observed.of(self.name) if w.endpoint}
        still = tuple(alive[upstream] for upstream in self.route.upstreams if upstream in alive)
        if len(still) == len(self.route.upstreams):
            return ()
        if not still:
            return (SwitchRoute(replace(self.route, upstreams=()), (), why="nothing of it answers any more"),)
        return (SwitchRoute(self.route, still, why="a replica died, the others go on"),)

    def _starts(self, missing: list[int], wanted: dict[int, ObservedWorkload | None]) -> tuple[Action, ...]:
        actions: list[Action] = []
        for replica in missing:
            dead = wanted[replica]
            if dead and not self._adoptable(replica, dead):
                actions.append(RemoveWorkload(dead.name, dead.id, why=_death(dead)))
            actions.append(self._start(replica, dead))
        return (*actions, self._await(wanted, "traffic goes only to what is ready")) if actions else ()

    def _adoptable(self, replica: int, dead: ObservedWorkload) -> bool:
        """Whether starting the replica means starting this one: made under the right name, never started."""
        return dead.state is WorkloadState.CREATED and dead.name == self._workload_name(replica)

    def _await(self, wanted: dict[int, ObservedWorkload | None], why: str) -> AwaitReady:
        spec = self.component.spec
        names, path = self._names(wanted), spec.server.ready_path
        return AwaitReady(self.name, self.fingerprint, names, path, spec.setup_timeout, why)

    def _build(self, build: BuildInput) -> BuildImageAction:
        why = "this content has not been built here"
        return BuildImageAction(self.name, self.component.pin.deploy, build, self.component.fingerprint, why)

    def _image(self) -> tuple[Action, ...]:
        if self.component.pin.present:
            return ()
        return (PullImage(self.name, self.component.pin.deploy, why="not on this host"),)

    def _model(self) -> tuple[Action, ...]:
        model = self.component.model
        if model is None or model.present:
            return ()
        return (StageModel(self.name, model, why="not on this host"),)

    def _account(self) -> tuple[Action, ...]:
        account = self.component.account
        if account is None or account.name in self.observed.accounts or self.observed.storage:
            return ()
        return (EnsureAccount(account, why="the component has connected boxes"),)

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
            ModelMount(model.folder, model.name) if model else None,
        )
        return StartWorkload(
            workload, self._workload_name(replica), self._why_start(dead), heals=self._heals(dead)
        )

    def _heals(self, dead: ObservedWorkload | None) -> bool:
        """Whether the replica had served; what was never started, is an additional one or was asleep, had not."""
        if not self._serving or self.route is None or self.route.asleep:
            return False
        if dead:
            return dead.state is not WorkloadState.CREATED
        return not self.route.upstreams or len(self.route.upstreams) >= self.component.spec.replicas

    def _why_start(self, dead: ObservedWorkload | None) -> str:
        if dead and dead.state is WorkloadState.CREATED:
            return "it was made but never started"
        if dead:
            return f"its predecessor {_death(dead)}"
        if self._serving and self.route and self.route.asleep:
            return "it was asleep"
        if self._serving:
            return "its container is gone" if self._heals(dead) else f"{_replicas(self.component)} declared"
        if self.route and self.route.in_service:
            return f"replaces version {short(self.route.fingerprint)}"
        return "declared, not running"

    def _switch(self, wanted: dict[int, ObservedWorkload | None], started: bool) -> tuple[Action, ...]:
        """The route that should be in force; its upstreams are known now only if nothing has to be started."""
        endpoints = () if started else tuple(w.endpoint for w in wanted.values() if w and w.endpoint)
        route = self._route(endpoints)
        names = self._names(wanted)
        if started:
            return (SwitchRoute(route, names, why="the version is ready"),)
        if not self._serving or self.route is None:
            return (
                self._await(wanted, "it runs, not yet in use"),
                SwitchRoute(route, names, why="the version is ready"),
            )
        switch = self._switch_if_changed(route, names)
        if switch and self._newcomers(wanted):
            return (self._await(wanted, "it runs, not yet in use"), *switch)
        return switch

    def _switch_if_changed(self, route: Route, names: tuple[str, ...]) -> tuple[Action, ...]:
        if self.route is None or _traffic(self.route) == _traffic(route):
            return ()
        why = self._idle if route.asleep and not self.route.asleep else _difference(self.route, route)
        return (SwitchRoute(route, names, why),)

    def _route(self, upstreams: tuple[str, ...], asleep: bool = False) -> Route:
        spec = self.component.spec
        return Route(
            app=self.app.app,
            component=self.name,
            fingerprint=self.fingerprint,
            revision=self.component.revision or self.app.revision,
            upstreams=upstreams,
            apis=self.component.apis,
            timeout=spec.server.timeout + GATEWAY_MARGIN,
            any_path=isinstance(spec.server, OwnServer),
            asleep=asleep,
            wake_within=spec.setup_timeout if spec.idle_after is not None else 0.0,
            boxes=_boxes(spec) if isinstance(spec.server, PlatformServer) else (),
        )

    def _withdraw_traffic(self) -> tuple[Action, ...]:
        if not self.route or not self.route.upstreams:
            return ()
        return (
            SwitchRoute(
                replace(self.route, upstreams=()), (), why="strategy Recreate: the old one stops first"
            ),
        )

    def _retire(self, obsolete: list[ObservedWorkload]) -> tuple[Action, ...]:
        timeout = self.component.spec.rollout.drain_timeout
        return tuple(
            action
            for workload in obsolete
            for action in _drain_and_remove(workload, timeout, self._why_obsolete(workload))
        )

    def _why_obsolete(self, workload: ObservedWorkload) -> str:
        if workload.fingerprint == self.fingerprint and self.component.asleep:
            return self._idle
        if workload.fingerprint == self.fingerprint:
            return f"{_replicas(self.component)} declared"
        return f"not of version {short(self.fingerprint)}"


def _boxes(spec: MLComponentSpec) -> tuple[ComponentName, ...]:
    """Connected boxes, the default one first: where FILE variables of calls lie."""
    links = sorted(spec.boxes, key=lambda link: not link.default)
    return tuple(ComponentName(link.name) for link in links)


def _traffic(route: Route) -> Route:
    """What the gateway acts on: a new commit that changes nothing for a component switches nothing."""
    return replace(route, revision="")


def _all_would_go(
    desired: DesiredApp, observed: ObservedApp, routes: dict[ComponentName, Route]
) -> Hold | None:
    """The guard against an empty desired state: a wrong folder must not take everything down."""
    if not desired.empty or not desired.prune or desired.approved:
        return None
    services = {service.api.name for service in observed.services} | {p.name for p in observed.pipelines}
    present = {w.component for w in observed.workloads} | set(routes) | set(bound(observed)) | services
    if not present:
        return None
    names = ", ".join(sorted(present))
    why = f"the commit declares nothing, {names} would all go; confirm with: prichal approve {desired.app}"
    return Hold(None, "PrunePending", why)


def _plan_services(desired: DesiredApp, observed: ObservedApp) -> list[tuple[Action, ...]]:
    """APIs need no container to be withdrawn or changed: one transaction does it. With prune off they stay."""
    kept = () if desired.prune else tuple(s for s in observed.services if not _declares(desired, s))
    wanted = tuple(sorted((*desired.services, *kept), key=lambda service: service.api.path))
    if wanted == observed.services:
        return []
    before, after = ({s.api.path for s in services} for services in (observed.services, wanted))
    parts = (("new", after - before), ("gone", before - after))
    why = "; ".join(f"{word}: {', '.join(sorted(paths))}" for word, paths in parts if paths)
    return [(PublishServices(wanted, why or "the rules of access changed"),)]


def _declares(desired: DesiredApp, service: Service) -> bool:
    return any(s.api.path == service.api.path or s.api.name == service.api.name for s in desired.services)


def _plan_leftover_accounts(desired: DesiredApp, observed: ObservedApp) -> list[tuple[Action, ...]]:
    """Accounts whose component or pipeline is gone or has another one by now; not while anything that may use them runs
    or can be run."""
    if observed.runs or observed.pipelines != tuple(declared.pipeline for declared in desired.pipelines):
        return []
    accounts = [c.account for c in desired.components] + [p.account for p in desired.pipelines]
    wanted = {account.name for account in accounts if account}
    running = {c.spec.name: c.fingerprints for c in desired.components}
    if any(w.fingerprint not in running.get(w.component, ()) for w in observed.workloads):
        return []
    gone = sorted(observed.accounts - wanted)
    return [tuple(RemoveAccount(name, why="no component uses it") for name in gone)]


def _plan_gone(
    desired: DesiredApp, observed: ObservedApp, routes: dict[ComponentName, Route]
) -> tuple[list[tuple[Action, ...]], list[Hold]]:
    """Components that run or are routed but are not declared any more."""
    declared = {c.spec.name for c in desired.components} | {u.name for u in desired.unresolved}
    present = {w.component for w in observed.workloads} | set(routes)
    gone = sorted(present - declared)
    if not desired.prune:
        return [], [Hold(name, "PruneDisabled", "left Git, kept because prune is off") for name in gone]
    return [_remove_component(name, observed, routes.get(name)) for name in gone], []


def _remove_component(name: ComponentName, observed: ObservedApp, route: Route | None) -> tuple[Action, ...]:
    actions: list[Action] = []
    if route:
        actions.append(WithdrawRoute(name, why="left Git"))
    for workload in observed.of(name):
        actions += _drain_and_remove(workload, timeout=_GONE_DRAIN, why="left Git")
    return tuple(actions)


def _drain_and_remove(workload: ObservedWorkload, timeout: float, why: str) -> tuple[Action, ...]:
    """Whatever answers may have requests under way: a route that does not name it (any more) proves nothing, since
    the daemon may have died between the switch and the draining."""
    remove = RemoveWorkload(workload.name, workload.id, why)
    if workload.endpoint is None:
        return (remove,)
    return (
        DrainWorkload(workload.name, workload.id, workload.endpoint, timeout, why="requests under way"),
        remove,
    )


def _answers(workload: ObservedWorkload | None) -> bool:
    """Whether it can be called: one that runs, but was taken off the app's network, cannot."""
    return workload is not None and workload.state is WorkloadState.RUNNING and workload.endpoint is not None


def _replicas(component: DesiredComponent) -> str:
    count = component.spec.replicas
    return f"{count} replica{'s are' if count != 1 else ' is'}"


def _death(workload: ObservedWorkload) -> str:
    if workload.state is WorkloadState.RUNNING:
        return "was taken off the network"
    if workload.state is WorkloadState.CREATED:
        return "was never started"
    if workload.oom_killed:
        return "was killed for want of memory"
    return f"exited with code {workload.exit_code}" if workload.exit_code is not None else "stopped"


def _difference(before: Route, after: Route) -> str:
    if before.apis != after.apis:
        return "its APIs changed"
    if len(before.upstreams) > len(after.upstreams):
        return "fewer replicas are declared"
    if before.asleep and not after.asleep:
        return "it woke up"
    if before.upstreams != after.upstreams:
        return "its addresses changed"
    return "its limits changed"
