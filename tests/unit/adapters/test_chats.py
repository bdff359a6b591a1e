"""Messages by Apprise, whose process may do little: real services on loopback, and URLs that want more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controller.adapters.chats import AppriseSender
from controller.domain.notifications.spec import Severity
from controller.domain.runs.webhooks import DeliveryDecision, DeliveryOutcome
from controller.domain.secret import Secret
from tests.support.pages import ROOT
from tests.support.receivers import receiver

pytestmark = pytest.mark.slow

TIMEOUT = 100.0


def send(url: str, private: bool = True, timeout: float = TIMEOUT, over: bool = False) -> DeliveryDecision:
    pytest.importorskip("apprise")
    return AppriseSender(private).send(Secret(url), "demo: Stalled", "text\n", Severity.ERROR, over, timeout)


def test_a_service_gets_title_and_text() -> None:
    with receiver() as there:
        there.answer = lambda _: (200, {})
        url = there.url.replace("http://", "json://")
        assert send(url) == DeliveryDecision(DeliveryOutcome.DELIVERED)
        assert send(url, over=True).outcome is DeliveryOutcome.DELIVERED
    found = [each.json for each in there.received]
    assert [(each["title"], each["message"].strip(), each["type"]) for each in found] == [
        ("demo: Stalled", "text", "failure"),
        ("demo: Stalled", "text", "success"),
    ]


@pytest.mark.parametrize("status", [401, 429])
def test_a_service_that_refuses(status: int) -> None:
    with receiver() as there:
        there.answer = lambda _: (status, {})
        found = send(there.url.replace("http://", "json://"))
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, f"the service answers {status}")


def test_a_service_that_does_not_answer_is_left() -> None:
    done = threading.Event()
    with receiver() as there:
        there.answer = lambda _: (200, {}) if done.wait(TIMEOUT) else (500, {})
        url = there.url.replace("http://", "json://") + "?rto=3600&cto=3600"
        found = send(url, timeout=10.0)
        done.set()
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, "no answer within 10 s")


def test_addresses_that_are_not_public_get_nothing() -> None:
    with receiver() as there:
        found = send(there.url.replace("http://", "json://"), private=False)
    assert found.outcome is DeliveryOutcome.REFUSED
    assert "notifications.privateReceivers" in found.why
    assert there.received == []


@pytest.mark.parametrize("url", ["syslog://", "rsyslog://127.0.0.1", "dbus://", "json://[::1]:9/x"])
def test_services_of_this_host_get_nothing(url: str) -> None:
    found = send(url, private=False)
    assert found.outcome is not DeliveryOutcome.DELIVERED


def test_a_text_that_is_no_url_is_not_quoted() -> None:
    found = send("xoxb-token-of-somebody")
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, "it is not a URL that Apprise knows")


#: What a plugin might try, as Python, and whether the process may do it.
ACTS = {
    "open('/etc/passwd').read()": False,
    "open('/proc/self/environ').read()": False,
    "open('/etc/ssl/openssl.cnf').close()": os.path.exists("/etc/ssl/openssl.cnf"),
    "open('/usr/bin/../../etc/passwd').read()": False,
    "open('/dev/null', 'w').close()": True,
    "open(json.__file__, 'a').close()": False,
    "os.system('true')": False,
    "subprocess.run(['true'])": False,
    "os.posix_spawn('/bin/true', ['true'], {})": False,
    "os.fork()": False,
    "os.kill(os.getppid(), 0)": False,
    "os.unlink('/tmp/x')": False,
    "socket.create_connection(('127.0.0.1', 9), 1)": False,
    "socket.create_connection(('169.254.169.254', 80), 1)": False,
    "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')": False,
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))": False,
}


@pytest.mark.parametrize(("act", "allowed"), ACTS.items())
def test_the_process_of_a_service_may_do_little(act: str, allowed: bool, tmp_path: Path) -> None:
    program = f"""
import json, os, socket, subprocess, sys
from controller.adapters.apprise_process import Refusals
refusals = Refusals(private=False)
sys.addaudithook(refusals.audit)
try:
    {act}
except PermissionError as error:
    sys.exit(3 if refusals.found and "prichal refuses it" in str(error) else 4)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path, timeout=TIMEOUT
    )
    assert done.returncode == (0 if allowed else 3)


def test_without_apprise_the_message_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    asked = {"url": "json://x", "title": "t", "text": "x", "type": "info", "private": True}
    command = [sys.executable, "-P", "-m", "controller.adapters.apprise_process"]
    done = subprocess.run(
        command,
        input=json.dumps(asked).encode(),
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        timeout=TIMEOUT,
    )
    assert "prichal[notify]" in json.loads(done.stdout)["why"]
