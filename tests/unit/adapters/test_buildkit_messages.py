"""The messages of BuildKit: fields, files that it asks for, and its progress."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.buildkit.files import FileTree, Sending
from controller.adapters.docker.buildkit.limits import DiskWatch, script
from controller.adapters.docker.buildkit.progress import TRACE, BuildProgress
from controller.adapters.docker.buildkit.wire import (
    WireError,
    data,
    decoded,
    encoded,
    integer,
    messages,
    text,
)
from controller.config import DockerSettings
from controller.domain.errors import Transient
from controller.domain.reasons import Reason

FIELDS = st.lists(
    st.tuples(st.integers(1, 2**20), st.integers(1, 2**64 - 1) | st.binary(min_size=1, max_size=300)),
    max_size=8,
)


@given(FIELDS)
def test_fields_are_read_as_they_were_written(fields: list[tuple[int, int | bytes]]) -> None:
    found = decoded(encoded(fields))
    assert [value for number in found for value in found[number]] == [
        value for number in found for each, value in fields if each == number
    ]


@given(st.binary(max_size=60))
def test_whatever_is_received(message: bytes) -> None:
    try:
        fields = decoded(message)
    except WireError:
        return
    for number in fields:
        assert isinstance(text(fields, number), str)
        assert isinstance(data(fields, number), bytes)
        assert integer(fields, number) >= 0


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x80" * 11, b"\x0b", b"\x09abc", b"\x08"])
def test_what_is_no_message(message: bytes) -> None:
    with pytest.raises(WireError):
        decoded(message)


# --- files ------------------------------------------------------------------------------------------------------


def received(
    sending: Sending, asked: Iterable[int]
) -> tuple[list[tuple[str, int, int, str]], dict[int, bytes]]:
    """What a receiver gets that asks for these files: all that is listed, and contents."""
    listed: list[tuple[str, int, int, str]] = []
    contents: dict[int, bytes] = {}
    while (packet := sending.next_packet()) is not None:
        stats = messages(decoded(packet), 2)
        listed += [(text(stat, 1), integer(stat, 2), integer(stat, 5), text(stat, 7)) for stat in stats]
    for number in asked:
        sending.receive(encoded([(1, 1), (3, number)]))
    sending.receive(encoded([(1, 3)]))
    while (packet := sending.next_packet()) is not None:
        fields = decoded(packet)
        if integer(fields, 1) == 2:
            number = integer(fields, 3)
            contents[number] = contents.get(number, b"") + data(fields, 4)
    assert sending.finished
    return listed, contents


def test_an_archive_is_listed_in_the_order_of_a_walk(tmp_path: object) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in (("b/c", b"1" * 100_000), ("b.x", b"2"), ("a", b""), ("b/d/e", b"3")):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755 if path == "b.x" else 0o644
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "b/c"
        tar.addfile(link)
    buffer.seek(0)
    with open(f"{tmp_path}/spooled", "w+b") as spooled:
        spooled.write(buffer.getvalue())
        spooled.seek(0)
        tree = FileTree.of_tar(spooled, {".dockerignore": b"x"})
        listed, contents = received(Sending(tree), range(1, 7))
    folder = 1 << 31 | 0o755
    assert listed == [
        (".dockerignore", 0o644, 1, ""),
        ("a", 0o644, 0, ""),
        ("b", folder, 0, ""),
        ("b/c", 0o644, 100_000, ""),
        ("b/d", folder, 0, ""),
        ("b/d/e", 0o644, 1, ""),
        ("b.x", 0o755, 1, ""),
        ("link", 1 << 27 | 0o777, 0, "b/c"),
    ]
    assert contents == {1: b"", 2: b"", 3: b"1" * 100_000, 4: b"", 5: b"3", 6: b"2"}


def test_a_receiver_that_asks_for_something_else() -> None:
    sending = Sending(FileTree.of_texts({"a": b"1"}))
    with pytest.raises(ValueError, match="no file 1"):
        sending.receive(encoded([(1, 1), (3, 1)]))
    with pytest.raises(ValueError, match="disk full"):
        sending.receive(encoded([(1, 4), (4, b"disk full")]))


# --- progress ---------------------------------------------------------------------------------------------------


def step(
    id: str, name: str, cached: bool = False, begun: bool = False, ended: bool = False
) -> tuple[int, bytes]:
    times = [(5, b"\x08\x01")] * begun + [(6, b"\x08\x01")] * ended
    return 1, encoded([(1, id.encode()), (3, name.encode()), (4, int(cached)), *times])


def output(id: str, content: bytes) -> tuple[int, bytes]:
    return 3, encoded([(1, id.encode()), (3, 1), (4, content)])


def lines(*sent: list[tuple[int, bytes]]) -> list[str]:
    progress = BuildProgress()
    told: list[str] = []
    for fields in sent:
        told += progress.lines({"id": TRACE, "aux": base64.b64encode(encoded(fields)).decode()})
    return told


def test_steps_and_their_output() -> None:
    assert lines(
        [step("i", "[internal] load", begun=True)],
        [step("a", "[1/2] FROM x", cached=True), step("b", "[2/2] RUN y")],
        [step("b", "[2/2] RUN y", begun=True)],
        [output("b", b"one\r\ntw"), output("b", b"o\nrest")],
        [step("b", "[2/2] RUN y", begun=True, ended=True)],
        [step("b", "[2/2] RUN y", begun=True, ended=True)],
    ) == ["[1/2] FROM x (cached)", "[2/2] RUN y", "one", "two", "rest"]


def test_steps_side_by_side() -> None:
    assert lines(
        [step("a", "A", begun=True), step("b", "B", begun=True)],
        [output("a", b"1\n"), output("a", b"2\n"), output("b", b"3\n"), output("a", b"4")],
        [step("a", "A", begun=True, ended=True)],
    ) == ["A", "B", "A", "1", "2", "B", "3", "A", "4"]


def test_a_line_without_end_is_cut() -> None:
    found = lines([step("a", "A", begun=True)], *([output("a", b"x" * 50_000)] for _ in range(4)))
    assert [len(line) for line in found] == [1, 100_000, 100_000]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": TRACE},
        {"id": TRACE, "aux": "!"},
        {"id": TRACE, "aux": "CAU="},
        {"id": TRACE, "aux": "Cg=="},
    ],
)
def test_what_is_no_progress(message: dict[str, str]) -> None:
    assert list(BuildProgress().lines(message)) == []


# --- limits -----------------------------------------------------------------------------------------------------


def test_the_disk_is_looked_at_now_and_then() -> None:
    now, free = [0.0], [1000]
    watch = DiskWatch(lambda: free[0], 1000, 100, clock=lambda: now[0])
    assert not watch.is_full()
    free[0] = 0
    assert not watch.is_full(), "it has looked just before"
    now[0] = 2.0
    assert watch.is_full()
    assert watch.error("cannot build").reason == "BuildTooLarge"
    free[0] = 1000
    assert watch.is_full(), "the build is being ended"


def test_a_disk_that_cannot_be_measured_and_one_that_gets_emptier() -> None:
    answers = iter([None, 5000])
    now = iter(range(0, 100, 2))
    watch = DiskWatch(lambda: next(answers), 1000, 100, clock=lambda: float(next(now)))
    assert not watch.is_full()
    assert not watch.is_full()
    assert watch.used == 0


def test_a_build_that_nothing_limits_any_more_is_ended() -> None:
    def look() -> int:
        raise Transient(Reason.BUILD_UNLIMITED, "the container has ended")

    watch = DiskWatch(look, 1000, 100, clock=lambda: 0.0)
    assert watch.is_full()
    error = watch.error("cannot build")
    assert (error.reason, error.message) == ("BuildUnlimited", "cannot build: the container has ended")


def test_limits_are_numbers_in_the_script() -> None:
    text = script(DockerSettings(build_cpus=1.5, build_memory=2**30, build_pids=7))
    for words in (
        "memory.max 1073741824",
        "lower $g/memory.max 4294967296",
        "lower $g/pids.max 28",
        "pids.max 7",
        "cpu.max '150000 100000'",
        "cpu.cfs_quota_us 150000",
    ):
        assert words in text


# --- the cache --------------------------------------------------------------------------------------------------


def test_the_cache_is_left_alone_until_a_build_of_ours_adds_to_it() -> None:
    """It is that of other people by the same engine."""
    asked: list[dict[str, str]] = []

    def request(method: str, url: str, params: dict[str, str], timeout: float) -> Any:
        asked.append(params)
        return SimpleNamespace(text="{}", raise_for_status=lambda: None, json=dict)

    client = SimpleNamespace(base_url="http://engine", api_version="1.41", timeout=60.0, request=request)
    connection: Any = SimpleNamespace(client=client, timeout=60.0)
    cache = BuildCache(connection, DockerSettings(build_cache=7))
    cache.collect(60.0)
    assert asked == []
    cache.used()
    cache.collect(60.0)
    assert [each["keep-storage"] for each in asked] == ["0", "7"]
