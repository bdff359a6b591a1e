"""Planning for the APIs of the platform itself: which of them an app has. Pure; called by `planner.plan_app`."""

from __future__ import annotations

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import Action, PublishServices
from controller.domain.localizable import Localizable, joined
from controller.domain.routing.routes import Route, Service


def plan_services(
    desired: DesiredApp, observed: ObservedApp, routes: tuple[Route, ...]
) -> list[tuple[Action, ...]]:
    """Plan the APIs of the platform itself, which one transaction changes. With prune off they stay. A path
    keeps leading to its present target until the new one can take it over."""
    present = {service.api.path: service for service in observed.services}
    answered = present.keys() | {api.path for route in routes for api in route.apis}
    runnable = {pipeline.name for pipeline in observed.pipelines}
    later = {
        service.api.path
        for service in desired.services
        if service.pipeline and service.pipeline not in runnable and service.api.path in answered
    }
    moved = {path for path in present if desired.moved(path, None)}
    kept = [] if desired.prune else [s for s in observed.services if not _declares(desired, s)]
    by_path = {s.api.path: s for s in (*kept, *desired.services) if s.api.path not in later}
    by_path |= {path: present[path] for path in (later | moved) if path in present}
    wanted = tuple(by_path[path] for path in sorted(by_path))
    if wanted == observed.services:
        return []
    before, after = ({s.api.path for s in services} for services in (observed.services, wanted))
    parts = [Localizable("new: {names}", names=", ".join(sorted(after - before)))] if after - before else []
    parts += [Localizable("gone: {names}", names=", ".join(sorted(before - after)))] if before - after else []
    why = joined(parts)
    return [(PublishServices(wanted, why or Localizable("the rules of access changed"), frozenset(moved)),)]


def _declares(desired: DesiredApp, service: Service) -> bool:
    return any(s.api.path == service.api.path or s.api.name == service.api.name for s in desired.services)
