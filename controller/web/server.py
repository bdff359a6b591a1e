"""gunicorn as a library: the arbiter and workers of the web process. Called by `prichal web`.

gunicorn itself takes over listening sockets from systemd (`LISTEN_FDS`), tells systemd when it is ready, reloads
gracefully on SIGHUP and stops gracefully on SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from controller import memory
from controller.config import Settings
from controller.store import request_metrics
from controller.store.first_admin import prepare_people
from controller.web.asgi import Application
from controller.web.auth.token import with_token
from controller.web.connections import install
from controller.web.objects.listen import ListenSocket
from controller.web.storage import Connect

KEEP_ALIVE = 10  # seconds that an idle connection is kept; a stopping worker waits for it as long
#: Seconds that calls under way get when a worker stops: the default limit of a call, and some more.
GRACEFUL = 75
STALLED = 60  # seconds without a sign from a worker's event loop, after which it is replaced


FAILED = 1  # exit code: the supervisor of the web process restarts it
PAUSE = 1.0  # seconds before a worker in place of one that could not start

log = logging.getLogger(__name__)


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's log goes where ours goes, in the same format."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class GatewayWorker(ASGIWorker):  # type: ignore[misc]
    """gunicorn's own ASGI worker, which tells the application of a stop in time: long polls and event streams would
    otherwise hold a stopping worker until they are cut off."""

    def init_process(self) -> None:
        """Restart a worker that cannot start (because the database is locked, say) after a pause: gunicorn would
        end all other workers, which serve. At the first start there are none."""
        memory.give_back_for_ever()
        try:
            super().init_process()
        except SystemExit as end:
            if end.code != Arbiter.WORKER_BOOT_ERROR or self.age <= self.cfg.workers:
                raise
            time.sleep(PAUSE)
            sys.exit(FAILED)

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self.asgi.begin_stop()


class WorkerArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter, which starts workers again. It remembers whom it has told to stop: the others are counted."""

    def __init__(self, app: WebServer) -> None:
        self.stopped: set[int] = set()
        super().__init__(app)

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in (signal.SIGTERM, signal.SIGQUIT):
            self.stopped.add(pid)
        super().kill_worker(pid, sig)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """gunicorn's own codes mean something else here (cli/exits.py), and systemd would leave the process down."""
        super().halt(reason, FAILED if exit_status else 0)


class WebServer(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        self._object_socket = ListenSocket(
            settings.storage.listen if settings.storage.backend != "none" else ""
        )
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("pre_fork", lambda _server, _worker: self._object_socket.open())

    def load(self) -> Application:
        return Application(self._settings, self._connect, self._object_socket.socket)


def run(settings: Settings, connect: Connect) -> None:
    """Serve until a signal; exits the process. `connect` makes a client of the object storage."""
    memory.keep_little()
    install()
    prepare_people(settings)
    WorkerArbiter(WebServer(with_token(settings), connect)).run()


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings, each that differs from its default for a reason."""
    folder = settings.state / "web"
    return {
        "bind": settings.web.listen,
        "workers": settings.web.workers,
        "worker_class": f"{__name__}.{GatewayWorker.__name__}",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        # A call ends as soon as its caller disconnects: the component's connection is closed with it.
        "asgi_disconnect_grace_period": 0,
        # One parser whatever else is installed: its strictness is tested here.
        "http_parser": "python",
        "limit_request_line": 8190,
        "keepalive": KEEP_ALIVE,
        "graceful_timeout": GRACEFUL,
        "timeout": STALLED,
        "backlog": 1024,
        "proc_name": "prichal-web",
        # Whose X-Forwarded-Proto is believed; nobody may set SCRIPT_NAME and the like.
        "forwarded_allow_ips": ",".join(settings.web.trusted_proxies) or "",
        "forwarder_headers": "",
        # The default opens one below the home folder, which a service has not.
        "control_socket_disable": True,
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108 - never a disk
        "logger_class": f"{__name__}.{GunicornLog.__name__}",
        "loglevel": settings.log_level.lower(),
        "post_fork": lambda _server, _worker: _die_of_signals(),
        "on_starting": lambda _server: request_metrics.clear(folder),
        "child_exit": lambda server, worker: _retire(folder, server, worker.pid),
    }


def _die_of_signals() -> None:
    """A worker inherits the arbiter's handlers, which would swallow a signal that comes before the worker has set its
    own; the arbiter sends SIGTERM once, so a stop right after a start would last until the graceful timeout."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _retire(folder: Path, server: WorkerArbiter, process: int) -> None:
    """A worker has ended; that its counts may not be kept must not take the arbiter down."""
    unexpected = process not in server.stopped
    server.stopped.discard(process)
    if unexpected:
        log.error(
            "a web worker ended although nobody stopped it; another one is started", extra={"pid": process}
        )
    try:
        request_metrics.retire(folder, process, unexpected)
    except OSError:
        return
