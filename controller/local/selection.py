"""Selects the namespace and the component of a manifest. Used by `serve` and `manifest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.manifests.reader import read
from controller.ports import SourceFile

APP: Final = AppName("local")  # where the manifests name no namespace


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def namespace_of(files: tuple[SourceFile, ...]) -> AppName:
    """Return the namespace in the manifests, or `APP` if there is none."""
    named = (document.get("metadata", "namespace") for document in read(files).documents)
    return AppName(next((name for name in named if isinstance(name, str)), APP))


def choose(candidates: Sequence[T], name: str | None, noun: str, option: str) -> T:
    """Return the candidate called `name`, or the only one. Raises Stalled `UnknownComponent`, which names the
    candidates and the command line's `option`.
    """
    names = ", ".join(each.name for each in candidates)
    if name is None and len(candidates) == 1:
        return candidates[0]
    if name is None:
        several = f"several {noun}s ({names}): choose one with {option}"
        none = f"no {noun}: check the path of the manifest"
        raise Stalled(Reason.UNKNOWN_COMPONENT, f"the manifest has {several if candidates else none}")
    found = next((each for each in candidates if each.name == name), None)
    if found is None:
        raise Stalled(
            Reason.UNKNOWN_COMPONENT, f"the manifest has no {noun} {name!r}, only: {names or 'none'}"
        )
    return found
