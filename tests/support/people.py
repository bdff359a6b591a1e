"""A person with a browser at the Flask application: signs in as the pages say, and sends what browsers send."""

from __future__ import annotations

import re
import time
from html import unescape
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant
from controller.domain.people.tokens import new_token
from controller.store.people import PeopleStore

PASSWORD = "correct horse battery"
HASH = generate_password_hash(PASSWORD, "scrypt:1024:8:1")  # to check a usual one takes 60 ms
#: What a browser sends with what a person opens in a window.
WINDOW = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html,*/*;q=0.8"}
#: And with a form of a sandboxed page.
SUBMIT = {**WINDOW, "Origin": "null", "Sec-Fetch-Site": "cross-site"}
_INPUT = re.compile(r'<input type="hidden" name="(\w+)"[^>]* value="([^"]*)"')


def add_person(people: PeopleStore, name: str, *grants: Grant, password: bool = True) -> None:
    people.add(name, time.time())
    if password:
        people.set_hash(name, HASH)
    for grant in grants:
        people.grant(grant)


def add_token(people: PeopleStore, name: str, scope: Scope = Scope.ADMIN, days: int = 1) -> str:
    return make_token(people, name, scope, days)[0]


def make_token(people: PeopleStore, name: str, scope: Scope = Scope.ADMIN, days: int = 1) -> tuple[str, str]:
    """Return the secret and the id of a new token."""
    random = f"{name}-{scope}-{time.monotonic_ns()}"
    secret, token = new_token(name, "of a test", scope, days, time.time(), random)
    people.add_token(secret, token)
    return secret, token.id


def hidden(page: Any) -> dict[str, str]:
    """The hidden fields of all forms of a page."""
    return {name: unescape(value) for name, value in _INPUT.findall(page.text)}


class Browser:
    """`cookies_with_forms`: a browser that sends cookies with forms of a sandboxed page, which none does."""

    def __init__(self, app: Flask, base: str = "http://localhost", cookies_with_forms: bool = False) -> None:
        self._client = FlaskClient(app, use_cookies=True)
        self._base = base
        self._cookies_with_forms = cookies_with_forms
        self._app = app

    def open(self, path: str, **headers: str) -> Any:
        return self._client.get(path, base_url=self._base, headers={**WINDOW, **headers})

    def submit(self, path: str, fields: dict[str, str], **headers: str) -> Any:
        client = self._client if self._cookies_with_forms else FlaskClient(self._app, use_cookies=False)
        return client.post(path, base_url=self._base, data=fields, headers={**SUBMIT, **headers})

    def sign_in(self, name: str, password: str = PASSWORD, path: str = "/-/login") -> Any:
        """The response to the last step: to the ticket if the password is right."""
        fields = {**hidden(self.open(path)), "name": name, "password": password}
        reply = self.submit("/-/login", fields)
        return self.open(reply.location) if reply.status_code == 303 else reply

    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in (self._client._cookies or {}).values()}

    def put_cookie(self, name: str, value: str) -> None:
        self._client.set_cookie(name, value, domain="localhost", path="/-/")
