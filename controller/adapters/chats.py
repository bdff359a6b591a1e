"""Sends messages to chats and other services by Apprise, behind the port `ChatSender`: each one in a process of its own
(`apprise_process`), which is killed if it takes too long. Called by the dispatcher, several at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from functools import cache
from typing import Any, Final

from controller.domain.localizable import Localizable
from controller.domain.notifications.spec import Severity
from controller.domain.runs.webhooks import DeliveryDecision, DeliveryOutcome
from controller.domain.secret import Secret
from controller.domain.text import excerpt, printable
from controller.guards import dying_with_us

AT_ONCE: Final = 4  # processes; each takes some 100 MB for a second or two
_COMMAND: Final = (sys.executable, "-P", "-m", "controller.adapters.apprise_process")
_TYPES: Final = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.ERROR: "failure"}
_MAX_OUTPUT: Final = 4096  # bytes
_MAX_MEMORY: Final = 2**30
_MAX_SECONDS: Final = 20  # of a CPU


class AppriseSender:
    """`private` also allows addresses that are not public."""

    def __init__(self, private: bool = False) -> None:
        self._private = private
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def send(
        self, url: Secret, title: str, text: str, severity: Severity, is_over: bool, timeout: float
    ) -> DeliveryDecision:
        asked = {
            "url": url.reveal(),
            "title": title,
            "text": text,
            "type": "success" if is_over else _TYPES[severity],
            "private": self._private,
        }
        if not self._places.acquire(timeout=timeout):
            return _failed(Localizable("too many messages are sent by Apprise at the moment"))
        try:
            return self._ask(json.dumps(asked).encode(), timeout)
        finally:
            self._places.release()

    def _ask(self, asked: bytes, timeout: float) -> DeliveryDecision:
        try:
            done = subprocess.run(
                [*_prefix(), *_COMMAND],
                input=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                env=_environment(),
                cwd="/",
                preexec_fn=_bounded,  # it calls setrlimit alone
            )
        except subprocess.TimeoutExpired:
            return _failed(Localizable("no answer within {timeout} s", timeout=timeout))
        except OSError as error:
            return _failed(Localizable("Apprise cannot be started: {strerror}", strerror=error.strerror))
        return _decision(done.stdout)


def _failed(why: str) -> DeliveryDecision:
    return DeliveryDecision(DeliveryOutcome.FAILED, why)


def _decision(output: bytes) -> DeliveryDecision:
    try:
        answer: dict[str, Any] = json.loads(output[:_MAX_OUTPUT])
        sent, why, refused = answer["sent"] is True, str(answer["why"]), answer["refused"] is True
    except (ValueError, KeyError, TypeError):
        return _failed(Localizable("the process of Apprise ended without an answer"))
    if sent:
        return DeliveryDecision(DeliveryOutcome.DELIVERED)
    outcome = DeliveryOutcome.REFUSED if refused else DeliveryOutcome.FAILED
    return DeliveryDecision(outcome, excerpt(printable(why), 300))


def _environment() -> dict[str, str]:
    """Return variables without proxies, credentials and paths of the daemon's."""
    kept = {name: value for name in ("LANG", "TZ") if (value := os.environ.get(name))}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**kept, "PATH": "/usr/bin:/bin", "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))


@cache
def _prefix() -> tuple[str, ...]:
    return tuple(dying_with_us())
