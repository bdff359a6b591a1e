"""Event streams, as clients read them that hand out a block at every blank line."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from controller.web.sse import EventStream, event_of
from tests.support.events import parse_events
from tests.support.gateway import Caller

TEXTS = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=20)


def streamed(datas: list[str]) -> bytes:
    async def play() -> bytes:
        caller = Caller()
        stream = EventStream(caller.send)
        await stream.start()
        for number, data in enumerate(datas):
            await stream.keep_open()
            await stream.send(event_of(data.encode(), str(number), "kind" if number % 2 else ""))
            await stream.keep_open()
        await stream.end()
        assert caller.headers["content-type"] == "text/event-stream"
        return caller.body

    return asyncio.run(play())


@given(st.lists(TEXTS, max_size=4))
def test_a_blank_line_ends_an_event_that_has_data_and_nothing_else(datas: list[str]) -> None:
    body = streamed(datas).decode()
    *blocks, rest = body.split("\n\n")
    assert len(blocks) == len(datas)
    assert "\ndata: " not in f"\n{rest}"
    for number, block in enumerate(blocks):
        fields = [line.partition(":")[0] for line in block.split("\n") if not line.startswith(":")]
        assert "data" in fields
        assert ("retry" in fields) == (number == 0), "in the first event, where every client sees it"
    assert [event.data for event in parse_events(body.encode())] == datas
    assert [event.id for event in parse_events(body.encode())] == [str(n) for n in range(len(datas))]
