"""Keys of users' and developers' files in a box, and the paths that name files and groups. Pure.

A file of a user lies at `users/<user>/file_groups/<group>/<file>`, the module's own data below `developer/`.
URLs and FILE variables have only the rest of the key: one segment, or a path ending in `/`, is a group;
several segments not ending in `/` are a file."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from controller.domain.localizable import Localizable

MAX_KEY = 900  # bytes in UTF-8: S3 allows 1024, and the area comes before it
MAX_SEGMENT = 255  # bytes: what file systems allow, which the embedded storage keeps its keys in
DEVELOPER_AREA = "developer/"
#: Area of callers without a name. No encoded user name looks like it: a percent sign there is followed by hex digits.
ANONYMOUS = "%anonymous"

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.@+")


class FileKeyInvalid(ValueError):
    """A path that names no file or group; `message` says what is wrong with it."""

    def __init__(self, message: Localizable) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class FilePath:
    """A path within an area, checked. `text` ends in `/` if it names a group; the area itself is the group ``""``."""

    text: str
    is_group: bool

    def key(self, area: str) -> str:
        return area + self.text


def user_area(user: str | None) -> str:
    """Return the prefix of a user's keys; None is a caller without a name. Two users never share one, and no
    name leads out of `users/`, because special characters are percent-encoded."""
    return f"users/{encode_user(user) if user else ANONYMOUS}/file_groups/"


def encode_user(user: str) -> str:
    """Return a user's name as one segment of a key: UTF-8, with all characters except `A-Za-z0-9-_.@+`, and
    names of dots alone, percent-encoded."""
    if not user.strip("."):
        return "".join(f"%{byte:02X}" for byte in user.encode())
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode()) for char in user
    )


def parse_path(path: str) -> FilePath:
    """Parse a path that was decoded from a URL or given as a FILE variable's `data`. Raises FileKeyInvalid."""
    if not path:
        return FilePath("", is_group=True)
    if len(path.encode(errors="surrogatepass")) > MAX_KEY:
        raise FileKeyInvalid(Localizable("the path has more than {most} bytes", most=MAX_KEY))
    segments = path.removesuffix("/").split("/")
    for segment in segments:
        _check_segment(segment)
    is_group = path.endswith("/") or len(segments) == 1
    text = "/".join(segments) + ("/" if is_group else "")
    return FilePath(text, is_group)


def _check_segment(segment: str) -> None:
    if not segment:
        raise FileKeyInvalid(
            Localizable("the path has an empty segment: two slashes in a row, or one at the start")
        )
    if segment.strip() in (".", ".."):  # as MinIO and the JuiceFS gateway do
        raise FileKeyInvalid(Localizable("the path has a segment {segment!r}", segment=segment))
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in segment):
        raise FileKeyInvalid(Localizable("the path has a control character or is not valid UTF-8"))
    if "\\" in segment:
        raise FileKeyInvalid(Localizable("the path has a backslash; segments are separated by /"))
    if len(segment.encode()) > MAX_SEGMENT:
        raise FileKeyInvalid(
            Localizable("a segment of the path has more than {most} bytes", most=MAX_SEGMENT)
        )


def check_cursor(text: str) -> None:
    """Check a cursor. It may name keys made by other clients of the storage, so only keys that no storage can
    have are refused. Raises FileKeyInvalid."""
    segments = text.removesuffix("/").split("/") if text else []
    for segment in segments:
        if segment.strip() in ("", ".", ".."):
            raise FileKeyInvalid(Localizable("it has a segment {segment!r}", segment=segment))
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise FileKeyInvalid(Localizable("it has a control character or is not valid UTF-8"))


def ancestors(text: str) -> tuple[str, ...]:
    """Return the paths that must not be files if `text` is to be one: for `a/b/c` these are `a` and `a/b`."""
    segments = text.rstrip("/").split("/")
    return tuple("/".join(segments[:count]) for count in range(1, len(segments)))
