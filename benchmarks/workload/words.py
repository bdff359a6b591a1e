"""Answers a chat with words: the server takes all of the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WORDS = ("to ", "be ", "or ", "not ")


def predict(inputs: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Say words.

    :param inputs.messages: what was said
    :type inputs.messages: dict
    :param outputs.content: a word
    :type outputs.content: str
    """
    for word in WORDS:
        yield {"content": word}
