"""A platform's files API and its storage for tests of the client: two real HTTP servers in this process, so that
credentials which go to the wrong one are seen, with faults to order.

Links are good for one method and one object, as presigned ones are; the storage refuses requests that bring
credentials beside them, takes Range and If-Match, checks Content-MD5, and gives ETags as S3 does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from controller.domain.storage.keys import DEVELOPER_AREA, FileKeyInvalid, parse_path, user_area
from controller.domain.units import rfc3339
from tests.support.faulty_server import FaultyHandler, FaultyServer, Orders

APP, BOX = "demo", "data"


class Refusal(Exception):
    def __init__(self, status: int, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": "urn:x", "status": status, "detail": detail, **members}


@dataclass(frozen=True)
class Stored:
    content: bytes
    etag: str
    modified: str


@dataclass
class Upload:
    key: str
    size: int
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    method: str
    key: str
    upload: str = ""
    part: int = 0


class FilesServer(Orders):
    """Its servers are "api" and "storage"."""

    def __init__(self) -> None:
        super().__init__()
        self.api = FaultyServer(self, "api", Handler)
        self.storage = FaultyServer(self, "storage", Handler)
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self.links: dict[str, Link] = {}
        self.moves: dict[str, list[int]] = {}
        self.users = {"anna": "p:w", "dev": "secret"}
        self.tokens = {"t0ken": "bot"}
        self.open_to_all = False
        self.developers = {"dev"}
        self.capacity = 10**9
        self.part_size = 5 * 2**20
        self.page = 1000
        self.ranges = True  # whether the storage knows Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.server_port}"

    # --- what is stored

    def store(self, path: str, content: bytes, user: str | None = "anna", etag: str = "") -> Stored:
        modified = rfc3339(time.time())
        assert modified is not None
        stored = Stored(content, etag or hashlib.md5(content).hexdigest(), modified)
        self.objects[f"{BOX}/{user_area(user)}{path}"] = stored
        return stored

    def content(self, path: str, user: str | None = "anna") -> bytes | None:
        found = self.objects.get(f"{BOX}/{user_area(user)}{path}")
        return found.content if found else None

    def names(self, user: str | None = "anna") -> list[str]:
        area = f"{BOX}/{user_area(user)}"
        return sorted(key.removeprefix(area) for key in self.objects if key.startswith(area))

    # --- the API

    def ask(self, method: str, path: str, query: dict[str, str], user: str | None) -> tuple[int, object]:
        _, app, files, *rest = path.split("/", 4)
        if (app, files) != (APP, "files"):
            raise Refusal(404, "There is nothing at this path")
        if not rest or not rest[0]:
            used = sum(len(stored.content) for stored in self.objects.values())
            box = {
                "name": BOX,
                "capacity": self.capacity,
                "used": used,
                "pending": 0,
                "files": len(self.objects),
            }
            return 200, {"boxes": [box]}
        if rest[0] != BOX:
            raise Refusal(404, f"The app has no box {rest[0]}.")
        try:
            target = parse_path(unquote(rest[1]) if len(rest) > 1 else "")
        except FileKeyInvalid as error:
            raise Refusal(400, f"This name is not possible: {error}.") from error
        if query.get("area") == "developer" and user not in self.developers:
            raise Refusal(403, "The developer area is for the users listed in spec.files.developers.")
        area = DEVELOPER_AREA if "area" in query else user_area(user)
        key = f"{BOX}/{target.key(area)}"
        with self.lock:
            return self._group(method, key, query) if target.is_group else self._file(method, key, query)

    def _group(self, method: str, key: str, query: dict[str, str]) -> tuple[int, object]:
        inside = sorted(name for name in self.objects if name.startswith(key))
        if method == "DELETE":
            doomed = inside[: self.page]
            for name in doomed:
                del self.objects[name]
            return 200, {"deleted": len(doomed), "more": len(doomed) < len(inside)}
        if "moveTo" in query:
            return self._move_group(key, inside, query["moveTo"])
        if method != "GET":
            raise Refusal(405, "This is a group")
        names = dict.fromkeys(n.removeprefix(key) for n in inside)
        if "recursive" not in query:
            names = dict.fromkeys(n[: n.index("/") + 1] if "/" in n else n for n in names)
        left = [name for name in names if name > query.get("after", "")]
        page = left[: self.page]
        files = [name for name in page if not name.endswith("/")]
        groups = [name[:-1] for name in page if name.endswith("/")]
        listed = [{"name": n, **self._described(self.objects[key + n])} for n in files]
        return 200, {"files": listed, "groups": groups, "next": page[-1] if len(left) > len(page) else None}

    def _move_group(self, key: str, inside: list[str], to: str) -> tuple[int, object]:
        area = f"{BOX}/{user_area('anna')}"
        others = [name for name in self.objects if name.startswith(area + to)]
        if not self.moves.get(key) and (others or not inside):
            raise Refusal(
                409 if others else 404, "There is a folder already." if others else "There is no folder."
            )
        files, done = self.moves.setdefault(key, [len(inside), 0])
        free = [name for name in inside if area + to + name.removeprefix(key) not in others][: self.page]
        for name in free:
            self.objects[area + to + name.removeprefix(key)] = self.objects.pop(name)
        self.moves[key] = [files, done + len(free)]
        more = len(free) == self.page
        left = 0 if more else len(inside) - len(free)
        return 200, {
            "moved": len(free),
            "soFar": done + len(free),
            "files": files,
            "left": left,
            "more": more,
        }

    def _file(self, method: str, key: str, query: dict[str, str]) -> tuple[int, object]:
        if "upload" in query:
            return self._upload(method, key, query["upload"], query)
        match method:
            case "GET":
                found = self._found(key)
                return 200, {"presigned_get_url": self._link(Link("GET", key)), **self._described(found)}
            case "DELETE":
                self._found(key)
                del self.objects[key]
                return 204, None
            case "PUT":
                self._check_room(key, int(query["size"]))
                return 200, {"presigned_put_url": self._link(Link("PUT", key))}
        if "moveTo" in query:
            found = self._found(key)
            del self.objects[key]
            self.objects[f"{BOX}/{user_area('anna')}{query['moveTo']}"] = found
            return 200, {"name": query["moveTo"], **self._described(found)}
        size = int(query["size"])
        self._check_room(key, size)
        upload = secrets.token_hex(8)
        self.uploads[upload] = Upload(key, size)
        return 201, {"upload": upload, "partSize": self.part_size, "parts": -(-size // self.part_size)}

    def _upload(self, method: str, key: str, upload: str, query: dict[str, str]) -> tuple[int, object]:
        found = self.uploads.get(upload)
        if found is None or found.key != key:
            raise Refusal(404, "There is no such upload, or not any more. Begin a new one.")
        match method:
            case "GET":
                parts = [
                    {"number": number, "size": len(content), "etag": hashlib.md5(content).hexdigest()}
                    for number, content in sorted(found.parts.items())
                ]
                return 200, {"partSize": self.part_size, "parts": parts}
            case "PUT":
                return 200, {"presigned_put_url": self._link(Link("PUT", key, upload, int(query["part"])))}
            case "DELETE":
                del self.uploads[upload]
                return 204, None
        content = b"".join(content for _, content in sorted(found.parts.items()))
        if len(content) != found.size:
            raise Refusal(409, f"The parts have {len(content)} bytes, {found.size} were announced.")
        etag = composite(content, self.part_size)
        self.objects[key] = Stored(content, etag, "2026-01-31T12:00:00Z")
        del self.uploads[upload]
        return 200, {"name": key, "size": len(content), "etag": etag}

    def _found(self, key: str) -> Stored:
        if key not in self.objects:
            raise Refusal(404, f"There is no file {key.rpartition('file_groups/')[2]}.")
        return self.objects[key]

    def _described(self, stored: Stored) -> dict[str, object]:
        return {"size": len(stored.content), "etag": stored.etag, "modified": stored.modified}

    def _check_room(self, key: str, size: int) -> None:
        used = sum(len(stored.content) for stored in self.objects.values())
        if used + size > self.capacity:
            free = self.capacity - used
            raise Refusal(507, f"Box data has {free} bytes free.", capacity=self.capacity, free=free)
        parts = key.split("/")
        above = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if above & self.objects.keys() or any(name.startswith(f"{key}/") for name in self.objects):
            raise Refusal(409, "A file and a group cannot have the same name.")

    def _link(self, link: Link) -> str:
        token = secrets.token_hex(16)
        self.links[token] = link
        return f"http://127.0.0.1:{self.storage.server_port}/bucket/object?X-Amz-Signature={token}"


def composite(content: bytes, part_size: int) -> str:
    digests = [
        hashlib.md5(content[start : start + part_size]).digest()
        for start in range(0, len(content), part_size)
    ]
    return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


class Handler(FaultyHandler):
    @property
    def files(self) -> FilesServer:
        assert isinstance(self.server.orders, FilesServer)
        return self.server.orders

    def right_answer(self) -> None:
        if self.server.name == "api":
            self._answer_api()
        else:
            self._answer_link()

    def _answer_api(self) -> None:
        parts = urlsplit(self.path)
        try:
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            code, document = self.files.ask(self.command, parts.path, query, self._user())
        except Refusal as refusal:
            body = json.dumps(refusal.document).encode()
            self.reply(refusal.status, body, {"Content-Type": "application/problem+json"})
            return
        self.reply(code, b"" if document is None else json.dumps(document).encode())

    def _user(self) -> str | None:
        files = self.files
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(value).decode().partition(":")
            if files.users.get(user) == password:
                return user
        if scheme == "Bearer" and value in files.tokens:
            return files.tokens[value]
        if files.open_to_all and not scheme:
            return None
        raise Refusal(401, "The credentials are missing or wrong.")

    def _answer_link(self) -> None:
        files = self.files
        link = files.links.get(dict(parse_qsl(urlsplit(self.path).query)).get("X-Amz-Signature", ""))
        if "Authorization" in self.headers:
            self._refuse(400, "InvalidArgument", "Only one auth mechanism allowed")
        elif link is None or link.method != self.command:
            self._refuse(403, "AccessDenied", "Request has expired")
        elif self.command == "PUT":
            self._take(link)
        else:
            self._give(link)

    def _take(self, link: Link) -> None:
        files, content = self.files, self.body()
        content = flipped(content) if self.garbled else content
        digest = hashlib.md5(content)
        if self.headers.get("Content-MD5") != base64.b64encode(digest.digest()).decode():
            self._refuse(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
            return
        if not link.upload:
            files.objects[link.key] = Stored(content, digest.hexdigest(), "2026-01-31T12:00:00Z")
        elif link.upload in files.uploads:
            files.uploads[link.upload].parts[link.part] = content
        else:
            self._refuse(404, "NoSuchUpload", "The specified upload does not exist.")
            return
        self.reply(200, b"", {"ETag": f'"{digest.hexdigest()}"'})

    def _give(self, link: Link) -> None:
        files = self.files
        found = files.objects.get(link.key)
        if found is None:
            self._refuse(404, "NoSuchKey", "The specified key does not exist.")
            return
        if self.headers.get("If-Match", f'"{found.etag}"') != f'"{found.etag}"':
            self._refuse(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")
            return
        content = flipped(found.content) if self.garbled else found.content
        headers = {"ETag": f'"{found.etag}"'}
        asked = self.headers.get("Range")
        if asked is None or not files.ranges:
            self.reply(200, content, headers)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(206, content[start:], headers)

    def _refuse(self, code: int, word: str, message: str) -> None:
        self.body()
        self.reply(code, f"<Error><Code>{word}</Code><Message>{message}</Message></Error>".encode())


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@contextmanager
def files_server() -> Iterator[FilesServer]:
    files = FilesServer()
    with files.api.serving(), files.storage.serving():
        yield files
