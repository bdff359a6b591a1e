"""What an inference function may ask about its call."""

from __future__ import annotations

import time
from typing import Any, Optional

from .http1 import HttpRequest
from .scratch import CallFolder


class CallContext:
    """The function's argument ``context``: facts about the call.

    ``user``: the caller's name if the API passes it on, else None; ``request_id``; ``traceparent`` and
    ``tracestate`` (W3C) as sent; ``parameters`` and ``model_key`` of the request; ``deadline``:
    time.monotonic() at which the caller is told that the call timed out.
    """

    __slots__ = (
        "_folder",
        "deadline",
        "model_key",
        "parameters",
        "request_id",
        "traceparent",
        "tracestate",
        "user",
    )

    def __init__(
        self,
        request: HttpRequest,
        user: Optional[str],
        body: dict[str, Any],
        deadline: float,
        folder: CallFolder,
    ) -> None:
        self._folder = folder
        self.user = user
        self.request_id = request.id
        self.traceparent = request.header(b"traceparent")
        self.tracestate = request.header(b"tracestate")
        self.parameters = body.get("parameters") or []
        self.model_key = body.get("model_key", "default")
        self.deadline = deadline

    def remaining(self) -> float:
        """Seconds left until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def folder(self) -> str:
        """A folder for this call alone, say for its FILE outputs; it is removed when the call is over."""
        return self._folder.path()
