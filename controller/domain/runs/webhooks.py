"""Webhooks at the end of runs: their content, signature and retries; and the messages of the outbox, which
has commit statuses besides (domain/forges.py). Pure.

Signed by the rules of Standard Webhooks 1.0 (https://www.standardwebhooks.com). The text and the id of a
message are created once, at the end of the run, so that receivers recognise repetitions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from controller.domain.apps.spec import Webhook
from controller.domain.backoff import jittered
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.async_calls import EndedCall, call_links, call_summary, is_call_id
from controller.domain.runs.documents import Json, run_summary, stage_summary
from controller.domain.runs.run import AreaKind, Run, RunOutput, RunState
from controller.domain.secret import Secret
from controller.domain.units import about_duration, parse_rfc3339, rfc3339

MAX_URL: Final = 2000  # characters
SECRET_KEY: Final = "secret"  # noqa: S105 - of the Secret that webhooks are signed with

#: Seconds before each repetition; the last one is some three days after the end of the run.
PAUSES: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
#: The same for notifications, which are of use only while they are new: given up after four hours.
NOTIFICATION_PAUSES: Final = (5.0, 15.0, 60.0, *(300.0,) * 47)
LONGEST: Final = jittered(86400.0, 1.0)  # seconds; receivers cannot ask for more
#: Seconds after which a message is of no use. A receiver that asks for a longer pause is not waited for.
LIFETIME: Final = 3 * 86400.0
NOTIFICATION_LIFETIME: Final = 4 * 3600.0


# --- what is sent -----------------------------------------------------------------------------------------------


class MessageKind(StrEnum):
    """What a message is; its id begins with it."""

    RUN_ENDED = "msg"
    COMMIT_STATUS = "status"
    NOTIFICATION = "note"
    NOTIFICATION_TEST = "notetest"


@dataclass(frozen=True)
class Message:
    """`id` is the header `webhook-id`, `secret` the name of a Secret of the app as of the commit `revision`.
    `attempts` have failed; `due` is when to try next, Unix seconds. A commit status is of no pipeline, run and
    Secret, and its URL is the base of the forge's API. A notification has its name as `pipeline` and its channel as
    `url`."""

    id: str
    app: AppName
    pipeline: ComponentName
    revision: str
    run: str
    secret: str
    url: str
    body: str
    attempts: int = 0
    due: float = 0.0

    @property
    def kind(self) -> MessageKind:
        """Return the kind; an id of another form, as another release may have made it, is that of a webhook."""
        prefix, separator, _ = self.id.partition("_")
        is_ours = separator and prefix in frozenset(MessageKind)
        return MessageKind(prefix) if is_ours else MessageKind.RUN_ENDED

    @property
    def notifies(self) -> bool:
        return self.kind in (MessageKind.NOTIFICATION, MessageKind.NOTIFICATION_TEST)

    @property
    def pool(self) -> str:
        """Return whose places it takes while it is sent."""
        return "notifications" if self.notifies else "webhooks"

    @property
    def title(self) -> str:
        """Return what people call it."""
        if self.kind is MessageKind.COMMIT_STATUS:
            return f"commit status of {self.revision[:12]}"
        if self.notifies:
            test = "test of the " if self.kind is MessageKind.NOTIFICATION_TEST else ""
            return f"{test}notification {self.pipeline}"
        return f"webhook of {'call' if is_call_id(self.run) else 'run'} {self.run}"

    @property
    def origin(self) -> str:
        """Return the origin of the URL (`https://example.org`), since the rest often contains a password."""
        return self.url if self.notifies else origin_of(self.url)

    @property
    def partition(self) -> str:
        """The partition key: one receiver's events from one app. A slow receiver delays only its own partition."""
        if self.notifies:
            return f"{self.app} {self.kind} {self.pipeline}"
        return f"{self.app} {self.origin}" + (" statuses" if self.kind is MessageKind.COMMIT_STATUS else "")


def messages(run: Run) -> tuple[Message, ...]:
    """Return the events to send when a run is over: to the receiver of the pipeline, then to that of the caller;
    only once if both are the same."""
    hook = run.pipeline.webhook
    if hook is None or not run.state.terminal:
        return ()
    urls = _receivers(hook, run.webhook)
    if not urls:
        return ()
    body, ended = json.dumps(payload(run), separators=(",", ":")), run.ended or run.created
    return tuple(
        Message(
            _id(run.id, url),
            run.app,
            run.name,
            run.pipeline.revision,
            run.id,
            hook.secret,
            url,
            body,
            due=ended,
        )
        for url in urls
    )


def _receivers(hook: Webhook, named: str) -> tuple[str, ...]:
    return tuple(url for url in dict.fromkeys((hook.url, named)) if url)


def _id(of: str, url: str) -> str:
    """Return an id without a dot, since dots separate the signed parts."""
    return f"{MessageKind.RUN_ENDED}_{of}_{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def call_messages(ended: EndedCall, hook: Webhook, revision: str, now: float) -> tuple[Message, ...]:
    """Return the events to send at the end of an async call of a component, as for a run."""
    call = ended.call
    data = {**call_summary(call), "app": call.app, "revision": revision, "links": call_links(call)}
    at = rfc3339(call.ended or call.created)
    document = {"type": f"call.{call.state.lower()}", "timestamp": at, "data": data}
    body = json.dumps(document, separators=(",", ":"))
    return tuple(
        Message(
            _id(call.id, url), call.app, call.component, revision, call.id, hook.secret, url, body, due=now
        )
        for url in _receivers(hook, ended.webhook)
    )


def payload(run: Run) -> Json:
    return {
        "type": f"run.{run.state.lower()}",
        "timestamp": rfc3339(run.ended or run.created),
        "data": {
            **run_summary(run),
            "app": run.app,
            "revision": run.pipeline.revision,
            "outputs": [_output(run, output) for output in run.published if _is_there(run, output)],
            "stages": [{**stage_summary(stage), "attempts": len(stage.attempts)} for stage in run.stages],
        },
    }


def _is_there(run: Run, output: RunOutput) -> bool:
    """Return True if the output is at its destination: once its stage has succeeded, or for releases once all
    have."""
    if output.name in run.pipeline.releases:
        return output.name in run.released
    return run.stage(run.pipeline.made[output.name]).state is RunState.SUCCEEDED


def _output(run: Run, output: RunOutput) -> Json:
    box = output.box or next(iter(run.pipeline.boxes), None)
    area = {"area": output.area} if output.area is AreaKind.DEVELOPER else {}
    return {"name": output.name, "box": box, "data": output.data, **area}


# --- signatures -------------------------------------------------------------------------------------------------


class SigningKeyInvalid(ValueError):
    """The text cannot be used as a signing key. The message does not contain it."""


def signing_key(secret: Secret) -> bytes:
    """Return the key of a secret: the decoded Base64 after `whsec_`, else the text itself. Raises
    SigningKeyInvalid."""
    text = secret.reveal()
    if not text.startswith("whsec_"):
        key = text.encode()
    else:
        try:
            key = base64.b64decode(text.removeprefix("whsec_").strip(), validate=True)
        except (binascii.Error, ValueError):
            raise SigningKeyInvalid("what follows whsec_ is not base64") from None
    if not key:
        raise SigningKeyInvalid("it is empty")
    return key


def headers(message: Message, key: bytes, now: float) -> dict[str, str]:
    timestamp = str(int(now))
    signed = f"{message.id}.{timestamp}.{message.body}".encode()
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "Content-Type": "application/json",
    }


# --- what an answer means ---------------------------------------------------------------------------------------


class DeliveryOutcome(Enum):
    DELIVERED = "delivered"
    FAILED = "failed"  # to be sent again
    REFUSED = "refused"  # not to be sent again
    UNWANTED = "unwanted"  # nobody asks for it any more


@dataclass(frozen=True)
class ReceiverResponse:
    """`retry_after` is the header as it was sent, "" without one. `body` is the beginning of the body: others wrote it,
    so it is compared with what is known, and never shown."""

    status: int
    retry_after: str = ""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class DeliveryDecision:
    """`wait`: seconds to wait according to the receiver."""

    outcome: DeliveryOutcome
    why: str = ""
    wait: float = 0.0


def judge(answer: ReceiverResponse, now: float) -> DeliveryDecision:
    """Decide about the response. Redirects are not followed, since only the given address may be used."""
    status = answer.status
    if 200 <= status < 300:
        return DeliveryDecision(DeliveryOutcome.DELIVERED)
    if status == 410:
        return DeliveryDecision(DeliveryOutcome.REFUSED, "it answers 410: nothing more is wanted there")
    if 300 <= status < 400:
        return DeliveryDecision(
            DeliveryOutcome.FAILED, f"it answers {status}, and redirects are not followed"
        )
    wait = retry_after(answer.retry_after, now) if status in (429, 503) else 0.0
    return DeliveryDecision(DeliveryOutcome.FAILED, f"it answers {status}", wait)


def retry_after(text: str, now: float) -> float:
    """Return seconds, from a number or a date (RFC 9110); 0 for anything else, at most LONGEST."""
    if text.isascii() and text.isdecimal():
        return min(float(text), LONGEST)
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)  # all such dates are of UTC, not of this host
        return min(max(0.0, at.timestamp() - now), LONGEST)
    except (ValueError, OverflowError, OSError):
        return 0.0


def pause(failed: int, random: float, wait: float = 0.0, pauses: Sequence[float] = PAUSES) -> float | None:
    """Seconds after so many attempts have failed (from 1 on); None: that was the last one. `random` from 0 to 1."""
    if failed > len(pauses):
        return None
    return max(jittered(pauses[failed - 1], random), wait)


def lasts_until(message: Message) -> float:
    """Return until when a message is of use, in Unix seconds; infinity if its body does not say when it was made."""
    try:
        body = json.loads(message.body)
        match message.kind:
            case MessageKind.COMMIT_STATUS:
                return float(body[4]) + LIFETIME
            case MessageKind.RUN_ENDED:
                return parse_rfc3339(body["timestamp"]) + LIFETIME
            case MessageKind.NOTIFICATION | MessageKind.NOTIFICATION_TEST:
                return parse_rfc3339(body["at"]) + NOTIFICATION_LIFETIME
    except (ValueError, TypeError, KeyError, IndexError):
        return math.inf


def next_attempt(
    message: Message, failed: int, random: float, decision: DeliveryDecision, now: float
) -> tuple[float | None, str]:
    """Return the seconds until the next attempt, after so many have failed, and why the last one did. None: there is
    no next one. A receiver may ask for a longer pause than ours, but not for one beyond the life of the message."""
    if decision.outcome is not DeliveryOutcome.FAILED:
        return None, decision.why
    rest = pause(failed, random, decision.wait, pauses_of(message.kind))
    if rest is not None and rest == decision.wait and now + rest > lasts_until(message):
        told = Localizable(
            "{why}, and asks for a pause of {wait}, after which the message is too old",
            why=decision.why,
            wait=about_duration(rest),
        )
        return None, told
    return rest, decision.why


def pauses_of(kind: MessageKind) -> Sequence[float]:
    """Return the pauses between attempts; a test is one attempt."""
    if kind is MessageKind.NOTIFICATION_TEST:
        return ()
    return NOTIFICATION_PAUSES if kind is MessageKind.NOTIFICATION else PAUSES


# --- where to ---------------------------------------------------------------------------------------------------


def is_url(text: str) -> bool:
    """Return True if webhooks can be sent there: http or https, without user and fragment."""
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and not parts.fragment and port != 0
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


_UNICAST = IPv6Network(
    "2000::/3"
)  # all that is assigned for the public; the rest is reserved or has another meaning
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return True if the address, a number of IPv4 or IPv6, is one of the public internet. An IPv6 address
    that stands for an IPv4 address is treated like it."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast
    if (embedded := _embedded(ip)) is not None:
        return is_public(str(embedded))
    return ip in _UNICAST and ip.is_global


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
