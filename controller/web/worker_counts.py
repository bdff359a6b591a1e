"""What a worker counts and logs of the requests that it has answered: metrics, the access log and the end of traces."""

from __future__ import annotations

import asyncio
import os
import time

from controller.store.request_metrics import RequestMetrics, worker_file
from controller.web.access_log import AccessEntry, AccessLog
from controller.web.inbound_request import InboundRequest, measure_size
from controller.web.worker_context import WorkerContext


class WorkerCounts:
    def __init__(self, context: WorkerContext, metrics: RequestMetrics) -> None:
        settings = context.settings
        self._context = context
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        is_logged = settings.access_log != "off"
        self._access = AccessLog(settings.access_log, settings.access_file) if is_logged else None
        self.file = worker_file(settings.request_counts, os.getpid())

    def start(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        if self._access is not None:
            await asyncio.to_thread(self._access.close)
        self.write()

    def measure(self, request: InboundRequest) -> None:
        """Measure the response's size from now on, if the access log shows it."""
        if self._access is not None:
            request.send = measure_size(request.send, request)

    def begin(self, request: InboundRequest) -> None:
        self._metrics.begin(request.label)

    def end(self, request: InboundRequest) -> None:
        """Count and log the request as answered, once."""
        if not request.counted:
            request.counted = True
            self._metrics.end(request.label, request.answered.status, self._loop.time() - request.began)
            if self._access is not None:
                self._access.add(self._entry(request))
            if request.trace is not None:
                request.trace.end(request.answered.status)

    def count(self, label: str, status: int, seconds: float) -> None:
        """Count what was answered elsewhere."""
        self._metrics.observe(label, status, seconds)

    def write(self) -> None:
        """Write the counts of this worker to its file."""
        if self._access is not None:
            self._metrics.access_lines_dropped(self._access.dropped)
        self._metrics.spans_dropped(self._context.tracer.dropped())
        self._metrics.flush(self.file)

    def _entry(self, request: InboundRequest) -> AccessEntry:
        scope = request.scope
        context = request.trace.context if request.trace is not None else None
        fields = {name: value for name, value in scope["headers"] if name in (b"referer", b"user-agent")}
        seconds = self._loop.time() - request.began
        return AccessEntry(
            time.time() - seconds,
            seconds,
            self._context.origin(request).caller.decode("latin-1"),
            request.user,
            scope["method"],
            scope["raw_path"].decode("utf-8", "surrogateescape"),
            f"HTTP/{scope['http_version']}",
            request.answered.status,
            request.size,
            fields.get(b"referer", b"").decode("utf-8", "surrogateescape"),
            fields.get(b"user-agent", b"").decode("utf-8", "surrogateescape"),
            request.identity.decode(),
            request.label,
            context.trace if context else "",
        )
