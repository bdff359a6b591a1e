"""Pages that change while they are open, without being loaded again.

A live page is a value that says what it shows: `read` takes it from the store, `fragments` makes parts of the page of
it, each with a name. The view renders it once (`live_page`), with each part in `{{ fragment("name") }}`. A script of
the page then asks for `?live=1` at the same address, and `LivePages` sends each part again when its text has
changed; the page puts it in place of the former, and keeps what is opened, focused and scrolled (`static/morph.js`).

Equal live pages are looked at once, no matter in how many windows of how many people they are open; so a value must
have all that its text depends on (the app, whether the reader may steer it, the filter), and nothing of one person:
forms take theirs from the frame. Looks are made one after the other in a thread, and take a bounded part of its time.
A slow reader gets the newest text and misses earlier ones, so nothing piles up.

To add one: a frozen dataclass with `read` and `fragments`, a function that makes it from the request, a row in
`table.LIVE`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from flask import Response, current_app, request
from markupsafe import Markup

from controller.domain.people.roles import Principal
from controller.guards import report
from controller.ports import Store
from controller.web.api.platform.admission import judge
from controller.web.api.platform.live import client_info_of
from controller.web.auth import page_tokens
from controller.web.auth.admin import ClientInfo
from controller.web.auth.people import Callers
from controller.web.auth.rules import rule_of
from controller.web.context import context
from controller.web.gateway.body import Message, Send
from controller.web.gateway.watch import RouteWatch
from controller.web.pages.languages import Language, wanted_language
from controller.web.pages.rendering import language, page_with
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters
from controller.web.sse import EventStream, event_of

PAUSE: Final = 0.5  # seconds between two rounds of looks
SHARE: Final = 2.0  # seconds of rest for each second of a processor that was used
KEEP_ALIVE: Final = (
    15.0  # seconds between two comments in a silent stream, and two looks at the reader's rights
)
LIMIT: Final = 500  # open live pages in one worker
LONGEST_HAVE: Final = 4000
_PAIR = re.compile(r"([a-z-]+):([0-9a-f]{12})")


class LivePage(Protocol):
    """Hashable; equal ones show the same."""

    def read(self, store: Store) -> object:
        """Return what is shown, as a value that is equal as long as nothing has changed."""

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        """Return the parts of the page by name, as HTML."""


#: Makes the live page of a request. Raises RequestRefused.
MakeLivePage = Callable[[Store, Principal, Mapping[str, str], QueryParameters], LivePage]


def live_page(
    template: str,
    live: LivePage,
    scope: str,
    writes: str = "",
    path: str = "",
    connect: tuple[str, ...] = (),
    status: int = 200,
    **values: object,
) -> Response:
    """Return the page for the present request. `path` is that of the route in `table.LIVE`, if it is another one;
    the other parameters are those of `page_with`."""
    store, spoken = context(current_app).store, language()
    parts = {name: _Part.of(name, text) for name, text in live.fragments(live.read(store), spoken).items()}
    asked = {**request.args, "live": "1", "language": spoken}
    address = f"{quote(path or request.path)}?{urlencode(asked)}"
    shown = {**values, "fragment": lambda name: parts[name].element()}
    return page_with(template, shown, status, scope=scope, writes=writes, live=address, connect=connect)


@dataclass(frozen=True)
class _Part:
    name: str
    version: str
    text: str
    event: bytes

    @classmethod
    def of(cls, name: str, text: str) -> _Part:
        version = hashlib.sha256(text.encode()).hexdigest()[:12]
        data = json.dumps({"name": name, "version": version, "html": text}, ensure_ascii=False).encode()
        return cls(name, version, text, event_of(data, kind="fragment"))

    def element(self) -> Markup:
        around = Markup('<div data-fragment="{}" data-version="{}">{}</div>')
        return around.format(self.name, self.version, Markup(self.text))  # noqa: S704 - rendered by us


@dataclass(eq=False)
class _Topic:
    """One live page in one language, for all who have it open."""

    page: LivePage
    language: Language
    parts: dict[str, _Part] = field(default_factory=dict)
    found: object = None
    readers: set[asyncio.Event] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    cost: float = 0.0  # seconds of a processor that the last look has taken

    async def look(self, store: Store) -> None:
        async with self.lock:
            if await asyncio.to_thread(self._look, store):
                for reader in self.readers:
                    reader.set()

    def _look(self, store: Store) -> bool:
        began = time.thread_time()
        try:
            return self._has_changed(store)
        finally:
            self.cost = time.thread_time() - began

    def _has_changed(self, store: Store) -> bool:
        found = self.page.read(store)
        if self.parts and found == self.found:
            return False
        before = self.parts
        texts = self.page.fragments(found, self.language)
        self.parts = {name: self._part(name, text) for name, text in texts.items()}
        self.found = found
        return self.parts != before

    def _part(self, name: str, text: str) -> _Part:
        known = self.parts.get(name)
        return known if known is not None and known.text == text else _Part.of(name, text)


@dataclass(frozen=True)
class _LiveRoute:
    pattern: re.Pattern[str]
    route: str
    make: MakeLivePage


class LivePages:
    """The streams of one worker, on its event loop."""

    def __init__(
        self,
        store: Store,
        watch: RouteWatch,
        callers: Callers,
        pages: Mapping[str, MakeLivePage],
    ) -> None:
        self._store = store
        self._watch = watch
        self._callers = callers
        self._routes = tuple(
            _LiveRoute(re.compile(re.sub("<([a-z]+)>", "(?P<\\1>[^/]+)", route)), route, make)
            for route, make in pages.items()
        )
        self._topics: dict[tuple[LivePage, Language], _Topic] = {}
        self._round: asyncio.Task[None] | None = None
        self._open = 0

    def takes(self, scope: Message) -> bool:
        if scope["method"] not in ("GET", "HEAD") or b"live=1" not in scope["query_string"]:
            return False
        return any(route.pattern.fullmatch(scope["path"]) for route in self._routes)

    async def answer(self, scope: Message, send: Send) -> None:
        """Send changes of a page until its reader leaves, or may not see it any more. Raises RequestRefused."""
        if self._open >= LIMIT:
            detail = "Too many pages are open: this one does not change by itself."
            raise RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=30))
        self._open += 1
        try:
            await self._answer(scope, send)
        finally:
            self._open -= 1

    async def _answer(self, scope: Message, send: Send) -> None:
        client, query = client_info_of(scope), QueryParameters.of(scope["query_string"])
        spoken = wanted_language(query.text("language") or "", client.headers.get("accept-language", ""))
        _, shown = await asyncio.to_thread(self._admit, client, query)
        topic = self._topic(shown, spoken)
        reader = asyncio.Event()
        topic.readers.add(reader)
        try:
            if not topic.parts:
                await topic.look(self._store)
            stream = EventStream(send)
            await stream.start()
            await self._follow(stream, topic, reader, client, query)
            await stream.end()
        finally:
            self._leave(topic, reader)

    async def _follow(
        self,
        stream: EventStream,
        topic: _Topic,
        reader: asyncio.Event,
        client: ClientInfo,
        query: QueryParameters,
    ) -> None:
        sent = dict(_PAIR.findall((query.text("have") or "")[:LONGEST_HAVE]))
        admitted, renewed = time.monotonic(), time.monotonic()
        while not self._watch.stopping:
            reader.clear()
            for part in list(topic.parts.values()):
                if sent.get(part.name) != part.version:
                    sent[part.name] = part.version
                    await stream.send(part.event)
            await _waited(reader, KEEP_ALIVE)
            if time.monotonic() - admitted > KEEP_ALIVE:
                who = await self._still(client, query, topic.page)
                if who is None:
                    return
                admitted = time.monotonic()
                if admitted - renewed > page_tokens.LIFETIME / 4:
                    await stream.send(event_of(self._renewed(client, who).encode(), kind="token"))
                    renewed = admitted
            await stream.keep_open()

    def _admit(self, client: ClientInfo, query: QueryParameters) -> tuple[Principal, LivePage]:
        """Return who reads the page and what they see there. Raises RequestRefused."""
        route, found = next(
            (route, match) for route in self._routes if (match := route.pattern.fullmatch(client.path))
        )
        rule, who = rule_of("GET", route.route), self._callers.identify(client)
        if rule is None or who is None:
            raise RequestRefused(HttpProblem(ProblemKind.UNAUTHORIZED, "Load the page again, and sign in."))
        judge(who, rule.act, found.groupdict().get("name", ""))
        return who, route.make(self._store, who, found.groupdict(), query)

    async def _still(self, client: ClientInfo, query: QueryParameters, shown: LivePage) -> Principal | None:
        """Return the reader if they may still see the same; asked for again and again, since sessions and roles
        end. A script whose token has become too old comes back with the one that it got since."""
        try:
            who, now_shown = await asyncio.to_thread(self._admit, client, query)
        except RequestRefused:
            return None
        return who if now_shown == shown else None

    def _renewed(self, client: ClientInfo, who: Principal) -> str:
        token = page_tokens.read_token(client.headers.get(page_tokens.HEADER, ""))
        return self._callers.page_token(who, token.path, token.writes) if token else ""

    def _topic(self, shown: LivePage, spoken: Language) -> _Topic:
        topic = self._topics.setdefault((shown, spoken), _Topic(shown, spoken))
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._look_around())
        return topic

    def _leave(self, topic: _Topic, reader: asyncio.Event) -> None:
        topic.readers.discard(reader)
        key = (topic.page, topic.language)
        if not topic.readers and self._topics.get(key) is topic:
            del self._topics[key]

    async def _look_around(self) -> None:
        """Look at all topics whenever the store has changed, until there are none."""
        while self._topics and not self._watch.stopping:
            for topic in list(self._topics.values()):
                try:
                    await topic.look(self._store)
                except Exception as error:  # noqa: BLE001 - what is shown stays, and is looked at again
                    report(f"the live page {topic.page} cannot be made", error)
                await asyncio.sleep(SHARE * topic.cost)
            await asyncio.sleep(PAUSE)
            await self._watch.wait(KEEP_ALIVE)


async def _waited(reader: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await reader.wait()
    except TimeoutError:
        return
