"""The database of accounts: links and tickets that are good once, sessions and tokens that end, bounds."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config import OpenIdIssuer
from controller.domain.errors import Stalled
from controller.domain.people.accounts import AuditEntry, Scope, SessionRecord
from controller.domain.people.openid import GroupRole, Identity, IssuerLogout, IssuerSession, SignedInPerson
from controller.domain.people.roles import Grant, Role
from controller.domain.people.tokens import new_token
from controller.store.people import (
    KEEP_LOGOUTS,
    LINK,
    MOST_SESSIONS,
    MOST_TOKENS,
    PeopleStore,
    SessionLimits,
    Ticket,
)
from controller.store.people_file import _STEPS

LIMITS = SessionLimits(idle=100.0, lifetime=1000.0)
NOW = 1_000_000.0


@pytest.fixture
def people(tmp_path: Path) -> PeopleStore:
    store = PeopleStore(tmp_path / "people.db")
    store.add("ann", NOW)
    store.add("bob", NOW)
    return store


def begin(people: PeopleStore, secret: str, user: str = "ann", now: float = NOW) -> None:
    people.begin_session(
        secret, SessionRecord(f"id-{secret}", user, now, now, "192.0.2.1", "Firefox"), LIMITS
    )


def user_of(people: PeopleStore, secret: str, now: float) -> str | None:
    found = people.session(secret, LIMITS, now)
    return found.name if found else None


def test_only_its_owner_reads_it(tmp_path: Path, people: PeopleStore) -> None:
    assert stat.S_IMODE((tmp_path / "people.db").stat().st_mode) == 0o600


def test_no_secret_is_in_the_file(tmp_path: Path, people: PeopleStore) -> None:
    people.begin_session("secret-of-session", SessionRecord("1", "ann", NOW, NOW, "", ""), LIMITS)
    people.put_link("ann", "secret-of-link", NOW + LINK)
    people.put_ticket("secret-of-ticket", Ticket("ann", "form", "/-/"), NOW)
    people.add_token(*new_token("ann", "", Scope.READ, 1, NOW, "secret-of-token"))
    assert b"secret-of" not in (tmp_path / "people.db").read_bytes()


def test_accounts(people: PeopleStore) -> None:
    assert [(each.name, each.has_password) for each in people.accounts()] == [("ann", False), ("bob", False)]
    people.set_hash("ann", "a hash")
    assert people.hash_of("ann") == "a hash"
    assert people.hash_of("bob") == people.hash_of("nobody") == ""
    assert people.accounts()[0].has_password
    for name, reason in (("ann", "UserExists"), ("Ann", "UserInvalid"), ("", "UserInvalid")):
        with pytest.raises(Stalled) as error:
            people.add(name, NOW)
        assert error.value.reason == reason
    with pytest.raises(Stalled) as error:
        people.remove("nobody")
    assert error.value.reason == "UnknownUser"
    with pytest.raises(Stalled) as error:
        people.set_hash("nobody", "x")
    assert error.value.reason == "UnknownUser"


def test_with_an_account_all_of_it_goes(people: PeopleStore) -> None:
    begin(people, "s")
    people.grant(Grant("ann", Role.ADMIN))
    people.put_link("ann", "l", NOW + LINK)
    secret, token = new_token("ann", "", Scope.ADMIN, 1, NOW, "t")
    people.add_token(secret, token)
    people.put_ticket("ticket", Ticket("ann", "f", "/-/"), NOW)
    people.remove("ann")
    people.add("ann", NOW)
    assert user_of(people, "s", NOW) is None
    assert people.link_user("l", NOW) is None
    assert people.by_token(secret, NOW) is None
    assert people.take_ticket("ticket", NOW) is None
    assert people.grants(NOW) == ()


def test_a_link_is_good_once_and_for_a_while(people: PeopleStore) -> None:
    people.put_link("ann", "first", NOW + LINK)
    people.put_link("ann", "second", NOW + LINK)
    assert people.link_user("first", NOW) is None
    assert people.link_user("second", NOW + LINK - 1) == "ann"
    assert people.link_user("second", NOW + LINK) is None
    assert people.use_link("second", "hash", NOW + LINK) is None
    begin(people, "before")
    assert people.use_link("second", "hash", NOW) == "ann"
    assert people.hash_of("ann") == "hash"
    assert people.use_link("second", "other", NOW) is None
    assert user_of(people, "before", NOW) is None


def test_of_many_who_use_a_link_at_once_one_does(people: PeopleStore) -> None:
    people.put_link("ann", "link", NOW + LINK)
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(people.use_link("link", f"hash {n}", NOW)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["None"] * 7 + ["ann"]


def test_a_ticket_is_good_once_and_for_a_minute(people: PeopleStore) -> None:
    ticket = Ticket("ann", "form", "/-/apps")
    people.put_ticket("one", ticket, NOW)
    assert people.take_ticket("one", NOW + 59) == ticket
    assert people.take_ticket("one", NOW + 59) is None
    people.put_ticket("two", ticket, NOW)
    assert people.take_ticket("two", NOW + 60) is None


def test_a_session_ends_without_use_and_at_last(people: PeopleStore) -> None:
    begin(people, "s")
    assert user_of(people, "s", NOW + 99) == "ann"
    assert user_of(people, "s", NOW + 198) == "ann"  # counted from the last use
    assert user_of(people, "s", NOW + 298.5) is None
    begin(people, "t")
    for at in range(0, 1000, 70):
        assert user_of(people, "t", NOW + at) == "ann"
    assert user_of(people, "t", NOW + 1000) is None
    assert user_of(people, "other", NOW) is None


def test_a_clock_that_was_set_back_ends_sessions_of_the_future(people: PeopleStore) -> None:
    begin(people, "s", now=NOW + 5000)
    assert user_of(people, "s", NOW) is None


def test_sessions_are_listed_and_ended(people: PeopleStore) -> None:
    begin(people, "a")
    begin(people, "b", "bob", NOW + 1)
    assert [each.id for each in people.sessions(LIMITS, NOW + 1)] == ["id-b", "id-a"]
    assert [each.user for each in people.sessions(LIMITS, NOW + 1, "ann")] == ["ann"]
    assert people.end_session("id-b", "ann") is None
    assert people.end_session("id-b", "bob") is not None
    assert user_of(people, "b", NOW) is None
    people.end_cookie("a")
    assert people.sessions(LIMITS, NOW + 1) == ()


def test_the_oldest_sessions_give_way(people: PeopleStore) -> None:
    begin(people, "of-bob", "bob")
    for number in range(MOST_SESSIONS + 3):
        begin(people, str(number), now=NOW + number)
    assert len(people.sessions(LIMITS, NOW + 30, "ann")) == MOST_SESSIONS
    assert user_of(people, "2", NOW + 30) is None
    assert user_of(people, "3", NOW + 30) == "ann"
    assert user_of(people, "of-bob", NOW + 30) == "bob"


def test_roles(people: PeopleStore) -> None:
    assert people.grant(Grant("ann", Role.DEVELOPER, "demo"))
    assert not people.grant(Grant("ann", Role.DEVELOPER, "demo"))
    with pytest.raises(Stalled, match="developer needs an app"):
        people.grant(Grant("ann", Role.DEVELOPER))
    with pytest.raises(Stalled, match="no account"):
        people.grant(Grant("nobody", Role.ADMIN))
    begin(people, "s")
    found = people.session("s", LIMITS, NOW)
    assert found is not None
    assert found.sees("demo")
    assert people.take_back(Grant("ann", Role.DEVELOPER, "demo"))
    assert not people.take_back(Grant("ann", Role.DEVELOPER, "demo"))
    found = people.session("s", LIMITS, NOW)
    assert found is not None
    assert not found.sees("demo")


def test_tokens(people: PeopleStore) -> None:
    secret, token = new_token("ann", "ci", Scope.DEPLOY, 1, NOW, "random")
    people.add_token(secret, token)
    found = people.by_token(secret, NOW + 5)
    assert found is not None
    assert (found.name, found.scope) == ("ann", Scope.DEPLOY)
    assert people.tokens("ann") == (replace(token, used=NOW + 5),)
    assert people.by_token(secret, NOW + 86400) is None
    assert people.by_token("other", NOW) is None
    assert people.revoke_token(token.id, "bob") is None
    assert people.revoke_token(token.id, "ann") is not None
    assert people.by_token(secret, NOW) is None


def test_a_person_has_a_bounded_number_of_tokens(people: PeopleStore) -> None:
    for number in range(MOST_TOKENS):
        people.add_token(*new_token("ann", "", Scope.READ, 1, NOW, str(number)))
    with pytest.raises(Stalled) as error:
        people.add_token(*new_token("ann", "", Scope.READ, 1, NOW, "more"))
    assert error.value.reason == "TooManyTokens"
    people.add_token(*new_token("ann", "", Scope.READ, 1, NOW + 86400, "expired ones make room"))
    assert len(people.tokens("ann")) == 1


def test_the_audit_is_bounded(tmp_path: Path) -> None:
    people = PeopleStore(tmp_path / "people.db", keep_acts=3)
    for number in range(5):
        who = "ann" if number % 2 else "bob\ud800"
        people.record(AuditEntry(NOW + number, who, "session 1", "suspend", "demo", str(number), "::1"))
    assert [entry.detail for entry in people.acts()] == ["4", "3", "2"]
    assert [entry.detail for entry in people.acts(who="ann")] == ["3"]
    assert [entry.detail for entry in people.acts(1)] == ["4"]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, people: PeopleStore) -> None:
    with closing(sqlite3.connect(tmp_path / "people.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Stalled) as error:
        people.accounts()
    assert error.value.reason == "StateTooNew"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(Stalled) as error:
        PeopleStore(tmp_path / "missing" / "people.db").accounts()
    assert error.value.reason == "PeopleUnwritable"


# --- OpenID Connect -----------------------------------------------------------------------------------------------

ISSUER = "https://id.example.org"
RULES = (
    GroupRole("ops", Role.ADMIN),
    GroupRole("lab", Role.DEVELOPER, "pu-lab-*"),
    GroupRole("lab", Role.VIEWER, "demo"),
)


def somebody(subject: str = "1", name: str = "olga", *groups: str, issuer: str = ISSUER) -> SignedInPerson:
    return SignedInPerson(Identity(issuer, subject), name, frozenset(groups))


def admit(people: PeopleStore, person: SignedInPerson, now: float = NOW) -> str:
    return people.admit(person, RULES, now, now + 100).name


def refusal(people: PeopleStore, person: SignedInPerson) -> str:
    with pytest.raises(Stalled) as error:
        admit(people, person)
    return error.value.reason


def test_an_account_is_bound_to_issuer_and_subject(people: PeopleStore) -> None:
    assert people.admit(somebody(), RULES, NOW, NOW + 100).is_new
    assert not people.admit(somebody(name="another name"), RULES, NOW, NOW + 100).is_new
    assert refusal(people, somebody("2")) == "UserTaken"
    assert refusal(people, somebody("1", issuer="https://other.example.org")) == "UserTaken"
    assert refusal(people, somebody("3", "ann")) == "UserLocal"
    assert refusal(people, somebody("3", "Не имя")) == "UserInvalid"
    found = {each.name: each.issuer for each in people.accounts()}
    assert found == {"ann": "", "bob": "", "olga": ISSUER}


def test_who_signs_in_elsewhere_has_no_password(people: PeopleStore) -> None:
    admit(people, somebody())
    with pytest.raises(Stalled) as error:
        people.set_hash("olga", "x")
    assert error.value.reason == "UserExternal"
    with pytest.raises(Stalled) as error:
        people.put_link("olga", "x", NOW + LINK)
    assert error.value.reason == "UserExternal"


def test_of_two_who_come_first_at_once_one_gets_the_name(people: PeopleStore) -> None:
    found: list[str] = []

    def come(subject: str) -> None:
        try:
            found.append(admit(people, somebody(subject)))
        except Stalled as error:
            found.append(error.reason)

    threads = [threading.Thread(target=come, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["UserTaken"] * 5 + ["olga"]


def test_a_released_account_is_that_of_the_next_one(people: PeopleStore) -> None:
    admit(people, somebody("1", "olga", "ops"))
    people.grant(Grant("olga", Role.VIEWER))
    secret, token = new_token("olga", "", Scope.ADMIN, 1, NOW, "t")
    people.add_token(secret, token)
    begin(people, "s", "olga")
    assert people.release("olga") == Identity(ISSUER, "1")
    assert people.by_token(secret, NOW) is None
    assert user_of(people, "s", NOW) is None
    assert people.grants(NOW, "olga") == (Grant("olga", Role.VIEWER),)
    assert people.accounts()[-1].issuer == "any"
    assert admit(people, somebody("2", issuer="https://other.example.org")) == "olga"
    assert refusal(people, somebody("1")) == "UserTaken"
    for name, reason in (("ann", "UserLocal"), ("nobody", "UnknownUser")):
        with pytest.raises(Stalled) as error:
            people.release(name)
        assert error.value.reason == reason


def test_an_account_is_kept_for_whom_one_issuer_knows(people: PeopleStore) -> None:
    people.add("olga", NOW, ISSUER)
    people.grant(Grant("olga", Role.ADMIN))
    assert refusal(people, somebody("1", issuer="https://other.example.org")) == "UserTaken"
    assert admit(people, somebody("1")) == "olga"
    assert refusal(people, somebody("2")) == "UserTaken"


def test_roles_by_groups_are_renewed_and_expire(people: PeopleStore) -> None:
    first = people.admit(somebody("1", "olga", "lab", "ops", "unknown"), RULES, NOW, NOW + 100)
    assert [(each.role, each.app, each.group) for each in first.gained] == [
        ("admin", "", "ops"),
        ("developer", "pu-lab-*", "lab"),
        ("viewer", "demo", "lab"),
    ]
    people.grant(Grant("olga", Role.VIEWER, "demo"))
    begin(people, "s", "olga")
    found = people.session("s", LIMITS, NOW)
    assert found is not None
    assert found.is_admin
    second = people.admit(somebody("1", "olga", "lab"), RULES, NOW + 1, NOW + 101)
    assert ([each.group for each in second.lost], second.gained) == (["ops"], [])
    found = people.session("s", LIMITS, NOW + 2)
    assert found is not None
    assert (found.is_admin, found.sees("pu-lab-x"), found.sees("other")) == (False, True, False)
    assert not people.take_back(Grant("olga", Role.DEVELOPER, "pu-lab-*"))  # it is the group's
    assert [each.group for each in people.grants(NOW + 50, "olga")] == ["", "lab", "lab"]
    assert [each.group for each in people.grants(NOW + 101, "olga")] == [""]


def test_who_may_not_sign_in_any_more_is_signed_out(people: PeopleStore) -> None:
    admit(people, somebody("1", "olga", "ops"))
    begin(people, "s", "olga")
    assert people.dismiss(Identity(ISSUER, "1")) == "olga"
    assert people.dismiss(Identity(ISSUER, "2")) is None
    assert user_of(people, "s", NOW) is None
    assert people.grants(NOW) == ()


def test_what_the_configuration_no_longer_allows_ends(people: PeopleStore) -> None:
    admit(people, somebody("1", "olga", "lab", "ops"))
    for secret, issuer in (("a", ""), ("b", "university"), ("c", "former")):
        record = SessionRecord(secret, "olga", NOW, NOW, "", "", issuer)
        people.begin_session(secret, record, LIMITS, f"token of {issuer}")
    assert people.sign_out_hint("b") == ("university", "token of university")
    assert people.enforce(["university"], frozenset(RULES[1:]), passwords=True) == 1
    assert [each.id for each in people.sessions(LIMITS, NOW)] == ["a", "b"]
    assert {each.group for each in people.grants(NOW)} == {"lab"}
    assert people.enforce(["university"], frozenset(), passwords=False) == 1
    assert [each.id for each in people.sessions(LIMITS, NOW)] == ["b"]
    assert people.grants(NOW) == ()


def test_a_file_of_the_first_version_is_taken_along(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_STEPS[0])
        db.executescript(
            "INSERT INTO accounts VALUES ('ann', 1, 'hash');"
            "INSERT INTO sessions VALUES ('d', '1', 'ann', 1, 1, '', '');"
            "PRAGMA user_version = 1;"
        )
    people = PeopleStore(path)
    threads = [threading.Thread(target=people.accounts) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert people.accounts()[0].has_password
    assert [each.issuer for each in people.sessions(LIMITS, 2.0)] == [""]
    assert admit(people, somebody()) == "olga"


def test_logouts_of_issuers_are_remembered_for_a_while_and_within_bounds(
    people: PeopleStore, tmp_path: Path
) -> None:
    issuer = OpenIdIssuer("lab", "https://lab.example.org", "client")
    origin = IssuerSession(issuer.issuer, "4711", "s1", NOW, NOW)
    record = SessionRecord("1", "ann", NOW, NOW, "", "", "lab")
    logout = IssuerLogout("j", NOW + 5, "", "s1", NOW)
    assert people.end_issuer_sessions(issuer, logout, NOW) == ()
    assert (
        people.end_issuer_sessions(issuer, replace(logout, id="k", session="x"), NOW + KEEP_LOGOUTS - 1) == ()
    )
    assert not people.begin_session("secret", record, LIMITS, "", origin)
    assert people.session("secret", LIMITS, NOW) is None
    assert people.begin_session(
        "other", replace(record, id="2"), LIMITS, "", replace(origin, issuer="https://else")
    )
    people.end_issuer_sessions(issuer, replace(logout, id="l", session="y"), NOW + 3 * KEEP_LOGOUTS)
    assert people.begin_session("secret", record, LIMITS, "", origin)
    bounded = PeopleStore(tmp_path / "people.db", most_logouts=3)
    for number in range(10):
        bounded.end_issuer_sessions(
            issuer, replace(logout, id=f"m{number}", session="z"), NOW + 10_000 + number
        )
    with people.opened() as db:
        assert db.execute("SELECT count(*) FROM issuer_logouts").fetchone()[0] == 3
