"""Addresses of boxes, groups and files on the command line. Pure.

An address is written `APP:BOX/GROUP/FILE`, as for scp: it has a colon before its first slash. Its URL in the
files API is an address, too. Everything else is a path on this machine; one with a colon in its first segment
needs `./` before it. `controller.domain.storage.keys` decides whether an address is a group or a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from controller.domain.names import is_dns_label
from controller.domain.storage.keys import FileKeyInvalid, FilePath, parse_path


class AddressInvalid(ValueError):
    """The text is not an address; the message says what is wrong with it."""


@dataclass(frozen=True)
class BoxAddress:
    """`server` is where the platform answers, `https://host[:port][/prefix]`, "" if the address has none.
    Without `box` it stands for all boxes of the app."""

    app: str
    box: str
    path: FilePath
    server: str = ""
    developer: bool = False  # of the module's own area, not the caller's

    @property
    def url(self) -> str:
        """Return its URL in the files API, without a query."""
        place = f"/{quote(self.box, safe='')}/{quote(self.path.text)}" if self.box else ""
        return f"{self.server}/{self.app}/files{place}"

    @property
    def name(self) -> str:
        """Return the last segment."""
        return self.path.text.rstrip("/").rpartition("/")[2]

    def as_group(self) -> Self:
        """Return the group of this path, for places where only a group is possible: `a/b` becomes `a/b/`."""
        if self.path.is_group:
            return self
        return replace(self, path=FilePath(self.path.text + "/", is_group=True))

    def below(self, name: str) -> Self:
        """Return the address of the file `name`, which may be a path, in this group. Raises AddressInvalid."""
        try:
            path = parse_path(self.path.text + name)
        except FileKeyInvalid as error:
            raise AddressInvalid(f"{name!r} cannot be the name of a file in {self}: {error}") from error
        if path.is_group:
            raise AddressInvalid(f"{name!r} needs a group to lie in, as in {self.app}:{self.box}/GROUP/")
        return replace(self, path=path)

    def __str__(self) -> str:
        return f"{self.app}:{self.box}/{self.path.text}" if self.box else f"{self.app}:"


def is_address(text: str) -> bool:
    """Return True if `text` is meant as an address and not as a path on this machine."""
    return ":" in text.partition("/")[0]


def parse_address(text: str) -> BoxAddress:
    """Raises AddressInvalid."""
    if not is_address(text):
        raise AddressInvalid(f"{text!r} is not an address: write APP:BOX/GROUP/FILE")
    if "://" in text:
        return _parse_url(text)
    app, _, rest = text.partition(":")
    return _address(text, app, rest)


def _parse_url(text: str) -> BoxAddress:
    parts = urlsplit(text)
    segments = parts.path.split("/")
    if parts.scheme not in ("http", "https") or "files" not in segments[2:]:
        raise AddressInvalid(f"{text!r} is not an address: a URL ends in /APP/files/BOX/GROUP/FILE")
    if parts.username is not None or parts.fragment:
        raise AddressInvalid("a URL as an address has neither credentials nor #: those are given by --user")
    place = segments.index("files", 2)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    developer = query.pop("area", "") == "developer"
    if query:
        raise AddressInvalid(f"a URL as an address has no query but area=developer: {', '.join(query)}")
    server = f"{parts.scheme}://{parts.netloc}{'/'.join(segments[: place - 1])}"
    found = _address(text, segments[place - 1], unquote("/".join(segments[place + 1 :])))
    return replace(found, server=server, developer=developer)


def _address(text: str, app: str, rest: str) -> BoxAddress:
    box, _, path = rest.partition("/")
    if not is_dns_label(app):
        raise AddressInvalid(
            f"{text!r}: {app!r} cannot be an app. Write APP:BOX/GROUP/FILE, or ./{text} for a file of this machine"
        )
    if not (is_dns_label(box) if box else not path):
        raise AddressInvalid(f"{text!r}: {box!r} cannot be a box. Write APP:BOX/GROUP/FILE")
    try:
        return BoxAddress(app, box, parse_path(path))
    except FileKeyInvalid as error:
        raise AddressInvalid(f"{text!r}: {error}") from error
