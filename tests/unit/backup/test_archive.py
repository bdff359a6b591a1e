"""The format: what is written is read back, and nothing else is taken for it, whatever it contains and however large it
claims to be."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrage import x25519

from controller.backup import archive
from controller.backup.archive import HEAD, MANIFEST, ArchiveMember, Head, reading, writing
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from tests.support.backups import KEY, OTHER_KEY, head_document

HEAD_OF = Head("prichal", "0.1.0", 1, 1.0, ("b",))
IDENTITIES = (KEY.identity,)


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with writing(out, (KEY.recipient,), HEAD_OF) as writer:
        for name, content in members.items():
            writer.add(
                name, len(content), io.BytesIO(content), {"content-type": "a/b"} if "boxes" in name else None
            )
    return out.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    with reading(io.BytesIO(content), IDENTITIES) as reader:
        assert reader.head == HEAD_OF
        return {member.name: read(member) for member in reader.members()}


def read(member: ArchiveMember) -> bytes:
    return b"".join(iter(lambda: member.content.read(1000), b""))


def forged(*members: tuple[tarfile.TarInfo, bytes], end: bytes = b"", head: bytes = head_document()) -> bytes:
    """An archive that another program has made, encrypted for the right key."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in ((file(HEAD, head), head), *members):
            tar.addfile(info, io.BytesIO(content))
    return encrypted(gzip.compress(plain.getvalue() + end))


def file(name: str, content: bytes = b"", **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def encrypted(content: bytes) -> bytes:
    return bytes(pyrage.encrypt(content, [x25519.Recipient.from_str(KEY.recipient)]))


def refusal(content: bytes) -> ControllerError:
    with pytest.raises(ControllerError) as caught, reading(io.BytesIO(content), IDENTITIES) as reader:
        list(reader.members())
    return caught.value


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=300)
        .filter(lambda name: name not in (".", "..") and len(name.encode()) < 1000)
        .map(lambda name: f"boxes/b/{name}"),
        st.binary(max_size=5000),
        max_size=5,
    )
)
def test_what_is_written_is_read(members: dict[str, bytes]) -> None:
    assert unpacked(packed(members)) == members


def test_headers_of_an_object_travel_along() -> None:
    with reading(io.BytesIO(packed({"boxes/b/k": b"x", "db/state.db": b""})), IDENTITIES) as reader:
        found = {member.name: dict(member.headers) for member in reader.members()}
    assert found == {"boxes/b/k": {"content-type": "a/b"}, "db/state.db": {}}


def test_a_member_need_not_be_read() -> None:
    with reading(io.BytesIO(packed({"a": b"x" * 10**6, "b": b"y"})), IDENTITIES) as reader:
        assert [(member.name, member.size) for member in reader.members()] == [("a", 10**6), ("b", 1)]
        assert (reader.count, reader.size) == (2, 10**6 + 1)


@pytest.mark.parametrize("where", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_a_cut_archive_is_refused_wherever_it_ends(where: float) -> None:
    whole = packed({"a": os.urandom(300_000), "b": b"y"})
    cut = whole[: min(int(len(whole) * where), len(whole) - 1)]
    assert refusal(cut).reason in (Reason.BACKUP_DAMAGED, Reason.BACKUP_FOREIGN)


def test_one_that_was_not_finished_is_refused() -> None:
    """The writer was killed after a member, and something closed the stream in good order."""
    assert "ends before its manifest" in refusal(forged((file("a", b"x"), b"x"))).message


@pytest.mark.parametrize("place", [10, 200, 1000, 100_000, 250_000])
def test_a_changed_byte_is_found(place: int) -> None:
    whole = bytearray(packed({"a": os.urandom(300_000)}))
    whole[place] ^= 1
    assert refusal(bytes(whole)).reason in (
        Reason.BACKUP_DAMAGED,
        Reason.BACKUP_FOREIGN,
        Reason.BACKUP_KEY_WRONG,
    )


def test_another_key_does_not_open_it() -> None:
    with (
        pytest.raises(Stalled) as caught,
        reading(io.BytesIO(packed({})), (OTHER_KEY.identity,)),
    ):
        pass
    assert caught.value.reason == Reason.BACKUP_KEY_WRONG
    assert "--identity" in caught.value.message


FOREIGN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a text": lambda: b"hello world\n" * 100,
    "another age file": lambda: encrypted(b"hello"),
    "compressed text": lambda: encrypted(gzip.compress(b"hello")),
    "an empty tar": lambda: encrypted(gzip.compress(bytes(10240))),
    "another tar": lambda: forged(head=b"{}"),
    "a head that is no JSON": lambda: forged(head=b"\xff"),
    "a head nested deeply": lambda: forged(head=b"[" * 200_000),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(name: str) -> None:
    assert refusal(FOREIGN[name]()).reason in (Reason.BACKUP_FOREIGN, Reason.BACKUP_DAMAGED)


def test_a_newer_format_is_refused() -> None:
    error = refusal(forged(head=head_document(format=99, prichal="9.0.0")))
    assert error.reason == Reason.BACKUP_TOO_NEW
    assert "9.0.0" in error.message


HOSTILE: dict[str, tuple[tarfile.TarInfo, bytes]] = {
    "up": (file("platform/../x"), b""),
    "far up": (file("../../../etc/passwd"), b""),
    "absolute": (file("/etc/passwd"), b""),
    "dot": (file("platform/./x"), b""),
    "empty part": (file("platform//x"), b""),
    "nul": (file("platform/x\0y", pax_headers={"path": "platform/x\0y"}), b""),
    "link": (file("platform/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
    "hard link": (file("platform/x", type=tarfile.LNKTYPE, linkname="private/instance.key"), b""),
    "device": (file("platform/x", type=tarfile.BLKTYPE, devmajor=8), b""),
    "terminal": (file("platform/x", type=tarfile.CHRTYPE), b""),
    "fifo": (file("platform/x", type=tarfile.FIFOTYPE), b""),
    "folder": (file("platform/x", type=tarfile.DIRTYPE), b""),
    "long name": (file("a" * 5000), b""),
    "sparse": (
        file("x", b"1\n0\n1\n", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        b"1\n0\n1\n",
    ),
    "headers": (file("x", pax_headers={archive.HEADERS: "[1]"}), b""),
    "header of a megabyte": (file("x", pax_headers={"comment": "x" * 2**20}), b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused(name: str) -> None:
    assert refusal(forged(HOSTILE[name])).reason == Reason.BACKUP_DAMAGED


def test_every_name_that_is_read_stays_below() -> None:
    for name in ("..", ".", "a/..", "../a", "/a", "a//b", "a/", "", "a\0b", "x" * 2000):
        assert not archive.is_plain_name(name)


@pytest.mark.parametrize("end", [b"x", bytes(2**20), b"\0" * 512 + b"x"])
def test_what_follows_the_end_is_refused(end: bytes) -> None:
    head = head_document()
    line = archive._line(HEAD, len(head), hashlib.sha256(head).hexdigest())
    good = forged((file(MANIFEST, line), line))
    with reading(io.BytesIO(good), IDENTITIES) as reader:
        assert list(reader.members()) == []
    assert refusal(forged((file(MANIFEST, line), line), end=end)).reason == Reason.BACKUP_DAMAGED


@pytest.mark.parametrize("manifest", [b"", b"{}\n", b"x" * 10**6])
def test_a_manifest_of_other_members_is_refused(manifest: bytes) -> None:
    error = refusal(forged((file("a", b"x"), b"x"), (file(MANIFEST, manifest), manifest)))
    assert error.reason == Reason.BACKUP_DAMAGED


def test_each_difference_from_the_manifest_names_the_member() -> None:
    head = head_document()
    lines = {name: archive._line(name, 1, hashlib.sha256(b"x").hexdigest()) for name in ("a", "b", "c")}
    first = archive._line(HEAD, len(head), hashlib.sha256(head).hexdigest())
    other = archive._line("b", 2, hashlib.sha256(b"xx").hexdigest())
    for told, manifest in {
        "it lacks the member 'c' of 1 bytes": [*"abc"],
        "it has the member 'b' of 1 bytes (2d711642b726), which its manifest has not": ["a"],
        "its member 'b' of 1 bytes (2d711642b726) is not what its manifest has there: 'c' of 1 bytes": [
            "a",
            "c",
        ],
        "is not what its manifest has there: 'b' of 2 bytes": ["a", other],
        "a line that cannot be read": ["a", b"[]\n"],
    }.items():
        whole = first + b"".join(each if isinstance(each, bytes) else lines[each] for each in manifest)
        error = refusal(
            forged((file("a", b"x"), b"x"), (file("b", b"x"), b"x"), (file(MANIFEST, whole), whole))
        )
        assert error.reason == Reason.BACKUP_DAMAGED
        assert told in error.message


@pytest.mark.parametrize("at_once", [1, 2, 250_000])
def test_a_member_that_is_there_twice_is_named(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_AT_ONCE", at_once)
    out = io.BytesIO()
    with writing(out, (KEY.recipient,), HEAD_OF) as writer:
        for name in ("boxes/b/x", "platform/a", "boxes/b/y", "platform/a"):
            writer.add_bytes(name, b"x")
    assert "it has the member 'platform/a' twice" in refusal(out.getvalue()).message


class Zeros:
    """A gigabyte of zeros, which is nothing once it is compressed."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece


@pytest.mark.slow
def test_memory_stays_bounded_whatever_is_in_it() -> None:
    out = io.BytesIO()
    with writing(out, (KEY.recipient,), HEAD_OF) as writer:
        writer.add("boxes/b/zeros", 2**30, Zeros(2**30))
        for number in range(20_000):
            writer.add_bytes(f"boxes/b/{number}", b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out.seek(0)
    with reading(out, IDENTITIES) as reader:
        assert sum(1 for _ in reader.members()) == 20_001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_an_announced_size_that_is_not_there_is_refused() -> None:
    info = file("a")
    info.size = 10**15
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(file(HEAD, head_document()), io.BytesIO(head_document()))
    content = plain.getvalue()[:-10240].rstrip(b"\0") + b"\0" * 512
    assert refusal(encrypted(gzip.compress(content + info.tobuf(tarfile.PAX_FORMAT)))).reason in (
        Reason.BACKUP_DAMAGED,
        Reason.BACKUP_FOREIGN,
    )


class Full(io.RawIOBase):
    """A disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.room -= len(piece)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(piece)


@pytest.mark.parametrize("room", [0, 1000, 200_000])
def test_the_error_of_the_disk_is_raised_as_it_is(room: int) -> None:
    with (
        pytest.raises(OSError, match="No space left"),
        writing(cast(BinaryIO, Full(room)), (KEY.recipient,), HEAD_OF) as writer,
    ):
        for number in range(100):
            writer.add_bytes(str(number), os.urandom(10_000))


def test_the_error_of_the_source_is_raised_as_it_is() -> None:
    class Gone:
        def __init__(self, content: bytes) -> None:
            self.file = io.BytesIO(content)

        def read(self, size: int = -1, /) -> bytes:
            if self.file.tell() > 100_000:
                raise Transient(Reason.STORAGE_UNREACHABLE, "the storage is down")
            return self.file.read(size)

    whole = packed({"a": os.urandom(500_000)})
    with pytest.raises(Transient, match="the storage is down"), reading(Gone(whole), IDENTITIES) as reader:  # type: ignore[arg-type]
        list(reader.members())


def test_a_content_that_is_shorter_than_announced_ends_the_writing() -> None:
    with (
        pytest.raises(EOFError, match="a is 9 bytes shorter"),
        writing(io.BytesIO(), (KEY.recipient,), HEAD_OF) as w,
    ):
        w.add("a", 10, io.BytesIO(b"x"))


def test_a_reader_that_gives_up_leaves_no_thread(recwarn: pytest.WarningsRecorder) -> None:
    import threading

    before = threading.active_count()
    whole = packed({"a": os.urandom(2_000_000)})
    with pytest.raises(ZeroDivisionError), reading(io.BytesIO(whole), IDENTITIES) as reader:
        next(reader.members())
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_json_of_the_manifest_names_each_member() -> None:
    """A person reads it with tar and sha256sum."""
    plain = gzip.decompress(
        pyrage.decrypt(packed({"a": b"x"}), [x25519.Identity.from_str(KEY.identity.reveal())])
    )
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        found = tar.extractfile(MANIFEST)
        assert found
        lines = [json.loads(line) for line in found]
    assert [line["name"] for line in lines] == [HEAD, "a"]
    assert lines[1] == {
        "name": "a",
        "size": 1,
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }
