"""Statuses as JSON documents, for the status API. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.domain.apps.conditions import Condition, is_ready
from controller.domain.apps.requests import ReconcileRequest
from controller.domain.apps.status import AppStatus, BoxStatus, ComponentStatus
from controller.domain.apps.usage import Usage
from controller.domain.routing.routes import Route, Service
from controller.domain.runs.run import Run, RunCount, RunState
from controller.domain.units import rfc3339


def summary_document(app: AppStatus) -> dict[str, object]:
    """Return an entry of the list of apps."""
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
    queued: ReconcileRequest | None,
    runs: dict[str, object],
    uses: Iterable[Usage] = (),
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
        "uses": [{"resource": each.resource, "used": each.used, "bound": each.bound} for each in uses],
    }


def runs_document(counts: Iterable[RunCount], last: Run | None) -> dict[str, object]:
    """Return the document of an app's runs; `last` is the newest finished one."""
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
        "ended": rfc3339(run.ended),
    }


def _condition(condition: Condition) -> dict[str, object]:
    return {
        "type": condition.type.value,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "since": rfc3339(condition.since),
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
        "restarts": [rfc3339(at) for at in component.restarts],
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
    """Return an API without addresses, users and tokens, which only the gateway needs."""
    return {
        "component": route.component,
        "revision": route.revision,
        "replicas": len(route.upstreams),
        "paths": [{"path": f"/{route.app}/{api.path}", "published": api.published} for api in route.apis],
    }


def _request(request: ReconcileRequest) -> dict[str, object]:
    return {"id": request.id, "reasons": list(request.reasons), "notBefore": rfc3339(request.not_before)}
