"""`python -m tests.support.serve_notifications STATE [CALL]`: notifications as the daemon tells them, over real HTTP
and also to loopback, until SIGTERM. The process kills itself right before it makes CALL: `advance`, `take`, `record`,
`send_test` or `end_test` of the notifications, or `delivered` of the outbox.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from controller.adapters.chats import AppriseSender
from controller.adapters.clock import SystemClock
from controller.adapters.mail import SmtpSender
from controller.adapters.no_storage import NoStorage
from controller.adapters.webhooks import HttpSender
from controller.config import NotificationSettings
from controller.domain.apps.spec import SecretSpec
from controller.domain.secret import Secret
from controller.ports import Store
from controller.runner.notification_sender import NotificationSender
from controller.runner.notifier import Notifier
from controller.runner.webhook_dispatcher import WebhookDispatcher
from controller.store import open_store
from tests.support.fake_jobs import FakeJobs
from tests.support.receivers import WHSEC
from tests.support.serve_runner import deps_of, settings_of
from tests.support.serve_webhooks import Crashing

URL = "https://ml.example.org"


def main(state: Path, call: str) -> None:
    settings = settings_of(state, "notifications")
    store: Store = open_store(settings.database)
    store.webhooks = Crashing(store.webhooks, call)
    store.notifications = Crashing(store.notifications, call)
    clock, http = SystemClock(), HttpSender(private=True)
    secret = SecretSpec("hook", (("secret", Secret(WHSEC)),))
    sender = NotificationSender(
        store=store,
        clock=clock,
        secret=lambda app, name: secret,
        http=http,
        mail=SmtpSender(NotificationSettings()),
        chats=AppriseSender(),
        url=URL,
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    deps = deps_of(settings, store, FakeJobs(), NoStorage())
    notifier = Notifier(store, clock, state / "health.json", URL, per_hour=60)
    thread = threading.Thread(target=notifier.run, args=(stop,))
    thread.start()
    WebhookDispatcher(deps, {}, notifications=sender).run(stop)
    thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
