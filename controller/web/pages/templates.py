"""The page of the templates from which people make apps: the built-in ones, and those that administrators have added,
with where each comes from and what is wrong with it. Only administrators see the latter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flask import Response, current_app

from controller.domain.templates import Template, TemplateRecord
from controller.domain.text import excerpt
from controller.ports import Store
from controller.templates.builtin import builtin
from controller.web.context import context, principal
from controller.web.pages.languages import N_
from controller.web.pages.rendering import page

PROBLEM: Final = 2000  # characters
IN_USE, OLD, UNUSABLE, UNKNOWN = (
    (N_("in use"), "good"),
    (N_("in use at an earlier commit"), "warn"),
    (N_("cannot be used"), "bad"),
    (N_("not fetched yet"), "busy"),
)


@dataclass(frozen=True)
class TemplateRow:
    name: str
    template: Template | None
    state: tuple[str, str]  # word and tone
    url: str = ""
    commit: str = ""
    problem: str = ""
    fetched: float = 0.0


def templates_page() -> Response:
    """The page for the present request."""
    store, settings = context(current_app)
    configured = dict(_pair(text) for text in settings.apps.templates)
    return page(
        "templates.html",
        builtin=[TemplateRow(name, loaded.template, IN_USE) for name, loaded in builtin().items()],
        added=list(_added(store, configured)),
        is_admin=principal().is_admin,
        interval=settings.apps.template_interval,
    )


def _added(store: Store, configured: dict[str, str]) -> Iterator[TemplateRow]:
    """Those that were fetched, then those that the configuration has and the daemon has not looked at."""
    records = store.templates.all()
    yield from map(_row, records)
    for name in sorted(configured.keys() - {record.name for record in records}):
        yield TemplateRow(name, None, UNKNOWN, configured[name])


def _row(record: TemplateRecord) -> TemplateRow:
    usable = (
        (OLD if record.problem else IN_USE) if record.template and record.name not in builtin() else UNUSABLE
    )
    problem = excerpt(record.problem, PROBLEM)
    return TemplateRow(
        record.name, record.template, usable, record.url, record.commit, problem, record.fetched
    )


def _pair(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    return name, url
