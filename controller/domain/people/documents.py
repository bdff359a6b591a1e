"""Documents about people, the same over HTTP and from commands. Times are RFC 3339, names camelCase."""

from __future__ import annotations

from controller.domain.people.accounts import Account, AuditEntry, SessionRecord, TokenRecord
from controller.domain.people.roles import Grant
from controller.domain.units import rfc3339

Document = dict[str, object]


def account_document(account: Account, grants: list[Grant]) -> Document:
    created = rfc3339(account.created)
    roles = [role_document(grant) for grant in grants]
    signs_in = {"hasPassword": account.has_password, "issuer": account.issuer or None}
    return {"name": account.name, "created": created, **signs_in, "roles": roles}


def role_document(grant: Grant) -> Document:
    """`group` is null for a role that was given to the account."""
    return {"role": grant.role.value, "app": grant.app or None, "group": grant.group or None}


def session_document(session: SessionRecord) -> Document:
    times = {"created": rfc3339(session.created), "seen": rfc3339(session.seen)}
    return {
        "id": session.id,
        "user": session.user,
        **times,
        "address": session.address,
        "agent": session.agent,
        "issuer": session.issuer or None,
    }


def token_document(token: TokenRecord) -> Document:
    """`used` is null if the token never was."""
    times = {
        "created": rfc3339(token.created),
        "expires": rfc3339(token.expires),
        "used": rfc3339(token.used) if token.used else None,
    }
    return {"id": token.id, "user": token.user, "label": token.label, "scope": token.scope.value, **times}


def audit_document(entry: AuditEntry) -> Document:
    about = {"act": entry.act, "subject": entry.subject, "detail": entry.detail, "address": entry.address}
    return {"id": entry.id, "at": rfc3339(entry.at), "who": entry.who, "via": entry.via, **about}
