"""Dry runs of requests: `POST /-/dry-run/apps/demo/suspend` is admitted, checked and answered as
`POST /-/apps/demo/suspend`, by the same code, and what it writes to the store is rolled back.

A path of its own, and not a parameter: a server that does not know dry runs answers 404 to it, and would ignore a
parameter and do what it is asked for. Only requests whose effects are all in the store can be tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import current_app, request
from flask.typing import ResponseReturnValue

from controller.web.context import context
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

PREFIX: Final = "/-/dry-run"
_DRY: Final = "prichal.dry_run"  # of the environment, which callers cannot set
ROUTES: Final = frozenset(
    {
        *(
            ("POST", f"/-/apps/<name>/{act}")
            for act in ("reconcile", "retry", "suspend", "resume", "rollback", "approve", "age-keys")
        ),
        ("POST", "/-/apps/<name>/previews/<preview>/keep"),
        ("POST", "/-/apps/<name>/previews/<preview>/remove"),
        ("POST", "/-/apps/<name>/notifications/<notification>/test"),
        ("POST", "/-/apps"),
        ("DELETE", "/-/apps/<name>"),
        ("PUT", "/-/apps/<name>/secrets/<secret>"),
        ("DELETE", "/-/apps/<name>/secrets/<secret>"),
    }
)


def without_prefix(wsgi: Any) -> Any:
    """Wrap an application, which then finds dry runs under the path of the request itself."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path: str = environ["PATH_INFO"]
        if path.startswith(f"{PREFIX}/"):
            environ = {**environ, "PATH_INFO": f"/-{path.removeprefix(PREFIX)}", _DRY: True}
        return wsgi(environ, start_response)

    return application


def is_dry_run() -> bool:
    """Return True if what the present request writes is rolled back."""
    return bool(request.environ.get(_DRY))


def dispatched(view: Callable[[], ResponseReturnValue]) -> ResponseReturnValue:
    """Answer the present request by the view. Raises RequestRefused for a dry run of what cannot be tried."""
    if not is_dry_run():
        return view()
    route = request.url_rule.rule if request.url_rule is not None else ""
    if (request.method, route) not in ROUTES:
        detail = "This cannot be tried without doing it."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    with context(current_app).store.dry_run():
        return current_app.make_response(view())
