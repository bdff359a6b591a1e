"""Logs of components' containers: kept past their end, bounded, cleaned, and read from anywhere in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.daemon.component_logs import MOST_CONTAINERS, SMALLEST, ComponentLogs
from controller.domain.apps.observed import LoggedContainer
from controller.domain.errors import Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.kept_logs import KeptLogs, LogCursor

DEMO, NAMER = AppName("demo"), ComponentName("namer")
NOON = 1_700_000_000.0
RUNNING = threading.Event()


@dataclass
class Script:
    """An engine with logs in memory. `lines` are pieces with their times by container."""

    lines: dict[str, list[tuple[float, bytes]]] = field(default_factory=dict)
    containers: dict[str, LoggedContainer] = field(default_factory=dict)
    read: int = 0

    def start(self, id: str, created: float = NOON, component: str = NAMER, app: str = DEMO) -> None:
        self.containers[id] = LoggedContainer(id, AppName(app), ComponentName(component), created)
        self.lines[id] = []

    def write(self, id: str, *lines: str, at: float = NOON) -> None:
        self.lines[id] += [(at, line.encode() + b"\n") for line in lines]

    def logged(self) -> tuple[LoggedContainer, ...]:
        return tuple(self.containers.values())

    def log_reader(self, id: str, after: str) -> ScriptReader:
        return ScriptReader(self, id, int(after.rpartition("/")[2] or 0))


@dataclass
class ScriptReader:
    script: Script
    id: str
    place: int

    def unread(self) -> Iterator[tuple[str, bytes]]:
        if self.id not in self.script.lines:
            raise Transient(Reason.ENGINE_UNREACHABLE, "it is gone")
        for at, piece in self.script.lines[self.id][self.place :]:
            self.place += 1
            self.script.read += len(piece)
            yield f"{iso(at)}/1/{self.place}", piece


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class World:
    def __init__(self, folder: Path, bound: int = 2**20) -> None:
        self.engine = Script()
        self.now = NOON
        self.secrets: dict[AppName, tuple[Secret, ...]] = {DEMO: (Secret("hunter2-hunter2"),)}
        self.known: list[AppName] | None = [DEMO]
        self.kept = KeptLogs(folder)
        self.bound = bound
        self.logs = self.restarted()

    def restarted(self) -> ComponentLogs:
        return ComponentLogs(
            self.engine,  # type: ignore[arg-type]
            self.kept.folder,
            self.bound,
            self.secrets.get,
            lambda: self.known,
            lambda: self.now,
        )

    def collect(self) -> None:
        self.now += 10
        self.logs.collect(RUNNING)

    def text(self, component: str | None = None, previous: bool = False) -> str:
        log = self.kept.chosen(DEMO, component, previous)
        if log is None:
            return ""
        cursor = LogCursor(self.kept, DEMO, component, log, log.begin)
        return b"".join(iter(cursor.take, b"")).decode()

    def size(self) -> int:
        return sum(segment.size for log in self.kept.of(DEMO) for segment in log.segments())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "logs")
    yield world
    world.logs.close()


def test_a_log_outlives_its_container(world: World) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "one", "two")
    world.collect()
    world.engine.write("c1", "last words")
    world.logs.finish("c1")
    del world.engine.containers["c1"]
    world.collect()
    assert world.text() == "one\ntwo\nlast words\n"


def test_the_newest_container_and_the_one_before(world: World) -> None:
    for number in range(3):
        world.engine.start(f"c{number}", NOON + number)
        world.engine.write(f"c{number}", f"of {number}")
    world.engine.start("d", NOON + 9, "other")
    world.engine.write("d", "of another")
    world.collect()
    assert world.text(NAMER) == "of 2\n"
    assert world.text(NAMER, previous=True) == "of 1\n"
    assert world.text() == "of another\n"
    assert world.text("other", previous=True) == ""
    assert world.text("nothing") == world.text("../demo") == ""


def test_nothing_is_lost_or_repeated_over_a_restart(world: World) -> None:
    world.engine.start("c1")
    for number in range(5):
        world.engine.write("c1", f"line {number}")
        world.collect()
        world.logs.close()
        world.logs = world.restarted()
    assert world.text() == "".join(f"line {number}\n" for number in range(5))


def test_secrets_and_what_a_terminal_obeys_are_not_in_it(world: World) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "password=hunter2-hunter2", "\x1b]0;title\x07\x1b[31mred\x1b[0m", "\x1b[2J")
    world.engine.lines["c1"].append((NOON, b"\xff\xfe binary\n"))
    world.collect()
    assert world.text() == "password=***\nred\n\n\\xff\\xfe binary\n"


def test_nothing_is_read_before_the_secrets_are_known(world: World) -> None:
    world.secrets.clear()
    world.engine.start("c1")
    world.engine.write("c1", "hunter2-hunter2")
    world.collect()
    assert (world.engine.read, world.text()) == (0, "")
    world.secrets[DEMO] = (Secret("hunter2-hunter2"),)
    world.collect()
    assert world.text() == "***\n"


def test_a_gigabyte_costs_no_more_than_its_bound(world: World) -> None:
    """In small: ten times the bound."""
    world.secrets[DEMO] = ()
    world.engine.start("c1")
    line = "x" * 8191
    for number in range(10):
        world.engine.write("c1", *(f"{number:03}{line[3:]}" for _ in range(world.bound // 8192)))
        world.collect()
        world.engine.lines["c1"] = [(NOON, b"")] * len(world.engine.lines["c1"])
    assert 0.8 * world.bound < world.size() <= world.bound
    text = world.text()
    assert text.endswith(f"009{line[3:]}\n")
    assert len(list(world.kept.folder.rglob("*.log"))) <= 17


def test_the_bound_holds_for_all_containers_of_an_app(world: World) -> None:
    world.secrets[DEMO] = ()
    for number in range(4):
        world.engine.start(f"c{number}", NOON + number, f"part-{number}")
        world.engine.write(f"c{number}", *("y" * 1023 for _ in range(world.bound // 1024)))
    world.collect()
    assert world.size() <= world.bound + 4 * SMALLEST
    assert all(world.text(f"part-{number}") for number in range(4)), "each keeps its newest lines"


def test_few_containers_of_a_component_are_kept(world: World) -> None:
    for number in range(MOST_CONTAINERS + 3):
        world.engine.start(f"c{number}", NOON + number)
        world.engine.write(f"c{number}", f"crash {number}")
        world.collect()
        del world.engine.containers[f"c{number}"]
    world.engine.start("z", NOON + 99)
    world.engine.write("z", "now")
    world.collect()
    world.collect()
    assert len(world.kept.of(DEMO)) <= MOST_CONTAINERS + 1
    assert world.text() == "now\n"


def test_logs_of_apps_that_were_disconnected_go(world: World) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "one")
    world.collect()
    world.known = None
    del world.engine.containers["c1"]
    world.collect()
    assert world.text() == "one\n", "before the platform folder was read, nothing is known"
    world.known = []
    world.collect()
    assert list(world.kept.folder.iterdir()) == []


def test_lines_since_a_time_and_the_last_ones(world: World) -> None:
    world.engine.start("c1")
    for minute in range(5):
        world.engine.write("c1", f"at {minute}", at=NOON + 60 * minute)
        world.collect()
    log = world.kept.of(DEMO)[0]

    def rest(offset: int) -> list[str]:
        return log.read(offset)[1].decode().splitlines()

    assert rest(log.since(NOON + 120)) == ["at 2", "at 3", "at 4"]
    assert rest(log.since(0)) == [f"at {minute}" for minute in range(5)]
    assert rest(log.since(NOON + 9999)) == []
    assert rest(log.tail(2)) == ["at 3", "at 4"]
    assert rest(log.tail(0)) == []
    assert rest(log.tail(99)) == [f"at {minute}" for minute in range(5)]


def test_a_reader_of_lines_that_are_gone_goes_on_with_the_next_ones(world: World) -> None:
    world.secrets[DEMO] = ()
    world.engine.start("c1")
    world.engine.write("c1", "begin")
    world.collect()
    log = world.kept.of(DEMO)[0]
    for _ in range(3):
        world.engine.write("c1", *("z" * 1023 for _ in range(world.bound // 1024)))
        world.collect()
    assert log.begin > 0
    at, piece = log.read(0)
    assert (at, len(piece) > 0) == (log.begin, True)


def test_following_goes_on_in_the_next_container(world: World) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "first")
    world.collect()
    log = world.kept.of(DEMO)[0]
    cursor = LogCursor(world.kept, DEMO, NAMER, log, 0)
    assert (cursor.take(), cursor.take(), cursor.go_on()) == (b"first\n", b"", False)
    world.engine.start("c2", NOON + 1)
    world.engine.write("c2", "second")
    world.collect()
    assert (cursor.go_on(), cursor.take()) == (True, b"second\n")
    again = LogCursor(world.kept, DEMO, NAMER, log, 0)
    again.resume(cursor.id)
    assert again.take() == b""
    for id in ("", "x", "namer/c2:-1", "namer/c2:" + "9" * 20):
        with pytest.raises(ValueError, match="id of a piece"):
            again.resume(id)
    again.resume("../../etc/passwd:0")
    assert again.id == cursor.id, "there is no such container"
    past = LogCursor(world.kept, DEMO, NAMER, log, 0, is_past=True)
    assert past.go_on() is False


def test_links_are_not_followed(world: World, tmp_path: Path) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "one")
    world.collect()
    (segment,) = world.kept.of(DEMO)[0].segments()
    segment.path.unlink()
    (tmp_path / "secret").write_text("secret")
    segment.path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        world.kept.of(DEMO)[0].read(0)


def test_an_engine_that_is_away_is_waited_for(world: World) -> None:
    world.engine.start("c1")
    world.engine.write("c1", "one")
    world.collect()
    lines = world.engine.lines.pop("c1")
    world.collect()
    world.engine.lines["c1"] = lines
    world.engine.write("c1", "two")
    world.collect()
    assert world.text() == "one\ntwo\n"
