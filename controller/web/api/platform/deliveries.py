"""Reports the progress of a webhook: the answer to `GET /-/hooks/<repository>/<id>`, for pushers who wait. Reads
only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from controller.domain.apps.branch_previews import preview_name
from controller.domain.apps.requests import Outcome, ReconcileRequest, RequestState
from controller.domain.apps.status import Event, RepositoryRecord, WebhookDelivery
from controller.domain.names import AppName
from controller.domain.routing.app_links import link_lines
from controller.domain.units import rfc3339
from controller.ports import Store
from controller.web.api.platform.build_news import BuildNews
from controller.web.api.platform.signatures import concerned_previews, concerns

#: Worst first: a repository with several apps answers with the worst.
OUTCOMES = (
    Outcome.FAILED,
    Outcome.DEGRADED,
    Outcome.WAITING,
    Outcome.HELD,
    Outcome.SUSPENDED,
    Outcome.SUPERSEDED,
    Outcome.READY,
)
EVENTS = 100  # in one answer


@dataclass(frozen=True)
class DeliveryProgress:
    state: RequestState
    outcome: Outcome
    message: str
    events: tuple[Event, ...]
    apps: tuple[AppName, ...] = ()
    build: BuildNews | None = None

    @property
    def is_news(self) -> bool:
        said = self.build is not None and self.build.text
        return bool(self.events or said or self.state is RequestState.DONE)

    def document(self, links: Callable[[AppName], list[dict[str, object]]]) -> dict[str, object]:
        """`links`: what can be opened and called of an app. A push that ended well ends with it, as lines."""
        ready = self.outcome is Outcome.READY
        lines = [line for app in self.apps for line in link_lines(links(app))] if ready else []
        build = {"build": {"text": self.build.text, "next": self.build.place}} if self.build else {}
        return {
            **build,
            "open": lines,
            "state": self.state.value,
            "outcome": self.outcome,
            "message": self.message,
            "events": [event_document(event) for event in self.events],
        }


def progress(store: Store, delivery: WebhookDelivery, after: int, ref: str = "") -> DeliveryProgress:
    """Return the state of the delivery's requests, and the events of their apps with id > `after` since it came
    in. `ref` is what was pushed, if that is known: its previews count, too."""
    record = store.repositories.get(delivery.repository)
    previews = _previews(store, record, ref) if record and ref else ()
    apps = record.apps if record else ()
    heard = (*apps, *previews)
    events = [e for app in heard for e in store.events.list(app, after, EVENTS) if e.at >= delivery.at]
    events.sort(key=lambda event: event.id)
    requests = [request for request in map(store.requests.get, delivery.requests) if request]
    if all(
        request.state is RequestState.DONE for request in requests
    ):  # the look has made or found the previews
        requests += [request for request in map(store.requests.latest, previews) if request]
    if record and ref and not concerns(frozenset((ref,)), record.ref):
        apps = previews
    return replace(_summary(requests, tuple(events)), apps=tuple(apps))


def _previews(store: Store, record: RepositoryRecord, ref: str) -> tuple[AppName, ...]:
    """Return the previews of a ref that there are."""
    apps = concerned_previews(frozenset((ref,)), record.previews)
    found = (store.branches.preview(preview_name(app, ref)) for app in apps)
    return tuple(preview.app for preview in found if preview)


def _summary(requests: list[ReconcileRequest], events: tuple[Event, ...]) -> DeliveryProgress:
    if any(request.state is not RequestState.DONE for request in requests):
        running = any(request.state is not RequestState.QUEUED for request in requests)
        return DeliveryProgress(
            RequestState.RUNNING if running else RequestState.QUEUED, Outcome.NONE, "", events
        )
    if not requests:
        return DeliveryProgress(
            RequestState.DONE, Outcome.READY, "no app is connected to this repository", events
        )
    worst = min(requests, key=lambda r: OUTCOMES.index(r.outcome) if r.outcome in OUTCOMES else 0)
    return DeliveryProgress(RequestState.DONE, worst.outcome, worst.message, events)


def event_document(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "app": event.app,
        "component": event.component,
        "type": event.type.value,
        "reason": event.reason,
        "message": event.message,
        "revision": event.revision,
        "at": rfc3339(event.at),
    }
