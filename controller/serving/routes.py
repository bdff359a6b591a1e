"""Maps paths to the answers of a worker."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from . import VERSION, problems
from .config import ServingSettings
from .connection import ClientConnection
from .http1 import HttpRequest, HttpResponse
from .limiter import ConcurrencyLimiter
from .loading import InferenceFunction
from .metrics import ProcessMetrics, SharedMetrics
from .oip import OpenInference
from .predict import Predictor
from .problems import ServingProblem

Route = Callable[[HttpRequest], HttpResponse]
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
        self._infer_path = f"{model}/infer"
        self._get: dict[str, Route] = {
            "/health/live": lambda _: _json({"live": True}),
            "/health/ready": self._ready,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            "/metrics": self._metrics,
            "/v2": lambda _: _json({"name": "prichal", "version": VERSION, "extensions": []}),
            "/v2/health/live": lambda _: _json({"live": True}),
            "/v2/health/ready": self._ready,
            model: lambda _: _json(self._oip.metadata()),
            f"{model}/ready": self._ready,
        }

    def handle(self, request: HttpRequest, connection: ClientConnection) -> HttpResponse:
        """Raises ServingProblem and Abandoned, as the connection expects."""
        if request.method == "POST" and request.path in ("/predict", self._infer_path):
            if request.path == "/predict":
                return self._predictor.predict(request, connection)
            return self._oip.infer(request, connection)
        try:
            response = self._other(request)
        except ServingProblem as problem:
            self._row.answered(problem.kind.status)
            raise
        self._row.answered(response.status)
        return response

    def _other(self, request: HttpRequest) -> HttpResponse:
        route = self._get.get(request.path)
        if route is None and request.path not in ("/predict", self._infer_path):
            raise ServingProblem(
                problems.NOT_FOUND,
                f"there is nothing at {request.path[:200]}; /docs describes this component",
            )
        if route is not None and request.method in ("GET", "HEAD"):
            return route(request)
        allowed = "POST" if route is None else "GET, HEAD"
        detail = f"{request.path} takes {allowed}, not {request.method[:40]}"
        raise ServingProblem(problems.METHOD, detail, headers=[("Allow", allowed)])

    def _ready(self, _: HttpRequest) -> HttpResponse:
        """Ready: set-up is done, which is why this code runs, and at least one slot is free or moving."""
        running, waiting, overdue = self._gate.counts()
        if self._gate.exhausted_since() is not None:
            what = f"calls of {self._inference.name} past their timeout hold every slot"
            detail = f"component {self._settings.component}: {what}"
            raise ServingProblem(problems.NOT_READY, detail, retry_after=1)
        return _json({"ready": True, "running": running, "waiting": waiting, "overdue": overdue})

    def _metrics(self, _: HttpRequest) -> HttpResponse:
        self._row.load(*self._gate.counts())
        return HttpResponse(200, self._board.text().encode(), METRICS_TYPE)

    def _openapi(self, request: HttpRequest) -> HttpResponse:
        from .openapi import secured

        schemes = request.headers.get(b"x-prichal-security", b"")
        return HttpResponse(200, json.dumps(secured(self._description, schemes), ensure_ascii=False).encode())

    def _docs(self, _: HttpRequest) -> HttpResponse:
        from .docs_page import CONTENT_SECURITY_POLICY, render  # here: most workers never show it

        page = render(self._description).encode()
        policy = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return HttpResponse(200, page, "text/html; charset=utf-8", [policy])

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        from .openapi import document

        title = f"{self._settings.app}/{self._settings.component}"
        return document(self._inference.signature, title)


def _json(value: Any) -> HttpResponse:
    return HttpResponse(200, json.dumps(value).encode())
