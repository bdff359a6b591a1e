"""What pages show of previews of branches, and what can be opened of an app."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.apps.branch_previews import BranchPreview, LeftOut, shown_ref
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.routing.routes import Route, Service, ServiceKind
from controller.ports import Store
from controller.web.pages.words import AppState, state_of

MOST_LEFT_OUT: Final = 50  # branches on the page of their app


#: What the platform itself serves for an app.
_SERVICES: Final[Mapping[ServiceKind, str]] = {
    ServiceKind.FILES: Localizable("files of boxes"),
    ServiceKind.PIPELINE: Localizable("runs of a pipeline"),
    ServiceKind.PIPELINES: Localizable("runs of all pipelines"),
}


@dataclass(frozen=True)
class OpenApi:
    """What can be called: a published API of a component, or a service of the platform."""

    path: str
    owner: str  # a component, or the kind of the service, in words
    page: str  # what a person opens
    published: bool


@dataclass(frozen=True)
class PreviewShown:
    """`state` is None for one that has no status yet; `opened` the page of the first thing that it publishes, or ""."""

    preview: BranchPreview
    state: AppState | None
    opened: str


def previews_of(store: Store, app: AppName) -> tuple[PreviewShown, ...]:
    """Return the previews of an app, the newest first."""
    return tuple(
        PreviewShown(
            each,
            state_of(store.apps.status(each.app)) if store.apps.has(each.app) else None,
            opened_page(store, each.app),
        )
        for each in store.branches.previews()
        if each.of == app
    )


def left_out_of(store: Store, app: AppName) -> tuple[LeftOut, ...]:
    found = [each for each in store.branches.left_out() if each.of == app]
    return tuple(found[:MOST_LEFT_OUT])


def branch_of(preview: BranchPreview | LeftOut) -> str:
    return shown_ref(preview.ref)


def lasts(preview: BranchPreview) -> bool:
    """Return True for a preview that stays until its branch is gone."""
    return math.isinf(preview.ends)


def opened_page(store: Store, app: AppName) -> str:
    """Return the page of the first thing that an app publishes, or ""."""
    found = apis_of(store.routes.of(app), store.routes.services(app))
    return next((api.page for api in found if api.published), "")


def apis_of(routes: tuple[Route, ...], services: tuple[Service, ...]) -> list[OpenApi]:
    found = []
    for route in routes:
        for api in route.apis:
            path = f"/{route.app}/{api.path}"
            page = f"{path}/" if route.any_path else f"{path}/docs"
            found.append(OpenApi(path, route.component, page, api.published))
    for service in services:
        path = f"/{service.app}/{service.api.path}"
        page = f"{path}/-/docs" if service.kind is ServiceKind.FILES else f"{path}/docs"
        found.append(OpenApi(path, _SERVICES[service.kind], page, service.api.published))
    return sorted(found, key=lambda api: api.path)
