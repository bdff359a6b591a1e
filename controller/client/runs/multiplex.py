"""Follows the logs of all stages of a run at once: one thread for each active stage, and one that looks for
the next; the caller gets everything in one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Queue
from typing import Final

from controller.client.runs.client import RunsClient
from controller.client.runs.logs import LogPiece
from controller.domain.runs.addresses import RunAddress

_AHEAD: Final = 64  # pieces that wait to be shown; a full queue blocks the readers


@dataclass(frozen=True)
class _StageStarted:
    stage: str


_Item = _StageStarted | tuple[str, LogPiece] | Exception | None  # None: a thread has ended


def follow_all(client: RunsClient, run: RunAddress) -> Iterator[tuple[str, LogPiece]]:
    """Yield pieces with the names of their stages. Ended stages come first, one after another; active ones as
    they are written.
    """
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
                    items.put(_StageStarted(stage.name))

    running = 1
    _start(look, items)
    while running:
        match items.get():
            case None:
                running -= 1
            case _StageStarted(stage):
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
        except Exception as error:  # noqa: BLE001 - raised in the thread that iterates
            items.put(error)
        else:
            items.put(None)

    # Nothing waits for it if the command is interrupted: it may be reading, or its queue may be full.
    threading.Thread(target=turn, daemon=True).start()
