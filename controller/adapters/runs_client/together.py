"""The logs of all stages of a run at once, as they are written: one thread for each stage that is at work, and one that
looks for the next; whoever iterates gets everything in one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Queue
from typing import Final

from controller.adapters.runs_client.client import RunsClient
from controller.adapters.runs_client.logs import LogPiece
from controller.domain.run_addresses import RunAddress

_AHEAD: Final = 64  # pieces that wait to be shown; those who read more wait, too


@dataclass(frozen=True)
class _Begun:
    stage: str


_Item = _Begun | tuple[str, LogPiece] | Exception | None  # None: a thread has come to its end


def follow_all(client: RunsClient, run: RunAddress) -> Iterator[tuple[str, LogPiece]]:
    """Pieces with the names of their stages. Those of stages that are over already come first, one stage after
    another; of those at work, as they are written."""
    items: Queue[_Item] = Queue(_AHEAD)

    def follow(stage: str) -> None:
        client.follow(run, stage, None, lambda piece: items.put((stage, piece)))

    def look() -> None:
        told: set[str] = set()
        for report in client.watch(run):
            for stage in report.stages:
                if not stage.attempts or stage.name in told:
                    continue
                told.add(stage.name)
                if stage.state.terminal:
                    follow(stage.name)
                else:
                    items.put(_Begun(stage.name))

    running = 1
    _start(look, items)
    while running:
        match items.get():
            case None:
                running -= 1
            case _Begun(stage):
                running += 1
                _start(partial(follow, stage), items)
            case Exception() as error:
                raise error
            case piece:
                yield piece


def _start(work: Callable[[], None], items: Queue[_Item]) -> None:
    def turn() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised by whoever iterates
            items.put(error)
        else:
            items.put(None)

    # Nobody waits for it when the command is interrupted: it may be reading, or have nobody to tell.
    threading.Thread(target=turn, daemon=True).start()
