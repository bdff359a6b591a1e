"""The page of an app's Secrets, for those who may steer the app: what is needed and not set, what is set by whom, and
what became of changes, live; forms that set and remove. No value is ever shown, and none comes back with a form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final
from urllib.parse import quote

from flask import Response, current_app, request

from controller.domain.apps.age_keys import sops_configuration
from controller.domain.apps.owned_secrets import ChangeRecord, ChangeState, OwnedKey
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.names import AppName
from controller.domain.people.roles import Principal
from controller.domain.reasons import Reason
from controller.ports import Store
from controller.web.api.platform.refusals import require_app
from controller.web.context import context, principal, query
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.languages import N_, Language
from controller.web.pages.live import live_page
from controller.web.pages.reason_meanings import MEANINGS
from controller.web.pages.rendering import gets_buttons, render
from controller.web.query import QueryParameters

CHANGES: Final = 10  # newest ones on the page
STATES: Final[Mapping[ChangeState, tuple[str, str]]] = {
    ChangeState.WAITING: (N_("waits for the daemon"), "busy"),
    ChangeState.APPLIED: (N_("applied"), "good"),
    ChangeState.UNCHANGED: (N_("no change"), "calm"),
    ChangeState.REFUSED: (N_("refused"), "bad"),
}


@dataclass(frozen=True)
class SetSecret:
    """A Secret that people have set. `declared`: a manifest has one of this name, which does not count."""

    name: str
    keys: tuple[OwnedKey, ...]
    users: tuple[str, ...]
    declared: bool


@dataclass(frozen=True)
class SecretsShown:
    """`needed`: named by manifests and not set. `declared`: those that only manifests have."""

    needed: tuple[SecretUse, ...]
    owned: tuple[SetSecret, ...]
    declared: tuple[SecretUse, ...]
    changes: tuple[ChangeRecord, ...]


@dataclass(frozen=True)
class SecretsLive:
    """`steers`: the reader gets buttons."""

    app: AppName
    steers: bool

    @classmethod
    def of(
        cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters
    ) -> SecretsLive:
        """Raises RequestRefused for an app that does not exist, or that is none."""
        app = require_app(store, names["name"], or_platform=False)
        return cls(app, gets_buttons(who, app))

    def read(self, store: Store) -> SecretsShown:
        uses = {use.name: use for use in store.apps.status(self.app).secrets}
        owned = tuple(
            _owned(name, tuple(keys), uses.get(name))
            for name, keys in groupby(store.secrets.listed(self.app), key=lambda key: key.secret)
        )
        others = [use for name, use in uses.items() if all(each.name != name for each in owned)]
        return SecretsShown(
            needed=tuple(use for use in others if not use.declared),
            owned=owned,
            declared=tuple(use for use in others if use.declared),
            changes=store.secrets.changes(self.app)[:CHANGES],
        )

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        place = f"/-/apps/{quote(self.app)}/secrets"
        values = {"shown": found, "steers": self.steers, "place": place, "states": STATES}
        return {
            name: render(f"secrets/{name}.html", language, values)
            for name in ("needed", "owned", "declared", "changes")
        }


def secrets_page(name: str, secret: str = "", key: str = "", problem: str = "") -> Response:
    """The page for the present request. `secret`, `key`, `problem`: of a form that was refused; else the address may
    name what to fill in."""
    store, asked = context(current_app).store, request.args
    live = SecretsLive.of(store, principal(), {"name": name}, query())
    uses, owned = store.apps.status(live.app).secrets, store.secrets.listed(live.app)
    age_keys = store.age_keys.listed(live.app)
    return live_page(
        "secrets/page.html",
        live,
        scope=f"/-/apps/{name}/secrets",
        status=422 if problem else 200,
        name=name,
        secret=secret or asked.get("secret", "")[:63],
        key=key or asked.get("key", "")[:253],
        problem=problem,
        meaning=MEANINGS[Reason.SECRET_REFUSED],
        sops=sops_configuration(age_keys[0].recipient) if age_keys else "",
        known=sorted({use.name for use in uses} | {each.secret for each in owned}),
    )


def after_change(name: str) -> Response:
    """Lead back to the page, which says that a change was asked for, and follows it."""
    return redirect_saying(f"/-/apps/{quote(name)}/secrets", Flash.SECRET_ASKED)


def _owned(name: str, keys: tuple[OwnedKey, ...], use: SecretUse | None) -> SetSecret:
    return SetSecret(name, keys, use.users if use else (), use is not None and use.declared)
