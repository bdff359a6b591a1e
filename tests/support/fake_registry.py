"""`FakeRegistry`: the port `ImageRegistry` in memory. A test pushes and removes tags, and can inject failures."""

from __future__ import annotations

import hashlib
from typing import Any

from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.ports import RemoteImage


def digest_of(content: str) -> str:
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


class FakeRegistry:
    """`fault`: what each question raises; `asked` are the questions."""

    def __init__(self) -> None:
        self.fault: ControllerError | None = None
        self.asked: list[str] = []
        self._tags: dict[str, dict[str, str]] = {}
        self._platforms: dict[str, frozenset[str]] = {}

    def push(self, name: str, tag: str, content: str = "", platforms: frozenset[str] | None = None) -> str:
        """The image as `name:tag@digest`."""
        digest = digest_of(content or f"{name}:{tag}")
        self._tags.setdefault(name, {})[tag] = digest
        if platforms is not None:
            self._platforms[digest] = platforms
        return f"{name}:{tag}@{digest}"

    def remove(self, name: str, tag: str) -> None:
        del self._tags[name][tag]

    def tags(self, name: str, registries: Any) -> tuple[str, ...]:
        self._ask(f"tags of {name}")
        if name not in self._tags:
            raise Stalled(Reason.IMAGE_NOT_FOUND, f"there is no {name}")
        return tuple(self._tags[name])

    def image(self, name: str, tag: str, registries: Any, known: str = "") -> RemoteImage:
        self._ask(f"{name}:{tag}")
        digest = self._tags.get(name, {}).get(tag)
        if digest is None:
            raise Stalled(Reason.IMAGE_NOT_FOUND, f"there is no {name}:{tag}")
        return RemoteImage(digest, None if digest == known else self._platforms.get(digest))

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.fault:
            raise self.fault
