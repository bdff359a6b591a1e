"""Makes pages of the cabinet from templates: one environment of Jinja for each language, one frame around every page
(header, navigation, the reader, what was said last), and one policy for all of them.

A view calls `page("my.html", row=…)`, with the values that the template needs; it extends `base.html`. A page that
changes by itself is made by `live.live_page` instead. What a template shows is escaped; a page runs nothing but the
modules in `web/static/`, because scripts and styles need the nonce of this response, and texts become elements only
where the module `morph.js` takes fragments of ours (Trusted Types).

Filters: `size`, `duration`, `number`, `moment`, `ago`, `shown`, `told` and `is_own` (languages.py), `oneline`.
Functions: `_`, `ngettext` and `asset`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final
from urllib.parse import urlencode

from flask import Response, current_app, g, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from controller import __version__
from controller.domain.people.roles import Act, Principal, Verdict, decide
from controller.web.context import context, people_context
from controller.web.pages import flashes
from controller.web.pages.languages import COOKIE, LOCALE, Language, Wording, wanted_language, wording
from controller.web.pages.problem_words import PROBLEMS_BY_TYPE
from controller.web.pages.static_files import asset

TEMPLATES: Final = LOCALE.parent / "templates"
CONTENT_TYPE: Final = "text/html; charset=utf-8"
STALE: Final = 15.0  # seconds without a sign of the daemon, after which pages say so
#: Pages have an origin of their own (`sandbox`), from which they may send forms, open windows and start downloads.
POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
    "connect-src 'self'{connect}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types prichal; "
    "sandbox allow-scripts allow-forms allow-downloads allow-popups allow-popups-to-escape-sandbox"
)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,253}")


@dataclass(frozen=True)
class PageFrame:
    """What every page has around its content. `token`: of its scripts (auth/page_tokens.py). `live`: where its
    fragments come from. `form`: what its forms carry; "" for readers without a session, who get no forms. `connect`:
    further origins that its scripts may make requests to."""

    language: Language
    nonce: str
    place: str  # path and query of the page
    who: str = ""
    via: str = ""
    is_admin: bool = False
    creates: bool = False
    form: str = ""
    token: str = ""
    live: str = ""
    connect: tuple[str, ...] = ()
    said: str = ""
    is_stale: bool = False
    version: str = __version__

    @property
    def languages(self) -> list[tuple[Language, str]]:
        """The languages with the address that chooses each."""
        query = urlencode({"next": self.place})
        return [(each, f"/-/language/{each}?{query}") for each in Language]


def page(template: str, status: int = 200, **values: object) -> Response:
    """Return a page for the present request, whose scripts may make no requests."""
    return page_with(template, values, status)


def page_with(
    template: str,
    values: Mapping[str, object],
    status: int = 200,
    scope: str = "",
    writes: str = "",
    live: str = "",
    connect: tuple[str, ...] = (),
) -> Response:
    """Return a page for the present request. `scope` is the path that its scripts may read, and all below it;
    `writes` that at and below which they may change something. `live`: where its fragments come from. `connect`:
    further origins that they may make requests to, "" among them for none."""
    callers, who = people_context(current_app).callers, reader()
    said, is_told = flashes.taken(request.cookies)
    frame = PageFrame(
        language=language(),
        nonce=secrets.token_urlsafe(16),
        place=g.get("place") or request.full_path.rstrip("?"),
        who=who.name if who else "",
        via=who.via if who else "",
        is_admin=who is not None and who.is_admin,
        creates=who is not None and decide(who, Act.CREATE) is Verdict.ALLOWED,
        form=callers.form_value(who) if who else "",
        token=callers.page_token(who, scope, writes) if who and scope else "",
        live=live,
        connect=connect,
        said=said,
        is_stale=is_stale(),
    )
    response = framed(template, frame, values, status)
    if is_told:
        flashes.forget(response)
    return response


def framed(template: str, frame: PageFrame, values: Mapping[str, object], status: int = 200) -> Response:
    text = render(template, frame.language, {**values, "frame": frame})
    response = Response(text, status, content_type=CONTENT_TYPE)
    response.headers["Content-Security-Policy"] = policy(frame.nonce, frame.connect)
    return response


def policy(nonce: str, connect: tuple[str, ...] = ()) -> str:
    """Origins that are none, as far as a policy is concerned, are left out."""
    more = "".join(f" {origin}" for origin in connect if _ORIGIN.fullmatch(origin))
    return POLICY.format(nonce=nonce, connect=more)


def render(template: str, language: Language, values: Mapping[str, object]) -> str:
    """Return the text of a template; needs no request. Threads may call it."""
    return environment(language).get_template(template).render(values)


@cache
def environment(language: Language) -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    words = wording(language)
    found.install_gettext_translations(words.translations, newstyle=True)  # type: ignore[attr-defined]
    found.filters |= {
        "size": words.size,
        "duration": words.duration,
        "number": words.number,
        "moment": words.moment,
        "ago": words.ago,
        "oneline": one_line,
        "translated": words.text,
        "shown": words.shown,
        "told": words.message,
        "is_own": words.is_own,
    }
    found.globals |= {"asset": asset, "language": language, "problems_by_type": PROBLEMS_BY_TYPE}
    return found


def reader() -> Principal | None:
    """Return who reads the present page; None on pages for everybody."""
    found: Principal | None = g.get("principal")
    return found


def gets_buttons(who: Principal, app: str) -> bool:
    """Return True for a reader who may steer the app, and has the session that forms need."""
    return decide(who, Act.STEER, app) is Verdict.ALLOWED and bool(who.session)


def language() -> Language:
    """Return the language of the present request: that of its address, which scripts use, or that of the switch."""
    chosen = request.args.get("language", "") or request.cookies.get(COOKIE, "")
    return wanted_language(chosen, request.headers.get("Accept-Language", ""))


def words() -> Wording:
    return wording(language())


def is_stale() -> bool:
    """Return True if the daemon does not respond, so that nothing that is shown changes any more."""
    beat = context(current_app).store.last_heartbeat()
    return beat is None or time.time() - beat > STALE


def one_line(text: str) -> str:
    """Return the first line of a text."""
    return text.strip().partition("\n")[0]


def wants_page() -> bool:
    """Return True if the caller prefers a page to a document."""
    return request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html"
