"""Checks of the processes: whether the daemon and the web process work."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

from controller.config import Settings
from controller.daemon.lock import holder
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.fetch import fetched_url
from controller.store import open_guest_store

FRESH = 15.0  # seconds since the daemon's last heartbeat
SHOWN = 2000  # bytes of a response
ANSWER = 3.0  # seconds for the web process


def check_daemon(settings: Settings) -> str:
    process = holder(settings.private)
    if process is None:
        raise Finding(
            Localizable("no daemon uses this state folder"),
            Localizable("start it with: prichal daemon, or: systemctl start prichal-daemon"),
        )
    store = open_guest_store(settings.database)
    try:
        beat = store.last_heartbeat() or 0.0
    finally:
        store.close()
    age = time.time() - beat
    if age > FRESH:
        advice = Localizable(
            "check its log, then restart it (systemctl restart prichal-daemon, or kill {process})",
            process=process,
        )
        raise Finding(
            Localizable(
                "process {process} holds the lock, but its last heartbeat was {age} s ago",
                process=process,
                age=round(age),
            ),
            advice,
        )
    return Localizable(
        "process {process}, heartbeat {age} s ago", process=process, age=round(max(age, 0.0), 1)
    )


def check_web(settings: Settings) -> str:
    address = settings.web.local_url
    try:
        with fetched_url(urlsplit(f"{address}/-/readyz"), within=ANSWER) as reply:
            status, body = reply.status, reply.read(SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        advice = Localizable(
            "start it with: prichal web, or: systemctl start prichal-web.socket; web.listen sets the address"
        )
        raise Finding(
            Localizable("{address} does not answer ({error})", address=address, error=error), advice
        ) from error
    if status != http.client.OK:
        raise Finding(
            Localizable(
                "{address}/-/readyz answers {status}: {text}",
                address=address,
                status=status,
                text=body.strip(),
            ),
            Localizable("follow its message about what is not ready"),
        )
    return Localizable("ready at {address}", address=address)
