"""Writes down what people did: in the audit, and in the log, which has it, too, should that fail."""

from __future__ import annotations

import logging

from controller.domain.errors import ControllerError
from controller.domain.git_http import TOKEN_HOLDER
from controller.domain.people.accounts import AuditEntry
from controller.domain.people.pushes import PushUnderWay
from controller.store.people import PeopleStore

log = logging.getLogger(__name__)


def pushed(push: PushUnderWay, detail: str, now: float) -> AuditEntry:
    who = push.via if push.by == TOKEN_HOLDER else push.by
    return AuditEntry(now, who, push.via, "push", f"repository {push.hosted}", detail, push.address)


def write_down(people: PeopleStore, entry: AuditEntry) -> None:
    fields = {
        "who": entry.who,
        "via": entry.via,
        "act": entry.act,
        "subject": entry.subject,
        "detail": entry.detail,
        "address": entry.address,
    }
    log.info("a person acted", extra=fields)
    try:
        people.record(entry)
    except ControllerError as error:
        log.error("what a person did is not in the audit: %s", error)
