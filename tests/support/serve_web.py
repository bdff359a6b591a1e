"""`python -m tests.support.serve_web STATE DESCRIPTOR`: the web process as `prichal web` runs it, on a listening socket
that it finds the way systemd hands one over (sd_listen_fds(3))."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controller.adapters.objects import S3Objects
from controller.config import Settings, WebSettings
from controller.domain.secret import Secret
from controller.logs import configure
from controller.web.server import run


def settings_of(state: Path) -> Settings:
    return Settings(
        state=state, web=WebSettings(workers=2, admin_token=Secret("letmein-token"), max_body=2**20)
    )


if __name__ == "__main__":
    os.dup2(int(sys.argv[2]), 3)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    settings = settings_of(Path(sys.argv[1]))
    configure("INFO", "text")
    run(settings, S3Objects.of)
