"""The format of a backup: a tar of regular files, compressed by gzip and encrypted by age, so that `age -d | tar -tz`
lists one without this program. docs/reference/backup.md describes it.

    prichal-backup.json   the head: format, versions, instance, time
    …                     the members
    manifest.jsonl        the last one: name, size and SHA-256 of each member before it, a line each

Both directions are streams with bounded memory, whatever an archive contains. A reader believes nothing: it takes
regular files with plain names alone, and `ArchiveReader` is at its end only once every digest, the end of the tar, and
the end of the encryption were seen.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Final, Protocol, cast

from controller.age import AgeFailed, decrypt_stream, encrypt_stream
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

FORMAT: Final = 1
HEAD, MANIFEST = "prichal-backup.json", "manifest.jsonl"
PIECE: Final = 2**18  # bytes that are read at once
MOST_HEAD: Final = 2**20  # bytes
MOST_SIZE: Final = 2**62  # bytes of a member; headers can say more, and less than none
MOST_EXTENDED: Final = 2**16  # bytes of the extended header of a member
MOST_NAME: Final = 1400  # bytes: a bucket and a key
HEADERS: Final = "PRICHAL.headers"  # the key of a member's own headers among the extended ones
_LONGEST_LINE: Final = 16 * 2**10  # bytes of a line of the manifest: of a name, each byte may take six
_AT_ONCE: Final = 250_000  # names whose hashes are compared at once
_MARK: Final = struct.Struct("q")
_PADDING: Final = 2**16  # bytes of zeros that may follow the last member
_LEVEL: Final = 1  # of gzip: models and images hardly shrink, and the others shrink enough


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Head:
    """What an archive says about itself. `schema` is that of the state; `buckets` had boxes when it was begun;
    `repositories` is the folder in which hosted repositories lay, "" in archives of earlier versions."""

    instance: str
    prichal: str
    schema: int
    created: float
    buckets: tuple[str, ...] = ()
    format: int = FORMAT
    repositories: str = ""


@dataclass(frozen=True)
class ArchiveMember:
    """`headers` are what the storage said about an object. `content` can be read once, and is read to its end
    anyhow."""

    name: str
    size: int
    content: Readable = field(compare=False)
    headers: Mapping[str, str] = field(default_factory=dict)


def damaged(problem: str) -> Stalled:
    return Stalled(
        Reason.BACKUP_DAMAGED, f"the backup is damaged: {problem}. Nothing of it is used; take another one"
    )


# --- writing ----------------------------------------------------------------------------------------------------


class ArchiveWriter:
    """Writes members one after another. `finish` makes the archive complete; without it, it is recognised as cut."""

    def __init__(self, tar: tarfile.TarFile, lines: IO[bytes]) -> None:
        self._tar = tar
        self._lines = lines
        self.count = 0

    def add(self, name: str, size: int, content: Readable, headers: Mapping[str, str] | None = None) -> None:
        """Add a member. Raises EOFError if `content` is shorter than `size`."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        if headers:
            info.pax_headers = {HEADERS: json.dumps(dict(headers), ensure_ascii=True)}
        hashed = _HashedContent(content, size, name)
        self._tar.addfile(info, hashed)
        _forget(self._tar)
        self._lines.write(_line(name, size, hashed.digest))
        self.count += 1

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add(name, len(content), io.BytesIO(content))

    def add_file(self, name: str, file: BinaryIO) -> None:
        """Add an open file as it is now: what is appended meanwhile is not part of it."""
        self.add(name, os.fstat(file.fileno()).st_size, file)

    def present(self, names: Iterable[str]) -> set[str]:
        """Return those of these names that are members."""
        wanted = set(names)
        if not wanted:
            return set()
        self._lines.seek(0)
        found = {name for line in self._lines if (name := json.loads(line)["name"]) in wanted}
        self._lines.seek(0, os.SEEK_END)
        return found

    def finish(self) -> None:
        size = self._lines.tell()
        self._lines.seek(0)
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = size, 0o600
        self._tar.addfile(info, self._lines)
        self._tar.close()


class _HashedContent:
    """Counts the digest of what is read, which is exactly `size` bytes."""

    def __init__(self, content: Readable, size: int, name: str) -> None:
        self._content, self._left, self._name = content, size, name
        self._hash = hashlib.sha256()

    def read(self, amount: int = -1, /) -> bytes:
        wanted = self._left if amount < 0 else min(amount, self._left)
        piece = self._content.read(wanted) if wanted else b""
        if wanted and not piece:
            raise EOFError(f"{self._name} is {self._left} bytes shorter than it was announced")
        self._left -= len(piece)
        self._hash.update(piece)
        while len(piece) < wanted:  # tarfile takes a short read for the end
            more = self.read(wanted - len(piece))
            piece += more
        return piece

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _forget(tar: tarfile.TarFile) -> None:
    """Let a tar not remember every member."""
    tar.members.clear()  # type: ignore[attr-defined]


def _line(name: str, size: int, digest: str) -> bytes:
    return json.dumps({"name": name, "size": size, "sha256": digest}).encode() + b"\n"


@contextmanager
def writing(out: BinaryIO, recipients: Iterable[str], head: Head) -> Iterator[ArchiveWriter]:
    """Yield a writer that encrypts for `recipients` to `out`. Raises the error of `out`; AgeFailed."""
    watched = _Watched(out)
    try:
        with (
            _Piped(lambda source: encrypt_stream(source, watched, recipients), reads=True) as piped,
            tempfile.TemporaryFile() as lines,
        ):
            packed = gzip.GzipFile(fileobj=piped.file, mode="wb", compresslevel=_LEVEL, mtime=0)
            tar = tarfile.TarFile(
                fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, copybufsize=PIECE, encoding="utf-8"
            )
            writer = ArchiveWriter(tar, lines)
            writer.add_bytes(HEAD, json.dumps(_head_document(head)).encode())
            yield writer
            writer.finish()
            packed.close()
    except (AgeFailed, OSError):
        if watched.error is not None:
            raise watched.error from None
        raise


class _Piped:
    """Runs `work` in a thread at the other end of a pipe. Its error comes before ours, which only follows from it."""

    def __init__(self, work: Callable[[BinaryIO], None], reads: bool) -> None:
        read, write = os.pipe()
        theirs, ours = (read, write) if reads else (write, read)
        self.file: BinaryIO = open(ours, "wb" if reads else "rb", buffering=PIECE)  # noqa: SIM115 - closed at the end
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work, theirs, reads), name="age", daemon=True)

    def _run(self, work: Callable[[BinaryIO], None], descriptor: int, reads: bool) -> None:
        try:
            with open(descriptor, "rb" if reads else "wb", buffering=0) as file:
                work(file)
        except BaseException as error:  # noqa: BLE001 - a thread cannot hand on SystemExit and the like
            self._error = error

    def __enter__(self) -> _Piped:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        with suppress(OSError):  # the other end is gone
            self.file.close()
        self._thread.join()
        # A reader that is given up leaves the thread with a pipe that nobody reads.
        if self._error is not None and not (error and isinstance(self._error, BrokenPipeError)):
            raise self._error from error


# --- reading ----------------------------------------------------------------------------------------------------


class _HeaderRefused(Exception):
    pass


class _Info(tarfile.TarInfo):
    """Reads headers without believing their sizes: the module would read an extended one into memory as a whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not 0 <= self.size <= MOST_SIZE:
            raise _HeaderRefused(f"the member {self.name[:200]!r} has {self.size} bytes")
        if self.type == tarfile.XHDTYPE:
            if self.size > MOST_EXTENDED:
                raise _HeaderRefused(f"an extended header of {self.size} bytes")
        elif self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _HeaderRefused(f"the member {self.name[:200]!r} is no regular file")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]

    def _sparse(self, *_: object) -> None:
        raise _HeaderRefused(f"the member {self.name[:200]!r} is sparse")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


class ArchiveReader:
    """`head` is known at once, `members` are read in their order, once. After the last one the archive is proved."""

    def __init__(self, tar: tarfile.TarFile, lines: IO[bytes]) -> None:
        self._tar, self._lines = tar, lines
        self.count, self.size = 0, 0  # of the members so far
        self.head = self._read_head()

    def _read_head(self) -> Head:
        first = self._next()
        if first is None or first.name != HEAD:
            raise _foreign("it does not begin with the head of a backup")
        if first.size > MOST_HEAD:
            raise damaged(f"its head has {first.size} bytes")
        content = first.content.read(first.size)
        head = _head_of(content)
        self._lines.write(_line(HEAD, first.size, hashlib.sha256(content).hexdigest()))
        return head

    def members(self) -> Iterator[ArchiveMember]:
        while (member := self._next()) is not None:
            if member.name == MANIFEST:
                self._compare(member)
                return
            hashed = _HashedContent(member.content, member.size, member.name)
            yield ArchiveMember(member.name, member.size, hashed, member.headers)
            while hashed.read(PIECE):
                pass
            self._lines.write(_line(member.name, member.size, hashed.digest))
            self.count, self.size = self.count + 1, self.size + member.size
        raise damaged("it ends before its manifest")

    def _next(self) -> ArchiveMember | None:
        info = self._tar.next()
        _forget(self._tar)
        if info is None:
            return None
        if not is_plain_name(info.name):
            raise damaged(f"the name {info.name[:200]!r} of a member is none that a backup has")
        if not 0 <= info.size <= MOST_SIZE:  # as its extended header says
            raise damaged(f"the member {info.name[:200]!r} has {info.size} bytes")
        content = self._tar.extractfile(info)
        assert content is not None  # a regular file
        return ArchiveMember(info.name, info.size, content, _headers(info.pax_headers.get(HEADERS, "")))

    def _compare(self, manifest: ArchiveMember) -> None:
        """Compare the manifest with what was read. A difference is one of the program that has written it, since age
        lets no other one pass."""
        self._lines.seek(0)
        manifest_lines = io.BufferedReader(_Raw(manifest.content), PIECE)
        while True:
            said, seen = manifest_lines.readline(_LONGEST_LINE), self._lines.readline()
            if said != seen:
                raise damaged(_difference(said, seen))
            if not said:
                break
        if twice := self._twice():
            raise damaged(f"it has the member {twice!r} twice")
        if self._tar.next() is not None:
            raise damaged("something follows its manifest")
        padding = 0
        rest = self._tar.fileobj
        while piece := rest.read(PIECE):
            padding += len(piece)
            if padding > _PADDING or piece.strip(b"\0"):
                raise damaged("something follows its end")

    def _twice(self) -> str:
        """Return the name of a member that is there twice, "" without any. Memory and time are bounded: each line is
        read once, and the hashes of many names are compared in several parts, which wait in files."""
        count = self.count // _AT_ONCE + 1
        with ExitStack() as files:
            parts = [files.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
            self._lines.seek(0)
            for line in self._lines:
                mark = hash(_name_in(line))
                parts[mark % count].write(_MARK.pack(mark))
            twice = next((found for part in parts if (found := _repeated(part)) is not None), None)
        if twice is None:
            return ""
        self._lines.seek(0)
        return next(name[:200] for name in map(_name_in, self._lines) if hash(name) == twice)


def _name_in(line: bytes) -> str:
    return str(json.loads(line)["name"])


def _repeated(part: IO[bytes]) -> int | None:
    """Return a hash that is there twice."""
    part.seek(0)
    seen = set[int]()
    while piece := part.read(PIECE):  # a multiple of a hash's bytes
        for (mark,) in _MARK.iter_unpack(piece):
            if mark in seen:
                return int(mark)
            seen.add(mark)
    return None


class _Raw(io.RawIOBase):
    """The content of a member as a file of `io`."""

    def __init__(self, content: Readable) -> None:
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece = self._content.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _difference(said: bytes, seen: bytes) -> str:
    """Say where the manifest and the members part."""
    here, there = _named(seen), _named(said)
    if not seen:
        return f"it lacks the member {there}, which its manifest has"
    if not said:
        return f"it has the member {here}, which its manifest has not"
    return f"its member {here} is not what its manifest has there: {there}"


def _named(line: bytes) -> str:
    try:
        found = json.loads(line)
        return f"{str(found['name'])[:200]!r} of {int(found['size'])} bytes ({str(found['sha256'])[:12]})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "a line that cannot be read"


@contextmanager
def reading(source: BinaryIO, identities: Iterable[Secret]) -> Iterator[ArchiveReader]:
    """Yield a reader of an archive. Raises Stalled `BackupDamaged`, `BackupForeign`, `BackupKeyWrong`, `BackupTooNew`;
    and what reading `source` raises."""
    watched = _Watched(source)
    try:
        with _Piped(lambda out: decrypt_stream(watched, out, identities), reads=False) as piped:
            with unpacked(cast(IO[bytes], gzip.GzipFile(fileobj=piped.file, mode="rb"))) as reader:
                yield reader
            while piped.file.read(PIECE):  # until the other end has seen the end, too
                pass
    except (AgeFailed, OSError) as error:
        raise _told(error, watched.error) from error


@contextmanager
def unpacked(archive: IO[bytes]) -> Iterator[ArchiveReader]:
    """Yield a reader of what was decrypted and unpacked, of which nothing is proved. Raises Stalled `BackupDamaged`,
    `BackupForeign`, `BackupTooNew`."""
    with _damage_told(), tempfile.TemporaryFile() as lines:
        tar = tarfile.open(fileobj=archive, mode="r|", tarinfo=_Info, bufsize=PIECE, encoding="utf-8")  # noqa: SIM115 - owns nothing
        yield ArchiveReader(tar, lines)


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        _HeaderRefused,
        RecursionError,
    ) as error:
        raise damaged(str(error) or type(error).__name__) from error


class _Watched:
    """Remembers the error of a file: age turns it into one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        with self._remembering():
            return self._file.read(size)

    def write(self, piece: bytes, /) -> int:
        with self._remembering():
            return self._file.write(piece)

    def flush(self) -> None:
        with self._remembering():
            self._file.flush()

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise


def _told(error: BaseException, cause: BaseException | None) -> BaseException:
    """Return what an error of reading means. age's own errors are about the key or the content."""
    if isinstance(cause, ControllerError | OSError):
        return cause
    if isinstance(error, AgeFailed):
        if error.is_key:
            text = "the backup is encrypted for other keys than the given ones: name the right file with --identity"
            return Stalled(Reason.BACKUP_KEY_WRONG, text)
        if "eader" in str(error) and "ncomplete" not in str(error):
            return _foreign("it is not encrypted by age")
        return damaged(f"it was cut or changed ({error})")
    if isinstance(error, OSError) and error.errno is None:  # what age says of content that was changed
        return damaged("it was cut or changed")
    return error


def is_plain_name(name: str) -> bool:
    """Return True if a member may be called so: names joined by `/`, of which none leads elsewhere."""
    if len(name.encode(errors="replace")) > MOST_NAME or "\0" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _headers(text: str) -> Mapping[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise damaged("the headers of a member cannot be read")
    return found


def _head_document(head: Head) -> dict[str, Any]:
    return {
        "format": head.format,
        "prichal": head.prichal,
        "schema": head.schema,
        "instance": head.instance,
        "created": head.created,
        "buckets": list(head.buckets),
        "repositories": head.repositories,
    }


def _head_of(content: bytes) -> Head:
    try:
        found = json.loads(content)
        head = Head(
            str(found["instance"]),
            str(found["prichal"]),
            int(found["schema"]),
            float(found["created"]),
            tuple(map(str, found.get("buckets", ()))),
            int(found["format"]),
            str(found.get("repositories", "")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _foreign("its head cannot be read") from None
    if head.format > FORMAT:
        raise Stalled(
            Reason.BACKUP_TOO_NEW,
            f"the backup has format {head.format} and was made by prichal {head.prichal}, but this prichal knows "
            f"format {FORMAT}: install that version or a newer one",
        )
    return head


def _foreign(problem: str) -> Stalled:
    return Stalled(Reason.BACKUP_FOREIGN, f"this is not a backup of prichal: {problem}")


def disk_full(what: str) -> Transient:
    return Transient(Reason.BACKUP_FAILED, f"{what}: the disk is full; free some space and try again")
