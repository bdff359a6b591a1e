"""Statuses as JSON documents, for the status API. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.client.platform.api import PlanState
from controller.domain.apps.conditions import Condition, is_ready
from controller.domain.apps.followed_images import FollowRecord, rule_of
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.previews import PlanPreview
from controller.domain.apps.requests import ReconcileRequest
from controller.domain.apps.status import (
    AppStatus,
    BoxStatus,
    ComponentStatus,
    ReplicaExit,
    ReplicaStatus,
    Rollback,
    state_word,
)
from controller.domain.apps.usage import Usage
from controller.domain.routing.routes import Route, Service
from controller.domain.runs.run import Run, RunCount, RunState
from controller.domain.units import rfc3339


def summary_document(app: AppStatus) -> dict[str, object]:
    """Return an entry of the list of apps. Parts are components and boxes."""
    parts = [*(c.conditions for c in app.components), *(box.conditions for box in app.boxes)]
    return {
        "app": app.app,
        "state": state_word(app),
        "ready": is_ready(app.conditions),
        "suspended": app.suspended,
        "rollback": rollback_document(app.rollback) if app.rollback else None,
        "repository": app.repository,
        "attemptedRevision": app.attempted_revision,
        "appliedRevision": app.applied_revision,
        "parts": {"ready": sum(map(is_ready, parts)), "all": len(parts)},
        "conditions": [_condition(condition) for condition in app.conditions],
    }


def app_document(
    app: AppStatus,
    routes: tuple[Route, ...],
    services: tuple[Service, ...],
    queued: ReconcileRequest | None,
    runs: dict[str, object],
    uses: Iterable[Usage] = (),
    followed: Iterable[FollowRecord] = (),
) -> dict[str, object]:
    return {
        **summary_document(app),
        "failures": app.failures,
        "components": [component_document(component) for component in app.components],
        "boxes": [_box(box) for box in app.boxes],
        "apis": [*map(_api, routes), *map(_service, services)],
        "images": dict(app.pins),
        "followed": [followed_document(record, app) for record in followed],
        "plan": app.plan,
        "queued": _request(queued) if queued else None,
        "runs": runs,
        "uses": [{"resource": each.resource, "used": each.used, "bound": each.bound} for each in uses],
    }


def followed_document(record: FollowRecord, app: AppStatus) -> dict[str, object]:
    """Return an image that is followed: the rule, what was found by it and why, and what is deployed of it."""
    image, state = record.image, record.state
    follow = image.follow
    return {
        "subject": image.subject,
        "reference": image.reference,
        "rule": rule_of(image),
        "semver": follow.semver,
        "pattern": follow.pattern,
        "digest": follow.digest,
        "writeBack": follow.write_back,
        "image": state.image,
        "why": state.why,
        "since": rfc3339(state.since) if state.image else "",
        "deployed": dict(app.desired_images).get(image.subject, ""),
        "rejected": record.rejected,
        "commit": state.commit,
        "asked": rfc3339(state.asked) if state.asked else "",
        "next": rfc3339(record.due) if state.asked else "",
        "failures": state.failures,
        "reason": state.reason,
        "problem": state.problem,
    }


def rollback_document(rollback: Rollback) -> dict[str, object]:
    return {
        "revision": rollback.revision,
        "replaced": rollback.replaced,
        "by": rollback.by,
        "since": rfc3339(rollback.at),
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


def component_document(component: ComponentStatus) -> dict[str, object]:
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
        "replicas": [_replica(replica, component) for replica in component.replicas],
        "lastExit": _exit(component.last_exit) if component.last_exit else None,
    }


def _replica(replica: ReplicaStatus, component: ComponentStatus) -> dict[str, object]:
    return {
        "name": replica.name,
        "number": replica.number,
        "version": replica.version,
        "revision": replica.revision,
        "serving": replica.version == component.fingerprint,
        "state": replica.state.value,
        "since": rfc3339(replica.since),
        "detail": replica.detail,
        "gpus": list(replica.gpus),
    }


def _exit(found: ReplicaExit) -> dict[str, object]:
    return {
        "name": found.name,
        "version": found.version,
        "at": rfc3339(found.at),
        "code": found.code,
        "outOfMemory": found.oom_killed,
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


def request_document(request: ReconcileRequest) -> dict[str, object]:
    return {
        "id": request.id,
        "app": request.app,
        "state": request.state.value,
        "reasons": list(request.reasons),
        "created": rfc3339(request.created),
        "outcome": request.outcome,
        "message": request.message,
        "revision": request.revision,
    }


def plan_document(
    found: PlanPreview, before: AppliedRevision | None, manifests: str | None
) -> dict[str, object]:
    """Return a preview of an app's next pass. `manifests`: how they differ from those that were applied before."""
    state = PlanState.FAILED if found.problem else PlanState.DONE
    document: dict[str, object] = {"app": found.app, "id": found.id, "state": state}
    if found.problem:
        return {
            **document,
            "reason": found.problem,
            "message": found.message,
            "transient": found.is_transient,
        }
    return {
        **document,
        "revision": found.revision,
        "subject": found.subject,
        "author": found.author,
        "empty": found.empty,
        "actions": [{"action": each.action, "why": each.why} for each in found.actions],
        "holds": [{"component": h.component, "reason": h.reason, "why": h.why} for h in found.holds],
        "warnings": list(found.warnings),
        "text": found.text,
        "from": applied_document(before) if before else None,
        "manifests": manifests,
    }


def applied_document(applied: AppliedRevision) -> dict[str, object]:
    """Return an entry of the history of an app."""
    return {
        "id": applied.id,
        "revision": applied.revision,
        "subject": applied.subject,
        "author": applied.author,
        "triggers": list(applied.triggers),
        "by": applied.by,
        "begun": rfc3339(applied.begun),
        "seconds": round(max(0.0, applied.ended - applied.begun), 3),
        "outcome": applied.outcome,
        "message": applied.message,
        "plan": applied.plan,
        "images": dict(applied.images),
    }


def _request(request: ReconcileRequest) -> dict[str, object]:
    return {"id": request.id, "reasons": list(request.reasons), "notBefore": rfc3339(request.not_before)}
