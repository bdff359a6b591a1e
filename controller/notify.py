"""Reports the state of this service to systemd (sd_notify(3)). Used by the daemon; gunicorn does this itself."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send `state` (`READY=1`, `WATCHDOG=1`, `STATUS=…`), and return whether there is a receiver. Never
    raises: a service keeps working when its supervisor does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError:
        return False
    return True
