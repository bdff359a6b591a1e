"""The templates of this host: the built-in ones, and those that admins have added by Git URL (`apps.templates`). These
are fetched with the bounds of foreign repositories, and a smaller one of their size.

A template that cannot be used is reported with the place, and keeps nobody from the others; one that was good before
stays in use at its last good commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from controller.adapters.git import GitSources
from controller.config import Settings
from controller.domain.apps.spec import GitRef, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import RepositoryName
from controller.domain.reasons import Reason
from controller.domain.templates import TemplateFile, TemplateRecord, with_defaults
from controller.domain.text import printable
from controller.guards import GuardedStep
from controller.ports import Revision, Store
from controller.templates.builtin import builtin
from controller.templates.description import LoadedTemplate, load_template

log = logging.getLogger(__name__)

MOST_REPOSITORY: Final = 64 * 2**20  # bytes
LONGEST_PROBLEM: Final = 2000  # characters
_MAIN: Final = "main"


class TemplateSources(Protocol):
    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision: ...

    def template_files(self, revision: Revision) -> tuple[TemplateFile, ...]: ...

    def forget(self, names: Iterable[str]) -> None: ...


@dataclass
class TemplateShelf:
    """Threads may share it."""

    settings: Settings
    store: Store
    sources: TemplateSources | None = None
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, stop: threading.Event) -> None:
        """Fetch what is configured, again and again, until `stop`."""
        step = GuardedStep("cannot fetch the templates", self.refresh)
        while not stop.is_set():
            step()
            stop.wait(self.settings.apps.template_interval)

    def refresh(self) -> None:
        """Fetch all templates that are configured, and forget others."""
        known = {record.name: record for record in self.store.templates.all()}
        if not known and not self.settings.apps.templates:
            return
        records = [self._fetched(name, url, known.get(name)) for name, url in self._configured()]
        self.store.templates.replace(records)
        gone = known.keys() - {record.name for record in records}
        self._git().forget(sorted(_clone(name) for name in gone))

    def get(self, name: str) -> LoadedTemplate:
        """Return a template with its files. Raises ControllerError if there is none, or it cannot be used."""
        defaults = self.settings.apps.defaults
        if (found := builtin().get(name)) is not None:
            return replace(found, template=with_defaults(found.template, defaults))
        record = next((each for each in self.store.templates.all() if each.name == name), None)
        if record is None:
            raise Stalled(Reason.UNKNOWN_TEMPLATE, Localizable("there is no template {name!r}", name=name))
        if record.template is None:
            raise Stalled(
                Reason.TEMPLATE_UNUSABLE,
                Localizable(
                    "the template {name} cannot be used: {problem}", name=name, problem=record.problem
                ),
            )
        loaded = load_template(name, self._git().template_files(_revision(name, record.commit)))
        return replace(loaded, template=with_defaults(loaded.template, defaults))

    def _configured(self) -> Iterator[tuple[str, str]]:
        for text in self.settings.apps.templates:
            name, _, url = text.partition("=")
            yield name, url

    def _fetched(self, name: str, url: str, known: TemplateRecord | None) -> TemplateRecord:
        address, _, branch = url.partition("#")
        if known is not None and known.url != url:
            known = None
        repository = RepositorySpec(
            name=RepositoryName(_clone(name)),
            url=address,
            ref=GitRef(RefKind.BRANCH, branch or _MAIN),
            interval=0.0,
        )
        try:
            if name in builtin():
                raise Stalled(
                    Reason.TEMPLATE_UNUSABLE,
                    Localizable("{name} is the name of a built-in template", name=name),
                )
            revision = self._git().fetch(repository, None, None)
            loaded = load_template(name, self._git().template_files(revision))
        except ControllerError as error:
            problem = printable(error.message)[:LONGEST_PROBLEM]
            log.warning("a template cannot be used", extra={"template": name, "problem": problem})
            before = known or TemplateRecord(name, None, url)
            return replace(before, problem=problem)
        return TemplateRecord(name, loaded.template, url, revision.commit, fetched=self.clock())

    def _git(self) -> TemplateSources:
        with self._lock:
            if self.sources is None:
                settings = self.settings
                bound = min(settings.git.max_repository, MOST_REPOSITORY)
                git = replace(settings.git, max_repository=bound)
                self.sources = GitSources(settings.clones, git, settings.repositories)
            return self.sources


def _clone(name: str) -> str:
    """The name of its clone, which no Repository can have."""
    return f"template.{name}"


def _revision(name: str, commit: str) -> Revision:
    return Revision(_clone(name), commit, "")
