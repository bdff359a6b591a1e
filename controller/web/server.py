"""gunicorn as a library: the arbiter and workers of the web process. Called by `prichal web`.

gunicorn itself takes over listening sockets from systemd (`LISTEN_FDS`), tells systemd when it is ready, reloads
gracefully on SIGHUP and stops gracefully on SIGTERM.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from controller.config import Settings
from controller.web.asgi import Application
from controller.web.gateway import meter
from controller.web.storage import Connect

KEEP_ALIVE = 10  # seconds that an idle connection is kept; a stopping worker waits for it as long
GRACEFUL = (
    75  # seconds that calls under way get when a worker stops: the default limit of a call, and some more
)
STALLED = 60  # seconds without a sign from a worker's event loop, after which it is replaced


class Log(Logger):  # type: ignore[misc]
    """gunicorn's log goes where ours goes, in the same format."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class GatewayWorker(ASGIWorker):  # type: ignore[misc]
    """gunicorn's own ASGI worker, which tells the application of a stop in time: long polls and event streams would
    otherwise hold a stopping worker until they are cut off."""

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self.asgi.begin_stop()


class Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Application:
        return Application(self._settings, self._connect)


def run(settings: Settings, connect: Connect) -> None:
    """Serve until a signal; exits the process. `connect` makes a client of the object storage."""
    Server(settings, connect).run()


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings, each that differs from its default for a reason."""
    folder = settings.state / "web"
    return {
        "bind": settings.web.listen,
        "workers": settings.web.workers,
        "worker_class": "controller.web.server.GatewayWorker",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        # A caller who leaves ends his call at once: the component's connection is closed with it.
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
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # never a disk
        "logger_class": "controller.web.server.Log",
        "loglevel": settings.log_level.lower(),
        "post_fork": lambda _server, _worker: _die_of_signals(),
        "on_starting": lambda _server: meter.clear(folder),
        "child_exit": lambda _server, worker: _retire(folder, worker.pid),
    }


def _die_of_signals() -> None:
    """A worker inherits the arbiter's handlers, which would swallow a signal that comes before the worker has set its
    own; the arbiter sends SIGTERM once, so a stop right after a start would last until the graceful timeout."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _retire(folder: Path, process: int) -> None:
    """A worker has ended; that its counts may not be kept must not take the arbiter down."""
    try:
        meter.retire(folder, process)
    except OSError:
        return
