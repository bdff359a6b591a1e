"""Commands about people: accounts, roles, sessions, API tokens, and what they did. They write the database of the web
process, so root runs them; they go on as that process' user, and files keep their owner.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from controller.cli.credentials import show_token
from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, echo, print_message, show_view, table_of
from controller.cli.people_database import open_people, record_act
from controller.cli.quotas import quota
from controller.cli.session import Session, config_option, dry_run_option, limit_option, with_session
from controller.domain.errors import Stalled
from controller.domain.names import AppName, is_dns_label
from controller.domain.people.accounts import (
    LABEL,
    Account,
    AuditEntry,
    Scope,
    SessionRecord,
    TokenRecord,
    password_problem,
)
from controller.domain.people.documents import (
    account_document,
    audit_document,
    role_document,
    session_document,
    token_document,
)
from controller.domain.people.roles import ALL, Grant, Role, is_app_pattern
from controller.domain.people.tokens import LONGEST_DAYS, USUAL_DAYS, new_token
from controller.domain.reasons import Reason
from controller.domain.routing.passwords import hash_password

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.store.people import PeopleStore


T = TypeVar("T")


def _link(settings: Settings, people: PeopleStore, name: str) -> str:
    from controller.store.first_admin import login_url
    from controller.store.people import LINK

    code = secrets.token_urlsafe(32)
    people.put_link(name, code, time.time() + LINK)
    return login_url(settings, code)


# --- accounts ---------------------------------------------------------------------------------------------------


@click.group(cls=Group, verbs=("ls", "add", "passwd", "quota", "release", "rm"))
@config_option
def user() -> None:
    """Show, add and remove accounts of people."""


@user.command("add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="Make this person an administrator.")
@click.option(
    "--issuer",
    metavar="ISSUER",
    help="The person signs in with this issuer of people.oidc, by this name, and has no password.",
)
@dry_run_option
@config_option
@with_session
def add_user(session: Session, name: str, admin: bool, issuer: str | None) -> int:
    """Add an account, and print a one-time link to choose its password.

    The link is good once and for a day. Without a role the person sees nothing yet; see `prichal role add`.
    """
    settings = session.settings()
    source = _source(settings, issuer)
    with open_people(settings, session.dry_run) as people:
        people.add(name, time.time(), source)
        if admin:
            people.grant(Grant(name, Role.ADMIN))
        record_act(people, "user add", name, " ".join(filter(None, ("admin" if admin else "", issuer))))
        link = _link(settings, people, name) if source is None else ""
    if link:
        print_message(f"{name} chooses a password, within a day, at:")
        echo(link)
    else:
        echo(f"{name} signs in with {issuer or 'any issuer of people.oidc'}")
    return Exit.OK


def _source(settings: Settings, issuer: str | None) -> str | None:
    """Return the URL of the issuer with which a person signs in, "" for any one, None for a password."""
    if issuer is None:
        return None if settings.sign_in.passwords else ""
    found = settings.sign_in.issuer(issuer)
    if found is None:
        names = ", ".join(each.name for each in settings.sign_in.oidc) or "none"
        raise click.BadParameter(f"people.oidc has no {issuer!r}; there is {names}", param_hint="--issuer")
    return found.issuer


@user.command("ls")
@output_option
@config_option
@with_session
def list_users(session: Session, output: Format) -> int:
    """Show all accounts with their roles."""
    with open_people(session.settings(), session.dry_run) as people:
        found, grants = people.accounts(), people.grants(time.time())
    roles = {each.name: [grant for grant in grants if grant.user == each.name] for each in found}
    columns: tuple[Column[Account], ...] = (
        Column("NAME", lambda each: each.name),
        Column("SIGNS IN WITH", _signs_in_with),
        Column("ROLES", lambda each: ", ".join(map(_words, roles[each.name])) or "-"),
        Column("SINCE", lambda each: date(each.created)),
    )
    documents = [account_document(each, roles[each.name]) for each in found]
    _show(output, documents, columns, found, [each.name for each in found])
    return Exit.OK


def _signs_in_with(account: Account) -> str:
    return account.issuer or ("a password" if account.has_password else "no password chosen yet")


def _show(
    output: Format,
    documents: object,
    columns: tuple[Column[T], ...],
    found: Sequence[T],
    names: Sequence[str] = (),
) -> None:
    output.show(documents, lambda: show_view((table_of(columns, found, output.is_wide),)), names)


user.add_command(quota)


@user.command("rm")
@click.argument("name")
@dry_run_option
@config_option
@with_session
def remove_user(session: Session, name: str) -> int:
    """Remove an account with its roles, sessions and tokens."""
    with open_people(session.settings(), session.dry_run) as people:
        people.remove(name)
        record_act(people, "user rm", name)
    echo(f"{name} is removed")
    return Exit.OK


@user.command("release")
@click.argument("name")
@dry_run_option
@config_option
@with_session
def release_user(session: Session, name: str) -> int:
    """Release the account of somebody who signs in with OpenID Connect.

    The account is bound to a person at an issuer. After this command it is that of the next one whom an issuer knows by
    this name. Sessions, tokens and roles by groups end, roles of the account stay: see `prichal role ls`.
    """
    with open_people(session.settings(), session.dry_run) as people:
        former = people.release(name)
        record_act(
            people, "user release", name, f"{former.subject} at {former.issuer}" if former.subject else ""
        )
    echo(f"{name} is released: the account is that of the next person who signs in by this name")
    return Exit.OK


@user.command("passwd")
@click.argument("name")
@click.option("--stdin", is_flag=True, help="Read the password from the first line of standard input.")
@dry_run_option
@config_option
@with_session
def change_password(session: Session, name: str, stdin: bool) -> int:
    """Print a one-time link to choose another password.

    Earlier links end. The previous password and all sessions end when the link is used, or at once with --stdin.
    """
    settings = session.settings()
    password = sys.stdin.readline().rstrip("\n") if stdin else ""
    if stdin and (problem := password_problem(password, name)):
        raise click.UsageError(problem)
    with open_people(settings, session.dry_run) as people:
        if stdin:
            people.set_hash(name, hash_password(password))
        link = "" if stdin else _link(settings, people, name)
        record_act(people, "user passwd", name, "password set" if stdin else "one-time link")
    if stdin:
        echo(f"the password of {name} is set, and their sessions have ended")
    else:
        print_message(f"{name} chooses a password, within a day, at:")
        echo(link)
    return Exit.OK


# --- roles ------------------------------------------------------------------------------------------------------

_ROLE = click.Choice([role.value for role in Role])


@click.group(cls=Group, verbs=("ls", "add", "rm"))
@config_option
def role() -> None:
    """Show, give and take away roles."""


@role.command("add")
@click.argument("name", metavar="USER")
@click.argument("word", metavar="ROLE", type=_ROLE)
@click.argument("app", required=False, default=ALL)
@dry_run_option
@config_option
@with_session
def add_role(session: Session, name: str, word: str, app: str) -> int:
    """Give a person a role: admin, developer of an app, or viewer of one or all apps.

    A developer sees and steers APP, and knows of no other app. The app need not exist yet. `pu-lab-*` stands for all
    apps whose names begin so.
    """
    grant = _grant(name, word, app)
    with open_people(session.settings(), session.dry_run) as people:
        if people.grant(grant):
            record_act(people, "role add", name, _words(grant))
    echo(f"{name} is {_words(grant)}")
    return Exit.OK


@role.command("rm")
@click.argument("name", metavar="USER")
@click.argument("word", metavar="ROLE", type=_ROLE)
@click.argument("app", required=False, default=ALL)
@dry_run_option
@config_option
@with_session
def remove_role(session: Session, name: str, word: str, app: str) -> int:
    """Take a role away from a person, which counts for their next request."""
    grant = _grant(name, word, app)
    with open_people(session.settings(), session.dry_run) as people:
        if not people.take_back(grant):
            raise Stalled(Reason.UNKNOWN_ROLE, f"{name} is not {_words(grant)}; see: prichal role ls")
        record_act(people, "role rm", name, _words(grant))
    echo(f"{name} is not {_words(grant)} any more")
    return Exit.OK


@role.command("ls")
@click.argument("name", metavar="USER", required=False)
@output_option
@config_option
@with_session
def list_roles(session: Session, name: str | None, output: Format) -> int:
    """Show the roles of USER, or of all people: given to accounts, or by groups at the last sign-in."""
    with open_people(session.settings(), session.dry_run) as people:
        found = people.grants(time.time(), name)
    columns: tuple[Column[Grant], ...] = (
        Column("USER", lambda each: each.user),
        Column("ROLE", lambda each: each.role),
        Column("APP", lambda each: each.app or "-"),
        Column("GIVEN TO", lambda each: f"group {each.group}" if each.group else "account"),
    )
    documents = [{"user": grant.user, **role_document(grant)} for grant in found]
    _show(
        output, documents, columns, found, [f"{each.user} {each.role} {each.app}".strip() for each in found]
    )
    return Exit.OK


def _grant(name: str, word: str, app: str) -> Grant:
    if app != ALL and not is_dns_label(app) and not is_app_pattern(app):
        raise Stalled(Reason.ROLE_INVALID, f"{app!r} cannot be the name of an app")
    return Grant(name, Role(word), AppName(app))


def _words(grant: Grant) -> str:
    what = f"{grant.role} of {grant.app}" if grant.app else grant.role.value
    return f"{what} (group {grant.group})" if grant.group else what


# --- sessions ---------------------------------------------------------------------------------------------------


@click.group("session", cls=Group)
@config_option
def session_group() -> None:
    """Show and end sessions of people in browsers."""


@session_group.command("ls")
@click.argument("name", metavar="USER", required=False)
@output_option
@config_option
@with_session
def list_sessions(session: Session, name: str | None, output: Format) -> int:
    """Show the sessions of USER, or of all people."""
    from controller.store.people import SessionLimits

    web = session.settings().web
    with open_people(session.settings(), session.dry_run) as people:
        found = people.sessions(SessionLimits(web.session_idle, web.session_lifetime), time.time(), name)
    columns: tuple[Column[SessionRecord], ...] = (
        Column("SESSION", lambda each: each.id),
        Column("USER", lambda each: each.user),
        Column("SINCE", lambda each: date(each.created)),
        Column("USED", lambda each: date(each.seen)),
        Column("ADDRESS", lambda each: each.address),
        Column("BY", lambda each: each.issuer or "password"),
        Column("BROWSER", lambda each: each.agent, is_wide=True),
    )
    _show(output, [session_document(each) for each in found], columns, found, [each.id for each in found])
    return Exit.OK


@session_group.command("revoke")
@click.argument("id", metavar="SESSION")
@dry_run_option
@config_option
@with_session
def revoke_session(session: Session, id: str) -> int:
    """End a session at once."""
    with open_people(session.settings(), session.dry_run) as people:
        found = people.end_session(id)
        if found is None:
            raise Stalled(Reason.UNKNOWN_SESSION, f"there is no session {id!r}; see: prichal session ls")
        record_act(people, "session revoke", f"session {id}", f"of {found.user}")
    echo(f"session {id} of {found.user} has ended")
    return Exit.OK


# --- tokens -----------------------------------------------------------------------------------------------------


@click.group(cls=Group, verbs=("ls", "add", "revoke", "show"))
@config_option
def token() -> None:
    """Show, add and revoke API tokens."""


@token.command("add")
@click.argument("name", metavar="USER")
@click.option("--label", default="", help="What the token is for.")
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.READ.value,
    show_default=True,
    help="What it allows: to see; also to steer apps; all that the person may.",
)
@click.option(
    "--days",
    type=click.IntRange(1, LONGEST_DAYS),
    default=USUAL_DAYS,
    show_default=True,
    help="Days after which the token expires.",
)
@dry_run_option
@config_option
@with_session
def add_token(session: Session, name: str, label: str, scope: str, days: int) -> int:
    """Make an API token for a person and print it, this once.

    It allows what its scope and the person's roles allow.
    """
    if len(label) > LABEL or not label.isprintable():
        raise click.BadParameter(f"at most {LABEL} printable characters", param_hint="--label")
    made, record = new_token(name, label, Scope(scope), days, time.time(), secrets.token_urlsafe(32))
    with open_people(session.settings(), session.dry_run) as people:
        people.add_token(made, record)
        record_act(people, "token add", f"token {record.id}", f"{scope} of {name}")
    print_message(f"token {record.id} of {name}, {scope}, until {date(record.expires)}:")
    echo(made)
    return Exit.OK


@token.command("ls")
@click.argument("name", metavar="USER", required=False)
@output_option
@config_option
@with_session
def list_tokens(session: Session, name: str | None, output: Format) -> int:
    """Show the tokens of USER, or of all people, without their secrets."""
    with open_people(session.settings(), session.dry_run) as people:
        found = people.tokens(name)
    columns: tuple[Column[TokenRecord], ...] = (
        Column("TOKEN", lambda each: each.id),
        Column("USER", lambda each: each.user),
        Column("LABEL", lambda each: each.label or "-"),
        Column("SCOPE", lambda each: each.scope),
        Column("SINCE", lambda each: date(each.created), is_wide=True),
        Column("USED", lambda each: date(each.used) if each.used else "never"),
        Column("UNTIL", lambda each: _until(each.expires)),
    )
    _show(output, [token_document(each) for each in found], columns, found, [each.id for each in found])
    return Exit.OK


def _until(expires: float) -> str:
    return f"{date(expires)}{' (expired)' if expires <= time.time() else ''}"


@token.command("revoke")
@click.argument("id", metavar="TOKEN")
@dry_run_option
@config_option
@with_session
def revoke_token(session: Session, id: str) -> int:
    """Revoke a token at once. TOKEN is its id, as `prichal token ls` shows it."""
    with open_people(session.settings(), session.dry_run) as people:
        found = people.revoke_token(id)
        if found is None:
            raise Stalled(Reason.UNKNOWN_TOKEN, f"there is no token {id!r}; see: prichal token ls")
        record_act(people, "token revoke", f"token {id}", f"of {found.user}")
    echo(f"token {id} of {found.user} is revoked")
    return Exit.OK


token.add_command(show_token)

# --- audit ------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="USER", required=False)
@limit_option(50, "acts")
@nameless_output_option
@config_option
@with_session
def audit(session: Session, name: str | None, limit: int, output: Format) -> int:
    """Show what people did, the newest last."""
    with open_people(session.settings(), session.dry_run) as people:
        found = people.acts(limit, name)[::-1]
    columns: tuple[Column[AuditEntry], ...] = (
        Column("AT", lambda each: date(each.at)),
        Column("WHO", lambda each: each.who),
        Column("BY", lambda each: each.via),
        Column("ACT", lambda each: each.act),
        Column("ABOUT", lambda each: f"{each.subject} {each.detail}".strip() or "-"),
        Column("ADDRESS", lambda each: each.address or "-", is_wide=True),
    )
    _show(output, [audit_document(each) for each in found], columns, found)
    return Exit.OK


commands = (user, role, session_group, token, audit)
