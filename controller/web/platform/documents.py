"""Statuses as JSON documents, for the status API. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.domain.conditions import Condition, is_ready
from controller.domain.routes import Route, Service
from controller.domain.runs import Run, RunCount, RunState
from controller.domain.status import AppStatus, BoxStatus, ComponentStatus, Request


def summary_document(app: AppStatus) -> dict[str, object]:
    """One line of a list of apps."""
    return {
        "app": app.app,
        "ready": is_ready(app.conditions),
        "suspended": app.suspended,
        "repository": app.repository,
        "attemptedRevision": app.attempted_revision,
        "appliedRevision": app.applied_revision,
        "conditions": [_condition(condition) for condition in app.conditions],
    }


def app_document(
    app: AppStatus,
    routes: tuple[Route, ...],
    services: tuple[Service, ...],
    queued: Request | None,
    runs: dict[str, object],
) -> dict[str, object]:
    return {
        **summary_document(app),
        "failures": app.failures,
        "components": [_component(component) for component in app.components],
        "boxes": [_box(box) for box in app.boxes],
        "apis": [*map(_api, routes), *map(_service, services)],
        "images": dict(app.pins),
        "plan": app.plan,
        "queued": _request(queued) if queued else None,
        "runs": runs,
    }


def runs_document(counts: Iterable[RunCount], last: Run | None) -> dict[str, object]:
    """Of an app; `last` is the last one that is over."""
    counts = list(counts)
    return {
        "queued": sum(count.number for count in counts if count.state is RunState.QUEUED),
        "active": sum(count.number for count in counts if count.active),
        "last": _last(last) if last else None,
    }


def _last(run: Run) -> dict[str, object]:
    return {
        "id": run.id,
        "pipeline": run.name,
        "state": run.state.value,
        "reason": run.reason,
        "message": run.message,
        "ended": run.ended,
    }


def _condition(condition: Condition) -> dict[str, object]:
    return {
        "type": condition.type.value,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "since": condition.since,
        "revision": condition.revision,
    }


def _component(component: ComponentStatus) -> dict[str, object]:
    return {
        "name": component.name,
        "kind": component.kind,
        "ready": is_ready(component.conditions),
        "image": component.image,
        "model": component.model,
        "fingerprint": component.fingerprint,
        "conditions": [_condition(condition) for condition in component.conditions],
        "failure": component.failure,
        "restarts": list(component.restarts),
    }


def _box(box: BoxStatus) -> dict[str, object]:
    return {
        "name": box.name,
        "ready": is_ready(box.conditions),
        "bucket": box.bucket,
        "capacity": box.capacity,
        "used": box.used,
        "files": box.files,
        "conditions": [_condition(condition) for condition in box.conditions],
    }


def _service(service: Service) -> dict[str, object]:
    path = {"path": f"/{service.app}/{service.api.path}", "published": service.api.published}
    return {"service": service.kind.value, "paths": [path]}


def _api(route: Route) -> dict[str, object]:
    """Without addresses, users and tokens: those are the gateway's business."""
    return {
        "component": route.component,
        "revision": route.revision,
        "replicas": len(route.upstreams),
        "paths": [{"path": f"/{route.app}/{api.path}", "published": api.published} for api in route.apis],
    }


def _request(request: Request) -> dict[str, object]:
    return {"id": request.id, "reasons": list(request.reasons), "notBefore": request.not_before}
