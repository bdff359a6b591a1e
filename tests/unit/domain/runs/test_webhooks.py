"""What webhooks say, how they are signed and when they are sent again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import Webhook
from controller.domain.backoff import JITTER
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.records import outgoing
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunOutput, RunState, cancel, new_run
from controller.domain.runs.webhooks import (
    LIFETIME,
    LONGEST,
    NOTIFICATION_LIFETIME,
    PAUSES,
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    MessageKind,
    ReceiverResponse,
    SigningKeyInvalid,
    headers,
    is_public,
    is_url,
    judge,
    messages,
    next_attempt,
    pause,
    payload,
    signing_key,
)
from controller.domain.secret import Secret
from controller.domain.units import rfc3339
from tests.support.pages import ROOT, blocks
from tests.support.specs import make

PAGE = ROOT / "docs" / "reference" / "runs.md"
HERE, THERE = "https://example.org/hooks/trained", "https://example.net:8443/done?token=x"
WHSEC = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-01-31T{text}+00:00").timestamp()


def make_run(hook: Webhook | None, webhook: str = "", **fields: object) -> Run:
    stages = (
        make(Stage, "fit", "sha256:1", outputs=("model",)),
        make(Stage, "tell", "sha256:2", inputs=("model",), outputs=("report",)),
    )
    names = (AppName("pu-ivanov-pa-demo"), ComponentName("train"), "718e2b06a4e1")
    pipeline = make(Pipeline, *names, stages, boxes=(ComponentName("userdata"),), webhook=hook)
    outputs = (RunOutput("report", "results/today/"),)
    id = "19c0a7f3e2d5b1f04a6"
    return new_run(id, pipeline, at("12:00"), "anna", (), outputs, webhook=webhook, **fields)


def played(run: Run, state: RunState = RunState.SUCCEEDED) -> Run:
    """Of two stages; the second one ends as the run does."""
    run = run.to(RunState.STARTING, at("12:00:00.100")).to(RunState.RUNNING, at("12:00:00.500"))
    for name, end in (("fit", RunState.SUCCEEDED), ("tell", state)):
        ended = run.stage(name).begin(1.0).end_attempt(2.0, exit_code=int(end is not RunState.SUCCEEDED))
        run = run.with_stage(ended.to(end, 2.0))
    return run.to(state, at("12:03:20"))


# --- what is sent -----------------------------------------------------------------------------------------------


def test_the_message_that_the_page_shows_and_its_way_to_verify() -> None:
    (message,) = messages(played(make_run(Webhook("hooks", HERE))))
    (shown,) = (block.text for block in blocks(PAGE, "http"))
    head, _, body = shown.partition("\n\n")
    assert json.loads(message.body) == json.loads(body)
    sent = headers(message, signing_key(WHSEC), at("12:03:21"))
    assert dict(re.findall(r"^([\w-]+): (.*)$", head, re.MULTILINE)) == {"Host": "example.org", **sent}
    (code,) = (block.text for block in blocks(PAGE, "python") if "is_genuine" in block.text)
    page: dict[str, object] = {}
    exec(code, page)
    verify = page["is_genuine"]
    assert callable(verify)
    assert verify(WHSEC.reveal(), sent, message.body.encode())
    assert not verify(WHSEC.reveal(), sent, message.body.encode() + b" ")


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.FAILED, RunState.ERROR, RunState.CANCELED])
def test_of_a_run_that_went_wrong_only_what_lies_in_a_box_is_told(state: RunState) -> None:
    told = payload(played(make_run(Webhook("hooks", HERE)), state))
    assert told["type"] == f"run.{state.lower()}"
    data = told["data"]
    assert isinstance(data, dict)
    assert [output["name"] for output in data["outputs"]] == ["report"] * (state is RunState.SUCCEEDED)


def test_a_run_that_was_canceled_before_it_began() -> None:
    (message,) = messages(cancel(make_run(Webhook("hooks", HERE)), at("12:01")))
    told = json.loads(message.body)
    assert (told["type"], told["data"]["started"], told["data"]["outputs"]) == ("run.canceled", None, [])


@pytest.mark.parametrize(
    ("hook", "called", "told"),
    [
        (None, "", []),
        (None, THERE, []),
        (Webhook("hooks"), "", []),
        (Webhook("hooks"), THERE, [THERE]),
        (Webhook("hooks", HERE), "", [HERE]),
        (Webhook("hooks", HERE), THERE, [HERE, THERE]),
        (Webhook("hooks", HERE), HERE, [HERE]),
    ],
)
def test_who_is_told(hook: Webhook | None, called: str, told: list[str]) -> None:
    run = make_run(hook, called)
    assert messages(run) == (), "it is not over"
    found = messages(played(run))
    assert [message.url for message in found] == told
    assert len({message.id for message in found}) == len(told)
    assert found == messages(played(run)), "always the same id and text"


def test_what_may_be_told_of_a_url() -> None:
    (message,) = messages(played(make_run(Webhook("hooks"), THERE)))
    assert message.origin == "https://example.net:8443"
    assert "." not in message.id


# --- signatures -------------------------------------------------------------------------------------------------


def test_signed_as_the_reference_libraries_do() -> None:
    """The vector that those of Standard Webhooks are tested with."""
    (made,) = messages(played(make_run(Webhook("hooks", HERE))))
    message = replace(made, id="msg_p5jXN8AQM9LWM0D4loKWxJek", body='{"test": 2432232314}')
    assert headers(message, signing_key(WHSEC), 1614265330.9) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "Content-Type": "application/json",
    }


def test_any_text_is_a_key() -> None:
    assert signing_key(Secret("s3cret")) == b"s3cret"
    assert signing_key(Secret("whsec_AAEC\n")) == b"\0\1\2"


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_%%%%", "whsec_AAE"])
def test_what_nothing_can_be_signed_with(text: str) -> None:
    with pytest.raises(SigningKeyInvalid) as refused:
        signing_key(Secret(text))
    assert "%" not in str(refused.value)


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, DeliveryOutcome.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *(
            (status, DeliveryOutcome.FAILED)
            for status in (301, 302, 307, 308, 400, 401, 404, 429, 500, 502, 503)
        ),
        (410, DeliveryOutcome.REFUSED),
    ],
)
def test_what_an_answer_means(status: int, outcome: DeliveryOutcome) -> None:
    verdict = judge(ReceiverResponse(status), 0.0)
    assert verdict.outcome is outcome
    assert (str(status) in verdict.why) == (outcome is not DeliveryOutcome.DELIVERED)


@pytest.mark.parametrize(
    ("status", "text", "wait"),
    [
        (429, "120", 120.0),
        (503, "Sat, 31 Jan 2026 12:10:00 GMT", 600.0),
        (503, "Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        (503, "Sat, 31 Jan 2026 12:10:00 -0000", 600.0),  # a date without a zone is of UTC
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
        (503, "Mon, 31 Feb 2026 12:10:00 GMT", 0.0),
        (503, "9" * 400, LONGEST),
        (503, "soon", 0.0),
        (503, "-5", 0.0),
        (503, "٣", 0.0),
        (500, "120", 0.0),
    ],
)
def test_a_receiver_asks_to_be_left_alone(status: int, text: str, wait: float) -> None:
    assert judge(ReceiverResponse(status, text), at("12:00")).wait == wait


@given(st.integers(100, 599), st.text(max_size=20))
def test_no_answer_is_too_strange(status: int, text: str) -> None:
    assert 0.0 <= judge(ReceiverResponse(status, text), 1e9).wait <= LONGEST


def test_the_pauses_grow_and_come_to_an_end() -> None:
    assert [pause(n, 0.0) for n in range(1, 11)] == [*PAUSES, None]
    assert pause(1, 1.0) == pytest.approx(5.0 * (1 + JITTER))
    assert pause(1, 1.0, wait=60.0) == 60.0
    assert pause(10, 0.0, wait=60.0) is None


NOTE = outgoing(
    "note_1_1", AppName("demo"), make(NotificationSpec, ComponentName("n"), Channel.WEBHOOK), "", 0.0
)
BODIES = {
    MessageKind.NOTIFICATION: (json.dumps({"at": rfc3339(1000.0)}), NOTIFICATION_LIFETIME),
    MessageKind.COMMIT_STATUS: (json.dumps(["1" * 40, "pending", "", "", 1000.0]), LIFETIME),
    MessageKind.RUN_ENDED: (json.dumps({"timestamp": rfc3339(1000.0)}), LIFETIME),
}


@pytest.mark.parametrize("kind", BODIES)
def test_no_receiver_holds_a_message_for_longer_than_it_is_of_use(kind: MessageKind) -> None:
    body, life = BODIES[kind]
    message = replace(NOTE, id=f"{kind}_1", body=body)
    end = 1000.0 + life
    asked = DeliveryDecision(DeliveryOutcome.FAILED, "it answers 429", 3600.0)
    assert next_attempt(message, 1, 0.0, asked, end - 3600.0) == (3600.0, "it answers 429")
    rest, why = next_attempt(message, 1, 0.0, asked, end - 3599.0)
    assert rest is None
    assert why == "it answers 429, and asks for a pause of 1h 00m, after which the message is too old"
    refused = DeliveryDecision(DeliveryOutcome.FAILED, "it answers 500")
    assert next_attempt(message, 1, 0.0, refused, end + 1e6) == (5.0, "it answers 500"), (
        "our own pauses end by themselves"
    )


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '["1", "pending", "", ""]', '{"at": 1}', '{"timestamp": "x"}']
)
@pytest.mark.parametrize("kind", BODIES)
def test_messages_of_another_release_are_tried_as_before(kind: MessageKind, body: str) -> None:
    asked = DeliveryDecision(DeliveryOutcome.FAILED, "it answers 503", LONGEST)
    message = replace(NOTE, id=f"{kind}_1", body=body)
    assert next_attempt(message, 1, 0.0, asked, 1e9) == (LONGEST, "it answers 503")


# --- where to ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [HERE, THERE, "http://a", "https://[2606:4700::1111]:8443/x", "https://a?b"])
def test_urls(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://a/b",
        "https://u:p@a/",
        "https:///b",
        "https://a:99999/",
        "https://a:0/",
        "https://[::1/",
        "https://a/b c",
        "https://a/\r\nX: y",
        "https://a/#x",
        "https://a/ü",
        "x" * 3000,
    ],
)
def test_what_is_no_url(url: str) -> None:
    assert not is_url(url)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "8.8.8.8",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "2001:db8::1",
        "2001::1",
        "100::1",
        "4000::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_messages_of_one_app_and_receiver_share_a_lane() -> None:
    (one,) = messages(played(make_run(Webhook("hooks"), "https://Example.org/a")))
    (two,) = messages(played(make_run(Webhook("hooks"), "https://example.org/b")))
    assert one.partition == two.partition != replace(two, app=AppName("other")).partition
    assert isinstance(one, Message)
