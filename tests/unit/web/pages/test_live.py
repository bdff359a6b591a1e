"""Live pages on the event loop: equal ones share their looks, each reader gets what has changed and nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.config import WebSettings
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Principal, Role
from controller.domain.secret import Secret
from controller.store.people import PeopleStore
from controller.web.auth.people import Callers
from controller.web.pages import live
from controller.web.pages.languages import Language
from controller.web.pages.live import LivePages
from controller.web.problems import RequestRefused
from controller.web.query import QueryParameters
from tests.support.gateway import Caller
from tests.support.people import add_person, add_token

LOOKS: list[str] = []


class Board:
    """What stands in place of the store: a text for each app."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}


@dataclass(frozen=True)
class NotePage:
    app: str

    def read(self, store: Any) -> str:
        LOOKS.append(self.app)
        return str(store.texts.get(self.app, ""))

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        if found == "broken":
            raise ValueError("a bug")
        return {"note": f"<p>{language}: {found}</p>", "rest": "<p>always the same</p>"}


def make(store: Any, who: Principal, names: Mapping[str, str], query: QueryParameters) -> NotePage:
    return NotePage(names["name"])


class Watch:
    """A watch whose store changes when the test says so."""

    def __init__(self) -> None:
        self.stopping = False
        self._changed = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        await self._changed.wait()
        self._changed.clear()

    def change(self) -> None:
        self._changed.set()


class Scene:
    def __init__(self, folder: Path) -> None:
        LOOKS.clear()
        self.board, self.watch = Board(), Watch()
        self.people = PeopleStore(folder / "people.db")
        add_person(self.people, "ann", Grant("ann", Role.VIEWER, "demo"), password=False)
        self.token = add_token(self.people, "ann", Scope.READ)
        callers = Callers(self.people, WebSettings(admin_token=Secret("x" * 20)))
        self.pages = LivePages(self.board, self.watch, callers, {"/-/apps/<name>": make})  # type: ignore[arg-type]

    def scope(self, app: str = "demo", **query: str) -> dict[str, Any]:
        text = "&".join(f"{name}={value}" for name, value in {"live": "1", **query}.items())
        headers = [(b"authorization", f"Bearer {self.token}".encode())]
        path = f"/-/apps/{app}"
        return {
            "method": "GET",
            "path": path,
            "query_string": text.encode(),
            "headers": headers,
            "client": ("::1", 1),
        }

    @asynccontextmanager
    async def reader(self, **query: str) -> Any:
        caller = Caller()
        task = asyncio.create_task(self.pages.answer(self.scope(**query), caller.send))
        try:
            yield caller
        finally:
            task.cancel()
            await asyncio.wait([task])


def shown(caller: Caller) -> dict[str, str]:
    """The newest text of each part that this reader got."""
    return {each["name"]: each["html"] for each in parts(caller)}


def parts(caller: Caller) -> list[dict[str, str]]:
    body = b"".join(message.get("body", b"") for message in caller.messages).decode()
    return [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE", 0.01)
    monkeypatch.setattr(live, "KEEP_ALIVE", 0.05)


def test_a_change_reaches_everybody_who_has_the_page_open(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        scene.board.texts["demo"] = "first"
        async with (
            scene.reader(language="en") as one,
            scene.reader(language="en") as other,
            scene.reader(language="ru") as russian,
        ):
            await until(lambda: all("note" in shown(each) for each in (one, other, russian)))
            assert shown(one)["note"] == shown(other)["note"] == "<p>en: first</p>"
            assert shown(russian)["note"] == "<p>ru: first</p>"
            scene.board.texts["demo"] = "second"
            scene.watch.change()
            await until(lambda: all("second" in shown(each)["note"] for each in (one, other, russian)))
            assert [each["name"] for each in parts(one)].count("rest") == 1, (
                "what is the same is not sent again"
            )

    asyncio.run(play())


def test_equal_pages_are_looked_at_once(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        async with scene.reader() as one, scene.reader() as other, scene.reader() as third:
            readers = (one, other, third)
            await until(lambda: all("note" in shown(each) for each in readers))
            await until(lambda: len(scene.pages._topics) == 1)
            LOOKS.clear()
            scene.board.texts["demo"] = "second"
            scene.watch.change()
            await until(lambda: all("second" in shown(each)["note"] for each in readers))
            assert len(LOOKS) <= 2
        await until(lambda: not scene.pages._topics)

    asyncio.run(play())


def test_a_reader_who_comes_back_gets_only_what_is_new(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        async with scene.reader() as first:
            await until(lambda: len(parts(first)) == 2)
            have = ",".join(f"{each['name']}:{each['version']}" for each in parts(first))
        scene.board.texts["demo"] = "changed"
        async with scene.reader(have=have) as again:
            await until(lambda: parts(again))
            assert [each["name"] for each in parts(again)] == ["note"]

    asyncio.run(play())


def test_a_bug_in_one_page_leaves_it_as_it_is(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        async with scene.reader() as reader:
            await until(lambda: "note" in shown(reader))
            scene.board.texts["demo"] = "broken"
            scene.watch.change()
            await until(lambda: LOOKS.count("demo") > 1)
            scene.board.texts["demo"] = "whole again"
            scene.watch.change()
            await until(lambda: "whole again" in shown(reader)["note"])

    asyncio.run(play())


def test_a_stream_ends_with_the_role(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        async with scene.reader() as reader:
            await until(lambda: "note" in shown(reader))
            scene.people.take_back(Grant("ann", Role.VIEWER, "demo"))
            await until(lambda: reader.messages[-1].get("more_body") is False)

    asyncio.run(play())


@pytest.mark.parametrize(("app", "token", "status"), [("other", "", 404), ("demo", "wrong", 401)])
def test_who_may_not_see_it_gets_no_stream(tmp_path: Path, app: str, token: str, status: int) -> None:
    async def play() -> int:
        scene = Scene(tmp_path)
        scene.token = token or scene.token
        with pytest.raises(RequestRefused) as refused:
            await scene.pages.answer(scene.scope(app), Caller().send)
        assert not scene.pages._topics
        return refused.value.problem.code

    assert asyncio.run(play()) == status


def test_too_many_open_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LIMIT", 1)

    async def play() -> None:
        scene = Scene(tmp_path)
        async with scene.reader() as reader:
            await until(lambda: "note" in shown(reader))
            with pytest.raises(RequestRefused):
                await scene.pages.answer(scene.scope(), Caller().send)
        async with scene.reader() as later:
            await until(lambda: "note" in shown(later))

    asyncio.run(play())


def test_other_requests_are_not_taken(tmp_path: Path) -> None:
    async def play() -> None:
        scene = Scene(tmp_path)
        assert scene.pages.takes(scene.scope())
        assert not scene.pages.takes({**scene.scope(), "method": "POST"})
        assert not scene.pages.takes({**scene.scope(), "query_string": b""})
        assert not scene.pages.takes({**scene.scope(), "path": "/-/apps/demo/events"})

    asyncio.run(play())
