"""The chat API of OpenAI (``/v1/chat/completions``, ``/v1/models``), for its existing clients: the component is a model
with its own name. Every problem below ``/v1`` has the member ``error`` that these clients read.
"""

from __future__ import annotations

import time
from typing import Any, Optional

from .call_states import PredictCaller
from .chat import ChatAnswer, ChatReader, content_of, unknown_model
from .http1 import HttpRequest, HttpResponse
from .json_body import decode
from .predict import Predictor
from .signature import Signature
from .streams import EventWriter

COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/models"


class OpenAIChat:
    """Serves one component as a model of the API."""

    def __init__(self, app: str, name: str, signature: Signature, predictor: Predictor) -> None:
        self._app = app
        self._name = name
        self._created = int(time.time())
        self._predictor = predictor
        self._content = content_of(signature)
        self._reader = ChatReader(name, signature, predictor.check)

    def model(self, asked: Optional[str] = None) -> dict[str, Any]:
        """GET /v1/models/<name>. Raises ServingProblem."""
        if asked not in (None, self._name):
            raise unknown_model(str(asked), self._name)
        return {"id": self._name, "object": "model", "created": self._created, "owned_by": self._app}

    def models(self) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [self.model()]}

    def complete(self, request: HttpRequest, caller: PredictCaller) -> HttpResponse:
        """POST /v1/chat/completions. Raises ServingProblem, Abandoned, Disconnected."""
        call = ChatCall(self._name, self._reader, self._content)
        return self._predictor.answer(request, call.read, lambda _: [], call.write, caller, call.events)


class ChatCall:
    """One call, from its request to its answer."""

    def __init__(self, name: str, reader: ChatReader, content: str) -> None:
        self._content = content
        self._name = name
        self._reader = reader
        self._stream = False
        self._answer: Optional[ChatAnswer] = None

    def read(self, request: HttpRequest) -> dict[str, Any]:
        """Raises ServingProblem."""
        chat = self._reader.read(decode(request))
        self._stream = chat.stream
        self._answer = ChatAnswer(self._name, request.id, int(time.time()), chat.include_usage, self._content)
        return chat.call

    def events(self) -> Optional[EventWriter]:
        return self._answer if self._stream else None

    def write(self, reply: dict[str, Any]) -> HttpResponse:
        """Raises BadOutput."""
        assert self._answer is not None
        return HttpResponse(200, self._answer.completion(reply))
