"""People hear that an app broke and that it works again: from a push to a mail and to the receiver of operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_servers import Author, http_backend
from tests.support.mail_server import MailServer, mail_server
from tests.support.platform import API_VERSION, Platform
from tests.support.receivers import WHSEC, Receiver, receiver
from tests.support.waiting import wait_for

AT_ONCE = {"groupWait": "0s", "groupInterval": "0s"}


@pytest.fixture(scope="module")
def mails() -> Iterator[MailServer]:
    with mail_server() as there:
        yield there


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, mails: MailServer) -> Iterator[Platform]:
    mail = {"smtp": mails.address, "smtpTls": "none", "smtpFrom": "prichal@example.org"}
    notifications = {"privateReceivers": True, **mail}
    running = Platform(tmp_path_factory.mktemp("platform"), notifications=notifications)
    try:
        yield running.start()
    finally:
        running.stop()


def manifests(*documents: dict[str, Any]) -> str:
    return "\n---\n".join(json.dumps({"apiVersion": API_VERSION, **each}) for each in documents)


def module(capacity: str) -> dict[str, str]:
    box = {
        "kind": "DataBox",
        "metadata": {"name": "files"},
        "spec": {"s3DefaultStorage": {"capacity": capacity}},
    }
    spec = {"email": {"to": ["team@example.org"]}, **AT_ONCE}
    team = {"kind": "Notification", "metadata": {"name": "team"}, "spec": spec}
    return {"app.yaml": manifests(box, team)}


def connect(platform: Platform, app: str, url: str, there: Receiver) -> None:
    operators = {"webhook": {"url": there.url, "secret": "hook"}, "apps": [app], **AT_ONCE}
    text = manifests(
        {
            "kind": "Repository",
            "metadata": {"name": app},
            "spec": {"url": url, "ref": {"branch": "main"}, "interval": "0s"},
        },
        {"kind": "PlatformApp", "metadata": {"name": app}, "spec": {"repository": app}},
        {"kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"secret": WHSEC}},
        {"kind": "Notification", "metadata": {"name": "operators"}, "spec": operators},
    )
    (platform.platform_folder / f"{app}.yaml").write_text(text)
    platform.until(lambda: platform.status(app))


def test_people_hear_what_broke_and_that_it_is_over(
    platform: Platform, mails: MailServer, app: str, tmp_path: Path
) -> None:
    author = Author(tmp_path / "git" / "demo.git")
    good = author.commit(module("1M"))
    with http_backend(tmp_path / "git") as git, receiver() as there:
        connect(platform, app, f"{git.url}/demo.git", there)
        wait = ("reconcile", app, "--wait", "--revision")
        assert platform.prichal(*wait, good).returncode == 0
        assert platform.prichal("notify", "test", app, "team").stdout == "team: delivered\n"
        assert platform.prichal("notify", "test").stdout == "operators: delivered\n"
        assert [mail["Subject"] for mail in mails.mails] == ["Test of the notification team"]

        assert platform.prichal(*wait, author.commit(module("many")), check=False).returncode == 1
        wait_for(lambda: len(mails.mails) == 2)
        wait_for(lambda: len(there.received) == 2)
        platform.kill("daemon")
        platform.start_process("daemon")
        assert platform.prichal(*wait, author.commit(module("2M"))).returncode == 0
        wait_for(lambda: len(mails.mails) >= 3)
        wait_for(lambda: len(set(there.ids)) == 3)

    assert mails.mails[1]["Subject"] == f"{app}: ManifestInvalid"
    assert "app.yaml" in mails.mails[1].get_content()
    assert mails.mails[-1]["Subject"] == f"{app}: over: ManifestInvalid"
    ids = [mail["Message-ID"] for mail in mails.mails]
    assert len(set(ids)) == 3, "the daemon may have died before it knew that one arrived"
    told = {one.id: one.json["data"] for one in there.received if not one.json["data"]["test"]}
    assert [[p["type"] for p in each["problems"]] for each in told.values()] == [["ManifestInvalid"], []]
    assert [[p["type"] for p in each["over"]] for each in told.values()] == [[], ["ManifestInvalid"]]
    assert all(one.genuine for one in there.received)
    assert WHSEC not in platform.log.read_text()
