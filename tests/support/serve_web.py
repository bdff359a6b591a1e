"""`python -m tests.support.serve_web STATE DESCRIPTOR`: the web process as `prichal web` runs it, on a listening socket
that it finds the way systemd hands one over (sd_listen_fds(3))."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.adapters.objects import S3Objects
from controller.config import Settings, SignInSettings, TracingSettings, WebSettings
from controller.config.openid import read_issuers
from controller.config.settings import CallSettings, StorageSettings
from controller.domain.secret import Secret
from controller.logging_setup import configure
from controller.web.server import run
from tests.support.ports import free_port


def with_web(state: Path, **options: Any) -> None:
    """What differs from the usual for the process that is started on this state: options of WebSettings, `oidc` as in
    the configuration, `calls` with those of CallSettings, `tracing` with those of TracingSettings,
    `access` with those of the access log, and the `backend` of the storage."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "options.json").write_text(json.dumps(options))


def settings_of(state: Path) -> Settings:
    """Links to files are served at an address of this state's own."""
    options = state / "options.json"
    more = json.loads(options.read_text()) if options.exists() else {}
    people = SignInSettings(oidc=read_issuers(more.pop("oidc", []), state))  # type: ignore[arg-type]
    calls = CallSettings(**more.pop("calls", {}))
    tracing = TracingSettings(**more.pop("tracing", {}))
    access = more.pop("access", {})
    web = WebSettings(workers=2, admin_token=Secret("letmein-token"), max_body=2**20, trust_loopback=True)
    storage = StorageSettings(listen=objects_address(state), backend=more.pop("backend", "embedded"))
    web = replace(web, **more)
    found = Settings(state=state, web=web, storage=storage, sign_in=people, calls=calls, tracing=tracing)
    if not access:
        return found
    return replace(found, access_log=access["access_log"], access_file=Path(access["access_file"]))


def objects_address(state: Path) -> str:
    noted = state / "objects-address"
    if not noted.exists():
        noted.write_text(f"127.0.0.1:{free_port()}")
    return noted.read_text()


if __name__ == "__main__":
    os.dup2(int(sys.argv[2]), 3)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    settings = settings_of(Path(sys.argv[1]))
    configure("INFO", "text")
    run(settings, S3Objects.of)
