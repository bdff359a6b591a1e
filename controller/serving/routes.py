"""What a worker answers at which path."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from . import VERSION, problems
from .config import Settings
from .connection import Connection
from .gate import Gate
from .http1 import Request, Response
from .loading import Inference
from .metrics import Board, Row
from .oip import OpenInference
from .predict import Predictor
from .problems import Problem

Route = Callable[[], Response]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Routes:
    """Answers one request: the handler of every connection."""

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        predictor: Predictor,
        gate: Gate,
        board: Board,
        row: Row,
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
            "/health/live": lambda: _json({"live": True}),
            "/health/ready": self._ready,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
            "/metrics": self._metrics,
            "/v2": lambda: _json({"name": "prichal", "version": VERSION, "extensions": []}),
            "/v2/health/live": lambda: _json({"live": True}),
            "/v2/health/ready": self._ready,
            model: lambda: _json(self._oip.metadata()),
            f"{model}/ready": self._ready,
        }

    def handle(self, request: Request, connection: Connection) -> Response:
        """Raises Problem and Abandoned, as the connection expects."""
        if request.method == "POST" and request.path in ("/predict", self._infer_path):
            answer = functools.partial(connection.answer_overdue, call_id=request.id)
            if request.path == "/predict":
                return self._predictor.predict(request, answer)
            return self._oip.infer(request, answer)
        try:
            response = self._other(request)
        except Problem as problem:
            self._row.answered(problem.kind.status)
            raise
        self._row.answered(response.status)
        return response

    def _other(self, request: Request) -> Response:
        route = self._get.get(request.path)
        if route is None and request.path not in ("/predict", self._infer_path):
            raise Problem(
                problems.NOT_FOUND,
                f"there is nothing at {request.path[:200]}; /docs describes this component",
            )
        if route is not None and request.method in ("GET", "HEAD"):
            return route()
        allowed = "POST" if route is None else "GET, HEAD"
        detail = f"{request.path} takes {allowed}, not {request.method[:40]}"
        raise Problem(problems.METHOD, detail, headers=[("Allow", allowed)])

    def _ready(self) -> Response:
        """Ready: set-up is done, which is why this code runs, and at least one slot is free or moving."""
        running, waiting, overdue = self._gate.counts()
        if self._gate.exhausted_since() is not None:
            what = f"calls of {self._inference.name} past their timeout hold every slot"
            detail = f"component {self._settings.component}: {what}"
            raise Problem(problems.NOT_READY, detail, retry_after=1)
        return _json({"ready": True, "running": running, "waiting": waiting, "overdue": overdue})

    def _metrics(self) -> Response:
        self._row.load(*self._gate.counts())
        return Response(200, self._board.text().encode(), METRICS_TYPE)

    def _openapi(self) -> Response:
        return Response(200, self._description)

    def _docs(self) -> Response:
        from .docs_page import CONTENT_SECURITY_POLICY, render  # here: most workers never show it

        page = render(json.loads(self._description)).encode()
        policy = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return Response(200, page, "text/html; charset=utf-8", [policy])

    @functools.cached_property
    def _description(self) -> bytes:
        from .openapi import document

        title = f"{self._settings.app}/{self._settings.component}"
        return json.dumps(document(self._inference.signature, title), ensure_ascii=False).encode()


def _json(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())
