"""What can be opened and called of an app: each published API with its URL and one command to copy, and pipelines
with their last run. Pure; `status APP` and pushes end with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route, Service, ServiceKind
from controller.domain.runs.run import Run
from controller.domain.units import rfc3339

Document = dict[str, object]
_JSON = "-H 'Content-Type: application/json'"


@dataclass(frozen=True)
class PublicAddress:
    """`url` is that of the platform; with `app_domain`, each app has a host of its own below it."""

    url: str
    app_domain: str = ""

    def of(self, app: AppName) -> str:
        if not self.app_domain:
            return self.url
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{app}.{self.app_domain}" + (f":{parts.port}" if parts.port else "")


def link_documents(
    address: PublicAddress,
    routes: Iterable[Route],
    services: Iterable[Service],
    last: Mapping[ComponentName, Run],
) -> list[Document]:
    """`last` has the newest run of each pipeline."""
    return [*_components(address, routes), *_services(address, services, last)]


def _components(address: PublicAddress, routes: Iterable[Route]) -> Iterator[Document]:
    for route in routes:
        for api in route.apis:
            url = f"{address.of(route.app)}/{route.app}/{api.path}"
            if not api.published:
                continue
            if route.any_path:
                yield _link("server", route.component, f"{url}/", f"{url}/", api)
            else:
                call = f"{_JSON} -d '{{\"inputs\": []}}'"
                yield _link("component", route.component, f"{url}/docs", f"{url}/predict", api, call)


def _services(
    address: PublicAddress, services: Iterable[Service], last: Mapping[ComponentName, Run]
) -> Iterator[Document]:
    for service in services:
        url = f"{address.of(service.app)}/{service.app}/{service.api.path}"
        if not service.api.published:
            continue
        if service.kind is ServiceKind.FILES:
            yield _link("files", "files", f"{url}/-/docs", f"{url}/", service.api)
            continue
        name = service.pipeline or ComponentName("pipelines")
        run = last.get(service.pipeline) if service.pipeline else None
        call = f"{_JSON} -d '{{\"inputs\": {{}}}}'" if service.pipeline else ""
        link = _link(service.kind.value, name, f"{url}/docs", f"{url}/runs", service.api, call)
        yield {**link, "lastRun": _run(run) if run else None}


def _link(kind: str, name: str, page: str, target: str, api: Api, more: str = "") -> Document:
    words = ["curl -s", *_credentials(api), shlex.quote(target), *([more] if more else [])]
    return {"kind": kind, "name": name, "open": page, "call": target, "curl": " ".join(words)}


def _credentials(api: Api) -> Iterator[str]:
    """What the caller of a protected API fills in."""
    if api.users:
        yield "-u NAME"
    elif not api.open_to_all:
        yield '-H "Authorization: Bearer $TOKEN"'


def _run(run: Run) -> Document:
    return {"id": run.id, "state": run.state.value, "reason": run.reason, "ended": rfc3339(run.ended)}


def link_lines(links: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield what people read: what to open, and what to call."""
    for link in links:
        run = link.get("lastRun")
        state = f", last run {run['state']}" if isinstance(run, Mapping) else ""
        yield f"{link['name']} ({link['kind']}{state}): {link['open']}"
        yield f"  {link['curl']}"
