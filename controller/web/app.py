"""The Flask application: webhooks, status, metrics, the page for people, and the services that the platform
answers itself. Made by the ASGI application, which passes it everything below `/-/` that need not be answered
on the event loop, and calls of services below their kind (`/files/…`, `/pipeline/…`), where no request from
outside can lead; also usable by itself in tests.

Every error leaves as problem+json, Flask's own ones too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Flask, Response
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Rule

from controller.config import Settings
from controller.domain.errors import ControllerError
from controller.ports import Store
from controller.web.api.files.views import files
from controller.web.api.platform.admission import admit_requests
from controller.web.api.platform.branch_previews import branch_previews
from controller.web.api.platform.components import components
from controller.web.api.platform.files import app_files
from controller.web.api.platform.hooks import hooks
from controller.web.api.platform.images import images
from controller.web.api.platform.me import me
from controller.web.api.platform.new_apps import new_apps
from controller.web.api.platform.notifications import notifications
from controller.web.api.platform.people import people
from controller.web.api.platform.pipelines import pipelines
from controller.web.api.platform.secrets import secrets
from controller.web.api.platform.status import status
from controller.web.api.platform.users import users
from controller.web.api.runs.views import runs
from controller.web.context import bind
from controller.web.dry_run import dispatched, without_prefix
from controller.web.pages.apps import apps_pages
from controller.web.pages.device import device
from controller.web.pages.health import health_pages
from controller.web.pages.language_switch import languages
from controller.web.pages.new_app import new_app_pages
from controller.web.pages.openid import openid
from controller.web.pages.sign_in import sign_in
from controller.web.pages.static_files import static_files
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import problem_response, store_failed, this_request
from controller.web.storage import StorageClient

log = logging.getLogger(__name__)

INTERNAL = "The platform failed; the log has more under this request's id."

_KINDS = {
    404: ProblemKind.NOT_FOUND,
    405: ProblemKind.METHOD,
    413: ProblemKind.TOO_LARGE,
    415: ProblemKind.MEDIA_TYPE,
    500: ProblemKind.INTERNAL,
}


class LazyRule(Rule):
    """A rule that compiles the functions which make its address when they are first called. Werkzeug compiles those of
    every rule at once, which takes six times as long as all else here, and the platform writes its addresses itself."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(super()._compile_builder)

        def build(rule: Rule, /, **values: object) -> tuple[str, str]:
            return compiled(append_unknown)(rule, **values)

        return build


class PlatformFlask(Flask):
    """Flask, whose answer to `OPTIONS` has neither content nor its type, as everywhere else, and which rolls dry runs
    back."""

    url_rule_class = LazyRule

    def dispatch_request(self) -> ResponseReturnValue:
        return dispatched(super().dispatch_request)

    def make_default_options_response(self) -> Response:
        answer = super().make_default_options_response()
        answer.status_code = 204
        answer.headers.pop("Content-Type", None)
        return answer


def create_app(store: Store, settings: Settings, storage: StorageClient) -> Flask:
    app = PlatformFlask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a path means one thing
    bind(app, store, settings, storage)
    app.wsgi_app = without_prefix(_accept_chunked(app.wsgi_app))  # type: ignore[method-assign]
    admit_requests(app)
    app.register_blueprint(hooks)
    app.register_blueprint(status)
    app.register_blueprint(components)
    app.register_blueprint(apps_pages)
    app.register_blueprint(health_pages)
    app.register_blueprint(languages)
    app.register_blueprint(static_files)
    app.register_blueprint(sign_in)
    app.register_blueprint(openid)
    app.register_blueprint(device)
    app.register_blueprint(people)
    app.register_blueprint(pipelines)
    app.register_blueprint(app_files)
    app.register_blueprint(me)
    app.register_blueprint(secrets)
    app.register_blueprint(notifications)
    app.register_blueprint(images)
    app.register_blueprint(branch_previews)
    app.register_blueprint(users)
    app.register_blueprint(new_apps)
    app.register_blueprint(new_app_pages)
    app.register_blueprint(files)
    app.register_blueprint(runs)
    app.register_error_handler(RequestRefused, lambda error: problem_response(error.problem))
    app.register_error_handler(ControllerError, store_failed)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)
    return app


def _accept_chunked(wsgi: Any) -> Any:
    """The server has taken the chunked coding off, so the input ends where the body ends. Without this, Flask would
    read nothing of a body that has no `Content-Length`."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input_terminated"] = True
        return wsgi(environ, start_response)

    return application


def _http_error(error: HTTPException) -> Response:
    if error.response is not None or error.code is None or error.code < 400:
        return Response(error.get_body(), error.code, list(error.get_headers()))  # a redirect
    kind = _KINDS.get(error.code, ProblemKind.HTTP)
    title = "" if kind is not ProblemKind.HTTP else error.name
    detail = error.description or kind.title
    allow = ", ".join(sorted(error.valid_methods or ())) if isinstance(error, MethodNotAllowed) else ""
    return problem_response(HttpProblem(kind, detail, allow=allow, status=error.code, title=title))


def _bug(error: Exception) -> Response:
    log.error("a view failed", exc_info=error, extra={"request": this_request()})
    return problem_response(HttpProblem(ProblemKind.INTERNAL, INTERNAL))
