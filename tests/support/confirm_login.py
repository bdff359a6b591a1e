"""A person with a browser for `prichal login`: passes the command's output on, and confirms the code that it shows.

python -m tests.support.confirm_login NAME PASSWORD
"""

from __future__ import annotations

import re
import sys
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import urlencode, urljoin

import urllib3

from tests.support.people import SUBMIT, WINDOW, hidden

_SHOWN: Final = re.compile(r"Open (\S+/-/device\S+) in a browser")


class Page:
    def __init__(self, reply: urllib3.BaseHTTPResponse) -> None:
        self.text = reply.data.decode()
        self.location = reply.headers.get("Location", "")


class WebBrowser:
    """Opens pages with its cookies, and sends forms as those of sandboxed pages: without."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    def open(self, url: str) -> Page:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        reply = urllib3.request("GET", url, headers={**WINDOW, "Cookie": cookies}, redirect=False)
        for line in reply.headers.getlist("Set-Cookie"):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        page = Page(reply)
        return self.open(urljoin(url, page.location)) if page.location else page

    def submit(self, url: str, fields: dict[str, str]) -> None:
        headers = {**SUBMIT, "Content-Type": "application/x-www-form-urlencoded"}
        reply = urllib3.request("POST", url, body=urlencode(fields), headers=headers, redirect=False)
        assert reply.status < 400, reply.data
        if location := Page(reply).location:
            self.open(urljoin(url, location))


def confirm(url: str, name: str, password: str) -> None:
    browser = WebBrowser()
    sign_in = hidden(browser.open(url))  # nobody is signed in yet, so this is the page for that
    browser.submit(urljoin(url, "/-/login"), {**sign_in, "name": name, "password": password})
    answer = {**hidden(browser.open(url)), "answer": "allow", "scope": "deploy"}
    browser.submit(urljoin(url, "/-/device/answer"), answer)


if __name__ == "__main__":
    for line in sys.stdin:
        print(line, end="", flush=True)
        if found := _SHOWN.search(line):
            confirm(found[1], *sys.argv[1:])
