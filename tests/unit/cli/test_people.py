"""`prichal user`, `role`, `session`, `token` and `audit`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controller.cli.exits import Exit
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.openid import GroupRole, Identity, SignedInPerson
from controller.domain.people.roles import Role
from controller.store.people import PeopleStore, SessionLimits
from tests.unit.cli.conftest import Machine


@pytest.fixture
def people(machine: Machine) -> PeopleStore:
    (machine.state / "web").mkdir(parents=True)
    return PeopleStore(machine.state / "web" / "people.db")


def test_before_the_first_start(machine: Machine) -> None:
    outcome = machine.run("user", "ls")
    assert outcome.code == Exit.UNREACHABLE
    assert "prichal up" in outcome.stderr


def test_accounts(machine: Machine, people: PeopleStore) -> None:
    added = machine.run("user", "add", "ann", "--admin")
    assert added.code == Exit.OK
    base, _, code = added.stdout.strip().partition("/-/login?code=")
    assert base == "http://127.0.0.1:8000"
    assert people.link_user(code, time.time()) == "ann"
    assert machine.run("user", "add", "ann").code == Exit.FAILED
    assert machine.run("user", "add", "Ann").code == Exit.USAGE
    (listed,) = json.loads(machine.run("user", "ls", "-o", "json").stdout)
    assert (listed["name"], listed["hasPassword"]) == ("ann", False)
    assert listed["roles"] == [{"role": "admin", "app": None, "group": None}]
    assert "no password chosen yet" in machine.run("user", "ls").stdout
    assert machine.run("user", "rm", "ann").code == Exit.OK
    assert machine.run("user", "rm", "ann").code == Exit.NOT_FOUND


def test_passwords(machine: Machine, people: PeopleStore) -> None:
    machine.run("user", "add", "ann")
    link = machine.run("user", "passwd", "ann").stdout.strip()
    assert people.link_user(link.partition("code=")[2], time.time()) == "ann"
    assert machine.run("user", "passwd", "ann", "--stdin", stdin="short\n").code == Exit.USAGE
    assert machine.run("user", "passwd", "ann", "--stdin", stdin="a good password\n").code == Exit.OK
    assert people.hash_of("ann").startswith("scrypt:")
    assert people.link_user(link.partition("code=")[2], time.time()) is None
    assert machine.run("user", "passwd", "bob").code == Exit.NOT_FOUND


def test_roles(machine: Machine, people: PeopleStore) -> None:
    machine.run("user", "add", "ann")
    assert machine.run("role", "add", "ann", "developer", "demo").stdout == "ann is developer of demo\n"
    assert machine.run("role", "add", "ann", "viewer").code == Exit.OK
    listed = json.loads(machine.run("role", "ls", "ann", "-o", "json").stdout)
    assert {(each["role"], each["app"]) for each in listed} == {("developer", "demo"), ("viewer", None)}
    assert "developer" in machine.run("role", "ls").stdout
    for wrong in (("developer",), ("admin", "demo"), ("developer", "Not-an-app"), ("owner", "demo")):
        assert machine.run("role", "add", "ann", *wrong).code == Exit.USAGE
    assert machine.run("role", "add", "bob", "admin").code == Exit.NOT_FOUND
    assert machine.run("role", "rm", "ann", "developer", "demo").code == Exit.OK
    assert machine.run("role", "rm", "ann", "developer", "demo").code == Exit.NOT_FOUND


ISSUER = """
people:
  oidc:
    - {name: university, issuer: "https://id.example.org", clientId: prichal}
"""


def test_people_of_an_issuer(machine: Machine, people: PeopleStore) -> None:
    machine.config.write_text(machine.config.read_text() + ISSUER)
    added = machine.run("user", "add", "olga", "--issuer", "university", "--admin")
    assert (added.code, added.stdout) == (Exit.OK, "olga signs in with university\n")
    assert "university" in machine.run("user", "add", "eve", "--issuer", "school").stderr
    assert machine.run("user", "passwd", "olga").code == Exit.FAILED
    rules = (GroupRole("lab", Role.DEVELOPER, "pu-lab-*"),)
    person = SignedInPerson(Identity("https://id.example.org", "1"), "olga", frozenset(("lab",)))
    people.admit(person, rules, time.time(), time.time() + 100)
    listed = json.loads(machine.run("role", "ls", "olga", "-o", "json").stdout)
    assert [(each["role"], each["app"], each["group"]) for each in listed] == [
        ("admin", None, None),
        ("developer", "pu-lab-*", "lab"),
    ]
    shown = machine.run("role", "ls").stdout
    assert ("group lab" in shown, "account" in shown) == (True, True)
    assert "https://id.example.org" in machine.run("user", "ls").stdout
    assert machine.run("role", "rm", "olga", "developer", "pu-lab-*").code == Exit.NOT_FOUND
    assert machine.run("user", "release", "olga").code == Exit.OK
    assert machine.run("user", "release", "nobody").code == Exit.NOT_FOUND
    machine.run("user", "add", "ann")
    assert "UserLocal" in machine.run("user", "release", "ann").stderr
    acts = json.loads(machine.run("audit", "-o", "json").stdout)
    assert ("user release", "1 at https://id.example.org") in [(each["act"], each["detail"]) for each in acts]


def test_without_passwords_nobody_gets_a_link(machine: Machine, people: PeopleStore) -> None:
    machine.config.write_text(machine.config.read_text() + ISSUER + "  passwords: false\n")
    assert machine.run("user", "add", "ann").stdout == "ann signs in with any issuer of people.oidc\n"


def test_roles_of_many_apps(machine: Machine, people: PeopleStore) -> None:
    machine.run("user", "add", "ann")
    assert machine.run("role", "add", "ann", "developer", "pu-lab-*").code == Exit.OK
    for wrong in ("*-lab", "pu-*-x", "Pu-*", "a**", "@*", "pu lab*"):
        assert machine.run("role", "add", "ann", "developer", wrong).code == Exit.USAGE


def test_sessions(machine: Machine, people: PeopleStore) -> None:
    people.add("ann", 1.0)
    now = time.time()
    session = SessionRecord("3f0c", "ann", now, now, "192.0.2.1", "Fire\x1b[2Jfox")
    people.begin_session("secret", session, SessionLimits(1000, 1000))
    listed = machine.run("session", "ls", "ann").stdout
    assert "3f0c" in listed
    assert "\x1b" not in listed
    assert json.loads(machine.run("session", "ls", "-o", "json").stdout)[0]["user"] == "ann"
    assert machine.run("session", "revoke", "3f0c").code == Exit.OK
    assert machine.run("session", "revoke", "3f0c").code == Exit.NOT_FOUND


def test_tokens(machine: Machine, people: PeopleStore) -> None:
    machine.run("user", "add", "ann")
    added = machine.run("token", "add", "ann", "--label", "ci", "--scope", "deploy", "--days", "7")
    secret = added.stdout.strip()
    assert people.by_token(secret, time.time()) is not None
    (listed,) = json.loads(machine.run("token", "ls", "-o", "json").stdout)
    assert (listed["label"], listed["scope"]) == ("ci", "deploy")
    assert secret not in machine.run("token", "ls", "ann").stdout
    assert machine.run("token", "add", "bob").code == Exit.NOT_FOUND
    assert machine.run("token", "add", "ann", "--label", "x" * 61).code == Exit.USAGE
    assert machine.run("token", "revoke", listed["id"]).code == Exit.OK
    assert machine.run("token", "revoke", listed["id"]).code == Exit.NOT_FOUND
    assert people.by_token(secret, time.time()) is None


def test_what_was_done_on_the_host_is_told(
    machine: Machine, people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "operator")
    machine.run("user", "add", "ann", "--admin")
    machine.run("role", "add", "ann", "viewer", "demo")
    machine.run("token", "add", "ann")
    machine.run("user", "rm", "ann")
    acts = json.loads(machine.run("audit", "-o", "json").stdout)
    assert [each["act"] for each in acts] == ["user add", "role add", "token add", "user rm"]
    assert {each["who"] for each in acts} == {"host:operator"}
    assert "viewer of demo" in machine.run("audit", "host:operator", "-n", "3").stdout
    assert machine.run("audit", "ann").code == Exit.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_root_works_as_the_owner_of_the_folder() -> None:
    """Not in pytest's folder, which root alone may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        machine = Machine(Path(folder))
        web = machine.state / "web"
        web.mkdir(parents=True)
        os.chown(web, 65534, 65534)
        web.chmod(0o700)
        assert machine.run("user", "add", "ann").code == Exit.OK
        assert os.geteuid() == 0
        found = (web / "people.db").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65534, 0o600)
        (web / "people.db").unlink()
        (web / "people.db").symlink_to(machine.state / "of-root.db")
        assert machine.run("user", "add", "ann").code != Exit.OK
        assert not (machine.state / "of-root.db").exists()
