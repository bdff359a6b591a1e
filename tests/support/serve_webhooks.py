"""`python -m tests.support.serve_webhooks STATE [CALL]`: webhooks sent as by the daemon, over real HTTP and also to
loopback, until SIGTERM. The process kills itself right before it writes down CALL: `delivered` or `failed`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.adapters.no_storage import NoStorage
from controller.adapters.webhooks import HttpSender
from controller.domain.apps.spec import SecretSpec
from controller.domain.runs.webhooks import MessageKind
from controller.domain.secret import Secret
from controller.ports import Store
from controller.runner.webhook_dispatcher import WebhookDispatcher
from controller.store import open_store
from tests.support.fake_jobs import FakeJobs
from tests.support.receivers import WHSEC
from tests.support.serve_runner import deps_of, settings_of


class Crashing:
    """An outbox whose `call` kills the process."""

    def __init__(self, inner: Any, call: str) -> None:
        self._inner, self._call = inner, call

    def __getattr__(self, name: str) -> Any:
        if name == self._call:
            os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self._inner, name)


def main(state: Path, call: str) -> None:
    settings = settings_of(state, "webhooks")
    store: Store = open_store(settings.database)
    store.webhooks = Crashing(store.webhooks, call)
    deps = deps_of(settings, store, FakeJobs(), NoStorage())
    secret = SecretSpec("hooks", (("secret", Secret(WHSEC)),))
    deps = replace(deps, secret=lambda app, name, revision: secret)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    WebhookDispatcher(deps, {MessageKind.RUN_ENDED: HttpSender(private=True)}).run(stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
