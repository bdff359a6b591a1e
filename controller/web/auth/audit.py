"""Writes down what people did: in the audit, and in the log, which has it, too, should that fail."""

from __future__ import annotations

import logging

from controller.domain.errors import ControllerError
from controller.domain.people.accounts import AuditEntry
from controller.store.people import PeopleStore

log = logging.getLogger(__name__)


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
