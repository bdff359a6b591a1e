"""Maps paths to the answers of a worker."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Optional

from . import http1, problems
from .config import ServingSettings
from .connection import ClientConnection
from .http1 import HttpRequest, HttpResponse
from .limiter import ConcurrencyLimiter
from .loading import InferenceFunction
from .metrics import ProcessMetrics, SharedMetrics
from .oip import MODEL_VERSION, OpenInference
from .openai import COMPLETIONS, MODELS, OpenAIChat
from .plain_json import dumps
from .predict import Predictor
from .problems import ServingProblem

Route = Callable[[HttpRequest], HttpResponse]
Call = Callable[[HttpRequest, ClientConnection], HttpResponse]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class WorkerRoutes:
    """Answers one request: the handler of every connection."""

    def __init__(
        self,
        settings: ServingSettings,
        inference: InferenceFunction,
        predictor: Predictor,
        gate: ConcurrencyLimiter,
        board: SharedMetrics,
        row: ProcessMetrics,
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._predictor = predictor
        self._gate = gate
        self._board = board
        self._row = row
        self._oip = OpenInference(settings.component, inference.signature, predictor)
        model = f"/v2/models/{settings.component}"
        version = f"{model}/versions/{MODEL_VERSION}"
        self._post: dict[str, Call] = {
            "/predict": self._predictor.predict,
            f"{model}/infer": self._oip.infer,
            f"{version}/infer": self._oip.infer,
            "/v2/repository/index": self._index,
        }
        self._get: dict[str, Route] = {
            "/health/live": lambda _: _json({"live": True}),
            "/health/ready": self._ready,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            "/metrics": self._metrics,
            "/v2": lambda _: _json(self._oip.server()),
            "/v2/health/live": lambda _: _json({"live": True}),
            "/v2/health/ready": self._ready,
            model: lambda _: _json(self._oip.metadata()),
            f"{model}/ready": self._ready,
            version: lambda _: _json(self._oip.metadata()),
            f"{version}/ready": self._ready,
        }

        self._chat: Optional[OpenAIChat] = None
        if settings.openai:
            chat = self._chat = OpenAIChat(settings.app, settings.component, inference.signature, predictor)
            self._post[COMPLETIONS] = chat.complete
            self._get[MODELS] = lambda _: _json(chat.models())

    def handle(self, request: HttpRequest, connection: ClientConnection) -> HttpResponse:
        """Raises ServingProblem and Abandoned, as the connection expects."""
        if request.method == "POST" and request.path in self._post:
            return self._post[request.path](request, connection)
        try:
            response = self._other(request)
        except ServingProblem as problem:
            self._row.answered(problem.kind.status)
            raise
        self._row.answered(response.status)
        return response

    def _other(self, request: HttpRequest) -> HttpResponse:
        route = self._get.get(request.path) or self._model_route(request.path)
        if route is None and request.path not in self._post:
            raise ServingProblem(
                problems.NOT_FOUND,
                f"there is nothing at {request.path[:200]}; /docs describes this component",
            )
        if route is not None and request.method in ("GET", "HEAD"):
            return route(request)
        return http1.other_method(request, "POST" if route is None else "GET, HEAD")

    def _model_route(self, path: str) -> Optional[Route]:
        """Of a model of OpenAI's API, whichever it is: clients tell an unknown model from an unknown path."""
        chat, (folder, _, name) = self._chat, path.rpartition("/")
        if chat is None or folder != MODELS:
            return None
        return lambda _: _json(chat.model(name))

    def _index(self, _: HttpRequest, __: ClientConnection) -> HttpResponse:
        self._row.answered(200)
        return _json(self._oip.index())

    def _ready(self, _: HttpRequest) -> HttpResponse:
        """Ready: set-up is done, which is why this code runs, and at least one slot of the container is free or
        moving."""
        self._row.load(*self._gate.counts())
        self._row.exhaust(self._gate.exhausted_since() is not None)
        if self._board.exhausted:
            detail = problems.exhausted(self._settings.component, self._inference.name)
            raise ServingProblem(problems.NOT_READY, detail, retry_after=1)
        return self._board.ready_response()

    def _metrics(self, _: HttpRequest) -> HttpResponse:
        self._row.load(*self._gate.counts())
        return HttpResponse(200, self._board.text().encode(), METRICS_TYPE)

    def _openapi(self, request: HttpRequest) -> HttpResponse:
        from .later import with_later_answers
        from .openapi import secured

        described = self._description
        schemes = request.headers.get(b"x-prichal-security")  # of the gateway
        if schemes is not None:
            described = secured(with_later_answers(described), schemes)
        return HttpResponse(200, dumps(described, ensure_ascii=False).encode())

    def _docs(self, _: HttpRequest) -> HttpResponse:
        from .docs_page import CONTENT_SECURITY_POLICY, render  # here: most workers never show it

        page = render(self._description).encode()
        policy = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return HttpResponse(200, page, "text/html; charset=utf-8", [policy])

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        from .openapi import document

        title = f"{self._settings.app}/{self._settings.component}"
        found = self._inference
        return document(
            found.signature,
            title,
            yields=found.yields,
            chat=self._chat is not None,
            refusals=found.refusals,
        )


def _json(value: Any) -> HttpResponse:
    return HttpResponse(200, dumps(value).encode())
