"""Problems as pages, for a person who has opened something in a window. Programs and scripts get the document.

Used by the Flask application and, on the event loop, by the gateway for what is below /-/. It needs neither the store
nor the accounts, which may be what has failed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from controller.domain.localizable import changed
from controller.domain.text import printable
from controller.web.auth.admin import ClientInfo
from controller.web.auth.people import is_window
from controller.web.pages.languages import COOKIE, N_, wanted_language
from controller.web.pages.problem_words import meaning_of
from controller.web.pages.rendering import CONTENT_TYPE, PageFrame, policy, render
from controller.web.problems import HttpProblem, ProblemKind

TITLES: Final[Mapping[int, str]] = {
    400: N_("The request was not understood"),
    403: N_("You may not do this"),
    404: N_("There is nothing here"),
    405: N_("This does not work here"),
    409: N_("Not possible at the moment"),
    429: N_("Too many attempts"),
    500: N_("The platform failed"),
    503: N_("Not available at the moment"),
}
OTHER: Final = N_("This did not work")
ADVICE: Final[Mapping[int, str]] = {
    403: N_("Ask an administrator for a role, or sign in with another account."),
    404: N_("It may have been removed, or you may not see it. Check the address."),
    500: N_("It is in the platform's log under the number of this request. Tell an administrator."),
    503: N_("Apps that run keep answering. Try again in a moment; if it stays so, tell an administrator."),
}
STORAGE: Final = N_("Files cannot be reached at the moment. Everything else works.")
_STORAGE_KINDS: Final = (
    ProblemKind.STORAGE_UNREACHABLE,
    ProblemKind.STORAGE_REFUSED,
    ProblemKind.BUCKET_MISSING,
)


def wants_problem_page(client: ClientInfo) -> bool:
    """Return True for a window, and for a form that was sent from one."""
    is_ours = client.path == "/" or client.path.startswith("/-/")
    is_form = client.method == "POST" and client.headers.get("sec-fetch-dest") == "document"
    return is_ours and (is_window(client) or is_form)


def problem_page(
    problem: HttpProblem, client: ClientInfo, request: str
) -> tuple[list[tuple[str, str]], bytes]:
    """Return header fields and body. `request` is its id."""
    cookies = (part.strip().partition("=") for part in client.headers.get("cookie", "").split(";"))
    chosen = next((value for name, _, value in cookies if name == COOKIE), "")
    language = wanted_language(chosen, client.headers.get("accept-language", ""))
    # Navigation for somebody who may have signed in: each page judges by itself.
    place = client.path if client.method == "GET" else "/-/"
    frame = PageFrame(language, secrets.token_urlsafe(16), place, via="?")
    values = {
        "frame": frame,
        "title": TITLES.get(problem.code, OTHER),
        "status": problem.code,
        "meaning": meaning_of(problem),
        "detail": changed(problem.detail, printable),
        "advice": STORAGE if problem.kind in _STORAGE_KINDS else ADVICE.get(problem.code, ""),
        "request": request,
    }
    text = render("problem.html", language, values).encode()
    fields = [field for field in problem.headers() if field[0] not in ("content-type", "www-authenticate")]
    csp = policy(frame.nonce)
    return [("content-type", CONTENT_TYPE), ("content-security-policy", csp), *fields], text
